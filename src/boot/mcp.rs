//! What of a node MCP clients are served, and where.

use neuroflow_actors::{McpDoor, Mount, mcp_routes};

/// What of the node MCP clients are served. Nothing more than its agents unless it's said.
///
/// ```
/// let server = neuroflow::McpServer { http: true, exec: false };
/// assert_ne!(server, neuroflow::McpServer { exec: true, ..server });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// At the gateway's `/mcp` too. Needs [`gateway`](super::NodeBuilder::gateway).
    pub http: bool,
    /// `exec` in a cell as a tool. Needs [`sandbox`](super::NodeBuilder::sandbox).
    pub exec: bool,
}

pub(super) fn mount(door: McpDoor) -> Mount {
    Mount::new(move |_address| {
        let door = door.clone();
        mcp_routes(move || door.handler())
    })
    .describe("/mcp", "Speaks the Model Context Protocol, over streamable HTTP.")
}
