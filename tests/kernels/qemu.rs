//! An emulated machine with a recent distribution kernel: Landlock and cgroup v2 together.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{
    archive::Archive,
    eventually::eventually_blocking,
    guest::{Guest, Host, Running, Suite, contained, find, is_root},
    untried::untried,
};

#[test]
fn cells_hold_on_an_emulated_machine() {
    with_machine("qemu", SUITES);
}

#[test]
fn attacks_on_an_emulated_machine_fail_and_a_given_group_is_enough() {
    with_machine("qemu-attacks", ATTACKS);
}

fn with_machine(name: &'static str, suites: &'static [Suite]) {
    match needed() {
        Ok(files) => boot(name, suites, &files),
        Err(reason) => untried("an emulated machine", reason),
    }
}

fn boot(name: &'static str, suites: &'static [Suite], files: &Files) {
    let guest = Guest::prepare(name, suites, Some(&files.overlay));
    let first_root = first_root(&guest, &files.busybox);
    fs::write(guest.folder.join("initrd"), first_root).expect("the archive");
    // The socket's path is relative, because the kernel takes short ones only.
    let socket = format!("{name}-{}.sock", std::process::id());
    let server = contained(files.server.to_str().expect("a path of text"))
        .current_dir(&guest.folder)
        .arg(format!("--socket-path={socket}"))
        .args(["-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the file server starts");
    let _server = Running(server);
    let _lock = Lock(Path::new("/run/virtiofsd").join(format!("{socket}.pid")));
    let made = guest.folder.join(&socket);
    eventually_blocking("the socket of the file server", || made.exists());
    guest.run(
        contained("qemu-system-x86_64")
            .args(["-machine", "pc", "-accel", "tcg,thread=multi", "-smp", "1", "-m", "768"])
            // Emulated `cmpxchg16b` leaves wrong flags behind (QEMU 7.2), and kernels since 6.5
            // allocate memory with it. The old model has nothing else that costs time in emulation.
            .args(["-cpu", "qemu64,cx16=off"])
            .args(["-object", "memory-backend-memfd,id=memory,size=768M,share=on"])
            .args(["-numa", "node,memdev=memory"])
            .args(["-chardev", &format!("socket,id=files,path={socket}")])
            .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-nographic",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .arg("-kernel")
            .arg(&files.kernel)
            .args(["-initrd", "initrd"])
            .args([
                "-append",
                "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off init_on_alloc=0",
            ]),
        PATIENCE,
    );
}

/// A file that the server leaves behind.
#[derive(Debug)]
struct Lock(PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// The kernel's first root does nothing but change to the host's tree.
fn first_root(guest: &Guest, busybox: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "host"] {
        archive.directory(folder);
    }
    archive.program("bin/busybox", &fs::read(busybox).expect("busybox"));
    let script = format!(
        "#!/bin/busybox sh\nB=/bin/busybox\n$B mount -t virtiofs -o ro host /host\n\
         $B mount -t devtmpfs dev /host/dev\nexec $B switch_root /host '{}'\n",
        guest.init().display()
    );
    archive.program("init", script.as_bytes());
    archive.finish()
}

#[derive(Debug)]
struct Files {
    kernel: PathBuf,
    overlay: PathBuf,
    busybox: PathBuf,
    server: PathBuf,
}

fn needed() -> Result<Files, &'static str> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the unpacked kernel is for x86-64 only");
    }
    if !is_root() {
        return Err("the server of the host's files has to start as root");
    }
    if find("qemu-system-x86_64").is_none() {
        return Err("no qemu-system-x86_64; run tools/setup test");
    }
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/kernel");
    let files = Files {
        kernel: unpacked.join("vmlinux"),
        overlay: unpacked.join("overlay.ko"),
        busybox: find("busybox").ok_or("no busybox; run tools/setup test")?,
        server: find("virtiofsd").ok_or("no virtiofsd; run tools/setup test")?,
    };
    if files.kernel.is_file() && files.overlay.is_file() {
        Ok(files)
    } else {
        Err("no unpacked kernel in target/tools/kernel; run tools/setup test")
    }
}

const SUITES: &[Suite] = &[
    Suite {
        program: "isolation",
        tests: &[
            "binds::",
            "files::host",
            "limits::li",
            "limits::f",
            "network::",
            "privileges::",
            "processes::the",
            // Landlock and version 2 of control groups at once.
            "strict::all",
            "strict::memory",
            "strict::refused",
        ],
        lacking: &[],
        at_least: 27,
        host: Host::Root,
    },
    Suite {
        program: "neuroflow_sandbox",
        tests: &[
            "linux::cgroup::trials::every_limit",
            "linux::cgroup::trials::memory",
            "linux::cgroup::trials::processor",
            "linux::cgroup::trials::the_first",
            "overlay::tests::an_upper",
            "overlay::tests::a_repl",
            "overlay::tests::changes",
        ],
        lacking: &[],
        at_least: 7,
        host: Host::Root,
    },
];

/// What needs version 2 of control groups and a recent Landlock most, each stopped by the wall that has to. And
/// an unprivileged host, whom a group was given to.
const ATTACKS: &[Suite] = &[
    Suite {
        program: "escape",
        tests: &["levels::nothing_gets_through_strict_on"],
        lacking: &[],
        at_least: 1,
        host: Host::Root,
    },
    Suite {
        program: "isolation",
        tests: &["strict::all", "strict::memory", "strict::processes", "strict::refused"],
        lacking: &[],
        at_least: 4,
        host: Host::Delegated,
    },
];

/// Emulation takes ten times as long as the machine itself, and many times that if others work on it.
const PATIENCE: Duration = Duration::from_mins(8);
