//! Reading a task's chain of records, and taking back the room of old segments: the oldest one is
//! removed once nothing in it is needed, or little enough to be copied to the end.
//!
//! Only the oldest, because a mark that a task was removed has to outlive that task's records, and
//! those lie before it.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use neuroflow_kernel::RawParcel;

use super::catalog::Chain;
use super::codec::{self, CALLED, Head, MORE, MOVED, Record, RecordKind};
use super::embedded::{Embedded, Writer, refused};
use super::heading::SEGMENT_HEADER;
use super::opening::damage_of;
use super::retention::Retention;
use super::scan::{Found, scan};
use super::segment::Segment;
use super::{AppendError, DamageKind, Entry, JournalDamage, ReadError, TaskHead, TaskLog};
use crate::limits::{JOURNAL_MOVED_TASKS, RESERVE_BYTES};

/// A task's entries by walking back from the last one. Where the chain is broken, its segments are
/// searched.
pub(super) fn read_chain(
    journal: &Embedded,
    head: TaskHead,
    chain: &Chain,
) -> Result<TaskLog, ReadError> {
    let mut found: Vec<(u64, Option<Entry>)> = Vec::new();
    let mut damage = Vec::new();
    let mut at = chain.last;
    let mut number = head.entries;
    while number > 0 && !at.is_nowhere() {
        let Some(segment) = journal.segment(at.segment) else { break };
        let bytes = match segment.record(at) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            bytes => bytes?,
        };
        let Ok(record) = codec::read(&bytes, segment.salt) else { break };
        if record.head.agent != head.agent
            || record.head.task != head.task
            || record.head.number > number
        {
            break;
        }
        if found.is_empty() && record.head.flags & MORE != 0 {
            // The rest of an append that wasn't found as a whole.
            damage.push(missing(&head, record.head.number + 1));
        }
        if record.body.is_none() {
            let placed = (at.offset as usize, record);
            damage.push(damage_of(at.segment, &placed, DamageKind::Content));
        }
        found.push((record.head.number, entry(&record)));
        number = record.head.number - 1;
        at = record.head.previous;
    }
    if number > 0 {
        search(journal, &head, chain, number, &mut found, &mut damage)?;
    }
    found.sort_by_key(|(number, _)| *number);
    found.dedup_by_key(|(number, _)| *number);
    let mut expected = 1;
    for (number, _) in &found {
        if *number > expected {
            damage.push(missing(&head, expected));
        }
        expected = number + 1;
    }
    if expected <= head.entries {
        damage.push(missing(&head, expected));
    }
    let entries = found.into_iter().filter_map(|(_, entry)| entry).collect();
    Ok(TaskLog { head, entries, damage })
}

fn missing(head: &TaskHead, number: u64) -> JournalDamage {
    JournalDamage {
        place: "the log".to_owned(),
        offset: 0,
        bytes: 0,
        kind: DamageKind::Missing,
        agent: Some(head.agent.clone()),
        task: Some(head.task.clone()),
        number: Some(number),
        generation: None,
    }
}

fn entry(record: &Record<'_>) -> Option<Entry> {
    let RecordKind::Entry(kind) = record.head.kind else { return None };
    let parcel = RawParcel::new(record.head.message, record.head.version, record.body?);
    Some(Entry { kind, key: record.head.key.to_owned(), parcel })
}

/// Looks through a task's segments for its entries up to `most`.
fn search(
    journal: &Embedded,
    head: &TaskHead,
    chain: &Chain,
    most: u64,
    found: &mut Vec<(u64, Option<Entry>)>,
    damage: &mut Vec<JournalDamage>,
) -> Result<(), ReadError> {
    for (number, _) in &chain.spans {
        let Some(segment) = journal.segment(*number) else { continue };
        let bytes = segment.bytes()?;
        scan((&bytes, segment.salt), SEGMENT_HEADER, true, |thing| {
            let Found::Append(group) = thing else { return };
            for placed in group {
                let of = &placed.1.head;
                if of.agent != head.agent || of.task != head.task || of.number > most {
                    continue;
                }
                if placed.1.body.is_none() {
                    damage.push(damage_of(*number, placed, DamageKind::Content));
                }
                found.push((of.number, entry(&placed.1)));
            }
        });
    }
    Ok(())
}

/// Whether the oldest segment makes way with so many bytes in it that are needed, of all that are `kept` on the disk.
///
/// What is copied is a quarter of what isn't needed at most, so that tasks that never end don't keep all that lies
/// behind them. With as much that isn't needed as there is in all, the whole log is replaced until the same byte
/// comes up again: for each byte that was appended, one is copied at most.
fn is_worth_copying(live: u64, kept: u64, disk: u64) -> bool {
    let dead = disk.saturating_sub(kept);
    live.saturating_mul(4) <= dead && kept <= dead
}

