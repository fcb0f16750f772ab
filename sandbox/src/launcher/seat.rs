//! The zygote's seat: who sits there, and how often it may be taken anew.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{LaunchError, LauncherError},
    limits,
    linux::sys::{
        event,
        socket::{self, Wait},
    },
    zygote::{
        entry,
        protocol::{RECORD, Record},
    },
};

/// A running zygote. Dropping it ends it, and with it all of its cells.
#[derive(Debug)]
pub(crate) struct Zygote {
    control: OwnedFd,
    process: Child,
}

impl Zygote {
    fn start() -> Result<Self, LauncherError> {
        if !entry::is_linked() {
            return Err(LauncherError::Silent);
        }
        let (control, theirs) =
            socket::pair().map_err(|source| LauncherError::Socket { source })?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a process starts outside of a cell"
        )]
        let process = std::process::Command::new("/proc/self/exe")
            .arg0("neuroflow")
            .arg(entry::SUMMONS)
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| LauncherError::Spawn { source })?;
        let zygote = Self { control, process };
        zygote.await_hello()?;
        Ok(zygote)
    }

    fn await_hello(&self) -> Result<(), LauncherError> {
        let patience = i32::try_from(limits::HELLO_WAIT.as_millis()).unwrap_or(i32::MAX);
        let mut record = [0; RECORD];
        let heard = event::is_readable(self.control(), patience)
            .and_then(|_ready| socket::receive(self.control(), &mut record, Wait::No));
        match heard {
            Ok(_) if Record::parse(&record) == Some(Record::Hello) => Ok(()),
            _ => Err(LauncherError::Silent),
        }
    }

    pub(super) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Cells are tied to the zygote's life by the kernel, so this ends them too; and it ends at
        // once, so that waiting for it is short. Both calls fail only if it is gone and reaped.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Holds the zygote of a launcher.
#[derive(Debug)]
pub(super) struct Seat {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    zygote: Option<Arc<Zygote>>,
    /// New zygotes since a cell last started.
    restarts: u32,
}

impl Seat {
    pub(super) fn occupied() -> Result<Self, LauncherError> {
        let zygote = Some(Arc::new(Zygote::start()?));
        Ok(Self { state: Mutex::new(State { zygote, restarts: 0 }) })
    }

    /// The zygote, a new one if need be, and how many new ones there were in a row.
    pub(super) fn zygote(&self) -> Result<(Arc<Zygote>, u32), LaunchError> {
        let mut state = self.lock();
        if let Some(zygote) = &state.zygote {
            return Ok((Arc::clone(zygote), state.restarts));
        }
        if state.restarts >= limits::MAX_RESTARTS {
            return Err(LaunchError::TooManyRestarts { restarts: state.restarts });
        }
        state.restarts += 1;
        let zygote = Arc::new(Zygote::start()?);
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
