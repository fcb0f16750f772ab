//! A running cell: its output, its end, and the right to end it.

mod egressing;
mod input;
mod patience;
mod state;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    os::fd::{AsFd, OwnedFd},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

pub use self::input::CellInput;
use crate::{
    errno::Errno,
    launcher::{Claim, Zygote},
    level::{Boundary, Layer, Level},
    linux::sys::{
        self, event, file,
        socket::{self, Wait},
        tree::Place,
        watch::watch,
    },
    output::{Collected, Given, Output, Streams},
    overlay::Overlay,
    profile::Profile,
    program::Program,
    report::{End, Report, Stages},
    zygote::protocol::{RECORD, Record},
};
use egressing::Egressing;
pub(crate) use patience::Patience;
use state::State;

/// A running program and everything it has started.
///
/// Dropping the cell ends all of it. Output waits in pipes until [`Running::next`], [`Running::collect`]
/// or [`Running::finish`] is polled; the wall time counts in any case, and the proxy of a network with
/// an allow-list serves the cell meanwhile, as a task of the runtime that the cell was started on.
///
/// ```no_run
/// # async fn doc(mut cell: neuroflow_sandbox::Running) {
/// use neuroflow_sandbox::Output;
///
/// while let Some(output) = cell.next().await {
///     match output {
///         Output::Stdout(bytes) => println!("{} bytes", bytes.len()),
///         Output::Stderr(bytes) => eprintln!("{} bytes", bytes.len()),
///     }
/// }
/// println!("{:?}", cell.finish().await.end);
/// # }
/// ```
#[derive(Debug)]
pub struct Running {
    stdin: Option<Input>,
    /// The input of an interactive program, until somebody takes it.
    open: Option<CellInput>,
    streams: Streams<Pipe>,
    report: Option<AsyncFd<OwnedFd>>,
    process: Process,
    state: State,
    terms: Terms,
    /// Where what is written to the copied directory goes.
    overlay: Option<Overlay>,
    /// The proxy that holds the network's allow-list; it ends with the cell.
    proxy: Option<Egressing>,
    /// What the zygote is to look at when there is time.
    claim: Option<Claim>,
    /// The zygote lives as long as one of its cells.
    zygote: Arc<Zygote>,
    /// How long it may take to say that the cell is gone.
    patience: Patience,
    /// Whether it took longer, or is lost. Then the end of the first process stands for what it would have
    /// said.
    is_alone: bool,
}

/// What the report says of the start.
#[derive(Debug)]
struct Terms {
    level: Level,
    degraded: Vec<Layer>,
    stages: Stages,
    prepared: bool,
    forked: bool,
}

impl Running {
    pub(crate) fn new(parts: Parts, profile: &Profile, program: &Program) -> sys::Result<Self> {
        let mut stdin = None;
        let mut open = None;
        if program.is_interactive() {
            open = parts.stdin.map(CellInput::new).transpose()?;
        } else if let Some(pipe) = parts.stdin {
            let pipe = watch(pipe, Interest::WRITABLE)?;
            stdin = Some(Input { pipe, bytes: program.piped_input().to_vec(), written: 0 });
        }
        let mut state = State::new();
        for record in parts.heard {
            state.hear(Some(record));
        }
        let proxy = match (parts.egress, &profile.egress.0) {
            (Some(listener), Some(policy)) => {
                Some(Egressing::start(listener, policy, parts.process.name())?)
            }
            _ => None,
        };
        Ok(Self {
            stdin,
            open,
            streams: Streams::new(
                Pipe::new(parts.stdout),
                Pipe::new(parts.stderr),
                profile.output_bytes,
            ),
            report: Some(parts.report),
            process: parts.process,
            state,
            terms: Terms {
                level: profile.level,
                degraded: parts.degraded,
                stages: parts.stages,
                prepared: parts.prepared,
                forked: parts.forked,
            },
            overlay: parts.overlay.zip(profile.project()).map(|((upper, below), project)| {
                Overlay::new(upper, project, below, profile.places_in_project())
            }),
            proxy,
            claim: parts.claim,
            patience: Patience::new(profile.wall_time),
            is_alone: false,
            zygote: parts.zygote,
        })
    }

    /// The same timer as before, for the end of a cell that may run for so long.
    pub(crate) fn wait_with(&mut self, patience: Patience, wall_time: Duration) {
        self.patience = patience;
        self.patience.begin_anew(wall_time);
        if self.state.has_ended() {
            self.patience.hurry();
        }
    }

