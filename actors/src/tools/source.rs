//! Where tools come from while the node runs: an actor below the router that offers them.

use std::fmt;
use std::sync::Arc;

use neuroflow_kernel::{Address, ChildSpec, NameError, Reply};

use super::{AnyTool, ToolsCommand};

type Make = dyn Fn(Address<ToolsCommand>) -> Result<ChildSpec, NameError> + Send + Sync;

/// An actor that offers tools. The router starts and supervises it, below `tools/mcp`.
///
/// ```
/// use neuroflow_actors::ToolSource;
/// use neuroflow_kernel::{ChildSpec, NameError};
/// fn source(make: fn() -> Result<ChildSpec, NameError>) -> ToolSource {
///     ToolSource::new(move |_router| make())
/// }
/// ```
#[derive(Clone)]
pub struct ToolSource(Arc<Make>);

impl ToolSource {
    /// From how the child is made, once the router's address is known.
    pub fn new(
        make: impl Fn(Address<ToolsCommand>) -> Result<ChildSpec, NameError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn spec(&self, router: Address<ToolsCommand>) -> Result<ChildSpec, NameError> {
        (self.0)(router)
    }
}

impl fmt::Debug for ToolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSource").finish_non_exhaustive()
    }
}

/// All that a source has from now on; what it offered before and doesn't now is gone.
///
/// ```
/// fn count(offer: &neuroflow_actors::Offer) -> usize {
///     offer.tools.len()
/// }
/// ```
#[derive(Debug)]
pub struct Offer {
    /// The source's name, such as `mcp/files`.
    pub source: String,
    /// Its tools.
    pub tools: Vec<Offered>,
    /// Those that weren't taken, and why.
    pub reply: Reply<Vec<Unfit>>,
}

/// A tool of a source, and who may call it.
///
/// ```
/// fn is_for_all(offered: &neuroflow_actors::Offered) -> bool {
///     offered.agents.is_none()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Offered {
    /// The agents that may; none for all.
    pub agents: Option<Vec<String>>,
    /// The tool.
    pub tool: AnyTool,
}

/// Why the router doesn't take a tool.
///
/// ```
/// use neuroflow_actors::Unfit;
/// let unfit = Unfit::Taken { tool: "files__read".into() };
/// assert!(unfit.to_string().contains("files__read"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Its schema isn't valid.
    #[error(transparent)]
    Schema(#[from] super::SchemaError),
    /// Another tool has its name.
    #[error("there is another tool {tool:?}")]
    Taken {
        /// The name.
        tool: String,
    },
}
