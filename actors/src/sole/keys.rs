//! The keys that this node has or tries to get, when one of them is over, and how many requests look for
//! theirs. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::Moment;

use crate::limits::SOLE_ERRANDS;

/// What is kept for each key, and since when nobody has asked for it.
pub(super) struct Keys<K> {
    kept: HashMap<String, Kept<K>>,
    term: Duration,
    idle: Duration,
    most: usize,
    lives: u64,
}

struct Kept<K> {
    what: K,
    /// Whose conversation it is.
    caller: Option<String>,
    used: Moment,
    /// Tells it from what was kept for the same key before.
    life: u64,
    ends: bool,
}

/// What there is for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a, K> {
    Nothing,
    /// What was kept is about to end: nothing can be kept for this key before it has.
    Ending,
    Kept(&'a K),
}

/// What becomes of a key that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Stays,
    /// It ends unless its instance has tasks.
    IfIdle,
    /// Another node has it, and nobody asks here.
    Ends,
}

impl<K> Keys<K> {
    /// At most so many of leases that last for `term`; an instance that has been idle for `idle` ends.
    pub(super) fn new(term: Duration, idle: Duration, most: usize) -> Self {
        Self { kept: HashMap::new(), term, idle, most, lives: 0 }
    }

    /// Somebody asks for this key.
    pub(super) fn ask(&mut self, key: &str, now: Moment) -> Found<'_, K> {
        match self.kept.get_mut(key) {
            None => Found::Nothing,
            Some(kept) if kept.ends => Found::Ending,
            Some(kept) => {
                kept.used = now;
                Found::Kept(&kept.what)
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= self.most
    }

    /// Gives the number of what is kept for it now, if there was room.
    pub(super) fn insert(
        &mut self,
        key: String,
        caller: Option<String>,
        what: K,
        now: Moment,
    ) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        self.lives += 1;
        self.kept.insert(key, Kept { what, caller, used: now, life: self.lives, ends: false });
        Some(self.lives)
    }

    /// Those that could make room, the first one first: of the caller that has most, so that who has many pays for
    /// them, and of these the one that nobody has asked for longest.
    pub(super) fn crowd(&self) -> Vec<(&str, &K)> {
        let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
        for kept in self.kept.values() {
            *counts.entry(kept.caller.as_deref()).or_default() += 1;
        }
        let mut crowd: Vec<_> = self.kept.iter().filter(|(_, kept)| !kept.ends).collect();
        crowd.sort_by_key(|(_, kept)| {
            let many = counts.get(&kept.caller.as_deref()).copied().unwrap_or_default();
            (Reverse(many), kept.used)
        });
        crowd.into_iter().map(|(key, kept)| (key.as_str(), &kept.what)).collect()
    }

    /// It's about to end: gives it and its number, once.
    pub(super) fn end(&mut self, key: &str) -> Option<(&K, u64)> {
        let kept = self.kept.get_mut(key).filter(|kept| !kept.ends)?;
        kept.ends = true;
        Some((&kept.what, kept.life))
    }

    /// What had this number has ended. Says whether it was kept until now.
    pub(super) fn remove(&mut self, key: &str, life: u64) -> bool {
        let is_it = self.kept.get(key).is_some_and(|kept| kept.life == life);
        is_it && self.kept.remove(key).is_some()
    }

    /// From now on nothing is kept for later.
    pub(super) fn leave(&mut self) {
        (self.term, self.idle) = (Duration::ZERO, Duration::ZERO);
    }

    /// Whether it's kept, and nobody has asked for it since then.
    pub(super) fn is_unused_since(&self, key: &str, then: Moment) -> bool {
        self.kept.get(key).is_some_and(|kept| kept.used < then)
    }

    /// All that are kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &K> {
        self.kept.values().map(|kept| &kept.what)
    }

    /// Whatever was kept has ended.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// All that aren't ending, and what becomes of each; `is_here` says whether this node has it.
    pub(super) fn due(
        &self,
        now: Moment,
        is_here: impl Fn(&K) -> bool,
    ) -> impl Iterator<Item = (&str, &K, Due)> {
        self.kept.iter().filter(|(_, kept)| !kept.ends).map(move |(key, kept)| {
            let unused = now.since(kept.used);
            let due = match is_here(&kept.what) {
                true if unused > self.idle => Due::IfIdle,
                // Long enough to get it, if it could be had.
                false if unused > 2 * self.term => Due::Ends,
                _ => Due::Stays,
            };
            (key.as_str(), &kept.what, due)
        })
    }
}

/// The requests that are on their way: as many references as there are of them, and one.
#[derive(Default)]
pub(super) struct Errands(Arc<()>);

