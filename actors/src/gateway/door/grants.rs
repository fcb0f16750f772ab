//! Capabilities to agents, narrowed for principals and kept for their next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use neuroflow_kernel::{Address, Clock, Header, Restriction, Rights, TraceContext};

use crate::access::{AccessMeter, Action, CallerGrant, Principal, Rules, Target};
use crate::agent::{ASK, AgentCommand, CANCEL, READ};
use crate::audit::{Audit, AuditEvent, AuditId, Verdict};
use crate::gateway::GatewayAgent;
use crate::limits::{AUDIT_WAIT, CALLER_GRANTS};

/// A principal's way to an agent.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// A capability that says whom it's for.
    pub(crate) address: Address<AgentCommand>,
    /// What it may be used for.
    pub(super) rights: Rights,
    /// Whether it may ask for whatever the agent makes of it.
    pub(super) asks_for_all: bool,
    /// The skills that it may ask for by name.
    pub(super) skills: Vec<String>,
    /// Whether tasks of others are its own too, for what it may do with its own.
    pub(crate) sees_all: bool,
    pub(super) describes: bool,
}

impl Entrance {
    pub(super) fn is_hidden(&self) -> bool {
        self.rights == Rights::NONE && !self.describes && !self.sees_all
    }

    /// Whether tasks are looked at as everybody's, by who was let in for this right. Who was let in to ask looks as who
    /// may read, if it may.
    pub(crate) fn sees_all_for(&self, right: Rights) -> bool {
        self.sees_all && (!right.contains(ASK) || self.rights.contains(READ))
    }
}

/// The entrances of a gateway.
#[derive(Debug)]
pub(in crate::gateway) struct Grants {
    kept: Mutex<HashMap<(Principal, String), Kept>>,
    meter: Arc<dyn AccessMeter>,
    audit: Audit,
    clock: Clock,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision<'a> {
    pub(super) principal: &'a Principal,
    pub(super) trace: TraceContext,
    pub(super) action: Action,
    pub(super) target: Target<'a>,
    pub(super) is_allowed: bool,
}

impl Decision<'_> {
    fn event(&self) -> AuditEvent {
        let (verdict, reason) = if self.is_allowed {
            (Verdict::Allowed, "policy")
        } else {
            (Verdict::Denied, "no_policy")
        };
        AuditEvent::Authorisation {
            principal: Some(AuditId::new(self.principal.id())),
            action: self.action.name(),
            resource: AuditId::new(self.target.to_string()),
            verdict,
            reason,
        }
    }
}

#[derive(Debug)]
struct Kept {
    entrance: Arc<Entrance>,
    /// The rules that it was judged by.
    generation: u64,
}

impl Grants {
    pub(super) fn new(meter: Arc<dyn AccessMeter>, audit: Audit, clock: Clock) -> Self {
        Self { kept: Mutex::default(), meter, audit, clock }
    }

    /// Counts and records a decision before what it allows is done. Whether it's recorded, where that is required.
    pub(super) async fn decided(&self, decision: Decision<'_>) -> bool {
        if !decision.is_allowed || !self.audit.is_on() {
            self.noted(decision);
            return true;
        }
        self.meter.authorisation(decision.action, true);
        let header = Header::new().traced(decision.trace).within(&self.clock, AUDIT_WAIT);
        let recorded = self.audit.decide(header, decision.event()).await;
        if let Err(error) = &recorded {
            // The log itself says once that it takes nothing, and counts what it refuses.
            tracing::debug!(error = error as &dyn std::error::Error, "not in the audit log");
        }
        recorded.is_ok()
    }

    /// Counts and records a decision about what goes on already, or that isn't allowed.
    pub(super) fn noted(&self, decision: Decision<'_>) {
        self.meter.authorisation(decision.action, decision.is_allowed);
        if self.audit.is_on() {
            self.audit.note(decision.trace, decision.event());
        }
    }

    /// What a principal may do with an agent, as of these rules. None if the capability can't be
    /// narrowed any more, which a gateway's can.
    pub(super) fn entrance(
        &self,
        principal: &Principal,
        rules: Option<(&Arc<dyn Rules>, u64)>,
        agent: &GatewayAgent,
    ) -> Option<Arc<Entrance>> {
        let Some((rules, generation)) = rules else { return Some(Arc::new(unrestricted(agent))) };
        let key = (principal.clone(), agent.profile.name.clone());
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = kept.get(&key).filter(|known| known.generation == generation) {
                return Some(Arc::clone(&known.entrance));
            }
        }
        let entrance = Arc::new(judge(principal, rules, agent)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CALLER_GRANTS {
            kept.retain(|_, known| known.generation == generation);
        }
        // Where all are of these rules, the next principals are judged each time.
        if kept.len() < CALLER_GRANTS {
            kept.insert(key, Kept { entrance: Arc::clone(&entrance), generation });
        }
        Some(entrance)
    }
}

/// Everything, as the gateway's own capability.
fn unrestricted(agent: &GatewayAgent) -> Entrance {
    Entrance {
        address: agent.address.clone(),
        rights: ASK.union(READ).union(CANCEL),
        asks_for_all: true,
        skills: agent.profile.skills.iter().map(|skill| skill.id.clone()).collect(),
        sees_all: true,
        describes: true,
    }
}

fn judge(principal: &Principal, rules: &Arc<dyn Rules>, agent: &GatewayAgent) -> Option<Entrance> {
    let name = agent.profile.name.as_str();
    let may = |action, target: &Target<'_>| rules.ruling(principal, action, target).allowed;
    let whole = Target::Agent(name);
    let asks_for_all = may(Action::Ask, &whole);
    let listed = agent.profile.skills.iter().map(|skill| skill.id.as_str());
    let skills: Vec<String> = listed
        .filter(|skill| may(Action::Ask, &Target::Skill { agent: name, skill }))
        .map(str::to_owned)
        .collect();
    let sees_all = may(Action::Supervise, &whole);
    let mut rights = Rights::NONE;
    for (right, is_allowed) in [
        (ASK, asks_for_all || !skills.is_empty()),
        (READ, may(Action::Read, &whole)),
        (CANCEL, may(Action::Cancel, &whole)),
    ] {
        if is_allowed {
            rights = rights.union(right);
        }
    }
    let grant = CallerGrant::new(principal.clone(), Arc::clone(rules));
    // Who asks is told what becomes of that, whether or not it may read tasks on its own.
    let held = if rights.contains(ASK) { rights.union(READ) } else { rights };
    let narrowed = Restriction::new().rights(held).policy(grant);
    let address = agent.address.attenuate(narrowed).ok()?;
    let describes = may(Action::Describe, &whole);
    Some(Entrance { address, rights, asks_for_all, skills, sees_all, describes })
}
