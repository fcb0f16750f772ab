//! A running node, as its program has it.

use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "mcp")]
use neuroflow_actors::McpDoor;
use neuroflow_actors::{
    AgentCommand, Ask, Audit, Condition, Journal, SoleCommand, TaskEvent, ToolListing, Turn,
    list_tools,
};
use neuroflow_kernel::{
    Address, CallError, Census, Header, Kernel, Parcel, RemoteError, Request, StreamError,
};
use neuroflow_sandbox::SandboxCommand;
use neuroflow_transport::Links;

use super::way::{FarWay, Way};
use super::{NodeBuilder, Parts};
use crate::outcome::{AskError, TaskOutcome};

/// How often in a row a task is followed anew that tells more than fits, without a word of it being heard.
const FOLLOW_TRIES: u32 = 3;

/// Time for an agent that lives once to hear that its node stops: far longer than there's no room in a mailbox.
const FAREWELL: Duration = Duration::from_secs(1);

/// Time that the tool router gets to say what there is.
const TOOLS_ANSWER: Duration = Duration::from_secs(5);

/// A running node: kernel, agents, and the servers that were asked for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow::{AnyAgent, Echo, Node};
/// let node = Node::builder().agent(AnyAgent::new(Echo)).start().await?;
/// assert_eq!(node.ask("echo", "hello").await?.completed()?.text(), "hello");
/// node.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    pub(super) kernel: Kernel,
    pub(super) audit: Audit,
    pub(super) parts: Parts,
}

impl Node {
    /// A node without agents, sandbox or gateway.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// Asks an agent of this node, or `agent://<node or *>/<name>` of the cluster, and waits until its task has
    /// ended, or waits for its client.
    ///
    /// # Errors
    /// Says whether there is no such agent, or the request wasn't taken or answered.
    pub async fn ask(&self, agent: &str, text: &str) -> Result<TaskOutcome, AskError> {
        let turn = Turn::user(text);
        self.ask_with(agent, Ask::new(turn), Header::new()).await
    }

