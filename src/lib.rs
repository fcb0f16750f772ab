//! Runs AI agents the way Erlang runs processes: supervised, isolated, observable.

mod boot;
mod outcome;

#[cfg(feature = "mcp")]
pub use boot::McpServer;
pub use boot::{BootError, Node, NodeBuilder, ProxyAgent};
pub use outcome::{AskError, NotCompleted, TaskOutcome};

pub use neuroflow_actors::{
    Agent, AgentBuilder, AgentError, AgentProfile, Answer, AnyAgent, AnyTool, Artifact, Ask,
    Content, Echo, ExecTool, GatewayConfig, Incoming, InvokeError, LeasesConfig, Meter, Metered,
    Part, Python, PythonTool, Refused, Role, Shard, Shell, Skill, SoleAgent, TaskContext,
    TaskState, Tool, ToolContext, ToolError, ToolResult, Turn,
};
pub use neuroflow_kernel::{
    Budget, Clock, Header, Kernel, ManualClock, Name, NameError, Observer, Restriction, Rights,
    TraceContext,
};
pub use neuroflow_macros::tool;
pub use neuroflow_sandbox::{Level, Profile};

pub use neuroflow_actors as actors;
pub use neuroflow_kernel as kernel;
pub use neuroflow_sandbox as sandbox;
pub use neuroflow_transport as transport;

/// The examples of the README, compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the sandbox's guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/guides/sandbox.md")]
struct SandboxGuide;

/// The examples of the journal's guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/guides/durability.md")]
struct DurabilityGuide;

/// The examples of the gateway's guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/guides/gateway.md")]
struct GatewayGuide;

/// The examples of the guide to clusters.
#[cfg(doctest)]
#[doc = include_str!("../docs/guides/cluster.md")]
struct ClusterGuide;

/// The examples of the guide to the Model Context Protocol.
#[cfg(all(doctest, feature = "mcp"))]
#[doc = include_str!("../docs/guides/mcp.md")]
struct McpGuide;
