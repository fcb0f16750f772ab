//! Starts a node: the one file that names every server, the order of their start, and what each
//! is granted.
//!
//! The root supervisor's children, in start order: the host's own first ones (the binary's are
//! `telemetry` and `control`), `audit`, `journal`, `sandbox`, `tools`, `access`, `agents` (a supervisor
//! with one child per agent, each of which comes back with it), `cluster`, `proxies` (the same for agents of
//! other nodes that are offered; they need the links when they stop), `push`, `drain` (waits for tasks when the node
//! stops), `gateway`. They stop in reverse.

mod builder;
mod drain;
mod error;
mod fit;
#[cfg(feature = "mcp")]
mod mcp;
mod members;
mod node;
mod proxy;
mod sole;
mod way;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_actors::{
    ASK, Access, AccessConfig, AgentCommand, AgentServer, AnyAgent, AnyTool, Audit, AuditedCells,
    CANCEL, Condition, ExecTool, GatewayAgent, GatewayConfig, INVOKE, Journal, JournalConfig,
    JournalServer, MakeServer, OpenedJournal, PushCommand, PushJournal, PushOptions, PythonTool,
    READ, READ_LOG, SoleAgent, ToolEntry, ToolGrant, ToolServer, ToolsCommand, Trials,
    access_child, audit_child, gateway_child, push_child,
};
#[cfg(feature = "mcp")]
use neuroflow_actors::{McpDoor, McpExec, McpPrograms, McpSource};
use neuroflow_kernel::{
    Address, ChildSpec, Intensity, Kernel, Restart, RestartPolicy, Restriction, Supervisor,
};
#[cfg(feature = "mcp")]
use neuroflow_sandbox::Level;
use neuroflow_sandbox::{EXEC, SandboxCommand, SandboxServer};
use neuroflow_transport::{Allowed, Links, LinksConfig};

use self::builder::First;
pub use self::builder::NodeBuilder;
use self::drain::{Share, Working};
pub use self::error::BootError;
#[cfg(feature = "mcp")]
pub use self::mcp::McpServer;
use self::members::AuditedMembers;
pub use self::node::Node;
pub use self::proxy::ProxyAgent;
use self::sole::Sole;

/// A restart every ten seconds on average is a fault to live with; more is one to be told of.
const ROOT_INTENSITY: Intensity = Intensity { restarts: 6, within: Duration::from_mins(1) };

