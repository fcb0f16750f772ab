//! What a cell asked for, and what became of it.

use std::{collections::BTreeMap, net::IpAddr};

use super::reason::{EgressReason, EgressVerdict};

/// One request of a cell, at its end.
///
/// ```
/// use neuroflow_sandbox::{Decision, EgressVerdict};
///
/// fn refused(decisions: &[Decision]) -> impl Iterator<Item = &Decision> {
///     decisions.iter().filter(|decision| decision.verdict() == EgressVerdict::Denied)
/// }
/// assert_eq!(refused(&[]).count(), 0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The host that was asked for, in its one spelling; as it was sent if it has none; empty if
    /// the request wasn't understood.
    pub host: String,
    /// The port that the proxy connects to; 0 if none was understood.
    pub port: u16,
    /// The method; `CONNECT` for a tunnel.
    pub method: String,
    /// The path without the query, cut at
    /// [`limits::EGRESS_PATH_BYTES`](crate::limits::EGRESS_PATH_BYTES); `None` for a tunnel.
    pub path: Option<String>,
    /// The index of the rule that allowed it.
    pub rule: Option<usize>,
    /// The address that was connected to.
    pub address: Option<IpAddr>,
    /// Why it was let through, refused or ended.
    pub reason: EgressReason,
    /// Bytes that left.
    pub bytes_up: u64,
    /// Bytes that came in.
    pub bytes_down: u64,
}

impl Decision {
    /// What became of it.
    pub fn verdict(&self) -> EgressVerdict {
        self.reason.verdict()
    }
}

/// All requests of a cell.
///
/// ```
/// use neuroflow_sandbox::EgressReport;
///
/// assert_eq!(EgressReport::default().allowed, 0);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressReport {
    /// The first [`limits::EGRESS_DECISIONS`](crate::limits::EGRESS_DECISIONS), in the order of
    /// their ends.
    pub decisions: Vec<Decision>,
    /// How often each reason was given, whether or not the decision was kept.
    pub counts: BTreeMap<EgressReason, u64>,
    /// Requests that a rule allowed, including those that failed or were cut.
    pub allowed: u64,
    /// Requests that were refused.
    pub denied: u64,
    /// Bytes that left the machine.
    pub bytes_up: u64,
    /// Bytes that came in.
    pub bytes_down: u64,
    /// Decisions that were counted but not kept.
    pub dropped: u64,
}
