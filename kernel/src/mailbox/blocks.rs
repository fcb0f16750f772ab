//! A queue in blocks: a burst neither moves what waits already nor leaves its memory behind.
//!
//! One ring would be copied each time that it grows, and a mailbox that fills and empties again and again
//! would make it anew each time.

use std::collections::VecDeque;

use crate::limits::IDLE_QUEUE_ROOM;

/// First in, first out.
pub(super) struct Blocks<T> {
    /// What's next; empty only if all is.
    first: VecDeque<T>,
    rest: VecDeque<VecDeque<T>>,
}

impl<T> Blocks<T> {
    pub(super) fn new() -> Self {
        Self { first: VecDeque::new(), rest: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn push_back(&mut self, item: T) {
        let last = self.rest.back_mut().unwrap_or(&mut self.first);
        if last.capacity() == 0 {
            // Left to itself a first push makes room for four, and most mailboxes hold one at most.
            last.reserve_exact(1);
        }
        if last.len() < IDLE_QUEUE_ROOM {
            last.push_back(item);
            return;
        }
        let mut block = VecDeque::with_capacity(IDLE_QUEUE_ROOM);
        block.push_back(item);
        self.rest.push_back(block);
    }

    pub(super) fn push_front(&mut self, item: T) {
        if self.first.len() >= IDLE_QUEUE_ROOM {
            self.rest.push_front(std::mem::take(&mut self.first));
        }
        self.first.push_front(item);
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let item = self.first.pop_front();
        if self.first.is_empty()
            && let Some(next) = self.rest.pop_front()
        {
            self.first = next;
            if self.rest.is_empty() {
                self.rest = VecDeque::new();
            }
        }
        item
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flatten())
    }
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room<T>(blocks: &Blocks<T>) -> usize {
        blocks.first.capacity() + blocks.rest.iter().map(VecDeque::capacity).sum::<usize>()
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut blocks = Blocks::new();
        for burst in [1, IDLE_QUEUE_ROOM, 10 * IDLE_QUEUE_ROOM, 3] {
            for number in 0..burst {
                blocks.push_back(number);
            }
            assert_eq!(blocks.iter().count(), burst);
            for number in 0..burst {
                assert_eq!(blocks.pop_front(), Some(number));
            }
            assert!(blocks.is_empty() && blocks.pop_front().is_none());
            assert!(room(&blocks) <= IDLE_QUEUE_ROOM && blocks.rest.capacity() == 0, "{burst}");
        }
    }

    #[test]
    fn the_first_message_takes_room_for_one() {
        let mut blocks = Blocks::new();
        blocks.push_back(7);
        assert_eq!(room(&blocks), 1);
    }

    proptest! {
        /// It's a queue, whatever is done to it.
        #[test]
        fn it_is_a_queue(events in prop::collection::vec((0_u8..8, 1_usize..100), 1..60)) {
            let (mut blocks, mut model, mut number) = (Blocks::new(), VecDeque::new(), 0);
            for (event, times) in events {
                for _ in 0..times {
                    number += 1;
                    match event {
                        0..=3 => {
                            blocks.push_back(number);
                            model.push_back(number);
                        }
                        4 => {
                            blocks.push_front(number);
                            model.push_front(number);
                        }
                        _ => prop_assert_eq!(blocks.pop_front(), model.pop_front()),
                    }
                    prop_assert_eq!(blocks.is_empty(), model.is_empty());
                }
                prop_assert!(blocks.iter().eq(model.iter()));
            }
        }
    }
}
