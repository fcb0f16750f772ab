//! Attacks on the host's files: by their paths, around them, and through the mount table.

use std::{
    fs::{self, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
};

use super::{In, Probe, Stop, Trial, call, n, open, read_secret, text};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::probe::{Argument, Call, Page},
};

const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const DEVICES: Wall = Wall::Layer(Layer::PrivateDevices);
const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const IDS: Wall = Wall::Layer(Layer::IdentityMap);
/// The scene's path leads nowhere.
const HIDDEN: &[Sign] = &[Sign::Errno(libc::ENOENT, ROOT)];
/// Changing mounts needs a right.
const NO_RIGHT: &[Sign] = &[Sign::Errno(libc::EPERM, CAPABILITIES)];

pub(super) const ENTRIES: &[Entry] = &[
    files(
        "read-host-file",
        "Reads a file in the host's directory for temporary files.",
        HIDDEN,
        direct,
    )
    .quick(),
    files("read-home", "Reads a file in the home of the host's user.", HIDDEN, home).quick(),
    files("read-shadow", "Reads the host's password hashes.", HIDDEN, shadow).for_root().quick(),
    files(
        "symlink-to-host-file",
        "Makes a symbolic link to a host file and reads through it.",
        HIDDEN,
        symlink,
    ),
    files(
        "hardlink-to-host-file",
        "Makes a hard link to a host file.",
        &[Sign::Errno(libc::ENOENT, ROOT), Sign::Errno(libc::EXDEV, ROOT)],
        hardlink,
    ),
    files(
        "dot-dot",
        "Climbs above the root by `..` and reads a host file from there.",
        HIDDEN,
        dot_dot,
    ),
    files(
        "proc-root",
        "Reads a host file through the root of every process that /proc lists.",
        &[Sign::Errno(libc::ENOENT, ROOT), Sign::Call("readdir", libc::ENOENT, ROOT)],
        proc_root,
    ),
    files(
        "proc-first-root",
        "Reads a host file through /proc/1/root.",
        &[Sign::Errno(libc::EACCES, Wall::FirstProcess), Sign::Errno(libc::ENOENT, PROC)],
        proc_first_root,
    ),
    files(
        "proc-cwd",
        "Climbs to a host file from the working directory of every process that /proc lists.",
        HIDDEN,
        proc_cwd,
    ),
    files("list-root", "Lists the root for directories that only the host has.", HIDDEN, list_root)
        .quick(),
    files("list-sys", "Looks into /sys and the cgroup tree.", HIDDEN, list_sys),
    files(
        "overwrite-own-executable",
        "Opens /proc/self/exe for writing, which is the host's file.",
        &[
            Sign::Errno(libc::EACCES, IDS),
            Sign::Errno(libc::EROFS, ROOT),
            Sign::Errno(libc::ETXTBSY, ROOT),
            Sign::Errno(libc::ENOENT, ROOT),
        ],
        overwrite_executable,
    )
    .without_control("the kernel keeps everybody from writing to a file that runs"),
    files(
        "touch-system-file",
        "Changes a program of the host, into what it is already.",
        &[Sign::Errno(libc::EROFS, ROOT)],
        touch_system_file,
    )
    .without_control("it would change a file of the host"),
    files(
        "write-system-directory",
        "Makes a file beside the host's programs.",
        &[Sign::Errno(libc::EROFS, ROOT)],
        write_system_directory,
    )
    .without_control("it would leave its mark among the host's programs"),
    files(
        "write-root",
        "Makes a directory in the root.",
        &[Sign::Errno(libc::EROFS, ROOT)],
        write_root,
    )
    .without_control("it would write to the host's root"),
    files(
        "write-passwd",
        "Opens /etc/passwd for writing.",
        &[Sign::Errno(libc::EROFS, ROOT), Sign::Errno(libc::EACCES, IDS)],
        write_passwd,
    )
    .for_root(),
    files(
        "lease",
        "Takes a lease on a file, for which everybody waits who would write to it.",
        &[Sign::Signal(libc::SIGSYS, Wall::Layer(Layer::Seccomp))],
        lease,
    ),
    files(
        "open-by-handle",
        "Opens the root directory by its handle, past all paths.",
        NO_RIGHT,
        by_handle,
    )
    .for_root(),
    files("make-device", "Makes a device file for the first disk.", NO_RIGHT, make_device)
        .for_root(),
    files(
        "list-devices",
        "Looks for devices other than the harmless five.",
        &[Sign::Errno(libc::ENOENT, DEVICES)],
        list_devices,
    )
    .quick(),
    files(
        "open-disk",
        "Opens disks, memory and virtual machines by their usual device names.",
        &[Sign::Errno(libc::ENOENT, DEVICES)],
        open_disk,
    )
    .for_root(),
    files(
        "second-wall",
        "Reads a file that mounts and permission bits would let it read, and no rule does.",
        &[Sign::Errno(libc::EACCES, Wall::Layer(Layer::Landlock))],
        second_wall,
    )
    .without_control("only cells have such a file"),
    files(
        "leaked-descriptor",
        "Reads through descriptors that the host had open when it started the cell.",
        &[Sign::Errno(libc::EBADF, Wall::Descriptors)],
        leaked_descriptor,
    )
    .around(crate::escape::races::leaked_descriptor),
];

