//! The zygote's life: take requests, fill the stocks, end when the host does. How it begins is in
//! [`settle`], how cells end in [`end`]; all of it is one loop over one state.

mod end;
mod settle;

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    cells::{Cell, Cells},
    entry::Kind,
    interpreters::Interpreters,
    nursery::Nursery,
    pools::Pools,
    protocol::{MAX_REQUEST, Pool, REQUEST_HEADER, Record, Request},
    seedlings, start,
    stock::{Due, Stock},
};
use crate::{
    errno::Errno,
    limits,
    linux::{
        Failure,
        cgroup::Group,
        sys::{
            self,
            event::{self, BATCH, Interest, Poller},
            file, process,
            socket::{self, Received, Wait},
        },
    },
    plan::{Plan, RESOURCES},
    step::Step,
};

/// What the zygote knows all its life.
#[derive(Debug)]
pub(super) struct Zygote {
    control: OwnedFd,
    /// Where the host says which prepared cells it uses. Nobody waits at it: to be woken beside a program
    /// that begins is felt there, on a machine with few processors.
    claims: Option<OwnedFd>,
    signals: OwnedFd,
    poller: Poller,
    pub(super) pidfd: OwnedFd,
    pub(super) null: OwnedFd,
    /// What cells with namespaces come from, or why there is none; `None` for a zygote of the other
    /// kind of cells.
    pub(super) nursery: Option<Result<Nursery, Failure>>,
    pools: Pools,
    pub(super) interpreters: Interpreters,
    pub(super) stock: Stock,
    pub(super) ceilings: [u64; RESOURCES],
    pub(super) capabilities: u64,
    pub(super) cells: Cells,
    /// Whether there ever was a cell that can leave orphans here.
    pub(super) adopts: bool,
    /// Counts cells, to give neighbours different ids.
    pub(super) started: u64,
    /// Whether groups wait for their removal.
    untidy: bool,
    /// When a cell was last started or reaped.
    last_event: u64,
    /// Cells that were started since everything was in stock and tidy.
    unrested: u32,
    /// Mount tables of cells that are gone.
    ruins: Vec<OwnedFd>,
    /// Where a first process made ahead takes its plan. Never written to here: such a process has a copy of
    /// no more of it than it writes to, and needs no memory of its own for what may come.
    pub(super) room: Vec<u8>,
}

/// Runs until the host is gone.
pub(super) fn run(kind: Kind) -> ! {
    let served = settle::settle(kind).and_then(|mut zygote| {
        let served = zygote.serve();
        zygote.leave();
        served
    });
    let code = served.err().map_or(0, Errno::raw);
    // Cells are tied to this process and end with it.
    process::exit(code)
}

