//! The calls that wait for their answers, and replies in their order.
//!
//! Large replies travel on streams of their own and may be overtaken, so each reply has a number and
//! waits for those before it. A call's own id has the number of its place and of the life of that
//! place, so that a late reply to an old call never reaches a newer one.

use std::collections::BTreeMap;

use neuroflow_kernel::Moment;

use super::Violation;
use super::window::Allowance;
use crate::limits::{REPLY_CREDIT_BYTES, REPLY_CREDIT_MESSAGES, WATCH_PLACES};

/// A table of calls.
#[derive(Debug)]
pub(crate) struct Calls<C, P> {
    places: Vec<Place<C, P>>,
    free: Vec<u32>,
    limit: usize,
    /// The life before the first one of a new place.
    unborn: u32,
    /// Calls that last for as long as what they are about.
    lasting: usize,
    /// A place has become free in a full table.
    freed: bool,
    /// Requests and notices that have left the lane's queue.
    pub(crate) left: u64,
}

#[derive(Debug)]
struct Place<C, P> {
    life: u32,
    call: Option<Call<C, P>>,
}

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Call<C, P> {
    pub(crate) caller: C,
    /// Which message of the lane's queue it is; 0 if it isn't in there.
    pub(crate) place: u64,
    /// It's answered when something else ends, so nobody waits for that.
    lasting: bool,
    deadline: Option<Moment>,
    /// The number of the next reply for the caller.
    due: u32,
    /// The number of the end, once it's known.
    end: Option<u32>,
    /// Replies that came early, or that the caller has no room for.
    held: BTreeMap<u32, Item<P>>,
    blocked: bool,
    allowance: Allowance,
}

/// A reply, the end, or both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item<P> {
    pub(crate) reply: Option<P>,
    pub(crate) bytes: usize,
    /// The code of the end.
    pub(crate) end: Option<u8>,
}

/// A call that a sweep has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Swept<C> {
    pub(crate) id: u64,
    pub(crate) caller: C,
    pub(crate) why: Over,
    /// Its request still waits in the lane's queue, and its cancellation mustn't overtake it.
    pub(crate) queued: bool,
}

/// Why a sweep ends a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The caller has gone.
    Gone,
    /// Its deadline has passed.
    Late,
}

