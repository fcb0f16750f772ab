//! Python programs in forks of a warm interpreter: the same results as from a new interpreter, and
//! nothing that a program of the cell wouldn't have.

use std::{collections::BTreeMap, fs, time::Duration};

use neuroflow_sandbox::{
    Collected, End, Interpreter, InterpreterError, LaunchError, Launcher, Level, Profile,
    ProfileBuilder, Program, Warm, limits::STOCKED_SEEDLINGS,
};

use crate::support::{
    Directory, children_of, eventually, is_root, marker, now, passes_elsewhere, pause, plays,
};
use crate::untried::untried;

/// A launcher that keeps forks for one profile.
struct Warmed {
    launcher: Launcher,
    profile: Profile,
}

impl Warmed {
    async fn new(profile: ProfileBuilder) -> Self {
        Self::with(profile, &Interpreter::bare_python()).await
    }

    async fn with(profile: ProfileBuilder, interpreter: &Interpreter) -> Self {
        let profile = profile
            .wall_time(Duration::from_secs(20))
            .allow_degraded(!is_root())
            .build()
            .expect("a valid profile");
        let launcher = Launcher::start().expect("a zygote");
        let warm = Warm { least: 1, most: 2 };
        launcher.keep_interpreter_warm(&profile, interpreter, warm).expect("python3 is installed");
        let warmed = Self { launcher, profile };
        warmed.settle().await;
        warmed
    }

    /// Waits until programs run in forks.
    async fn settle(&self) {
        for _ in 0..500 {
            if self.run(Program::python("pass")).await.report.forked {
                return;
            }
            pause(20).await;
        }
        panic!("no fork came into a cell");
    }

    async fn run(&self, program: Program) -> Collected {
        let cell = self.launcher.launch(&self.profile, &program).await.expect("the program starts");
        cell.collect().await
    }

    /// Runs the program in a fork; there is one again soon after each.
    async fn forked(&self, program: &Program) -> Collected {
        for _ in 0..500 {
            let collected = self.run(program.clone()).await;
            if collected.report.forked {
                return collected;
            }
            pause(10).await;
        }
        panic!("no fork came into a cell");
    }

    async fn text(&self, text: &str) -> String {
        let collected = self.forked(&Program::python(text)).await;
        let errors = String::from_utf8_lossy(&collected.stderr).into_owned();
        assert!(collected.report.is_success(), "{:?}: {errors}", collected.report.end);
        String::from_utf8(collected.stdout).expect("text")
    }

    /// Runs the program in a new interpreter in a cell of its own.
    async fn cold(&self, program: &Program) -> Collected {
        let launcher = Launcher::start().expect("a zygote");
        let cell = launcher.launch(&self.profile, program).await.expect("the program starts");
        let collected = cell.collect().await;
        assert!(!collected.report.forked && !collected.report.prepared);
        collected
    }

    /// Runs the program both ways and compares all that can be seen.
    async fn same(&self, program: Program) {
        let (warm, cold) = (self.forked(&program).await, self.cold(&program).await);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&warm.stdout), text(&cold.stdout), "{program:?}");
        assert_eq!(text(&warm.stderr), text(&cold.stderr), "{program:?}");
        assert_eq!(warm.report.end, cold.report.end, "{program:?}");
    }
}

fn level(level: Level) -> ProfileBuilder {
    Profile::builder(level)
}

const LEVELS: [Level; 3] = [Level::Standard, Level::Strict, Level::Paranoid];

