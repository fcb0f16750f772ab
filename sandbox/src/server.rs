//! The sandbox actor: admits requests, and has one supervised actor per cell, which owns it from the
//! launch to the end.

mod cell;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Context, Ended as ChildEnded, GrantId, Header, Moment, Name, Parcel, ReplySink, Request,
    Spawn,
};

use tokio::sync::watch;

use crate::admission::{Admission, Bounds, Decision};
use crate::apart::apart;
use crate::error::LaunchError;
use crate::escape::{Suite, SuiteError};
use crate::exec::{Exec, ExecEvent, ExecRefused, SandboxCommand, Service};
use crate::interpreter::Interpreter;
use crate::launcher::{Launcher, Warm};
use crate::limits;
use crate::meter::{CellMeter, Uncounted};
use crate::profile::Profile;
use cell::{CellActor, Run};

type Replies = ReplySink<Parcel<ExecEvent>>;

/// The sandbox as an actor.
///
/// It doesn't start on a host that can't give the profile's level. Requests that come while as many
/// cells run as may wait, each holder of a capability in a queue of its own.
///
/// ```
/// use neuroflow_kernel::ChildSpec;
/// use neuroflow_sandbox::{Level, Profile, SandboxServer, Warm};
/// let profile = Profile::builder(Level::Strict).build()?;
/// let (spec, _address) = ChildSpec::new("sandbox", move || {
///     let server = SandboxServer::new(profile.clone());
///     server.warm(Warm { least: 2, most: 16 }).cells(32, 256).actor()
/// })?;
/// assert_eq!(spec.name().as_str(), "sandbox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SandboxServer {
    profile: Profile,
    warm: Option<Warm>,
    interpreter: Option<(Interpreter, Warm)>,
    bounds: Bounds,
    meter: Arc<dyn CellMeter>,
    attack_first: bool,
}

impl SandboxServer {
    /// A sandbox whose cells have this profile, unless the capability that a request came through
    /// carries another [`Profile`] as its policy.
    pub fn new(profile: Profile) -> Self {
        let bounds = Bounds {
            running: limits::LIVE_CELLS,
            waiting: limits::WAITING_CELLS,
            waiting_each: limits::WAITING_CELLS / 4,
        };
        let meter = Arc::new(Uncounted);
        Self { profile, warm: None, interpreter: None, bounds, meter, attack_first: false }
    }

    /// Keeps cells of the profile ready.
    #[must_use]
    pub fn warm(mut self, warm: Warm) -> Self {
        self.warm = Some(warm);
        self
    }

    /// Keeps a Python interpreter running, and cells of the profile with forks of it ready. A command
    /// `python3 -I -B -c TEXT`, or with a script's path instead of `-c TEXT`, runs in such a fork.
    ///
    /// ```
    /// use neuroflow_sandbox::{Interpreter, Level, Profile, SandboxServer, Warm};
    /// let profile = Profile::builder(Level::Strict).build()?;
    /// let warm = Warm { least: 1, most: 4 };
    /// let server = SandboxServer::new(profile).interpreter(Interpreter::python(), warm);
    /// # Ok::<(), neuroflow_sandbox::ProfileError>(())
    /// ```
    #[must_use]
    pub fn interpreter(mut self, interpreter: Interpreter, warm: Warm) -> Self {
        self.interpreter = Some((interpreter, warm));
        self
    }

    /// How many cells run at a time, and how many requests may wait for one. One holder of a
    /// capability has a quarter of the places to wait, and at least one.
    #[must_use]
    pub fn cells(mut self, running: usize, waiting: usize) -> Self {
        let running = running.clamp(1, limits::MAX_CELLS);
        self.bounds = Bounds { running, waiting, waiting_each: waiting.div_ceil(4) };
        self
    }

    /// Who counts.
    #[must_use]
    pub fn meter(mut self, meter: Arc<dyn CellMeter>) -> Self {
        self.meter = meter;
        self
    }

    /// Puts another meter around the one that counts.
    #[must_use]
    pub fn meter_around(
        mut self,
        wrap: impl FnOnce(Arc<dyn CellMeter>) -> Arc<dyn CellMeter>,
    ) -> Self {
        self.meter = wrap(self.meter);
        self
    }

    /// Attacks the profile's level on this host with the quick part of the escape suite before the
    /// first program runs; what gets through ends the sandbox. Requests wait for it, a second at
    /// most. A profile that may do without layers is attacked without those that this host lacks.
    ///
    /// Every request is refused with the code `breached` if something got through, and with `unproven`
    /// if the attacks couldn't be made.
    #[must_use]
    pub fn attack_first(mut self, on: bool) -> Self {
        self.attack_first = on;
        self
    }

