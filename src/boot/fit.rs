//! Whether what a node is given fits together: what would be without effect is refused, by its name, before anything
//! is started.

use std::collections::HashSet;

#[cfg(feature = "mcp")]
use neuroflow_actors::McpPrograms;
use neuroflow_actors::{AnyAgent, ExecTool, PythonTool, SoleAgent};

use super::{BootError, NodeBuilder};

/// Refuses what nobody could ever notice.
pub(super) fn check(node: &NodeBuilder) -> Result<(), BootError> {
    let agents: Vec<&AnyAgent> =
        node.agents.iter().chain(node.sole.iter().map(SoleAgent::agent)).collect();
    settings(node)?;
    tools(node, &agents)?;
    #[cfg(feature = "mcp")]
    servers(node, &agents)?;
    Ok(())
}

/// Settings of what isn't there.
fn settings(node: &NodeBuilder) -> Result<(), BootError> {
    let of_gateway = [
        ("access", node.access.is_some()),
        ("push_notifications", node.push.is_some()),
        ("meter", node.metering.is_some()),
        #[cfg(feature = "mcp")]
        ("mcp_server.http", node.mcp_server.is_some_and(|server| server.http)),
    ];
    let idle = of_gateway.into_iter().find(|(_, is_set)| *is_set);
    if let (Some((setting, _)), None) = (idle, &node.gateway) {
        return Err(BootError::Idle { setting, needs: "gateway" });
    }
    #[cfg(feature = "mcp")]
    if node.sandbox.is_none() && node.mcp_server.is_some_and(|server| server.exec) {
        return Err(BootError::Idle { setting: "mcp_server.exec", needs: "sandbox" });
    }
    Ok(())
}

/// Tools that nobody can call, because another has their name; and names of tools that there aren't.
fn tools(node: &NodeBuilder, agents: &[&AnyAgent]) -> Result<(), BootError> {
    let programs: &[&str] =
        if node.sandbox.is_some() { &[ExecTool::NAME, PythonTool::NAME] } else { &[] };
    let mut shared: HashSet<String> = programs.iter().map(ToString::to_string).collect();
    for tool in &node.tools {
        if !shared.insert(tool.name().to_owned()) {
            return Err(BootError::SameTool { agent: None, tool: tool.name().to_owned() });
        }
    }
    for agent in agents {
        let (name, wishes) = (agent.profile().name, agent.shared_tools());
        if let Some(tool) = wishes.iter().find(|tool| !shared.contains(*tool)) {
            return Err(BootError::NoTool { agent: name, tool: tool.clone() });
        }
        let mut own: HashSet<String> = wishes.into_iter().collect();
        for tool in agent.tools() {
            if !own.insert(tool.name().to_owned()) {
                let tool = tool.name().to_owned();
                return Err(BootError::SameTool { agent: Some(name), tool });
            }
        }
    }
    Ok(())
}

/// Agents that there aren't, of servers whose tools are for them.
#[cfg(feature = "mcp")]
fn servers(node: &NodeBuilder, agents: &[&AnyAgent]) -> Result<(), BootError> {
    let mut names: HashSet<String> = agents.iter().map(|agent| agent.profile().name).collect();
    names.extend(node.proxies.iter().map(|proxy| proxy.name().to_owned()));
    if node.mcp_server.is_some_and(|server| server.exec) {
        names.insert(McpPrograms::NAME.to_owned());
    }
    for server in &node.mcp {
        let unknown = server.named_agents().iter().find(|agent| !names.contains(*agent));
        if let Some(agent) = unknown {
            let (server, agent) = (server.name().to_owned(), agent.clone());
            return Err(BootError::NoAgent { server, agent });
        }
    }
    Ok(())
}
