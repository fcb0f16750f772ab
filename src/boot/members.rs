//! What the links decide about other nodes, as events of the audit log.

use neuroflow_actors::{Audit, AuditEvent, AuditId, Digest, Verdict};
use neuroflow_kernel::TraceContext;
use neuroflow_transport::{ClusterEvent, ClusterObserver};

/// Notes what is decided. It has happened by then: a node is shut out though the disk is full.
#[derive(Debug)]
pub(super) struct AuditedMembers(pub(super) Audit);

impl ClusterObserver for AuditedMembers {
    fn decided(&self, event: ClusterEvent<'_>) {
        if let Some(event) = recorded(event) {
            self.0.note(TraceContext::NONE, event);
        }
    }
}

fn recorded(event: ClusterEvent<'_>) -> Option<AuditEvent> {
    let about = |action, node: String, verdict, reason| AuditEvent::Membership {
        action,
        node: AuditId::new(node),
        roles: Vec::new(),
        by: None,
        verdict,
        reason,
    };
    let changed = |part, of: &str, verdict| AuditEvent::ConfigChanged {
        part,
        digest: Digest::of(of.as_bytes()),
        verdict,
    };
    let (allowed, denied) = (Verdict::Allowed, Verdict::Denied);
    Some(match event {
        ClusterEvent::Linked { node, address, .. } => AuditEvent::Authentication {
            scheme: "link",
            principal: Some(AuditId::new(node.to_string())),
            peer: Some(address.ip()),
            verdict: allowed,
            reason: "certificate",
        },
        ClusterEvent::Joined { node, roles, .. } => AuditEvent::Membership {
            action: "joined",
            node: AuditId::new(node.to_string()),
            roles: roles.iter().map(AuditId::new).collect(),
            by: None,
            verdict: allowed,
            reason: "token",
        },
        ClusterEvent::JoinRefused { name, reason } => {
            about("joined", name.to_owned(), denied, reason)
        }
        ClusterEvent::ShutOut { node } => about("shut_out", node.to_string(), allowed, "revoked"),
        ClusterEvent::Drained { by, on } => AuditEvent::Membership {
            action: if on { "drain" } else { "undrain" },
            node: AuditId::new("self"),
            roles: Vec::new(),
            by: Some(AuditId::new(by.to_string())),
            verdict: allowed,
            reason: "operator",
        },
        ClusterEvent::ListTaken { text } => changed("revocations", text, allowed),
        ClusterEvent::ListRefused => changed("revocations", "", denied),
        ClusterEvent::Renewed { node } => changed("node_certificate", &node.to_string(), allowed),
        ClusterEvent::RenewalRefused { node } => {
            changed("node_certificate", &node.to_string(), denied)
        }
        _ => return None,
    })
}
