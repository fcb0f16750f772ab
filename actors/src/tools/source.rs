//! Where tools come from while the node runs: an actor below the router that offers them.

use std::fmt;
use std::sync::Arc;

use neuroflow_kernel::{Address, ChildSpec, Name, NameError, Reply, RestartPolicy, Supervisor};

use super::schema::{Compiler, Schema, SchemaExcess};
use super::{AnyTool, SchemaError, ToolsCommand};

type Make = dyn Fn(Address<ToolsCommand>) -> Result<ChildSpec, NameError> + Send + Sync;

/// An actor that offers tools. The router starts it, below a supervisor of its own, `tools/mcp/<name>`, so
/// that no other source waits longer because this one fails.
///
/// ```
/// use neuroflow_actors::ToolSource;
/// use neuroflow_kernel::{ChildSpec, Name, NameError};
/// fn source(make: fn() -> Result<ChildSpec, NameError>) -> Result<ToolSource, NameError> {
///     Ok(ToolSource::new(Name::new("files")?, move |_router| make()))
/// }
/// ```
#[derive(Clone)]
pub struct ToolSource {
    name: Name,
    make: Arc<Make>,
}

impl ToolSource {
    /// From how the child is made, once the router's address is known.
    pub fn new(
        name: Name,
        make: impl Fn(Address<ToolsCommand>) -> Result<ChildSpec, NameError> + Send + Sync + 'static,
    ) -> Self {
        Self { name, make: Arc::new(make) }
    }

    /// With the supervisor.
    pub(super) fn spec(
        &self,
        router: Address<ToolsCommand>,
        policy: RestartPolicy,
    ) -> Result<ChildSpec, NameError> {
        let child = (self.make)(router)?;
        let (_power, spec) = Supervisor::spec(self.name.as_str(), policy, vec![child])?;
        Ok(spec)
    }
}

impl fmt::Debug for ToolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSource").field("name", &self.name).finish_non_exhaustive()
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
    /// Those that can't be offered, and why.
    pub unfit: Vec<Unfit>,
    /// Those that weren't taken, with those that can't be offered.
    pub reply: Reply<Vec<Unfit>>,
}

/// A tool of a source, and who may call it. Its schema is compiled, within bounds: what a source says is
/// somebody else's, and a few bytes of it can take more time and memory than there is.
///
/// ```
/// fn name(offered: &neuroflow_actors::Offered) -> &str {
///     offered.tool().name()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Offered {
    pub(super) agents: Option<Vec<String>>,
    pub(super) tool: AnyTool,
    pub(super) schema: Arc<Schema>,
}

impl Offered {
    /// All that a source has, for these agents; none for all of them. Schemas are compiled on a thread
    /// that nobody else waits for. Those that can't be are left out, and come back with the reason.
    pub async fn compile(
        agents: Option<Vec<String>>,
        tools: Vec<AnyTool>,
    ) -> (Vec<Self>, Vec<Unfit>) {
        let names: Vec<String> = tools.iter().map(|tool| tool.name().to_owned()).collect();
        let compiled = tokio::task::spawn_blocking(move || {
            let mut compiler = Compiler::new();
            let (mut offered, mut unfit) = (Vec::new(), Vec::new());
            for tool in tools {
                match compiler.compile(tool.name(), &tool.schema()) {
                    Ok(schema) => {
                        let (agents, schema) = (agents.clone(), Arc::new(schema));
                        offered.push(Self { agents, tool, schema });
                    }
                    Err(error) => unfit.push(error),
                }
            }
            (offered, unfit)
        });
        compiled.await.unwrap_or_else(|_panicked| {
            (Vec::new(), names.into_iter().map(|tool| Unfit::Unread { tool }).collect())
        })
    }

    /// The tool.
    pub fn tool(&self) -> &AnyTool {
        &self.tool
    }

    /// The agents that may call it; none for all.
    pub fn agents(&self) -> Option<&[String]> {
        self.agents.as_deref()
    }
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
    Schema(#[from] SchemaError),
    /// Its schema is too much to check arguments with.
    #[error("the argument schema of tool {tool} is too much")]
    Excess {
        /// The tool.
        tool: String,
        /// What is.
        #[source]
        source: SchemaExcess,
    },
    /// Whoever read the schemas of its source broke down over one of them.
    #[error("the argument schemas of tool {tool} and the others of its source can't be read")]
    Unread {
        /// The tool.
        tool: String,
    },
    /// Another tool has its name.
    #[error("there is another tool {tool:?}")]
    Taken {
        /// The name.
        tool: String,
    },
}
