//! Attempts to get rights from a new namespace, or from somebody else's.

use std::{fs, io::Write, os::fd::AsRawFd};

use super::{In, NULL, Probe, Trial, call, n, open, privileges::privileges, text};
use crate::{
    escape::{Sign, Wall, catalogue::Entry},
    level::Layer,
    linux::sys::{
        probe::{self, Argument, Call, entry::clone_with},
        process::NEW_USER,
    },
};

const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const IDS: Wall = Wall::Layer(Layer::IdentityMap);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const NO_RIGHT: &[Sign] = &[Sign::Errno(libc::EPERM, CAPABILITIES)];
/// The count of user namespaces inside is 0 at most.
const NO_NESTING: &[Sign] = &[
    Sign::Errno(libc::ENOSPC, Wall::Layer(Layer::NoNestedNamespaces)),
    // The filter has libc fall back to the older call, whose flags it can see.
    Sign::Call("clone3", libc::ENOSYS, Wall::Layer(Layer::Seccomp)),
];
/// A file that belongs to an id which the cell hasn't got; or no `/proc` at all.
const FOREIGN: &[Sign] = &[Sign::Errno(libc::EACCES, IDS), Sign::Errno(libc::ENOENT, PROC)];

pub(super) const ENTRIES: &[Entry] = &[
    privileges(
        "write-id-map",
        "Writes its own id map once more.",
        &[
            Sign::Errno(libc::EPERM, IDS),
            Sign::Errno(libc::EACCES, IDS),
            Sign::Errno(libc::ENOENT, PROC),
        ],
        write_id_map,
    )
    .without_control("a process that has no user namespace of its own has no map to write"),
    privileges(
        "allow-nesting-again",
        "Opens the count of user namespaces for writing.",
        FOREIGN,
        allow_nesting,
    )
    .for_root(),
    privileges(
        "unshare-user",
        "Makes a user namespace, and has every right in it.",
        NO_NESTING,
        unshare_user,
    )
    .quick(),
    privileges("clone-user", "Starts a process in a new user namespace.", NO_NESTING, clone_user),
    privileges(
        "clone3-user",
        "The same by the call whose flags no filter can see.",
        NO_NESTING,
        clone3_user,
    ),
    privileges(
        "unshare-user-and-mount",
        "Makes a user and a mount namespace, and mounts.",
        NO_NESTING,
        nested_mount,
    ),
    privileges("unshare-mounts", "Makes a mount namespace.", NO_RIGHT, unshare_mounts).for_root(),
    privileges("unshare-network", "Makes a network namespace.", NO_RIGHT, unshare_network)
        .for_root(),
    privileges("unshare-processes", "Makes a pid namespace.", NO_RIGHT, unshare_processes)
        .for_root(),
    privileges("unshare-rest", "Makes ipc, uts and cgroup namespaces.", NO_RIGHT, unshare_rest)
        .for_root(),
    privileges(
        "join-first-mounts",
        "Joins the first process's mount namespace.",
        &[Sign::Call("openat", libc::EACCES, Wall::FirstProcess), Sign::Errno(libc::ENOENT, PROC)],
        join_first,
    )
    .for_root(),
    privileges(
        "join-own-network",
        "Joins a network namespace.",
        &[Sign::Call("setns", libc::EPERM, CAPABILITIES), Sign::Errno(libc::ENOENT, PROC)],
        join_own,
    )
    .for_root(),
];

fn write_id_map(_probe: &Probe) -> Trial {
    let mut map = fs::OpenOptions::new().write(true).open("/proc/self/uid_map").within("openat")?;
    map.write_all(b"0 0 1\n").within("write")?;
    Ok("wrote it".to_owned())
}

fn allow_nesting(_probe: &Probe) -> Trial {
    open("/proc/sys/user/max_user_namespaces", libc::O_WRONLY)?;
    Ok("opened it".to_owned())
}

fn unshare(flags: i32) -> Trial {
    call(Call::Unshare, [n(flags)])?;
    Ok("made them".to_owned())
}

fn unshare_user(_probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWUSER)
}

fn unshare_mounts(_probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWNS)
}

fn unshare_network(_probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWNET)
}

fn unshare_processes(_probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWPID)
}

fn unshare_rest(_probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP)
}

fn clone_user(probe: &Probe) -> Trial {
    let child = clone_with(&probe.alone, NEW_USER, false).within("clone")?;
    probe::wait_for(child).within("wait4")?;
    Ok("started one".to_owned())
}

fn clone3_user(probe: &Probe) -> Trial {
    let child = clone_with(&probe.alone, NEW_USER, true).within("clone3")?;
    probe::wait_for(child).within("wait4")?;
    Ok("started one".to_owned())
}

fn nested_mount(probe: &Probe) -> Trial {
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    let place = text(probe.target("scratch")?)?;
    call(
        Call::Mount,
        [Argument::Text(c"tmpfs"), Argument::Text(&place), Argument::Text(c"tmpfs"), n(0), NULL],
    )?;
    Ok("mounted".to_owned())
}

fn join(path: &str) -> Trial {
    let namespace = open(path, libc::O_RDONLY)?;
    call(Call::Setns, [n(namespace.as_raw_fd()), n(0)])?;
    Ok(format!("joined {path}"))
}

fn join_first(probe: &Probe) -> Trial {
    join(&format!("/proc/{}/ns/mnt", probe.first_process()?))
}

fn join_own(_probe: &Probe) -> Trial {
    join("/proc/self/ns/net")
}