#[tokio::test]
async fn a_fork_does_what_a_new_interpreter_does() {
    let place = Directory::new();
    place.file(
        "script.py",
        b"import sys\nprint(sorted(globals()), __file__, __name__, sys.argv)\n1/0\n",
        0o644,
    );
    let warmed =
        Warmed::new(level(Level::Standard).env("COLOUR", "red").bind_ro(&place.0, "/data")).await;
    let texts = [
        "print(1)",
        "import sys; print(sys.argv, sys.orig_argv, sys.flags, sys.path, sys.executable)",
        "import os; print(sorted(os.environ.items()), os.getcwd(), os.umask(0))",
        "print(__name__, sorted(globals()))",
        "import sys; print(sys.stdin.read().upper(), file=sys.stderr)",
        "import sys; sys.stdout.buffer.write(bytes([255, 0, 10])); print('é', sys.stdout.encoding)",
        "import sys; print(sys.stdin, sys.stdout, sys.stderr, sys.stdout.line_buffering)",
        "def f(): g()\ndef g(): raise ValueError('deep')\nf()",
        "this is no python",
        "raise SystemExit",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a reason')",
        "import sys; sys.exit(True)",
        "exit(3)",
        "raise KeyboardInterrupt",
        "import os; os.abort()",
        "import os; os._exit(9)",
        "import atexit; atexit.register(print, 'last'); print('first')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print(2))).start()",
        "open('/tmp/left', 'w').write('never closed'); import os; print(os.listdir('/tmp'))",
        "class A:\n def __del__(self): print('gone')\na = A()",
        "import os; print(os.popen('echo from a shell').read())",
        "import subprocess; print(subprocess.run(['cat'], input=b'x', capture_output=True))",
        "import gc, threading; print(gc.isenabled(), threading.active_count())",
        "import threading; print(threading.current_thread() is threading.main_thread())",
        "import signal; print([signal.getsignal(s) for s in range(1, 32)])",
        "import multiprocessing as m; print(m.get_context('fork').Process(target=print).start())",
        "import asyncio; print(asyncio.run(asyncio.sleep(0, 5)))",
        "import ctypes; print(ctypes.CDLL(None).getpid() > 1)",
        "import sys; sys.stdout.close()",
    ];
    for text in texts {
        warmed.same(Program::python(text).args(["a", "b c"]).stdin("input")).await;
    }
    warmed.same(Program::python_script("/data/script.py").arg("x")).await;
    warmed.same(Program::python_script("/data/nothing.py")).await;
    warmed.same(Program::python("import os; print(os.getcwd())").directory("/tmp")).await;
    let refused = warmed
        .launcher
        .launch(&warmed.profile, &Program::python("pass").directory("/nowhere"))
        .await;
    assert!(matches!(refused, Err(LaunchError::Directory { .. })));
}

#[tokio::test]
async fn a_fork_has_its_profiles_time_zone() {
    let warmed = Warmed::new(level(Level::Standard).env("TZ", "EAST-9")).await;
    let text = "import time; print(time.tzname, time.timezone, time.localtime(0).tm_hour)";
    warmed.same(Program::python(text)).await;
    assert_eq!(warmed.text(text).await, "('EAST', 'EAST') -32400 9\n");
    // One that names no zone has the one that cells have.
    Warmed::new(level(Level::Standard)).await.same(Program::python(text)).await;
}

#[tokio::test]
async fn a_profile_with_a_locale_of_its_own_has_cells_without_forks() {
    let profile = level(Level::Standard).env("LC_ALL", "C").wall_time(Duration::from_secs(20));
    let profile = profile.build().expect("a valid profile");
    let launcher = Launcher::start().expect("a zygote");
    let warm = Warm { least: 1, most: 1 };
    launcher.keep_interpreter_warm(&profile, &Interpreter::bare_python(), warm).expect("a pool");
    // Which an interpreter decides when it starts, and a fork can't change.
    let program = Program::python("import sys; print(sys.flags.utf8_mode)");
    for _ in 0..500 {
        let cell = launcher.launch(&profile, &program).await.expect("the program starts");
        let collected = cell.collect().await;
        assert!(!collected.report.forked);
        assert_eq!(collected.stdout, b"1\n");
        if collected.report.prepared {
            return;
        }
        pause(10).await;
    }
    panic!("no cell was prepared");
}

#[tokio::test]
async fn a_file_that_nobody_closed_is_whole() {
    let place = Directory::new();
    place.give_to(65_533);
    let warmed = Warmed::new(level(Level::Standard).bind_rw(&place.0, "/data")).await;
    for rest in ["pass", "l = [f]; l.append(l)"] {
        let text = format!("f = open('/data/f', 'w')\nf.write('whole')\n{rest}");
        assert!(warmed.forked(&Program::python(text)).await.report.is_success());
        let path = place.0.join("f");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "whole", "{rest}");
        fs::remove_file(path).expect("a file");
    }
}

