//! Commits: tried again while a new connection may help, and in halves where the server refuses
//! something for good.

use std::collections::BTreeMap;

use neuroflow_kernel::Moment;
use sqlx::postgres::PgConnection;

use super::super::{Append, AppendError, DatabaseError};
use super::{FIRST_BACKOFF, Postgres, schema, write};
use crate::limits::{DATABASE_BACKOFF, DATABASE_DEADLINE, JOURNAL_DEADLINE};

impl Postgres {
    /// Appends all that fit in one transaction. What the server refuses for good is tried again in
    /// halves, task by task in the end: nobody's task suffers for what is wrong with another's.
    pub(in super::super) async fn commit(&self, batch: &[Append]) -> Vec<Result<(), AppendError>> {
        let mut writer = self.writer.lock().await;
        let deadline = self.clock.now() + JOURNAL_DEADLINE;
        let failed = match self.persist(&mut writer, batch, false, deadline).await {
            Ok(answers) => return answers,
            Err(failed) => failed,
        };
        let again = failed.again;
        let mut parts = halves(tasks(batch), failed.is_lasting());
        let mut answers = vec![Err(failed.told()); batch.len()];
        while let Some(part) = parts.pop() {
            // Who has waited that long has been told that it isn't known.
            if self.clock.now() >= deadline {
                break;
            }
            let mut members: Vec<usize> = part.iter().flatten().copied().collect();
            members.sort_unstable();
            let appends: Vec<Append> =
                members.iter().filter_map(|at| batch.get(*at)).cloned().collect();
            let told = match self.persist(&mut writer, &appends, again, deadline).await {
                Ok(told) => told,
                Err(failed) => {
                    parts.extend(halves(part, failed.is_lasting()));
                    vec![Err(failed.told()); appends.len()]
                }
            };
            for (at, told) in members.into_iter().zip(told) {
                if let Some(answer) = answers.get_mut(at) {
                    *answer = told;
                }
            }
        }
        answers
    }

    /// Appends all that fit in one transaction. A connection that breaks is made anew, with longer
    /// and longer waits, until nobody waits for the appends any more. `again` if they were tried
    /// before, and nobody knows how that ended.
    async fn persist(
        &self,
        writer: &mut Option<PgConnection>,
        batch: &[Append],
        mut again: bool,
        deadline: Moment,
    ) -> Result<Vec<Result<(), AppendError>>, Failed> {
        let mut wait = FIRST_BACKOFF;
        loop {
            let error = match self.attempt(writer, batch, again).await {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            let passing = is_passing(&error);
            if !passing || self.clock.now() + wait >= deadline {
                return Err(Failed { refused: is_refused(&error), again, passing, error });
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?wait,
                "the journal's database went away; connecting again"
            );
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(DATABASE_BACKOFF);
            again = true;
        }
    }

    async fn attempt(
        &self,
        writer: &mut Option<PgConnection>,
        batch: &[Append],
        again: bool,
    ) -> Result<Vec<Result<(), AppendError>>, DatabaseError> {
        // Out of its place while it's in use: what is dropped in the middle isn't used again.
        let mut connection = if let Some(connection) = writer.take() {
            connection
        } else {
            let mut connection = self.connect().await?;
            if !self.in_time(schema::claim(&mut connection, &self.node)).await? {
                return Err(DatabaseError::TimedOut { after: DATABASE_DEADLINE });
            }
            connection
        };
        let committed = write::commit(&mut connection, &self.node, batch, again);
        let committed = self.in_time(committed).await;
        // What the server refuses leaves the connection as it is, with the lock that it holds.
        if committed.as_ref().map_or_else(|error| is_refused(error) && !is_passing(error), |_| true)
        {
            *writer = Some(connection);
        }
        committed.map(|committed| {
            self.shift(committed.shift);
            committed.answers
        })
    }
}

/// Why a batch isn't there.
struct Failed {
    error: DatabaseError,
    /// By the server itself, which has undone it.
    refused: bool,
    /// A new connection might have helped.
    passing: bool,
    /// An attempt before that ended nobody knows how.
    again: bool,
}

impl Failed {
    /// Whether it's refused whenever it's tried.
    fn is_lasting(&self) -> bool {
        self.refused && !self.passing
    }

    fn told(self) -> AppendError {
        let unknown = self.again || !self.refused;
        AppendError::Database { source: std::sync::Arc::new(self.error), unknown }
    }
}

/// The appends of each task, by where they are: they stay together, because each builds on the one
/// before.
fn tasks(batch: &[Append]) -> Vec<Vec<usize>> {
    let mut tasks: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, Append { head, .. }) in batch.iter().enumerate() {
        tasks.entry((&head.agent, &head.task)).or_default().push(at);
    }
    tasks.into_values().collect()
}

/// What is tried next of what was refused: one half after the other; nothing of what is one task's, or
/// failed otherwise.
fn halves<T>(mut part: Vec<T>, lasting: bool) -> Vec<Vec<T>> {
    if !lasting || part.len() < 2 {
        return Vec::new();
    }
    let rest = part.split_off(part.len() / 2);
    vec![rest, part]
}

/// Whether the server itself says no.
fn is_refused(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Sql(sqlx::Error::Database(_)))
}

/// Whether a new connection may help.
fn is_passing(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::TimedOut { .. } => true,
        DatabaseError::Sql(sqlx::Error::Database(error)) => {
            // Connection exceptions, an operator's intervention, a server that can't take more, and
            // transactions that were in each other's way.
            let code = error.code().unwrap_or_default();
            ["08", "57P", "53", "40"].iter().any(|class| code.starts_with(class))
        }
        DatabaseError::Sql(error) => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::WorkerCrashed
        ),
        DatabaseError::ReadOnly | DatabaseError::Row { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::TaskHead;
    use super::*;
    use crate::journal::TaskState;

    fn append(task: &str) -> Append {
        let head = TaskHead {
            agent: "echo".into(),
            task: task.into(),
            context: "c".into(),
            caller: None,
            state: TaskState::Working,
            changed_ms: 0,
            generation: 0,
            entries: 0,
        };
        Append { head, entries: Vec::new() }
    }

    #[test]
    fn what_is_one_tasks_stays_together_in_its_order() {
        let batch: Vec<Append> = ["a", "b", "a", "c", "b"].map(append).into();
        let tasks = tasks(&batch);
        assert_eq!(tasks, [vec![0, 2], vec![1, 4], vec![3]]);
        let parts = halves(tasks, true);
        assert_eq!(parts, [vec![vec![1, 4], vec![3]], vec![vec![0, 2]]]);
        assert!(parts.into_iter().all(|part| halves(part, false).is_empty()));
        assert!(halves(vec![vec![0, 2]], true).is_empty(), "it isn't halved");
    }

    #[test]
    fn what_never_reached_the_server_may_pass() {
        let timed_out = DatabaseError::TimedOut { after: DATABASE_DEADLINE };
        assert!(is_passing(&timed_out) && !is_refused(&timed_out));
        let again = |again| Failed {
            error: DatabaseError::Row { table: "t", column: "c" },
            refused: true,
            passing: false,
            again,
        };
        assert!(again(false).is_lasting());
        assert!(!again(false).told().is_unknown() && again(true).told().is_unknown());
    }
}
