//! Attacks through the mount table and the root directory.

use std::{ffi::CStr, fs, io::Write};

use super::{In, NULL, Probe, Stop, Trial, call, files::files, n, read_secret, text};
use crate::{
    escape::{Goal, Limits, Sign, Wall, catalogue::Entry},
    level::Layer,
    linux::sys::probe::{Argument, Call, Page},
};

/// Changing mounts needs a right.
const NO_RIGHT: &[Sign] = &[Sign::Errno(libc::EPERM, Wall::Layer(Layer::NoCapabilities))];

pub(super) const ENTRIES: &[Entry] = &[
    files("chroot", "Changes the root to leave it by the classical way.", NO_RIGHT, chroot)
        .for_root(),
    files("pivot-root", "Changes the root for everybody.", NO_RIGHT, pivot_root)
        .without_control("it would change the host's root"),
    files("bind-mount", "Binds a directory over another.", NO_RIGHT, bind_mount).for_root(),
    files("mount-tmpfs", "Mounts a fresh file system.", NO_RIGHT, mount_tmpfs).for_root(),
    files("mount-proc", "Mounts a fresh /proc that hides nothing.", NO_RIGHT, mount_proc)
        .for_root(),
    files(
        "mount-overlay",
        "Puts a writable layer over the system's programs.",
        NO_RIGHT,
        mount_overlay,
    )
    .without_control("not every host's file system can be a layer"),
    files("remount-writable", "Takes the write protection from /usr.", NO_RIGHT, remount)
        .without_control("it would change the host's mounts"),
    files(
        "clear-mount-flags",
        "Takes the write protection from /usr by the newer call.",
        NO_RIGHT,
        clear_flags,
    )
    .without_control("it would change the host's mounts"),
    files("clone-mounts", "Takes a detached copy of all mounts.", NO_RIGHT, clone_mounts)
        .for_root(),
    files("open-file-system", "Prepares a new file system by the newer calls.", NO_RIGHT, fsopen)
        .for_root(),
    files("unmount-proc", "Takes /proc away to see what is below.", NO_RIGHT, unmount_proc)
        .without_control("it would take the host's /proc away"),
    files(
        "change-copied-project",
        "Changes a project that the cell sees copy-on-write, and looks for it to have changed.",
        &[],
        change_project,
    )
    .bounded(Limits::Usual, Goal::Around)
    .without_control("it takes a cell with a project")
    .around(crate::escape::races::changed_project),
];

/// Writes, removes, renames and makes what it can; the host looks what came of it.
fn change_project(_probe: &Probe) -> Trial {
    let [kept, removed, renamed] =
        ["kept", "removed", "renamed"].map(|name| format!("{COPIED}/{name}"));
    // In place, through what was there, so that a link to the project's own file would show.
    fs::OpenOptions::new()
        .write(true)
        .open(&kept)
        .and_then(|mut file| file.write_all(b"changed"))
        .within("write")?;
    fs::remove_file(&removed).within("unlink")?;
    fs::rename(&renamed, format!("{COPIED}/moved")).within("rename")?;
    fs::create_dir(format!("{COPIED}/made")).within("mkdir")?;
    Ok("its view has changed".to_owned())
}

/// Where a cell sees the project.
pub(in crate::escape) const COPIED: &str = "/work";

fn chroot(probe: &Probe) -> Trial {
    let path = probe.scratch("jail")?;
    fs::create_dir(&path).within("mkdir")?;
    let jail = text(path.as_str())?;
    let entered = call(Call::Chroot, [Argument::Text(&jail)]);
    if let Err(stop) = entered {
        fs::remove_dir(&path).ok();
        return Err(stop);
    }
    // The working directory is outside of the new root, so nothing holds it.
    for _ in 0..40 {
        std::env::set_current_dir("..").within("chdir")?;
    }
    call(Call::Chroot, [Argument::Text(c".")])?;
    fs::remove_dir(&path).ok();
    read_secret(probe.target("secret")?)
}

/// Names a directory that isn't a mount, which is found out after the question of rights.
fn pivot_root(probe: &Probe) -> Trial {
    let place = text(probe.target("scratch")?)?;
    match call(Call::PivotRoot, [Argument::Text(&place), Argument::Text(&place)]) {
        Err(stop) if stop.errno.raw() == libc::EPERM => Err(stop),
        _ => Ok("may change the root".to_owned()),
    }
}

