//! Probes without a cell, and in a cell of a peer: plain children of the host.

use std::{
    fs,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::{report::End, zygote::entry::PROBE_SUMMONS};

/// How a plain child ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) stdout: Vec<u8>,
    pub(super) end: End,
}

/// Runs a program to its end; it ends itself, by an alarm if need be.
pub(super) async fn run(
    executable: &Path,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    user: Option<u32>,
) -> io::Result<Ran> {
    let mut line = wrapper.into_iter();
    let mut command = match line.next() {
        Some(first) => {
            let mut command = program(Path::new(&first));
            command.args(line);
            command
        }
        None => program(executable),
    };
    command.args(arguments).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.map_err(io::Error::other)??;
    let end = end(&output);
    Ok(Ran { stdout: output.stdout, end })
}

fn end(output: &Output) -> End {
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Killed,
    }
}

/// Where the peer is, if it is installed.
pub(super) fn peer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join("bwrap")).find(|path| path.is_file())
}

/// The peer's command line up to the arguments of the program, which it shows at `inside`.
pub(super) fn bubblewrap(peer: &Path, executable: &Path, inside: &str) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut line = vec![text(peer)];
    let mut add = |parts: &[&str]| line.extend(parts.iter().map(|part| (*part).to_owned()));
    add(&["--unshare-user", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]);
    for path in ["/bin", "/sbin", "/lib", "/lib32", "/lib64"] {
        match fs::read_link(path) {
            Ok(target) => add(&["--symlink", &text(&target), path]),
            Err(_no_link) => add(&["--ro-bind-try", path, path]),
        }
    }
    add(&["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/work"]);
    add(&["--ro-bind", &text(executable), inside, inside]);
    line
}

/// Nobody's user and group id.
pub(super) const NOBODY: u32 = 65534;

/// A process of the host that does nothing, for others to find.
#[derive(Debug)]
pub(super) struct Victim {
    process: Child,
}

impl Victim {
    /// Returns when it is there and has its name.
    pub(super) fn start(executable: &Path) -> io::Result<Self> {
        let mut process = program(executable)
            .args([PROBE_SUMMONS, super::probe::VICTIM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0];
        if let Some(output) = &mut process.stdout {
            output.read_exact(&mut ready)?;
        }
        Ok(Self { process })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only if it is gone and reaped.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a control is a process outside of any cell, and so is a peer's cell"
)]
fn program(path: &Path) -> Command {
    Command::new(path)
}
