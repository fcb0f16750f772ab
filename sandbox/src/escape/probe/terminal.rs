//! Attacks on terminals: type into one, open one, make one.

use std::{fs, os::fd::AsRawFd};

use super::{In, Probe, Stop, Trial, call, n, open};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::probe::{self, Argument, Call, Page},
};

const SESSION: Wall = Wall::Layer(Layer::Session);
const DEVICES: Wall = Wall::Layer(Layer::PrivateDevices);
/// Standard input is no terminal, and there is none that belongs to the session.
const NO_TERMINAL: &[Sign] =
    &[Sign::Errno(libc::ENOTTY, SESSION), Sign::Errno(libc::EINVAL, SESSION)];
const NO_DEVICE: &[Sign] = &[Sign::Errno(libc::ENOENT, DEVICES)];

pub(super) const ENTRIES: &[Entry] = &[
    terminal(
        "type-into-terminal",
        "Types into the terminal it was started from.",
        NO_TERMINAL,
        type_into,
    )
    .quick(),
    terminal("paste-into-console", "Pastes into the machine's console.", NO_TERMINAL, paste)
        .without_control("only a machine's own console can be pasted into"),
    terminal(
        "open-terminal",
        "Opens the terminal that controls the session.",
        &[Sign::Errno(libc::ENXIO, SESSION), Sign::Errno(libc::ENOENT, DEVICES)],
        open_terminal,
    ),
    terminal("make-terminal", "Makes a terminal.", NO_DEVICE, make),
    terminal("list-terminals", "Looks for the host's terminals.", NO_DEVICE, list),
    terminal("open-console", "Opens the machine's console.", NO_DEVICE, console).for_root(),
];

const fn terminal(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Terminal, name, about, signs, inside)
}

/// A control has a terminal, as a program that is started from one does.
fn take_terminal(probe: &Probe) -> Result<(), Stop> {
    if probe.is_control() {
        call(Call::Setsid, [])?;
        // The first terminal that a session opens is its own.
        let terminal = open(probe.target("pty")?, libc::O_RDWR)?;
        probe::place(terminal.as_raw_fd(), 0).within("dup2")?;
    }
    Ok(())
}

fn type_into(probe: &Probe) -> Trial {
    const TIOCSTI: i32 = 0x5412;
    take_terminal(probe)?;
    call(Call::Ioctl, [n(0), n(TIOCSTI), Argument::Bytes(b"x")])?;
    Ok("typed a letter".to_owned())
}

fn paste(_probe: &Probe) -> Trial {
    const TIOCLINUX: i32 = 0x541C;
    /// Asks which modifier keys are pressed; pasting is number 3.
    const SHIFT_STATE: u32 = 6;
    let mut page = Page::of(&[SHIFT_STATE]);
    call(Call::Ioctl, [n(0), n(TIOCLINUX), Argument::Page(&mut page)])?;
    Ok("reached the console".to_owned())
}

fn open_terminal(probe: &Probe) -> Trial {
    take_terminal(probe)?;
    open("/dev/tty", libc::O_RDWR)?;
    Ok("opened it".to_owned())
}

fn make(_probe: &Probe) -> Trial {
    open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY)
        .or_else(|_| open("/dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY))?;
    Ok("made one".to_owned())
}

fn list(_probe: &Probe) -> Trial {
    let entries = fs::read_dir("/dev/pts").within("openat")?.flatten();
    let is_terminal = |name: &str| name.parse::<u32>().is_ok();
    let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_terminal)).count();
    if found == 0 { Err(Stop::new("readdir", libc::ENOENT)) } else { Ok(format!("sees {found}")) }
}

fn console(_probe: &Probe) -> Trial {
    let mut answer = Stop::new("openat", libc::ENOENT);
    for path in ["/dev/console", "/dev/tty0", "/dev/tty1", "/dev/vcs", "/dev/ttyS0"] {
        match open(path, libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK) {
            Ok(_) => return Ok(format!("opened {path}")),
            Err(stop) if stop.errno.raw() == libc::ENOENT => {}
            Err(stop) => answer = stop,
        }
    }
    Err(answer)
}
