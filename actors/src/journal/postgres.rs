//! The journal in a `PostgreSQL` database, for many nodes: the same contract, and one row per entry.
//!
//! One connection commits. It also holds the lock of this node's name, so that nobody else takes
//! this node's unfinished tasks for its own; reads have a pool beside it.

mod commit;
mod retention;
mod schema;
mod write;

use std::sync::Mutex as Held;
use std::time::Duration;

use neuroflow_kernel::{Clock, MessageId, RawParcel};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection as _, Row as _};
use tokio::sync::Mutex;

use super::codec::{entry_kind, state_code, state_of};
use super::index::Kept;
use super::{
    AppendError, DamageKind, DatabaseError, Entry, HeadPage, JournalDamage, OpenError, ReadError,
    TaskCursor, TaskHead, TaskLog, TaskQuery,
};
use crate::limits::{DATABASE_CONNECTIONS, DATABASE_DEADLINE, DATABASE_PREPARE, JOURNAL_PAGE};

/// A journal in a database.
#[derive(Debug)]
pub(super) struct Postgres {
    options: PgConnectOptions,
    pool: PgPool,
    node: String,
    clock: Clock,
    /// Whether it's only to be read.
    closed: bool,
    /// The connection that commits; none after it broke.
    writer: Mutex<Option<PgConnection>>,
    /// What had ended at this node's last look, and what it has ended since.
    ended: Held<Kept>,
}

/// The first wait before connecting again.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

impl Postgres {
    pub(super) async fn open(url: &str, node: &str, clock: Clock) -> Result<Self, OpenError> {
        let journal = Self::at(url, node, clock, false)?;
        let mut writer = journal.connect().await?;
        let prepared = journal.within(DATABASE_PREPARE, schema::prepare(&mut writer)).await?;
        known(prepared)?;
        // A node that has just died may still be connected for a moment.
        let deadline = journal.clock.now() + DATABASE_DEADLINE;
        while !journal.in_time(schema::claim(&mut writer, &journal.node)).await? {
            if journal.clock.now() >= deadline {
                return Err(OpenError::Locked { place: format!("of node {}", journal.node) });
            }
            journal.clock.sleep(FIRST_BACKOFF).await;
        }
        let counted = retention::count(&mut writer, &journal.node);
        journal.within(DATABASE_PREPARE, counted).await?;
        *journal.writer.lock().await = Some(writer);
        Ok(journal)
    }

    /// Changes nothing in the database, and needs no right to.
    pub(super) async fn open_to_read(url: &str, clock: Clock) -> Result<Self, OpenError> {
        let journal = Self::at(url, "", clock, true)?;
        let mut connection = journal.dial().await?;
        match journal.in_time(schema::version(&mut connection)).await? {
            Some(found) => known(found)?,
            None => return Err(OpenError::Absent { place: DATABASE.to_owned() }),
        }
        Ok(journal)
    }

    fn at(url: &str, node: &str, clock: Clock, closed: bool) -> Result<Self, OpenError> {
        let options: PgConnectOptions =
            url.parse().map_err(|error| OpenError::Database(DatabaseError::Sql(error)))?;
        let options = options.application_name("neuroflow");
        let mut pool = PgPoolOptions::new()
            .max_connections(DATABASE_CONNECTIONS)
            .acquire_timeout(DATABASE_DEADLINE);
        if closed {
            pool = pool.after_connect(|connection, _| {
                Box::pin(async {
                    let close = sqlx::query("SET default_transaction_read_only = on");
                    close.execute(connection).await.map(|_| ())
                })
            });
        }
        let pool = pool.connect_lazy_with(options.clone());
        let (node, writer, ended) = (node.to_owned(), Mutex::new(None), Held::default());
        Ok(Self { options, pool, node, clock, closed, writer, ended })
    }

