//! What answers hold in memory from when they're put together until they're sent: a client that asks for large
//! ones and reads them slowly, or not at all, holds them that long, and its next request is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::held::{Held, Holdings};
use crate::limits::{UNSENT_BYTES, UNSENT_SMALL};

/// What all answers of a gateway hold.
#[derive(Debug)]
pub(super) struct Answers(Holdings);

impl Default for Answers {
    fn default() -> Self {
        Self(Holdings::within(UNSENT_BYTES))
    }
}

impl Answers {
    /// What the answer to a request of this caller holds: nothing yet.
    pub(super) fn of(&self, caller: Option<&str>) -> Unsent {
        let sum = Sum { free: UNSENT_SMALL, counted: 0, held: self.0.of(caller) };
        Unsent(Arc::new(Mutex::new(sum)))
    }
}

/// What one answer holds. Its clones are of the same answer, and it's given back with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Unsent(Arc<Mutex<Sum>>);

#[derive(Debug)]
struct Sum {
    /// What it may still hold without being counted.
    free: usize,
    /// What it holds besides.
    counted: usize,
    held: Held,
}

impl Unsent {
    /// Whether there is room for so many bytes more, which it holds from then on. For the first [`UNSENT_SMALL`]
    /// there always is.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let mut sum = self.sum();
        let free = bytes.min(sum.free);
        let has_room = bytes == free || sum.held.grow(bytes - free);
        if has_room {
            sum.free -= free;
            sum.counted += bytes - free;
        }
        has_room
    }

    /// It holds so many bytes less: something else takes their place.
    #[cfg(feature = "mcp")]
    pub(crate) fn shrink(&self, bytes: usize) {
        let mut sum = self.sum();
        let counted = bytes.min(sum.counted);
        sum.counted -= counted;
        sum.free = UNSENT_SMALL.min(sum.free + bytes - counted);
        let left = sum.counted;
        sum.held.set(left);
    }

    /// All of it's sent.
    pub(crate) fn sent(&self) {
        let mut sum = self.sum();
        (sum.free, sum.counted) = (UNSENT_SMALL, 0);
        sum.held.set(0);
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_large_answers_gets_no_more_of_them_and_small_ones_still() {
        let answers = Answers::default();
        let first = answers.of(Some("ann"));
        assert!(first.grow(UNSENT_BYTES / 2) && first.grow(UNSENT_SMALL));
        let body = first.clone();
        drop(first);
        let second = answers.of(Some("ann"));
        assert!(!second.grow(UNSENT_SMALL + 1) && second.grow(UNSENT_SMALL) && !second.grow(1));
        assert!(answers.of(Some("bob")).grow(UNSENT_BYTES / 2), "others find room");
        body.sent();
        assert!(second.grow(1));
        drop((body, second));
        assert_eq!(answers.0.bytes(), 0);
    }

    #[cfg(feature = "mcp")]
    #[test]
    fn what_takes_the_place_of_something_is_counted_once() {
        let answers = Answers::default();
        let answer = answers.of(Some("ann"));
        for _ in 0..8 {
            assert!(answer.grow(UNSENT_SMALL / 2) && answer.grow(UNSENT_BYTES / 4));
            assert_eq!(answers.0.bytes(), UNSENT_BYTES / 4 - UNSENT_SMALL / 2);
            answer.shrink(UNSENT_SMALL / 2 + UNSENT_BYTES / 4);
            assert_eq!(answers.0.bytes(), 0);
        }
        assert!(answer.grow(UNSENT_SMALL) && answers.0.bytes() == 0);
    }
}
