//! What the audit log hears of others whom the node itself asks, MCP servers over HTTP and issuers of tokens:
//! each connection to them, or why there is none, and the credentials that they are shown.

use std::sync::Arc;

use neuroflow_kernel::TraceContext;
#[cfg(feature = "mcp")]
use neuroflow_sandbox::OutletError;
use neuroflow_sandbox::{EgressReason, EgressVerdict, OutboundError};

use super::{Audit, AuditEvent, AuditId, Verdict};

/// Tells the log of each use, by the names of things.
#[derive(Clone, Debug)]
pub(crate) struct Uses {
    audit: Audit,
    /// Whom it's about, such as `mcp/crm`.
    origin: Arc<str>,
}

/// What is shown.
#[cfg(feature = "mcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Headers that were configured for the server.
    Headers,
    /// A token that was issued for it.
    Token,
    /// What proves to the issuer who asks for a token: a secret, a signature, a refresh token.
    Proof,
}

impl Uses {
    pub(crate) fn new(audit: Audit, origin: &str) -> Self {
        Self { audit, origin: origin.into() }
    }

    /// What came of the wish to connect to a host.
    pub(crate) fn connected(&self, host: &str, port: u16, decision: Decision) {
        let Decision(verdict, reason) = decision;
        let egress = AuditEvent::Egress {
            source: AuditId::new(&*self.origin),
            host: AuditId::new(host),
            port,
            address: None,
            verdict,
            reason,
            bytes_up: 0,
            bytes_down: 0,
        };
        self.audit.note(TraceContext::NONE, egress);
    }

    #[cfg(feature = "mcp")]
    pub(crate) fn note(&self, shown: Shown) {
        if !self.audit.is_on() {
            return;
        }
        let (name, purpose) = match shown {
            Shown::Headers => ("headers", "request"),
            Shown::Token => ("oauth", "request"),
            Shown::Proof => ("oauth", "token"),
        };
        let credential = AuditId::new(format!("{}/{name}", self.origin));
        let user = AuditId::new(&*self.origin);
        let used = AuditEvent::CredentialUse { credential, user, purpose };
        self.audit.note(TraceContext::NONE, used);
    }
}

/// Whether there is a connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision(Verdict, &'static str);

impl Decision {
    const ALLOWED: Self = Self(Verdict::Allowed, "allowed");
    /// No secret goes where anybody could read it.
    #[cfg(feature = "mcp")]
    pub(crate) const IN_CLEAR: Self = Self(Verdict::Denied, "in_clear");

    fn because(reason: EgressReason) -> Self {
        let verdict = match reason.verdict() {
            EgressVerdict::Allowed => Verdict::Allowed,
            EgressVerdict::Denied => Verdict::Denied,
            EgressVerdict::Failed | EgressVerdict::Cut => Verdict::Failed,
        };
        Self(verdict, reason.code())
    }
}

#[cfg(feature = "mcp")]
impl<T> From<&Result<T, OutletError>> for Decision {
    fn from(connected: &Result<T, OutletError>) -> Self {
        match connected {
            Ok(_) => Self::ALLOWED,
            Err(OutletError::Refused { reason }) => Self::because(*reason),
            Err(error) => Self(Verdict::Denied, error.code()),
        }
    }
}

impl<T> From<&Result<T, OutboundError>> for Decision {
    fn from(connected: &Result<T, OutboundError>) -> Self {
        match connected {
            Ok(_) => Self::ALLOWED,
            Err(OutboundError::Refused { reason }) => Self::because(*reason),
            Err(OutboundError::Host(_)) => Self(Verdict::Denied, "host_syntax"),
            Err(OutboundError::Unresolved { .. }) => Self(Verdict::Failed, "unresolved"),
            Err(OutboundError::Tls { .. }) => Self(Verdict::Failed, "upstream_tls"),
            Err(_) => Self(Verdict::Failed, "no_tls"),
        }
    }
}

#[cfg(all(test, feature = "mcp"))]
mod tests {
    use super::*;

    #[test]
    fn what_rules_and_addresses_forbid_is_denied_and_what_nobody_answers_has_failed() {
        let outlet = |reason| Decision::from(&Err::<(), _>(OutletError::Refused { reason }));
        let outbound = |reason| Decision::from(&Err::<(), _>(OutboundError::Refused { reason }));
        for (reason, expected) in [
            (EgressReason::Host, Decision(Verdict::Denied, "host")),
            (EgressReason::AddressPrivate, Decision(Verdict::Denied, "address_private")),
            (EgressReason::ConnectTime, Decision(Verdict::Failed, "connect_timeout")),
        ] {
            assert_eq!((outlet(reason), outbound(reason)), (expected, expected));
        }
        assert_eq!(Decision::from(&Ok::<_, OutletError>(())), Decision::ALLOWED);
        assert_eq!(Decision::from(&Err::<(), _>(OutletError::Closed)).0, Verdict::Denied);
    }
}