pub(super) const fn files(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::HostFiles, name, about, signs, inside)
}

fn direct(probe: &Probe) -> Trial {
    read_secret(probe.target("secret")?)
}

fn home(probe: &Probe) -> Trial {
    read_secret(probe.target("home")?)
}

fn shadow(_probe: &Probe) -> Trial {
    open("/etc/shadow", libc::O_RDONLY).map(|_| "opened /etc/shadow".to_owned())
}

fn symlink(probe: &Probe) -> Trial {
    let link = probe.scratch("link")?;
    std::os::unix::fs::symlink(probe.target("secret")?, &link).within("symlink")?;
    let read = read_secret(&link);
    fs::remove_file(&link).ok();
    read
}

fn hardlink(probe: &Probe) -> Trial {
    let link = probe.scratch("hard")?;
    fs::hard_link(probe.target("secret")?, &link).within("linkat")?;
    let read = read_secret(&link);
    fs::remove_file(&link).ok();
    read
}

fn dot_dot(probe: &Probe) -> Trial {
    std::env::set_current_dir("/").within("chdir")?;
    let climb = "../".repeat(40);
    read_secret(&format!("{climb}{}", probe.target("secret")?.trim_start_matches('/')))
}

fn proc_first_root(probe: &Probe) -> Trial {
    read_secret(&format!("/proc/{}/root{}", probe.first_process()?, probe.target("secret")?))
}

fn proc_root(probe: &Probe) -> Trial {
    let secret = probe.target("secret")?;
    through_processes(|process| format!("/proc/{process}/root{secret}"))
}

fn proc_cwd(probe: &Probe) -> Trial {
    let climb = "../".repeat(40);
    let secret = probe.target("secret")?.trim_start_matches('/');
    through_processes(|process| format!("/proc/{process}/cwd/{climb}{secret}"))
}

/// Tries a path for each process; the answer is that for its own if none leads anywhere.
fn through_processes(path: impl Fn(&str) -> String) -> Trial {
    for entry in fs::read_dir("/proc").within("readdir")?.flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        if let Ok(read) = read_secret(&path(process)) {
            return Ok(read);
        }
    }
    read_secret(&path("self"))
}

/// What a cell's root may have; everything else is the host's.
const OWN_ROOT: [&str; 16] = [
    ".guard", "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "probe", "proc", "run",
    "sbin", "tmp", "usr", "var", "work",
];

fn list_root(_probe: &Probe) -> Trial {
    let names = fs::read_dir("/").within("readdir")?.flatten().map(|entry| entry.file_name());
    let foreign: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| !OWN_ROOT.contains(&name.as_str()))
        .collect();
    if foreign.is_empty() {
        Err(Stop::new("readdir", libc::ENOENT))
    } else {
        Ok(format!("sees {}", foreign.join(" ")))
    }
}

fn list_sys(_probe: &Probe) -> Trial {
    let found = ["/sys/fs/cgroup", "/sys/kernel", "/sys"];
    for path in found {
        if let Ok(entries) = fs::read_dir(path)
            && entries.count() > 0
        {
            return Ok(format!("sees {path}"));
        }
    }
    fs::read_dir("/sys").within("readdir").and(Err(Stop::new("readdir", libc::ENOENT)))
}

fn overwrite_executable(_probe: &Probe) -> Trial {
    open("/proc/self/exe", libc::O_WRONLY).map(|_| "opened it".to_owned())
}

/// Gives the file the mode it has, so that nothing is changed if it can be.
fn touch_system_file(_probe: &Probe) -> Trial {
    const FILE: &str = "/usr/bin/env";
    let mode = fs::metadata(FILE).within("statx")?.permissions();
    fs::set_permissions(FILE, mode).within("chmod")?;
    Ok(format!("may change {FILE}"))
}

fn write_system_directory(probe: &Probe) -> Trial {
    let name = probe.scratch("x")?;
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let path = format!("/usr/bin/{name}");
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    made.within("openat")?;
    fs::remove_file(&path).ok();
    Ok("made a file in /usr/bin".to_owned())
}

