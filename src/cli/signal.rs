//! The two signals that ask a command to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::limits::AT_ONCE;

/// SIGINT and SIGTERM, from now on instead of their default effect.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
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
}

impl Caught {
    /// The exit code of a program that such a signal ends.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
}

impl Signals {
    /// Needs a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.terminate.recv() => Caught::Terminate,
        }
    }
}
