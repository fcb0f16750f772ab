//! The agents of other nodes that this node offers as its own: where they are, and what is known of them.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_actors::{AgentProfile, AgentWay, AnyAgent, Proxy, ProxyPlace, ProxyRoute, Skill};
use neuroflow_kernel::{Clock, Moment, Name, RemoteError, RemoteTarget, StartError};
use neuroflow_transport::{Links, Member};

use super::BootError;

/// How long a node that starts waits for the directory to know what agents that it's to offer can do. Links to
/// nodes that are there take a few round trips.
const SKILLS_WAIT: Duration = Duration::from_secs(2);

/// How often it looks.
const SKILLS_LOOK: Duration = Duration::from_millis(20);

/// An agent of other nodes that a node offers under a name of its own.
///
/// ```
/// use neuroflow::ProxyAgent;
/// let billing = ProxyAgent::new("billing", "agent://*/billing").profile(|profile| {
///     profile.description = "Knows the bills.".to_owned();
///     profile.resumable = true;
/// });
/// assert_eq!(billing.name(), "billing");
/// ```
#[derive(Clone, Debug)]
pub struct ProxyAgent {
    target: String,
    profile: AgentProfile,
    own_skills: bool,
    tools: Vec<String>,
}

impl ProxyAgent {
    /// Offered under this name, and found as `agent://<node or *>/<name>`: on one node, or for each conversation
    /// where that is placed.
    pub fn new(name: impl Into<String>, target: impl Into<String>) -> Self {
        let (name, target) = (name.into(), target.into());
        let mut profile = AgentProfile::new(name, format!("The agent {target}."));
        // What the other agent takes and gives, it knows best.
        profile.input_modes = vec!["*/*".to_owned()];
        profile.output_modes = vec!["*/*".to_owned()];
        Self { target, profile, own_skills: false, tools: Vec::new() }
    }

    /// Another profile, whose name stays this agent's. Unless it names other skills, they are those that the
    /// directory knows when the node starts. It's `resumable` if the other agent may be run again.
    #[must_use]
    pub fn profile(mut self, change: impl FnOnce(&mut AgentProfile)) -> Self {
        let (name, skills) = (self.profile.name.clone(), self.profile.skills.clone());
        change(&mut self.profile);
        self.profile.name = name;
        self.own_skills |= self.profile.skills != skills;
        self
    }

    /// Names of tools of the agent there that this node's rules may permit to be used for a client. One whom they
    /// don't permit everything has no others.
    #[must_use]
    pub fn tools(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tools = names.into_iter().map(Into::into).collect();
        self
    }

    /// Its name here.
    pub fn name(&self) -> &str {
        &self.profile.name
    }
}

/// The agents, as this node serves them.
pub(super) async fn found(
    agents: Vec<ProxyAgent>,
    links: Option<&Links>,
    clock: &Clock,
) -> Result<Vec<AnyAgent>, BootError> {
    let mut found = Vec::new();
    let until = clock.now() + SKILLS_WAIT;
    for ProxyAgent { target, mut profile, own_skills, tools } in agents {
        let Some(links) = links else { return Err(BootError::Unlinked { agent: profile.name }) };
        let target: RemoteTarget = target.parse()?;
        let member = if own_skills { None } else { at(links, &target, until, clock).await };
        if let Some(member) = member {
            describe(&mut profile, &member, &target);
        }
        found.push(AnyAgent::new(Proxy::new(profile, route(links.clone(), target)).tools(tools)));
    }
    Ok(found)
}

/// Refuses a proxy that is named like another agent of this node, whose supervisor isn't that of the proxies.
pub(super) fn distinct(agent: &AnyAgent, others: &[AnyAgent]) -> Result<(), BootError> {
    let name = agent.profile().name;
    #[cfg(feature = "mcp")]
    let is_taken = name == neuroflow_actors::McpPrograms::NAME;
    #[cfg(not(feature = "mcp"))]
    let is_taken = false;
    if is_taken || others.iter().any(|other| other.profile().name == name) {
        return Err(StartError::Taken { name: Name::new(&name)? }.into());
    }
    Ok(())
}

/// The member that has the agent, once the directory knows one.
async fn at(links: &Links, target: &RemoteTarget, until: Moment, clock: &Clock) -> Option<Member> {
    loop {
        let has_it = |member: &Member| is_at(member, target) && member.offers(target.name());
        let found = links.members().into_iter().find(has_it);
        if found.is_some() || clock.now() >= until {
            return found;
        }
        clock.sleep(SKILLS_LOOK).await;
    }
}

fn is_at(member: &Member, target: &RemoteTarget) -> bool {
    let is_named = |node: &str| node == member.name.as_str() || node == member.node.to_string();
    member.state.is_active() && target.node().is_none_or(is_named)
}

/// Takes the skills that the agent's node tells others of.
fn describe(profile: &mut AgentProfile, member: &Member, target: &RemoteTarget) {
    let offers = member.agents.iter().filter(|offer| offer.name == target.name());
    let skills: Vec<Skill> = offers
        .flat_map(|offer| &offer.skills)
        .map(|id| Skill::named(id, &profile.description))
        .collect();
    if !skills.is_empty() {
        profile.skills = skills;
    }
}

/// Finds the agent for each task.
fn route(links: Links, target: RemoteTarget) -> ProxyRoute {
    Arc::new(move |place| {
        let node = match (place, target.node()) {
            (ProxyPlace::Node(node), _) | (ProxyPlace::Conversation(_), Some(node)) => {
                node.to_owned()
            }
            (ProxyPlace::Conversation(key), None) => links
                .first_placed(&target, key.as_bytes())
                .ok_or_else(|| RemoteError::Unplaced { target: target.to_string() })?
                .to_string(),
        };
        way(&links, &node, target.name())
    })
}

/// The way to an agent on a node.
pub(super) fn way(links: &Links, node: &str, agent: &str) -> Result<AgentWay, RemoteError> {
    let target: RemoteTarget = format!("agent://{node}/{agent}").parse()?;
    let (asks, bounded) = (links.address(target.clone())?, links.address(target.clone())?);
    Ok(AgentWay { node: node.to_owned(), asks, bounded, orders: links.address(target)? })
}
