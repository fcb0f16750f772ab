//! Who gets the next cell. Pure.
//!
//! As many cells run as may; what comes beyond waits, each owner in a queue of its own. A place that
//! becomes free goes to the owner with the fewest running cells, and among equals in turn: whoever got
//! one goes behind the others. So nobody with a thousand requests keeps another from running one, also
//! where there is one place for all.

use std::collections::{BTreeMap, VecDeque};

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Cells at a time.
    pub(crate) running: usize,
    /// Requests that wait, of all owners.
    pub(crate) waiting: usize,
    /// Requests that wait, of one owner.
    pub(crate) waiting_each: usize,
}

/// Running cells and waiting requests.
#[derive(Debug)]
pub(crate) struct Admission<O, T> {
    bounds: Bounds,
    running: BTreeMap<O, usize>,
    queues: BTreeMap<O, Queue<T>>,
    /// Counts turns, to know whose is next.
    turns: u64,
}

/// What waits of one owner.
#[derive(Debug)]
struct Queue<T> {
    /// When its turn is: after all that are smaller.
    turn: u64,
    waiting: VecDeque<T>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision<T> {
    /// It runs now, and counts until [`Admission::ended`].
    Start(T),
    /// It waits.
    Wait,
    /// There is no room for it.
    Refuse(T),
}

impl<O: Ord + Copy, T> Admission<O, T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (running, queues) = (BTreeMap::new(), BTreeMap::new());
        Self { bounds, running, queues, turns: 0 }
    }

    /// Takes a request of `owner`.
    pub(crate) fn offer(&mut self, owner: O, request: T) -> Decision<T> {
        if self.running() < self.bounds.running && self.waiting() == 0 {
            *self.running.entry(owner).or_default() += 1;
            return Decision::Start(request);
        }
        let own = self.queues.get(&owner).map_or(0, |queue| queue.waiting.len());
        if self.waiting() >= self.bounds.waiting || own >= self.bounds.waiting_each {
            return Decision::Refuse(request);
        }
        let turn = self.last_turn();
        let queue = self.queues.entry(owner);
        let queue = queue.or_insert_with(|| Queue { turn, waiting: VecDeque::new() });
        queue.waiting.push_back(request);
        Decision::Wait
    }

    /// A cell of `owner` has ended, or was never made.
    pub(crate) fn ended(&mut self, owner: O) {
        if let Some(running) = self.running.get_mut(&owner) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(&owner);
            }
        }
    }

    /// The next request to run, if one waits and there is room. It counts until
    /// [`ended`](Self::ended).
    pub(crate) fn next(&mut self) -> Option<(O, T)> {
        if self.running() >= self.bounds.running {
            return None;
        }
        let load = |owner: &O| self.running.get(owner).copied().unwrap_or_default();
        let (owner, _) =
            self.queues.iter().min_by_key(|(owner, queue)| (load(owner), queue.turn))?;
        let owner = *owner;
        let turn = self.last_turn();
        let queue = self.queues.get_mut(&owner)?;
        let request = queue.waiting.pop_front()?;
        queue.turn = turn;
        if queue.waiting.is_empty() {
            self.queues.remove(&owner);
        }
        *self.running.entry(owner).or_default() += 1;
        Some((owner, request))
    }

    /// Takes out what nobody waits for any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for queue in self.queues.values_mut() {
            queue.waiting.retain(&keep);
        }
        self.queues.retain(|_, queue| !queue.waiting.is_empty());
    }

    /// Takes out everything that waits.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<O, T> {
        let queues = std::mem::take(&mut self.queues);
        queues.into_values().flat_map(|queue| queue.waiting)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.values().sum()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    /// A turn behind all others.
    fn last_turn(&mut self) -> u64 {
        self.turns = self.turns.wrapping_add(1);
        self.turns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admission(running: usize) -> Admission<u8, u32> {
        Admission::new(Bounds { running, waiting: 8, waiting_each: 5 })
    }

    #[test]
    fn a_place_goes_to_who_has_least() {
        let mut admission = admission(2);
        assert_eq!(admission.offer(1, 10), Decision::Start(10));
        assert_eq!(admission.offer(1, 11), Decision::Start(11));
        for request in 12..17 {
            assert_eq!(admission.offer(1, request), Decision::Wait);
        }
        assert_eq!(admission.offer(1, 99), Decision::Refuse(99), "its own bound");
        assert_eq!(admission.offer(2, 20), Decision::Wait);
        assert_eq!(admission.next(), None, "all places are taken");
        admission.ended(1);
        assert_eq!(admission.next(), Some((2, 20)), "though the other has waited longer");
        admission.ended(1);
        assert_eq!(admission.next(), Some((1, 12)));
    }

    #[test]
    fn one_place_for_all_goes_round() {
        let mut admission = admission(1);
        for request in 10..15 {
            admission.offer(1, request);
        }
        // Others come late, and one comes back as soon as it was served.
        assert_eq!(admission.offer(2, 20), Decision::Wait);
        assert_eq!(admission.offer(3, 30), Decision::Wait);
        let mut served = Vec::new();
        let mut last = 1;
        for _ in 0..7 {
            admission.ended(last);
            let (owner, _) = admission.next().expect("somebody waits");
            served.push(owner);
            if owner == 2 {
                assert_eq!(admission.offer(2, 21), Decision::Wait);
            }
            last = owner;
        }
        assert_eq!(served, [1, 2, 3, 1, 2, 1, 2]);
    }

    #[test]
    fn those_who_left_are_passed_over() {
        let mut admission = admission(1);
        admission.offer(1, 1);
        admission.offer(1, 2);
        admission.offer(2, 3);
        admission.retain(|request| *request != 2);
        admission.ended(1);
        assert_eq!(admission.next(), Some((2, 3)));
        assert_eq!(admission.drain().count(), 0);
    }

    proptest! {
        #[test]
        fn every_request_is_started_or_refused_once_and_bounds_hold(
            steps in prop::collection::vec((0_u8..4, prop::bool::ANY), 1..200),
        ) {
            let mut admission = admission(3);
            let (mut started, mut refused, mut offered) = (Vec::new(), 0_usize, 0_u32);
            for (owner, arrives) in steps {
                if arrives {
                    offered += 1;
                    match admission.offer(owner, offered) {
                        Decision::Start(request) => started.push((owner, request)),
                        Decision::Wait => {}
                        Decision::Refuse(_) => refused += 1,
                    }
                } else if let Some((owner, _)) = started.pop() {
                    admission.ended(owner);
                    while let Some(next) = admission.next() {
                        started.push(next);
                    }
                }
                prop_assert!(admission.running() <= 3);
                prop_assert!(admission.waiting() <= 8);
                prop_assert!(admission.waiting() == 0 || admission.running() == 3);
            }
            prop_assert!(refused + started.len() + admission.waiting() <= offered as usize);
        }
    }
}
