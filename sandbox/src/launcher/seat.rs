//! The zygote's seat: who sits there, and how often it may be taken anew.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::offers::{Offer, Offers};
use crate::{
    error::{LaunchError, LauncherError},
    limits,
    linux::sys::{
        event,
        socket::{self, Wait},
    },
    zygote::{
        entry::{self, Kind},
        protocol::{RECORD, Record, Request},
        stranger::is_mortal,
    },
};

/// A running zygote. Dropping it ends it, and with it all of its cells.
#[derive(Debug)]
pub(crate) struct Zygote {
    control: OwnedFd,
    /// Where it is told which of its prepared cells are used.
    claims: OwnedFd,
    process: Child,
    /// Readable when it's dead. None where the system had none to give.
    pidfd: Option<OwnedFd>,
    /// What its kernel gives.
    abilities: Abilities,
    offers: Mutex<Offers>,
    /// How many pools it has been told of.
    told: AtomicUsize,
    /// Whether somebody has waited for its answer in vain.
    is_given_up: AtomicBool,
}

/// What the host's kernel gives, as the zygote found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Abilities {
    /// The version of Landlock; 0 for none.
    pub(crate) landlock: u32,
    /// System call filters that can ask.
    pub(crate) filters: bool,
    /// The controllers that can't be had; see `linux/cgroup/missing.rs`.
    pub(crate) missing_controllers: u64,
    /// Whether each cell gets an outer id of its own.
    pub(crate) own_ids: bool,
    /// Whether zygote and host may end processes that have left root.
    pub(crate) mortal: bool,
}

impl Zygote {
    fn start(kind: Kind) -> Result<Self, LauncherError> {
        if !entry::is_linked() {
            return Err(LauncherError::Silent);
        }
        let pair = || socket::pair().map_err(|source| LauncherError::Socket { source });
        let ((control, theirs), (claims, their_claims)) = (pair()?, pair()?);
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a process starts outside of a cell"
        )]
        let process = std::process::Command::new("/proc/self/exe")
            .arg0("neuroflow")
            .arg(kind.summons())
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| LauncherError::Spawn { source })?;
        let abilities = Abilities::default();
        let (offers, told) = (Mutex::default(), AtomicUsize::new(0));
        let pidfd = event::pidfd(process.id().cast_signed()).ok();
        let is_given_up = AtomicBool::new(false);
        let mut zygote =
            Self { control, claims, process, pidfd, abilities, offers, told, is_given_up };
        zygote.abilities = zygote.await_hello()?;
        let (header, beside) = (Request::Heed.header(), [their_claims.as_fd()]);
        socket::send(zygote.control(), [&header, &[]], &beside, Wait::No)
            .map_err(|source| LauncherError::Socket { source })?;
        Ok(zygote)
    }

    fn await_hello(&self) -> Result<Abilities, LauncherError> {
        let patience = i32::try_from(limits::HELLO_WAIT.as_millis()).unwrap_or(i32::MAX);
        let mut record = [0; RECORD];
        let heard = event::is_readable(self.control(), patience)
            .and_then(|_ready| socket::receive(self.control(), &mut record, Wait::No));
        let Ok(received) = heard else { return Err(LauncherError::Silent) };
        let Some(Record::Hello { landlock, filters, groups, own_ids, mortal }) =
            Record::parse(&record)
        else {
            return Err(LauncherError::Silent);
        };
        let [process, ..] = &received.passed;
        let mortal = mortal && process.as_ref().is_none_or(|process| is_mortal(process.as_fd()));
        Ok(Abilities { landlock, filters, missing_controllers: groups, own_ids, mortal })
    }

    pub(super) fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// Whether it's dead already. Its socket may tell that a little later, when it died while it forked.
    pub(super) fn is_dead(&self) -> bool {
        self.waits_for_end(0)
    }

    /// Nobody asks it for another cell. Those that it has keep it alive, and it ends with the last.
    pub(crate) fn give_up(&self) {
        if !self.is_given_up.swap(true, Ordering::AcqRel) {
            tracing::error!(pid = self.pid(), "the zygote hangs and is given up");
        }
    }

    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    fn waits_for_end(&self, milliseconds: i32) -> bool {
        let ended =
            self.pidfd.as_ref().map(|pidfd| event::is_readable(pidfd.as_fd(), milliseconds));
        ended == Some(Ok(true))
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    pub(super) fn told(&self) -> &AtomicUsize {
        &self.told
    }

    /// A prepared cell of that pool, if one is offered; see [`Offers::take`].
    pub(super) fn offer(&self, key: u16, announced: bool) -> Option<Offer> {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.take(self.control(), key, announced)
    }

    pub(super) fn claims(&self) -> BorrowedFd<'_> {
        self.claims.as_fd()
    }

    pub(super) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Told by the end of the conversation, it ends its cells and takes their groups away, which
        // is short work. Cells are tied to its life by the kernel, so killing it ends them too. The
        // calls fail only if it is gone and reaped.
        socket::hang_up(self.control()).ok();
        let patience = i32::try_from(limits::GOODBYE_WAIT.as_millis()).unwrap_or(i32::MAX);
        if self.is_given_up() || !self.waits_for_end(patience) {
            self.process.kill().ok();
            // One that is stuck in the kernel doesn't hear even that, and stays for whoever reaps the host
            // program's children.
            if self.pidfd.is_some() && !self.waits_for_end(patience) {
                return;
            }
        }
        self.process.wait().ok();
    }
}