impl NodeBuilder {
    /// Starts the node on the current tokio runtime.
    ///
    /// # Errors
    /// Says which server didn't start, and why. What was started before it is stopped.
    pub async fn start(mut self) -> Result<Node, BootError> {
        fit::check(&self)?;
        self = self.metered();
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
            Ok(parts) => Ok(Node { kernel, audit, parts }),
            Err(error) => {
                kernel.stop().await;
                Err(error)
            }
        }
    }

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
        let (journal, reading, conditions) = keep(self.journal, audit, kernel).await?;
        let every: Vec<AnyAgent> =
            self.agents.iter().chain(self.sole.iter().map(SoleAgent::agent)).cloned().collect();
        let wishes = every.iter().map(|agent| (agent.profile().name, agent.shared_tools()));
        #[cfg(feature = "mcp")]
        let wishes = {
            let serves = self.mcp_server.is_some_and(|server| server.exec);
            let exec = || (McpPrograms::NAME.to_owned(), vec![ExecTool::NAME.to_owned()]);
            wishes.chain(serves.then(exec))
        };
        #[cfg(feature = "mcp")]
        let level = self.sandbox.as_ref().map(|server| server.profile().level());
        let (sandbox, programs) = cells(self.sandbox, wishes, audit, kernel).await?;

        let entries = entries(self.tools, programs, &every);
        let router = ToolServer::new(entries)?.audit(audit.clone());
        #[cfg(feature = "mcp")]
        let router = {
            let source = |server: McpSource| {
                server.audit(audit.clone()).into_source(sandbox.as_ref(), kernel.clock())
            };
            router.sources(self.mcp.into_iter().map(source).collect::<Result<_, _>>()?)
        };
        let (spec, tools) = ChildSpec::new("tools", move || router.clone())?;
        kernel.root().start(spec).await?;

        // Before the agents, which go on with tasks that somebody with rights has begun.
        let own = self.gateway.as_ref().and_then(|gateway| gateway.door.access.clone());
        let access = match (self.access.filter(|_| self.gateway.is_some()), own) {
            (Some(_), Some(_)) => return Err(BootError::Twice { setting: "door.access" }),
            (Some(config), None) => Some(admission(config, audit, kernel).await?),
            (None, own) => own,
        };
        let (trials, journaled) = (Trials::gathering(), journal.clone());
        let given = Given { tools: tools.clone(), journal: journaled, access, trials };
        let supervisor = supervise("agents", kernel).await?;
        let mut agents = Vec::new();
        for agent in self.agents {
            let make = given.to(&agent)?;
            agents.push(serve(agent, make, &supervisor).await?);
        }
        let links = match self.cluster {
            Some(config) => Some(join(config, &agents, audit, kernel).await?),
            None => None,
        };
        // Behind the links: proxies that stop have them still, to end what they have begun elsewhere.
        let proxies = proxy::found(self.proxies, links.as_ref(), kernel.clock()).await?;
        if !proxies.is_empty() {
            let supervisor = supervise("proxies", kernel).await?;
            for agent in proxies {
                proxy::distinct(&agent, &every)?;
                let make = given.to(&agent)?;
                agents.push(serve(agent, make, &supervisor).await?);
            }
        }

        #[cfg(feature = "mcp")]
        let (door, programs) = match self.mcp_server {
            Some(server) => door(server, level, &agents, &given, &supervisor, kernel).await?,
            None => (None, None),
        };
        #[cfg(not(feature = "mcp"))]
        let programs = None;
        let soles = given.to_each(self.sole)?;
        let sole = sole::start(soles, self.leases, links.as_ref(), &supervisor, kernel).await?;
        given.trials.open();

        let working = Working::of(&agents, programs, &sole);
        let delay = self.gateway.as_ref().map_or(Duration::ZERO, |it| it.door.drain_delay);
        let share = Share::new(self.drain, delay);
        let gateway = match self.gateway {
            Some(config) => {
                let mut config = furnished(config, &agents, &conditions, audit)?;
                config.door.access = given.access;
                #[cfg(feature = "mcp")]
                if let (Some(door), Some(McpServer { http: true, .. })) = (&door, self.mcp_server) {
                    config.mounts.push(mcp::mount(door.clone()));
                }
                Some(notifying(config, self.push, journal, kernel).await?)
            }
            None => None,
        };
        let gateway = open(gateway, working, &share, kernel).await?;
        Ok(Parts {
            agents,
            sandbox,
            tools,
            #[cfg(feature = "mcp")]
            door,
            gateway,
            links,
            sole,
            share,
            journal: reading,
            conditions,
        })
    }
}

/// A gateway with its agents, the audit log, if there is one, and what its requests can't do without.
fn furnished(
    mut gateway: GatewayConfig,
    agents: &[GatewayAgent],
    conditions: &[Condition],
    audit: &Audit,
) -> Result<GatewayConfig, BootError> {
    if !gateway.agents.is_empty() {
        return Err(BootError::Twice { setting: "agents" });
    }
    gateway.agents = agents.to_vec();
    let logs = [(&mut gateway.audit, "audit"), (&mut gateway.door.audit, "door.audit")];
    for (own, setting) in logs.into_iter().filter(|_| audit.is_on()) {
        if own.is_on() {
            return Err(BootError::Twice { setting });
        }
        own.clone_from(audit);
    }
    let is_needed = |it: &&Condition| it.server() != "audit" || audit.is_required();
    gateway.needs.extend(conditions.iter().filter(is_needed).cloned());
    Ok(gateway)
}

