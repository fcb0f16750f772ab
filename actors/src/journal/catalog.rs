//! The embedded journal's index: where each task's last record is, and how much of each segment is
//! still needed. Pure.

use std::collections::BTreeMap;

use super::codec::{CALLED, MOVED, Position, RecordKind};
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

    /// Bytes of a segment that belong to a task.
    pub(super) fn live_in(&self, segment: u32) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Takes over an append that was found in a segment. Says which entries should have been there
    /// before it and weren't.
    pub(super) fn replay(&mut self, segment: u32, group: &[Placed<'_>]) -> Option<JournalDamage> {
        let (offset, first) = group.first()?;
        let (agent, task) = (first.head.agent, first.head.task);
        if first.head.kind == RecordKind::Removed {
            self.remove(agent, task);
            return None;
        }
        if first.head.flags & MOVED != 0 {
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
        let missing =
            (known.entries.saturating_add(1) < first.head.number).then(|| JournalDamage {
                place: format!("segment {segment}"),
                offset: *offset as u64,
                bytes: 0,
                kind: DamageKind::Missing,
                agent: Some(agent.to_owned()),
                task: Some(task.to_owned()),
                number: Some(known.entries.saturating_add(1)),
                generation: Some(known.generation.saturating_add(1)),
            });
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
