//! The agents of other nodes that the gateway offers, `[proxy.NAME]`: each a table of its own, so they have neither
//! variables nor flags.

use std::collections::BTreeMap;
use std::path::Path;

use neuroflow::actors::Skill;
use neuroflow::kernel::{RemoteError, RemoteTarget};
use neuroflow::{NameError, ProxyAgent};
use serde::{Deserialize, Serialize};

use super::error::{ConfigError, without_text};
use super::unit::{UnitError, parse_duration};
use super::{Builtin, Loaded};

/// The agents of a file, by the names that they have here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Proxies {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    proxy: BTreeMap<String, Proxied>,
}

/// One agent, as it's written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Proxied {
    /// Where it is: `agent://NODE/NAME`, or `agent://*/NAME`.
    agent: String,
    description: Option<String>,
    /// What it can do; what the directory says unless it's set.
    skills: Option<Vec<String>>,
    /// Tools of it that rules here may permit.
    #[serde(default)]
    tools: Vec<String>,
    /// Media types that it takes, and that it gives; any unless it's set.
    input: Option<Vec<String>>,
    output: Option<Vec<String>>,
    /// Whether it may be run again.
    #[serde(default)]
    resumable: bool,
    /// Time that a task may take.
    task: Option<String>,
}

/// What is wrong with one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProxyProblem {
    /// Nothing leads to other nodes.
    #[error("it's an agent of other nodes, and there are no links to any; set cluster.listen")]
    Unlinked,
    /// Its name is none.
    #[error("its name isn't valid")]
    Name(#[from] NameError),
    /// An agent of this node has the name.
    #[error("this node has an agent of that name itself; choose another")]
    Taken,
    /// It can't be found.
    #[error("its agent can't be found by that; write \"agent://*/NAME\" or \"agent://NODE/NAME\"")]
    Target(#[from] RemoteError),
    /// One life of an agent is over some day.
    #[error("its agent is one life of one; leave out what is behind the #")]
    Life,
    /// There is nothing in a list.
    #[error("{setting} is empty; leave it out, or name something")]
    Empty { setting: &'static str },
    /// No time.
    #[error("task isn't a whole number with a unit, such as \"10m\"")]
    Time(#[from] UnitError),
}

impl Proxies {
    /// Reads them out of a whole file.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|mut source| {
            let line = without_text(&mut source, text);
            ConfigError::ProxyTable { path: path.to_owned(), line, source: Box::new(source) }
        })
    }
}

impl Loaded {
    /// The agents of other nodes that the gateway offers.
    pub(crate) fn proxies(&self) -> Result<Vec<ProxyAgent>, ConfigError> {
        let made = self.proxies.proxy.iter().map(|(name, proxied)| {
            proxied.agent(name, self).map_err(|problem| ConfigError::Proxy {
                proxy: name.clone(),
                problem: Box::new(problem),
            })
        });
        made.collect()
    }
}

impl Proxied {
    fn agent(&self, name: &str, loaded: &Loaded) -> Result<ProxyAgent, ProxyProblem> {
        neuroflow::Name::new(name)?;
        let config = &loaded.config;
        if config.cluster.listen.address().is_none() {
            return Err(ProxyProblem::Unlinked);
        }
        // One of which there's one in the cluster may be offered by its own name.
        let is_own = |agent: &Builtin| agent.name() == name;
        let sole = config.cluster.singletons.iter().chain(&config.cluster.sharded).flatten();
        if config.agents.enabled.iter().chain(sole).any(is_own) {
            return Err(ProxyProblem::Taken);
        }
        if self.agent.parse::<RemoteTarget>()?.generation().is_some() {
            return Err(ProxyProblem::Life);
        }
        let lists = [("skills", &self.skills), ("input", &self.input), ("output", &self.output)];
        for (setting, list) in lists {
            if list.as_ref().is_some_and(Vec::is_empty) {
                return Err(ProxyProblem::Empty { setting });
            }
        }
        let time = self.task.as_deref().map(parse_duration).transpose()?;
        let agent = ProxyAgent::new(name, &self.agent).profile(|profile| {
            if let Some(description) = &self.description {
                profile.description.clone_from(description);
            }
            if let Some(skills) = &self.skills {
                profile.skills =
                    skills.iter().map(|id| Skill::named(id, &profile.description)).collect();
            }
            if let Some(input) = &self.input {
                profile.input_modes.clone_from(input);
            }
            if let Some(output) = &self.output {
                profile.output_modes.clone_from(output);
            }
            if let Some(time) = time {
                profile.task_deadline = time;
            }
            profile.resumable = self.resumable;
        });
        Ok(agent.tools(&self.tools))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_read_and_a_mistake_names_its_line() {
        let read = |text: &str| Proxies::read(Path::new("test.toml"), text);
        let proxies = read(
            "[proxy.bills]\nagent = \"agent://*/billing\"\nresumable = true\ntools = [\"a\"]\n",
        )
        .unwrap();
        assert!(proxies.proxy["bills"].resumable && proxies.proxy["bills"].tools == ["a"]);
        let error = read("[proxy.bills]\nagent = \"agent://*/billing\"\nskill = []\n").unwrap_err();
        assert!(error.to_string().contains("test.toml:3"), "{error}");
    }
}