/// Starts the journal. Gives one that can be written to, one that can only be read, and how it and the
/// audit log do.
async fn keep(
    config: JournalConfig,
    audit: &Audit,
    kernel: &Kernel,
) -> Result<(Journal, Journal, Vec<Condition>), BootError> {
    let opened = OpenedJournal::open(config, kernel.clock().clone()).await?;
    let served = opened.clone();
    let (spec, journal) = ChildSpec::new("journal", move || JournalServer::new(served.clone()))?;
    kernel.root().start(spec.restart(Restart::Permanent)).await?;
    let reading = journal.attenuate(Restriction::new().rights(READ_LOG))?;
    let conditions = [opened.condition()].into_iter().chain(audit.condition().cloned()).collect();
    Ok((Journal::new(journal).near(&opened), Journal::new(reading), conditions))
}

/// Starts the sandbox, if there is one, and makes the tools that run programs in its cells, with its profile and no other.
/// `wishes` are the names of shared tools by who names them.
async fn cells(
    server: Option<SandboxServer>,
    wishes: impl Iterator<Item = (String, Vec<String>)>,
    audit: &Audit,
    kernel: &Kernel,
) -> Result<(Option<Address<SandboxCommand>>, Vec<ToolEntry>), BootError> {
    let Some(server) = server else { return Ok((None, Vec::new())) };
    let (profile, noted) = (server.profile().clone(), audit.clone());
    let server = server.meter_around(|inner| Arc::new(AuditedCells::new(noted, inner)));
    let (spec, sandbox) = ChildSpec::new("sandbox", move || server.clone().actor())?;
    kernel.root().start(spec).await?;
    let level = profile.level();
    // Each has a capability of its own, so that the sandbox can be fair between them.
    let own = || sandbox.attenuate(Restriction::new().rights(EXEC).policy(profile.clone()));
    let mut tools = Vec::new();
    for (owner, names) in wishes {
        for name in names {
            let tool = match name.as_str() {
                ExecTool::NAME => AnyTool::new(ExecTool::new(own()?, level)),
                PythonTool::NAME => AnyTool::new(PythonTool::new(own()?, level)),
                _ => continue,
            };
            tools.push(ToolEntry { owner: Some(owner.clone()), tool });
        }
    }
    Ok((Some(sandbox), tools))
}

/// The tools that agents share, those that run programs, and those of single agents.
fn entries(shared: Vec<AnyTool>, programs: Vec<ToolEntry>, agents: &[AnyAgent]) -> Vec<ToolEntry> {
    let shared = shared.into_iter().map(|tool| ToolEntry { owner: None, tool });
    let mut entries: Vec<ToolEntry> = shared.chain(programs).collect();
    for agent in agents {
        let owner = Some(agent.profile().name);
        let own = agent.tools().into_iter();
        entries.extend(own.map(|tool| ToolEntry { owner: owner.clone(), tool }));
    }
    entries
}

/// Starts what knows who may do what.
async fn admission(
    mut config: AccessConfig,
    audit: &Audit,
    kernel: &Kernel,
) -> Result<Access, BootError> {
    config.audit = audit.clone();
    let (spec, access) = access_child(config, kernel.clock())?;
    kernel.root().start(spec.restart(Restart::Permanent)).await?;
    Ok(access)
}

/// What serves MCP clients. If there are cells of some level for programs that they run, it starts the agent whose
/// tasks those are, and gives that too.
#[cfg(feature = "mcp")]
async fn door(
    server: McpServer,
    level: Option<Level>,
    agents: &[GatewayAgent],
    given: &Given,
    supervisor: &Supervisor,
    kernel: &Kernel,
) -> Result<(Option<McpDoor>, Option<Address<AgentCommand>>), BootError> {
    let door = McpDoor::new(agents.to_vec(), kernel.clock().clone(), kernel.tracer());
    let Some(level) = level.filter(|_| server.exec) else { return Ok((Some(door), None)) };
    let agent = AnyAgent::new(McpPrograms);
    let make = given.to(&agent)?;
    let programs = serve(agent, make, supervisor).await?.address;
    let door = door.exec(Some(McpExec { programs: programs.clone(), level }));
    Ok((Some(door), Some(programs)))
}

