//! A request that was let in: whose it is, and what that may do.

use std::sync::Arc;

use neuroflow_kernel::{Rights, TraceContext};

use super::grants::{Entrance, Grants};
use super::request_id::RequestId;
use super::unsent::Unsent;
use crate::access::{
    Access, Action, Identified, Principal, PrincipalKind, Proof, Rules, Standing, Target,
};
use crate::agent::{ASK, CANCEL, READ};
use crate::gateway::GatewayAgent;

/// What handlers find in a request's extensions; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    principal: Principal,
    /// What the principal has proved itself with, and to whom; none where nobody has to.
    proof: Option<(Access, Proof)>,
    /// None where everybody may do everything.
    rules: Option<(Arc<dyn Rules>, u64)>,
    grants: Arc<Grants>,
    request: RequestId,
    unsent: Unsent,
    /// Of which trace what is decided about it is part.
    trace: TraceContext,
}

/// Why a principal may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// It may do nothing with the agent, so that for it there is none.
    Hidden,
    /// It may do other things with it.
    Forbidden(Action),
}

impl Admitted {
    pub(super) fn new(
        identified: Identified,
        access: Option<Access>,
        rules: Option<(Arc<dyn Rules>, u64)>,
        grants: Arc<Grants>,
        (request, unsent): (RequestId, Unsent),
    ) -> Self {
        let Identified { principal, proof } = identified;
        let proof = access.filter(Access::authenticates).map(|access| (access, proof));
        let trace = TraceContext::default();
        Self { principal, proof, rules, grants, request, unsent, trace }
    }

    /// Part of this trace, by which its decisions are found together with what comes of it.
    #[must_use]
    pub(crate) fn traced(mut self, trace: TraceContext) -> Self {
        self.trace = trace;
        self
    }

    /// Watches over what the principal has proved itself with; none where nobody has to.
    pub(super) fn standing(&self) -> Option<Standing> {
        let (access, proof) = self.proof.as_ref()?;
        let (principal, proof) = (self.principal.clone(), proof.clone());
        let rules = self.rules.as_ref().map(|(rules, _)| Arc::clone(rules));
        Some(access.standing(Identified { principal, proof }, rules))
    }

    /// From now on these rules count.
    pub(super) fn now_under(&mut self, rules: Arc<dyn Rules>, generation: u64) {
        self.rules = Some((rules, generation));
    }

    /// Whose request it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What tasks know the principal by; none if nobody has said who asks.
    pub(crate) fn caller(&self) -> Option<String> {
        let is_known = self.principal.kind() != PrincipalKind::Anonymous;
        is_known.then(|| self.principal.id().to_owned())
    }

    /// What its answer holds.
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// The id of the request.
    pub(crate) fn request_id(&self) -> &str {
        self.request.as_str()
    }

    /// The way to an agent, narrowed to what the principal may do with it, for something that needs
    /// these rights; none are enough for whatever is looked at on its own.
    pub(crate) fn enter(
        &self,
        agent: &GatewayAgent,
        rights: Rights,
    ) -> Result<Arc<Entrance>, Denial> {
        let entrance = self.entrance(agent)?;
        let is_allowed = entrance.rights.contains(rights);
        // Who is let in to ask is asked for the skill next, and that is the decision.
        let action = action(rights);
        if let Some(action) = action.filter(|action| *action != Action::Ask || !is_allowed) {
            let target = Target::Agent(&agent.profile.name);
            self.decided(action, &target, is_allowed);
        }
        match action {
            _ if entrance.is_hidden() => Err(Denial::Hidden),
            Some(action) if !is_allowed => Err(Denial::Forbidden(action)),
            _ => Ok(entrance),
        }
    }

    /// Whether the principal may ask this agent for this skill, or for whatever the agent makes of it.
    pub(crate) fn ask(&self, agent: &GatewayAgent, skill: Option<&str>) -> Result<(), Denial> {
        let entrance = self.entrance(agent)?;
        let name = agent.profile.name.as_str();
        let (is_allowed, target) = match skill {
            Some(skill) => {
                let known = entrance.skills.iter().any(|known| known == skill);
                let is_listed = agent.profile.skills.iter().any(|listed| listed.id == skill);
                let unknown = !is_listed && entrance.asks_for_all;
                (known || unknown, Target::Skill { agent: name, skill })
            }
            None => (entrance.asks_for_all, Target::Agent(name)),
        };
        self.decided(Action::Ask, &target, is_allowed);
        if is_allowed { Ok(()) } else { Err(Denial::Forbidden(Action::Ask)) }
    }

    /// Whether the principal may do that.
    pub(crate) fn permits(&self, action: Action, target: &Target<'_>) -> bool {
        let allowed = match &self.rules {
            Some((rules, _)) => rules.decide(&self.principal, action, target).allowed,
            None => true,
        };
        self.decided(action, target, allowed);
        allowed
    }

    /// Whether others may be shown something else.
    pub(crate) fn is_restricted(&self) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| !rules.is_unrestricted())
    }

    /// Whether the principal may do anything at all with the agent.
    pub(crate) fn sees(&self, agent: &GatewayAgent) -> bool {
        self.entrance(agent).is_ok_and(|entrance| !entrance.is_hidden())
    }

    fn decided(&self, action: Action, target: &Target<'_>, is_allowed: bool) {
        self.grants.decided((&self.principal, self.trace), action, target, is_allowed);
    }

    fn entrance(&self, agent: &GatewayAgent) -> Result<Arc<Entrance>, Denial> {
        let rules = self.rules.as_ref().map(|(rules, generation)| (rules, *generation));
        self.grants.entrance(&self.principal, rules, agent).ok_or(Denial::Hidden)
    }
}

/// What rights of an agent's capability are called in policies.
fn action(rights: Rights) -> Option<Action> {
    let named = [(ASK, Action::Ask), (CANCEL, Action::Cancel), (READ, Action::Read)];
    named.into_iter().find(|(right, _)| rights.contains(*right)).map(|(_, action)| action)
}
