//! What leaves a lane next: what no message may hold up, then messages in the order in which they came.
//! No I/O and no clock.
//!
//! Frames are pieces of bytes here, and a message may be several. What overtakes goes between whole
//! frames, a bounded part at a time, so that messages go on however much of it there is.

use std::collections::VecDeque;

use crate::limits::{URGENT_STEP_BYTES, WRITE_STEP_BYTES};

/// The queue of one lane.
#[derive(Debug)]
pub(crate) struct Order<T> {
    urgent: VecDeque<T>,
    usual: VecDeque<Piece<T>>,
    requests: u64,
}

/// Bytes of one or many frames, or of a part of one.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    pub(crate) bytes: T,
    /// Requests and notices that begin in it.
    pub(crate) requests: u64,
    /// Its end is the end of a frame.
    pub(crate) whole: bool,
}

impl<T: AsRef<[u8]>> Order<T> {
    pub(crate) fn new() -> Self {
        Self { urgent: VecDeque::new(), usual: VecDeque::new(), requests: 0 }
    }

    /// Whole frames that overtake the others.
    pub(crate) fn push_urgent(&mut self, bytes: T) {
        self.urgent.push_back(bytes);
    }

    pub(crate) fn push(&mut self, piece: Piece<T>) {
        self.usual.push_back(piece);
    }

    /// Moves what leaves next to the end of `out`. Called when that is empty, so that what is urgent waits
    /// for one step at most.
    pub(crate) fn next(&mut self, out: &mut VecDeque<T>) {
        let mut moved = 0;
        while moved < URGENT_STEP_BYTES
            && let Some(bytes) = self.urgent.pop_front()
        {
            moved += bytes.as_ref().len();
            out.push_back(bytes);
        }
        let (mut moved, mut whole) = (0, true);
        while moved < WRITE_STEP_BYTES || !whole {
            let Some(piece) = self.usual.pop_front() else { return };
            moved += piece.bytes.as_ref().len();
            whole = piece.whole;
            self.requests = self.requests.saturating_add(piece.requests);
            out.push_back(piece.bytes);
        }
    }

    /// Requests and notices that have left.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(number: u8, bytes: usize, whole: bool) -> Piece<Vec<u8>> {
        let mut bytes = vec![number; bytes];
        *bytes.last_mut().unwrap() = u8::from(whole);
        Piece { bytes, requests: 1, whole }
    }

    #[test]
    fn a_cancellation_overtakes_a_full_queue_and_the_messages_keep_their_order() {
        let (mut order, mut out) = (Order::new(), VecDeque::new());
        for number in 0..100 {
            order.push(piece(number, WRITE_STEP_BYTES / 4, true));
        }
        order.next(&mut out);
        assert_eq!((out.len(), order.requests()), (4, 4));
        out.clear();
        order.push_urgent(vec![255; 112]);
        order.next(&mut out);
        let seen: Vec<u8> = out.iter().map(|bytes| bytes[0]).collect();
        assert_eq!(seen, [255, 4, 5, 6, 7]);
    }

    proptest! {
        /// Whatever comes in whatever order: nothing is lost, messages keep their order and aren't cut
        /// by what is urgent, that keeps its own, and neither waits for more than a step of the other.
        #[test]
        fn nothing_is_lost_cut_or_held_up(
            events in prop::collection::vec((0_u8..4, 2_usize..WRITE_STEP_BYTES, 1_usize..4), 1..120),
        ) {
            let mut order = Order::new();
            let (mut usual, mut urgent) = (0_u8, 0_u8);
            let (mut parts, mut seen_urgent) = (Vec::new(), 0_u8);
            let mut read = |order: &mut Order<Vec<u8>>| {
                let mut out = VecDeque::new();
                order.next(&mut out);
                let most = WRITE_STEP_BYTES * 5 + URGENT_STEP_BYTES + 112;
                assert!(out.iter().map(Vec::len).sum::<usize>() <= most);
                let mut cut = false;
                for bytes in &out {
                    if bytes[0] >= 128 {
                        assert!(!cut && bytes[0] == 128 + seen_urgent, "{bytes:?}");
                        seen_urgent += 1;
                    } else {
                        cut = bytes.last() == Some(&0);
                        parts.push(bytes[0]);
                    }
                }
                out.is_empty()
            };
            for (event, bytes, pieces) in events {
                match event {
                    0 => drop(read(&mut order)),
                    1 => {
                        order.push_urgent(vec![128 + urgent; 112]);
                        urgent += 1;
                    }
                    _ => {
                        for at in 1..=pieces {
                            order.push(piece(usual, bytes, at == pieces));
                        }
                        usual += 1;
                    }
                }
            }
            while !read(&mut order) {}
            parts.dedup();
            prop_assert_eq!(parts, (0..usual).collect::<Vec<_>>());
            prop_assert_eq!(seen_urgent, urgent);
        }
    }
}