/// What agents are given.
struct Given {
    tools: Address<ToolsCommand>,
    journal: Journal,
    access: Option<Access>,
    trials: Trials,
}

/// What makes the server of an agent.
type Serve = Arc<dyn Fn(AnyAgent) -> AgentServer + Send + Sync>;

impl Given {
    /// What makes the server of this agent, with a capability to the tools that it may use.
    fn to(&self, agent: &AnyAgent) -> Result<Serve, BootError> {
        let owner = agent.profile().name;
        let grant = ToolGrant { owner, shared: agent.shared_tools() };
        let tools = self.tools.attenuate(Restriction::new().rights(INVOKE).policy(grant))?;
        let (journal, access) = (self.journal.clone(), self.access.clone());
        let trials = self.trials.clone();
        Ok(Arc::new(move |agent| {
            let server = AgentServer::new(agent, Some(tools.clone()), journal.clone());
            server.access(access.clone()).trials(trials.clone())
        }))
    }

    /// The same for agents that live once.
    fn to_each(&self, agents: Vec<SoleAgent>) -> Result<Vec<(SoleAgent, MakeServer)>, BootError> {
        let made = agents.into_iter().map(|agent| {
            let serve = self.to(agent.agent())?;
            let make: MakeServer = Arc::new(move |agent, shard| {
                serve(agent).conversation(shard.conversation.clone(), shard.caller.clone())
            });
            Ok((agent, make))
        });
        made.collect()
    }
}

/// Starts a supervisor of agents, which adopts them: they come back with it, and one that fails again and again
/// ends the node in the end.
///
/// One for all of them. What an agent says and does fails in a task's actor, below its own; that runs nothing but
/// this node's code, on the journal that all agents share.
async fn supervise(name: &str, kernel: &Kernel) -> Result<Supervisor, BootError> {
    let policy = RestartPolicy { intensity: ROOT_INTENSITY, ..RestartPolicy::default() };
    let (supervisor, spec) = Supervisor::spec(name, policy, Vec::new())?;
    kernel.root().start(spec).await?;
    Ok(supervisor)
}

/// Starts what tells webhooks of the tasks of a gateway's agents.
async fn push(
    mut options: PushOptions,
    gateway: &GatewayConfig,
    journal: Journal,
    kernel: &Kernel,
) -> Result<Address<PushCommand>, BootError> {
    options.audit = gateway.audit.clone();
    options.access = gateway.door.access.clone();
    let clock = kernel.clock().clone();
    options.store.get_or_insert_with(|| Arc::new(PushJournal::new(journal, clock)));
    options.meter = Some(Arc::clone(&gateway.meter));
    let (spec, push) = push_child(options, gateway.agents.clone())?;
    kernel.root().start(spec.restart(Restart::Permanent)).await?;
    Ok(push)
}

/// A gateway with what tells webhooks, which is started, if there is to be that.
async fn notifying(
    mut config: GatewayConfig,
    options: Option<PushOptions>,
    journal: Journal,
    kernel: &Kernel,
) -> Result<GatewayConfig, BootError> {
    if let Some(options) = options {
        if config.push.is_some() {
            return Err(BootError::Twice { setting: "push" });
        }
        config.push = Some(push(options, &config, journal, kernel).await?);
    }
    Ok(config)
}

/// Starts a gateway, if there is to be one, and before it what waits for tasks that it has begun. Gives where it
/// listens.
async fn open(
    config: Option<GatewayConfig>,
    working: Working,
    share: &Share,
    kernel: &Kernel,
) -> Result<Option<SocketAddr>, BootError> {
    let spec = drain::child(working, share.clone())?;
    kernel.root().start(spec.restart(Restart::Permanent)).await?;
    let Some(config) = config else { return Ok(None) };
    let (spec, bound) = gateway_child(config, kernel.tracer())?;
    let spec = spec.stop_within(share.of_gateway()).restart(Restart::Permanent);
    kernel.root().start(spec).await?;
    Ok(*bound.borrow())
}

