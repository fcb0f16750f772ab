//! What is kept of ended tasks. How many there are is counted as they end, in a row for each node that
//! ends or removes some: no look counts them, and no node waits for another's row.

use std::sync::PoisonError;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::super::index::Kept;
use super::super::{AppendError, DatabaseError, PUSH, Retention};
use super::schema::LOCKS;
use super::{Postgres, signed, unsigned, unwritten};
use crate::limits::{RETENTION_ENTRIES, RETENTION_STEP};

/// What a transaction changes in the number of ended tasks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) tasks: i64,
    pub(super) bytes: i64,
}

impl Shift {
    pub(super) fn add(&mut self, tasks: i64, bytes: i64) {
        self.tasks += tasks;
        self.bytes += bytes;
    }
}

/// Counts all ended tasks, once at each start of a node, which holds the lock of its name by then: so the rows
/// of nodes that are gone are merged, and what somebody else has changed in the tables is known. However long
/// that takes, nobody's commit waits for it.
pub(super) async fn count(connection: &mut PgConnection, node: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Two nodes that start at once would both add what is missing.
    let alone = sqlx::query("SELECT pg_advisory_xact_lock($1, 0)").bind(LOCKS);
    alone.execute(&mut *transaction).await?;
    let missing = sqlx::query(MISSING).fetch_one(&mut *transaction).await?;
    let (tasks, bytes): (i64, i64) = (missing.try_get("tasks")?, missing.try_get("bytes")?);
    let merge = sqlx::query(MERGE).bind(node).bind(tasks).bind(bytes);
    merge.execute(&mut *transaction).await?;
    transaction.commit().await
}

/// One statement, so that tasks and sums are of the same moment. Who ends or removes tasks changes both in one
/// transaction: what is missing stays the same meanwhile.
const MISSING: &str = "SELECT t.tasks - s.tasks AS tasks, t.bytes - s.bytes AS bytes
 FROM (SELECT count(*) AS tasks, coalesce(sum(bytes), 0)::bigint AS bytes
       FROM neuroflow_task WHERE ended) AS t,
      (SELECT coalesce(sum(tasks), 0)::bigint AS tasks, coalesce(sum(bytes), 0)::bigint AS bytes
       FROM neuroflow_ended) AS s";

/// A node that changes its row at that moment waits for no more than this, and has a new one then.
const MERGE: &str = "WITH merged AS (
   DELETE FROM neuroflow_ended WHERE node <> $1::text RETURNING tasks, bytes
 )
 INSERT INTO neuroflow_ended AS c (node, tasks, bytes)
 SELECT $1::text, $2::bigint + coalesce(sum(tasks), 0)::bigint,
   $3::bigint + coalesce(sum(bytes), 0)::bigint FROM merged
 ON CONFLICT (node) DO UPDATE
 SET tasks = c.tasks + excluded.tasks, bytes = c.bytes + excluded.bytes";

/// One statement, so that the count and the tasks are of the same moment: what another node removes
/// meanwhile is in both or in neither. An open end of the range and an age are one condition of the index.
const DUE: &str = "SELECT s.tasks AS all_tasks, s.bytes AS all_bytes, t.*
 FROM (SELECT coalesce(sum(tasks), 0)::bigint AS tasks, coalesce(sum(bytes), 0)::bigint AS bytes
       FROM neuroflow_ended) AS s
 LEFT JOIN LATERAL (
   SELECT agent, task, at_ms, bytes, entries FROM neuroflow_task WHERE ended
   AND at_ms < CASE WHEN s.tasks > $1::bigint OR s.bytes > $2::bigint
     THEN 9223372036854775807 ELSE $3::bigint END
   ORDER BY at_ms, task LIMIT $4::bigint) AS t ON true";