    /// A connection that commits.
    async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        if self.closed { Err(DatabaseError::ReadOnly) } else { self.dial().await }
    }

    async fn dial(&self) -> Result<PgConnection, DatabaseError> {
        self.in_time(PgConnection::connect_with(&self.options)).await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        self.within(DATABASE_DEADLINE, work).await
    }

    async fn within<T>(
        &self,
        after: Duration,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        match self.clock.before(self.clock.now() + after, work).await {
            Ok(done) => Ok(done?),
            Err(_elapsed) => Err(DatabaseError::TimedOut { after }),
        }
    }

    /// Where a task stands, if there is such a task.
    pub(super) async fn head(
        &self,
        agent: &str,
        task: &str,
    ) -> Result<Option<TaskHead>, ReadError> {
        let row = sqlx::query(
            "SELECT agent, task, context, caller, state, at_ms, generation, entries
             FROM neuroflow_task WHERE agent = $1 AND task = $2",
        );
        let row = row.bind(agent).bind(task).fetch_optional(&self.pool);
        let row = self.in_time(row).await.map_err(unread)?;
        row.as_ref().map(head).transpose().map_err(unread)
    }

    pub(super) async fn read(&self, agent: &str, task: &str) -> Result<Option<TaskLog>, ReadError> {
        let Some(head) = self.head(agent, task).await? else { return Ok(None) };
        let rows = sqlx::query(
            "SELECT number, kind, key, message, version, crc, body FROM neuroflow_entry
             WHERE agent = $1 AND task = $2 AND number <= $3 ORDER BY number",
        );
        let rows = rows.bind(agent).bind(task).bind(signed(head.entries)).fetch_all(&self.pool);
        let rows = self.in_time(rows).await.map_err(unread)?;
        let (mut entries, mut damage) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut expected = 1;
        for row in &rows {
            let number = unsigned(row.try_get("number").map_err(row_error)?);
            if number != expected {
                damage.push(lost(&head, expected, DamageKind::Missing, 0));
            }
            expected = number + 1;
            match entry(row).map_err(unread)? {
                Ok(entry) => entries.push(entry),
                Err(bytes) => damage.push(lost(&head, number, DamageKind::Content, bytes)),
            }
        }
        if expected <= head.entries {
            damage.push(lost(&head, expected, DamageKind::Missing, 0));
        }
        // Nothing is missing of a task that was removed between the two statements.
        if !damage.is_empty() && self.head(agent, task).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(TaskLog { head, entries, damage }))
    }

    /// Whether the database takes what is written: a standby, and one that was made read-only, answers
    /// reads all the same.
    pub(super) async fn answers(&self) -> Result<(), DatabaseError> {
        let row = sqlx::query("SELECT current_setting('transaction_read_only') = 'on' AS closed");
        let row = self.in_time(row.fetch_one(&self.pool)).await?;
        if row.try_get("closed")? { Err(DatabaseError::ReadOnly) } else { Ok(()) }
    }

    pub(super) async fn agents(&self) -> Result<Vec<String>, ReadError> {
        let rows = sqlx::query("SELECT DISTINCT agent FROM neuroflow_task ORDER BY agent");
        let rows = self.in_time(rows.fetch_all(&self.pool)).await.map_err(unread)?;
        rows.iter().map(|row| row.try_get("agent").map_err(row_error)).collect()
    }

    pub(super) async fn heads(
        &self,
        agent: &str,
        query: &TaskQuery,
    ) -> Result<HeadPage, ReadError> {
        let state = query.state.map(|state| i16::from(state_code(state)));
        let since = signed(query.since_ms.unwrap_or(0));
        let total = sqlx::query(
            "SELECT count(*) AS total FROM neuroflow_task WHERE agent = $1
             AND ($2::text IS NULL OR context = $2) AND ($3::smallint IS NULL OR state = $3)
             AND at_ms >= $4 AND ($5::text IS NULL OR caller = $5)",
        );
        let total =
            total.bind(agent).bind(&query.context).bind(state).bind(since).bind(&query.caller);
        let total = self.in_time(total.fetch_one(&self.pool)).await.map_err(unread)?;
        let total: i64 = total.try_get("total").map_err(row_error)?;
        let limit = query.limit.clamp(1, JOURNAL_PAGE);
        let rows = sqlx::query(
            r#"SELECT agent, task, context, caller, state, at_ms, generation, entries
             FROM neuroflow_task WHERE agent = $1
             AND ($2::text IS NULL OR context = $2) AND ($3::smallint IS NULL OR state = $3)
             AND at_ms >= $4 AND ($5::text IS NULL OR caller = $5)
             AND ($6::bigint IS NULL OR at_ms < $6 OR (at_ms = $6 AND task > $7::text COLLATE "C"))
             ORDER BY at_ms DESC, task LIMIT $8"#,
        );
        let after = query.after.as_ref();
        let rows = rows
            .bind(agent)
            .bind(&query.context)
            .bind(state)
            .bind(since)
            .bind(&query.caller)
            .bind(after.map(|cursor| signed(cursor.changed_ms)))
            .bind(after.map(|cursor| cursor.task.as_str()))
            // One more than the page has tells whether another follows.
            .bind(i64::try_from(limit + 1).unwrap_or(i64::MAX));
        let rows = self.in_time(rows.fetch_all(&self.pool)).await.map_err(unread)?;
        let heads = rows.iter().take(limit).map(head).collect::<Result<Vec<_>, _>>();
        let heads = heads.map_err(unread)?;
        let next = (rows.len() > limit).then(|| heads.last()).flatten();
        let next =
            next.map(|last| TaskCursor { changed_ms: last.changed_ms, task: last.task.clone() });
        Ok(HeadPage { total: usize::try_from(total).unwrap_or(0), heads, next })
    }

    pub(super) async fn unfinished(&self, agent: &str) -> Result<Vec<TaskHead>, ReadError> {
        let rows = sqlx::query(
            "SELECT agent, task, context, caller, state, at_ms, generation, entries
             FROM neuroflow_task WHERE agent = $1 AND node = $2 AND NOT ended
             ORDER BY at_ms, task",
        );
        let rows = rows.bind(agent).bind(&self.node).fetch_all(&self.pool);
        let rows = self.in_time(rows).await.map_err(unread)?;
        rows.iter().map(head).collect::<Result<Vec<_>, _>>().map_err(unread)
    }
}

