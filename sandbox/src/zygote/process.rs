//! The zygote's life: take requests, reap cells, end those whose time is over, end when the host
//! does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{
    cells::Cells,
    entry::CONTROL,
    protocol::{Cause, MAX_REQUEST, Record, Request},
    start,
};
use crate::{
    errno::Errno,
    limits,
    linux::{
        Failure, Identity, sweep,
        sys::{
            self, credentials,
            event::{self, BATCH, Interest, Poller},
            file, process,
            socket::{self, Received, Wait},
        },
    },
    plan::{RESOURCES, Resource},
    step::Step,
};

/// What the zygote knows all its life.
#[derive(Debug)]
pub(super) struct Zygote {
    control: OwnedFd,
    signals: OwnedFd,
    poller: Poller,
    pub(super) pidfd: OwnedFd,
    pub(super) identity: Identity,
    pub(super) ceilings: [u64; RESOURCES],
    pub(super) capabilities: u64,
    pub(super) cells: Cells,
    /// Whether there ever was a cell that can leave orphans here.
    pub(super) adopts: bool,
    /// Counts cells, to give neighbours different ids.
    pub(super) started: u64,
}

/// Runs until the host is gone.
pub(super) fn run() -> ! {
    let code = match settle().and_then(|mut zygote| zygote.serve()) {
        Ok(()) => 0,
        Err(errno) => errno.raw(),
    };
    // Cells are tied to this process and end with it.
    process::exit(code)
}

/// Cuts what ties this process to the host's surroundings.
fn settle() -> sys::Result<Zygote> {
    credentials::set_dumpable(false)?;
    file::close_range(3, u32::MAX)?;
    event::zygote_signals();
    // Already leading a session is as good.
    credentials::start_session().ok();
    file::enter(c"/")?;
    credentials::set_file_mask();
    credentials::leave_keyring()?;
    // Orphans of a minimal cell that has lost its keeper come here.
    credentials::adopt_orphans()?;
    let mut ceilings = [0; RESOURCES];
    for (ceiling, resource) in ceilings.iter_mut().zip(Resource::ALL) {
        *ceiling = credentials::hard_limit(resource)?;
        if resource == Resource::OpenFiles {
            // One descriptor per cell; the host's soft limit is for the host.
            credentials::set_limit(resource, *ceiling)?;
        }
    }
    let (user, group) = credentials::effective_ids();
    let (users, groups) = (read_small(c"/proc/self/uid_map")?, read_small(c"/proc/self/gid_map")?);
    let zygote = Zygote {
        control: file::inherited(CONTROL)?,
        signals: event::child_signals()?,
        poller: Poller::new()?,
        pidfd: event::own_pidfd()?,
        identity: Identity::choose(user, group, &users, &groups),
        ceilings,
        capabilities: credentials::capability_count(),
        cells: Cells::default(),
        adopts: false,
        // Zygotes of one machine begin at different places of the range, so that they rarely share
        // an id.
        started: u64::from(process::own_pid().unsigned_abs()).wrapping_mul(ID_STRIDE),
    };
    zygote.poller.add(zygote.control.as_fd(), Interest::Readable, CONTROL_TOKEN)?;
    zygote.poller.add(zygote.signals.as_fd(), Interest::Readable, SIGNAL_TOKEN)?;
    socket::send(zygote.control.as_fd(), [&Record::Hello.encode(), &[]], &[], Wait::No)?;
    Ok(zygote)
}

