//! What `exec` is asked for beside the configuration: ways out, files, a project, a system call
//! profile.

use std::io::{self, Write};
use std::path::PathBuf;

use neuroflow::Profile;
use neuroflow::sandbox::{
    ApplyError, ChangeKind, ChangesError, Network, Overlay, ProfileError, Report, Rule,
    SeccompError, SeccompProfile,
};

use crate::config::{ConfigError, Loaded, NotAWay, WayOut};

/// The flags.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) allow: Vec<String>,
    pub(super) bind_ro: Vec<PathBuf>,
    pub(super) project: Option<PathBuf>,
    pub(super) apply: bool,
    pub(super) seccomp: Option<PathBuf>,
    pub(super) learn: Option<PathBuf>,
}

/// Why one of them can't be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WishError {
    /// A path can't be resolved.
    #[error("{} can't be used; name a path that is there", path.display())]
    Path { path: PathBuf, source: io::Error },
    /// Not a host with or without a port.
    #[error(
        "--allow {given} can't be allowed; name a host, such as pypi.org or build.example.com:8080"
    )]
    WayOut { given: String, source: NotAWay },
    /// A file can't be read or written.
    #[error("{} can't be read or written", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The system call profile can't be used.
    #[error("{}: not a system call profile", path.display())]
    Seccomp { path: PathBuf, source: Box<SeccompError> },
    /// Together they make no profile.
    #[error("the program can't have this")]
    Profile(#[from] ProfileError),
    /// The changes can't be read.
    #[error("the program's changes to the project can't be read")]
    Changes(#[from] ChangesError),
    /// The changes can't be made.
    #[error("the program's changes can't be made in the project")]
    Apply(#[from] ApplyError),
    /// Nothing was learned.
    #[error("nothing was learned: the program made no call that was seen")]
    Nothing,
}

impl Wishes {
    /// The configured profile, with what was asked for.
    pub(super) fn profile(&self, loaded: &Loaded) -> Result<Profile, super::ExecError> {
        let configured = loaded.builder();
        Ok(self.extend(configured)?.build().map_err(ConfigError::from)?)
    }

    fn extend(
        &self,
        mut builder: neuroflow::sandbox::ProfileBuilder,
    ) -> Result<neuroflow::sandbox::ProfileBuilder, WishError> {
        let resolved = |path: &PathBuf| {
            path.canonicalize().map_err(|source| WishError::Path { path: path.clone(), source })
        };
        if !self.allow.is_empty() {
            // What the flags name takes the place of what the configuration names.
            let rules =
                self.allow.iter().map(|given| rule(given)).collect::<Result<Vec<_>, _>>()?;
            builder = builder.network(Network::allow(rules));
        }
        for path in &self.bind_ro {
            let path = resolved(path)?;
            builder = builder.bind_ro(path.clone(), path);
        }
        if let Some(project) = &self.project {
            builder = builder.copy_on_write(resolved(project)?, "/work");
        }
        if let Some(path) = &self.seccomp {
            let text = std::fs::read_to_string(path)
                .map_err(|source| WishError::File { path: path.clone(), source })?;
            let own = SeccompProfile::parse(&text).map_err(|source| WishError::Seccomp {
                path: path.clone(),
                source: Box::new(source),
            })?;
            builder = builder.seccomp(own);
        }
        Ok(builder.learn(self.learn.is_some()))
    }

    /// What is left to do when the cell is gone.
    pub(super) fn finish(
        &self,
        report: &Report,
        overlay: Option<Overlay>,
    ) -> Result<(), WishError> {
        if let Some(path) = &self.learn {
            let learned = report.learned.as_ref().ok_or(WishError::Nothing)?;
            std::fs::write(path, learned)
                .map_err(|source| WishError::File { path: path.clone(), source })?;
        }
        let (Some(overlay), Some(project)) = (overlay, &self.project) else { return Ok(()) };
        let changes = overlay.read()?;
        let mut err = io::stderr().lock();
        for change in &changes {
            let kind = match change.kind() {
                ChangeKind::Added => "added",
                ChangeKind::Modified => "modified",
                ChangeKind::Deleted => "deleted",
                _ => "changed",
            };
            // Whoever doesn't read the list can still have the changes.
            let _unsaid = writeln!(err, "{kind:<9} {}", change.path().display());
        }
        for refused in changes.refused() {
            let _unsaid =
                writeln!(err, "refused   {} ({:?})", refused.path.display(), refused.reason);
        }
        if self.apply {
            changes.apply(project)?;
        }
        Ok(())
    }
}

fn rule(given: &str) -> Result<Rule, WishError> {
    let way: Result<WayOut, NotAWay> = given.parse();
    way.map(|way| way.rule())
        .map_err(|source| WishError::WayOut { given: given.to_owned(), source })
}
