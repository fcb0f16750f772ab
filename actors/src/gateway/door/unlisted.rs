//! Which refusals of the door are told of one by one, and how many of each peer aren't.
//!
//! Whoever isn't let in has no rate of its own yet, and must fill neither the audit log nor the other one all the same.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::limits::{LISTED_REFUSALS, REFUSED_PEERS};

/// The refusals since the last look, by peer.
#[derive(Debug, Default)]
pub(super) struct Unlisted(Mutex<HashMap<Option<IpAddr>, u64>>);

impl Unlisted {
    /// Counts one more refusal, and says whether it's told of by itself.
    pub(super) fn lists(&self, peer: Option<IpAddr>) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peer.map(network);
        let has_room = refused.len() < REFUSED_PEERS || refused.contains_key(&known);
        // Those for whom there is no room share what one has.
        let count = refused.entry(known.filter(|_| has_room)).or_default();
        *count = count.saturating_add(1);
        *count <= LISTED_REFUSALS
    }

    /// How many there were beyond those that were told of, from where; and begins anew.
    pub(super) fn take(&self) -> Vec<(Option<IpAddr>, u64)> {
        let refused = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let rest =
            refused.into_iter().map(|(peer, count)| (peer, count - count.min(LISTED_REFUSALS)));
        let mut rest: Vec<_> = rest.filter(|(_, count)| *count > 0).collect();
        rest.sort_unstable();
        rest
    }
}

/// What one client has to itself: an address, or with IPv6 all that begin with the same 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(unlisted: &Unlisted, peer: &str, count: u64) -> u64 {
        let peer = Some(peer.parse().unwrap());
        (0..count).filter(|_| unlisted.lists(peer)).count() as u64
    }

    #[test]
    fn the_first_few_of_each_peer_are_listed_and_the_rest_is_counted_once() {
        let unlisted = Unlisted::default();
        assert_eq!(times(&unlisted, "192.0.2.1", 100), LISTED_REFUSALS);
        assert_eq!(times(&unlisted, "192.0.2.2", 1), 1);
        assert_eq!(times(&unlisted, "2001:db8::1", 10), LISTED_REFUSALS);
        assert_eq!(times(&unlisted, "2001:db8::ffff:2", 10), 0, "of the same network");
        assert_eq!(times(&unlisted, "2001:db8:0:1::1", 1), 1);
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            unlisted.take(),
            [
                (address("192.0.2.1"), 100 - LISTED_REFUSALS),
                (address("2001:db8::"), 20 - LISTED_REFUSALS),
            ]
        );
        assert!(unlisted.take().is_empty());
        assert_eq!(times(&unlisted, "192.0.2.1", 1), 1, "it's listed again");
    }

    #[test]
    fn more_peers_than_there_is_room_for_share_what_one_has() {
        let unlisted = Unlisted::default();
        let mut listed = 0;
        for number in 0..100_000_u32 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            listed += u64::from(unlisted.lists(Some(peer)));
        }
        assert_eq!(listed, REFUSED_PEERS as u64 + LISTED_REFUSALS);
        let rest = unlisted.take();
        assert_eq!(rest, [(None, 100_000 - listed)]);
    }
}
