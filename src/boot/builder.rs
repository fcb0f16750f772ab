//! The settings of a node that isn't there yet.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "mcp")]
use neuroflow_actors::McpSource;
use neuroflow_actors::{
    AccessConfig, AnyAgent, AnyTool, AuditConfig, GatewayConfig, JournalConfig, JournalPlace,
    LeasesConfig, Meter, PushOptions, SoleAgent,
};
use neuroflow_kernel::{Census, ChildSpec, Clock, NameError, Observer, Unobserved};
use neuroflow_sandbox::SandboxServer;
use neuroflow_transport::LinksConfig;

#[cfg(feature = "mcp")]
use super::McpServer;
use super::ProxyAgent;

/// Time that requests and tasks get to come to their end, unless the builder says otherwise.
const DRAIN: Duration = Duration::from_secs(10);

/// What a node is made of.
///
/// ```
/// use neuroflow::{AnyAgent, Echo, Node};
/// let builder = Node::builder().agent(AnyAgent::new(Echo));
/// assert!(format!("{builder:?}").contains("echo"));
/// ```
#[derive(Debug)]
pub struct NodeBuilder {
    pub(super) agents: Vec<AnyAgent>,
    pub(super) proxies: Vec<ProxyAgent>,
    pub(super) tools: Vec<AnyTool>,
    #[cfg(feature = "mcp")]
    pub(super) mcp: Vec<McpSource>,
    #[cfg(feature = "mcp")]
    pub(super) mcp_server: Option<McpServer>,
    pub(super) sandbox: Option<SandboxServer>,
    pub(super) gateway: Option<GatewayConfig>,
    metering: Option<Metering>,
    pub(super) access: Option<AccessConfig>,
    pub(super) cluster: Option<LinksConfig>,
    pub(super) leases: Option<LeasesConfig>,
    pub(super) sole: Vec<SoleAgent>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) clock: Clock,
    pub(super) first: Vec<First>,
    pub(super) drain: Duration,
    pub(super) audit: Option<AuditConfig>,
    pub(super) push: Option<PushOptions>,
    pub(super) journal: JournalConfig,
}

/// Makes one of the first children, once there is a kernel.
pub(super) struct First(pub(super) Box<dyn FnOnce(Census) -> Result<ChildSpec, NameError> + Send>);

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First").finish_non_exhaustive()
    }
}

/// Who counts a gateway's requests, and decides which are traced.
struct Metering {
    meter: Arc<dyn Meter>,
    sample: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Metering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metering").field(&self.meter).finish()
    }
}

impl NodeBuilder {
    pub(super) fn new() -> Self {
        Self {
            agents: Vec::new(),
            proxies: Vec::new(),
            tools: Vec::new(),
            #[cfg(feature = "mcp")]
            mcp: Vec::new(),
            #[cfg(feature = "mcp")]
            mcp_server: None,
            sandbox: None,
            gateway: None,
            metering: None,
            access: None,
            cluster: None,
            leases: None,
            sole: Vec::new(),
            observer: Arc::new(Unobserved),
            clock: Clock::system(),
            first: Vec::new(),
            drain: DRAIN,
            audit: None,
            push: None,
            journal: JournalConfig::new(JournalPlace::Memory),
        }
    }

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
    /// [`Node::mcp_door`](super::Node::mcp_door).
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

    /// Who counts the gateway's requests and decides which are traced, in place of what the gateway's own
    /// settings say; ignored without a gateway.
    #[must_use]
    pub fn meter(
        mut self,
        meter: Arc<dyn Meter>,
        sample: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        self.metering = Some(Metering { meter, sample });
        self
    }

    /// Gives the gateway who counts, which may have been named before it.
    pub(super) fn metered(mut self) -> Self {
        if let (Some(gateway), Some(metering)) = (&mut self.gateway, self.metering.take()) {
            gateway.meter = metering.meter;
            gateway.sample = metering.sample;
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

    /// Time that requests and tasks get, when the node stops, to come to their end; ten seconds unless it's set. First
    /// the gateway ends its requests; tasks that nobody waits for have what that leaves, and are killed then. The
    /// time in which the gateway still accepts
    /// ([`drain_delay`](neuroflow_actors::DoorConfig::drain_delay)) comes before it.
    #[must_use]
    pub fn drain_within(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
        self
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_actors::Metered;

    use super::*;

    #[derive(Debug)]
    struct Counts;

    impl Meter for Counts {
        fn request(&self, _: &Metered) {}
    }

    #[test]
    fn who_counts_may_be_named_before_the_gateway_or_after_it() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        for first in [true, false] {
            let meter: Arc<dyn Meter> = Arc::new(Counts);
            let named = |builder: NodeBuilder| builder.meter(Arc::clone(&meter), Arc::new(|| true));
            let builder = if first {
                named(NodeBuilder::new()).gateway(listen)
            } else {
                named(NodeBuilder::new().gateway(listen))
            };
            let gateway = builder.metered().gateway.expect("a gateway");
            assert!(Arc::ptr_eq(&gateway.meter, &meter) && (gateway.sample)(), "first: {first}");
        }
    }
}
