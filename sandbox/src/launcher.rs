//! Starts cells. Owns the zygotes, and gets new ones when they die.

mod begin;
mod claim;
mod draft;
mod host;
mod offers;
mod seat;
mod survey;
mod warm;

use std::{ffi::OsStr, path::PathBuf, sync::Arc};

use crate::{
    apart::apart,
    diagnosis::{Facts, Reason, Remedy, diagnose},
    doctor::Finding,
    error::{LaunchError, LauncherError},
    interpreter::Interpreter,
    level::{Layer, Level},
    linux::sys::process::Ending,
    plan::{self, Purpose},
    profile::Profile,
    program::Program,
    running::Running,
    zygote::entry::Kind,
};
use begin::{Refusal, Terms};
pub(crate) use claim::Claim;
use draft::{Draft, Filters};
use offers::Offer;
use seat::Seat;
pub(crate) use seat::Zygote;
use warm::Pools;
pub use warm::Warm;

/// Starts programs in cells.
///
/// One launcher serves a whole host program: a clone is another handle on the same zygote. The
/// zygote ends, and all cells with it, when the last launcher and the last [`Running`] are gone, or
/// when the host program dies. Whoever drops the last one waits while it takes its groups away: some
/// milliseconds, and [`limits::GOODBYE_WAIT`](crate::limits::GOODBYE_WAIT) at most before it is killed.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_sandbox::{Launcher, Level, Profile, Program};
///
/// let launcher = Launcher::start()?;
/// let profile = Profile::builder(Level::Strict).build()?;
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
    /// Cells with namespaces come from here.
    cells: Seat,
    /// Cells of level minimal come from here; few hosts ever need one.
    minimal: Seat,
    filters: Filters,
    pools: Pools,
}

impl Shared {
    fn seat(&self, kind: Kind) -> &Seat {
        match kind {
            Kind::Minimal => &self.minimal,
            Kind::Cells => &self.cells,
        }
    }
}

/// Whose cells have this level.
fn kind(level: Level) -> Kind {
    if level == Level::Minimal { Kind::Minimal } else { Kind::Cells }
}

impl Launcher {
    /// Starts the zygote. Blocks for some milliseconds, until it says that it is ready.
    ///
    /// # Errors
    ///
    /// When the host's own executable can't be started again, or doesn't answer.
    pub fn start() -> Result<Self, LauncherError> {
        Self::with(Filters::default())
    }

    /// As [`Launcher::start`], for callers that are asynchronous: it waits on a thread of the runtime's
    /// that is there for waiting.
    ///
    /// ```no_run
    /// # async fn doc() -> Result<(), neuroflow_sandbox::LauncherError> {
    /// let launcher = neuroflow_sandbox::Launcher::start_async().await?;
    /// # drop(launcher);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Launcher::start`], and when the runtime is shutting down.
    pub async fn start_async() -> Result<Self, LauncherError> {
        apart(Self::start).await
    }

    /// As [`Launcher::start`], and keeps compiled system call filters in a directory, which the next
    /// host program finds them in. The directory is made if it isn't there; nobody else may be able
    /// to write to it.
    ///
    /// # Errors
    ///
    /// As for [`Launcher::start`], and when the directory can't be used.
    pub fn start_with_cache(directory: impl Into<PathBuf>) -> Result<Self, LauncherError> {
        Self::with(Filters::in_directory(directory.into())?)
    }