/// One of them; dropped when it's there.
pub(super) struct OnItsWay(#[expect(dead_code, reason = "it's counted")] Arc<()>);

impl Errands {
    /// Another one, unless there are as many as may be.
    pub(super) fn begin(&self) -> Option<OnItsWay> {
        (Arc::strong_count(&self.0) <= SOLE_ERRANDS).then(|| OnItsWay(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SOLE_KEPT;

    const TERM: Duration = Duration::from_secs(15);
    const IDLE: Duration = Duration::from_mins(10);

    fn keys<K>() -> Keys<K> {
        Keys::new(TERM, IDLE, SOLE_KEPT)
    }

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    /// What becomes of the one key there is.
    fn due(keys: &Keys<bool>, now: Moment) -> Due {
        keys.due(now, |is_here| *is_here).map(|(.., due)| due).next().unwrap()
    }

    #[test]
    fn an_instance_ends_when_nobody_has_asked_for_long_and_it_says_it_is_idle() {
        let mut keys = keys();
        let life = keys.insert("a".into(), None, true, at(0)).unwrap();
        assert_eq!(due(&keys, at(600)), Due::Stays);
        assert_eq!(due(&keys, at(601)), Due::IfIdle);
        // Asking is using.
        assert_eq!(keys.ask("a", at(601)), Found::Kept(&true));
        assert_eq!(due(&keys, at(1_201)), Due::Stays);
        assert_eq!(due(&keys, at(1_202)), Due::IfIdle);
        assert!(keys.remove("a", life) && !keys.remove("a", life));
        assert_eq!(keys.ask("a", at(0)), Found::Nothing);
    }

    #[test]
    fn what_ends_is_in_the_way_of_another_until_it_has_ended() {
        let mut keys = keys();
        let first = keys.insert("a".into(), None, true, at(0)).unwrap();
        assert_eq!(keys.end("a"), Some((&true, first)));
        assert_eq!(keys.end("a"), None, "it's ended once");
        assert_eq!(keys.ask("a", at(700)), Found::Ending);
        assert_eq!(keys.due(at(700), |is_here| *is_here).count(), 0);
        assert!(keys.remove("a", first));
        let second = keys.insert("a".into(), None, false, at(700)).unwrap();
        // What is heard late of the first one is nothing to the second.
        assert!(!keys.remove("a", first));
        assert_eq!(keys.ask("a", at(700)), Found::Kept(&false));
        assert_eq!(keys.end("a"), Some((&false, second)));
        keys.clear();
        assert_eq!(keys.ask("a", at(700)), Found::Nothing);
    }

    #[test]
    fn a_key_that_another_node_has_is_given_up_after_two_terms() {
        let mut keys = keys();
        keys.insert("a".into(), None, false, at(0)).unwrap();
        assert_eq!(due(&keys, at(30)), Due::Stays);
        assert_eq!(due(&keys, at(31)), Due::Ends);
    }

    #[test]
    fn once_the_node_leaves_all_that_nobody_uses_at_this_moment_ends() {
        let mut keys = keys();
        keys.insert("a".into(), None, true, at(0)).unwrap();
        keys.leave();
        assert_eq!(due(&keys, at(0)), Due::Stays);
        assert_eq!(due(&keys, at(1)), Due::IfIdle);
        assert!(keys.is_unused_since("a", at(1)) && !keys.is_unused_since("b", at(1)));
        // Asked while it's asked whether it's idle, it isn't.
        assert_eq!(keys.ask("a", at(1)), Found::Kept(&true));
        assert!(!keys.is_unused_since("a", at(1)));
        keys.insert("a".into(), None, false, at(1)).unwrap();
        assert_eq!(due(&keys, at(2)), Due::Ends);
    }

    #[test]
    fn as_many_conversations_as_may_live_here_and_one_that_ends_makes_room() {
        let mut keys = keys();
        for number in 0..SOLE_KEPT {
            assert!(!keys.is_full());
            keys.insert(number.to_string(), None, number, at(0)).unwrap();
        }
        assert!(keys.is_full() && keys.insert("one more".into(), None, 0, at(0)).is_none());
        assert_eq!(keys.ask("one more", at(0)), Found::Nothing);
        assert_eq!(keys.due(at(0), |_| true).count(), SOLE_KEPT);
        // One that is about to end lives here as well.
        let (_, life) = keys.end("7").unwrap();
        assert!(keys.is_full() && keys.remove("7", life));
        assert!(keys.insert("one more".into(), None, 0, at(0)).is_some());
    }

    #[test]
    fn who_has_most_makes_room_with_what_it_has_not_asked_for_longest() {
        let mut keys = Keys::new(TERM, IDLE, 5);
        let of = |name: &str| Some(name.to_owned());
        for (key, caller, second) in
            [("b1", of("bob"), 1), ("a1", of("alice"), 2), ("a2", of("alice"), 3), ("n", None, 0)]
        {
            keys.insert(key.into(), caller, (), at(second)).unwrap();
        }
        keys.insert("a3".into(), of("alice"), (), at(4)).unwrap();
        assert_eq!(keys.ask("a1", at(5)), Found::Kept(&()));
        let names = |keys: &Keys<()>| {
            keys.crowd().iter().map(|(key, ())| (*key).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&keys), ["a2", "a3", "a1", "n", "b1"]);
        // What ends already isn't ended again, and is there until it has ended.
        keys.end("a2").unwrap();
        assert_eq!(names(&keys), ["a3", "a1", "n", "b1"]);
    }

    #[test]
    fn as_many_requests_as_may_are_on_their_way_and_one_that_arrives_makes_room() {
        let errands = Errands::default();
        let mut under_way: Vec<OnItsWay> =
            (0..SOLE_ERRANDS).map(|_| errands.begin().unwrap()).collect();
        assert!(errands.begin().is_none());
        under_way.pop();
        under_way.push(errands.begin().unwrap());
        assert!(errands.begin().is_none());
    }
}
