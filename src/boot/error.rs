//! Why a node doesn't start.

#[cfg(feature = "mcp")]
use neuroflow_actors::McpSetupError;
use neuroflow_actors::{LeaseError, OpenError, SchemaError};
use neuroflow_kernel::{AttenuateError, NameError, RemoteError, StartError};
use neuroflow_transport::{ExportError, LinksError};

/// Why a node doesn't start.
///
/// ```
/// use neuroflow::{BootError, NameError};
/// assert!(matches!(BootError::from(NameError::Empty), BootError::Name(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The journal doesn't open.
    #[error("the journal can't be opened")]
    Journal(#[from] OpenError),
    /// A server or agent has a name that isn't one.
    #[error("an agent's name isn't valid")]
    Name(#[from] NameError),
    /// A server or agent didn't start.
    #[error("the node didn't start")]
    Start(#[from] StartError),
    /// A tool's schema isn't valid.
    #[error("a tool can't be offered")]
    Tool(#[from] SchemaError),
    /// An MCP server can't be used as it's described.
    #[cfg(feature = "mcp")]
    #[error("an MCP server can't be used")]
    Mcp(#[from] McpSetupError),
    /// The gateway's configuration has something that the node gives it.
    #[error("the gateway's {setting:?} is given twice: by the node, and in its own configuration")]
    Twice {
        /// The field of the configuration.
        setting: &'static str,
    },
    /// Something is set that does nothing without something else.
    #[error("{setting:?} does nothing without {needs:?}: give the node both, or neither")]
    Idle {
        /// What is set.
        setting: &'static str,
        /// What isn't.
        needs: &'static str,
    },
    /// Two tools of one name: one of them could never be called. A node with a sandbox shares `exec` and `python`.
    #[error("there are two tools {tool:?} {}; give one another name", whose(agent.as_deref()))]
    SameTool {
        /// The agent that has both, as its own or as shared ones that it names; none if both are shared.
        agent: Option<String>,
        /// Their name.
        tool: String,
    },
    /// An agent names a shared tool that there isn't.
    #[error(
        "agent {agent:?} names the shared tool {tool:?}, and there is none: give the node that \
         `tool`, or a `sandbox` for \"exec\" and \"python\""
    )]
    NoTool {
        /// The agent.
        agent: String,
        /// The tool.
        tool: String,
    },
    /// The tools of an MCP server are for an agent that there isn't.
    #[error("the tools of the MCP server {server:?} are for an agent {agent:?}, and there is none")]
    NoAgent {
        /// The server.
        server: String,
        /// The agent.
        agent: String,
    },
    /// A capability can't be narrowed.
    #[error("a capability can't be granted")]
    Grant(#[from] AttenuateError),
    /// There can't be links to other nodes.
    #[error("there can't be links to other nodes")]
    Links(#[from] LinksError),
    /// There's to be one of an agent in the cluster, and no cluster.
    #[error(
        "there's to be one {agent:?} in the cluster, and this node has no links: give it `cluster`"
    )]
    Alone {
        /// The agent.
        agent: String,
    },
    /// An agent of other nodes is to be offered, and there are none.
    #[error("{agent:?} is an agent of other nodes, and this node has no links: give it `cluster`")]
    Unlinked {
        /// The agent.
        agent: String,
    },
    /// What an agent of other nodes is to be found by is no address.
    #[error("an agent of other nodes can't be found by what is given as its address")]
    Target(#[from] RemoteError),
    /// Nobody decides where the one instance of an agent lives.
    #[error("an agent of which there's only one can't be served")]
    Leases(#[from] LeaseError),
    /// An agent can't be offered to other nodes.
    #[error("an agent can't be offered to other nodes")]
    Export(#[from] ExportError),
}

/// Who has two tools of one name.
fn whose(agent: Option<&str>) -> String {
    match agent {
        Some(agent) => format!("of agent {agent:?}"),
        None => "that agents share".to_owned(),
    }
}
