//! Credit in messages and bytes: what the sender may, and what the receiver has granted.
//!
//! Both count since the beginning, so that a grant can be repeated, lost or late and still says the
//! same. A message may be sent while both counts are below their limit, so one message may pass the
//! limit of bytes: otherwise a message larger than a window would never be sent.

use super::Violation;

/// The sender's side.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    sent: Count,
    limit: Count,
    /// Of what is granted, so much is kept for what is urgent.
    kept: Count,
}

/// The receiver's side.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    arrived: Count,
    taken: Count,
    granted: Count,
    size: Count,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    messages: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn is_below(self, limit: Self) -> bool {
        self.messages < limit.messages && self.bytes < limit.bytes
    }
}

impl Window {
    pub(crate) fn new(messages: u64, bytes: u64) -> Self {
        Self { sent: Count::default(), limit: Count { messages, bytes }, kept: Count::default() }
    }

    /// Keeps so much of what is granted for what is urgent: a small part, and nothing of a few messages.
    pub(crate) fn keeping(mut self, messages: u64, bytes: u64) -> Self {
        let most = Count { messages: self.limit.messages / 64, bytes: self.limit.bytes / 64 };
        if most.messages > 0 {
            self.kept =
                Count { messages: messages.min(most.messages), bytes: bytes.min(most.bytes) };
        }
        self
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sent.plus(self.kept).is_below(self.limit)
    }

    /// Whether it's open for what is urgent.
    pub(crate) fn is_open_to_urgent(&self) -> bool {
        self.sent.is_below(self.limit)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent.add(bytes);
    }

    /// A limit never goes back, so an old grant that comes late changes nothing.
    pub(crate) fn grant(&mut self, messages: u64, bytes: u64) {
        self.limit.messages = self.limit.messages.max(messages);
        self.limit.bytes = self.limit.bytes.max(bytes);
    }

    /// The same, of a count of messages of which the low half is said.
    pub(crate) fn grant_low(&mut self, messages: u32, bytes: u64) {
        let more = messages.wrapping_sub(low(self.limit.messages));
        // What is far ahead lies behind.
        let more = if more > u32::MAX / 2 { 0 } else { more };
        self.grant(self.limit.messages.saturating_add(more.into()), bytes);
    }
}

/// The low half of a count.
pub(crate) fn low(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default()
}

impl Allowance {
    pub(crate) fn new(messages: u64, bytes: u64) -> Self {
        let size = Count { messages, bytes };
        Self { arrived: Count::default(), taken: Count::default(), granted: size, size }
    }

    pub(crate) fn arrived(&mut self, bytes: usize) -> Result<(), Violation> {
        if !self.arrived.is_below(self.granted) {
            return Err(Violation::Credit);
        }
        self.arrived.add(bytes);
        Ok(())
    }

    /// Gives the new limits once half of what was granted is used up.
    pub(crate) fn taken(&mut self, bytes: usize) -> Option<(u64, u64)> {
        self.taken_among(bytes, self.size)
    }

    /// The same, once half of what isn't with messages that wait is used up: they may wait for long, and the others
    /// have no more than that.
    pub(crate) fn taken_beside(&mut self, bytes: usize) -> Option<(u64, u64)> {
        let waits = self.waits();
        let free = Count {
            messages: self.size.messages.saturating_sub(waits.messages),
            bytes: self.size.bytes.saturating_sub(waits.bytes),
        };
        self.taken_among(bytes, free)
    }

    fn taken_among(&mut self, bytes: usize, size: Count) -> Option<(u64, u64)> {
        self.taken.add(bytes);
        let next = self.taken.plus(self.size);
        let worth = next.messages.saturating_sub(self.granted.messages) > size.messages / 2
            || next.bytes.saturating_sub(self.granted.bytes) > size.bytes / 2;
        if !worth {
            return None;
        }
        self.granted = next;
        Some((next.messages, next.bytes))
    }

    fn waits(&self) -> Count {
        Count {
            messages: self.arrived.messages.saturating_sub(self.taken.messages),
            bytes: self.arrived.bytes.saturating_sub(self.taken.bytes),
        }
    }

    /// Whether so many messages, or bytes of them, have arrived and aren't taken.
    pub(crate) fn has_waiting(&self, messages: u64, bytes: u64) -> bool {
        let waits = self.waits();
        waits.messages >= messages || waits.bytes >= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_grant_changes_nothing() {
        let mut window = Window::new(2, 10);
        window.sent(1);
        window.sent(1);
        window.grant(3, 20);
        window.grant(2, 10);
        assert!(window.is_open());
    }

    #[test]
    fn half_a_count_grants_as_much_as_a_whole_one_and_an_old_one_nothing() {
        let last = u64::from(u32::MAX);
        let mut window = Window::new(last - 1, 1);
        window.grant_low(low(last + 3), 2);
        assert_eq!((window.limit.messages, window.limit.bytes), (last + 3, 2));
        window.grant_low(low(last), 3);
        assert_eq!((window.limit.messages, window.limit.bytes), (last + 3, 3));
    }

    #[test]
    fn one_large_message_passes_alone() {
        let mut allowance = Allowance::new(8, 100);
        assert_eq!(allowance.arrived(1_000), Ok(()));
        assert_eq!(allowance.arrived(1), Err(Violation::Credit));
        assert_eq!(allowance.taken(1_000), Some((9, 1_100)));
        assert_eq!(allowance.arrived(1), Ok(()));
    }

    #[test]
    fn a_grant_waits_until_it_is_worth_a_frame() {
        let mut allowance = Allowance::new(8, 1_000);
        let grants: Vec<_> = (0..10).filter_map(|_| allowance.taken(1)).collect();
        assert_eq!(grants, [(13, 1_005), (18, 1_010)]);
    }

    #[test]
    fn what_waits_for_long_keeps_no_grant_from_the_others() {
        let mut allowance = Allowance::new(8, 1_000);
        for _ in 0..7 {
            allowance.arrived(1).unwrap();
        }
        assert!(allowance.has_waiting(7, 1_000) && allowance.has_waiting(8, 7));
        assert!(!allowance.has_waiting(8, 8));
        // Seven wait: one place is left, and is granted anew each time.
        for nth in 1..9 {
            assert_eq!(allowance.arrived(1), Ok(()));
            assert_eq!(allowance.taken_beside(1), Some((8 + nth, 1_000 + nth)));
        }
    }

    #[test]
    fn what_is_kept_is_for_what_is_urgent() {
        let mut window = Window::new(64, 64_000).keeping(64, 10);
        for _ in 0..63 {
            assert!(window.is_open());
            window.sent(1);
        }
        assert!(!window.is_open() && window.is_open_to_urgent());
        window.sent(1);
        assert!(!window.is_open_to_urgent());
        window.grant(80, 64_000);
        assert!(window.is_open());
        window.sent(63_926);
        assert!(!window.is_open() && window.is_open_to_urgent(), "by bytes");
        let mut small = Window::new(1, 3).keeping(64, 1_000);
        assert!(small.is_open(), "all that there is is never kept");
        small.sent(1);
        assert!(!small.is_open_to_urgent());
    }
}
