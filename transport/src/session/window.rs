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

    fn is_below(self, limit: Self) -> bool {
        self.messages < limit.messages && self.bytes < limit.bytes
    }
}

impl Window {
    pub(crate) fn new(messages: u64, bytes: u64) -> Self {
        Self { sent: Count::default(), limit: Count { messages, bytes } }
    }

    pub(crate) fn is_open(&self) -> bool {
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
        self.taken.add(bytes);
        let next = Count {
            messages: self.taken.messages.saturating_add(self.size.messages),
            bytes: self.taken.bytes.saturating_add(self.size.bytes),
        };
        let worth = next.messages.saturating_sub(self.granted.messages) > self.size.messages / 2
            || next.bytes.saturating_sub(self.granted.bytes) > self.size.bytes / 2;
        if !worth {
            return None;
        }
        self.granted = next;
        Some((next.messages, next.bytes))
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
}