    fn with(filters: Filters) -> Result<Self, LauncherError> {
        let shared = Shared {
            cells: Seat::occupied(Kind::Cells)?,
            minimal: Seat::empty(Kind::Minimal),
            filters,
            pools: Pools::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts a program in a cell; returns when the program is loaded and runs. Needs a tokio runtime
    /// that watches descriptors; for a network with an allow-list, one with a timer too.
    ///
    /// Dropping the future ends what it has started.
    ///
    /// # Errors
    ///
    /// A level that this host can't give, a program that can't be executed, or the step that
    /// failed. A launcher that hangs is an error within
    /// [`limits::LAUNCH_WAIT`](crate::limits::LAUNCH_WAIT), or the wall time if that is less, and
    /// [`limits::ANSWER_WAIT`](crate::limits::ANSWER_WAIT).
    pub async fn launch(
        &self,
        profile: &Profile,
        program: &Program,
    ) -> Result<Running, LaunchError> {
        let order = plan::order(profile, program, Purpose::Run)?;
        if program.is_interpreted()
            && let Some(cell) = self.claim(profile, program, &order, true).await?
        {
            return Ok(cell);
        }
        if let Some(cell) = self.claim(profile, program, &order, false).await? {
            return Ok(cell);
        }
        self.start_cell(profile, program, &order).await
    }

    /// Runs the program in a prepared cell, if there is one: in an interpreter's fork if that is
    /// what it `forks`.
    async fn claim(
        &self,
        profile: &Profile,
        program: &Program,
        order: &[u8],
        forks: bool,
    ) -> Result<Option<Running>, LaunchError> {
        while let Some((zygote, offer, degraded)) = self.offer(profile, forks).await? {
            let terms = Terms { profile, program, degraded, order };
            match begin::claim(&zygote, offer, &terms).await {
                Ok(cell) => {
                    self.shared.cells.settled();
                    return Ok(Some(cell));
                }
                // It died while it waited, and has run nothing; there may be another.
                Err(Refusal::NotSent | Refusal::Unserved) => {}
                // So has a fork that didn't come into its cell. What is the program's own fault will
                // show without a fork too.
                Err(Refusal::Failed(failure)) if forks => {
                    tracing::debug!(?failure, "an interpreter's fork has failed");
                }
                Err(refusal) => {
                    return Err(refusal.into_error(&[], &host::facts(), program));
                }
            }
        }
        Ok(None)
    }

    /// Keeps cells of this profile ready, so that a launch with an equal profile waits for nothing
    /// but its program. The first ones are ready some milliseconds later.
    ///
    /// A prepared cell sees the binds' host paths as they were when it was made. One profile is one
    /// pool; saying it again changes the pool's size.
    ///
    /// Blocks for the milliseconds in which the profile's filter is compiled, and for a new zygote if the
    /// last one is gone; asynchronous callers hand it to `tokio::task::spawn_blocking`.
    ///
    /// ```no_run
    /// # fn doc(launcher: &neuroflow_sandbox::Launcher) -> Result<(), Box<dyn std::error::Error>> {
    /// use neuroflow_sandbox::{Level, Profile, Warm};
    ///
    /// let profile = Profile::builder(Level::Strict).build()?;
    /// launcher.keep_warm(&profile, Warm { least: 4, most: 32 })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A level that this host can't give or that has no prepared cells, or too many pools.
    pub fn keep_warm(&self, profile: &Profile, warm: Warm) -> Result<(), LaunchError> {
        self.keep(profile, None, warm)
    }

    /// Keeps an interpreter running, and cells of this profile with forks of it ready, so that
    /// [`Program::python`](crate::Program::python) with an equal profile waits for nothing but its
    /// own text. The first ones are ready when the interpreter has imported its modules; until then,
    /// and whenever none is, such programs start an interpreter of their own.
    ///
    /// The interpreter is one process of some 20 MiB outside of all cells, which runs nothing of
    /// theirs. One that dies is replaced. A waiting cell takes about 1 MiB more than one without a
    /// fork in it.
    ///
    /// An interpreter reads its locale once. So for a profile that sets another (`LANG`, `LC_ALL`,
    /// `LC_CTYPE`), cells are kept without a fork in them, as by [`Launcher::keep_warm`].
    ///
    /// ```no_run
    /// # async fn doc(launcher: &neuroflow_sandbox::Launcher) -> Result<(), Box<dyn std::error::Error>> {
    /// use neuroflow_sandbox::{Interpreter, Level, Profile, Program, Warm};
    ///
    /// let profile = Profile::builder(Level::Strict).build()?;
    /// launcher.keep_interpreter_warm(&profile, &Interpreter::python(), Warm { least: 2, most: 8 })?;
    /// let cell = launcher.launch(&profile, &Program::python("print(1)")).await?;
    /// assert_eq!(cell.collect().await.stdout, b"1\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Launcher::keep_warm`], and when cells have no such interpreter.
    pub fn keep_interpreter_warm(
        &self,
        profile: &Profile,
        interpreter: &Interpreter,
        warm: Warm,
    ) -> Result<(), LaunchError> {
        if !host::has_program(PYTHON) {
            return Err(LaunchError::NoInterpreter { name: PYTHON });
        }
        self.keep(profile, has_usual_locale(profile).then_some(interpreter), warm)
    }

    fn keep(
        &self,
        profile: &Profile,
        interpreter: Option<&Interpreter>,
        warm: Warm,
    ) -> Result<(), LaunchError> {
        let (zygote, _) = self.shared.cells.zygote()?;
        let draft = self.draft(&zygote, profile, interpreter)?;
        self.shared.pools.keep(profile, interpreter, draft, warm)?;
        // A pool that it knows may have changed.
        zygote.told().store(0, std::sync::atomic::Ordering::Release);
        self.shared.pools.tell(&zygote)
    }

    /// Tries on this host what a level needs, layer by layer.
    ///
    /// # Errors
    ///
    /// When the zygote is lost and can't be replaced.
    pub async fn examine(&self, level: Level) -> Result<Vec<Finding>, LaunchError> {
        survey::survey(self, level).await
    }

    /// The process of the zygote that starts cells of this level, if there is one.
    pub(crate) fn zygote_pid(&self, level: Level) -> Option<i32> {
        let (zygote, _) = self.shared.seat(kind(level)).zygote().ok()?;
        Some(zygote.pid())
    }

    pub(crate) async fn rehearse(&self, profile: &Profile) -> Result<(), LaunchError> {
        let program = Program::new("rehearsal");
        let order = plan::order(profile, &program, Purpose::Rehearse)?;
        let cell = self.start_cell(profile, &program, &order).await?;
        let _report = cell.finish().await;
        Ok(())
    }

    pub(crate) async fn probe(
        &self,
        layer: Layer,
        namespaces: u64,
    ) -> Result<Option<(Reason, Remedy)>, LaunchError> {
        let (zygote, _) = self.seated(Kind::Minimal).await?;
        let answer = begin::probe(&zygote, namespaces).await;
        if let Err(Refusal::Lost) = answer {
            self.shared.minimal.vacate(&zygote);
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

    /// A prepared cell for the profile, if there is one, with an interpreter's fork in it or without.
    async fn offer(&self, profile: &Profile, forks: bool) -> Result<Option<Offered>, LaunchError> {
        let Some(pool) = self.shared.pools.of(profile, forks) else { return Ok(None) };
        let (zygote, _) = self.seated(Kind::Cells).await?;
        self.shared.pools.tell(&zygote)?;
        let Some(offer) = zygote.offer(pool.key, forks) else { return Ok(None) };
        // Only a process that is made ahead is watched from its order on.
        let is_urgent = offer.is_urgent || !(pool.ahead || forks);
        Ok(Some((zygote, Offer { is_urgent, ..offer }, pool.degraded)))
    }

    /// The zygote of a seat, a new one if need be, and how many new ones there were in a row. A new one
    /// takes its time, at worst [`limits::HELLO_WAIT`](crate::limits::HELLO_WAIT), which no thread of
    /// the runtime's waits for.
    async fn seated(&self, kind: Kind) -> Result<(Arc<Zygote>, u32), LaunchError> {
        let (present, given_up) = self.shared.seat(kind).look();
        if let Some(present) = present {
            return Ok(present);
        }
        let shared = Arc::clone(&self.shared);
        let started = apart(move || {
            // To end one that hangs takes a while too.
            drop(given_up);
            Ok(shared.seat(kind).zygote())
        });
        started.await?
    }

    /// What this host's kernel gives.
    async fn abilities(&self) -> Result<seat::Abilities, LaunchError> {
        self.seated(Kind::Cells).await.map(|(zygote, _)| zygote.abilities())
    }

    /// Layers of the level that this host can't give, of those that a profile may do without; with
    /// limits of disks, or without.
    pub(crate) async fn lacks(&self, level: Level, io: bool) -> Result<Vec<Layer>, LaunchError> {
        let abilities = self.abilities().await?;
        let lacking = abilities.lacking(level, io).map(|(layer, ..)| layer);
        Ok(lacking.filter(|layer| layer.is_dispensable()).collect())
    }

    fn draft(
        &self,
        zygote: &Zygote,
        profile: &Profile,
        interpreter: Option<&Interpreter>,
    ) -> Result<Draft, LaunchError> {
        Draft::new(profile, zygote.abilities(), &self.shared.filters, interpreter)
    }

    /// A draft for a launch; a filter that isn't at hand is compiled on another thread.
    async fn drafted(&self, zygote: &Zygote, profile: &Profile) -> Result<Draft, LaunchError> {
        let abilities = zygote.abilities();
        if let Some(draft) = Draft::at_hand(profile, abilities, &self.shared.filters)? {
            return Ok(draft);
        }
        let (shared, profile) = (Arc::clone(&self.shared), profile.clone());
        apart(move || Ok(Draft::new(&profile, abilities, &shared.filters, None))).await?
    }

    async fn start_cell(
        &self,
        profile: &Profile,
        program: &Program,
        order: &[u8],
    ) -> Result<Running, LaunchError> {
        let kind = kind(profile.level);
        let seat = self.shared.seat(kind);
        let mut is_repeated = false;
        loop {
            let (zygote, restarted) = self.seated(kind).await?;
            let Draft { plan, degraded, .. } = self.drafted(&zygote, profile).await?;
            let terms = Terms { profile, program, degraded, order };
            match begin::launch(&zygote, &plan, &terms).await {
                Ok(cell) => {
                    seat.settled();
                    return Ok(cell);
                }
                // Nothing was sent, so nothing can have happened twice. The seat bounds how often
                // this goes on.
                Err(Refusal::NotSent) => {
                    tracing::warn!(restarted, "the zygote is gone, starting another");
                    seat.vacate(&zygote);
                }
                // It was sent, and came to nothing. What takes a second zygote along may be in the
                // request.
                Err(Refusal::Unserved) if !is_repeated => {
                    tracing::warn!(
                        restarted,
                        "the zygote has died over a launch, starting another"
                    );
                    is_repeated = true;
                    seat.vacate(&zygote);
                }
                Err(refusal) => {
                    if matches!(refusal, Refusal::Lost | Refusal::Unserved) {
                        seat.vacate(&zygote);
                    }
                    return Err(refusal.into_error(&plan, &host::facts(), program));
                }
            }
        }
    }
}

const PYTHON: &str = "python3";

/// Whether the profile's programs have the locale that a warm interpreter has started with.
fn has_usual_locale(profile: &Profile) -> bool {
    let decides = |name: &OsStr| ["LANG", "LC_ALL", "LC_CTYPE"].iter().any(|known| name == *known);
    profile.variables.iter().all(|(name, value)| !decides(name) || value == plan::LOCALE)
}

/// A prepared cell, whose it is, and what it does without.
type Offered = (Arc<Zygote>, Offer, Vec<Layer>);

/// What a wait status says, for the report.
pub(crate) fn ending(status: i32, usage: &crate::report::Usage) -> crate::report::End {
    match crate::linux::sys::process::ending(status) {
        Ending::Exited(code) => crate::report::End::Exited(code),
        Ending::Signalled(signal) => crate::report::End::of_signal(signal, usage),
    }
}