/// How a database is called where its URL, which may have a password, is nobody's business.
const DATABASE: &str = "the database";

/// Whether tables are of a version that this build knows.
fn known(found: u64) -> Result<(), OpenError> {
    let known = schema::VERSION;
    if found == known {
        return Ok(());
    }
    Err(OpenError::UnknownFormat { place: DATABASE.to_owned(), found, known })
}

fn unread(error: DatabaseError) -> ReadError {
    ReadError::Database { source: std::sync::Arc::new(error) }
}

fn row_error(error: sqlx::Error) -> ReadError {
    unread(DatabaseError::Sql(error))
}

fn unwritten(error: DatabaseError) -> AppendError {
    AppendError::Database { source: std::sync::Arc::new(error), unknown: true }
}

fn lost(head: &TaskHead, number: u64, kind: DamageKind, bytes: usize) -> JournalDamage {
    JournalDamage {
        place: "table neuroflow_entry".to_owned(),
        offset: 0,
        bytes: bytes as u64,
        kind,
        agent: Some(head.agent.clone()),
        task: Some(head.task.clone()),
        number: Some(number),
        generation: None,
    }
}

fn head(row: &PgRow) -> Result<TaskHead, DatabaseError> {
    let state: i16 = row.try_get("state")?;
    let state = u8::try_from(state).ok().and_then(state_of);
    Ok(TaskHead {
        agent: row.try_get("agent")?,
        task: row.try_get("task")?,
        context: row.try_get("context")?,
        caller: row.try_get("caller")?,
        state: state.ok_or(DatabaseError::Row { table: "neuroflow_task", column: "state" })?,
        changed_ms: unsigned(row.try_get("at_ms")?),
        generation: unsigned(row.try_get("generation")?),
        entries: unsigned(row.try_get("entries")?),
    })
}

/// An entry, or the bytes of one that doesn't fit its checksum.
fn entry(row: &PgRow) -> Result<Result<Entry, usize>, DatabaseError> {
    let body: &[u8] = row.try_get("body")?;
    let crc: i64 = row.try_get("crc")?;
    if i64::from(crc32fast::hash(body)) != crc {
        return Ok(Err(body.len()));
    }
    let table = "neuroflow_entry";
    let kind: i16 = row.try_get("kind")?;
    let kind = u8::try_from(kind).ok().and_then(entry_kind);
    let kind = kind.ok_or(DatabaseError::Row { table, column: "kind" })?;
    let version: i32 = row.try_get("version")?;
    let version = u16::try_from(version).ok();
    let version = version.ok_or(DatabaseError::Row { table, column: "version" })?;
    let message: i64 = row.try_get("message")?;
    let parcel = RawParcel::new(MessageId::from(message.cast_unsigned()), version, body);
    Ok(Ok(Entry { kind, key: row.try_get("key")?, parcel }))
}

/// The database has signed numbers only; ours are far below their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
