//! What a cell may use. Checked once, when it is built; a profile that exists is valid.

mod builder;
mod check;
mod error;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{egress::Policy, level::Level, limits, network::Network, seccomp::SeccompProfile};
pub use builder::ProfileBuilder;
pub use error::{ProfileError, Setting};

/// Level and limits of a cell.
///
/// Every default is bounded and safe; a call that loosens one is visible in the code.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_sandbox::{Level, Profile};
///
/// let profile = Profile::builder(Level::Standard)
///     .wall_time(Duration::from_secs(5))
///     .memory(256 << 20)
///     .env("GREETING", "hello")
///     .build()?;
/// assert_eq!(profile.level(), Level::Standard);
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub(crate) level: Level,
    pub(crate) wall_time: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_high_bytes: Option<u64>,
    pub(crate) swap_bytes: u64,
    pub(crate) address_space_bytes: Option<u64>,
    pub(crate) cpu_milli: Option<u32>,
    pub(crate) cpu_weight: u32,
    pub(crate) io_bytes_per_second: Option<u64>,
    pub(crate) io_operations_per_second: Option<u64>,
    pub(crate) processes: u32,
    pub(crate) open_files: u32,
    pub(crate) file_size_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) workdir_bytes: u64,
    pub(crate) overlay_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) binds: Vec<Bind>,
    pub(crate) network: Network,
    pub(crate) egress: EgressPolicy,
    pub(crate) allow_degraded: bool,
    pub(crate) seccomp: Option<Arc<SeccompProfile>>,
    pub(crate) learn: bool,
}

impl Profile {
    /// Starts a profile with the defaults of [`crate::limits`].
    pub fn builder(level: Level) -> ProfileBuilder {
        ProfileBuilder::new(level)
    }

    /// The level that a cell of this profile has, or isn't started at all.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Output that the cell may write before it is ended.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// How long the cell may run.
    pub fn longest(&self) -> Duration {
        self.wall_time
    }

    /// The same for a service: a program that is talked to for as long as both sides like. Its cell
    /// lives for [`limits::SERVICE_TIME`], and what it writes isn't counted: whoever reads it holds
    /// it up.
    ///
    /// ```
    /// use neuroflow_sandbox::{Level, Profile, limits};
    /// let profile = Profile::builder(Level::Strict).build()?.for_service();
    /// assert_eq!(profile.longest(), limits::SERVICE_TIME);
    /// # Ok::<(), neuroflow_sandbox::ProfileError>(())
    /// ```
    #[must_use]
    pub fn for_service(mut self) -> Self {
        self.wall_time = limits::SERVICE_TIME;
        self.output_bytes = u64::MAX;
        self
    }

    /// Whether the cell may do without layers that the host can't give.
    pub fn allows_degraded(&self) -> bool {
        self.allow_degraded
    }

    /// Everything that it allows, as text of no certain form: two profiles that differ in more than
    /// secrets have different texts, in one version of this crate.
    pub fn written(&self) -> String {
        // The rules of the network say it all; what they were compiled to says nothing more.
        format!("{:?}", Self { egress: EgressPolicy::default(), ..self.clone() })
    }

    pub(crate) fn limits_io(&self) -> bool {
        self.io_bytes_per_second.is_some() || self.io_operations_per_second.is_some()
    }

    pub(crate) fn has_loopback(&self) -> bool {
        self.network.has_loopback()
    }

    pub(crate) fn has_egress(&self) -> bool {
        self.egress.0.is_some()
    }

    /// The host directory that is shown copy-on-write.
    pub(crate) fn project(&self) -> Option<&Path> {
        let copied = self.binds.iter().find(|bind| bind.view == View::CopyOnWrite);
        copied.map(|bind| bind.host.as_path())
    }

    /// Where other binds are in that directory, relative to it.
    pub(crate) fn places_in_project(&self) -> Vec<PathBuf> {
        let copied = self.binds.iter().find(|bind| bind.view == View::CopyOnWrite);
        let below = |copied: &Bind, bind: &Bind| {
            bind.inside.strip_prefix(&copied.inside).ok().map(Path::to_owned)
        };
        let others = self.binds.iter().filter(|bind| bind.view != View::CopyOnWrite);
        copied
            .map_or_else(Vec::new, |copied| others.filter_map(|bind| below(copied, bind)).collect())
    }

    pub(crate) fn bind_at(&self, inside: &Path) -> bool {
        self.binds.iter().any(|bind| bind.inside == inside)
    }
}

/// The network's rules as the proxy has them. They follow from the network, so they make no
/// difference between two profiles.
#[derive(Debug, Clone, Default)]
pub(crate) struct EgressPolicy(pub(crate) Option<Arc<Policy>>);

impl PartialEq for EgressPolicy {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for EgressPolicy {}

/// A host path that the cell sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) host: PathBuf,
    pub(crate) inside: PathBuf,
    pub(crate) view: View,
}

/// How the cell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    ReadOnly,
    Writable,
    /// Writable, but what is written goes elsewhere.
    CopyOnWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard() -> ProfileBuilder {
        Profile::builder(Level::Standard)
    }

    #[test]
    fn defaults_are_valid_at_every_level() {
        for level in [Level::Minimal, Level::Standard, Level::Strict, Level::Paranoid] {
            assert!(Profile::builder(level).build().is_ok());
        }
    }

    #[test]
    fn inner_paths_are_plain() {
        for path in [
            "relative",
            "/",
            "//x",
            "/x/",
            "/./x",
            "/x/../y",
            "/proc",
            "/proc/x",
            "/dev/null",
            "/x\0y",
        ] {
            let refused = standard().bind_ro("/srv", path).build();
            assert!(
                matches!(refused, Err(ProfileError::InnerPath { .. })),
                "{path:?}: {refused:?}"
            );
        }
        for path in ["/data", "/work", "/process", "/usr/local/x", "/a b/..c"] {
            assert!(standard().bind_ro("/srv", path).build().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn minimal_refuses_what_it_can_not_give() {
        let minimal = || Profile::builder(Level::Minimal);
        for refused in [
            minimal().bind_ro("/srv", "/srv").build(),
            minimal().processes(4).build(),
            minimal().workdir_size(1 << 20).build(),
            minimal().network(Network::loopback()).build(),
        ] {
            assert!(matches!(
                refused,
                Err(ProfileError::NeedsLevel { level: Level::Standard, .. })
            ));
        }
    }

    #[test]
    fn variables_are_well_formed_and_unique() {
        for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "x\0")] {
            assert!(matches!(
                standard().env(name, value).build(),
                Err(ProfileError::Variable { .. })
            ));
        }
        let profile = standard().env("A", "1").env("A", "2").build();
        assert_eq!(profile.map(|profile| profile.variables.len()), Ok(1));
    }

    #[test]
    fn inner_paths_are_unique() {
        let twice = standard().bind_ro("/a", "/x").bind_rw("/b", "/x").build();
        assert!(matches!(twice, Err(ProfileError::InnerPathTwice { .. })));
    }
}