#[tokio::test]
async fn long_orders_and_inputs_arrive() {
    let warmed = Warmed::new(level(Level::Standard)).await;
    let long = "x".repeat(100_000);
    let program = Program::python("import sys; print(len(sys.argv[1]), len(sys.stdin.read()))");
    let collected = warmed.forked(&program.arg(long).stdin(vec![b'y'; 1 << 20])).await;
    assert_eq!(String::from_utf8_lossy(&collected.stdout), "100000 1048576\n");
}

/// What a process can say about itself, one name and value per line.
const PORTRAIT: &str = r#"
import ctypes, os, resource, struct
libc = ctypes.CDLL(None, use_errno=True)
prctl = lambda *a: libc.prctl(*(ctypes.c_ulong(x) for x in (a + (0,) * (5 - len(a)))))
def attempt(call):
    try: call(); return "done"
    except OSError as error: return error.errno
print("ids", os.getresuid(), os.getresgid(), len(os.getgroups()))
print("parent", os.getppid(), "session", os.getsid(0) == os.getpid(), "first", os.getpid() > 1)
print("no_new_privs", prctl(39), "seccomp", prctl(21), "dumpable", prctl(3), "secure", prctl(27))
print("bounding", [c for c in range(64) if prctl(23, c) == 1])
print("ambient", [c for c in range(64) if prctl(47, 1, c) == 1])
header, held = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0)), \
    ctypes.create_string_buffer(24)
print("capget", libc.capget(header, held), held.raw.hex())
print("limits", [resource.getrlimit(n) for n in range(16)])
print("death", [prctl(2, ctypes.addressof(s := ctypes.c_int())), s.value])
print("descriptors", [n for n in range(256) if attempt(lambda: os.fstat(n)) == "done"])
print("guard", attempt(lambda: open("/.guard")), "root", sorted(os.listdir("/")))
print("write", attempt(lambda: open("/usr/x", "w")), attempt(lambda: open("/x", "w")))
print("user", attempt(lambda: libc.unshare(0x10000000) and exec("raise OSError(ctypes.get_errno())")))
print("host", os.uname().nodename, os.getcwd(), sorted(os.environ))
print("affinity", len(os.sched_getaffinity(0)), os.getpriority(0, 0), os.sched_getscheduler(0))
print("mask", sorted(__import__("signal").pthread_sigmask(0, [])))
print("keys", libc.syscall(250, 0, -3, 0), ctypes.get_errno())
"#;

/// Namespaces and groups; only where there is a `/proc`.
const PLACES: &str = r#"
import os
for name in sorted(os.listdir("/proc/self/ns")):
    print(name, os.readlink("/proc/self/ns/" + name))
print("groups", open("/proc/self/cgroup").read())
print("mounts", open("/proc/self/mountinfo").read().count("\n"))
print("seen", sorted(int(n) for n in os.listdir("/proc") if n.isdigit()))
"#;

#[tokio::test]
async fn a_fork_has_nothing_that_a_program_would_not_have() {
    for each in LEVELS {
        let warmed = Warmed::new(level(each)).await;
        let program = Program::python(PORTRAIT);
        let (warm, cold) = (warmed.forked(&program).await, warmed.cold(&program).await);
        let (ours, theirs) = (
            String::from_utf8_lossy(&warm.stdout).into_owned(),
            String::from_utf8_lossy(&cold.stdout).into_owned(),
        );
        assert!(ours.contains("keys"), "{ours}{}", String::from_utf8_lossy(&warm.stderr));
        assert_eq!(ours, theirs, "{each}");
        assert!(ours.contains("(1000, 1000, 1000) (1000, 1000, 1000)"), "{ours}");
        assert!(ours.contains("parent 1 session True first True"), "{ours}");
        assert!(ours.contains("no_new_privs 1 seccomp 2 dumpable 1 secure 239"), "{ours}");
        assert!(ours.contains("bounding []") && ours.contains("ambient []"), "{ours}");
        assert!(ours.contains(&format!("capget 0 {}", "0".repeat(48))), "{ours}");
        assert!(ours.contains("descriptors [0, 1, 2]"), "{ours}");
        if each > Level::Standard {
            assert!(ours.contains("guard 13"), "{ours}");
        }
        assert_eq!(warm.report.layers(), cold.report.layers());
    }
}

/// Lines of the form `name value`.
fn rows(text: &str) -> BTreeMap<String, String> {
    let split = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text.lines().filter_map(split).collect()
}