fn read_small(path: &std::ffi::CStr) -> sys::Result<Vec<u8>> {
    let file = file::open(path, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut bytes = vec![0; 4096];
    let length = file::read(file.as_fd(), &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

impl Zygote {
    /// Returns when the host has let go of the control socket.
    fn serve(&mut self) -> sys::Result<()> {
        let mut buffer = vec![0; MAX_REQUEST];
        let mut tokens = [0; BATCH];
        loop {
            let patience = self.cells.until_next_deadline(event::now());
            let ready = match self.poller.wait(&mut tokens, patience) {
                Ok(ready) => ready,
                Err(errno) if errno.raw() == libc::EINTR => 0,
                Err(errno) => return Err(errno),
            };
            for token in tokens.iter().copied().take(ready) {
                match token {
                    CONTROL_TOKEN if !self.take_request(&mut buffer)? => {
                        self.end_all();
                        return Ok(());
                    }
                    CONTROL_TOKEN => {}
                    SIGNAL_TOKEN => self.reap()?,
                    pid => self.abandon(i32::try_from(pid).unwrap_or_default()),
                }
            }
            for pid in self.cells.take_overdue(event::now()) {
                self.end(pid);
            }
        }
    }

    /// False when the host is gone.
    fn take_request(&mut self, buffer: &mut [u8]) -> sys::Result<bool> {
        let received = match socket::receive(self.control.as_fd(), buffer, Wait::No) {
            Ok(received) => received,
            Err(errno) if [libc::EAGAIN, libc::EINTR].contains(&errno.raw()) => return Ok(true),
            // Too long: nobody of ours sends such, and there is nobody to answer to.
            Err(errno) if errno.raw() == libc::EMSGSIZE => return Ok(true),
            Err(errno) if errno.raw() == libc::ECONNRESET => return Ok(false),
            Err(errno) => return Err(errno),
        };
        let Received { length, passed } = received;
        if length == 0 {
            return Ok(false);
        }
        match Request::parse(buffer.get(..length).unwrap_or_default()) {
            Some(Request::Launch { plan }) => self.launch(plan, passed),
            Some(Request::LaunchFromFile { length }) => self.launch_from_file(length, passed),
            Some(Request::Probe { namespaces }) => start::probe(namespaces, passed),
            None => {}
        }
        Ok(true)
    }

    fn launch_from_file(&mut self, length: usize, mut passed: start::Passed) {
        let mut plan = vec![0; length];
        let read = match passed.last_mut().and_then(Option::take) {
            Some(file) => file::read_sealed(file.as_fd(), &mut plan),
            None => Err(Errno::from_raw(libc::EBADF)),
        };
        match read {
            Ok(()) => self.launch(&plan, passed),
            Err(errno) => refuse(&passed, Failure { step: Step::ReadPlan, errno, detail: 0 }),
        }
    }

    fn launch(&mut self, plan: &[u8], passed: start::Passed) {
        if self.cells.len() >= limits::MAX_CELLS {
            let errno = Errno::from_raw(libc::EAGAIN);
            return refuse(&passed, Failure { step: Step::AdmitCell, errno, detail: 0 });
        }
        let Some((pid, cell)) = start::cell(self, plan, passed) else { return };
        let watched = self.poller.add(cell.report.as_fd(), Interest::HangUp, token(pid));
        self.cells.insert(pid, cell);
        if watched.is_err() {
            // Without the watch nobody would notice that the host has lost interest.
            self.abandon(pid);
        }
    }

    /// Reports every cell that ended.
    fn reap(&mut self) -> sys::Result<()> {
        let mut drained = [0; 128];
        while file::read(self.signals.as_fd(), &mut drained).is_ok() {}
        let mut orphans = false;
        // Without a minimal cell, a child that is nobody's first process is a short-lived helper of
        // ours.
        loop {
            let ended = match process::reap(false) {
                Ok(Some(ended)) => ended,
                Ok(None) => break,
                Err(errno) if errno.raw() == libc::ECHILD => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let Some(cell) = self.cells.remove(ended.pid) else {
                orphans = true;
                continue;
            };
            if cell.minimal {
                orphans = true;
                self.sweep();
            }
            // It isn't watched any more if it was abandoned.
            self.poller.remove(cell.report.as_fd()).ok();
            let record = Record::Reaped { cause: cell.cause, usage: ended.usage };
            tell(cell.report.as_fd(), record);
        }
        if orphans && self.adopts {
            self.sweep();
        }
        Ok(())
    }

    /// Ends children that are nobody's first process.
    fn sweep(&self) {
        // Without a readable /proc the sweep can't be done; the keeper has done its own or died
        // with its cell.
        sweep(|pid| self.cells.contains(pid)).ok();
    }

    /// The host has let go of the cell without waiting for its end.
    fn abandon(&mut self, pid: i32) {
        let Some(cell) = self.cells.get_mut(pid) else { return };
        self.poller.remove(cell.report.as_fd()).ok();
        if cell.cause == Cause::None {
            cell.cause = Cause::Abandoned;
        }
        self.end(pid);
    }

    fn end(&mut self, pid: i32) {
        let minimal = self.cells.get_mut(pid).is_some_and(|cell| cell.minimal);
        // A keeper that its program has stopped goes on, to hear that it shall end.
        let signals: &[i32] =
            if minimal { &[libc::SIGTERM, libc::SIGCONT] } else { &[libc::SIGKILL] };
        for signal in signals {
            // The process is ours and not reaped, so the number is still its own; it may have ended
            // already.
            process::kill(pid, *signal).ok();
        }
    }

    fn end_all(&mut self) {
        let pids: Vec<i32> = self.cells.pids().collect();
        for pid in pids {
            self.end(pid);
        }
    }
}

/// Tells the host. If it doesn't listen any more it doesn't want to know.
pub(super) fn tell(report: BorrowedFd<'_>, record: Record) {
    socket::send(report, [&record.encode(), &[]], &[], Wait::No).ok();
}

pub(super) fn refuse(passed: &start::Passed, Failure { step, errno, detail }: Failure) {
    if let Some(report) = passed.get(start::REPORT).and_then(Option::as_ref) {
        tell(report.as_fd(), Record::Failed { step, errno, detail });
    }
}

fn token(pid: i32) -> u64 {
    pid.unsigned_abs().into()
}

/// Odd, so that process ids spread over the whole range.
const ID_STRIDE: u64 = 509;
/// Process ids end far below.
const CONTROL_TOKEN: u64 = u64::MAX;
const SIGNAL_TOKEN: u64 = u64::MAX - 1;
