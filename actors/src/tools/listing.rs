//! What tools there are, as a list for operators, models and other protocols.

use neuroflow_kernel::{Address, CallError, Header};

use super::ToolsCommand;

/// A tool in a list.
///
/// ```
/// fn line(tool: &neuroflow_actors::ToolListing) -> String {
///     format!("{} ({}): {}", tool.name, tool.origin, tool.description)
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolListing {
    /// What it's called by.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub schema: serde_json::Value,
    /// Where it comes from: `node` for a shared one, `agent` for an agent's own, or the name of its
    /// source, such as `mcp/files`.
    pub origin: String,
    /// The agents that may call it; none stands for those that name it as a shared tool, or for all
    /// if it's of a source.
    pub agents: Option<Vec<String>>,
}

/// The tools that a capability reaches, by name.
///
/// ```
/// use neuroflow_actors::{ToolsCommand, list_tools};
/// use neuroflow_kernel::{Address, CallError, Header};
/// async fn names(tools: &Address<ToolsCommand>) -> Result<Vec<String>, CallError> {
///     let tools = list_tools(tools, Header::new()).await?;
///     Ok(tools.into_iter().map(|tool| tool.name).collect())
/// }
/// ```
///
/// # Errors
/// Says why the router doesn't answer.
pub async fn list_tools(
    tools: &Address<ToolsCommand>,
    header: Header,
) -> Result<Vec<ToolListing>, CallError> {
    tools.call(header, |reply| ToolsCommand::List { reply }).await
}
