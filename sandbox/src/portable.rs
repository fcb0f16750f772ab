//! Level `minimal` without Linux: a launcher that has the other one's methods and starts programs as any
//! program of such a system would. It's compiled and tested on Linux too; nothing else uses it there.
//!
//! What such a system can't give is refused by name ([`lacking`]), or done without and reported if the
//! profile allows that. What ends a program's descendants is the difference that matters:
//!
//! - On a Unix the program leads a session of its own, and all that is still in its process group is killed
//!   when it has ended, before its own process is reaped, so that the group's number can't have become
//!   another's. A descendant that has left the group (`setsid`, `setpgid`, a shell with job control) is
//!   found by nobody; such a system has no namespace of processes, no group that one can't leave, no
//!   subreaper, and no signal at a parent's death. So nothing ends with a host program that is killed.
//! - On Windows the program's own process is ended, and nothing that it has started: that takes a job
//!   object, which a program can only be put into, by safe calls, after it has begun.
//!
//! So the end of the process tree isn't promised on either, and the report says so.

mod launcher;
mod running;

#[cfg(unix)]
mod sys;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(test)]
mod tests;

#[cfg(unix)]
use unix as host;
#[cfg(windows)]
use windows as host;

pub use launcher::{Launcher, Warm};
#[cfg_attr(target_os = "linux", allow(unused_imports, reason = "on Linux nobody names it"))]
pub use running::CellInput;
pub use running::Running;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::PathBuf,
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    diagnosis::{Reason, Remedy},
    error::LaunchError,
    level::{Layer, Level},
    plan::RESOURCES,
    profile::Profile,
    report::{End, Usage},
};

/// The layers that such a system gives. Resource limits aren't among them, though a Unix holds most:
/// memory is one that it doesn't.
const GIVEN: &[Layer] = if cfg!(unix) {
    &[Layer::CleanEnvironment, Layer::Session]
} else {
    &[Layer::CleanEnvironment]
};

/// What a cell of this profile has to do without, if it may.
fn lacking(profile: &Profile) -> Result<Vec<Layer>, LaunchError> {
    let minimal = Level::Minimal.layers();
    if let Some(beyond) = profile.level.layers().iter().find(|layer| !minimal.contains(layer)) {
        return Err(missing(*beyond));
    }
    let lacks: Vec<Layer> =
        minimal.iter().copied().filter(|layer| !GIVEN.contains(layer)).collect();
    match lacks.first() {
        Some(first) if !profile.allow_degraded => Err(missing(*first)),
        _ => Ok(lacks),
    }
}

fn missing(layer: Layer) -> LaunchError {
    let (reason, remedy) = why(layer);
    LaunchError::Unavailable { layer, reason, remedy }
}

/// Why a layer isn't given, and what helps.
fn why(layer: Layer) -> (Reason, Remedy) {
    let is_optional = Level::Minimal.layers().contains(&layer);
    let remedy = if is_optional { Remedy::DoWithout } else { Remedy::AnotherHost };
    (Reason::NotLinux, remedy)
}

/// What is started.
#[derive(Debug)]
struct Order<'a> {
    file: PathBuf,
    name: &'a OsStr,
    arguments: &'a [OsString],
    directory: PathBuf,
    variables: Vec<(OsString, OsString)>,
    limits: [u64; RESOURCES],
    /// Whether anything is written to its input.
    is_written: bool,
}

/// What was started.
#[derive(Debug)]
struct Started {
    tree: host::Tree,
    stdin: Option<Box<dyn Sink>>,
    stdout: Box<dyn Flow>,
    stderr: Box<dyn Flow>,
}

/// Why nothing was started.
#[derive(Debug)]
enum Refusal {
    /// The file can't be executed.
    Program(io::Error),
    /// A layer was set and isn't in force.
    NotInForce(Layer),
    /// The host has no pipes left, or doesn't watch them.
    Pipes(io::Error),
}

/// How a program ended, and what it used as far as the system says.
type Ended = (End, Usage);

trait Flow: AsyncRead + Send + Sync + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + Send + Sync + Unpin + std::fmt::Debug> Flow for T {}
trait Sink: AsyncWrite + Send + Sync + Unpin + std::fmt::Debug {}
impl<T: AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> Sink for T {}
