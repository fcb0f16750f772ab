//! What waits for an actor without room, and how much of it the peer has its credit back for.

use std::collections::VecDeque;

use neuroflow_kernel::{Header, Moment, RawParcel};

use crate::export::Waiting;
use crate::keyed::CallKey;
use crate::limits::{ACTOR_BYTES, ACTOR_MESSAGES, HELD_BYTES, HELD_MESSAGES};

/// The messages for one actor.
pub(super) struct Queue {
    pub(super) first: Message,
    pub(super) waiting: Waiting,
    pub(super) behind: VecDeque<(Message, RawParcel, Header)>,
    /// Bytes of those behind.
    pub(super) bytes: usize,
    /// The peer was asked to send no more.
    pub(super) held: bool,
}

impl Queue {
    pub(super) fn new(first: Message, waiting: Waiting) -> Self {
        Self { first, waiting, behind: VecDeque::new(), bytes: 0, held: false }
    }

    /// One message more; gives its place.
    pub(super) fn push(&mut self, mut message: Message, parcel: RawParcel, header: Header) -> u64 {
        let last = self.behind.back().map_or(self.first.nth, |(last, ..)| last.nth);
        message.nth = last.wrapping_add(1);
        self.bytes = self.bytes.saturating_add(message.bytes);
        self.behind.push_back((message, parcel, header));
        message.nth
    }

    /// The caller of the request at this place has gone: that is dropped when its turn comes, and its credit comes
    /// back then, like any other's.
    pub(super) fn cancel(&mut self, nth: u64) {
        // No place between the first and the last is left out.
        let Some(at) = nth.wrapping_sub(self.first.nth).checked_sub(1) else {
            self.waiting = Box::pin(std::future::ready(Ok(None)));
            return;
        };
        let behind = usize::try_from(at).ok().and_then(|at| self.behind.get_mut(at));
        if let Some((message, _, header)) = behind {
            message.wanted = false;
            // Past its deadline, so that no mailbox takes it.
            *header = header.clone().until(Moment::ORIGIN);
        }
    }

    pub(super) fn is_long(&self) -> bool {
        self.behind.len() >= ACTOR_MESSAGES || self.bytes >= ACTOR_BYTES
    }

    /// Short enough for the peer to send again.
    pub(super) fn is_short(&self) -> bool {
        self.behind.len() <= ACTOR_MESSAGES / 2 && self.bytes <= ACTOR_BYTES / 2
    }
}

/// How much waits whose credit was given back.
#[derive(Default)]
pub(super) struct Lent {
    messages: usize,
    bytes: usize,
}

impl Lent {
    /// Notes that this message's credit is given back, if there is room for that.
    pub(super) fn lend(&mut self, message: &mut Message) -> bool {
        let fits = self.messages < HELD_MESSAGES && self.bytes < HELD_BYTES;
        if fits && !message.lent {
            message.lent = true;
            self.messages += 1;
            self.bytes = self.bytes.saturating_add(message.bytes);
            return true;
        }
        false
    }

    pub(super) fn returned(&mut self, message: Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.bytes);
    }
}

/// What must be known of a message once its parcel is under way.
#[derive(Clone, Copy)]
pub(super) struct Message {
    pub(super) id: u64,
    pub(super) bytes: usize,
    pub(super) wanted: bool,
    pub(super) generation: u32,
    pub(super) key: CallKey,
    /// Its place among those that wait or have waited with it.
    pub(super) nth: u64,
    /// The peer has its credit back.
    pub(super) lent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        let key = CallKey::NONE;
        Message { id: 1, bytes, wanted: true, generation: 0, key, nth: 0, lent: false }
    }

    fn queue(messages: usize, bytes: usize) -> Queue {
        let mut queue = Queue::new(message(1), Box::pin(std::future::pending()));
        let parcel = RawParcel::new(neuroflow_kernel::MessageId::of("test"), 1, &[1]);
        for _ in 0..messages {
            queue.behind.push_back((message(1), parcel.clone(), Header::new()));
        }
        queue.bytes = bytes;
        queue
    }

    #[test]
    fn a_queue_is_long_by_number_or_bytes_and_short_when_half_is_gone() {
        assert!(!queue(ACTOR_MESSAGES - 1, 0).is_long() && queue(ACTOR_MESSAGES, 0).is_long());
        assert!(!queue(1, ACTOR_BYTES - 1).is_long() && queue(1, ACTOR_BYTES).is_long());
        assert!(!queue(ACTOR_MESSAGES / 2 + 1, 0).is_short());
        assert!(!queue(1, ACTOR_BYTES).is_short());
        assert!(queue(ACTOR_MESSAGES / 2, ACTOR_BYTES / 2).is_short());
    }

    #[test]
    fn a_cancellation_finds_its_request_whatever_has_left_the_queue_before() {
        let mut queue = queue(0, 0);
        let parcel = RawParcel::new(neuroflow_kernel::MessageId::of("test"), 1, &[1]);
        for nth in 1..6 {
            assert_eq!(queue.push(message(1), parcel.clone(), Header::new()), nth);
        }
        let (second, ..) = queue.behind.pop_front().unwrap();
        queue =
            Queue { behind: queue.behind, ..Queue::new(second, Box::pin(std::future::pending())) };
        queue.cancel(4);
        let wanted: Vec<bool> = queue.behind.iter().map(|(message, ..)| message.wanted).collect();
        assert_eq!(wanted, [true, true, false, true]);
        queue.cancel(0);
        queue.cancel(6);
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(queue.waiting.as_mut().poll(cx).is_pending(), "neither is there");
        queue.cancel(1);
        assert!(queue.waiting.as_mut().poll(cx).is_ready());
        assert_eq!(queue.push(message(1), parcel, Header::new()), 6);
    }

    #[test]
    fn each_message_is_lent_once_and_no_more_than_may_be() {
        let (mut lent, mut first) = (Lent::default(), message(1));
        assert!(lent.lend(&mut first) && first.lent && !lent.lend(&mut first));
        for _ in 1..HELD_MESSAGES {
            assert!(lent.lend(&mut message(1)));
        }
        let mut late = message(1);
        assert!(!lent.lend(&mut late) && !late.lent);
        lent.returned(first);
        assert!(lent.lend(&mut late));
        let mut lent = Lent::default();
        assert!(lent.lend(&mut message(HELD_BYTES)) && !lent.lend(&mut message(1)));
    }
}
