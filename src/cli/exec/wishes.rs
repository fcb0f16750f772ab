//! What `exec` is asked for beside the configuration: ways out, files, a project, a system call
//! profile.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use neuroflow::Profile;
use neuroflow::sandbox::{
    ApplyError, ChangeKind, Changes, ChangesError, End, Network, Overlay, ProfileError, Report,
    Rule, SeccompError, SeccompProfile,
};

use super::Caught;
use crate::config::{ConfigError, Loaded, NotAWay, WayOut};
use crate::plain;

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
    /// A part of the changes is never made, so the rest isn't what the program has meant.
    #[error("nothing was applied: {refused} of the program's changes are refused, as listed")]
    Refused { refused: usize },
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

    /// What is left to do when the cell is gone; `caught` is the signal that was to end it.
    pub(super) fn finish(
        &self,
        report: &Report,
        caught: Option<Caught>,
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
        // Whoever doesn't read the list can still have the changes.
        let _unsaid = list(&changes, &mut err);
        if !self.apply {
            return Ok(());
        }
        if let Some(why) = unfit(report.end, caught) {
            // How the program ended is the exit code's to say.
            let _unsaid = writeln!(err, "neuroflow: nothing was applied: {why}");
            return Ok(());
        }
        made(&changes, project)
    }
}

/// The changes, one per line. Their names are the program's.
fn list(changes: &Changes, out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        let kind = match change.kind() {
            ChangeKind::Added => "added",
            ChangeKind::Modified => "modified",
            ChangeKind::Deleted => "deleted",
            _ => "changed",
        };
        writeln!(out, "{kind:<9} {}", plain::name(change.path()))?;
    }
    for refused in changes.refused() {
        writeln!(out, "refused   {} ({:?})", plain::name(&refused.path), refused.reason)?;
    }
    Ok(())
}

/// Why the changes of a program with this end aren't to be applied: one that was stopped half-way has
/// truncated what it meant to write.
fn unfit(end: End, caught: Option<Caught>) -> Option<String> {
    if let Some(caught) = caught {
        return Some(format!("{} came before the program had ended", caught.name()));
    }
    match end {
        End::Exited(0) => None,
        End::Exited(status) => Some(format!("the program ended with status {status}")),
        End::WallTime => Some("the program's time was over".to_owned()),
        _ => Some("the program didn't end by itself".to_owned()),
    }
}

/// Makes the changes, if all of them can be made.
fn made(changes: &Changes, project: &Path) -> Result<(), WishError> {
    match changes.refused().len() {
        0 => Ok(changes.apply(project)?),
        refused => Err(WishError::Refused { refused }),
    }
}

fn rule(given: &str) -> Result<Rule, WishError> {
    let way: Result<WayOut, NotAWay> = given.parse();
    way.map(|way| way.rule())
        .map_err(|source| WishError::WayOut { given: given.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_ended_by_itself_with_success_has_its_changes_applied() {
        assert_eq!(unfit(End::Exited(0), None), None);
        for (end, caught, word) in [
            (End::Exited(0), Some(Caught::Interrupt), "SIGINT"),
            (End::Cancelled, Some(Caught::Terminate), "SIGTERM"),
            (End::Exited(3), None, "status 3"),
            (End::WallTime, None, "time"),
            (End::Signalled(9), None, "by itself"),
            (End::Memory, None, "by itself"),
            (End::OutputLimit, None, "by itself"),
            (End::LauncherLost, None, "by itself"),
        ] {
            let why = unfit(end, caught);
            assert!(why.as_ref().is_some_and(|why| why.contains(word)), "{end:?}: {why:?}");
        }
    }
}