    /// What its cells may use.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Keeps ready what is to be.
    fn fill(&self, launcher: &Launcher) -> Result<(), LaunchError> {
        if let Some(warm) = self.warm {
            launcher.keep_warm(&self.profile, warm)?;
        }
        if let Some((interpreter, warm)) = &self.interpreter {
            launcher.keep_interpreter_warm(&self.profile, interpreter, *warm)?;
        }
        Ok(())
    }

    /// The actor.
    pub fn actor(self) -> SandboxActor {
        let admission = Admission::new(self.bounds);
        let owners = BTreeMap::new();
        let (server, launcher, verdict) = (self, None, None);
        SandboxActor { server, launcher, verdict, cells: 0, admission, owners }
    }
}

impl From<Profile> for SandboxServer {
    fn from(profile: Profile) -> Self {
        Self::new(profile)
    }
}

/// The running actor of a [`SandboxServer`].
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, SandboxServer};
/// let profile = Profile::builder(Level::Minimal).build()?;
/// let _actor = SandboxServer::new(profile).actor();
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Debug)]
pub struct SandboxActor {
    server: SandboxServer,
    launcher: Option<Launcher>,
    /// What the attacks have shown, if there were to be any.
    verdict: Option<watch::Receiver<Verdict>>,
    cells: u64,
    admission: Admission<GrantId, Waiting>,
    /// Whose the running cells are, by the names of their actors.
    owners: BTreeMap<Name, GrantId>,
}

/// What is known of the level.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is being attacked.
    Open,
    Holds,
    /// It doesn't hold, or nobody knows whether it does: which of the two, as a stable word, and why.
    Fails {
        code: &'static str,
        why: String,
    },
}

/// A request that may have to wait.
#[derive(Debug)]
struct Waiting {
    work: Work,
    profile: Profile,
    header: Header,
    arrived: Moment,
}

/// What is to be run.
#[derive(Debug)]
enum Work {
    Exec(Request<Exec>),
    Serve(Service),
}

impl Work {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Exec(request) => !request.replies.is_closed(),
            Self::Serve(service) => !service.events.is_closed(),
        }
    }

    fn into_replies(self) -> Replies {
        match self {
            Self::Exec(request) => request.replies,
            Self::Serve(service) => service.events,
        }
    }
}

impl SandboxActor {
    async fn begin(&mut self, work: Work, context: &mut Context<SandboxCommand>) {
        let granted = context.grant().and_then(|grant| grant.policy::<Profile>());
        let profile = granted.unwrap_or(&self.server.profile).clone();
        let profile = match work {
            Work::Exec(_) => profile,
            Work::Serve(_) => profile.for_service(),
        };
        let owner = context.header().grant();
        let arrived = context.clock().now();
        let waiting = Waiting { work, profile, header: context.onward(), arrived };
        self.admission.retain(|waiting| waiting.work.is_wanted());
        match self.admission.offer(owner, waiting) {
            Decision::Start(waiting) => self.start(owner, waiting, context).await,
            Decision::Wait => {}
            Decision::Refuse(waiting) => {
                let cells = u64::try_from(self.admission.running()).unwrap_or(u64::MAX);
                self.server.meter.refused("busy");
                refuse(waiting.work.into_replies(), ExecRefused::Busy { cells });
            }
        }
        self.tell_load();
    }

    async fn start(
        &mut self,
        owner: GrantId,
        waiting: Waiting,
        context: &mut Context<SandboxCommand>,
    ) {
        self.cells += 1;
        let name = Name::new(format!("cell-{}", self.cells));
        let (Ok(name), Some(launcher)) = (name, self.launcher.clone()) else {
            return self.admission.ended(owner);
        };
        let Waiting { work, profile, header, arrived } = waiting;
        let deadline = header.deadline();
        if deadline.is_some_and(|deadline| context.clock().now() >= deadline) {
            self.admission.ended(owner);
            self.server.meter.refused("timeout");
            return refuse(work.into_replies(), late("the deadline passed before its turn came"));
        }
        let meter = Arc::clone(&self.server.meter);
        let verdict = self.verdict.clone();
        let run = Run { launcher, profile, work, meter, arrived, deadline, verdict };
        let options = Spawn::default().mailbox(1).stop_within(CELL_STOP);
        match context.spawn(name.clone(), CellActor, options).await {
            Ok(actor) => {
                self.owners.insert(name.clone(), owner);
                // Nothing of the request may stand in the way of a cell's only message: a cell that
                // never gets it never ends, and holds its place.
                let own = Header::new().traced(header.trace()).budget(header.remaining_budget());
                if let Err(unsent) = actor.try_tell(own.forward(context.id()), run) {
                    self.undo(&name, unsent.message.work, context).await;
                }
            }
            Err(_stopping) => {
                self.admission.ended(owner);
                refuse(run.work.into_replies(), ExecRefused::Stopping);
            }
        }
    }

