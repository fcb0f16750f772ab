//! Starts a node: the one file that names every server, the order of their start, and what each
//! is granted.
//!
//! The root supervisor's children, in start order: the host's own first ones (the binary's are
//! `telemetry` and `control`), `audit`, `journal`, `sandbox`, `tools`, `access`, `agents` (a supervisor
//! with one child per agent), `cluster`, `proxies` (one per agent of other nodes that's offered; they need the links
//! when they stop), `push`, `gateway`. They stop in reverse.
//!
//! Long, because nothing else may name them all: the builder's settings and what is made of each are here.

mod error;
#[cfg(feature = "mcp")]
mod mcp;
mod members;
mod proxy;
mod sole;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_actors::{
    ASK, AccessConfig, AgentCommand, AgentServer, AnyAgent, AnyTool, Ask, Audit, AuditConfig,
    AuditedCells, CANCEL, ExecTool, GatewayAgent, GatewayConfig, INVOKE, Journal, JournalConfig,
    JournalPlace, JournalServer, LeasesConfig, MakeServer, Meter, OpenedJournal, PushJournal,
    PushOptions, PythonTool, READ, READ_LOG, SoleAgent, ToolEntry, ToolGrant, ToolListing,
    ToolServer, ToolsCommand, Turn, access_child, audit_child, follow, gateway_child, list_tools,
    push_child,
};
#[cfg(feature = "mcp")]
use neuroflow_actors::{McpDoor, McpExec, McpPrograms, McpSource};
use neuroflow_kernel::{
    Address, CallError, Census, ChildSpec, Clock, Header, Intensity, Kernel, NameError, Observer,
    Parcel, Refusal, RemoteError, Request, Restart, RestartPolicy, Restriction, StreamError,
    Supervisor, Unobserved,
};
use neuroflow_sandbox::{EXEC, SandboxCommand, SandboxServer};
use neuroflow_transport::{Allowed, Links, LinksConfig};

pub use self::error::BootError;
#[cfg(feature = "mcp")]
pub use self::mcp::McpServer;
use self::members::AuditedMembers;
pub use self::proxy::ProxyAgent;
use crate::outcome::{AskError, TaskOutcome};

/// Time that the gateway gets to bring what was begun to its end, unless the builder says otherwise.
const GATEWAY_DRAIN: Duration = Duration::from_secs(10);

/// Time that the tool router gets to say what there is.
const TOOLS_ANSWER: Duration = Duration::from_secs(5);

/// A restart every ten seconds on average is a fault to live with; more is one to be told of.
const ROOT_INTENSITY: Intensity = Intensity { restarts: 6, within: Duration::from_mins(1) };

/// A running node: kernel, agents, and the servers that were asked for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow::{AnyAgent, Echo, Node};
/// let node = Node::builder().agent(AnyAgent::new(Echo)).start().await?;
/// assert_eq!(node.ask("echo", "hello").await?.text(), "hello");
/// node.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    kernel: Kernel,
    agents: Vec<GatewayAgent>,
    sandbox: Option<Address<SandboxCommand>>,
    tools: Address<ToolsCommand>,
    #[cfg(feature = "mcp")]
    door: Option<McpDoor>,
    gateway: Option<SocketAddr>,
    links: Option<Links>,
    sole: Vec<(String, Address<Request<Ask>>)>,
    journal: Journal,
    audit: Audit,
}

