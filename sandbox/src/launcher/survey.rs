//! Tries layer by layer what this host can give.

use super::Launcher;
use crate::{
    diagnosis::{Reason, Remedy},
    doctor::{Finding, Verdict},
    error::LaunchError,
    level::{Layer, Level},
    linux::sys::process::{NEW_CGROUP, NEW_IPC, NEW_NET, NEW_NS, NEW_PID, NEW_USER, NEW_UTS},
    profile::Profile,
};

/// Namespaces are tried one by one, everything else by building a cell without a program in it.
pub(super) async fn survey(launcher: &Launcher, level: Level) -> Result<Vec<Finding>, LaunchError> {
    let minimal = rehearse(launcher, Level::Minimal).await?;
    let whole = if level == Level::Minimal { Ok(()) } else { rehearse(launcher, level).await? };
    let abilities = launcher.abilities().await?;
    let user_namespace = launcher.probe(Layer::UserNamespace, NEW_USER).await?;
    let mut findings = Vec::new();
    for layer in level.layers().iter().copied() {
        let verdict = if let Some((reason, remedy)) = abilities.lacks(layer) {
            Verdict::Missing { reason, remedy }
        } else if let Some(flag) = namespace(layer) {
            match (user_namespace, layer) {
                (Some((reason, remedy)), Layer::UserNamespace) => {
                    Verdict::Missing { reason, remedy }
                }
                (Some(_), _) => Verdict::Unknown { behind: Layer::UserNamespace },
                (None, _) => match launcher.probe(layer, flag).await? {
                    None => Verdict::Available,
                    Some((reason, remedy)) => Verdict::Missing { reason, remedy },
                },
            }
        } else if Level::Minimal.layers().contains(&layer) {
            minimal.verdict(layer)
        } else {
            whole.verdict(layer)
        };
        findings.push(Finding { layer, verdict });
    }
    Ok(findings)
}

/// How a rehearsal ended, if it says something about the host.
type Rehearsal = Result<(), (Layer, Reason, Remedy)>;

async fn rehearse(launcher: &Launcher, level: Level) -> Result<Rehearsal, LaunchError> {
    // The defaults are within their own bounds.
    let profile = Profile::builder(level).allow_degraded(true).build();
    let Ok(profile) = profile else { return Ok(Ok(())) };
    match launcher.rehearse(&profile).await {
        Ok(()) => Ok(Ok(())),
        Err(LaunchError::Unavailable { layer, reason, remedy }) => Ok(Err((layer, reason, remedy))),
        Err(other) => Err(other),
    }
}

trait Verdicts {
    fn verdict(&self, layer: Layer) -> Verdict;
}

impl Verdicts for Rehearsal {
    fn verdict(&self, layer: Layer) -> Verdict {
        match *self {
            Ok(()) => Verdict::Available,
            Err((failed, reason, remedy)) if failed == layer => Verdict::Missing { reason, remedy },
            Err((failed, ..)) => Verdict::Unknown { behind: failed },
        }
    }
}

fn namespace(layer: Layer) -> Option<u64> {
    match layer {
        Layer::UserNamespace => Some(NEW_USER),
        Layer::PidNamespace => Some(NEW_PID),
        Layer::MountNamespace => Some(NEW_NS),
        Layer::NetworkNamespace => Some(NEW_NET),
        Layer::IpcNamespace => Some(NEW_IPC),
        Layer::UtsNamespace => Some(NEW_UTS),
        Layer::CgroupNamespace => Some(NEW_CGROUP),
        _ => None,
    }
}