fn write_root(probe: &Probe) -> Trial {
    let name = probe.scratch("x")?;
    let path = format!("/{}", name.rsplit('/').next().unwrap_or_default());
    fs::create_dir(&path).within("mkdir")?;
    fs::remove_dir(&path).ok();
    Ok("made a directory in /".to_owned())
}

fn write_passwd(_probe: &Probe) -> Trial {
    open("/etc/passwd", libc::O_WRONLY).map(|_| "opened it".to_owned())
}

/// On a file of its own, which it opens as it could one that it may only read.
fn lease(probe: &Probe) -> Trial {
    let path = probe.scratch("lease")?;
    fs::write(&path, "").within("openat")?;
    let leased = open(&path, libc::O_RDONLY).and_then(|file| {
        call(Call::Fcntl, [n(file.as_raw_fd()), n(libc::F_SETLEASE), n(libc::F_RDLCK)])
    });
    fs::remove_file(&path).ok();
    leased.map(|_| "has a lease".to_owned())
}

fn by_handle(probe: &Probe) -> Trial {
    // The struct: room, type, handle.
    let mut handle = Page::of(&[128]);
    let mut mount = Page::of(&[]);
    let place = text(probe.target("scratch")?)?;
    let named = call(
        Call::NameToHandleAt,
        [
            n(libc::AT_FDCWD),
            Argument::Text(&place),
            Argument::Page(&mut handle),
            Argument::Page(&mut mount),
            n(0),
        ],
    );
    if let Err(stop) = named
        && stop.errno.raw() != libc::EOPNOTSUPP
    {
        return Err(stop);
    }
    let directory = fs::File::open("/").within("openat")?;
    let directory = directory.as_raw_fd();
    call(Call::OpenByHandleAt, [n(directory), Argument::Page(&mut handle), n(libc::O_RDONLY)])
        .map(|_| "opened it".to_owned())
        .or_else(|stop| match stop.errno.raw() {
            // The handle is of another file system; what it takes to use one is there.
            libc::ESTALE | libc::EOPNOTSUPP => Ok("may open by handle".to_owned()),
            _ => Err(stop),
        })
}

fn make_device(probe: &Probe) -> Trial {
    const FIRST_DISK: i32 = 8 << 8;
    let path = probe.scratch("disk")?;
    let name = text(path.as_str())?;
    let mode = i32::try_from(libc::S_IFBLK | 0o600).unwrap_or_default();
    call(Call::Mknodat, [n(libc::AT_FDCWD), Argument::Text(&name), n(mode), n(FIRST_DISK)])?;
    fs::remove_file(&path).ok();
    Ok("made a disk's device file".to_owned())
}

fn list_devices(_probe: &Probe) -> Trial {
    const HARMLESS: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
    let entries = fs::read_dir("/dev").within("readdir")?.flatten();
    let foreign = entries.filter(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_block_device() || kind.is_char_device())
    });
    let foreign: Vec<String> = foreign
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !HARMLESS.contains(&name.as_str()))
        .take(5)
        .collect();
    if foreign.is_empty() {
        Err(Stop::new("readdir", libc::ENOENT))
    } else {
        Ok(format!("sees {}", foreign.join(" ")))
    }
}

fn open_disk(_probe: &Probe) -> Trial {
    let mut answer = Stop::new("openat", libc::ENOENT);
    for path in [
        "/dev/mem",
        "/dev/port",
        "/dev/sda",
        "/dev/vda",
        "/dev/nvme0n1",
        "/dev/xvda",
        "/dev/loop0",
        "/dev/dm-0",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/net/tun",
        "/dev/vhost-vsock",
        "/dev/uinput",
    ] {
        match open(path, libc::O_RDONLY) {
            Ok(_) => return Ok(format!("opened {path}")),
            Err(stop) if stop.errno.raw() == libc::ENOENT => {}
            Err(stop) => answer = stop,
        }
    }
    Err(answer)
}

fn second_wall(_probe: &Probe) -> Trial {
    open("/.guard", libc::O_RDONLY)?;
    Ok("opened it".to_owned())
}

fn leaked_descriptor(_probe: &Probe) -> Trial {
    for number in 3..1024 {
        if call(Call::Fcntl, [n(number), n(libc::F_GETFD)]).is_err() {
            continue;
        }
        let secret = read_secret(&format!("/proc/self/fd/{number}"));
        return Ok(secret.unwrap_or_else(|_| format!("descriptor {number} is open")));
    }
    Err(Stop::new("fcntl", libc::EBADF))
}
