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
    incarnation: Option<u64>,
    until: Moment,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) node: NodeId,
    /// The start of the node in which it was first sent there.
    pub(crate) incarnation: Option<u64>,
    /// Whether it was sent there before, so that it may have run.
    pub(crate) is_known: bool,
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
    /// A call begins: where it went before, or where `choose` says. It's remembered until the callee has
    /// forgotten it too.
    pub(crate) fn begin(
        &mut self,
        place: &Place,
        now: Moment,
        deadline: Moment,
        choose: impl FnOnce() -> Option<(NodeId, Option<u64>)>,
    ) -> Result<Pin, NoPin> {
        let until = deadline + KEYED_TIME;
        if let Some(pinned) = self.0.get_mut(place).filter(|pinned| pinned.until > now) {
            pinned.until = pinned.until.max(until);
            let Pinned { node, incarnation, .. } = *pinned;
            return Ok(Pin { node, incarnation, is_known: true });
        }
        if self.0.len() >= PINNED_CALLS {
            self.0.retain(|_, pinned| pinned.until > now);
        }
        if self.0.len() >= PINNED_CALLS {
            return Err(NoPin::Full);
        }
        let (node, incarnation) = choose().ok_or(NoPin::Nowhere)?;
        self.0.insert(place.clone(), Pinned { node, incarnation, until });
        Ok(Pin { node, incarnation, is_known: false })
    }

    /// The call surely didn't run: it may go anywhere the next time.
    pub(crate) fn remove(&mut self, place: &Place) {
        self.0.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from([number; 32])
    }

    fn place(key: &str) -> Place {
        ("payments".to_owned(), CallKey::of(key))
    }

    #[test]
    fn the_same_key_goes_to_the_same_node_until_that_has_forgotten_it() {
        let mut pins = Pins::default();
        let now = Moment::ORIGIN;
        let deadline = now + Duration::from_secs(1);
        let first = pins.begin(&place("17"), now, deadline, || Some((node(1), Some(7)))).unwrap();
        assert_eq!(first, Pin { node: node(1), incarnation: Some(7), is_known: false });
        let again =
            pins.begin(&place("17"), deadline, deadline, || Some((node(2), Some(8)))).unwrap();
        assert_eq!(again, Pin { node: node(1), incarnation: Some(7), is_known: true });
        let other = pins.begin(&place("18"), now, deadline, || Some((node(2), None))).unwrap();
        assert_eq!(other.node, node(2));
        let late = deadline + KEYED_TIME;
        let late = pins.begin(&place("17"), late, late, || Some((node(2), None))).unwrap();
        assert_eq!((late.node, late.is_known), (node(2), false));
    }

    #[test]
    fn what_did_not_run_may_go_anywhere() {
        let mut pins = Pins::default();
        let now = Moment::ORIGIN;
        assert_eq!(pins.begin(&place("17"), now, now, || None), Err(NoPin::Nowhere));
        pins.begin(&place("17"), now, now, || Some((node(1), None))).unwrap();
        pins.remove(&place("17"));
        assert_eq!(
            pins.begin(&place("17"), now, now, || Some((node(2), None))).unwrap().node,
            node(2)
        );
    }

    #[test]
    fn only_so_many_are_remembered_and_old_ones_make_room() {
        let mut pins = Pins::default();
        let now = Moment::ORIGIN;
        for key in 0..PINNED_CALLS {
            pins.begin(&place(&key.to_string()), now, now, || Some((node(1), None))).unwrap();
        }
        assert_eq!(
            pins.begin(&place("more"), now, now, || Some((node(1), None))),
            Err(NoPin::Full)
        );
        let later = now + KEYED_TIME;
        assert!(pins.begin(&place("more"), later, later, || Some((node(1), None))).is_ok());
    }
}
