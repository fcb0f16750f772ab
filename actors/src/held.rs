//! What many things of the same kind hold in memory together, within a limit: all of them, and those of each caller.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all things of a kind hold.
#[derive(Clone)]
pub(crate) struct Holdings {
    limit: usize,
    sums: Arc<Mutex<Sums>>,
}

#[derive(Default)]
struct Sums {
    all: usize,
    /// Of those who hold anything: so there are no more of them than things.
    callers: HashMap<Arc<str>, usize>,
}

/// What one of them holds. It's given back when this is dropped.
pub(crate) struct Held {
    holdings: Holdings,
    caller: Option<Arc<str>>,
    bytes: usize,
}

impl Holdings {
    /// Nothing yet, and so many bytes at most.
    pub(crate) fn within(limit: usize) -> Self {
        Self { limit, sums: Arc::default() }
    }

    /// What a thing of this caller holds: nothing yet.
    pub(crate) fn of(&self, caller: Option<&str>) -> Held {
        Held { holdings: self.clone(), caller: caller.map(Arc::from), bytes: 0 }
    }

    /// Whether a caller may add so many bytes: as many are free, and the caller's own hold fewer than that, so that
    /// one alone gets half and whoever comes then finds room. Whom nobody knows isn't told from others.
    pub(crate) fn has_room(&self, caller: Option<&str>, bytes: usize) -> bool {
        self.sums().have_room(self.limit, caller, bytes)
    }

    /// The bytes of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.sums().all
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn have_room(&self, limit: usize, caller: Option<&str>, bytes: usize) -> bool {
        let free = limit.saturating_sub(self.all);
        let holds = |caller: &str| self.callers.get(caller).copied().unwrap_or_default();
        bytes <= free && caller.is_none_or(|caller| holds(caller) < free)
    }

    fn change(&mut self, caller: Option<&Arc<str>>, before: usize, now: usize) {
        self.all = self.all - before + now;
        let Some(caller) = caller else { return };
        let holds = self.callers.entry(Arc::clone(caller)).or_default();
        *holds = *holds - before + now;
        if *holds == 0 {
            self.callers.remove(caller);
        }
    }
}

impl Held {
    /// It holds so much now, within the limit or not. Nothing else changes the sums but [`Held::grow`], so they are
    /// always those of the things that there are.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before != bytes {
            self.holdings.sums().change(self.caller.as_ref(), before, bytes);
        }
    }

    /// It holds so much more, if there is room for that: whether there was.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut sums = self.holdings.sums();
        let has_room = sums.have_room(self.holdings.limit, self.caller.as_deref(), bytes);
        if has_room {
            sums.change(self.caller.as_ref(), self.bytes, self.bytes + bytes);
            self.bytes += bytes;
        }
        has_room
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holdings").field("bytes", &self.bytes()).finish_non_exhaustive()
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

    const LIMIT: usize = 1_000;

    fn sums(holdings: &Holdings) -> (usize, Vec<(String, usize)>) {
        let sums = holdings.sums();
        let mut callers: Vec<_> =
            sums.callers.iter().map(|(caller, bytes)| (caller.to_string(), *bytes)).collect();
        callers.sort();
        (sums.all, callers)
    }

    #[test]
    fn the_sums_are_those_of_the_tasks_that_there_are() {
        let holdings = Holdings::within(LIMIT);
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
        let holdings = Holdings::within(LIMIT);
        let mut ann = holdings.of(Some("ann"));
        ann.set(LIMIT / 2 - 1);
        assert!(holdings.has_room(Some("ann"), 1));
        ann.set(LIMIT / 2);
        assert!(!holdings.has_room(Some("ann"), 1), "that is as much as is free");
        assert!(holdings.has_room(Some("bob"), LIMIT / 2));
        assert!(!holdings.has_room(Some("bob"), LIMIT / 2 + 1), "nobody gets more");
        assert!(holdings.has_room(None, LIMIT / 2));
        assert!(!holdings.has_room(None, LIMIT / 2 + 1));
        // What agents say may go past it.
        let mut unknown = holdings.of(None);
        unknown.set(LIMIT);
        assert!(!holdings.has_room(None, 1) && !holdings.has_room(Some("bob"), 1));
        drop(ann);
        assert!(!holdings.has_room(None, 1));
        drop(unknown);
        assert!(holdings.has_room(Some("ann"), LIMIT));
    }

    #[test]
    fn what_has_no_room_does_not_grow() {
        let holdings = Holdings::within(LIMIT);
        let (mut ann, mut bob) = (holdings.of(Some("ann")), holdings.of(Some("bob")));
        assert!(ann.grow(LIMIT / 2) && !ann.grow(1));
        assert!(bob.grow(LIMIT / 4) && !bob.grow(1));
        assert_eq!(holdings.bytes(), LIMIT / 2 + LIMIT / 4);
        drop(ann);
        assert_eq!(sums(&holdings), (LIMIT / 4, vec![("bob".into(), LIMIT / 4)]));
        bob.set(0);
        assert!(bob.grow(LIMIT) && !holdings.has_room(None, 1));
    }
}
