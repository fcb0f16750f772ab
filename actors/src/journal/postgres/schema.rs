//! The tables, their version, and the lock of a node's name.

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::{signed, unsigned};

/// The version of the tables.
pub(super) const VERSION: u64 = 1;

/// Advisory locks of ours have this as their first number: "NFLJ".
pub(super) const LOCKS: i32 = 0x4E46_4C4A;

/// The version of the tables that are there, if there are any.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
    let table = sqlx::query("SELECT to_regclass('neuroflow_journal') IS NOT NULL AS there");
    if !table.fetch_one(&mut *connection).await?.try_get::<bool, _>("there")? {
        return Ok(None);
    }
    let row = sqlx::query("SELECT version FROM neuroflow_journal");
    let row = row.fetch_optional(connection).await?;
    row.map(|row| Ok(unsigned(row.try_get("version")?))).transpose()
}

/// Makes the tables if there are none. Gives the version of those that are there.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Two nodes that start at once would both find nothing.
    sqlx::query("SELECT pg_advisory_xact_lock($1, 0)")
        .bind(LOCKS)
        .execute(&mut *transaction)
        .await?;
    for statement in TABLES {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    sqlx::query("INSERT INTO neuroflow_journal (version) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(signed(VERSION))
        .execute(&mut *transaction)
        .await?;
    let row =
        sqlx::query("SELECT version FROM neuroflow_journal").fetch_one(&mut *transaction).await?;
    let found = unsigned(row.try_get("version")?);
    if found == VERSION {
        transaction.commit().await?;
    } else {
        // Nothing is changed in tables that another version has made.
        transaction.rollback().await?;
    }
    Ok(found)
}

/// Takes the lock of a node's name for as long as the connection lasts. Says whether it was free.
pub(super) async fn claim(connection: &mut PgConnection, node: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT pg_try_advisory_lock($1, hashtext($2)) AS free")
        .bind(LOCKS)
        .bind(node)
        .fetch_one(connection)
        .await?;
    row.try_get("free")
}

/// Text is compared by its bytes, as the other journals do.
const TABLES: [&str; 9] = [
    "CREATE TABLE IF NOT EXISTS neuroflow_journal (
       one boolean PRIMARY KEY DEFAULT true CHECK (one),
       version bigint NOT NULL
     )",
    r#"CREATE TABLE IF NOT EXISTS neuroflow_task (
       agent text COLLATE "C" NOT NULL,
       task text COLLATE "C" NOT NULL,
       context text COLLATE "C" NOT NULL,
       caller text COLLATE "C",
       state smallint NOT NULL,
       ended boolean NOT NULL,
       at_ms bigint NOT NULL,
       generation bigint NOT NULL,
       entries bigint NOT NULL,
       bytes bigint NOT NULL,
       node text NOT NULL,
       PRIMARY KEY (agent, task)
     )"#,
    r#"CREATE TABLE IF NOT EXISTS neuroflow_entry (
       agent text COLLATE "C" NOT NULL,
       task text COLLATE "C" NOT NULL,
       number bigint NOT NULL,
       kind smallint NOT NULL,
       key text NOT NULL,
       message bigint NOT NULL,
       version integer NOT NULL,
       crc bigint NOT NULL,
       body bytea NOT NULL,
       PRIMARY KEY (agent, task, number)
     )"#,
    // What of the ended tasks each node has added and taken away: only the sums mean something.
    "CREATE TABLE IF NOT EXISTS neuroflow_ended (
       node text PRIMARY KEY,
       tasks bigint NOT NULL,
       bytes bigint NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS neuroflow_task_order ON neuroflow_task (agent, at_ms, task)",
    // Lists are counted at each page. One of a conversation, or of what a caller may see, has few of all tasks.
    "CREATE INDEX IF NOT EXISTS neuroflow_task_context ON neuroflow_task (agent, context)",
    "CREATE INDEX IF NOT EXISTS neuroflow_task_caller ON neuroflow_task (agent, caller, at_ms)",
    "CREATE INDEX IF NOT EXISTS neuroflow_task_open ON neuroflow_task (agent, node) WHERE NOT ended",
    // What retention looks at, which every node does all the time: the oldest.
    "CREATE INDEX IF NOT EXISTS neuroflow_task_ended ON neuroflow_task (at_ms, task) INCLUDE (bytes)
       WHERE ended",
];
