//! Where calls with a key went that no node was named for: the same key goes there again. No I/O and no clock.

use std::collections::HashMap;

use neuroflow_kernel::Moment;

use super::CallKey;
use crate::identity::NodeId;
use crate::limits::{KEYED_TIME, PINNED_CALLS};

/// The name that is called, and the key.
pub(crate) type Place = (String, CallKey);

/// The calls of this node whose place is remembered.
#[derive(Debug, Default)]
pub(crate) struct Pins(HashMap<Place, Pinned>);

#[derive(Debug)]
struct Pinned {
    node: NodeId,
    /// The start of the node in which it was sent there.
    start: Option<u64>,
    until: Moment,
    /// Calls with this key that are under way.
    calls: usize,
    /// One that isn't any more may have run.
    ran: bool,
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
        deadline: Moment,
        choose: impl FnOnce() -> Option<NodeId>,
    ) -> Result<NodeId, NoPin> {
        let until = deadline + KEYED_TIME;
        if let Some(pinned) = self.0.get_mut(place).filter(|pinned| pinned.until > now) {
            pinned.until = pinned.until.max(until);
            pinned.calls += 1;
            return Ok(pinned.node);
        }
        if self.0.len() >= PINNED_CALLS {
            self.0.retain(|_, pinned| pinned.until > now);
        }
        if self.0.len() >= PINNED_CALLS {
            return Err(NoPin::Full);
        }
        let node = choose().ok_or(NoPin::Nowhere)?;
        self.0.insert(place.clone(), Pinned { node, start: None, until, calls: 1, ran: false });
        Ok(node)
    }

    /// Whether a call that has begun may be sent in this start of its node: another start than that in which
    /// one with its key may have run knows nothing of it. `ran` says whether this one may have run itself.
    pub(crate) fn may_send(&mut self, place: &Place, start: u64, ran: bool) -> bool {
        let Some(pinned) = self.0.get_mut(place) else { return !ran };
        let may = pinned.start.is_none_or(|first| first == start)
            || !(ran || pinned.ran || pinned.calls > 1);
        if may {
            pinned.start = Some(start);
        }
        may
    }

    /// Whether another call with this key may have run.
    pub(crate) fn may_have_run(&self, place: &Place) -> bool {
        self.0.get(place).is_some_and(|pinned| pinned.ran || pinned.calls > 1)
    }

    /// A call is over. While none with its key may have run, the next one may go anywhere; otherwise its place
    /// is remembered until the callee has forgotten it too.
    pub(crate) fn ends(&mut self, place: &Place, ran: bool) {
        let Some(pinned) = self.0.get_mut(place) else { return };
        pinned.calls = pinned.calls.saturating_sub(1);
        pinned.ran |= ran;
        if pinned.calls == 0 && !pinned.ran {
            self.0.remove(place);
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
        pins.begin(&place(key), at, at, || Some(node(to)))
    }

    #[test]
    fn the_same_key_goes_to_the_same_node_until_that_has_forgotten_it() {
        let mut pins = Pins::default();
        let deadline = NOW + Duration::from_secs(1);
        assert_eq!(pins.begin(&place("17"), NOW, deadline, || Some(node(1))), Ok(node(1)));
        assert!(pins.may_send(&place("17"), 7, false));
        pins.ends(&place("17"), true);
        assert!(pins.may_have_run(&place("17")));
        assert_eq!(begin(&mut pins, "17", deadline, 2), Ok(node(1)));
        assert!(!pins.may_send(&place("17"), 8, false), "another start of that node");
        assert!(pins.may_send(&place("17"), 7, true));
        assert_eq!(begin(&mut pins, "18", NOW, 2), Ok(node(2)));
        assert_eq!(begin(&mut pins, "17", deadline + KEYED_TIME, 2), Ok(node(2)));
    }

    #[test]
    fn what_surely_did_not_run_may_go_anywhere() {
        let mut pins = Pins::default();
        assert_eq!(pins.begin(&place("17"), NOW, NOW, || None), Err(NoPin::Nowhere));
        assert_eq!(begin(&mut pins, "17", NOW, 1), Ok(node(1)));
        assert!(pins.may_send(&place("17"), 7, false) && pins.may_send(&place("17"), 8, false));
        assert!(!pins.may_send(&place("17"), 9, true), "a try of its own may have run");
        pins.ends(&place("17"), false);
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
        pins.ends(&place("17"), false);
        assert_eq!(begin(&mut pins, "17", NOW, 2), Ok(node(1)), "one is still under way");
        pins.ends(&place("17"), false);
        pins.ends(&place("17"), true);
        assert_eq!(begin(&mut pins, "17", NOW, 2), Ok(node(1)), "and has run");
    }

    #[test]
    fn only_so_many_are_remembered_and_old_ones_make_room() {
        let mut pins = Pins::default();
        for key in 0..PINNED_CALLS {
            begin(&mut pins, &key.to_string(), NOW, 1).unwrap();
        }
        assert_eq!(begin(&mut pins, "more", NOW, 1), Err(NoPin::Full));
        assert_eq!(begin(&mut pins, "more", NOW + KEYED_TIME, 1), Ok(node(1)));
    }
}
