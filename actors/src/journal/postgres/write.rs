//! One commit: all appends that fit, in one transaction of a few statements.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::super::codec::{entry_code, state_code};
use super::super::store::check;
use super::super::{Append, AppendError};
use super::retention::Shift;
use super::{signed, unsigned};

type Task<'a> = (&'a str, &'a str);

/// What a batch does to one task.
struct Change<'a> {
    /// Entries that it must have.
    expected: u64,
    /// Entries that it will have.
    entries: u64,
    bytes: u64,
    last: &'a Append,
    /// Which appends of the batch.
    members: Vec<usize>,
}

impl Change<'_> {
    /// The checksum of the last entry that it appends.
    fn last_entry(&self, batch: &[Append]) -> Option<i64> {
        let mut appends = self.members.iter().rev().map(|at| &batch[*at]);
        let last = appends.find_map(|append| append.entries.last())?;
        Some(crc(last.parcel.as_bytes()))
    }
}

/// What became of each append, and of the number of ended tasks.
pub(super) struct Committed {
    pub(super) answers: Vec<Result<(), AppendError>>,
    pub(super) shift: Shift,
}

/// Appends what fits. `again` if the same batch was tried before and nobody knows how that ended.
pub(super) async fn commit(
    connection: &mut PgConnection,
    node: &str,
    batch: &[Append],
    again: bool,
) -> Result<Committed, sqlx::Error> {
    let mut answers: Vec<Result<(), AppendError>> = batch.iter().map(check).collect();
    let mut changes: BTreeMap<Task<'_>, Change<'_>> = BTreeMap::new();
    for (at, append) in batch.iter().enumerate() {
        if answers[at].is_err() {
            continue;
        }
        let head = &append.head;
        let change = changes.entry((&head.agent, &head.task)).or_insert_with(|| Change {
            expected: head.entries,
            entries: head.entries,
            bytes: 0,
            last: append,
            members: Vec::new(),
        });
        if change.entries != head.entries {
            let found = change.entries;
            answers[at] = Err(AppendError::Conflict { expected: head.entries, found });
            continue;
        }
        change.entries += append.entries.len() as u64;
        change.bytes +=
            append.entries.iter().map(|entry| entry.parcel.as_bytes().len() as u64).sum::<u64>();
        change.last = append;
        change.members.push(at);
    }
    let mut transaction = connection.begin().await?;
    let (fresh, known): (Vec<_>, Vec<_>) =
        changes.iter().partition(|(_, change)| change.expected == 0);
    let mut shift = Shift::default();
    let mut taken = HashSet::new();
    for (statement, owner, some) in [(INSERT, Some(node), &fresh), (UPDATE, None, &known)] {
        taken.extend(put(&mut transaction, (statement, owner), some, &mut shift).await?);
    }
    let refused: Vec<Task<'_>> = changes
        .keys()
        .filter(|(agent, task)| !taken.contains(&(agent.to_string(), task.to_string())))
        .copied()
        .collect();
    let standing = stands(&mut transaction, &refused).await?;
    let mut written = Vec::new();
    for (task, change) in &changes {
        let name = (task.0.to_owned(), task.1.to_owned());
        if taken.contains(&name) {
            written.extend(change.members.iter().copied());
            continue;
        }
        let (found, last) = standing.get(&name).copied().unwrap_or_default();
        // The connection broke behind the commit, and it's there.
        if again && found == change.entries && last == change.last_entry(batch) {
            continue;
        }
        for at in &change.members {
            let expected = batch[*at].head.entries;
            answers[*at] = Err(AppendError::Conflict { expected, found });
        }
    }
    entries(&mut transaction, batch, &written, node, shift).await?;
    transaction.commit().await?;
    Ok(Committed { answers, shift })
}

const INSERT: &str = "INSERT INTO neuroflow_task
   (agent, task, context, caller, state, ended, at_ms, generation, entries, bytes, node)
 SELECT agent, task, context, caller, state, ended, at_ms, generation, entries, bytes, $12
 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::boolean[],
   $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
   AS u(agent, task, context, caller, state, ended, at_ms, generation, entries, bytes, expected)
 ON CONFLICT DO NOTHING
 RETURNING agent, task, ended, bytes, false AS had_ended, 0::bigint AS had_bytes";

/// What was there is read with a lock, so that it's what is replaced. A task stays its node's, also where another
/// has something to add.
const UPDATE: &str = "WITH was AS MATERIALIZED (
   SELECT t.agent, t.task, t.ended, t.bytes FROM neuroflow_task AS t
   JOIN unnest($1::text[], $2::text[]) AS u(agent, task) ON t.agent = u.agent AND t.task = u.task
   FOR NO KEY UPDATE OF t
 )
 UPDATE neuroflow_task AS t
 SET state = u.state, ended = u.ended, at_ms = u.at_ms, generation = u.generation,
   entries = u.entries, bytes = t.bytes + u.bytes
 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::boolean[],
   $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
   AS u(agent, task, context, caller, state, ended, at_ms, generation, entries, bytes, expected)
   JOIN was ON was.agent = u.agent AND was.task = u.task
 WHERE t.agent = u.agent AND t.task = u.task AND t.entries = u.expected
 RETURNING t.agent, t.task, t.ended, t.bytes, was.ended AS had_ended, was.bytes AS had_bytes";