/// Holds the zygote of a launcher, which is started when it's first needed.
#[derive(Debug)]
pub(super) struct Seat {
    kind: Kind,
    /// Held for moments only.
    state: Mutex<State>,
    /// Held by whoever starts a zygote, which takes a while.
    starting: Mutex<()>,
}

/// A zygote, and how many new ones there were in a row.
pub(super) type Present = (Arc<Zygote>, u32);

#[derive(Debug)]
struct State {
    zygote: Option<Arc<Zygote>>,
    /// New zygotes since a cell last started.
    restarts: u32,
    /// Whether there was none yet.
    is_first: bool,
}

impl Seat {
    pub(super) fn empty(kind: Kind) -> Self {
        Self::with(kind, State { zygote: None, restarts: 0, is_first: true })
    }

    pub(super) fn occupied(kind: Kind) -> Result<Self, LauncherError> {
        let zygote = Some(Arc::new(Zygote::start(kind)?));
        Ok(Self::with(kind, State { zygote, restarts: 0, is_first: false }))
    }

    fn with(kind: Kind, state: State) -> Self {
        Self { kind, state: Mutex::new(state), starting: Mutex::new(()) }
    }

    /// The zygote that sits there, and how many new ones there were in a row; and the one that is given
    /// up. Whoever drops that one may have to wait.
    pub(super) fn look(&self) -> (Option<Present>, Option<Arc<Zygote>>) {
        let mut state = self.lock();
        let given_up = state.zygote.take_if(|zygote| zygote.is_given_up());
        let present = state.zygote.as_ref().map(|zygote| (Arc::clone(zygote), state.restarts));
        (present, given_up)
    }

    fn present(&self) -> Option<Present> {
        let (present, given_up) = self.look();
        drop(given_up);
        present
    }

    /// The same, or a new one. Blocks while one starts, at worst for [`limits::HELLO_WAIT`].
    pub(super) fn zygote(&self) -> Result<(Arc<Zygote>, u32), LaunchError> {
        if let Some(present) = self.present() {
            return Ok(present);
        }
        let _turn = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been faster.
        if let Some(present) = self.present() {
            return Ok(present);
        }
        let mut state = self.lock();
        if state.restarts >= limits::MAX_RESTARTS {
            return Err(LaunchError::TooManyRestarts { restarts: state.restarts });
        }
        if !std::mem::take(&mut state.is_first) {
            state.restarts += 1;
        }
        drop(state);
        let zygote = Arc::new(Zygote::start(self.kind)?);
        let mut state = self.lock();
        state.zygote = Some(Arc::clone(&zygote));
        Ok((zygote, state.restarts))
    }

    /// A cell has started, so the zygote is sound.
    pub(super) fn settled(&self) {
        self.lock().restarts = 0;
    }

    /// `lost` is dead; unless somebody has replaced it already, the seat is free.
    pub(super) fn vacate(&self, lost: &Arc<Zygote>) {
        let mut state = self.lock();
        let dead = state.zygote.take_if(|zygote| Arc::ptr_eq(zygote, lost));
        drop(state);
        drop(dead);
    }

    /// The state is whole between any two statements, so a panic elsewhere does it no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