/// Where clients wanted to be told of a task goes with it, also if that has no end because its node is gone. A
/// build before this one has named such logs by the task alone.
const REMOVE: &str = "WITH gone AS (
   DELETE FROM neuroflow_task AS t
   USING unnest($1::text[], $2::text[]) AS u(agent, task)
   WHERE t.agent = u.agent AND t.task = u.task AND t.ended
   RETURNING t.agent, t.task, t.bytes
 ), about AS (
   DELETE FROM neuroflow_task AS t
   USING (SELECT agent || '/' || task AS name FROM gone) AS g
   WHERE t.agent = $4::text AND NOT t.ended AND (t.context = g.name OR t.task = g.name)
   RETURNING t.agent, t.task
 ), entries AS (
   DELETE FROM neuroflow_entry AS e
   USING (SELECT agent, task FROM gone UNION ALL SELECT agent, task FROM about) AS r
   WHERE e.agent = r.agent AND e.task = r.task
 ), counted AS (
   INSERT INTO neuroflow_ended AS c (node, tasks, bytes)
   SELECT $3::text, -count(*), -coalesce(sum(bytes), 0)::bigint FROM gone HAVING count(*) > 0
   ON CONFLICT (node) DO UPDATE
   SET tasks = c.tasks + excluded.tasks, bytes = c.bytes + excluded.bytes
 )
 SELECT count(*) AS removed FROM gone";

impl Postgres {
    /// What has ended, as far as this node knows.
    pub(in super::super) fn ended(&self) -> Kept {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shift(&self, by: Shift) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.tasks = ended.tasks.saturating_add_signed(by.tasks);
        ended.bytes = ended.bytes.saturating_add_signed(by.bytes);
    }

    /// Ended tasks that aren't kept any longer, the oldest first: as many as one statement removes in
    /// its time.
    pub(in super::super) async fn due(
        &self,
        keep: &Retention,
        age_limit_ms: Option<u64>,
    ) -> Result<Vec<(String, String)>, AppendError> {
        let rows = sqlx::query(DUE)
            .bind(i64::try_from(keep.tasks).unwrap_or(i64::MAX))
            .bind(signed(keep.bytes))
            .bind(signed(age_limit_ms.unwrap_or(0)))
            .bind(i64::try_from(RETENTION_STEP).unwrap_or(i64::MAX));
        let rows = self.in_time(rows.fetch_all(&self.pool)).await.map_err(unwritten)?;
        let sql = |error| unwritten(DatabaseError::Sql(error));
        let (mut due, mut entries) = (Vec::new(), 0);
        let Some(first) = rows.first() else { return Ok(due) };
        let ended = Kept {
            tasks: unsigned(first.try_get("all_tasks").map_err(sql)?),
            bytes: unsigned(first.try_get("all_bytes").map_err(sql)?),
        };
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        let mut excess = keep.excess(ended);
        for row in &rows {
            // Without a task there is one row with the sums alone.
            let Some(at_ms) = row.try_get::<Option<i64>, _>("at_ms").map_err(sql)? else { break };
            let aged = age_limit_ms.is_some_and(|limit| unsigned(at_ms) < limit);
            let exceeds = excess.takes(unsigned(row.try_get("bytes").map_err(sql)?));
            entries += unsigned(row.try_get("entries").map_err(sql)?);
            let room = entries <= RETENTION_ENTRIES || due.is_empty();
            if !room || !(exceeds || aged) {
                break;
            }
            due.push((row.try_get("agent").map_err(sql)?, row.try_get("task").map_err(sql)?));
        }
        Ok(due)
    }

    /// Removes those tasks that have ended, and says how many they were.
    pub(in super::super) async fn remove(
        &self,
        tasks: &[(String, String)],
    ) -> Result<usize, AppendError> {
        let (agents, names): (Vec<&str>, Vec<&str>) =
            tasks.iter().map(|(agent, task)| (agent.as_str(), task.as_str())).unzip();
        let removed = sqlx::query(REMOVE).bind(agents).bind(names).bind(&self.node).bind(PUSH);
        let removed = self.in_time(removed.fetch_one(&self.pool)).await.map_err(unwritten)?;
        let removed: i64 =
            removed.try_get("removed").map_err(|error| unwritten(DatabaseError::Sql(error)))?;
        Ok(usize::try_from(removed).unwrap_or(0))
    }
}