    /// Asks an agent, here or on another node, with a header of the caller's, and waits until its task
    /// has ended, or waits for its client: a request with the task's id goes on then. The header's deadline
    /// ends the wait, not the task.
    ///
    /// # Errors
    /// Says whether there is no such agent, or the request wasn't taken or answered.
    pub async fn ask_with(
        &self,
        agent: &str,
        ask: Ask,
        header: Header,
    ) -> Result<TaskOutcome, AskError> {
        let way = self.way(agent)?;
        // Where a conversation goes is settled by its name, so the first request has to have one.
        let ask = if matches!(way, Way::Far(_)) { ask.named() } else { ask };
        let parcel = Parcel::archive(&ask).map_err(AskError::Archive)?;
        let asked = way.ask(header.clone(), parcel).await;
        let mut events = asked.map_err(AskError::Refused)?;
        let (mut outcome, mut lagged) = (TaskOutcome::default(), 0);
        let follow = async {
            while !outcome.is_settled()
                && let Some(event) = events.next().await
            {
                match event {
                    Ok(event) => {
                        lagged = 0;
                        hear(&event, &mut outcome)?;
                    }
                    // More was told than waits in a stream. Whoever has the task has all of it.
                    Err(StreamError::Lagged) if lagged < FOLLOW_TRIES => {
                        lagged += 1;
                        let caller = ask.caller.as_deref();
                        let followed = way.follow(header.clone(), &outcome, caller).await;
                        let (so_far, to_come) = followed.ok_or(StreamError::Lagged)?;
                        events = to_come;
                        for event in &so_far {
                            hear(event, &mut outcome)?;
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        };
        match header.deadline() {
            Some(deadline) => match self.kernel.clock().before(deadline, follow).await {
                Ok(followed) => followed.map(|()| outcome),
                Err(elapsed) => Err(elapsed.into()),
            },
            None => follow.await.map(|()| outcome),
        }
    }

    /// The way to an agent of this node, or of the cluster.
    fn way(&self, agent: &str) -> Result<Way<'_>, AskError> {
        if let Some(sole) = self.parts.sole.iter().find(|sole| sole.name == agent) {
            return Ok(Way::Far(sole.way.clone()));
        }
        if !agent.starts_with("agent://") {
            return self.agent(agent).map(Way::Near);
        }
        let Some(links) = &self.parts.links else {
            return Err(RemoteError::Unsupported { target: agent.to_owned() }.into());
        };
        Ok(Way::Far(FarWay { asks: links.resolve(agent)?, orders: links.resolve(agent).ok() }))
    }

    fn agent(&self, name: &str) -> Result<&Address<AgentCommand>, AskError> {
        let found = self.parts.agents.iter().find(|agent| agent.profile.name == name);
        found.map(|agent| &agent.address).ok_or_else(|| AskError::UnknownAgent {
            agent: name.to_owned(),
            known: self.parts.agents.iter().map(|agent| agent.profile.name.clone()).collect(),
        })
    }

    /// The address of an agent by name: `agent://<node>/<name>`, where the node is another of the
    /// cluster or this one.
    ///
    /// # Errors
    /// Says that the text isn't of this form, that this node has no links, or no such agent.
    pub fn resolve(&self, target: &str) -> Result<Address<Request<Ask>>, RemoteError> {
        match &self.parts.links {
            Some(links) => links.resolve(target),
            None => Err(RemoteError::Unsupported { target: target.to_owned() }),
        }
    }

    /// The address of an agent wherever the placement puts it: the same key leads to the same node for as
    /// long as that is there and takes work, then to the next. `agent://*/<name>` in
    /// [`resolve`](Self::resolve) is the same with the conversation of each request as the key, and one of
    /// its own for requests that name none.
    ///
    /// # Errors
    /// Says that this node has no links, or that no node offers such an agent now.
    pub fn resolve_for(
        &self,
        agent: &str,
        key: &str,
    ) -> Result<Address<Request<Ask>>, RemoteError> {
        match &self.parts.links {
            Some(links) => links.resolve_for(agent, key.as_bytes()),
            None => Err(RemoteError::Unsupported { target: format!("agent://*/{agent}") }),
        }
    }

    /// The links to other nodes, if there are any.
    pub fn links(&self) -> Option<&Links> {
        self.parts.links.as_ref()
    }

    /// The kernel: clock, tree, root supervisor.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// A view of the live tree.
    pub fn census(&self) -> Census {
        self.kernel.census()
    }

    /// The journal of the node's tasks, to be read.
    pub fn journal(&self) -> &Journal {
        &self.parts.journal
    }

    /// How the journal and the audit log do, without which nothing is taken: what the gateway's `/readyz`
    /// says, for a host that has another way to tell.
    pub fn conditions(&self) -> Vec<Condition> {
        self.parts.conditions.clone()
    }

    /// A capability to the sandbox, if there is one: the owner's, which can be narrowed.
    pub fn sandbox(&self) -> Option<&Address<SandboxCommand>> {
        self.parts.sandbox.as_ref()
    }

    /// All tools of the node, by name: what agents bring, what is shared, and what MCP servers have
    /// offered by now.
    ///
    /// # Errors
    /// Says why the tool router doesn't answer.
    pub async fn tools(&self) -> Result<Vec<ToolListing>, CallError> {
        list_tools(&self.parts.tools, Header::new().within(self.kernel.clock(), TOOLS_ANSWER)).await
    }

    /// What serves MCP clients over streams, if the node is to serve them.
    #[cfg(feature = "mcp")]
    pub fn mcp_door(&self) -> Option<&McpDoor> {
        self.parts.door.as_ref()
    }

    /// Where the gateway listens, if there is one.
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.parts.gateway
    }

    /// The way to the audit log, or to none.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Names of the agents, the gateway's root agent first.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.parts.agents.iter().map(|agent| agent.profile.name.as_str())
    }

    /// A capability to an agent: to ask it, and to read and cancel its tasks.
    pub fn address(&self, agent: &str) -> Option<&Address<AgentCommand>> {
        self.agent(agent).ok()
    }

    /// Waits until the root supervisor has given up or the node was stopped.
    pub async fn ended(&self) {
        self.kernel.ended().await;
    }

    /// Stops everything in reverse start order. Before all else requests and tasks that have begun get
    /// [`drain_within`](NodeBuilder::drain_within) to come to their end, ten seconds unless it was set: those of the
    /// gateway, of other nodes and of [`ask`](Self::ask), whether somebody waits for them or not. Tasks that wait for
    /// their clients, or are run again at the next start, aren't waited for. Then each server gets its own time.
    pub async fn stop(&self) {
        self.parts.share.begin(self.kernel.clock().now());
        self.say_farewell().await;
        self.kernel.stop().await;
    }

    /// Like [`stop`](Self::stop), and ends what is left after `deadline`. Requests and tasks get two thirds of it to
    /// come to their end, or all but ten seconds if that's more, and no more than in [`stop`](Self::stop). Says whether
    /// nothing was left.
    pub async fn stop_within(&self, deadline: Duration) -> bool {
        self.parts.share.begin_within(self.kernel.clock().now(), deadline);
        self.say_farewell().await;
        self.kernel.stop_within(deadline).await
    }

    /// Other nodes ask elsewhere from here on, while the gateway brings what it has begun to its end. What there may
    /// be only one of they couldn't as long as it's here.
    async fn say_farewell(&self) {
        let Some(links) = &self.parts.links else { return };
        links.set_draining(true);
        for sole in &self.parts.sole {
            let header = Header::new().within(self.kernel.clock(), FAREWELL);
            // One that doesn't hear it lets go when it's stopped.
            let _unheard = sole.router.tell(header, SoleCommand::Leave).await.is_err();
        }
        links.drain();
    }
}

/// Takes an event of a task in.
fn hear(event: &Parcel<TaskEvent>, outcome: &mut TaskOutcome) -> Result<(), AskError> {
    outcome.fold(event.get());
    outcome.refused().map_or(Ok(()), |refusal| Err(AskError::Declined(refusal)))
}