    /// It was asked for at this moment, in nanoseconds of the calendar.
    pub(crate) fn asked_for(&mut self, at: i128) {
        if let Some(overlay) = &mut self.overlay {
            overlay.began(at);
        }
    }

    /// The next piece of output; `None` when both streams are closed, the output limit is reached, or the
    /// cell is gone and all that was written by then is read: whoever else holds its streams open by then
    /// isn't waited for.
    ///
    /// Cancel safe: a dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Output> {
        poll_fn(|context| self.poll_output(context)).await
    }

    /// What the cell writes to the directory that it sees copy-on-write, to be read when the cell is
    /// gone. `None` if there is no such directory, or it was taken before.
    pub fn overlay(&mut self) -> Option<Overlay> {
        self.overlay.take()
    }

    /// The standard input of a program that was started as [`Program::interactive`]; `None` for
    /// others, and after the first call. Dropping it is the end of the program's input, and so is the
    /// cell's end.
    pub fn take_stdin(&mut self) -> Option<CellInput> {
        self.open.take()
    }

    /// Whether the cell was made ahead.
    pub fn is_prepared(&self) -> bool {
        self.terms.prepared
    }

    /// Ends the cell: the program, its children, everything. Returns at once; [`Running::finish`]
    /// waits.
    pub fn kill(&mut self) {
        self.end(End::Cancelled);
    }

    /// Waits until the program has ended and says how; unread output is thrown away (it still counts
    /// against the limit). What the program leaves behind is being ended then; [`Running::finish`] waits
    /// for that too. `None` if the cell ended before its program could be asked.
    ///
    /// Cancel safe: a dropped future loses output only.
    pub async fn exit(&mut self) -> Option<End> {
        while self.next().await.is_some() {}
        poll_fn(|context| {
            self.poll_input(context);
            self.poll_records(context);
            if self.state.has_ended() || self.report.is_none() {
                Poll::Ready(())
            } else {
                self.rest()
            }
        })
        .await;
        self.state.has_ended().then(|| self.state.end())
    }

    /// Waits until the whole cell is gone and says how it ended. Its output stays to be read: a program with
    /// more of it than a pipe holds waits meanwhile, for its wall time at the longest.
    ///
    /// Cancel safe.
    pub async fn gone(&mut self) -> End {
        poll_fn(|context| self.poll_gone(context)).await;
        self.state.end()
    }

    /// Waits until the whole cell is gone, and throws unread output away (it still counts against
    /// the limit).
    pub async fn finish(mut self) -> Report {
        while self.next().await.is_some() {}
        self.gone().await;
        self.report().await
    }

    /// As [`Running::finish`], but ends the cell when `deadline` completes. For a deadline on a clock
    /// of the caller's.
    ///
    /// ```no_run
    /// # async fn doc(cell: neuroflow_sandbox::Running, deadline: impl Future<Output = ()>) {
    /// use neuroflow_sandbox::End;
    ///
    /// let report = cell.finish_by(deadline).await;
    /// assert_eq!(report.end, End::WallTime);
    /// # }
    /// ```
    pub async fn finish_by(mut self, deadline: impl Future<Output = ()>) -> Report {
        let mut deadline = pin!(deadline);
        let mut passed = false;
        while self.next_by(&mut deadline, &mut passed).await.is_some() {}
        let mut gone = pin!(poll_fn(|context| {
            if !passed && deadline.as_mut().poll(context).is_ready() {
                passed = true;
                self.end(End::WallTime);
            }
            self.poll_gone(context)
        }));
        gone.as_mut().await;
        self.report().await
    }

    /// Waits until the whole cell is gone and keeps its output.
    pub async fn collect(mut self) -> Collected {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(output) = self.next().await {
            match output {
                Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            }
        }
        self.gone().await;
        let report = self.report().await;
        let overlay = self.overlay.take();
        Collected { stdout, stderr, report, overlay }
    }

    async fn next_by(
        &mut self,
        deadline: &mut Pin<&mut impl Future<Output = ()>>,
        passed: &mut bool,
    ) -> Option<Output> {
        poll_fn(|context| {
            if !*passed && deadline.as_mut().poll(context).is_ready() {
                *passed = true;
                self.end(End::WallTime);
            }
            self.poll_output(context)
        })
        .await
    }

    async fn report(&mut self) -> Report {
        let egress = match self.proxy.take() {
            Some(proxy) => Some(proxy.end().await),
            None => None,
        };
        Report {
            egress,
            end: self.state.end(),
            usage: self.state.usage(),
            group: self.state.group(),
            level: self.terms.level,
            degraded: self.terms.degraded.clone(),
            boundary: Boundary::SharedKernel,
            denials: self.state.denials(),
            learned: self.state.learned(),
            stages: self.terms.stages,
            prepared: self.terms.prepared,
            forked: self.terms.forked,
            truncated: self.streams.truncated(),
        }
    }

    fn end(&mut self, end: End) {
        self.state.ask_to_end(end);
        if let (false, Some(report)) = (self.process.end(), &self.report) {
            // A host that has given rights up since has a zygote that hasn't, and that ends what is let go.
            // What it would have counted isn't known then. This fails only if it has hung up by itself.
            socket::hang_up(report.get_ref().as_fd()).ok();
        }
        self.patience.hurry();
    }

    /// It took too long. A zygote that says that it has killed the cell doesn't hang.
    fn give_up(&mut self) {
        if !self.state.is_lasting() {
            self.zygote.give_up();
        }
        self.go_on_alone();
    }

    /// The cell ends without its zygote, and what its groups counted isn't known.
    fn go_on_alone(&mut self) {
        self.process.end();
        self.report = self.process.watched().ok();
        if self.report.is_none() && !self.process.has_ended() {
            self.state.lose_sight();
        }
        self.is_alone = true;
        self.patience.begin_anew(Duration::ZERO);
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Option<Output>> {
        self.poll_input(context);
        self.poll_records(context);
        let is_gone = self.report.is_none();
        let given = self.streams.poll(|pipe, buffer| {
            if is_gone { Poll::Ready(pipe.drain(buffer)) } else { pipe.poll(context, buffer) }
        });
        match given {
            Poll::Ready(Given::Piece(output)) => Poll::Ready(Some(output)),
            Poll::Ready(Given::Cut(output)) => {
                self.end(End::OutputLimit);
                Poll::Ready(output)
            }
            Poll::Ready(Given::Closed) => Poll::Ready(None),
            Poll::Pending => self.rest(),
        }
    }

    /// Writes input as far as the program reads it.
    fn poll_input(&mut self, context: &mut Context<'_>) {
        while let Some(input) = &mut self.stdin {
            let rest = input.bytes.get(input.written..).unwrap_or_default();
            let write = |pipe: std::os::fd::BorrowedFd<'_>| file::write(pipe, rest);
            match poll_with(&mut input.pipe, Interest::WRITABLE, context, write) {
                Poll::Pending => return,
                Poll::Ready(Ok(length)) => {
                    input.written += length;
                    if input.written >= input.bytes.len() {
                        self.stdin = None;
                    }
                }
                // The program doesn't read any more, which is its right.
                Poll::Ready(Err(_closed)) => self.stdin = None,
            }
        }
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_input(context);
        self.poll_records(context);
        if self.report.is_none() { Poll::Ready(()) } else { self.rest() }
    }

    /// There is nothing to do but to wait, so there is time for the zygote. The end wakes it anyway.
    fn rest<T>(&mut self) -> Poll<T> {
        if let Some(mut claim) = self.claim.take()
            && !self.state.has_ended()
        {
            claim.wake();
        }
        Poll::Pending
    }

    /// Takes what zygote and first process have to say; closes the report after the last record.
    fn poll_records(&mut self, context: &mut Context<'_>) {
        while let Some(report) = &mut self.report
            && !self.is_alone
        {
            let mut bytes = [0; RECORD];
            let receive =
                |socket: std::os::fd::BorrowedFd<'_>| socket::receive(socket, &mut bytes, Wait::No);
            let record = match poll_with(report, Interest::READABLE, context, receive) {
                Poll::Pending => {
                    if self.patience.poll_over(context).is_ready() {
                        self.give_up();
                        break;
                    }
                    return;
                }
                Poll::Ready(Ok(received)) if received.length > 0 => Record::parse(&bytes),
                Poll::Ready(_closed) => None,
            };
            let is_last = self.state.hear(record);
            if self.state.has_ended() {
                self.patience.hurry();
            }
            if is_last {
                self.stdin = None;
                if self.state.is_reaped() {
                    self.report = None;
                } else {
                    // Who held the other side is gone or going, and what is left of the cell may not be.
                    self.go_on_alone();
                }
            }
        }
        if self.is_alone {
            self.poll_first_process(context);
        }
    }

    /// Waits for the end of the first process, with which everything in the cell ends.
    fn poll_first_process(&mut self, context: &mut Context<'_>) {
        let Some(process) = &self.report else { return };
        let has_ended = process.poll_read_ready(context).is_ready();
        if has_ended || self.patience.poll_over(context).is_ready() {
            if !has_ended {
                tracing::error!(pid = self.process.name(), "a cell is killed and doesn't end");
                self.state.lose_sight();
            }
            self.report = None;
            self.stdin = None;
        }
    }
}

