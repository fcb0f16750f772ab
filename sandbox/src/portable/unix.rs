//! Starting and ending a program on a Unix. Not by `tokio::process`, which reaps a child before anybody
//! could end its group, and says nothing of its costs.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{ChildStdin, Command, Stdio},
};

use tokio::{
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Ended, Order, Refusal, Started,
    sys::{self, Reaped},
};
use crate::{level::Layer, limits, report::End};

/// Starts it.
pub(super) fn start(order: &Order<'_>) -> Result<Started, Refusal> {
    // First, so that no end is missed.
    let ends = signal(SignalKind::child()).map_err(Refusal::Pipes)?;
    #[expect(clippy::disallowed_methods, reason = "where programs start on such systems")]
    let mut command = Command::new(&order.file);
    command
        .arg0(order.name)
        .args(order.arguments)
        .env_clear()
        .envs(order.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(&order.directory)
        .stdin(if order.is_written { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    sys::confine(&mut command, order.limits);
    let mut child = command.spawn().map_err(|error| match error.raw_os_error() {
        Some(sys::NOT_A_SESSION) => Refusal::NotInForce(Layer::Session),
        Some(sys::NOT_LIMITED) => Refusal::NotInForce(Layer::ResourceLimits),
        Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => Refusal::Pipes(error),
        _ => Refusal::Program(error),
    })?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    // From here on whatever fails ends it.
    let tree = Tree { pid, ends, is_reaped: false };
    let none = || Refusal::Pipes(io::ErrorKind::BrokenPipe.into());
    let input = |pipe: ChildStdin| pipe::Sender::from_owned_fd(pipe.into());
    let output = |pipe: OwnedFd| pipe::Receiver::from_owned_fd(pipe).map_err(Refusal::Pipes);
    Ok(Started {
        tree,
        stdin: match child.stdin.take() {
            Some(pipe) => Some(Box::new(input(pipe).map_err(Refusal::Pipes)?)),
            None => None,
        },
        stdout: Box::new(output(child.stdout.take().ok_or_else(none)?.into())?),
        stderr: Box::new(output(child.stderr.take().ok_or_else(none)?.into())?),
    })
}

/// A program and what is still in its process group. Dropped, all of it ends.
#[derive(Debug)]
pub(super) struct Tree {
    pid: i32,
    /// Rings when a child of this process has ended.
    ends: Signal,
    is_reaped: bool,
}

impl Tree {
    /// Waits until the program has ended.
    pub(super) async fn exited(&mut self) {
        while !sys::has_ended(self.pid) && self.ends.recv().await.is_some() {}
    }

    /// Ends what is left, and says how the program ended.
    pub(super) async fn end(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.kill_and_reap() {
                return ended;
            }
            if self.ends.recv().await.is_none() {
                return (End::Killed, crate::report::Usage::default());
            }
        }
    }

    /// Kills the group, and reaps its leader if it's dead.
    fn kill_and_reap(&mut self) -> Option<Ended> {
        // More than once, because some kernels don't stop a process that is forking meanwhile from it.
        for _ in 0..limits::GROUP_KILLS {
            sys::kill_group(self.pid);
        }
        let Reaped::Gone(ended) = sys::reap(self.pid) else { return None };
        self.is_reaped = true;
        Some(ended.unwrap_or((End::Killed, crate::report::Usage::default())))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for _ in 0..limits::CLEAR_ATTEMPTS {
            if self.is_reaped || self.kill_and_reap().is_some() {
                return;
            }
            std::thread::sleep(limits::CLEAR_PAUSE);
        }
    }
}
