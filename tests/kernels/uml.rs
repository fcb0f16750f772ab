//! User-mode Linux: a kernel that is a process, up in two seconds, with all cgroup v2 controllers
//! that limits need. It has neither Landlock nor time namespaces, and one processor.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    guest::{Guest, Host, Suite, contained, find},
    untried::untried,
};

#[test]
fn cells_hold_in_user_mode_linux() {
    if !cfg!(target_arch = "x86_64") {
        return untried("user-mode Linux", "it is packaged for x86-64 only");
    }
    let Some(kernel) = find("linux.uml") else {
        return untried("user-mode Linux", "no linux.uml; run tools/setup test");
    };
    let guest = Guest::prepare("uml", SUITES, overlay_module().as_deref());
    let kernel = kernel.to_str().expect("a path of text");
    guest.run(
        contained(kernel)
            .arg("mem=768M")
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init=\"{}\"", guest.init().display()))
            .arg(format!("uml_dir={}", guest.folder.display()))
            .args(["con=null", "con0=fd:0,fd:1", "quiet", "loglevel=1", "panic=1"]),
        PATIENCE,
    );
}

/// The package has one kernel, and its modules beside it.
fn overlay_module() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/uml/modules").ok()?;
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("kernel/fs/overlayfs/overlay.ko"))
        .find(|module| module.is_file())
}

const SUITES: &[Suite] = &[
    Suite {
        program: "isolation",
        tests: &[
            "binds::",
            "files::",
            "levels::this",
            "lifecycle::da",
            "lifecycle::dr",
            "limits::a_f",
            "limits::f",
            "limits::l",
            "limits::m",
            "limits::n",
            "limits::usage_is",
            "network::",
            "privileges::",
            "processes::",
            "streams::only",
            "streams::the",
        ],
        lacking: &[
            (
                "binds::a_writable_bind_keeps_its_owner",
                "tmpfs, the guest's only writable file system, maps no owners before Linux 6.3",
            ),
            ("files::inodes_run_out_too", "65536 files take longer here than the cell may"),
        ],
        at_least: 45,
        host: Host::Root,
    },
    Suite {
        program: "neuroflow_sandbox",
        tests: &[
            "linux::cgroup::trials::",
            "overlay::tests::an_upper",
            "overlay::tests::a_repl",
            "overlay::tests::changes",
        ],
        lacking: &[],
        at_least: 12,
        host: Host::Root,
    },
];

/// Three times what a loaded machine took. Tests of short deadlines are left out, because the guest is
/// slow.
const PATIENCE: Duration = Duration::from_mins(6);