impl<C, P> Calls<C, P> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            limit,
            unborn: 0,
            lasting: 0,
            freed: false,
            left: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }

    /// Enters a call; the caller comes back if there is no place.
    pub(crate) fn insert(&mut self, caller: C, deadline: Option<Moment>) -> Result<u64, C> {
        self.insert_within(self.limit, caller, deadline)
    }

    /// The same of a call that lasts, for which there are places that no other may have.
    pub(crate) fn insert_lasting(&mut self, caller: C, deadline: Option<Moment>) -> Result<u64, C> {
        let id = self.insert_within(self.limit.saturating_add(WATCH_PLACES), caller, deadline)?;
        self.lasts(id);
        Ok(id)
    }

    fn insert_within(
        &mut self,
        limit: usize,
        caller: C,
        deadline: Option<Moment>,
    ) -> Result<u64, C> {
        if self.len() >= limit {
            return Err(caller);
        }
        let call = Call {
            caller,
            place: 0,
            lasting: false,
            deadline,
            due: 0,
            end: None,
            held: BTreeMap::new(),
            blocked: false,
            allowance: Allowance::new(REPLY_CREDIT_MESSAGES, REPLY_CREDIT_BYTES),
        };
        let index = if let Some(index) = self.free.pop() {
            index
        } else {
            let Ok(index) = u32::try_from(self.places.len()) else { return Err(call.caller) };
            self.places.push(Place { life: self.unborn, call: None });
            index
        };
        let place = &mut self.places[index as usize];
        place.life = place.life.wrapping_add(1);
        place.call = Some(call);
        Ok(u64::from(place.life) << 32 | u64::from(index))
    }

    /// Whether there is no place for another.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Whether there is no place for one that lasts.
    pub(crate) fn is_full_of_all(&self) -> bool {
        self.len() >= self.limit.saturating_add(WATCH_PLACES)
    }

    /// Whether there is a place again where there was none; true once, so that who waits is told.
    pub(crate) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// The call of this id lasts for as long as what it's about.
    fn lasts(&mut self, id: u64) {
        if let Some(call) = self.get(id).filter(|call| !call.lasting) {
            call.lasting = true;
            self.lasting += 1;
        }
    }

    /// Calls whose end somebody waits for.
    pub(crate) fn awaited(&self) -> usize {
        self.len().saturating_sub(self.lasting)
    }

    /// The call of this id, unless it's over.
    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Call<C, P>> {
        let (life, index) = parts(id);
        let place = self.places.get_mut(index as usize)?;
        if place.life == life { place.call.as_mut() } else { None }
    }

    /// Takes a call out.
    pub(crate) fn remove(&mut self, id: u64) -> Option<C> {
        let (life, index) = parts(id);
        // There are two bounds, and who waits at either looks again.
        let was_full = self.len() == self.limit || self.is_full_of_all();
        let place = self.places.get_mut(index as usize).filter(|place| place.life == life)?;
        let call = place.call.take()?;
        self.freed |= was_full;
        self.lasting -= usize::from(call.lasting);
        self.free.push(index);
        if self.free.len() == self.places.len() && self.places.len() > IDLE_PLACES {
            self.forget();
        }
        Some(call.caller)
    }

    /// A burst doesn't leave its table behind, only the lives that its places have had.
    fn forget(&mut self) {
        self.unborn = self.places.iter().map(|place| place.life).max().unwrap_or_default();
        self.places = Vec::new();
        self.free = Vec::new();
    }

    /// Takes out the calls that are over without an answer.
    pub(crate) fn sweep(&mut self, now: Moment, gone: impl Fn(&C) -> bool) -> Vec<Swept<C>> {
        if self.len() == 0 {
            return Vec::new();
        }
        let mut over = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let Some(call) = &place.call else { continue };
            let why = if gone(&call.caller) {
                Over::Gone
            } else if call.deadline.is_some_and(|deadline| now >= deadline) {
                Over::Late
            } else {
                continue;
            };
            let queued = call.place > self.left;
            over.push((u64::from(place.life) << 32 | index as u64, why, queued));
        }
        let take =
            |(id, why, queued)| self.remove(id).map(|caller| Swept { id, caller, why, queued });
        over.into_iter().filter_map(take).collect()
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = C> {
        self.free.clear();
        self.lasting = 0;
        std::mem::take(&mut self.places)
            .into_iter()
            .filter_map(|place| place.call.map(|call| call.caller))
    }
}

/// Places that an idle table keeps: a steady trickle of calls must not make it anew each time.
const IDLE_PLACES: usize = 256;

fn parts(id: u64) -> (u32, u32) {
    let [low, high] = [id & u64::from(u32::MAX), id >> 32];
    (u32::try_from(high).unwrap_or_default(), u32::try_from(low).unwrap_or_default())
}

impl<C, P> Call<C, P> {
    /// Takes what has arrived as number `sequence`; gives it back if it's the caller's turn for it.
    pub(crate) fn arrived(
        &mut self,
        sequence: u32,
        item: Item<P>,
    ) -> Result<Option<Item<P>>, Violation> {
        // Numbers begin again behind the last one: what is far ahead lies behind.
        let ahead = sequence.wrapping_sub(self.due);
        let past_the_end = self.end.is_some_and(|end| {
            let left = end.wrapping_sub(self.due);
            ahead >= left || left > u32::MAX / 2
        });
        if ahead > u32::MAX / 2 || past_the_end || self.held.contains_key(&sequence) {
            return Err(Violation::Sequence);
        }
        if u64::from(ahead) > REPLY_CREDIT_MESSAGES {
            return Err(Violation::Credit);
        }
        if item.reply.is_some() {
            self.allowance.arrived(item.bytes)?;
        }
        if item.end.is_some() {
            self.end = Some(sequence);
        }
        if sequence == self.due && !self.blocked {
            // Whoever has begun to answer is trusted to go on: a stream outlives the wait for its start. What is
            // ahead of its turn begins nothing, for what it waits for may be lost with the link.
            self.deadline = None;
            self.due = self.due.wrapping_add(1);
            return Ok(Some(item));
        }
        self.held.insert(sequence, item);
        Ok(None)
    }

    /// What else is the caller's turn.
    pub(crate) fn next(&mut self) -> Option<Item<P>> {
        self.blocked = false;
        let item = self.held.remove(&self.due)?;
        self.due = self.due.wrapping_add(1);
        Some(item)
    }

    /// The caller has no room for it: it waits for [`next`](Self::next).
    pub(crate) fn put_back(&mut self, item: Item<P>) {
        self.due = self.due.wrapping_sub(1);
        self.held.insert(self.due, item);
        self.blocked = true;
    }