/// Tries `io` until it doesn't say "later", and then waits for the descriptor.
fn poll_with<T>(
    fd: &mut AsyncFd<OwnedFd>,
    interest: Interest,
    context: &mut Context<'_>,
    mut io: impl FnMut(std::os::fd::BorrowedFd<'_>) -> sys::Result<T>,
) -> Poll<std::io::Result<T>> {
    loop {
        let guard = if interest.is_readable() {
            fd.poll_read_ready(context)
        } else {
            fd.poll_write_ready(context)
        };
        let mut guard = ready!(guard)?;
        if let Ok(done) = guard.try_io(|fd| Ok(io(fd.get_ref().as_fd())?)) {
            return Poll::Ready(done);
        }
    }
}

/// What a launch hands over to its cell.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: AsyncFd<OwnedFd>,
    pub(crate) stderr: AsyncFd<OwnedFd>,
    pub(crate) report: AsyncFd<OwnedFd>,
    pub(crate) process: Process,
    pub(crate) stages: Stages,
    pub(crate) heard: Vec<Record>,
    pub(crate) egress: Option<OwnedFd>,
    pub(crate) overlay: Option<(OwnedFd, Place)>,
    pub(crate) degraded: Vec<Layer>,
    pub(crate) prepared: bool,
    pub(crate) forked: bool,
    pub(crate) claim: Option<Claim>,
    pub(crate) zygote: Arc<Zygote>,
}

