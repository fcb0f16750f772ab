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

/// The way in, and what was decided of it, if that is a decision.
type Entering = (Result<Arc<Entrance>, Denial>, Option<(Action, bool)>);

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
    pub(crate) async fn enter(
        &self,
        agent: &GatewayAgent,
        rights: Rights,
    ) -> Result<Arc<Entrance>, Denial> {
        let (entered, decided) = self.entering(agent, rights)?;
        if let Some((action, is_allowed)) = decided {
            self.decided(action, &Target::Agent(&agent.profile.name), is_allowed).await?;
        }
        entered
    }

    /// The same, for what goes on already.
    pub(crate) fn enter_still(
        &self,
        agent: &GatewayAgent,
        rights: Rights,
    ) -> Result<Arc<Entrance>, Denial> {
        let (entered, decided) = self.entering(agent, rights)?;
        if let Some((action, is_allowed)) = decided {
            self.noted(action, &Target::Agent(&agent.profile.name), is_allowed);
        }
        entered
    }

    fn entering(&self, agent: &GatewayAgent, rights: Rights) -> Result<Entering, Denial> {
        let entrance = self.entrance(agent)?;
        let is_allowed = entrance.rights.contains(rights);
        let action = action(rights);
        // Who is let in to ask is asked for the skill next, and that is the decision.
        let decided = action.filter(|action| *action != Action::Ask || !is_allowed);
        let entered = match action {
            _ if entrance.is_hidden() => Err(Denial::Hidden),
            Some(action) if !is_allowed => Err(Denial::Forbidden(action)),
            _ => Ok(entrance),
        };
        Ok((entered, decided.map(|action| (action, is_allowed))))
    }

    /// Whether the principal may ask this agent for this skill, or for whatever the agent makes of it.
    pub(crate) async fn ask(
        &self,
        agent: &GatewayAgent,
        skill: Option<&str>,
    ) -> Result<(), Denial> {
        let (is_allowed, target) = self.asking(agent, skill)?;
        self.decided(Action::Ask, &target, is_allowed).await?;
        if is_allowed { Ok(()) } else { Err(Denial::Forbidden(Action::Ask)) }
    }

    /// The same, for what goes on already.
    pub(crate) fn ask_still(
        &self,
        agent: &GatewayAgent,
        skill: Option<&str>,
    ) -> Result<(), Denial> {
        let (is_allowed, target) = self.asking(agent, skill)?;
        self.noted(Action::Ask, &target, is_allowed);
        if is_allowed { Ok(()) } else { Err(Denial::Forbidden(Action::Ask)) }
    }

    fn asking<'a>(
        &self,
        agent: &'a GatewayAgent,
        skill: Option<&'a str>,
    ) -> Result<(bool, Target<'a>), Denial> {
        let entrance = self.entrance(agent)?;
        let name = agent.profile.name.as_str();
        let Some(skill) = skill else { return Ok((entrance.asks_for_all, Target::Agent(name))) };
        let known = entrance.skills.iter().any(|known| known == skill);
        let is_listed = agent.profile.skills.iter().any(|listed| listed.id == skill);
        let unknown = !is_listed && entrance.asks_for_all;
        Ok((known || unknown, Target::Skill { agent: name, skill }))
    }

    /// Whether the principal may do that.
    pub(crate) async fn permits(
        &self,
        action: Action,
        target: &Target<'_>,
    ) -> Result<bool, Denial> {
        let is_allowed = self.is_permitted(action, target);
        self.decided(action, target, is_allowed).await?;
        Ok(is_allowed)
    }

    /// The same, for what goes on already, or is only shown.
    #[cfg(feature = "mcp")]
    pub(crate) fn permits_still(&self, action: Action, target: &Target<'_>) -> bool {
        let is_allowed = self.is_permitted(action, target);
        self.noted(action, target, is_allowed);
        is_allowed
    }

    fn is_permitted(&self, action: Action, target: &Target<'_>) -> bool {
        let rules = self.rules.as_ref();
        rules.is_none_or(|(rules, _)| rules.decide(&self.principal, action, target).allowed)
    }

    /// Whether the principal has these rights of an agent, without anything being done with them.
    #[cfg(feature = "mcp")]
    pub(crate) fn has(&self, agent: &GatewayAgent, rights: Rights) -> bool {
        self.entrance(agent).is_ok_and(|entrance| entrance.rights.contains(rights))
    }

    /// Whether others may be shown something else.
    pub(crate) fn is_restricted(&self) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| !rules.is_unrestricted())
    }

    /// Whether the principal may do anything at all with the agent.
    pub(crate) fn sees(&self, agent: &GatewayAgent) -> bool {
        self.entrance(agent).is_ok_and(|entrance| !entrance.is_hidden())
    }

    async fn decided(
        &self,
        action: Action,
        target: &Target<'_>,
        is_allowed: bool,
    ) -> Result<(), Denial> {
        let is_recorded = self.grants.decided(self.decision(action, target, is_allowed)).await;
        if is_recorded { Ok(()) } else { Err(Denial::Unrecorded) }
    }

    fn noted(&self, action: Action, target: &Target<'_>, is_allowed: bool) {
        self.grants.noted(self.decision(action, target, is_allowed));
    }

    fn decision<'a>(
        &'a self,
        action: Action,
        target: &'a Target<'a>,
        is_allowed: bool,
    ) -> Decision<'a> {
        let (principal, trace) = (&self.principal, self.trace);
        Decision { principal, trace, action, target, is_allowed }
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
