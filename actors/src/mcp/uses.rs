//! What the audit log hears of the credentials that an MCP server, or who issues its tokens, is shown.

use std::sync::Arc;

use neuroflow_kernel::TraceContext;

use crate::audit::{Audit, AuditEvent, AuditId};

/// Tells the log of each use, by the names of things.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    audit: Audit,
    /// The server's, such as `mcp/crm`.
    origin: Arc<str>,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Headers that were configured for the server.
    Headers,
    /// A token that was issued for it.
    Token,
    /// What proves to the issuer who asks for a token: a secret, a signature, a refresh token.
    Proof,
}

impl Uses {
    pub(super) fn new(audit: Audit, origin: &str) -> Self {
        Self { audit, origin: origin.into() }
    }

    pub(super) fn note(&self, shown: Shown) {
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
