//! A request that was let in: whose it is, and what that may do.

use std::sync::Arc;

use neuroflow_kernel::{Rights, TraceContext};

use super::grants::{Decision, Entrance, Grants};
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
    /// It may, but not without a record, and there is none.
    Unrecorded,
}

/// What was decided, before it counts.
#[must_use = "what is decided counts once it's recorded, or noted of what goes on already"]
pub(crate) struct Judged<'a, T> {
    outcome: Result<T, Denial>,
    /// None for what isn't a decision.
    decision: Option<Decision<'a>>,
    grants: &'a Grants,
}

impl<T> Judged<'_, T> {
    /// Records it, before anything is done by it.
    pub(crate) async fn recorded(self) -> Result<T, Denial> {
        if let Some(decision) = self.decision
            && !self.grants.decided(decision).await
        {
            return Err(Denial::Unrecorded);
        }
        self.outcome
    }

    /// Notes it, for what goes on already or is only shown.
    pub(crate) fn noted(self) -> Result<T, Denial> {
        if let Some(decision) = self.decision {
            self.grants.noted(decision);
        }
        self.outcome
    }
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
    pub(crate) fn enter<'a>(
        &'a self,
        agent: &'a GatewayAgent,
        rights: Rights,
    ) -> Judged<'a, Arc<Entrance>> {
        let Some(entrance) = self.entrance(agent) else {
            return self.judged(None, Err(Denial::Hidden));
        };
        let is_allowed = entrance.rights.contains(rights);
        let action = action(rights);
        // Who is let in to ask is asked for the skill next, and that is the decision.
        let decided = action.filter(|action| *action != Action::Ask || !is_allowed);
        let entered = match action {
            _ if entrance.is_hidden() => Err(Denial::Hidden),
            Some(action) if !is_allowed => Err(Denial::Forbidden(action)),
            _ => Ok(entrance),
        };
        let target = Target::Agent(&agent.profile.name);
        self.judged(decided.map(|action| (action, target)), entered)
    }

    /// Whether the principal may ask this agent for this skill, or for whatever the agent makes of it.
    pub(crate) fn ask<'a>(
        &'a self,
        agent: &'a GatewayAgent,
        skill: Option<&'a str>,
    ) -> Judged<'a, ()> {
        let Some(entrance) = self.entrance(agent) else {
            return self.judged(None, Err(Denial::Hidden));
        };
        let name = agent.profile.name.as_str();
        let Some(skill) = skill else {
            return self.allowed(Action::Ask, Target::Agent(name), entrance.asks_for_all);
        };
        let target = Target::Skill { agent: name, skill };
        let is_listed = agent.profile.skills.iter().any(|listed| listed.id == skill);
        let is_allowed = if is_listed {
            entrance.skills.iter().any(|known| known == skill)
        } else {
            self.may_ask_unlisted(&target, entrance.asks_for_all)
        };
        self.allowed(Action::Ask, target, is_allowed)
    }

    /// A skill that the agent doesn't list is for who may ask the agent for whatever it makes of it, unless it's
    /// forbidden by its name.
    fn may_ask_unlisted(&self, skill: &Target<'_>, asks_for_all: bool) -> bool {
        let Some((rules, _)) = &self.rules else { return true };
        let ruling = rules.ruling(&self.principal, Action::Ask, skill);
        ruling.allowed || (asks_for_all && !ruling.is_forbidden())
    }

    /// Whether the principal may do that.
    pub(crate) fn permits<'a>(&'a self, action: Action, target: Target<'a>) -> Judged<'a, ()> {
        let rules = self.rules.as_ref();
        let decide =
            |rules: &Arc<dyn Rules>| rules.ruling(&self.principal, action, &target).allowed;
        self.allowed(action, target, rules.is_none_or(|(rules, _)| decide(rules)))
    }

    /// Whether the principal has these rights of an agent, without anything being done with them.
    #[cfg(feature = "mcp")]
    pub(crate) fn has(&self, agent: &GatewayAgent, rights: Rights) -> bool {
        self.entrance(agent).is_some_and(|entrance| entrance.rights.contains(rights))
    }

    /// Whether others may be shown something else.
    pub(crate) fn is_restricted(&self) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| !rules.is_unrestricted())
    }

    /// Whether the principal may do anything at all with the agent.
    pub(crate) fn sees(&self, agent: &GatewayAgent) -> bool {
        self.entrance(agent).is_some_and(|entrance| !entrance.is_hidden())
    }

    fn allowed<'a>(
        &'a self,
        action: Action,
        target: Target<'a>,
        is_allowed: bool,
    ) -> Judged<'a, ()> {
        let outcome = if is_allowed { Ok(()) } else { Err(Denial::Forbidden(action)) };
        self.judged(Some((action, target)), outcome)
    }

    fn judged<'a, T>(
        &'a self,
        about: Option<(Action, Target<'a>)>,
        outcome: Result<T, Denial>,
    ) -> Judged<'a, T> {
        let (principal, trace, is_allowed) = (&self.principal, self.trace, outcome.is_ok());
        let decision = |(action, target)| Decision { principal, trace, action, target, is_allowed };
        Judged { outcome, decision: about.map(decision), grants: &self.grants }
    }

    /// None for who may do nothing with the agent, so that for it there is none.
    fn entrance(&self, agent: &GatewayAgent) -> Option<Arc<Entrance>> {
        let rules = self.rules.as_ref().map(|(rules, generation)| (rules, *generation));
        self.grants.entrance(&self.principal, rules, agent)
    }
}

/// What rights of an agent's capability are called in policies.
fn action(rights: Rights) -> Option<Action> {
    let named = [(ASK, Action::Ask), (CANCEL, Action::Cancel), (READ, Action::Read)];
    named.into_iter().find(|(right, _)| rights.contains(*right)).map(|(_, action)| action)
}
