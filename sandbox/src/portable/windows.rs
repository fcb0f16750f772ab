//! Starting and ending a program on Windows. What the program has started itself isn't ended with it.

use std::{io, process::Stdio};

use tokio::process::{Child, Command};

use super::{Ended, Order, Refusal, Started};
use crate::report::{End, Usage};

/// Starts it, without a window.
pub(super) fn start(order: &Order<'_>) -> Result<Started, Refusal> {
    #[expect(clippy::disallowed_methods, reason = "where programs start on such systems")]
    let mut command = Command::new(&order.file);
    command
        .args(order.arguments)
        .env_clear()
        .envs(order.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(&order.directory)
        .creation_flags(NO_WINDOW)
        .kill_on_drop(true)
        .stdin(if order.is_written { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Refusal::Program)?;
    let none = || Refusal::Pipes(io::ErrorKind::BrokenPipe.into());
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().ok_or_else(none)?;
    let stderr = child.stderr.take().ok_or_else(none)?;
    Ok(Started {
        tree: Tree { child },
        stdin: stdin.map(|pipe| Box::new(pipe) as Box<dyn super::Sink>),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
    })
}

/// A program. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Tree {
    child: Child,
}

impl Tree {
    /// Waits until the program has ended.
    pub(super) async fn exited(&mut self) {
        // Waiting fails for nothing that a later wait would say otherwise.
        self.child.wait().await.ok();
    }

    /// Ends it if it still runs, and says how it ended. What it used isn't known.
    pub(super) async fn end(&mut self) -> Ended {
        // It fails for what has ended.
        self.child.start_kill().ok();
        let code = self.child.wait().await.ok().and_then(|status| status.code());
        (code.map_or(End::Killed, End::Exited), Usage::default())
    }
}

/// `CREATE_NO_WINDOW`.
const NO_WINDOW: u32 = 0x0800_0000;