impl Zygote {
    /// Returns when the host has let go of the control socket.
    fn serve(&mut self) -> sys::Result<()> {
        let mut buffer = vec![0; MAX_REQUEST];
        let mut tokens = [0; BATCH];
        loop {
            // What is made ahead is made while nobody waits for anything.
            let patience = if self.prepare() { Some(0) } else { self.patience() };
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
                    token if token > FIRST_INTERPRETER_TOKEN => self.hear(token),
                    token if token & ALARM != 0 => self.rang(token & !ALARM),
                    pid => self.abandon(i32::try_from(pid).unwrap_or_default()),
                }
            }
            let now = event::now();
            for pid in self.cells.take_overdue(now) {
                self.end(pid);
            }
            for (pid, again) in self.cells.take_lasting(now) {
                self.strike(pid, again);
            }
            for (pid, rings_on) in self.cells.take_looks(now) {
                self.look(pid, rings_on);
            }
        }
    }

    fn patience(&self) -> Option<u64> {
        let now = event::now();
        let deadline = self.cells.until_next_deadline(now);
        let lasting = self.cells.until_next_lasting(now);
        let look = self.cells.until_next_look(now);
        let hungry = self.pools.until_hungry(|at| self.interpreters.is_ready(at), now);
        let pool = [self.pools.until_sated(now), hungry];
        let tidying = self.untidy.then_some(TIDY_PAUSE);
        let rest = (self.unrested > 0).then(|| self.until_rest(now));
        let interpreter = self.interpreters.until_due(now);
        let pool = pool.into_iter().flatten();
        deadline
            .into_iter()
            .chain(lasting)
            .chain(look)
            .chain(pool)
            .chain(tidying)
            .chain(interpreter)
            .chain(rest)
            .min()
    }

    /// Nanoseconds until there is time for the stock: a cell that begins, and a host that has just
    /// heard of an end, are slower while the zygote works beside them, on the same locks and
    /// processors. Many cells at once leave no such time, and then it is taken.
    fn until_rest(&self, now: u64) -> u64 {
        if self.unrested >= limits::MOST_UNRESTED {
            return 0;
        }
        let busy = self.cells.any_busy();
        let pause = if busy { limits::REFILL_PAUSE } else { limits::REST_PAUSE };
        let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        self.last_event.saturating_add(pause).saturating_sub(now)
    }

    /// Does one piece of work that nobody waits for. Whether there may be more.
    fn prepare(&mut self) -> bool {
        if let Some((at, modules)) = self.interpreters.due(event::now()) {
            let modules = modules.to_owned();
            self.start_interpreter(at, &modules);
            return true;
        }
        let key = match self.pools.hungry(|at| self.interpreters.is_ready(at), event::now()) {
            Some((key, plan)) => {
                let plan = plan.to_vec();
                self.prepare_cell(key, &plan);
                return true;
            }
            None => self.pools.sated(event::now()),
        };
        if let Some(key) = key {
            self.release(key);
        }
        if self.until_rest(event::now()) > 0 {
            return false;
        }
        let Some(Ok(nursery)) = &mut self.nursery else {
            self.unrested = 0;
            return false;
        };
        // A stock only saves time: who needs something hears why there is none.
        if nursery.templates.stock()
            || nursery.networks.stock().unwrap_or(false)
            || nursery.stock_group()
        {
            return true;
        }
        if self.stock_seedling() {
            return true;
        }
        if self.ruins.pop().is_some() {
            return true;
        }
        if let Some(Ok(nursery)) = &mut self.nursery {
            self.untidy = !nursery.tidy();
        }
        self.unrested = 0;
        false
    }

    /// Gives up the cells that wait beyond what their pool should have.
    fn release(&mut self, key: u16) {
        self.hear_claims();
        let surplus = usize::from(self.pools.surplus(key));
        let pids: Vec<i32> = self.cells.waiting_in(key).take(surplus).collect();
        for pid in pids {
            // From here on the host can't give it an order, and says of an earlier one before it does.
            if let Some(report) = self.cells.get_mut(pid).and_then(|cell| cell.report.as_ref()) {
                socket::refuse_more(report.as_fd()).ok();
            }
            self.hear_claims();
            if self.cells.give_up(pid) {
                self.pools.released(key);
                self.abandon(pid);
            }
        }
    }

    /// Brings the stock of first processes nearer to what it should be. Whether it did.
    fn stock_seedling(&mut self) -> bool {
        let room = self.cells.len() < limits::MAX_CELLS;
        match self.stock.due(self.cells.seedlings()) {
            Some(Due::Make(sort)) if room => {
                let sort = sort.clone();
                match seedlings::make(self, sort) {
                    Ok((pid, cell)) => self.admit(pid, cell),
                    Err(_refused) => self.stock.withered(),
                }
                true
            }
            Some(Due::End(pid)) => {
                if let Some(cell) = self.cells.get_mut(pid) {
                    cell.seedling = None;
                }
                self.end(pid);
                true
            }
            _ => false,
        }
    }

    fn start_interpreter(&mut self, at: usize, modules: &CStr) {
        match start::interpreter(self, modules) {
            Ok((pid, door)) => {
                let token = FIRST_INTERPRETER_TOKEN + 1 + at as u64;
                // If that can't be had, it never gets ready.
                self.poller.add(door.as_fd(), Interest::Readable, token).ok();
                self.interpreters.started(at, pid, door);
            }
            Err(_refused) => self.interpreters.failed(at, event::now()),
        }
    }

    /// An interpreter says once that it is ready; anything else is its end, which comes as a signal
    /// too.
    fn hear(&mut self, token: u64) {
        let at = usize::try_from(token - FIRST_INTERPRETER_TOKEN - 1).unwrap_or(usize::MAX);
        let Some(door) = self.interpreters.door(at) else { return };
        let heard = socket::receive(door, &mut [0; 16], Wait::No);
        self.poller.remove(door).ok();
        if heard.is_ok_and(|received| received.length > 0) {
            self.interpreters.ready(at);
            self.pools.forgive(at);
        }
    }

    fn prepare_cell(&mut self, key: u16, plan: &[u8]) {
        // A claim goes by the process id, which may come round again.
        self.hear_claims();
        let started = match Plan::parse(plan) {
            Some(plan) if self.cells.len() < limits::MAX_CELLS => start::waiting(self, plan),
            _ => return self.pools.failed(key),
        };
        let Ok((started, host)) = started else { return self.pools.failed(key) };
        let record = Record::Prepared { key, cell: started.pid.unsigned_abs() }.encode();
        let passed = [Some(host.as_fd()), Some(started.pidfd.as_fd())];
        let passed = passed.into_iter().chain([started.egress.as_ref().map(AsFd::as_fd)]);
        let passed: Vec<BorrowedFd<'_>> = passed.flatten().collect();
        let offered = socket::send(self.control.as_fd(), [&record, &[]], &passed, Wait::No);
        let mut cell = started.cell;
        cell.pool = Some(key);
        self.pools.made(key);
        self.admit(started.pid, cell);
        if offered.is_err() {
            // The host has more offers than it takes.
            self.pools.failed(key);
            self.end(started.pid);
        }
    }

    fn admit(&mut self, pid: i32, mut cell: Cell) {
        // A zygote without privileges may not; then the cell's last process takes it apart.
        cell.mounts = start::mounts_of(pid);
        if cell.pool.is_none() && cell.seedling.is_none() {
            self.last_event = event::now();
            self.unrested = self.unrested.saturating_add(1);
        }
        let report = cell.report.as_ref().map(AsFd::as_fd);
        let watched =
            report.map_or(Ok(()), |report| self.poller.add(report, Interest::HangUp, token(pid)));
        if let Some(alarm) = cell.group.as_ref().and_then(Group::alarm) {
            // Without it, what the kernel leaves of a starved cell lives until its own end.
            self.poller.add(alarm, Interest::Readable, token(pid) | ALARM).ok();
        }
        self.cells.insert(pid, cell);
        if watched.is_err() {
            // Without the watch nobody would notice that the host has lost interest.
            self.abandon(pid);
        }
    }

    /// Takes what the host has said of prepared cells.
    fn hear_claims(&mut self) {
        let mut bytes = [0; REQUEST_HEADER];
        // The socket holds fewer.
        for _ in 0..limits::MAX_CELLS {
            let heard = self
                .claims
                .as_ref()
                .map(|claims| socket::receive(claims.as_fd(), &mut bytes, Wait::No));
            if !matches!(heard, Some(Ok(received)) if received.length > 0) {
                return;
            }
            if let Some(Request::Claimed { cell, milliseconds }) = Request::parse(&bytes) {
                self.claimed(cell, milliseconds);
            }
        }
    }

    fn claimed(&mut self, cell: u32, milliseconds: u32) {
        let now = event::now();
        let deadline = now.saturating_add(u64::from(milliseconds).saturating_mul(1_000_000));
        let pid = i32::try_from(cell).unwrap_or_default();
        if let Some(key) = self.cells.claim(pid, deadline) {
            self.pools.claimed(key, now);
            if let Some(at) = self.pools.interpreter(key) {
                self.interpreters.settled(at);
            }
        }
    }

    fn keep(&mut self, pool: Pool, plan: &[u8]) {
        let Some(parsed) = Plan::parse(plan).filter(|plan| !plan.minimal) else { return };
        if self.nursery.is_none() {
            return;
        }
        let interpreter = match parsed.interpreter().map(|modules| self.interpreters.want(modules))
        {
            // More than this zygote may have: their programs start without.
            Some(None) => return,
            wanted => wanted.flatten(),
        };
        self.pools.keep(pool, plan, interpreter, event::now());
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
            Some(Request::Launch { plan, order }) => self.launch(plan, order, passed),
            Some(Request::LaunchFromFile { plan, length }) => {
                self.launch_from_file(plan, length, passed);
            }
            Some(Request::Probe { namespaces }) => start::probe(namespaces, passed),
            Some(Request::Prepare { pool, plan }) => self.keep(pool, plan),
            Some(Request::Claimed { cell, milliseconds }) => self.claimed(cell, milliseconds),
            Some(Request::Heed) => {
                let [claims, ..] = passed;
                self.claims = claims.or_else(|| self.claims.take());
                self.hear_claims();
            }
            // Those are for cells.
            Some(Request::Run { .. } | Request::RunFromFile { .. } | Request::Become { .. })
            | None => {}
        }
        Ok(true)
    }

    fn launch_from_file(&mut self, plan: usize, length: usize, mut passed: start::Passed) {
        let mut bytes = vec![0; length];
        let read = match passed.last_mut().and_then(Option::take) {
            Some(file) => file::read_sealed(file.as_fd(), &mut bytes),
            None => Err(Errno::from_raw(libc::EBADF)),
        };
        match read {
            Ok(()) => {
                let (plan, order) = bytes.split_at(plan.min(length));
                self.launch(plan, order, passed);
            }
            Err(errno) => refuse(&passed, Failure { step: Step::ReadPlan, errno, detail: 0 }),
        }
    }

    fn launch(&mut self, plan: &[u8], order: &[u8], passed: start::Passed) {
        if self.cells.len() >= limits::MAX_CELLS {
            let errno = Errno::from_raw(libc::EAGAIN);
            return refuse(&passed, Failure { step: Step::AdmitCell, errno, detail: 0 });
        }
        match seedlings::from_stock(self, plan, order, passed) {
            Ok(pid) => self.planted(pid),
            Err(passed) => {
                if let Some((pid, cell)) = start::cell(self, plan, order, passed) {
                    self.admit(pid, cell);
                }
            }
        }
    }

    /// A first process of the stock has become a cell.
    fn planted(&mut self, pid: i32) {
        self.stock.used();
        self.last_event = event::now();
        self.unrested = self.unrested.saturating_add(1);
        let Some(report) = self.cells.get_mut(pid).and_then(|cell| cell.report.as_ref()) else {
            return;
        };
        if self.poller.add(report.as_fd(), Interest::HangUp, token(pid)).is_err() {
            // Without the watch nobody would notice that the host has lost interest.
            self.abandon(pid);
        }
    }
}

/// Tells the host. If it doesn't listen any more it doesn't want to know.
#[expect(clippy::large_types_passed_by_value, reason = "it is written out at once, and no more")]
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

/// How long the zygote lets pass before it tries again to remove groups that were still in use.
const TIDY_PAUSE: u64 = 20_000_000;
/// Process ids end far below these.
const ALARM: u64 = 1 << 40;
const CONTROL_TOKEN: u64 = u64::MAX;
const SIGNAL_TOKEN: u64 = u64::MAX - 1;
/// Interpreters are numbered from here on, of which there are few.
const FIRST_INTERPRETER_TOKEN: u64 = u64::MAX - 256;
