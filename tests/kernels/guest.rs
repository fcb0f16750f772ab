//! What guests have in common: the script that is their first process, the wait, and the verdict.

use std::{
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    programs::program,
    untried::{LACKING, everything_is_tried, say_on},
};

/// Tests of one test program that a guest has to pass.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The target's name, as `program` takes it.
    pub(crate) program: &'static str,
    /// Parts of the tests' names.
    pub(crate) tests: &'static [&'static str],
    /// Tests that this guest's kernel can't pass, each with the reason.
    pub(crate) lacking: &'static [(&'static str, &'static str)],
    /// Fewer than this means that tests have moved, and that the list above selects nothing.
    pub(crate) at_least: u32,
    /// Who runs it.
    pub(crate) host: Host,
}

/// Who runs a guest's tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Root,
    /// Nobody, in a control group that was given to them, with what a system manager gives with it.
    Delegated,
}

/// A guest that isn't started yet: a folder of the host with its files.
#[derive(Debug)]
pub(crate) struct Guest {
    name: &'static str,
    suites: &'static [Suite],
    pub(crate) folder: PathBuf,
}

impl Guest {
    /// `module` is a kernel module to load first, if the guest's kernel needs one.
    pub(crate) fn prepare(
        name: &'static str,
        suites: &'static [Suite],
        module: Option<&Path>,
    ) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let guest = Self { name, suites, folder };
        let script = guest.script(module);
        fs::write(guest.init(), script).expect("the script");
        fs::set_permissions(guest.init(), fs::Permissions::from_mode(0o755)).expect("a mode");
        guest
    }

    /// The script that has to become the guest's first process.
    pub(crate) fn init(&self) -> PathBuf {
        self.folder.join("init")
    }

    /// Runs the machine to its end, or to the end of patience, and looks at what its tests said.
    pub(crate) fn run(&self, machine: &mut Command, patience: Duration) {
        let console = self.folder.join("console");
        let file = File::create(&console).expect("a file");
        machine
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("the file"))
            .stdout(file);
        let child = machine.spawn().expect("the machine starts");
        let ended = Running(child).wait(patience);
        let text = String::from_utf8_lossy(&fs::read(&console).expect("the console")).into_owned();
        assert!(ended, "{} wasn't done after {patience:?}:\n{text}", self.name);
        if let Err(complaint) = self.judge(&text) {
            panic!("{}: {complaint}:\n{text}", self.name);
        }
        say_on(text.as_bytes());
    }

    /// Every suite has to have run, passed, and ended well.
    fn judge(&self, console: &str) -> Result<(), String> {
        // Firmware may have begun the line.
        let (_, rest) = console.split_once(CONTROLLERS).ok_or("the guest's script said nothing")?;
        let controllers = rest.lines().next().unwrap_or_default();
        for controller in ["cpu", "memory", "pids", "io"] {
            if !controllers.split_whitespace().any(|name| name == controller) {
                return Err(format!("no cgroup controller {controller}"));
            }
        }
        for (index, suite) in self.suites.iter().enumerate() {
            let begin = format!("{MARK}begin {index}");
            let end = format!("{MARK}end {index} status 0");
            let part = console.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
            let (part, _) = part.ok_or_else(|| format!("{} didn't end well", suite.program))?;
            let passed = part
                .split_once("test result: ok. ")
                .and_then(|(_, rest)| rest.split_once(" passed; 0 failed;"))
                .and_then(|(number, _)| number.parse::<u32>().ok())
                .ok_or_else(|| format!("{} has no good summary", suite.program))?;
            if passed < suite.at_least {
                return Err(format!("{}: only {passed} tests were selected", suite.program));
            }
        }
        Ok(())
    }

    fn script(&self, module: Option<&Path>) -> String {
        let mut copies = String::new();
        let mut runs = String::new();
        for (index, suite) in self.suites.iter().enumerate() {
            let from = quoted(program(suite.program).to_str().expect("a path of text"));
            writeln!(copies, "cp {from} /proc/{index}").expect("text");
            let mut line = format!(
                "/run/tests/{index} --test-threads=1 --color never {}",
                suite.tests.join(" ")
            );
            for (test, _) in suite.lacking {
                write!(line, " --skip {test}").expect("text");
            }
            writeln!(runs, "echo '{MARK}begin {index}'").expect("text");
            if suite.host == Host::Delegated {
                line = format!("{DELEGATED}{LACKING}='paranoid is for root' {line})");
            }
            writeln!(runs, "{line}; echo \"{MARK}end {index} status $?\"").expect("text");
        }
        if let Some(module) = module {
            let module = quoted(module.to_str().expect("a path of text"));
            writeln!(copies, "busybox insmod {module}").expect("text");
        }
        let ci = if everything_is_tried() { "export CI=true\n" } else { "" };
        format!("{HEAD}{ci}{copies}{MOUNTS}{runs}{TAIL}")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A process that doesn't outlive this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Whether it ended by itself.
    #[expect(clippy::disallowed_methods, reason = "a guest's time is the real one")]
    fn wait(mut self, patience: Duration) -> bool {
        let begun = std::time::Instant::now();
        while begun.elapsed() < patience {
            if self.0.try_wait().expect("a child").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A program in a process tree of its own, which ends with this process, however it ends.
#[expect(clippy::disallowed_methods, reason = "a guest is a process of the host")]
pub(crate) fn contained(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child=KILL", program]);
    command
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// Where `PATH` has a program, or one of the folders that isn't in everyone's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/qemu", "/usr/libexec"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

const MARK: &str = "kernels: ";
const CONTROLLERS: &str = "kernels: controllers ";

/// Test programs are copied before anything is mounted that could hide them: a checkout may be below
/// `/tmp` or `/run`.
const HEAD: &str = "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TMPDIR=/tmp RUST_BACKTRACE=0 ESCAPE_GUEST=yes
cd /
umask 022
mount -t tmpfs -o mode=755 tests /proc
";

const MOUNTS: &str = "mount -t tmpfs -o mode=755 run /run
mkdir /run/tests
mount --move /proc /run/tests
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmp /tmp
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t cgroup2 -o nsdelegate cgroup /sys/fs/cgroup
echo '+cpu +memory +pids +io' >/sys/fs/cgroup/cgroup.subtree_control
echo guest >/proc/sys/kernel/hostname
ip link set lo up
echo \"kernels: controllers $(cat /sys/fs/cgroup/cgroup.subtree_control)\"
echo \"kernels: $(uname -r), up $(cut -d ' ' -f 1 /proc/uptime) s\"
";

/// A group that belongs to nobody, who is put into it; as systemd does with `Delegate=yes`.
const DELEGATED: &str = "mkdir -p /sys/fs/cgroup/given
chown 65534:65534 /sys/fs/cgroup/given
for file in cgroup.procs cgroup.threads cgroup.subtree_control memory.oom.group; do
chown 65534:65534 /sys/fs/cgroup/given/$file
done
(echo 0 >/sys/fs/cgroup/given/cgroup.procs
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
env HOME=/tmp ISOLATION_DELEGATED=yes ";

const TAIL: &str = "echo \"kernels: done, up $(cut -d ' ' -f 1 /proc/uptime) s\"
echo o >/proc/sysrq-trigger
sleep 10
";

#[test]
fn a_guest_that_fails_or_says_too_little_is_not_believed() {
    const SUITES: &[Suite] =
        &[Suite { program: "isolation", tests: &[], lacking: &[], at_least: 2, host: Host::Root }];
    let guest = Guest { name: "no", suites: SUITES, folder: PathBuf::from("/nonexistent") };
    let console = |controllers: &str, result: &str, status: &str| {
        format!(
            "Booting..{CONTROLLERS}{controllers}\r\n{MARK}begin 0\r\ntest result: {result}; 0 ignored\r\n\
             {MARK}end 0 status {status}\r\n"
        )
    };
    let all = "cpu io memory pids";
    assert_eq!(guest.judge(&console(all, "ok. 2 passed; 0 failed", "0")), Ok(()));
    assert!(guest.judge(&console("cpu io pids", "ok. 2 passed; 0 failed", "0")).is_err());
    assert!(guest.judge(&console(all, "ok. 1 passed; 0 failed", "0")).is_err());
    assert!(guest.judge(&console(all, "FAILED. 2 passed; 1 failed", "101")).is_err());
    assert!(guest.judge(&console(all, "ok. 2 passed; 0 failed", "101")).is_err());
    assert!(guest.judge("Kernel panic - not syncing").is_err());
    assert!(guest.judge("").is_err());
}
