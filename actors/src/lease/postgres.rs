//! Leases in a table: who takes, keeps and gives back a key, by the database's clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use neuroflow_kernel::Clock;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::{Fence, Holder};
use crate::journal::DatabaseError;
use crate::limits::{DATABASE_DEADLINE, LEASE_CONNECTIONS, LEASE_KEEPING};

/// The leases of one start of one node. Each kind of statement has connections of its own, so that none waits
/// for another: who isn't told in time that its key is still its own loses all that it works on.
#[derive(Debug)]
pub(super) struct Database {
    takes: PgPool,
    keeps: PgPool,
    returns: PgPool,
    looks: PgPool,
    node: String,
    clock: Clock,
}

/// A key as one keeper asks for it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    text: String,
    /// Tells this keeper from others of the same key, on this node too.
    instance: i64,
}

impl Key {
    pub(super) fn new(text: &str) -> Self {
        let instance = RandomState::new().build_hasher().finish().cast_signed();
        Self { text: text.to_owned(), instance }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Advisory lock for making the table: "NFLL".
const LOCK: i64 = 0x4E46_4C4C;

const TABLE: &str = r#"CREATE TABLE IF NOT EXISTS neuroflow_lease (
    key text COLLATE "C" PRIMARY KEY,
    node text NOT NULL,
    instance bigint NOT NULL,
    fence bigint NOT NULL,
    expires timestamptz NOT NULL
)"#;

impl Database {
    pub(super) async fn open(url: &str, node: &str, clock: Clock) -> Result<Self, DatabaseError> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("neuroflow");
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(DATABASE_DEADLINE)
                .connect_lazy_with(options.clone())
        };
        let database = Self {
            takes: pool(LEASE_CONNECTIONS),
            keeps: pool(LEASE_KEEPING),
            returns: pool(LEASE_CONNECTIONS),
            looks: pool(LEASE_CONNECTIONS),
            node: node.to_owned(),
            clock,
        };
        database.in_time(database.prepare()).await?;
        Ok(database)
    }

    /// One that is never there.
    #[cfg(test)]
    pub(super) fn nowhere(clock: Clock) -> Self {
        let options = PgConnectOptions::new_without_pgpass().socket("/nowhere");
        let pool = || PgPoolOptions::new().connect_lazy_with(options.clone());
        let (takes, keeps, returns, looks) = (pool(), pool(), pool(), pool());
        Self { takes, keeps, returns, looks, node: "a".to_owned(), clock }
    }

    async fn prepare(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.takes.begin().await?;
        // Two nodes that start at once would both find nothing.
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(TABLE).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        let deadline = self.clock.now() + DATABASE_DEADLINE;
        match self.clock.before(deadline, work).await {
            Ok(done) => Ok(done?),
            Err(_elapsed) => Err(DatabaseError::TimedOut { after: DATABASE_DEADLINE }),
        }
    }

    /// Takes a key that nobody holds, or that this very keeper held in an earlier life, or this node, which has no right
    /// to it. Rows are never removed: the fence is in them.
    pub(super) async fn take(
        &self,
        key: &Key,
        term: Duration,
        from: Option<&str>,
    ) -> Result<Option<Fence>, DatabaseError> {
        let statement = sqlx::query(
            "INSERT INTO neuroflow_lease AS lease (key, node, instance, fence, expires)
             VALUES ($1, $2, $3, 1, now() + $4 * interval '1 millisecond')
             ON CONFLICT (key) DO UPDATE SET node = EXCLUDED.node, instance = EXCLUDED.instance,
               fence = lease.fence + 1, expires = EXCLUDED.expires
             WHERE lease.expires <= now() OR lease.instance = EXCLUDED.instance OR lease.node = $5
             RETURNING fence",
        );
        let statement = statement
            .bind(&key.text)
            .bind(&self.node)
            .bind(key.instance)
            .bind(millis(term))
            .bind(from);
        let row = self.in_time(statement.fetch_optional(&self.takes)).await?;
        row.map(|row| fence(&row)).transpose()
    }

    /// Keeps a key for another term; says whether it's still this holder's.
    pub(super) async fn keep(
        &self,
        key: &Key,
        fence: Fence,
        term: Duration,
    ) -> Result<bool, DatabaseError> {
        let statement = sqlx::query(
            "UPDATE neuroflow_lease SET expires = now() + $4 * interval '1 millisecond'
             WHERE key = $1 AND instance = $2 AND fence = $3 AND expires > now()",
        );
        let statement = statement.bind(&key.text).bind(key.instance).bind(fence.0.cast_signed());
        let done = self.in_time(statement.bind(millis(term)).execute(&self.keeps)).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a key back, so that the next holder needn't wait.
    pub(super) async fn give_back(&self, key: &Key, fence: Fence) -> Result<(), DatabaseError> {
        let statement = sqlx::query(
            "UPDATE neuroflow_lease SET expires = now()
             WHERE key = $1 AND instance = $2 AND fence = $3",
        );
        let statement = statement.bind(&key.text).bind(key.instance).bind(fence.0.cast_signed());
        self.in_time(statement.execute(&self.returns)).await?;
        Ok(())
    }

    pub(super) async fn holder(&self, key: &str) -> Result<Option<Holder>, DatabaseError> {
        let statement = sqlx::query(
            "SELECT node, fence FROM neuroflow_lease WHERE key = $1 AND expires > now()",
        );
        let row = self.in_time(statement.bind(key).fetch_optional(&self.looks)).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Holder { node: row.try_get("node")?, fence: fence(&row)? }))
    }
}

fn fence(row: &sqlx::postgres::PgRow) -> Result<Fence, DatabaseError> {
    let fence: i64 = row.try_get("fence")?;
    Ok(Fence(fence.cast_unsigned()))
}

#[expect(clippy::cast_precision_loss, reason = "a term is far below 2^52 milliseconds")]
fn millis(term: Duration) -> f64 {
    term.as_millis() as f64
}
