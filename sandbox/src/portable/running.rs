//! A running program without Linux. A task of the runtime's owns its processes, so that they end in time
//! whether or not anybody reads what they write.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use neuroflow_kernel::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
};

use super::{Ended, Flow, Sink, Started, host::Tree};
use crate::{
    account::GroupUsage,
    input::SealedInput,
    level::{Boundary, Layer, Level},
    limits,
    output::{Collected, Given, Output, Streams},
    profile::Profile,
    program::Program,
    report::{End, Report, Stages, Usage},
};

/// A running program. Dropping it ends it, and what of its descendants this system can end.
///
/// ```no_run
/// # async fn doc(cell: neuroflow_sandbox::Running) {
/// println!("{:?}", cell.finish().await.end);
/// # }
/// ```
pub struct Running {
    stdin: Option<Feed>,
    /// The input of an interactive program, until somebody takes it.
    open: Option<CellInput>,
    streams: Streams<Box<dyn Flow>>,
    /// Why we ended it, if we did.
    asked: Option<End>,
    ask: Option<oneshot::Sender<End>>,
    told: oneshot::Receiver<Ended>,
    ended: Option<Ended>,
    /// How long streams are read that somebody holds open after the program's end.
    stray: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    level: Level,
    degraded: Vec<Layer>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("asked", &self.asked)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What is still to be written to a program.
struct Feed {
    pipe: Box<dyn Sink>,
    bytes: Vec<u8>,
    written: usize,
}

/// The standard input of a program that runs.
///
/// ```no_run
/// async fn greet(mut stdin: neuroflow_sandbox::CellInput) -> std::io::Result<()> {
///     stdin.write(b"hello\n").await
/// }
/// ```
#[derive(Debug)]
pub struct CellInput {
    pipe: Box<dyn Sink>,
}

impl CellInput {
    /// Writes all of it, as fast as the program reads. Dropping the future may leave a part written.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the program has closed its input, or ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.write_all(bytes).await?;
        self.pipe.flush().await
    }
}

