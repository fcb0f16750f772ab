//! Links as the kernel's port: which lane a message takes, and what a sender is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Clock, Down, Generation, Header, MessageId, Moment, RawParcel, RawReplies, RemoteError,
    RemotePort, RemoteTarget,
};

use super::Links;
use crate::keyed::CallKey;
use crate::limits::CALLS_PAUSE;
use crate::link::outbox::{Sending, Unsent};
use crate::link::peer::{Link, Peer};
use crate::session::Hold;
use crate::watch;

/// The lane of a name: always the same, so that messages to one actor keep their order.
fn lane_of(name: &str, lanes: usize) -> usize {
    let lanes = u64::try_from(lanes).unwrap_or(1).max(1);
    // The hash that messages' names have is quicker than one against chosen names, which there are none of.
    let mixed = MessageId::of(name).get().wrapping_mul(MIX) >> u32::BITS;
    usize::try_from(mixed % lanes).unwrap_or(0)
}

/// 2^64 over the golden ratio: each bit of a hash moves the high ones of its product.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl RemotePort for Links {
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let Some((peer, link)) = self.link(target) else {
            return Err(RemoteError::Unreachable { target: target.to_string() });
        };
        Self::send_on((&peer, &link), target, header, parcel, replies, now)
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some((peer, link)) = self.link(target) else { return };
            let mut changed = std::pin::pin!(peer.changed.notified());
            // Enrolled before the look, so that a grant in between isn't missed.
            changed.as_mut().enable();
            let at = lane_of(target.name(), link.lanes.len());
            let lane = link.lanes.get(at);
            match lane.map(|lane| lane.is_ready(target.name(), bytes)) {
                Some(Err(Unsent::Hold(Hold::Credit | Hold::Actor))) => changed.await,
                Some(Err(Unsent::Hold(Hold::Calls))) => {
                    let clock = &self.shared.clock;
                    let _looks_again = clock.before(clock.now() + CALLS_PAUSE, changed).await;
                }
                _ => {}
            }
        })
    }

    fn down<'a>(&'a self, target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        Box::pin(watch::down(Arc::new(self.clone()), target))
    }

    fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

impl Links {
    /// Sends over this link of this peer.
    pub(crate) fn send_on(
        to: (&Peer, &Link),
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        Self::send_keyed(to, target, header, CallKey::NONE, parcel, replies, now)
    }

    /// Sends over this link of this peer, as the call of this key.
    pub(crate) fn send_keyed(
        (peer, link): (&Peer, &Link),
        target: &RemoteTarget,
        header: &Header,
        key: CallKey,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let at = lane_of(target.name(), link.lanes.len());
        let Some(lane) = link.lanes.get(at) else {
            return Err(RemoteError::Unreachable { target: target.to_string() });
        };
        let sending = Sending {
            name: target.name(),
            generation: target.generation().map_or(0, Generation::get),
            key,
            lane: u8::try_from(at).unwrap_or_default(),
            header,
            now,
        };
        match lane.send(&sending, parcel, replies) {
            Ok(first) => {
                if first {
                    link.watch();
                }
                Ok(())
            }
            Err(Unsent::Hold(Hold::Credit | Hold::Calls | Hold::Actor)) => {
                peer.meters.credit_waits.fetch_add(1, Ordering::Relaxed);
                Err(RemoteError::Saturated { target: target.to_string() })
            }
            Err(Unsent::Hold(Hold::Draining) | Unsent::Closed) => {
                Err(RemoteError::Unreachable { target: target.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_little_are_spread_over_the_lanes() {
        for lanes in [1, 2, 3, 8] {
            for prefix in ["", "a", "worker-", "orders/eu/"] {
                let mut counts = vec![0; lanes];
                (0..400)
                    .for_each(|number| counts[lane_of(&format!("{prefix}{number}"), lanes)] += 1);
                let (least, most) = (counts.iter().min(), counts.iter().max());
                assert!(
                    least.unwrap() * 2 > 400 / lanes && most.unwrap() / 2 < 400 / lanes,
                    "{counts:?}"
                );
            }
        }
        assert_eq!(lane_of("echo", 0), 0);
    }
}
