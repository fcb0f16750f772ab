//! The keys that this node has or tries to get, when one of them is over, and how many requests look for
//! theirs. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::Moment;

use crate::limits::{SOLE_ERRANDS, SOLE_KEPT};

/// What is kept for each key, and since when nobody has asked for it.
pub(super) struct Keys<K> {
    kept: HashMap<String, Kept<K>>,
    term: Duration,
    idle: Duration,
}

struct Kept<K> {
    what: K,
    used: Moment,
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
    /// Of leases that last for `term`; an instance that has been idle for `idle` ends.
    pub(super) fn new(term: Duration, idle: Duration) -> Self {
        Self { kept: HashMap::new(), term, idle }
    }

    /// Somebody asks for this key.
    pub(super) fn ask(&mut self, key: &str, now: Moment) -> Option<&K> {
        let kept = self.kept.get_mut(key)?;
        kept.used = now;
        Some(&kept.what)
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= SOLE_KEPT
    }

    /// Whether there was room.
    pub(super) fn insert(&mut self, key: String, what: K, now: Moment) -> bool {
        let fits = !self.is_full();
        if fits {
            self.kept.insert(key, Kept { what, used: now });
        }
        fits
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<K> {
        self.kept.remove(key).map(|kept| kept.what)
    }

    /// All of them, and what becomes of each; `is_here` says whether this node has it.
    pub(super) fn due(
        &self,
        now: Moment,
        is_here: impl Fn(&K) -> bool,
    ) -> impl Iterator<Item = (&str, &K, Due)> {
        self.kept.iter().map(move |(key, kept)| {
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

    const TERM: Duration = Duration::from_secs(15);
    const IDLE: Duration = Duration::from_mins(10);

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    /// What becomes of the one key there is.
    fn due(keys: &Keys<bool>, now: Moment) -> Due {
        keys.due(now, |is_here| *is_here).map(|(.., due)| due).next().unwrap()
    }

    #[test]
    fn an_instance_ends_when_nobody_has_asked_for_long_and_it_says_it_is_idle() {
        let mut keys = Keys::new(TERM, IDLE);
        assert!(keys.insert("a".into(), true, at(0)));
        assert_eq!(due(&keys, at(600)), Due::Stays);
        assert_eq!(due(&keys, at(601)), Due::IfIdle);
        // Asking is using.
        assert_eq!(keys.ask("a", at(601)), Some(&true));
        assert_eq!(due(&keys, at(1_201)), Due::Stays);
        assert_eq!(due(&keys, at(1_202)), Due::IfIdle);
        assert_eq!(keys.remove("a"), Some(true));
        assert!(keys.ask("a", at(0)).is_none() && keys.remove("a").is_none());
    }

    #[test]
    fn a_key_that_another_node_has_is_given_up_after_two_terms() {
        let mut keys = Keys::new(TERM, IDLE);
        assert!(keys.insert("a".into(), false, at(0)));
        assert_eq!(due(&keys, at(30)), Due::Stays);
        assert_eq!(due(&keys, at(31)), Due::Ends);
    }

    #[test]
    fn as_many_conversations_as_may_live_here_and_one_that_ends_makes_room() {
        let mut keys = Keys::new(TERM, IDLE);
        for number in 0..SOLE_KEPT {
            assert!(!keys.is_full());
            assert!(keys.insert(number.to_string(), number, at(0)));
        }
        assert!(keys.is_full() && !keys.insert("one more".into(), 0, at(0)));
        assert_eq!(keys.ask("one more", at(0)), None);
        assert_eq!(keys.due(at(0), |_| true).count(), SOLE_KEPT);
        assert_eq!(keys.remove("7"), Some(7));
        assert!(keys.insert("one more".into(), 0, at(0)));
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