/// Mounts something over a directory of its own. Where the mounts are the host's, it takes a copy of
/// them first, so that nothing is left of it whenever it ends.
pub(super) fn mount(
    probe: &Probe,
    source: &CStr,
    kind: &CStr,
    flags: u64,
    options: &CStr,
) -> Trial {
    let path = probe.scratch("mount")?;
    fs::create_dir(&path).within("mkdir")?;
    if probe.is_outside() {
        leave_mounts()?;
    }
    let target = text(path.as_str())?;
    let flags = i32::try_from(flags).unwrap_or_default();
    let mounted = call(
        Call::Mount,
        [
            Argument::Text(source),
            Argument::Text(&target),
            Argument::Text(kind),
            n(flags),
            Argument::Text(options),
        ],
    );
    if mounted.is_ok() {
        call(Call::Umount2, [Argument::Text(&target), n(libc::MNT_DETACH)]).ok();
    }
    fs::remove_dir(&path).ok();
    mounted.map(|_| format!("mounted {} over {path}", source.to_string_lossy()))
}

/// Takes a copy of the mounts, that nobody else sees a change of.
fn leave_mounts() -> Result<(), Stop> {
    call(Call::Unshare, [n(libc::CLONE_NEWNS)])?;
    let flags = i32::try_from(libc::MS_REC | libc::MS_PRIVATE).unwrap_or_default();
    call(Call::Mount, [NULL, Argument::Text(c"/"), NULL, n(flags), NULL]).map(drop)
}

fn bind_mount(probe: &Probe) -> Trial {
    mount(probe, c"/usr", c"none", libc::MS_BIND, c"")
}

fn mount_tmpfs(probe: &Probe) -> Trial {
    mount(probe, c"tmpfs", c"tmpfs", 0, c"")
}

fn mount_proc(probe: &Probe) -> Trial {
    mount(probe, c"proc", c"proc", 0, c"")
}

fn mount_overlay(probe: &Probe) -> Trial {
    let base = probe.scratch("layers")?;
    for name in ["upper", "work"] {
        fs::create_dir_all(format!("{base}/{name}")).within("mkdir")?;
    }
    let options = text(format!("lowerdir=/usr,upperdir={base}/upper,workdir={base}/work"))?;
    let mounted = mount(probe, c"overlay", c"overlay", 0, &options);
    fs::remove_dir_all(&base).ok();
    mounted
}

fn remount(_probe: &Probe) -> Trial {
    let flags = i32::try_from(libc::MS_REMOUNT | libc::MS_BIND).unwrap_or_default();
    call(Call::Mount, [NULL, Argument::Text(c"/usr"), NULL, n(flags), NULL])?;
    Ok("/usr is writable".to_owned())
}

fn clear_flags(_probe: &Probe) -> Trial {
    // The struct: set, clear, propagation, user namespace; 64 bits each.
    const SIZE: i32 = 32;
    let clear = u32::try_from(libc::MOUNT_ATTR_RDONLY).unwrap_or_default();
    let mut attributes = Page::of(&[0, 0, clear]);
    call(
        Call::MountSetattr,
        [
            n(libc::AT_FDCWD),
            Argument::Text(c"/usr"),
            NULL,
            Argument::Page(&mut attributes),
            n(SIZE),
        ],
    )?;
    Ok("/usr is writable".to_owned())
}

fn clone_mounts(_probe: &Probe) -> Trial {
    const OPEN_TREE_CLONE: i32 = 1;
    const AT_RECURSIVE: i32 = 0x8000;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC;
    call(Call::OpenTree, [n(libc::AT_FDCWD), Argument::Text(c"/"), n(flags)])?;
    Ok("has a copy of all mounts".to_owned())
}

fn fsopen(_probe: &Probe) -> Trial {
    call(Call::Fsopen, [Argument::Text(c"tmpfs"), n(1)])?;
    Ok("has a file system's context".to_owned())
}

/// Asks whether it is unused, which takes the same right and takes nothing away at the first call.
fn unmount_proc(_probe: &Probe) -> Trial {
    match call(Call::Umount2, [Argument::Text(c"/proc"), n(libc::MNT_EXPIRE)]) {
        Err(stop) if ![libc::EAGAIN, libc::EBUSY].contains(&stop.errno.raw()) => Err(stop),
        _ => Ok("may take /proc away".to_owned()),
    }
}