    /// Replies that wait for their turn or for room.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// The caller has taken a reply; gives what to grant, if that is worth a frame.
    pub(crate) fn taken(&mut self, bytes: usize) -> Option<(u64, u64)> {
        self.allowance.taken(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(number: u32) -> Item<u32> {
        Item { reply: Some(number), bytes: 1, end: None }
    }

    fn calls() -> (Calls<&'static str, u32>, u64) {
        let mut calls = Calls::new(4);
        let id = calls.insert("caller", None).unwrap();
        (calls, id)
    }

    #[test]
    fn a_late_reply_never_reaches_a_newer_call() {
        let (mut calls, old) = calls();
        assert_eq!(calls.remove(old), Some("caller"));
        let new = calls.insert("next", None).unwrap();
        assert_ne!(old, new);
        assert!(calls.get(old).is_none() && calls.remove(old).is_none());
        assert_eq!(calls.get(new).unwrap().caller, "next");
    }

    #[test]
    fn a_stream_goes_on_behind_the_last_number() {
        let (mut calls, id) = calls();
        let call = calls.get(id).unwrap();
        call.due = u32::MAX - 1;
        assert_eq!(call.arrived(u32::MAX - 1, reply(1)), Ok(Some(reply(1))));
        call.taken(1);
        assert_eq!(call.arrived(0, reply(3)), Ok(None));
        call.taken(1);
        assert_eq!(call.arrived(u32::MAX, reply(2)), Ok(Some(reply(2))));
        call.taken(1);
        assert_eq!(call.next(), Some(reply(3)));
        assert_eq!(call.arrived(u32::MAX, reply(2)), Err(Violation::Sequence));
        let end = Item { end: Some(1), ..reply(4) };
        assert_eq!(call.arrived(2, end), Ok(None));
        assert_eq!(call.arrived(3, reply(5)), Err(Violation::Sequence));
        assert_eq!(call.arrived(1, reply(4)), Ok(Some(reply(4))));
    }

    #[test]
    fn nobody_waits_for_calls_that_last() {
        let (mut calls, first) = calls();
        let watch = calls.insert("watch", None).unwrap();
        calls.lasts(watch);
        calls.lasts(watch);
        assert_eq!((calls.len(), calls.awaited()), (2, 1));
        calls.remove(first);
        assert_eq!((calls.len(), calls.awaited()), (1, 0));
        calls.remove(watch);
        let again = calls.insert("again", None).unwrap();
        assert_eq!((calls.len(), calls.awaited()), (1, 1));
        calls.lasts(again);
        assert_eq!(calls.drain().count(), 1);
        assert_eq!(calls.awaited(), 0);
    }

    #[test]
    fn a_full_table_gives_the_caller_back() {
        let mut calls: Calls<u8, ()> = Calls::new(2);
        assert!(calls.insert(1, None).is_ok() && calls.insert(2, None).is_ok());
        assert_eq!(calls.insert(3, None), Err(3));
        assert!(calls.is_full() && !calls.take_freed());
        let first = calls.sweep(Moment::ORIGIN, |caller| *caller == 1);
        assert_eq!(first.len(), 1);
        assert!(!calls.is_full() && calls.take_freed() && !calls.take_freed());
        assert!(calls.insert(1, None).is_ok());
        assert_eq!(calls.drain().count(), 2);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn calls_that_last_have_places_that_no_other_takes() {
        let mut calls: Calls<usize, ()> = Calls::new(2);
        let first = calls.insert(1, None).unwrap();
        assert!(calls.insert(2, None).is_ok());
        let watches: Vec<u64> =
            (0..WATCH_PLACES).map(|nth| calls.insert_lasting(nth, None).unwrap()).collect();
        assert_eq!(calls.insert_lasting(7, None), Err(7));
        assert!(calls.is_full_of_all() && calls.awaited() == 2);
        calls.remove(watches[0]);
        assert!(calls.take_freed() && !calls.is_full_of_all());
        assert_eq!(calls.insert(3, None), Err(3), "not for such a one");
        assert!(calls.insert_lasting(0, None).is_ok());
        for id in &watches[1..] {
            assert!(calls.remove(*id).is_some());
        }
        assert!(calls.is_full() && calls.insert(3, None).is_err());
        calls.take_freed();
        calls.remove(first);
        assert!(!calls.take_freed(), "a watch has the place");
    }

    #[test]
    fn a_burst_leaves_neither_memory_nor_ids_behind() {
        let mut calls: Calls<usize, ()> = Calls::new(10_000);
        let ids: Vec<u64> = (0..5_000).map(|n| calls.insert(n, None).unwrap()).collect();
        for id in &ids {
            assert!(calls.remove(*id).is_some());
        }
        assert_eq!(calls.len(), 0);
        assert!(calls.places.capacity() < 200);
        for n in 0..5_000 {
            let id = calls.insert(n, None).unwrap();
            assert!(!ids.contains(&id));
        }
    }

    #[test]
    fn a_sweep_takes_out_the_gone_and_the_late() {
        let mut calls: Calls<&str, ()> = Calls::new(9);
        let at = Moment::ORIGIN + std::time::Duration::from_secs(1);
        calls.insert("stays", None).unwrap();
        let late = calls.insert("late", Some(at)).unwrap();
        let gone = calls.insert("gone", None).unwrap();
        calls.get(late).unwrap().place = 1;
        calls.get(gone).unwrap().place = 2;
        calls.left = 1;
        let over = calls.sweep(at, |caller| *caller == "gone");
        let late = Swept { id: late, caller: "late", why: Over::Late, queued: false };
        let gone = Swept { id: gone, caller: "gone", why: Over::Gone, queued: true };
        assert_eq!(over, [late, gone]);
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn what_is_ahead_of_its_turn_begins_no_answer() {
        let at = Moment::ORIGIN + std::time::Duration::from_secs(1);
        for (first, late) in [(1, true), (0, false)] {
            let mut calls: Calls<&str, u32> = Calls::new(4);
            let id = calls.insert("caller", Some(at)).unwrap();
            let given = calls.get(id).unwrap().arrived(first, reply(first)).unwrap();
            assert_eq!(given.is_none(), late);
            assert_eq!(calls.sweep(at, |_| false).len(), usize::from(late));
        }
    }

    #[test]
    fn what_a_fair_peer_never_does_is_a_violation() {
        let (mut calls, id) = calls();
        let call = calls.get(id).unwrap();
        assert!(call.arrived(0, reply(0)).unwrap().is_some());
        assert_eq!(call.arrived(0, reply(0)), Err(Violation::Sequence));
        assert!(call.arrived(2, reply(2)).unwrap().is_none());
        assert_eq!(call.arrived(2, reply(2)), Err(Violation::Sequence));
        assert!(call.arrived(3, Item { reply: None, bytes: 0, end: Some(1) }).unwrap().is_none());
        assert_eq!(call.arrived(4, reply(4)), Err(Violation::Sequence));
        assert_eq!(call.arrived(900, reply(1)), Err(Violation::Sequence));
        let flood = (4..500).map(|n| call.arrived(n, reply(n))).find(Result::is_err);
        assert!(flood.is_some());
    }

    #[test]
    fn more_replies_than_granted_are_a_violation() {
        let (mut calls, id) = calls();
        let call = calls.get(id).unwrap();
        let first = call.arrived(0, reply(0)).unwrap().unwrap();
        call.put_back(first);
        let credit = u32::try_from(REPLY_CREDIT_MESSAGES).unwrap();
        for n in 1..credit {
            assert_eq!(call.arrived(n, reply(n)), Ok(None));
        }
        assert_eq!(call.arrived(credit, reply(credit)), Err(Violation::Credit));
    }

    proptest! {
        #[test]
        fn replies_reach_the_caller_in_order_whatever_overtakes(
            order in Just((0_u32..40).collect::<Vec<_>>()).prop_shuffle(),
            full in prop::collection::vec(any::<bool>(), 200),
        ) {
            let (mut calls, id) = calls();
            let call = calls.get(id).unwrap();
            let mut full = full.into_iter();
            let mut seen = Vec::new();
            let mut last = None;
            for number in order {
                let end = (number == 39).then_some(1);
                let item = Item { reply: Some(number), bytes: 1, end };
                let mut due = call.arrived(number, item).unwrap();
                while let Some(item) = due {
                    if full.next().unwrap_or(false) {
                        call.put_back(item);
                        break;
                    }
                    seen.extend(item.reply);
                    last = last.or(item.end);
                    due = call.next();
                }
            }
            while let Some(item) = call.next() {
                seen.extend(item.reply);
                last = last.or(item.end);
            }
            prop_assert_eq!(seen, (0..40).collect::<Vec<_>>());
            prop_assert_eq!(last, Some(1));
        }
    }
}