#[tokio::test]
async fn a_fork_is_in_no_place_of_the_host_or_of_another_cell() {
    for each in [Level::Standard, Level::Strict] {
        let warmed = Warmed::new(level(each)).await;
        let first = rows(&warmed.text(PLACES).await);
        let second = rows(&warmed.text(PLACES).await);
        for name in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
            let inside = first.get(name).expect("a namespace");
            let outside = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
            assert_ne!(inside, &outside.to_string_lossy(), "{name}");
            // A network that no socket was possible in may come back.
            if name != "net" {
                assert_ne!(Some(inside), second.get(name), "{name}");
            }
        }
        assert_eq!(first.get("pid"), first.get("pid_for_children"));
        // The cell's groups are the root of what it sees.
        assert!(first.get("groups").is_some_and(|group| group.ends_with(":/")), "{first:?}");
        // Itself, and the first process where it can be seen: the interpreter isn't there.
        let seen = first.get("seen").expect("a list").replace("[1, ", "[");
        assert!(seen.len() > 2 && !seen.contains(','), "{seen}");
    }
}

#[tokio::test]
async fn refused_calls_have_names_and_limits_hold() {
    let warmed = Warmed::new(level(Level::Strict).memory(128 << 20).processes(8)).await;
    let mount = "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n\
                 l.mount(b'a', b'/tmp', b'tmpfs', 0, None)\nprint(ctypes.get_errno())";
    let collected = warmed.forked(&Program::python(mount)).await;
    assert_eq!(collected.stdout, b"1\n");
    assert!(collected.report.denials.iter().any(|denial| denial.call == "mount"));
    let forks = "import os, time\nn = 0\ntry:\n while n < 50:\n  \
                 n += 1\n  if os.fork() == 0: time.sleep(30)\nexcept OSError as e:\n \
                 print(n < 20, e.errno, flush=True)";
    let collected = warmed.forked(&Program::python(forks)).await;
    assert_eq!(String::from_utf8_lossy(&collected.stdout), "True 11\n");
    if is_root() {
        let hog = "a = []\nwhile True: a.append(bytearray(1 << 20))";
        let collected = warmed.forked(&Program::python(hog)).await;
        assert!(!collected.report.is_success(), "{:?}", collected.report);
    } else {
        untried("a fork that takes all memory", "only root surely has groups that limit it");
    }
    let spin = level(Level::Standard).wall_time(Duration::from_millis(300));
    let profile = spin.build().expect("a valid profile");
    let warm = Warm { least: 1, most: 1 };
    let bare = Interpreter::bare_python();
    warmed.launcher.keep_interpreter_warm(&profile, &bare, warm).expect("a pool");
    pause(500).await;
    let begun = now();
    let cell = warmed.launcher.launch(&profile, &Program::python("while True: pass")).await;
    let collected = cell.expect("the program starts").collect().await;
    assert_eq!(collected.report.end, End::WallTime);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn forks_tell_each_other_nothing() {
    let warmed = Warmed::with(level(Level::Standard), &Interpreter::python()).await;
    let first = "import json, builtins, sys; json.dumps = builtins.left = sys.left = 'left'\n\
                 open('/tmp/left', 'w').write('x'); open('/work/left', 'w').write('x')";
    warmed.text(first).await;
    let second = "import json, builtins, os, sys\n\
                  print(json.dumps(1), hasattr(builtins, 'left'), hasattr(sys, 'left'), \
                  os.listdir('/tmp'), os.listdir('/work'))";
    assert_eq!(warmed.text(second).await, "1 False False [] []\n");
    let random = "import random, uuid, tempfile\nprint(random.random(), uuid.uuid4(), \
                  next(tempfile._get_candidate_names()))";
    assert_ne!(warmed.text(random).await, warmed.text(random).await);
}

/// The warm interpreters of this process's zygotes: the only Python that runs from a pipe of ours.
fn interpreters(mark: &str) -> Vec<i32> {
    crate::support::processes_with(mark)
}

/// A module that doesn't exist, whose name makes an interpreter recognisable.
fn marked() -> (Interpreter, String) {
    let mark = format!("m{}", marker().replace('.', "_"));
    let interpreter = Interpreter::bare_python().preload([mark.clone()]).expect("a module's name");
    (interpreter, mark)
}

#[tokio::test]
async fn an_interpreter_that_dies_is_replaced_and_ends_with_its_launcher() {
    let (interpreter, mark) = marked();
    let warmed = Warmed::with(level(Level::Standard), &interpreter).await;
    let find = || -> Vec<i32> {
        // Its forks in waiting cells have the same arguments; it is the one that no cell holds.
        let alone = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            ids.is_some_and(|ids| ids.split_whitespace().count() == 1)
        };
        interpreters(&mark).into_iter().filter(alone).collect()
    };
    for _ in 0..3 {
        let found = find();
        let [old] = found[..] else { panic!("{found:?}") };
        kill(old);
        // Programs run all the time, in the forks that are left or in new interpreters.
        let collected = warmed.run(Program::python("print(5)")).await;
        assert_eq!(collected.stdout, b"5\n");
        eventually("a new interpreter", || matches!(find()[..], [new] if new != old)).await;
        warmed.settle().await;
    }
    drop(warmed);
    eventually("the interpreter's end", || interpreters(&mark).is_empty()).await;
}

