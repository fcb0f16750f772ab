//! The settings below `cluster` that have to fit with each other, and where the leases are.

use neuroflow::LeasesConfig;
use neuroflow::actors::JournalPlace;
use neuroflow::actors::limits::{LEASE_TERM_MAX, LEASE_TERM_MIN};

use super::error::ConfigError;
use super::place::without_password;
use super::value::{Problem, Raw, Value, quoted, text};
use super::{Builtin, Config, Loaded};

/// Where the leases are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeasesPlace {
    /// In the journal's database.
    Journal,
    /// In this one.
    Postgres(String),
}

impl Value for LeasesPlace {
    const EXPECTED: &'static str =
        "\"journal\", or the URL of a database such as \"postgres://user@host/database\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "journal" => Ok(Self::Journal),
            url => match JournalPlace::parse(url)? {
                JournalPlace::Postgres(url) => Ok(Self::Postgres(url)),
                _ => Err(Problem::Word),
            },
        }
    }

    fn toml(&self) -> Option<String> {
        Some(match self {
            Self::Journal => quoted("journal"),
            Self::Postgres(url) => quoted(&without_password(url)),
        })
    }

    fn shown(raw: &Raw) -> String {
        text(raw).map_or_else(|_| raw.to_string(), |url| quoted(&without_password(url)))
    }
}

impl Config {
    /// Settings of the cluster that mean nothing without each other, or that can't be.
    pub(super) fn check_cluster(&self, loaded: &Loaded) -> Result<(), ConfigError> {
        let cluster = &self.cluster;
        let (listens, has_leases) = (cluster.listen.address().is_some(), cluster.leases.is_some());
        let (singletons, sharded) = (cluster.singletons.is_some(), cluster.sharded.is_some());
        let (has_identity, seeds) = (cluster.identity.is_some(), !cluster.seeds.is_empty());
        if listens && !has_identity {
            return Err(ConfigError::NoIdentity);
        }
        let needs = [
            ("cluster.identity", has_identity, "cluster.listen", listens),
            ("cluster.seeds", seeds, "cluster.listen", listens),
            ("cluster.advertise", cluster.advertise.is_some(), "cluster.listen", listens),
            ("cluster.authority", cluster.authority.is_some(), "cluster.listen", listens),
            ("cluster.revocations", cluster.revocations.is_some(), "cluster.listen", listens),
            ("cluster.leases", has_leases, "cluster.listen", listens),
            ("cluster.singletons", singletons, "cluster.leases", has_leases),
            ("cluster.sharded", sharded, "cluster.leases", has_leases),
        ];
        for (key, is_set, needed, is_there) in needs {
            if is_set && !is_there {
                return Err(ConfigError::Incomplete { key, needed });
            }
        }
        if let Some(address) = cluster.advertise
            && (address.port() == 0 || address.ip().is_unspecified())
        {
            return Err(ConfigError::Advertise {
                address,
                origin: loaded.origin("cluster.advertise"),
            });
        }
        if cluster.leases == Some(LeasesPlace::Journal) && self.journal_database().is_none() {
            return Err(ConfigError::LeasesOfJournal { origin: loaded.origin("cluster.leases") });
        }
        let (least, most) = (LEASE_TERM_MIN, LEASE_TERM_MAX);
        if !(least..=most).contains(&cluster.lease_term) {
            let (term, origin) = (cluster.lease_term, loaded.origin("cluster.lease_term"));
            return Err(ConfigError::LeaseTerm { term, least, most, origin });
        }
        self.check_agents(loaded)
    }

    /// Each agent is served in one way.
    fn check_agents(&self, loaded: &Loaded) -> Result<(), ConfigError> {
        let of = |agents: &Option<Vec<Builtin>>| agents.clone().unwrap_or_default();
        let lists = [
            ("agents.enabled", self.agents.enabled.clone()),
            ("cluster.singletons", of(&self.cluster.singletons)),
            ("cluster.sharded", of(&self.cluster.sharded)),
        ];
        for (at, (one, agents)) in lists.iter().enumerate() {
            for (other, others) in lists.iter().skip(at + 1) {
                if let Some(agent) = agents.iter().find(|agent| others.contains(agent)) {
                    let (agent, origin) = (agent.name(), loaded.origin(one));
                    return Err(ConfigError::AgentTwice { agent, one, other, origin });
                }
            }
        }
        Ok(())
    }

    fn journal_database(&self) -> Option<&str> {
        match self.journal.url.as_ref()?.place() {
            JournalPlace::Postgres(url) => Some(url),
            _ => None,
        }
    }
}

impl Loaded {
    /// Who decides on which node an agent lives of which there's only one, if anybody does.
    pub(crate) fn leases(&self) -> Option<LeasesConfig> {
        let url = match self.config.cluster.leases.as_ref()? {
            LeasesPlace::Journal => self.config.journal_database()?,
            LeasesPlace::Postgres(url) => url,
        };
        Some(LeasesConfig::new(url).term(self.config.cluster.lease_term))
    }
}
