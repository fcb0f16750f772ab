//! The signals that ask a command to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::limits::AT_ONCE;

/// SIGINT, SIGTERM and SIGHUP, from now on instead of their default effect.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// As long as it can be the first one. It's no sign of impatience: a terminal that is closed sends it, then
    /// its shell sends it again, and some service managers send it behind a SIGTERM.
    hangup: Option<Signal>,
}

/// Ends the process some time after the second signal, whatever the node is doing: a thread with a
/// runtime of its own waits for them, which nothing of the node can hold up. It logs nothing.
pub(super) fn end_at_the_second() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _here = runtime.enter();
        Signals::catch()?
    };
    let watch = move || {
        runtime.block_on(signals.next());
        let second = runtime.block_on(signals.next());
        std::thread::sleep(AT_ONCE);
        #[expect(clippy::exit, reason = "the thread that would return from `main` can't")]
        std::process::exit(second.exit_code().into());
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    Interrupt,
    Terminate,
    Hangup,
}

impl Caught {
    /// The exit code of a program that such a signal ends.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        }
    }
}

impl Signals {
    /// Needs a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Caught {
        let Self { interrupt, terminate, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let caught = tokio::select! {
            _ = interrupt.recv() => Caught::Interrupt,
            _ = terminate.recv() => Caught::Terminate,
            _ = hung_up => Caught::Hangup,
        };
        self.hangup = None;
        caught
    }
}

/// Whether whoever has started this process wants it to outlive its terminal, as `nohup` does.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & HANGUP != 0)
}

/// SIGHUP in the kernel's masks of signals.
const HANGUP: u64 = 1;
