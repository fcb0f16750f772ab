//! Starts cells. Owns the zygote, and gets a new one when it dies.

mod begin;
mod host;
mod seat;
mod survey;

use std::sync::Arc;

use crate::{
    cell::Cell,
    diagnosis::{Facts, Reason, Remedy, diagnose},
    doctor::{self, Finding},
    error::{LaunchError, LauncherError},
    level::{Layer, Level},
    linux::sys::process::Ending,
    plan::{self, Layout, Purpose},
    profile::Profile,
    program::Program,
};
use begin::Refusal;
use seat::Seat;
pub(crate) use seat::Zygote;

/// Starts programs in cells.
///
/// One launcher serves a whole host program: a clone is another handle on the same zygote. The
/// zygote ends, and all cells with it, when the last launcher and the last [`Cell`] are gone, or
/// when the host program dies.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_sandbox::{Launcher, Level, Profile, Program};
///
/// let launcher = Launcher::start()?;
/// let profile = Profile::builder(Level::Standard).build()?;
/// let cell = launcher.launch(&profile, &Program::new("echo").arg("hello")).await?;
/// let collected = cell.collect().await;
/// assert_eq!(collected.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    seat: Seat,
}

impl Launcher {
    /// Starts the zygote. Blocks for some milliseconds, until it says that it is ready.
    ///
    /// # Errors
    ///
    /// When the host's own executable can't be started again, or doesn't answer.
    pub fn start() -> Result<Self, LauncherError> {
        let seat = Seat::occupied()?;
        Ok(Self { shared: Arc::new(Shared { layout: host::layout(), seat }) })
    }

    /// Starts a program in a cell; returns when the program is loaded and runs.
    ///
    /// Dropping the future ends what it has started.
    ///
    /// # Errors
    ///
    /// A level that this host can't give, a program that can't be executed, or the step that
    /// failed.
    pub async fn launch(&self, profile: &Profile, program: &Program) -> Result<Cell, LaunchError> {
        refuse_unbuilt(profile.level)?;
        self.start_cell(profile, program, Purpose::Run).await
    }

    /// Tries on this host what a level needs, layer by layer.
    ///
    /// # Errors
    ///
    /// When the zygote is lost and can't be replaced.
    pub async fn examine(&self, level: Level) -> Result<Vec<Finding>, LaunchError> {
        survey::survey(self, level).await
    }

    pub(crate) async fn rehearse(&self, profile: &Profile) -> Result<(), LaunchError> {
        let cell = self.start_cell(profile, &Program::new("rehearsal"), Purpose::Rehearse).await?;
        let _report = cell.finish().await;
        Ok(())
    }

    pub(crate) async fn probe(
        &self,
        layer: Layer,
        namespaces: u64,
    ) -> Result<Option<(Reason, Remedy)>, LaunchError> {
        let (zygote, _) = self.shared.seat.zygote()?;
        let answer = begin::probe(&zygote, namespaces).await;
        if let Err(Refusal::Lost) = answer {
            self.shared.seat.vacate(&zygote);
        }
        let errno = answer
            .map_err(|refusal| refusal.into_error(&[], &Facts::default(), &Program::new("")))?;
        let diagnosis =
            errno.and_then(|errno| diagnose(crate::step::Step::Clone, errno, &host::facts()));
        tracing::debug!(%layer, ?errno, "probed");
        Ok(match (errno, diagnosis) {
            (None, _) => None,
            (Some(_), Some((_, reason, remedy))) => Some((reason, remedy)),
            (Some(errno), None) => Some((Reason::Refused(errno), Remedy::LoosenContainer)),
        })
    }

    async fn start_cell(
        &self,
        profile: &Profile,
        program: &Program,
        purpose: Purpose,
    ) -> Result<Cell, LaunchError> {
        let plan = plan::plan(profile, program, &self.shared.layout, purpose)?;
        loop {
            let (zygote, restarted) = self.shared.seat.zygote()?;
            match begin::launch(&zygote, &plan, profile, program).await {
                Ok(cell) => {
                    self.shared.seat.settled();
                    return Ok(cell);
                }
                // Nothing was sent, so nothing can have happened twice. The seat bounds how often
                // this goes on.
                Err(Refusal::NotSent) => {
                    tracing::warn!(restarted, "the zygote is gone, starting another");
                    self.shared.seat.vacate(&zygote);
                }
                Err(refusal) => {
                    if matches!(refusal, Refusal::Lost) {
                        self.shared.seat.vacate(&zygote);
                    }
                    return Err(refusal.into_error(&plan, &host::facts(), program));
                }
            }
        }
    }
}

/// The levels above standard promise layers that this version can't build.
fn refuse_unbuilt(level: Level) -> Result<(), LaunchError> {
    match level.layers().iter().copied().find(|layer| doctor::is_unbuilt(*layer)) {
        None => Ok(()),
        Some(layer) => Err(LaunchError::Unavailable {
            layer,
            reason: Reason::NotBuilt,
            remedy: Remedy::ChooseLevel(Level::Standard),
        }),
    }
}

/// What a wait status says, for the report.
pub(crate) fn ending(status: i32) -> crate::report::End {
    match crate::linux::sys::process::ending(status) {
        Ending::Exited(code) => crate::report::End::Exited(code),
        Ending::Signalled(signal) => crate::report::End::Signalled(signal),
    }
}