/// Changes the heads of tasks, and counts those that end; gives those that were as expected.
async fn put(
    connection: &mut PgConnection,
    (statement, owner): (&'static str, Option<&str>),
    changes: &[(&Task<'_>, &Change<'_>)],
    shift: &mut Shift,
) -> Result<HashSet<(String, String)>, sqlx::Error> {
    if changes.is_empty() {
        return Ok(HashSet::new());
    }
    let column = |value: fn(&Change<'_>) -> i64| -> Vec<i64> {
        changes.iter().map(|(_, change)| value(change)).collect()
    };
    let text = |value: fn(&Append) -> &str| -> Vec<String> {
        changes.iter().map(|(_, change)| value(change.last).to_owned()).collect()
    };
    let states: Vec<i16> =
        changes.iter().map(|(_, change)| state_code(change.last.head.state).into()).collect();
    let ended: Vec<bool> =
        changes.iter().map(|(_, change)| change.last.head.state.is_terminal()).collect();
    let query = sqlx::query(statement)
        .bind(text(|append| &append.head.agent))
        .bind(text(|append| &append.head.task))
        .bind(text(|append| &append.head.context))
        .bind(changes.iter().map(|(_, c)| c.last.head.caller.clone()).collect::<Vec<_>>())
        .bind(states)
        .bind(ended)
        .bind(column(|change| signed(change.last.head.changed_ms)))
        .bind(column(|change| signed(change.last.head.generation)))
        .bind(column(|change| signed(change.entries)))
        .bind(column(|change| signed(change.bytes)))
        .bind(column(|change| signed(change.expected)));
    let query = match owner {
        Some(node) => query.bind(node),
        None => query,
    };
    let rows = query.fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            if row.try_get("had_ended")? {
                shift.add(-1, -row.try_get::<i64, _>("had_bytes")?);
            }
            if row.try_get("ended")? {
                shift.add(1, row.try_get("bytes")?);
            }
            Ok((row.try_get("agent")?, row.try_get("task")?))
        })
        .collect()
}

/// How many entries tasks have, and the checksum of the last one.
async fn stands(
    connection: &mut PgConnection,
    tasks: &[Task<'_>],
) -> Result<HashMap<(String, String), (u64, Option<i64>)>, sqlx::Error> {
    if tasks.is_empty() {
        return Ok(HashMap::new());
    }
    let (agents, names): (Vec<&str>, Vec<&str>) = tasks.iter().copied().unzip();
    let rows = sqlx::query(
        "SELECT t.agent, t.task, t.entries, e.crc FROM neuroflow_task AS t
         JOIN unnest($1::text[], $2::text[]) AS u(agent, task)
         ON t.agent = u.agent AND t.task = u.task
         LEFT JOIN neuroflow_entry AS e
         ON e.agent = t.agent AND e.task = t.task AND e.number = t.entries",
    );
    let rows = rows.bind(agents).bind(names).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let entries = unsigned(row.try_get("entries")?);
            Ok(((row.try_get("agent")?, row.try_get("task")?), (entries, row.try_get("crc")?)))
        })
        .collect()
}

/// The row of the node is changed last, because a removal by the same node waits for it.
const ENTRIES: &str = "WITH counted AS (
   INSERT INTO neuroflow_ended AS c (node, tasks, bytes)
   SELECT $10::text, $11::bigint, $12::bigint WHERE $11::bigint <> 0 OR $12::bigint <> 0
   ON CONFLICT (node) DO UPDATE
   SET tasks = c.tasks + excluded.tasks, bytes = c.bytes + excluded.bytes
 )
 INSERT INTO neuroflow_entry (agent, task, number, kind, key, message, version, crc, body)
 SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[],
   $6::bigint[], $7::integer[], $8::bigint[], $9::bytea[])";

async fn entries(
    connection: &mut PgConnection,
    batch: &[Append],
    written: &[usize],
    node: &str,
    shift: Shift,
) -> Result<(), sqlx::Error> {
    let all = || {
        written.iter().map(|at| &batch[*at]).flat_map(|append| {
            let first = append.head.entries + 1;
            append.entries.iter().zip(first..).map(move |(entry, number)| (append, entry, number))
        })
    };
    if all().next().is_none() && shift == Shift::default() {
        return Ok(());
    }
    sqlx::query(ENTRIES)
        .bind(all().map(|(append, ..)| append.head.agent.as_str()).collect::<Vec<_>>())
        .bind(all().map(|(append, ..)| append.head.task.as_str()).collect::<Vec<_>>())
        .bind(all().map(|(_, _, number)| signed(number)).collect::<Vec<_>>())
        .bind(all().map(|(_, entry, _)| i16::from(entry_code(entry.kind))).collect::<Vec<_>>())
        .bind(all().map(|(_, entry, _)| entry.key.as_str()).collect::<Vec<_>>())
        .bind(
            all()
                .map(|(_, entry, _)| entry.parcel.message().get().cast_signed())
                .collect::<Vec<_>>(),
        )
        .bind(all().map(|(_, entry, _)| i32::from(entry.parcel.version())).collect::<Vec<_>>())
        .bind(all().map(|(_, entry, _)| crc(entry.parcel.as_bytes())).collect::<Vec<_>>())
        .bind(all().map(|(_, entry, _)| entry.parcel.as_bytes()).collect::<Vec<_>>())
        .bind(node)
        .bind(shift.tasks)
        .bind(shift.bytes)
        .execute(connection)
        .await?;
    Ok(())
}

fn crc(bytes: &[u8]) -> i64 {
    i64::from(crc32fast::hash(bytes))
}
