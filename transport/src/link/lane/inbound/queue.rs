//! What waits for an actor without room, and how much of it the peer has its credit back for.

use std::collections::VecDeque;

use neuroflow_kernel::{Header, Moment, RawParcel};

use crate::export::Waiting;
use crate::keyed::CallKey;
use crate::limits::{
    HELD_BYTES, HELD_MESSAGES, LANE_CREDIT_BYTES, LANE_CREDIT_MESSAGES, WAITING_BYTES,
    WAITING_MESSAGES,
};

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

    /// What part it has of all that may wait, in bytes of the lane's credit.
    pub(super) fn weight(&self) -> u64 {
        let messages = self.behind.len() as u64 + 1;
        messages
            .saturating_mul(LANE_CREDIT_BYTES / LANE_CREDIT_MESSAGES)
            .max(self.all_bytes() as u64)
    }

    pub(super) fn all_bytes(&self) -> usize {
        self.first.bytes.saturating_add(self.bytes)
    }

    /// All of its messages.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = &mut Message> {
        let behind = self.behind.iter_mut().map(|(message, ..)| message);
        std::iter::once(&mut self.first).chain(behind)
    }

    /// Short enough for the peer to send again, beside so many others: together they are half of what may wait.
    pub(super) fn is_short(&self, others: usize) -> bool {
        let all = (others as u64).saturating_add(1);
        self.weight() <= WAITING_BYTES / 2 / all
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

    /// Whether there is room for about as many as are lent at once.
    pub(super) fn has_room(&self) -> bool {
        let (messages, bytes) = (self.messages as u64, self.bytes as u64);
        messages.saturating_add(WAITING_MESSAGES) <= HELD_MESSAGES as u64
            && bytes.saturating_add(WAITING_BYTES) <= HELD_BYTES as u64
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
        for _ in 1..messages {
            queue.behind.push_back((message(1), parcel.clone(), Header::new()));
        }
        queue.bytes = bytes;
        queue
    }

    #[test]
    fn a_queue_is_short_by_number_and_bytes_and_beside_others_sooner() {
        let (most, most_bytes) = (512, 4 * 1024 * 1024 - 1);
        assert!(queue(most, most_bytes).is_short(0));
        assert!(!queue(most + 1, 0).is_short(0) && !queue(1, most_bytes + 1).is_short(0));
        assert!(queue(most / 4, 0).is_short(3) && !queue(most / 4 + 1, 0).is_short(3));
        assert!(!queue(1, 0).is_short(most));
        assert!(queue(2, 0).weight() > queue(1, 9_000).weight());
        assert!(queue(1, 20_000).weight() > queue(2, 0).weight());
    }

    #[test]
    fn a_cancellation_finds_its_request_whatever_has_left_the_queue_before() {
        let mut queue = queue(1, 0);
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
