//! What travels with every message, so that nothing below has to ask back up.

use crate::budget::Budget;
use crate::clock::{Clock, Moment};
use crate::id::{ActorId, GrantId};
use crate::trace::TraceContext;

/// Trace, deadline, sender, capability, budget and hops of one message.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::{Budget, Clock, Header};
/// let clock = Clock::system();
/// let header = Header::new().within(&clock, Duration::from_secs(5)).budget(Budget::units(100));
/// assert!(header.deadline().is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Header {
    trace: TraceContext,
    deadline: Moment,
    sender: ActorId,
    grant: GrantId,
    budget: Budget,
    hops: u8,
}

impl Header {
    /// From nobody, without trace, deadline or budget limit.
    pub fn new() -> Self {
        Self {
            trace: TraceContext::NONE,
            deadline: Moment::NEVER,
            sender: ActorId::NOBODY,
            grant: GrantId::OWNER,
            budget: Budget::UNLIMITED,
            hops: 0,
        }
    }

    /// Sets the trace context.
    #[must_use]
    pub fn traced(mut self, trace: TraceContext) -> Self {
        self.trace = trace;
        self
    }

    /// Brings the deadline forward to `at`; it never moves back.
    #[must_use]
    pub fn until(mut self, at: Moment) -> Self {
        self.deadline = self.deadline.min(at);
        self
    }

    /// Brings the deadline forward to `duration` from now; it never moves back.
    #[must_use]
    pub fn within(self, clock: &Clock, duration: std::time::Duration) -> Self {
        self.until(clock.now() + duration)
    }

    /// Lowers the budget to `budget`; it never rises.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = self.budget.min(budget);
        self
    }

    /// The header for a message that `sender` sends while it handles this one.
    #[must_use]
    pub fn forward(&self, sender: ActorId) -> Self {
        Self { sender, grant: GrantId::OWNER, hops: self.hops.saturating_add(1), ..self.clone() }
    }

    /// Where the message belongs in a trace.
    pub fn trace(&self) -> TraceContext {
        self.trace
    }

    /// When the sender stops waiting.
    pub fn deadline(&self) -> Option<Moment> {
        (self.deadline != Moment::NEVER).then_some(self.deadline)
    }

    /// The actor that sent it.
    pub fn sender(&self) -> ActorId {
        self.sender
    }

    /// The grant that it was sent through.
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// What it and everything below may still spend.
    pub fn remaining_budget(&self) -> Budget {
        self.budget
    }

    /// Actors that it has passed through.
    pub fn hops(&self) -> u8 {
        self.hops
    }

    pub(crate) fn through(mut self, grant: &crate::capability::Grant) -> Self {
        self.grant = grant.id();
        self.budget = self.budget.min(grant.budget());
        self
    }
}

impl Default for Header {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadline_and_budget_only_shrink() {
        let clock = Clock::system();
        let soon = clock.now() + Duration::from_secs(1);
        let header = Header::new().until(soon).within(&clock, Duration::from_mins(1));
        assert_eq!(header.deadline(), Some(soon));
        let header = header.budget(Budget::units(3)).budget(Budget::units(9));
        assert_eq!(header.remaining_budget(), Budget::units(3));
    }

    #[test]
    fn forwarding_counts_hops_and_keeps_what_the_request_carries() {
        let trace = TraceContext::root(true);
        let header = Header::new().traced(trace).budget(Budget::units(3)).forward(ActorId::NOBODY);
        assert_eq!(header.hops(), 1);
        assert_eq!(header.trace(), trace);
        assert_eq!(header.remaining_budget(), Budget::units(3));
    }
}