    /// Ends a cell that has not begun, and frees its place.
    async fn undo(&mut self, name: &Name, work: Work, context: &mut Context<SandboxCommand>) {
        context.kill_child(name).await;
        // Nobody tells of the end of a child that was killed here.
        if let Some(owner) = self.owners.remove(name) {
            self.admission.ended(owner);
        }
        refuse(work.into_replies(), ExecRefused::Stopping);
    }

    fn tell_load(&self) {
        self.server.meter.load(self.admission.running(), self.admission.waiting());
    }
}

/// Time that a cell's actor gets to end when the sandbox stops; killing a cell takes less.
const CELL_STOP: Duration = Duration::from_millis(500);

/// Attacks the level of a profile, on its terms, and tells the verdict.
async fn attack(launcher: Launcher, profile: Profile, tell: watch::Sender<Verdict>) {
    let level = profile.level();
    let held = match Suite::prepare(&launcher) {
        Ok(suite) => suite.on_terms_of(&profile).hold(level).await,
        Err(error) => Err(error),
    };
    let verdict = match held {
        Ok(()) => Verdict::Holds,
        Err(error) => {
            let (code, why) = (error.code(), told(&error));
            if matches!(error, SuiteError::Breached { .. }) {
                tracing::error!(%level, %why, "the sandbox doesn't hold, and runs nothing");
            } else {
                tracing::error!(%level, %why, "the sandbox isn't shown to hold, and runs nothing");
            }
            Verdict::Fails { code, why }
        }
    };
    tell.send_replace(verdict);
}

impl Actor for SandboxActor {
    type Message = SandboxCommand;
    type Error = LaunchError;
    const KIND: &'static str = "sandbox";

    async fn started(&mut self, context: &mut Context<SandboxCommand>) -> Result<(), LaunchError> {
        let launcher = Launcher::start_async().await?;
        // A level that can't be had is an error now, not when the first program is to run.
        launcher.rehearse(&self.server.profile).await?;
        if self.server.attack_first {
            let (tell, verdict) = watch::channel(Verdict::Open);
            let attack = attack(launcher.clone(), self.server.profile.clone(), tell);
            // Where it can't be made, nothing is proved, and so nothing runs.
            let _unmade = context.task(attack).is_err();
            self.verdict = Some(verdict);
        }
        let (filler, server) = (launcher.clone(), self.server.clone());
        // Filters are compiled for it, which no other actor waits for.
        let filled = apart(move || Ok(server.fill(&filler)));
        filled.await??;
        self.launcher = Some(launcher);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SandboxCommand,
        context: &mut Context<SandboxCommand>,
    ) -> Result<(), LaunchError> {
        let work = match command {
            SandboxCommand::Exec(request) => Work::Exec(request),
            SandboxCommand::Serve(service) => Work::Serve(service),
        };
        self.begin(work, context).await;
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: ChildEnded,
        context: &mut Context<SandboxCommand>,
    ) -> Result<(), LaunchError> {
        // Whoever asked has been told by the end of the reply stream.
        if let Some(owner) = self.owners.remove(&ended.name) {
            self.admission.ended(owner);
        }
        self.admission.retain(|waiting| waiting.work.is_wanted());
        while let Some((owner, waiting)) = self.admission.next() {
            self.start(owner, waiting, context).await;
        }
        self.tell_load();
        Ok(())
    }

    async fn stopping(&mut self, _context: &mut Context<SandboxCommand>) {
        for waiting in self.admission.drain() {
            refuse(waiting.work.into_replies(), ExecRefused::Stopping);
        }
    }
}

fn refuse(replies: Replies, refused: ExecRefused) {
    if let Ok(parcel) = Parcel::archive(&ExecEvent::Refused(refused))
        && replies.try_send(parcel).is_ok()
    {
        replies.finish();
    }
}

/// The program doesn't run, because nobody waits for it any more.
fn late(message: &str) -> ExecRefused {
    ExecRefused::Launch { code: "timeout".to_owned(), message: message.to_owned() }
}

/// An error and its causes in one line.
fn told(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}