impl Node {
    /// A node without agents, sandbox or gateway.
    pub fn builder() -> NodeBuilder {
        NodeBuilder {
            agents: Vec::new(),
            proxies: Vec::new(),
            tools: Vec::new(),
            #[cfg(feature = "mcp")]
            mcp: Vec::new(),
            #[cfg(feature = "mcp")]
            mcp_server: None,
            sandbox: None,
            gateway: None,
            access: None,
            cluster: None,
            leases: None,
            sole: Vec::new(),
            observer: Arc::new(Unobserved),
            clock: Clock::system(),
            first: Vec::new(),
            drain: GATEWAY_DRAIN,
            audit: None,
            push: None,
            journal: JournalConfig::new(JournalPlace::Memory),
        }
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
        let far = match self.sole.iter().find(|(name, _)| name == agent) {
            Some((_, sole)) => Some(sole.clone()),
            None => agent.starts_with("agent://").then(|| self.resolve(agent)).transpose()?,
        };
        // Where a conversation goes is settled by its name, so the first request has to have one.
        let ask = if far.is_some() { ask.named() } else { ask };
        let near = if far.is_some() { None } else { Some(self.agent(agent)?) };
        let parcel = Parcel::archive(&ask).map_err(AskError::Archive)?;
        let request = |replies| Request { parcel, replies };
        let asked = match (&far, near) {
            (Some(far), _) => far.stream(header.clone(), request).await,
            (None, Some(near)) => {
                near.stream(header.clone(), |replies| AgentCommand::Ask(request(replies))).await
            }
            (None, None) => Err(Refusal::Stopped),
        };
        let mut events = asked.map_err(AskError::Refused)?;
        let mut outcome = TaskOutcome::default();
        let follow = async {
            while !outcome.is_settled()
                && let Some(event) = events.next().await
            {
                match event {
                    Ok(event) => {
                        outcome.fold(event.get());
                        if let Some(refusal) = outcome.refused() {
                            return Err(AskError::Declined(refusal));
                        }
                    }
                    Err(StreamError::Lagged) if let Some(address) = near => {
                        let task = outcome.task().to_owned();
                        let followed = follow(address, header.clone(), &task, None, None).await;
                        let Ok(Some((so_far, to_come))) = followed else {
                            return Err(StreamError::Lagged.into());
                        };
                        events = to_come;
                        outcome = TaskOutcome::default();
                        for event in &so_far {
                            outcome.fold(event.get());
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

    fn agent(&self, name: &str) -> Result<&Address<AgentCommand>, AskError> {
        let found = self.agents.iter().find(|agent| agent.profile.name == name);
        found.map(|agent| &agent.address).ok_or_else(|| AskError::UnknownAgent {
            agent: name.to_owned(),
            known: self.agents.iter().map(|agent| agent.profile.name.clone()).collect(),
        })
    }

    /// The address of an agent by name: `agent://<node>/<name>`, where the node is another of the
    /// cluster or this one.
    ///
    /// # Errors
    /// Says that the text isn't of this form, that this node has no links, or no such agent.
    pub fn resolve(&self, target: &str) -> Result<Address<Request<Ask>>, RemoteError> {
        match &self.links {
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
        match &self.links {
            Some(links) => links.resolve_for(agent, key.as_bytes()),
            None => Err(RemoteError::Unsupported { target: format!("agent://*/{agent}") }),
        }
    }

    /// The links to other nodes, if there are any.
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
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
        &self.journal
    }

    /// A capability to the sandbox, if there is one: the owner's, which can be narrowed.
    pub fn sandbox(&self) -> Option<&Address<SandboxCommand>> {
        self.sandbox.as_ref()
    }

    /// All tools of the node, by name: what agents bring, what is shared, and what MCP servers have
    /// offered by now.
    ///
    /// # Errors
    /// Says why the tool router doesn't answer.
    pub async fn tools(&self) -> Result<Vec<ToolListing>, CallError> {
        list_tools(&self.tools, Header::new().within(self.kernel.clock(), TOOLS_ANSWER)).await
    }

    /// What serves MCP clients over streams, if the node is to serve them.
    #[cfg(feature = "mcp")]
    pub fn mcp_door(&self) -> Option<&McpDoor> {
        self.door.as_ref()
    }

    /// Where the gateway listens, if there is one.
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.gateway
    }

    /// The way to the audit log, or to none.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Names of the agents, the gateway's root agent first.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.agents.iter().map(|agent| agent.profile.name.as_str())
    }

    /// A capability to an agent: to ask it, and to read and cancel its tasks.
    pub fn address(&self, agent: &str) -> Option<&Address<AgentCommand>> {
        self.agent(agent).ok()
    }

    /// Waits until the root supervisor has given up or the node was stopped.
    pub async fn ended(&self) {
        self.kernel.ended().await;
    }

    /// Stops everything in reverse start order; each server gets its own time to drain.
    pub async fn stop(&self) {
        self.say_farewell();
        self.kernel.stop().await;
    }

    /// Like [`stop`](Self::stop), and ends what is left after `deadline`. Says whether nothing was.
    pub async fn stop_within(&self, deadline: Duration) -> bool {
        self.say_farewell();
        self.kernel.stop_within(deadline).await
    }

    /// Other nodes ask elsewhere from here on, while the gateway brings what it has begun to its end.
    fn say_farewell(&self) {
        if let Some(links) = &self.links {
            links.set_draining(true);
            links.drain();
        }
    }
}

/// What a node is made of.
///
/// ```
/// use neuroflow::{AnyAgent, Echo, Node};
/// let builder = Node::builder().agent(AnyAgent::new(Echo));
/// assert!(format!("{builder:?}").contains("echo"));
/// ```
#[derive(Debug)]
pub struct NodeBuilder {
    agents: Vec<AnyAgent>,
    proxies: Vec<ProxyAgent>,
    tools: Vec<AnyTool>,
    #[cfg(feature = "mcp")]
    mcp: Vec<McpSource>,
    #[cfg(feature = "mcp")]
    mcp_server: Option<McpServer>,
    sandbox: Option<SandboxServer>,
    gateway: Option<GatewayConfig>,
    access: Option<AccessConfig>,
    cluster: Option<LinksConfig>,
    leases: Option<LeasesConfig>,
    sole: Vec<SoleAgent>,
    observer: Arc<dyn Observer>,
    clock: Clock,
    first: Vec<First>,
    drain: Duration,
    audit: Option<AuditConfig>,
    push: Option<PushOptions>,
    journal: JournalConfig,
}

/// Makes one of the first children, once there is a kernel.
struct First(Box<dyn FnOnce(Census) -> Result<ChildSpec, NameError> + Send>);

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First").finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// An agent. The first one answers at the gateway's root.
    #[must_use]
    pub fn agent(mut self, agent: AnyAgent) -> Self {
        self.agents.push(agent);
        self
    }

    /// An agent of other nodes that this node offers as one of its own: its gateway serves it, and its tasks are
    /// in this node's journal. Other nodes aren't offered it. Needs [`cluster`](Self::cluster).
    #[must_use]
    pub fn proxy(mut self, agent: ProxyAgent) -> Self {
        self.proxies.push(agent);
        self
    }

    /// A tool that agents may share, if they name it.
    #[must_use]
    pub fn tool(mut self, tool: AnyTool) -> Self {
        self.tools.push(tool);
        self
    }

    /// A server of the Model Context Protocol, whose tools agents may use. One that runs in a cell
    /// needs [`sandbox`](Self::sandbox).
    #[cfg(feature = "mcp")]
    #[must_use]
    pub fn mcp(mut self, server: McpSource) -> Self {
        self.mcp.push(server);
        self
    }

    /// Serves MCP clients: over HTTP at the gateway's `/mcp`, and over streams through
    /// [`Node::mcp_door`].
    #[cfg(feature = "mcp")]
    #[must_use]
    pub fn mcp_server(mut self, server: McpServer) -> Self {
        self.mcp_server = Some(server);
        self
    }

    /// A sandbox whose cells have this profile, and the shared tools `exec` and `python` that run
    /// programs in them. A [`SandboxServer`] says more: what is kept warm, how many cells there may be.
    #[must_use]
    pub fn sandbox(mut self, sandbox: impl Into<SandboxServer>) -> Self {
        self.sandbox = Some(sandbox.into());
        self
    }

    /// A gateway at this address; port 0 lets the system choose.
    #[must_use]
    pub fn gateway(self, listen: SocketAddr) -> Self {
        self.gateway_with(GatewayConfig::new(listen))
    }

    /// A gateway; its agents are filled in.
    #[must_use]
    pub fn gateway_with(mut self, config: GatewayConfig) -> Self {
        self.gateway = Some(config);
        self
    }

    /// Who the gateway lets in, and what they may do; without it everybody everything. Ignored
    /// without a gateway.
    #[must_use]
    pub fn access(mut self, config: AccessConfig) -> Self {
        self.access = Some(config);
        self
    }

    /// Links to other nodes, which may ask this node's agents by their names, as this node's may ask
    /// theirs.
    #[must_use]
    pub fn cluster(mut self, config: LinksConfig) -> Self {
        self.cluster = Some(config);
        self
    }

    /// Who decides on which node an agent lives of which there's only one.
    #[must_use]
    pub fn leases(mut self, leases: LeasesConfig) -> Self {
        self.leases = Some(leases);
        self
    }

    /// An agent of which there's one instance in the cluster, or one per conversation. Each node that may
    /// have it says so; whichever is asked takes the request to where it lives. Needs
    /// [`cluster`](Self::cluster) and [`leases`](Self::leases). The gateway serves it if there's a
    /// [`proxy`](Self::proxy) for it.
    #[must_use]
    pub fn sole(mut self, agent: SoleAgent) -> Self {
        self.sole.push(agent);
        self
    }

    /// Who counts the gateway's requests and decides which are traced; ignored without a gateway.
    #[must_use]
    pub fn meter(
        mut self,
        meter: Arc<dyn Meter>,
        sample: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        if let Some(gateway) = &mut self.gateway {
            gateway.meter = meter;
            gateway.sample = sample;
        }
        self
    }

    /// Who watches.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A child that is started before all others and stopped after them, such as the metrics
    /// endpoint.
    #[must_use]
    pub fn first(self, spec: ChildSpec) -> Self {
        self.first_with(move |_census| Ok(spec))
    }

    /// Like [`first`](Self::first), for a child that is given a view of the node's tree.
    #[must_use]
    pub fn first_with(
        mut self,
        make: impl FnOnce(Census) -> Result<ChildSpec, NameError> + Send + 'static,
    ) -> Self {
        self.first.push(First(Box::new(make)));
        self
    }

    /// A log of every decision that matters: started before what decides, and stopped after it.
    #[must_use]
    pub fn audit(mut self, config: AuditConfig) -> Self {
        self.audit = Some(config);
        self
    }

    /// Sends push notifications to who asks the gateway for them; ignored without a gateway.
    #[must_use]
    pub fn push_notifications(mut self, options: PushOptions) -> Self {
        self.push = Some(options);
        self
    }

    /// Where tasks are kept; in memory unless it's set, where nothing survives the process.
    #[must_use]
    pub fn journal(mut self, config: JournalConfig) -> Self {
        self.journal = config;
        self
    }

    /// Time that the gateway gets, when the node stops, to bring what was begun to its end; ten
    /// seconds unless it's set.
    #[must_use]
    pub fn drain_within(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
        self
    }

    /// Starts the node on the current tokio runtime.
    ///
    /// # Errors
    /// Says which server didn't start, and why. What was started before it is stopped.
    pub async fn start(mut self) -> Result<Node, BootError> {
        let (log, audit) = match self.audit.take() {
            Some(config) => audit_child(config).map(|(spec, audit)| (Some(spec), audit))?,
            None => (None, Audit::off()),
        };
        let policy = RestartPolicy { intensity: ROOT_INTENSITY, ..RestartPolicy::default() };
        let kernel = Kernel::builder()
            .clock(self.clock.clone())
            .observer(Arc::clone(&self.observer))
            .policy(policy)
            .start()
            .await?;
        // On the heap, so that whoever starts a node doesn't carry all of this in a future.
        match Box::pin(self.populate(&kernel, log, &audit)).await {
            Ok(parts) => Ok(Node {
                kernel,
                agents: parts.agents,
                sandbox: parts.sandbox,
                tools: parts.tools,
                #[cfg(feature = "mcp")]
                door: parts.door,
                gateway: parts.gateway,
                links: parts.links,
                sole: parts.sole,
                journal: parts.journal,
                audit,
            }),
            Err(error) => {
                kernel.stop().await;
                Err(error)
            }
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one list of all servers, in the order of their start"
    )]
    async fn populate(
        self,
        kernel: &Kernel,
        log: Option<ChildSpec>,
        audit: &Audit,
    ) -> Result<Parts, BootError> {
        for First(make) in self.first {
            kernel.root().start(make(kernel.census())?).await?;
        }
        if let Some(log) = log {
            kernel.root().start(log.restart(Restart::Permanent)).await?;
        }
        let opened = OpenedJournal::open(self.journal, kernel.clock().clone()).await?;
        let served = opened.clone();
        let (spec, journal) =
            ChildSpec::new("journal", move || JournalServer::new(served.clone()))?;
        kernel.root().start(spec.restart(Restart::Permanent)).await?;
        let reading = journal.attenuate(Restriction::new().rights(READ_LOG))?;
        let journal = Journal::new(journal).near(&opened);
        let (shared, mut owned) = (self.tools, Vec::new());
        let every: Vec<AnyAgent> =
            self.agents.iter().chain(self.sole.iter().map(SoleAgent::agent)).cloned().collect();
        #[cfg(feature = "mcp")]
        let level = self.sandbox.as_ref().map(|server| server.profile().level());
        let sandbox = match self.sandbox {
            Some(server) => {
                let profile = server.profile().clone();
                let noted = audit.clone();
                let server = server.meter_around(|inner| Arc::new(AuditedCells::new(noted, inner)));
                let (spec, sandbox) = ChildSpec::new("sandbox", move || server.clone().actor())?;
                kernel.root().start(spec).await?;
                // The tools may run programs, with this profile and no other. Each agent that has one
                // has a capability of its own, so that the sandbox can be fair between them.
                let level = profile.level();
                let own = || {
                    let narrowed = Restriction::new().rights(EXEC).policy(profile.clone());
                    sandbox.attenuate(narrowed)
                };
                for agent in &every {
                    for name in agent.shared_tools() {
                        let tool = match name.as_str() {
                            ExecTool::NAME => AnyTool::new(ExecTool::new(own()?, level)),
                            PythonTool::NAME => AnyTool::new(PythonTool::new(own()?, level)),
                            _ => continue,
                        };
                        owned.push(ToolEntry { owner: Some(agent.profile().name), tool });
                    }
                }
                #[cfg(feature = "mcp")]
                if self.mcp_server.is_some_and(|server| server.exec) {
                    let owner = Some(McpPrograms::NAME.to_owned());
                    let tool = AnyTool::new(ExecTool::new(own()?, level));
                    owned.push(ToolEntry { owner, tool });
                }
                Some(sandbox)
            }
            None => None,
        };

        let shared = shared.into_iter().map(|tool| ToolEntry { owner: None, tool });
        let mut entries: Vec<ToolEntry> = shared.chain(owned).collect();
        for agent in &every {
            let owner = Some(agent.profile().name);
            let own = agent.tools().into_iter();
            entries.extend(own.map(|tool| ToolEntry { owner: owner.clone(), tool }));
        }
        let router = ToolServer::new(entries)?.audit(audit.clone());
        #[cfg(feature = "mcp")]
        let router = {
            let source = |server: McpSource| {
                server.audit(audit.clone()).into_source(sandbox.as_ref(), kernel.clock())
            };
            router.sources(self.mcp.into_iter().map(source).collect::<Result<_, _>>()?)
        };
        let (spec, tools) = ChildSpec::new("tools", move || router.clone())?;
        let all_tools = tools.clone();
        kernel.root().start(spec).await?;

        // Before the agents, which go on with tasks that somebody with rights has begun.
        let access = match self.access.filter(|_| self.gateway.is_some()) {
            Some(mut own) => {
                own.audit = audit.clone();
                let (spec, access) = access_child(own, kernel.clock())?;
                kernel.root().start(spec.restart(Restart::Permanent)).await?;
                Some(access)
            }
            None => None,
        };
        let (supervisor, spec) = Supervisor::spec("agents", policy_of_agents(), Vec::new())?;
        kernel.root().start(spec).await?;
        let mut agents = Vec::new();
        let made_with = |agent: &AnyAgent| -> Result<MakeServer, BootError> {
            let owner = agent.profile().name;
            let grant = ToolGrant { owner, shared: agent.shared_tools() };
            let tools = tools.attenuate(Restriction::new().rights(INVOKE).policy(grant))?;
            let (journal, access) = (journal.clone(), access.clone());
            Ok(Arc::new(move |agent, conversation| {
                let server = AgentServer::new(agent, Some(tools.clone()), journal.clone());
                server.access(access.clone()).conversation(conversation)
            }))
        };
        for agent in self.agents {
            let make = made_with(&agent)?;
            agents.push(serve(agent, make, &supervisor).await?);
        }
        let links = match self.cluster {
            Some(config) => {
                let observer = audit.is_on().then(|| Arc::new(AuditedMembers(audit.clone())));
                let config = observer.into_iter().fold(config, |it, one| it.observer(one));
                Some(join(config, &agents, kernel).await?)
            }
            None => None,
        };
        // Behind the links: proxies that stop have them still, to end what they have begun elsewhere.
        let proxies = proxy::found(self.proxies, links.as_ref(), kernel.clock()).await?;
        if !proxies.is_empty() {
            let (supervisor, spec) = Supervisor::spec("proxies", policy_of_agents(), Vec::new())?;
            kernel.root().start(spec).await?;
            for agent in proxies {
                proxy::distinct(&agent, &every)?;
                let make = made_with(&agent)?;
                agents.push(serve(agent, make, &supervisor).await?);
            }
        }

        #[cfg(feature = "mcp")]
        let door = match self.mcp_server {
            Some(server) => {
                let door = McpDoor::new(agents.clone(), kernel.clock().clone(), kernel.tracer());
                let exec = match level.filter(|_| server.exec) {
                    Some(level) => {
                        let agent = AnyAgent::new(McpPrograms);
                        let make = made_with(&agent)?;
                        let programs = serve(agent, make, &supervisor).await?.address;
                        Some(McpExec { programs, level })
                    }
                    None => None,
                };
                Some(door.exec(exec))
            }
            None => None,
        };
        let soles = self.sole.into_iter().map(|agent| {
            let make = made_with(agent.agent())?;
            Ok((agent, make))
        });
        let soles = soles.collect::<Result<Vec<_>, BootError>>()?;
        let sole = sole::start(soles, self.leases, links.as_ref(), &supervisor, kernel).await?;

        let gateway = match self.gateway {
            Some(mut config) => {
                config.agents.clone_from(&agents);
                config.door.audit = audit.clone();
                config.door.access = access;
                #[cfg(feature = "mcp")]
                if let (Some(door), Some(McpServer { http: true, .. })) = (&door, self.mcp_server) {
                    config.mounts.push(mcp::mount(door.clone()));
                }
                config.audit = audit.clone();
                if let Some(mut options) = self.push {
                    options.audit = audit.clone();
                    options.access = config.door.access.clone();
                    let clock = kernel.clock().clone();
                    let kept = || Arc::new(PushJournal::new(journal.clone(), clock)) as _;
                    options.store.get_or_insert_with(kept);
                    options.meter = Some(Arc::clone(&config.meter));
                    let (spec, push) = push_child(options, agents.clone())?;
                    kernel.root().start(spec.restart(Restart::Permanent)).await?;
                    config.push = Some(push);
                }
                let (spec, bound) = gateway_child(config, kernel.tracer())?;
                let spec = spec.stop_within(self.drain).restart(Restart::Permanent);
                kernel.root().start(spec).await?;
                *bound.borrow()
            }
            None => None,
        };
        Ok(Parts {
            agents,
            sandbox,
            tools: all_tools,
            #[cfg(feature = "mcp")]
            door,
            gateway,
            links,
            sole,
            journal: Journal::new(reading),
        })
    }
}

/// What a started node consists of.
struct Parts {
    agents: Vec<GatewayAgent>,
    sandbox: Option<Address<SandboxCommand>>,
    tools: Address<ToolsCommand>,
    #[cfg(feature = "mcp")]
    door: Option<McpDoor>,
    gateway: Option<SocketAddr>,
    links: Option<Links>,
    sole: Vec<(String, Address<Request<Ask>>)>,
    journal: Journal,
}

/// Starts an agent, and gives what may be had of it.
async fn serve(
    agent: AnyAgent,
    make: MakeServer,
    supervisor: &Supervisor,
) -> Result<GatewayAgent, BootError> {
    let profile = agent.profile();
    let server = move || make(agent.clone(), None);
    let (spec, address) = ChildSpec::new(&profile.name, server)?;
    supervisor.start(spec).await?;
    let rights = ASK.union(READ).union(CANCEL);
    let address = address.attenuate(Restriction::new().rights(rights))?;
    Ok(GatewayAgent { profile, address })
}

/// Starts the links and offers the agents over them: others may ask them, and follow and cancel the tasks that
/// they know the ids of.
async fn join(
    config: LinksConfig,
    agents: &[GatewayAgent],
    kernel: &Kernel,
) -> Result<Links, BootError> {
    let (spec, links) = config.child(kernel.clock().clone())?;
    for agent in agents {
        if let Some(asked) = agent.address.accepting(AgentCommand::Ask) {
            links.export(&agent.profile.name, asked, Allowed::Everyone)?;
            if let Some(ordered) = agent.address.accepting(AgentCommand::Order) {
                links.export_beside(&agent.profile.name, ordered)?;
            }
            let skills = agent.profile.skills.iter().map(|skill| skill.id.clone()).collect();
            links.describe(&agent.profile.name, skills);
        }
    }
    kernel.root().start(spec.restart(Restart::Permanent)).await?;
    Ok(links)
}

fn policy_of_agents() -> RestartPolicy {
    RestartPolicy { intensity: ROOT_INTENSITY, ..RestartPolicy::default() }
}
