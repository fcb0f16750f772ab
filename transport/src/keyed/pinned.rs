//! Where calls with a key went that no node was named for: the same key goes there again. No I/O and no clock.

use std::collections::HashMap;

use neuroflow_kernel::Moment;

use super::CallKey;
use crate::identity::NodeId;
use crate::limits::{PINNED_CALLS, PINNED_SWEEP};

/// The name that is called, and the key.
pub(crate) type Place = (String, CallKey);

/// The calls of this node whose place is remembered.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    places: HashMap<Place, Pinned>,
    /// When those that are past their time were looked for last.
    swept: Option<Moment>,
}

#[derive(Debug)]
struct Pinned {
    node: NodeId,
    /// The start of the node in which it was sent there.
    start: Option<u64>,
    /// Calls with this key that are under way.
    calls: usize,
    /// Until when one that isn't any more is known to have run, or may have.
    ran: Option<Moment>,
}

impl Pinned {
    fn stands(&self, now: Moment) -> bool {
        self.calls > 0 || self.ran.is_some_and(|until| until > now)
    }
}

/// Why a call goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPin {
    /// No node is there for it.
    Nowhere,
    /// As many are remembered as may be.
    Full,
}

impl Pins {
    /// A call begins, and goes where others with its key have gone, or where `choose` says. It has to
    /// [`end`](Self::ends).
    pub(crate) fn begin(
        &mut self,
        place: &Place,
        now: Moment,
        choose: impl FnOnce() -> Option<NodeId>,
    ) -> Result<NodeId, NoPin> {
        if let Some(pinned) = self.places.get_mut(place).filter(|pinned| pinned.stands(now)) {
            pinned.calls += 1;
            return Ok(pinned.node);
        }
        // All are looked at, so not for each call that finds no room.
        let is_time = self.swept.is_none_or(|at| now.since(at) >= PINNED_SWEEP);
        if self.places.len() >= PINNED_CALLS && is_time {
            self.swept = Some(now);
            self.places.retain(|_, pinned| pinned.stands(now));
        }
        if self.places.len() >= PINNED_CALLS {
            return Err(NoPin::Full);
        }
        let node = choose().ok_or(NoPin::Nowhere)?;
        self.places.insert(place.clone(), Pinned { node, start: None, calls: 1, ran: None });
        Ok(node)
    }

    /// Whether a call that has begun may be sent in this start of its node: another start than that in which
    /// one with its key may have run knows nothing of it. `ran` says whether this one may have run itself.
    pub(crate) fn may_send(&mut self, place: &Place, start: u64, ran: bool) -> bool {
        let Some(pinned) = self.places.get_mut(place) else { return !ran };
        let may = pinned.start.is_none_or(|first| first == start)
            || !(ran || pinned.ran.is_some() || pinned.calls > 1);
        if may {
            pinned.start = Some(start);
        }
        may
    }

    /// Whether another call with this key may have run.
    pub(crate) fn may_have_run(&self, place: &Place) -> bool {
        self.places.get(place).is_some_and(|pinned| pinned.ran.is_some() || pinned.calls > 1)
    }

    /// A call is over. While none with its key may have run, the next one may go anywhere; otherwise its place
    /// is remembered for as long as the callee knows what ran there: until `ran`.
    pub(crate) fn ends(&mut self, place: &Place, ran: Option<Moment>) {
        let Some(pinned) = self.places.get_mut(place) else { return };
        pinned.calls = pinned.calls.saturating_sub(1);
        pinned.ran = pinned.ran.max(ran);
        if pinned.calls == 0 && pinned.ran.is_none() {
            self.places.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Moment = Moment::ORIGIN;

    fn node(number: u8) -> NodeId {
        NodeId::from([number; 32])
    }

    fn place(key: &str) -> Place {
        ("payments".to_owned(), CallKey::of(key))
    }

    /// Begins a call that would go to this node.
    fn begin(pins: &mut Pins, key: &str, at: Moment, to: u8) -> Result<NodeId, NoPin> {
        pins.begin(&place(key), at, || Some(node(to)))
    }

    #[test]
    fn the_same_key_goes_to_the_same_node_until_that_has_forgotten_it() {
        let mut pins = Pins::default();
        let (soon, late) = (NOW + Duration::from_secs(1), NOW + Duration::from_secs(2));
        assert_eq!(begin(&mut pins, "17", NOW, 1), Ok(node(1)));
        assert!(pins.may_send(&place("17"), 7, false));
        pins.ends(&place("17"), Some(late));
        assert!(pins.may_have_run(&place("17")));
        assert_eq!(begin(&mut pins, "17", soon, 2), Ok(node(1)));
        assert!(!pins.may_send(&place("17"), 8, false), "another start of that node");
        assert!(pins.may_send(&place("17"), 7, true));
        assert_eq!(begin(&mut pins, "18", NOW, 2), Ok(node(2)));
        assert_eq!(begin(&mut pins, "17", late, 2), Ok(node(1)), "one is under way");
        // What is known of one call isn't shortened by another.
        pins.ends(&place("17"), Some(soon));
        pins.ends(&place("17"), None);
        assert_eq!(begin(&mut pins, "17", soon, 2), Ok(node(1)));
        pins.ends(&place("17"), None);
        assert_eq!(begin(&mut pins, "17", late, 2), Ok(node(2)));
    }

    #[test]
    fn what_surely_did_not_run_may_go_anywhere() {
        let mut pins = Pins::default();
        assert_eq!(pins.begin(&place("17"), NOW, || None), Err(NoPin::Nowhere));
        assert_eq!(begin(&mut pins, "17", NOW, 1), Ok(node(1)));
        assert!(pins.may_send(&place("17"), 7, false) && pins.may_send(&place("17"), 8, false));
        assert!(!pins.may_send(&place("17"), 9, true), "a try of its own may have run");
        pins.ends(&place("17"), None);
        assert_eq!(begin(&mut pins, "17", NOW, 2), Ok(node(2)));
    }

    #[test]
    fn a_call_that_did_not_run_leaves_the_place_to_one_that_may() {
        let mut pins = Pins::default();
        for _ in 0..2 {
            assert_eq!(begin(&mut pins, "17", NOW, 1), Ok(node(1)));
        }
        assert!(pins.may_have_run(&place("17")), "the other one may");
        assert!(pins.may_send(&place("17"), 7, false) && !pins.may_send(&place("17"), 8, false));
        pins.ends(&place("17"), None);
        assert_eq!(begin(&mut pins, "17", NOW, 2), Ok(node(1)), "one is still under way");
        pins.ends(&place("17"), None);
        pins.ends(&place("17"), Some(NOW + PINNED_SWEEP));
        assert_eq!(begin(&mut pins, "17", NOW, 2), Ok(node(1)), "and has run");
    }

    #[test]
    fn only_so_many_are_remembered_and_old_ones_make_room() {
        let mut pins = Pins::default();
        for key in 0..PINNED_CALLS {
            begin(&mut pins, &key.to_string(), NOW, 1).unwrap();
        }
        let over = NOW + Duration::from_nanos(1);
        pins.ends(&place("0"), Some(over));
        assert_eq!(begin(&mut pins, "more", NOW, 1), Err(NoPin::Full));
        assert_eq!(
            begin(&mut pins, "more", over, 1),
            Err(NoPin::Full),
            "they aren't looked at yet"
        );
        assert_eq!(begin(&mut pins, "more", NOW + PINNED_SWEEP, 1), Ok(node(1)));
        assert_eq!(begin(&mut pins, "again", NOW + PINNED_SWEEP * 9, 1), Err(NoPin::Full));
    }
}
