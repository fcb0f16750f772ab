//! Which keyed calls of a peer have run, run, or may still: a window bounded in count, bytes and
//! time. No I/O and no clock.
//!
//! What has run stays known for its whole time, whatever else comes: a full window takes no more
//! keys, and what it drops for room are answers, never the fact that there was one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use neuroflow_kernel::Moment;

/// The calls of one peer. `K` tells calls apart, `R` is one that runs or has run.
#[derive(Debug)]
pub(crate) struct KeyedWindow<K, R> {
    bounds: Bounds,
    entries: HashMap<K, Entry<R>>,
    /// Those that have ended, in that order.
    ended: VecDeque<(K, Moment)>,
    /// Those that have ended and whose answers are kept, the oldest first.
    kept: VecDeque<K>,
    /// Of all answers, whole or not.
    kept_bytes: usize,
}

/// How much a window knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

#[derive(Debug)]
struct Entry<R> {
    run: R,
    /// When it was asked for last, while it runs.
    seen: Moment,
    /// Bytes of its answer, as far as that has come.
    bytes: usize,
    has_ended: bool,
}

/// What a request with a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival<R> {
    /// The first: it's to be run.
    First(R),
    /// It runs, or has run.
    Known(R),
    /// There is no room for another key. It wasn't run.
    Full,
}

impl<K: Clone + Eq + Hash, R: Clone> KeyedWindow<K, R> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            ended: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// A request has come.
    pub(crate) fn arrived(&mut self, key: &K, now: Moment, make: impl FnOnce() -> R) -> Arrival<R> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.seen = now;
            return Arrival::Known(entry.run.clone());
        }
        if self.entries.len() >= self.bounds.calls {
            return Arrival::Full;
        }
        let run = make();
        let entry = Entry { run: run.clone(), seen: now, bytes: 0, has_ended: false };
        self.entries.insert(key.clone(), entry);
        Arrival::First(run)
    }

    /// It surely wasn't run: the next request with this key is the first one again.
    pub(crate) fn not_run(&mut self, key: &K) {
        if self.entries.get(key).is_some_and(|entry| !entry.has_ended)
            && let Some(entry) = self.entries.remove(key)
        {
            self.kept_bytes = self.kept_bytes.saturating_sub(entry.bytes);
        }
    }

    /// So much more of its answer has come. Gives those whose answers are dropped for it: of whole ones the oldest
    /// first, and this one if there is no room even so. It has ended then.
    pub(crate) fn grew(&mut self, key: &K, bytes: usize, now: Moment) -> Vec<R> {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.has_ended) else {
            return Vec::new();
        };
        entry.bytes = entry.bytes.saturating_add(bytes);
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        let mut dropped = self.make_room();
        if self.kept_bytes > self.bounds.bytes {
            dropped.extend(self.ended(key, 0, now));
            dropped.extend(self.entries.get(key).map(|entry| entry.run.clone()));
        }
        dropped
    }

    /// It has ended, with an answer of so many bytes. Gives those whose answers are dropped for it.
    pub(crate) fn ended(&mut self, key: &K, bytes: usize, now: Moment) -> Vec<R> {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.has_ended) else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        entry.has_ended = true;
        self.ended.push_back((key.clone(), now));
        self.kept.push_back(key.clone());
        self.kept_bytes = self.kept_bytes.saturating_sub(before).saturating_add(bytes);
        self.make_room()
    }

    fn make_room(&mut self) -> Vec<R> {
        let mut dropped = Vec::new();
        while self.kept_bytes > self.bounds.bytes
            && let Some(oldest) = self.kept.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&oldest) {
                let bytes = std::mem::take(&mut entry.bytes);
                self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
                dropped.push(entry.run.clone());
            }
        }
        dropped
    }

    /// Forgets what ended long enough ago. Looks at nothing else.
    pub(crate) fn forget(&mut self, now: Moment) {
        while let Some((_, at)) = self.ended.front()
            && now.since(*at) >= self.bounds.time
            && let Some((key, _)) = self.ended.pop_front()
        {
            if let Some(entry) = self.entries.remove(&key) {
                self.kept_bytes = self.kept_bytes.saturating_sub(entry.bytes);
            }
            if self.kept.front() == Some(&key) {
                self.kept.pop_front();
            }
        }
    }

    /// Forgets what ended long enough ago, and what nobody has asked for as long: that is given back,
    /// for it still runs. `alone` says whether nobody waits for it. Looks at all that runs.
    pub(crate) fn expire(&mut self, now: Moment, alone: impl Fn(&R) -> bool) -> Vec<R> {
        self.forget(now);
        let mut left = Vec::new();
        let (time, mut freed) = (self.bounds.time, 0_usize);
        self.entries.retain(|_, entry| {
            let over = !entry.has_ended && now.since(entry.seen) >= time && alone(&entry.run);
            if over {
                freed = freed.saturating_add(entry.bytes);
                left.push(entry.run.clone());
            }
            !over
        });
        self.kept_bytes = self.kept_bytes.saturating_sub(freed);
        left
    }

    /// Forgets all. Gives those that still run.
    pub(crate) fn clear(&mut self) -> Vec<R> {
        let entries = std::mem::take(&mut self.entries).into_values();
        *self = Self::new(self.bounds);
        entries.filter(|entry| !entry.has_ended).map(|entry| entry.run).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
