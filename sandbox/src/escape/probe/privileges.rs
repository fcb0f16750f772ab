//! Attempts to get rights: by programs that have them, by namespaces that give them, by asking.

use std::{
    ffi::CStr,
    fs,
    io::Write,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::PermissionsExt,
    },
};

use super::{In, NULL, Probe, Stop, Trial, call, n, text};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::{
        credentials, file,
        probe::{self, Argument, Call, Page},
        process::{self, StringList},
    },
};

const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const IDS: Wall = Wall::Layer(Layer::IdentityMap);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const NO_RIGHT: &[Sign] = &[Sign::Errno(libc::EPERM, CAPABILITIES)];
const FILTER: &[Sign] = &[Sign::Signal(libc::SIGSYS, Wall::Layer(Layer::Seccomp))];

pub(super) const ENTRIES: &[Entry] = &[
    privileges(
        "set-user-id-program",
        "Runs a program that would have root's rights.",
        &[Sign::Call("execve", libc::EPERM, Wall::Layer(Layer::NoNewPrivileges))],
        set_user_id,
    )
    .quick(),
    privileges(
        "file-capability",
        "Gives a file of its own a capability.",
        NO_RIGHT,
        file_capability,
    )
    .for_root(),
    privileges(
        "become-root",
        "Takes user id 0.",
        &[Sign::Errno(libc::EINVAL, IDS), Sign::Errno(libc::EPERM, CAPABILITIES)],
        become_root,
    )
    .for_root()
    .quick(),
    privileges("join-groups", "Joins root's group.", NO_RIGHT, join_groups).for_root(),
    privileges("regain-capabilities", "Takes a capability back.", NO_RIGHT, regain)
        .for_root()
        .quick(),
    privileges(
        "ambient-capability",
        "Raises a capability that programs inherit.",
        NO_RIGHT,
        ambient,
    )
    .without_control("not even root has it without taking another step first"),
    privileges("secure-bits", "Unlocks the rule that root is nobody.", NO_RIGHT, secure_bits)
        .for_root(),
    privileges("join-keyring", "Makes a session keyring.", FILTER, join_keyring),
    privileges("add-key", "Puts a key into the kernel.", FILTER, add_key),
    privileges("request-key", "Has the kernel look for a key.", FILTER, request_key),
    privileges(
        "list-keys",
        "Opens the kernel's list of keys, the host's among them.",
        &[Sign::Errno(libc::ENOENT, PROC)],
        list_keys,
    ),
    privileges(
        "session-keyring",
        "Looks at the host's session keyring.",
        &[Sign::Errno(libc::EKEYREVOKED, Wall::Layer(Layer::Session))],
        session_keyring,
    ),
    privileges("raise-limit", "Raises a limit above its bound.", NO_RIGHT, raise_limit).for_root(),
    privileges(
        "raise-priority",
        "Gets itself a better priority than others.",
        &[Sign::Errno(libc::EACCES, CAPABILITIES), Sign::Errno(libc::EPERM, CAPABILITIES)],
        raise_priority,
    )
    .for_root(),
    privileges("real-time", "Gets itself scheduled before everybody else.", NO_RIGHT, real_time)
        .without_control("where groups have no real time of their own, root is refused too"),
    privileges("host-name", "Sets the host's name.", NO_RIGHT, host_name).for_root(),
    privileges(
        "spare-from-memory-killer",
        "Has others ended first when memory runs out.",
        &[
            Sign::Errno(libc::EACCES, CAPABILITIES),
            Sign::Errno(libc::EPERM, CAPABILITIES),
            Sign::Errno(libc::ENOENT, PROC),
        ],
        oom_score,
    )
    .for_root(),
    privileges(
        "environment",
        "Looks for variables of the host's environment.",
        &[Sign::Errno(libc::ENOENT, Wall::Layer(Layer::CleanEnvironment))],
        environment,
    )
    .quick(),
];

pub(super) const fn privileges(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Privileges, name, about, signs, inside)
}

/// Programs that have the bit nearly everywhere.
const SET_USER_ID: [&CStr; 8] = [
    c"/usr/bin/mount",
    c"/usr/bin/su",
    c"/bin/su",
    c"/usr/bin/passwd",
    c"/usr/bin/chsh",
    c"/usr/bin/newgrp",
    c"/usr/bin/gpasswd",
    c"/usr/bin/sudo",
];

