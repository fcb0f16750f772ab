//! Ends that somebody holds up from outside: whoever holds a cell's streams, or the cell itself.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::PathBuf,
    time::Duration,
};

use neuroflow_sandbox::{
    Collected, End, Exec, How, Launcher, Level, Profile, ProfileBuilder, Program, SandboxServer,
};

use crate::{
    server::{ask, end_of, sandbox_of},
    support::{
        Directory, eventually, is_root, launch, marker, passes_elsewhere, pause, plays,
        processes_with, sh, standard,
    },
    untried::{not_here, untried},
};

/// What ends in time, which is far longer than it takes.
async fn in_time<T>(ends: impl Future<Output = T>) -> T {
    tokio::select! {
        ended = ends => ended,
        () = pause(90_000) => panic!("it is still waited for"),
    }
}

/// A socket outside that takes whatever is passed to it, and keeps it.
struct Keeper {
    place: Directory,
    _socket: UnixListener,
}

impl Keeper {
    fn new() -> Self {
        let place = Directory::new();
        let path = place.0.join("socket");
        let socket = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a mode");
        Self { place, _socket: socket }
    }

    fn profile(&self) -> ProfileBuilder {
        standard().bind_rw(&self.place.0, "/work/outside")
    }

    fn program(then: &str) -> Program {
        let script = format!(
            "import socket, sys, time\n\
             s = socket.socket(socket.AF_UNIX)\n\
             s.connect('/work/outside/socket')\n\
             socket.send_fds(s, [b'x'], [1, 2])\n\
             print('passed on', flush=True)\n{then}"
        );
        Program::new("python3").arg("-c").arg(script)
    }
}

#[tokio::test]
async fn who_holds_the_streams_outside_is_not_waited_for() {
    let keeper = Keeper::new();
    let passed = |end| {
        move |ended: Collected| {
            assert_eq!((ended.report.end, ended.stdout.as_slice()), (end, &b"passed on\n"[..]));
        }
    };
    let cell = launch(keeper.profile(), Keeper::program("")).await;
    passed(End::Exited(0))(in_time(cell.collect()).await);
    let profile = keeper.profile().wall_time(Duration::from_secs(2));
    let cell = launch(profile, Keeper::program("time.sleep(600)")).await;
    passed(End::WallTime)(in_time(cell.collect()).await);
    let cell = launch(keeper.profile(), Keeper::program("time.sleep(600)")).await;
    assert_eq!(in_time(cell.finish_by(pause(1000))).await.end, End::WallTime);
    let mut cell = launch(keeper.profile(), Keeper::program("sys.exit(3)")).await;
    assert_eq!(in_time(cell.exit()).await, Some(End::Exited(3)));
    let mut cell = launch(keeper.profile(), Keeper::program("")).await;
    assert_eq!(in_time(cell.gone()).await, End::Exited(0));
    assert_eq!(in_time(cell.collect()).await.stdout, b"passed on\n", "and nothing of it is lost");
}

#[tokio::test]
async fn who_holds_the_streams_outside_does_not_hold_the_actor_up() {
    let keeper = Keeper::new();
    let profile = keeper.profile().wall_time(Duration::from_secs(2)).build().expect("a profile");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile)).await;
    for (then, how) in [("", How::Exited(0)), ("time.sleep(600)", How::WallTime)] {
        let program = Keeper::program(then);
        let arguments = program.arguments().iter().map(|argument| argument.to_str().expect("text"));
        let command: Vec<&str> = std::iter::once("python3").chain(arguments).collect();
        let events = ask(&sandbox, Exec::new(command)).await;
        assert_eq!(in_time(end_of(events)).await.expect("it ran").0, how);
    }
    kernel.stop().await;
}

const FROZEN: &str = "ends::role_frozen";

#[test]
fn what_is_killed_and_does_not_end_is_told_as_that() {
    if !is_root() {
        return untried("what is killed and doesn't end", "only root can freeze a group");
    }
    passes_elsewhere(&["env"], FROZEN);
}

/// A group of version 1 that stops all that is in it, so that nothing ends it. `None` where there is none.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").expect("groups");
        let own = groups.lines().find_map(|line| line.split_once(":freezer:"))?.1;
        let home = PathBuf::from(format!("/sys/fs/cgroup/freezer{own}"));
        let path = home.join(format!("isolation-{}", marker()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn stop(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a member");
        fs::write(self.0.join("freezer.state"), "FROZEN").expect("a state");
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").expect("a state");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let gone = || fs::remove_dir(&self.0).is_ok() || !self.0.exists();
        for _ in 0..100 {
            if gone() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// In a process of its own, with a zygote that waits for nobody else.
#[tokio::test]
async fn role_frozen() {
    if !plays(FROZEN) {
        return;
    }
    let Some(freezer) = Freezer::new() else {
        let why = "only version 1 of control groups keeps what is killed from its end";
        return not_here("what is killed and doesn't end", why);
    };
    let profile = || Profile::builder(Level::Standard).wall_time(Duration::from_secs(3));
    let stop = async |marker: &str| {
        eventually("a program", || !processes_with(marker).is_empty()).await;
        for pid in processes_with(marker) {
            freezer.stop(pid);
        }
    };
    // Programs are stopped, and hold their output; the first processes of their cells wait for them.
    let (straight, asked) = (marker(), marker());
    let launcher = Launcher::start().expect("a zygote");
    let profile = profile().build().expect("a profile");
    let cell = launcher.launch(&profile, &sh(format!("exec sleep {straight}"))).await;
    let cell = cell.expect("a cell");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile)).await;
    let events = ask(&sandbox, Exec::new(["sleep", asked.as_str()])).await;
    stop(&straight).await;
    stop(&asked).await;
    let (report, told) = tokio::join!(in_time(cell.finish()), in_time(end_of(events)));
    assert_eq!((report.end, told.expect("it ran").0), (End::NotGone, How::NotGone));
    freezer.thaw();
    for marker in [straight, asked] {
        eventually("its end", || processes_with(&marker).is_empty()).await;
    }
    kernel.stop().await;
}
