//! The tools and levels that may be used for somebody: a policy on a capability to the router, beside
//! [`ToolGrant`](super::ToolGrant). Nodes tell it one another with a request, for rules are a node's own.

use neuroflow_kernel::WireMessage;
use neuroflow_sandbox::Level;
use rkyv::{Archive, Archived, Serialize};

/// The tools that may be used for somebody, and the levels of cells: no others, whatever the agent has.
///
/// ```
/// use neuroflow_actors::ToolBounds;
/// let bounds = ToolBounds { tools: vec!["count".into()], levels: vec![] };
/// assert!(bounds.permits("count", None) && !bounds.permits("exec", None));
/// assert!(!bounds.permits("count", Some(neuroflow_sandbox::Level::Strict)));
/// ```
#[derive(Archive, Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolBounds {
    /// Names of tools.
    pub tools: Vec<String>,
    /// Names of the levels at which those may run programs.
    pub levels: Vec<String>,
}

impl ToolBounds {
    /// Whether a tool may be called that runs programs at this level, if it runs any.
    pub fn permits(&self, tool: &str, level: Option<Level>) -> bool {
        self.tools.iter().any(|name| name == tool) && level.is_none_or(|level| self.has(level))
    }

    /// Whether programs may run at this level.
    pub(crate) fn has(&self, level: Level) -> bool {
        self.levels.iter().any(|name| *name == level.to_string())
    }
}

impl WireMessage for ToolBounds {
    /// Its place was another once; journals and nodes know it by this name.
    const NAME: &'static str = "neuroflow.agent.tool-bounds";
    const VERSION: u16 = 1;
}

impl From<&ArchivedToolBounds> for ToolBounds {
    fn from(bounds: &ArchivedToolBounds) -> Self {
        Self { tools: texts(&bounds.tools), levels: texts(&bounds.levels) }
    }
}

fn texts(texts: &Archived<Vec<String>>) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