/// The loader complains about a library that isn't there, except in programs with rights of their
/// own, where it mustn't listen to the caller at all.
fn set_user_id(probe: &Probe) -> Trial {
    let has_bit = |path: &&CStr| {
        let file = fs::metadata(path.to_string_lossy().as_ref());
        file.is_ok_and(|file| file.permissions().mode() & 0o4000 != 0)
    };
    let program = SET_USER_ID.into_iter().find(has_bit);
    let program = program.ok_or_else(|| Stop::new("execve", libc::ENOENT))?;
    let arguments = StringList::new([program, c"--version"].into_iter());
    let variables = StringList::new([c"LD_PRELOAD=/neuroflow/none.so"].into_iter());
    let (complaints, theirs) = file::pipe().within("pipe2")?;
    let Some(child) = probe.alone.fork().within("clone")? else {
        let errno = become_nobody()
            .and_then(|()| probe::place(theirs.as_raw_fd(), 1).within("dup2"))
            .and_then(|()| probe::place(theirs.as_raw_fd(), 2).within("dup2"))
            .map_or_else(|stop| stop.errno, |()| process::execute(program, &arguments, &variables));
        process::exit(errno.raw())
    };
    drop(theirs);
    let mut said = Vec::new();
    let mut bytes = [0; 512];
    while let Ok(length @ 1..) = file::read(complaints.as_fd(), &mut bytes) {
        said.extend_from_slice(bytes.get(..length).unwrap_or_default());
    }
    probe::wait_for(child).within("wait4")?;
    let said = String::from_utf8_lossy(&said);
    if said.contains("none.so") {
        return Err(Stop::new("execve", libc::EPERM));
    }
    if said.is_empty() {
        return Err(Stop::new("execve", libc::ENOEXEC));
    }
    Ok(format!("ran {} with its owner's rights", program.to_string_lossy()))
}

fn is_root() -> bool {
    credentials::effective_ids().0 == 0
}

/// Root can't gain what it has.
fn become_nobody() -> Result<(), Stop> {
    const NOBODY: i32 = 65534;
    if is_root() {
        call(Call::Setresgid, [n(NOBODY), n(NOBODY), n(NOBODY)])?;
        call(Call::Setresuid, [n(NOBODY), n(NOBODY), n(NOBODY)])?;
    }
    Ok(())
}

fn file_capability(probe: &Probe) -> Trial {
    // Revision 2 with the effective bit, and all of the first 32.
    const RAW: [u8; 20] = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const LENGTH: i32 = 20;
    let path = probe.scratch("capable")?;
    fs::write(&path, b"").within("openat")?;
    let name = text(path.as_str())?;
    let set = call(
        Call::Setxattr,
        [
            Argument::Text(&name),
            Argument::Text(c"security.capability"),
            Argument::Bytes(&RAW),
            n(LENGTH),
            n(0),
        ],
    );
    fs::remove_file(&path).ok();
    set.map(|_| "gave it all of them".to_owned())
}

fn become_root(_probe: &Probe) -> Trial {
    call(Call::Setresuid, [n(0), n(0), n(0)])?;
    Ok("has user id 0".to_owned())
}

fn join_groups(_probe: &Probe) -> Trial {
    call(Call::Setgroups, [n(1), Argument::Bytes(&[0; 4])])?;
    Ok("joined group 0".to_owned())
}

/// Version 3 of the capability calls' structs.
const VERSION: u32 = 0x2008_0522;
const SYS_ADMIN: u32 = 1 << 21;

fn regain(_probe: &Probe) -> Trial {
    let mut header = Page::of(&[VERSION, 0]);
    // Effective, permitted, inheritable; twice.
    let mut sets = Page::of(&[SYS_ADMIN, SYS_ADMIN]);
    call(Call::Capset, [Argument::Page(&mut header), Argument::Page(&mut sets)])?;
    Ok("has CAP_SYS_ADMIN".to_owned())
}

fn ambient(_probe: &Probe) -> Trial {
    const RAISE: i32 = 2;
    const SYS_ADMIN: i32 = 21;
    call(Call::Prctl, [n(libc::PR_CAP_AMBIENT), n(RAISE), n(SYS_ADMIN), n(0), n(0)])?;
    Ok("raised it".to_owned())
}

