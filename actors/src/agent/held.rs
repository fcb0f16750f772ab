//! What the live tasks of one agent hold in memory: all of them, and those of each caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::LIVE_BYTES;

/// What all live tasks of an agent hold.
#[derive(Clone, Default)]
pub(super) struct Holdings(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    all: usize,
    /// Of those who hold anything: so there are no more of them than tasks.
    callers: HashMap<Arc<str>, usize>,
}

/// What one task holds. It's given back with the task, whichever way that goes.
pub(super) struct Held {
    holdings: Holdings,
    caller: Option<Arc<str>>,
    bytes: usize,
}

impl Holdings {
    /// What a task of this caller holds: nothing yet.
    pub(super) fn of(&self, caller: Option<&str>) -> Held {
        Held { holdings: self.clone(), caller: caller.map(Arc::from), bytes: 0 }
    }

    /// Whether a caller may add so many bytes: as many are free, and the caller's own tasks hold fewer than
    /// that, so that one alone gets half and whoever comes then finds room. Whom nobody knows isn't told from
    /// others.
    pub(super) fn has_room(&self, caller: Option<&str>, bytes: usize) -> bool {
        let sums = self.sums();
        let free = LIVE_BYTES.saturating_sub(sums.all);
        let holds = |caller: &str| sums.callers.get(caller).copied().unwrap_or_default();
        bytes <= free && caller.is_none_or(|caller| holds(caller) < free)
    }

    /// The bytes of all tasks.
    pub(super) fn bytes(&self) -> usize {
        self.sums().all
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// It holds so much now. Nothing else changes the sums, so they are always those of the tasks that there are.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before == bytes {
            return;
        }
        let mut sums = self.holdings.sums();
        sums.all = sums.all - before + bytes;
        let Some(caller) = &self.caller else { return };
        let holds = sums.callers.entry(Arc::clone(caller)).or_default();
        *holds = *holds - before + bytes;
        if *holds == 0 {
            sums.callers.remove(caller);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(holdings: &Holdings) -> (usize, Vec<(String, usize)>) {
        let sums = holdings.sums();
        let mut callers: Vec<_> =
            sums.callers.iter().map(|(caller, bytes)| (caller.to_string(), *bytes)).collect();
        callers.sort();
        (sums.all, callers)
    }

    #[test]
    fn the_sums_are_those_of_the_tasks_that_there_are() {
        let holdings = Holdings::default();
        let mut tasks = [Some("ann"), Some("ann"), Some("bob"), None].map(|who| holdings.of(who));
        assert_eq!(sums(&holdings), (0, vec![]));
        for (task, bytes) in tasks.iter_mut().zip([1, 20, 300, 4_000]) {
            task.set(bytes);
        }
        assert_eq!(sums(&holdings), (4_321, vec![("ann".into(), 21), ("bob".into(), 300)]));
        tasks[0].set(7);
        tasks[2].set(0);
        assert_eq!(sums(&holdings), (4_027, vec![("ann".into(), 27)]));
        tasks[2].set(5);
        let [first, second, third, fourth] = tasks;
        drop((second, fourth));
        assert_eq!(sums(&holdings), (12, vec![("ann".into(), 7), ("bob".into(), 5)]));
        drop((first, third));
        assert_eq!(sums(&holdings), (0, vec![]));
    }

    #[test]
    fn one_caller_alone_gets_half_and_others_what_is_left() {
        let holdings = Holdings::default();
        let mut ann = holdings.of(Some("ann"));
        ann.set(LIVE_BYTES / 2 - 1);
        assert!(holdings.has_room(Some("ann"), 1));
        ann.set(LIVE_BYTES / 2);
        assert!(!holdings.has_room(Some("ann"), 1), "that is as much as is free");
        assert!(holdings.has_room(Some("bob"), LIVE_BYTES / 2));
        assert!(!holdings.has_room(Some("bob"), LIVE_BYTES / 2 + 1), "nobody gets more");
        assert!(holdings.has_room(None, LIVE_BYTES / 2));
        assert!(!holdings.has_room(None, LIVE_BYTES / 2 + 1));
        // What agents say may go past it.
        let mut unknown = holdings.of(None);
        unknown.set(LIVE_BYTES);
        assert!(!holdings.has_room(None, 1) && !holdings.has_room(Some("bob"), 1));
        drop(ann);
        assert!(!holdings.has_room(None, 1));
        drop(unknown);
        assert!(holdings.has_room(Some("ann"), LIVE_BYTES));
    }
}