/// What a started node consists of, beside its kernel.
#[derive(Debug)]
struct Parts {
    agents: Vec<GatewayAgent>,
    sandbox: Option<Address<SandboxCommand>>,
    tools: Address<ToolsCommand>,
    #[cfg(feature = "mcp")]
    door: Option<McpDoor>,
    gateway: Option<SocketAddr>,
    links: Option<Links>,
    sole: Vec<Sole>,
    share: Share,
    journal: Journal,
    conditions: Vec<Condition>,
}

/// Starts an agent, and gives what may be had of it.
async fn serve(
    agent: AnyAgent,
    make: Serve,
    supervisor: &Supervisor,
) -> Result<GatewayAgent, BootError> {
    let profile = agent.profile();
    let server = move || make(agent.clone());
    let (spec, address) = ChildSpec::new(&profile.name, server)?;
    supervisor.adopt(spec).await?;
    let rights = ASK.union(READ).union(CANCEL);
    let address = address.attenuate(Restriction::new().rights(rights))?;
    Ok(GatewayAgent::new(profile, address))
}

/// Starts the links and offers the agents over them: others may ask them, and follow and cancel the tasks that
/// they know the ids of.
async fn join(
    config: LinksConfig,
    agents: &[GatewayAgent],
    audit: &Audit,
    kernel: &Kernel,
) -> Result<Links, BootError> {
    let observer = audit.is_on().then(|| Arc::new(AuditedMembers(audit.clone())));
    let config = observer.into_iter().fold(config, |it, one| it.observer(one));
    let (spec, links) = config.child(kernel.clock().clone())?;
    for agent in agents {
        if let Some(asked) = agent.address.accepting(AgentCommand::Ask) {
            links.export(&agent.profile.name, asked, Allowed::Everyone)?;
            if let Some(bounded) = agent.address.accepting(AgentCommand::BoundedAsk) {
                links.export_beside(&agent.profile.name, bounded)?;
            }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use neuroflow_actors::{Echo, JournalPlace};
    use neuroflow_kernel::{Actor, Context, Generation, Header, ManualClock, Message, Refusal};

    use super::*;

    struct End;

    impl Message for End {
        fn name(&self) -> &'static str {
            "end"
        }
    }

    /// Ends whenever it's told to, which isn't what a permanent child does.
    struct Weak;

    impl Actor for Weak {
        type Message = End;
        type Error = Infallible;
        const KIND: &'static str = "weak";

        async fn handle(&mut self, _: End, context: &mut Context<End>) -> Result<(), Infallible> {
            context.stop();
            Ok(())
        }
    }

    #[tokio::test]
    async fn agents_come_back_when_their_supervisor_has_given_up() {
        let time = ManualClock::new();
        let kernel = Kernel::builder().clock(time.clock()).start().await.expect("a kernel");
        let config = JournalConfig::new(JournalPlace::Memory);
        let (journal, ..) = keep(config, &Audit::off(), &kernel).await.expect("a journal");
        let router = ToolServer::new(Vec::new()).expect("no tools");
        let (_, tools) = ChildSpec::new("tools", move || router.clone()).expect("a name");
        let given = Given { tools, journal, access: None, trials: Trials::default() };
        let agents = supervise("agents", &kernel).await.expect("a supervisor");
        let echo = AnyAgent::new(Echo);
        let make = given.to(&echo).expect("a grant");
        let echo = serve(echo, make, &agents).await.expect("an agent").address;
        let (spec, weak) = ChildSpec::new("weak", || Weak).expect("a name");
        agents.start(spec).await.expect("a child");

        // One after another, until it's too many.
        let ended = |weak: &Address<End>| {
            weak.try_tell(Header::new(), End).is_err_and(|it| it.reason == Refusal::Stopped)
        };
        let mut looks = 0..100_000;
        while looks.next().is_some() && !ended(&weak) {
            time.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
        let life = || echo.generation().map(Generation::get);
        while looks.next().is_some() && life() != Some(2) {
            time.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
        assert_eq!(life(), Some(2));
        kernel.stop().await;
    }
}