impl Embedded {
    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().filter_map(|segment| segment.len().ok()).sum()
    }

    /// The segment that may be removed next.
    fn oldest(&self) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let (_, oldest) = segments.first_key_value().filter(|_| segments.len() > 1)?;
        Some(Arc::clone(oldest))
    }

    /// Takes one step towards a smaller directory. Says whether there may be more to do.
    pub(super) fn reclaim(&self) -> Result<bool, AppendError> {
        let Some(oldest) = self.oldest() else { return Ok(false) };
        let live = self.catalog().live_in(oldest.number);
        if live > 0 {
            let kept = self.catalog().index.bytes();
            if !is_worth_copying(live, kept, self.disk_bytes()) {
                return Ok(false);
            }
            // What can't be moved now is tried at the next look, not at once.
            return Ok(self.move_out(oldest.number)? > 0);
        }
        // Commits that were begun before it was counted are over once the writer's lock is had.
        let _writer = self.writer();
        if self.catalog().live_in(oldest.number) > 0 {
            return Ok(true);
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.remove(&oldest.number);
        if let Err(error) = oldest.remove() {
            tracing::warn!(
                path = %oldest.path().display(),
                error = &error as &dyn std::error::Error,
                "an old segment can't be removed"
            );
        }
        Ok(segments.len() > 1)
    }

    /// Removes tasks that aren't kept any longer from a disk that has no room for the marks of all. Says how many.
    ///
    /// The oldest segment goes as a whole, so that its tasks need no mark, if the reserve has room for what is needed of
    /// it and for the marks of those that lie behind it too. Else some tasks are marked, with what the reserve has.
    pub(super) fn make_way(
        &self,
        keep: &Retention,
        age_limit_ms: Option<u64>,
    ) -> Result<usize, AppendError> {
        let mut writer = self.writer();
        let due = keep.due(&self.catalog().index, age_limit_ms, usize::MAX);
        if let Some(oldest) = self.oldest() {
            let inside = self.catalog().tasks(|chain| chain.is_in(oldest.number));
            let (leaving, staying) = {
                let due: HashSet<&(String, String)> = due.iter().collect();
                inside.into_iter().partition::<Vec<_>, _>(|task| due.contains(task))
            };
            if self.bytes_of(&staying) <= RESERVE_BYTES as u64 / 2 {
                for (agent, task) in &staying {
                    self.move_task(&mut writer, agent, task)?;
                }
                // If one couldn't be read, it isn't moved.
                let is_empty = |task: &(String, String)| !self.lies_in(task, oldest.number);
                if staying.iter().all(is_empty) {
                    return self.drop_segment(&mut writer, &oldest, &leaving);
                }
            }
        }
        self.pressed(|| self.mark_removed(&mut writer, &due, RESERVE_BYTES / 2))
    }

    fn bytes_of(&self, tasks: &[(String, String)]) -> u64 {
        let catalog = self.catalog();
        let known = tasks.iter().filter_map(|(agent, task)| catalog.index.get(agent, task));
        known.map(|known| known.bytes).sum()
    }

    fn lies_in(&self, (agent, task): &(String, String), segment: u32) -> bool {
        self.catalog().index.get(agent, task).is_some_and(|known| known.place.is_in(segment))
    }

    /// Removes the oldest segment together with the tasks that have something in it. Says how many those are.
    fn drop_segment(
        &self,
        writer: &mut Writer,
        oldest: &Segment,
        tasks: &[(String, String)],
    ) -> Result<usize, AppendError> {
        let spread: Vec<_> = {
            let catalog = self.catalog();
            let elsewhere = |chain: &Chain| chain.spans.len() > 1 && chain.is_in(oldest.number);
            let known = |(agent, task): &(String, String)| catalog.index.get(agent, task).cloned();
            let is_spread = |task: &&_| known(task).is_some_and(|known| elsewhere(&known.place));
            tasks.iter().filter(is_spread).cloned().collect()
        };
        // Of these something is left behind it.
        let marked = self.pressed(|| self.mark_removed(writer, &spread, usize::MAX))?;
        // Until an index is written, the last one has tasks that went with it: the next start knows that.
        oldest.remove().map_err(refused)?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&oldest.number);
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        Ok(marked + tasks.iter().filter(|(agent, task)| catalog.remove(agent, task)).count())
    }

    /// Does what brings room, on a full disk with that of the reserve.
    fn pressed<T>(
        &self,
        mut work: impl FnMut() -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        match work() {
            Err(AppendError::DiskFull { .. }) if self.reserve.give_up() => work(),
            done => done,
        }
    }

    /// Copies some of the tasks that have something in a segment to the end of the log. Says how many.
    fn move_out(&self, segment: u32) -> Result<usize, AppendError> {
        let mut tasks = self.catalog().tasks(|chain| chain.is_in(segment));
        tasks.truncate(JOURNAL_MOVED_TASKS);
        let mut count = 0;
        for (agent, task) in tasks {
            // The lock is taken for each, so that appends wait for one copy at most.
            count += usize::from(self.move_task(&mut self.writer(), &agent, &task)?);
        }
        Ok(count)
    }

    /// Copies a task to the end of the log. Says whether it could be read.
    fn move_task(&self, writer: &mut Writer, agent: &str, task: &str) -> Result<bool, AppendError> {
        self.pressed(|| self.make_room(writer))?;
        let Some(known) = self.catalog().index.get(agent, task).cloned() else { return Ok(false) };
        let Some(head) = self.catalog().index.head(agent, task) else { return Ok(false) };
        let log = match read_chain(self, head, &known.place) {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!(%task, error = &error as &dyn std::error::Error, "a task can't be moved");
                return Ok(false);
            }
        };
        for damage in &log.damage {
            tracing::error!(%damage, "damage of the journal");
        }
        let mut buffer = Vec::new();
        let mut moved = known.clone();
        moved.place = Chain::default();
        moved.bytes = 0;
        let first = known.entries.saturating_sub(log.entries.len() as u64);
        let last = log.entries.len();
        for (at, entry) in log.entries.iter().enumerate() {
            let called = if at == 0 && known.caller.is_some() { CALLED } else { 0 };
            let record = Head {
                kind: RecordKind::Entry(entry.kind),
                flags: MOVED | (if at + 1 < last { MORE } else { 0 }) | called,
                state: known.state,
                message: entry.parcel.message(),
                version: entry.parcel.version(),
                // Where entries are lost, those that are left keep the last numbers.
                number: first + at as u64 + 1,
                generation: known.generation,
                at_ms: known.at_ms,
                previous: moved.place.last,
                agent,
                task,
                context: if at == 0 { &known.context } else { "" },
                caller: known.caller.as_deref().filter(|_| at == 0).unwrap_or_default(),
                key: &entry.key,
            };
            let written = buffer.len();
            let body = entry.parcel.as_bytes();
            let len = codec::write(&mut buffer, writer.segment.salt, &record, body);
            moved.place.add(Self::place(writer, written, len));
            moved.bytes += u64::from(len);
        }
        self.pressed(|| self.write(writer, &buffer))?;
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.put(agent, task, moved);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A segment's bytes, in some unit.
    const SEGMENT: u64 = 64;

    /// Appends so many segments of tasks that end and aren't kept, to a log with `kept` bytes of tasks that don't
    /// end. Gives what is on the disk in the end, and what was copied.
    fn fill(kept: u64, segments: u64) -> (u64, u64) {
        let mut log: VecDeque<(u64, u64)> = VecDeque::new();
        let (mut left, mut copied) = (kept, 0);
        while left > 0 {
            let live = left.min(SEGMENT);
            log.push_back((live, live));
            left -= live;
        }
        for _ in 0..segments {
            log.push_back((SEGMENT, 0));
            while let Some((_, live)) = log.front().copied() {
                let disk = log.iter().map(|(size, _)| size).sum();
                if log.len() == 1 || live > 0 && !is_worth_copying(live, kept, disk) {
                    break;
                }
                log.pop_front();
                if live > 0 {
                    log.push_back((live, live));
                    copied += live;
                }
                assert!(copied <= (segments + 1) * SEGMENT, "it copies without end");
            }
        }
        (log.iter().map(|(size, _)| size).sum(), copied)
    }

    #[test]
    fn tasks_that_do_not_end_keep_nothing_else_and_are_copied_for_what_is_appended_only() {
        for kept in [0, 1, 20, SEGMENT, 10 * SEGMENT, 100 * SEGMENT] {
            for segments in [1, 10, 1_000] {
                let (disk, copied) = fill(kept, segments);
                let most = kept + kept.max(4 * SEGMENT) + 2 * SEGMENT;
                assert!(disk <= most, "{kept} in {segments}: {disk} on the disk");
                assert!(copied <= segments * SEGMENT, "{kept} in {segments}: {copied} copied");
            }
        }
    }
}
