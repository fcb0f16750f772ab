//! Starting cells and other hosts, and looking at the machine's processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use neuroflow_sandbox::{
    Collected, LaunchError, Launcher, Level, Profile, ProfileBuilder, Program, Running,
};

pub(crate) use crate::eventually::eventually;
use crate::untried::say_on;

pub(crate) fn standard() -> ProfileBuilder {
    Profile::builder(Level::Standard).wall_time(Duration::from_secs(20))
}

pub(crate) fn minimal() -> ProfileBuilder {
    Profile::builder(Level::Minimal).wall_time(Duration::from_secs(20))
}

pub(crate) fn sh(script: impl Into<String>) -> Program {
    Program::new("/bin/sh").arg("-c").arg(script.into())
}

pub(crate) fn perl(script: impl Into<String>) -> Program {
    Program::new("perl").arg("-e").arg(script.into())
}

pub(crate) async fn try_launch(
    profile: ProfileBuilder,
    program: Program,
) -> Result<Running, LaunchError> {
    let launcher = Launcher::start().expect("a zygote");
    launcher.launch(&profile.build().expect("a valid profile"), &program).await
}

pub(crate) async fn launch(profile: ProfileBuilder, program: Program) -> Running {
    try_launch(profile, program).await.expect("the program starts")
}

pub(crate) async fn collect(profile: ProfileBuilder, program: Program) -> Collected {
    launch(profile, program).await.collect().await
}

/// Standard output as text. The program must end with status 0.
pub(crate) async fn output_of(profile: ProfileBuilder, program: Program) -> String {
    let collected = collect(profile, program).await;
    let errors = String::from_utf8_lossy(&collected.stderr).into_owned();
    assert!(collected.report.is_success(), "{:?}: {errors}", collected.report.end);
    String::from_utf8(collected.stdout).expect("text")
}

/// Text that no other test and no other process has in its arguments.
pub(crate) fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // `sleep` takes it as seconds; the fraction is what makes it unique.
    format!("7654.{}{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Live processes of this machine that have `text` in their arguments.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).split('\0').any(|argument| argument == text) {
            found.push(pid);
        }
    }
    found
}

/// Children of a process, with their states.
pub(crate) fn children_of(parent: u32) -> Vec<(i32, char)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let mut fields = fields.split(' ');
        let state = fields.next().and_then(|state| state.chars().next()).expect("a state");
        if fields.next() == Some(parent.to_string().as_str()) {
            found.push((pid, state));
        }
    }
    found
}

#[expect(clippy::disallowed_methods, reason = "these tests wait for real processes")]
pub(crate) async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Measures real time, to tell "promptly" from "when the sleeping process wakes up".
#[expect(clippy::disallowed_methods, reason = "these tests wait for real processes")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A directory of the host that goes away with the value.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("isolation-{}", marker()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        fs::write(&path, contents).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    pub(crate) fn give_to(&self, id: u32) {
        if is_root() {
            std::os::unix::fs::chown(&self.0, Some(id), Some(id)).expect("a new owner");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// Becomes somebody without privileges.
pub(crate) const NOBODY: [&str; 5] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];

/// Which part a test process started by [`other_host`] plays.
const ROLE: &str = "ISOLATION_ROLE";

#[expect(
    clippy::disallowed_methods,
    reason = "a host is a process, and a test of hosts needs several"
)]
fn host_from(own: &Path, wrapper: &[&str], test: &str) -> Child {
    let own = own.to_str().expect("text");
    let line: Vec<&str> =
        wrapper.iter().copied().chain([own, "--exact", test, "--nocapture"]).collect();
    Command::new(line[0])
        .args(&line[1..])
        .env(ROLE, test)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("another host")
}

/// Runs one of our tests in a process of its own, behind `wrapper`.
pub(crate) fn other_host(wrapper: &[&str], test: &str) -> Child {
    host_from(&std::env::current_exe().expect("a path"), wrapper, test)
}

/// A copy of this program where every user can reach it.
pub(crate) fn reachable_copy() -> (Directory, PathBuf) {
    let place = Directory::new();
    let copy = place.0.join("isolation");
    fs::copy(std::env::current_exe().expect("a path"), &copy).expect("a copy");
    (place, copy)
}

/// Runs one of our tests in a process of its own and expects it to pass.
pub(crate) fn passes_elsewhere(wrapper: &[&str], test: &str) {
    passes(other_host(wrapper, test));
}

/// The same, where `wrapper` becomes another user.
pub(crate) fn passes_as_another(wrapper: &[&str], test: &str) {
    let (_place, copy) = reachable_copy();
    passes(host_from(&copy, wrapper, test));
}

fn passes(host: Child) {
    let output = host.wait_with_output().expect("an end");
    say_on(&output.stderr);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Whether this process was started to play `test`; if not, the test has nothing to do.
pub(crate) fn plays(test: &str) -> bool {
    std::env::var(ROLE).as_deref() == Ok(test)
}
