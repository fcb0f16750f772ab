//! The embedded journal's index: where each task's last record is, and how much of each segment is
//! still needed. Pure.

use std::collections::BTreeMap;

use super::codec::{CALLED, MORE, MOVED, Position, RecordKind};
use super::index::{Index, Known};
use super::scan::Placed;
use super::{DamageKind, JournalDamage};

/// Where a task's records are: the last one names the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) last: Position,
    /// Segments, and bytes of the task in each; hardly ever more than one.
    pub(super) spans: Vec<(u32, u32)>,
}

impl Chain {
    /// Whether it has something in this segment.
    pub(super) fn is_in(&self, segment: u32) -> bool {
        self.spans.iter().any(|(number, _)| *number == segment)
    }

    pub(super) fn add(&mut self, position: Position) {
        self.last = position;
        match self.spans.last_mut() {
            Some((segment, bytes)) if *segment == position.segment => *bytes += position.len,
            _ => self.spans.push((position.segment, position.len)),
        }
    }
}

/// All tasks, and the bytes of them in each segment.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) index: Index<Chain>,
    live: BTreeMap<u32, u64>,
}

impl Catalog {
    pub(super) fn put(&mut self, agent: &str, task: &str, known: Known<Chain>) {
        self.remove(agent, task);
        for (segment, bytes) in &known.place.spans {
            *self.live.entry(*segment).or_default() += u64::from(*bytes);
        }
        self.index.put(agent, task, known);
    }

    pub(super) fn remove(&mut self, agent: &str, task: &str) -> bool {
        let Some(known) = self.index.remove(agent, task) else { return false };
        for (segment, bytes) in known.place.spans {
            if let Some(live) = self.live.get_mut(&segment) {
                *live = live.saturating_sub(bytes.into());
            }
        }
        true
    }

    /// Removes the tasks that lie before this segment alone: what there was went with its segments, since the index was
    /// written.
    pub(super) fn forget_before(&mut self, first: u32) {
        let gone = |chain: &Chain| chain.spans.iter().all(|(segment, _)| *segment < first);
        for (agent, task) in self.tasks(gone) {
            self.remove(&agent, &task);
        }
    }

    /// The tasks whose records are in such places.
    pub(super) fn tasks(&self, lies: impl Fn(&Chain) -> bool) -> Vec<(String, String)> {
        let tasks = self.index.each().filter(|(.., known)| lies(&known.place));
        tasks.map(|(agent, task, _)| (agent.to_owned(), task.to_owned())).collect()
    }

    /// Bytes of a segment that belong to a task.
    pub(super) fn live_in(&self, segment: u32) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Takes over an append that was found in a segment. Says which entries should have been there
    /// before it and weren't.
    pub(super) fn replay(&mut self, segment: u32, group: &[Placed<'_>]) -> Option<JournalDamage> {
        let ((offset, first), (_, last)) = (group.first()?, group.last()?);
        let (agent, task) = (first.head.agent, first.head.task);
        if first.head.kind == RecordKind::Removed {
            self.remove(agent, task);
            return None;
        }
        let is_cut = last.head.flags & MORE != 0;
        if first.head.flags & MOVED != 0 {
            // What is left of a damaged copy doesn't replace what was copied.
            let is_whole = first.head.previous.is_nowhere() && !is_cut;
            if !is_whole && self.index.get(agent, task).is_some() {
                return None;
            }
            self.remove(agent, task);
        }
        let mut known = self.index.get(agent, task).cloned().unwrap_or_else(|| Known {
            context: first.head.context.into(),
            caller: (first.head.flags & CALLED != 0).then(|| first.head.caller.into()),
            state: first.head.state,
            at_ms: first.head.at_ms,
            generation: 0,
            entries: 0,
            bytes: 0,
            place: Chain::default(),
        });
        let missing = |number, generation| JournalDamage {
            place: format!("segment {segment}"),
            offset: *offset as u64,
            bytes: 0,
            kind: DamageKind::Missing,
            agent: Some(agent.to_owned()),
            task: Some(task.to_owned()),
            number: Some(number),
            generation,
        };
        let next = known.entries.saturating_add(1);
        let missing = if next < first.head.number {
            Some(missing(next, Some(known.generation.saturating_add(1))))
        } else {
            // Which event comes last in an append isn't known of its first entries.
            is_cut.then(|| missing(last.head.number.saturating_add(1), None))
        };
        for (offset, record) in group {
            let (Ok(offset), Ok(len)) = (u32::try_from(*offset), u32::try_from(record.len)) else {
                continue;
            };
            known.place.add(Position { segment, offset, len });
            known.state = record.head.state;
            known.at_ms = record.head.at_ms;
            known.generation = record.head.generation;
            known.entries = record.head.number;
            known.bytes += u64::from(len);
        }
        self.put(agent, task, known);
        missing
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::MessageId;

    use super::super::EntryKind;
    use super::super::codec::{Head, Record};
    use super::*;
    use crate::journal::TaskState;

    /// A record of one task, at an offset of its number.
    fn record(number: u64, flags: u8, previous: Position) -> Placed<'static> {
        let head = Head {
            kind: RecordKind::Entry(EntryKind::Event),
            flags,
            state: TaskState::Working,
            message: MessageId::of("test"),
            version: 1,
            number,
            generation: number,
            at_ms: 0,
            previous,
            agent: "a",
            task: "t",
            context: "",
            caller: "",
            key: "",
        };
        let offset = usize::try_from(number).unwrap() * 100;
        (offset, Record { head, body: Some(b"content"), len: 88 })
    }

    fn at(segment: u32, number: u32) -> Position {
        Position { segment, offset: number * 100, len: 88 }
    }

    #[test]
    fn what_is_left_of_an_append_is_not_taken_for_a_whole_one() {
        let mut catalog = Catalog::default();
        let missing = catalog.replay(1, &[record(1, MORE, Position::default())]).unwrap();
        assert_eq!((missing.kind, missing.number), (DamageKind::Missing, Some(2)));
        assert!(catalog.replay(1, &[record(2, 0, at(1, 1))]).is_none());
    }

    #[test]
    fn what_is_left_of_a_copy_does_not_replace_what_was_copied() {
        let nowhere = Position::default();
        let mut catalog = Catalog::default();
        let whole = [record(1, MORE, nowhere), record(2, MORE, at(1, 1)), record(3, 0, at(1, 2))];
        assert!(catalog.replay(1, &whole).is_none());
        let copy = [
            record(1, MOVED | MORE, nowhere),
            record(2, MOVED | MORE, at(2, 1)),
            record(3, MOVED, at(2, 2)),
        ];
        for rest in [&copy[..1], &copy[2..]] {
            assert!(catalog.replay(2, rest).is_none());
            assert_eq!(catalog.index.get("a", "t").unwrap().place.last, at(1, 3));
        }
        assert!(catalog.replay(2, &copy).is_none());
        assert_eq!(catalog.index.get("a", "t").unwrap().place.last, at(2, 3));
        // Where there is nothing else, it's what is left.
        let mut catalog = Catalog::default();
        assert!(catalog.replay(2, &copy[2..]).is_some());
        assert_eq!(catalog.index.get("a", "t").unwrap().entries, 3);
    }
}