#[expect(clippy::disallowed_methods, reason = "an operator is another process")]
fn kill(pid: i32) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
}

#[tokio::test]
async fn a_cell_can_do_nothing_to_the_interpreter() {
    let (interpreter, mark) = marked();
    let warmed = Warmed::with(level(Level::Standard), &interpreter).await;
    let before = interpreters(&mark).len();
    let text = "import os, signal\n\
                for pid in range(2, 400):\n \
                if pid != os.getpid():\n  \
                try: os.kill(pid, signal.SIGKILL); print('killed', pid)\n  \
                except ProcessLookupError: pass\n\
                try: os.kill(-1, signal.SIGKILL); print('killed all')\n\
                except ProcessLookupError: pass";
    assert_eq!(warmed.text(text).await, "");
    assert!(before > 0 && !interpreters(&mark).is_empty());
    warmed.settle().await;
}

/// In a process of its own, or other tests' launchers would count.
#[test]
fn many_programs_leave_nothing_behind() {
    passes_elsewhere(&[], "python::role_many_programs");
}

#[tokio::test]
async fn role_many_programs() {
    if !plays("python::role_many_programs") {
        return;
    }
    let warmed = Warmed::new(level(Level::Strict)).await;
    let descriptors = || fs::read_dir("/proc/self/fd").expect("/proc").count();
    let zygote_of = || children_of(std::process::id())[0].0.cast_unsigned();
    let held = || fs::read_dir(format!("/proc/{}/fd", zygote_of())).map_or(0, Iterator::count);
    pause(300).await;
    let (ours, theirs) = (descriptors(), held());
    let mut forked = 0;
    for number in 0..200 {
        let collected = warmed.run(Program::python(format!("print({number})"))).await;
        assert_eq!(String::from_utf8_lossy(&collected.stdout), format!("{number}\n"));
        forked += u32::from(collected.report.forked);
        if !collected.report.forked {
            pause(20).await;
        }
    }
    assert!(forked >= 20, "only {forked} of 200 ran in a fork");
    pause(500).await;
    assert!(descriptors() <= ours + 8, "{} descriptors, {ours} before", descriptors());
    assert!(held() <= theirs + 64, "{} descriptors of the zygote, {theirs} before", held());
    // The interpreter, at most two waiting cells' first processes, and those without a cell.
    let below = children_of(zygote_of());
    assert!(
        below.len() <= 3 + STOCKED_SEEDLINGS && below.iter().all(|(_, state)| *state != 'Z'),
        "{below:?}"
    );
}

#[tokio::test]
async fn bad_interpreters_are_named() {
    let refused = Interpreter::python().preload(["a b"]).expect_err("no module's name");
    assert!(matches!(refused, InterpreterError::Module { ref name } if name == "a b"));
    let launcher = Launcher::start().expect("a zygote");
    let minimal = Profile::builder(Level::Minimal).build().expect("a profile");
    let warm = Warm { least: 1, most: 1 };
    let refused = launcher.keep_interpreter_warm(&minimal, &Interpreter::python(), warm);
    assert!(matches!(refused, Err(LaunchError::NotPreparable { .. })));
}
