//! What of a node MCP clients are served, and where.

use neuroflow_actors::{INVOKE, McpDoor, McpExec, Mount, ToolGrant, ToolsCommand, mcp_routes};
use neuroflow_kernel::{Address, AttenuateError, Restriction};
use neuroflow_sandbox::Level;

/// What of the node MCP clients are served. Nothing more than its agents unless it's said.
///
/// ```
/// let server = neuroflow::McpServer { http: true, exec: false };
/// assert_ne!(server, neuroflow::McpServer { exec: true, ..server });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// At the gateway's `/mcp` too.
    pub http: bool,
    /// `exec` in a cell as a tool, if the node has a sandbox.
    pub exec: bool,
}

/// Who owns the MCP clients' `exec` in the router. No agent has such a name.
pub(super) const MCP_CLIENTS: &str = "mcp:clients";

pub(super) fn exec(
    server: McpServer,
    level: Option<Level>,
    tools: &Address<ToolsCommand>,
) -> Result<Option<McpExec>, AttenuateError> {
    let Some(level) = level.filter(|_| server.exec) else { return Ok(None) };
    let grant = ToolGrant { owner: MCP_CLIENTS.to_owned(), shared: Vec::new() };
    let tools = tools.attenuate(Restriction::new().rights(INVOKE).policy(grant))?;
    Ok(Some(McpExec { tools, level }))
}

pub(super) fn mount(door: McpDoor) -> Mount {
    Mount::new(move |_address| {
        let door = door.clone();
        mcp_routes(move || door.handler())
    })
    .describe("/mcp", "Speaks the Model Context Protocol, over streamable HTTP.")
}