impl Running {
    pub(super) fn new(
        started: Started,
        profile: &Profile,
        program: &Program,
        degraded: Vec<Layer>,
    ) -> io::Result<Self> {
        let Started { tree, stdin: pipe, stdout, stderr } = started;
        let (mut stdin, mut open) = (None, None);
        match pipe {
            Some(pipe) if program.is_interactive() => open = Some(CellInput { pipe }),
            Some(pipe) => {
                let bytes = match program.sealed_input() {
                    Some(input) => sealed(input)?,
                    None => program.piped_input().to_vec(),
                };
                stdin = Some(Feed { pipe, bytes, written: 0 });
            }
            None => {}
        }
        let (ask, asked) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "a cell is there without actors too; the task ends with the cell that owns it"
        )]
        tokio::spawn(attend(tree, profile.wall_time, asked, tell));
        Ok(Self {
            stdin,
            open,
            streams: Streams::new(stdout, stderr, profile.output_bytes),
            asked: None,
            ask: Some(ask),
            told,
            ended: None,
            stray: None,
            level: profile.level,
            degraded,
        })
    }

    /// The next piece of output; `None` when both streams are closed, the output limit is reached, or the
    /// program has ended and somebody else holds its streams open.
    ///
    /// Cancel safe: a dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Output> {
        poll_fn(|context| self.poll_output(context)).await
    }

    /// The standard input of a program that was started as [`Program::interactive`]; `None` for
    /// others, and after the first call. Dropping it is the end of the program's input.
    pub fn take_stdin(&mut self) -> Option<CellInput> {
        self.open.take()
    }

    /// Never: nothing is made ahead here.
    #[expect(clippy::unused_self, reason = "the method of the one for Linux has it")]
    pub fn is_prepared(&self) -> bool {
        false
    }

    /// Ends the program. Returns at once; [`Running::finish`] waits.
    pub fn kill(&mut self) {
        self.end(End::Cancelled);
    }

    /// Waits until the program has ended and says how; unread output is thrown away (it still counts
    /// against the limit).
    ///
    /// Cancel safe: a dropped future loses output only.
    pub async fn exit(&mut self) -> Option<End> {
        while self.next().await.is_some() {}
        poll_fn(|context| self.poll_ended(context)).await;
        Some(self.how())
    }

    /// Waits until the program is gone and says how it ended. Its output stays to be read.
    ///
    /// Cancel safe.
    pub async fn gone(&mut self) -> End {
        poll_fn(|context| self.poll_ended(context)).await;
        self.how()
    }

    /// Waits until the program is gone, and throws unread output away (it still counts against the
    /// limit).
    pub async fn finish(mut self) -> Report {
        self.exit().await;
        self.report()
    }

    /// As [`Running::finish`], but ends the program when `deadline` completes.
    pub async fn finish_by(mut self, deadline: impl Future<Output = ()>) -> Report {
        {
            let mut deadline = pin!(deadline);
            let mut passed = false;
            let mut is_silent = false;
            poll_fn(|context| {
                if !passed && deadline.as_mut().poll(context).is_ready() {
                    passed = true;
                    self.end(End::WallTime);
                }
                while !is_silent {
                    is_silent = ready!(self.poll_output(context)).is_none();
                }
                self.poll_ended(context)
            })
            .await;
        }
        self.report()
    }

    /// Waits until the program is gone and keeps its output.
    pub async fn collect(mut self) -> Collected {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(output) = self.next().await {
            match output {
                Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            }
        }
        let report = self.finish().await;
        Collected {
            stdout,
            stderr,
            report,
            #[cfg(target_os = "linux")]
            overlay: None,
        }
    }

    fn report(self) -> Report {
        let (_, usage) = self.ended.unwrap_or((End::Killed, Usage::default()));
        Report {
            end: self.how(),
            usage,
            group: GroupUsage::default(),
            level: self.level,
            truncated: self.streams.truncated(),
            degraded: self.degraded,
            boundary: Boundary::SharedKernel,
            denials: Vec::new(),
            learned: None,
            egress: None,
            stages: Stages::default(),
            prepared: false,
            forked: false,
        }
    }

    fn how(&self) -> End {
        let own = self.ended.map(|(end, _)| end);
        self.asked.or(own).unwrap_or(End::Killed)
    }

    /// The first reason counts. A program that had ended by then ended by itself, except that lost output
    /// is never passed over.
    fn end(&mut self, end: End) {
        if self.asked.is_none() && (self.ended.is_none() || end == End::OutputLimit) {
            self.asked = Some(end);
        }
        if let Some(ask) = self.ask.take() {
            // Whoever isn't there to hear it has ended it.
            ask.send(end).ok();
        }
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_some() {
            return Poll::Ready(());
        }
        // The task goes without a word only with its runtime, and everything ends then.
        let told = ready!(Pin::new(&mut self.told).poll(context));
        let (end, usage) = told.unwrap_or((End::Killed, Usage::default()));
        self.ended = Some((end, usage));
        self.stdin = None;
        Poll::Ready(())
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Option<Output>> {
        self.poll_input(context);
        let is_over = self.poll_ended(context).is_ready();
        let given = self.streams.poll(|pipe, buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = Pin::new(pipe).poll_read(context, &mut buffer);
            read.map(|read| read.map_or(0, |()| buffer.filled().len()))
        });
        match given {
            Poll::Ready(Given::Piece(output)) => Poll::Ready(Some(output)),
            Poll::Ready(Given::Cut(output)) => {
                self.end(End::OutputLimit);
                Poll::Ready(output)
            }
            Poll::Ready(Given::Closed) => Poll::Ready(None),
            Poll::Pending if is_over => {
                let wait =
                    || Box::pin(async { Clock::system().sleep(limits::STRAY_OUTPUT_WAIT).await });
                let stray = self.stray.get_or_insert_with(|| wait());
                ready!(stray.as_mut().poll(context));
                self.streams.close();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes input as far as the program reads it.
    fn poll_input(&mut self, context: &mut Context<'_>) {
        while let Some(feed) = &mut self.stdin {
            let rest = feed.bytes.get(feed.written..).unwrap_or_default();
            if rest.is_empty() {
                self.stdin = None;
                return;
            }
            match Pin::new(&mut feed.pipe).poll_write(context, rest) {
                Poll::Pending => return,
                Poll::Ready(Ok(length)) if length > 0 => feed.written += length,
                // The program doesn't read any more, which is its right.
                Poll::Ready(_closed) => self.stdin = None,
            }
        }
    }
}

/// Waits for the first that ends the program, ends what is left of it, and says how it was.
async fn attend(
    mut tree: Tree,
    wall_time: Duration,
    asked: oneshot::Receiver<End>,
    tell: oneshot::Sender<Ended>,
) {
    let clock = Clock::system();
    let by_us = tokio::select! {
        biased;
        () = tree.exited() => None,
        // A cell that was dropped is asked to end by that.
        asked = asked => Some(asked.unwrap_or(End::Cancelled)),
        () = clock.sleep(wall_time) => Some(End::WallTime),
    };
    let (end, usage) = tree.end().await;
    // A cell that was dropped hears nothing.
    tell.send((by_us.unwrap_or(end), usage)).ok();
}

/// What a sealed input holds.
#[cfg(not(target_os = "linux"))]
fn sealed(input: &SealedInput) -> io::Result<Vec<u8>> {
    Ok(input.bytes().to_vec())
}

/// The same where it's a file.
#[cfg(target_os = "linux")]
fn sealed(input: &SealedInput) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(input.len());
    io::Read::read_to_end(&mut std::fs::File::from(input.reader()?), &mut bytes)?;
    Ok(bytes)
}