#[derive(Debug)]
struct Input {
    pipe: AsyncFd<OwnedFd>,
    bytes: Vec<u8>,
    written: usize,
}

/// One of a cell's output streams.
#[derive(Debug)]
struct Pipe {
    fd: AsyncFd<OwnedFd>,
    /// What is still to be read, once the cell is gone.
    rest: Option<usize>,
}

impl Pipe {
    fn new(fd: AsyncFd<OwnedFd>) -> Self {
        Self { fd, rest: None }
    }

    /// Reads what is there; 0 when nobody can write any more.
    fn poll(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let read = |pipe: std::os::fd::BorrowedFd<'_>| file::read(pipe, buffer);
        poll_with(&mut self.fd, Interest::READABLE, context, read).map(|read| read.unwrap_or(0))
    }

    /// Reads from what was there when the cell was gone; 0 when that is over. A program can hand its streams
    /// to somebody outside, who may hold them and write for as long as he likes.
    fn drain(&mut self, buffer: &mut [u8]) -> usize {
        let pipe = self.fd.get_ref().as_fd();
        let rest = self.rest.get_or_insert_with(|| file::waiting_bytes(pipe).unwrap_or(0));
        let most = buffer.len().min(*rest);
        let read = file::read(pipe, buffer.get_mut(..most).unwrap_or_default()).unwrap_or(0);
        *rest = rest.saturating_sub(read);
        read
    }
}

/// The first process of a cell; dropping this ends the cell.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
    level: Level,
}

impl Process {
    pub(crate) fn new(pidfd: OwnedFd, level: Level) -> Self {
        Self { pidfd, level }
    }

    /// For logs: the process as `/proc` has it.
    fn name(&self) -> String {
        event::process_of(self.pidfd.as_fd())
            .map_or_else(|_gone| "?".to_owned(), |pid| pid.to_string())
    }

    /// Readable when it has ended.
    fn watched(&self) -> sys::Result<AsyncFd<OwnedFd>> {
        let copy = self.pidfd.try_clone();
        let copy =
            copy.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        watch(copy, Interest::READABLE)
    }

    fn has_ended(&self) -> bool {
        event::is_readable(self.pidfd.as_fd(), 0).unwrap_or_default()
    }

    /// The kernel ends a cell with its first process; at level minimal the keeper does it, when
    /// asked. False if this process may not.
    fn end(&self) -> bool {
        let signals: &[i32] = if self.level == Level::Minimal {
            &[libc::SIGTERM, libc::SIGCONT]
        } else {
            &[libc::SIGKILL]
        };
        signals.iter().all(|signal| match event::signal(self.pidfd.as_fd(), *signal) {
            Err(errno) => errno.raw() != libc::EPERM,
            Ok(()) => true,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