fn secure_bits(_probe: &Probe) -> Trial {
    call(Call::Prctl, [n(libc::PR_SET_SECUREBITS), n(0), n(0), n(0), n(0)])?;
    Ok("unlocked them".to_owned())
}

fn join_keyring(_probe: &Probe) -> Trial {
    const JOIN_SESSION_KEYRING: i32 = 1;
    call(Call::Keyctl, [n(JOIN_SESSION_KEYRING), NULL])?;
    Ok("made one".to_owned())
}

fn add_key(_probe: &Probe) -> Trial {
    const PROCESS_KEYRING: i32 = -2;
    let [kind, name] = [c"user", c"neuroflow-probe"];
    call(
        Call::AddKey,
        [
            Argument::Text(kind),
            Argument::Text(name),
            Argument::Bytes(b"x"),
            n(1),
            n(PROCESS_KEYRING),
        ],
    )?;
    Ok("put one there".to_owned())
}

fn request_key(_probe: &Probe) -> Trial {
    let [kind, name] = [c"user", c"neuroflow-probe-none"];
    match call(Call::RequestKey, [Argument::Text(kind), Argument::Text(name), NULL, n(0)]) {
        Err(stop)
            if ![libc::ENOKEY, libc::EKEYREVOKED, libc::EKEYREJECTED, libc::EKEYEXPIRED]
                .contains(&stop.errno.raw()) =>
        {
            Err(stop)
        }
        _ => Ok("the kernel has looked".to_owned()),
    }
}

fn list_keys(_probe: &Probe) -> Trial {
    let list = fs::read_to_string("/proc/keys").within("openat")?;
    Ok(format!("sees {} keys", list.lines().count()))
}

fn session_keyring(_probe: &Probe) -> Trial {
    const DESCRIBE: i32 = 6;
    const SESSION: i32 = -3;
    const ROOM: i32 = 4096;
    let mut page = Page::of(&[]);
    call(Call::Keyctl, [n(DESCRIBE), n(SESSION), Argument::Page(&mut page), n(ROOM)])?;
    Ok("sees it".to_owned())
}

/// The one limit that is 0 everywhere, so that there is a next value.
fn raise_limit(_probe: &Probe) -> Trial {
    const REAL_TIME_PRIORITY: i32 = 14;
    // Soft and hard, 64 bits each.
    let mut limit = Page::of(&[1, 0, 1, 0]);
    call(Call::Prlimit, [n(0), n(REAL_TIME_PRIORITY), Argument::Page(&mut limit), NULL])?;
    Ok("raised it".to_owned())
}

fn raise_priority(_probe: &Probe) -> Trial {
    call(Call::Setpriority, [n(0), n(0), n(-10)])?;
    Ok("is before others".to_owned())
}

fn real_time(_probe: &Probe) -> Trial {
    const FIFO: i32 = 1;
    let mut priority = Page::of(&[1]);
    call(Call::SchedSetscheduler, [n(0), n(FIFO), Argument::Page(&mut priority)])?;
    Ok("is before everybody".to_owned())
}

/// A name that is too long, which is found out after the question of rights.
fn host_name(_probe: &Probe) -> Trial {
    const TOO_LONG: i32 = 65;
    match call(Call::Sethostname, [Argument::Bytes(&[b'x'; 65]), n(TOO_LONG)]) {
        Err(stop) if stop.errno.raw() != libc::EINVAL => Err(stop),
        _ => Ok("may set it".to_owned()),
    }
}

fn oom_score(_probe: &Probe) -> Trial {
    let path = "/proc/self/oom_score_adj";
    let mut score = fs::OpenOptions::new().write(true).open(path).within("openat")?;
    score.write_all(b"-1000").within("write")?;
    Ok("others go first".to_owned())
}

/// What every cell has.
const GIVEN: [&str; 3] = ["HOME", "LANG", "PATH"];

fn environment(_probe: &Probe) -> Trial {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let foreign: Vec<String> =
        names.filter(|name| !GIVEN.contains(&name.as_str())).take(3).collect();
    if foreign.is_empty() {
        Err(Stop::new("environ", libc::ENOENT))
    } else {
        Ok(format!("has {}", foreign.join(" ")))
    }
}
