//! From what is seen of an attempt to its outcome. Pure.

use super::{Attempt, Goal, Outcome, Sign, Stopped, Wall, record::Said};
use crate::{errno::Errno, level::Layer, report::End};

/// What is seen of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) said: Option<Said>,
    pub(super) end: End,
    /// System calls that the cell's filter has refused.
    pub(super) denied: Vec<String>,
    /// The cell as a whole was out of memory.
    pub(super) memory_killed: bool,
    /// The cell as a whole had as many processes as it may.
    pub(super) processes_refused: bool,
    /// Processes of the attempt that are still there.
    pub(super) left: usize,
}

/// What it means.
pub(super) fn conclude(attempt: &Attempt, seen: &Seen) -> Outcome {
    if seen.left > 0 {
        return Outcome::Succeeded(format!("{} processes are left", seen.left));
    }
    match (&seen.said, attempt.goal) {
        (Some(Said::Succeeded(what)), Goal::Reach | Goal::Around) => {
            return Outcome::Succeeded(what.clone());
        }
        (Some(Said::Failed { call, errno }), _) => return failed(attempt, call, *errno, seen),
        (Some(Said::Succeeded(_)) | None, _) => {}
    }
    let ended = |wall: Wall, evidence: &str| stopped(wall, evidence.to_owned());
    match seen.end {
        End::Signalled(libc::SIGSYS) | End::ForeignCall => {
            return ended(Wall::Layer(Layer::Seccomp), "SIGSYS");
        }
        End::Memory => return ended(Wall::Layer(Layer::Cgroup), "its memory was used up"),
        End::Signalled(libc::SIGKILL) | End::Killed if seen.memory_killed => {
            return ended(Wall::Layer(Layer::Cgroup), "its memory was used up");
        }
        _ => {}
    }
    for sign in attempt.signs {
        match (*sign, seen.end) {
            (Sign::Ended(wall @ Wall::WallTime), End::WallTime)
            | (Sign::Ended(wall @ Wall::OutputLimit), End::OutputLimit) => {
                return ended(wall, "ended, nothing is left");
            }
            (Sign::Gone(wall), End::Exited(_)) if seen.said.is_some() => {
                return ended(wall, "its program has ended, nothing is left");
            }
            (Sign::Signal(number, wall), End::Signalled(signal)) if number == signal => {
                return stopped(wall, format!("signal {signal}"));
            }
            (Sign::Signal(libc::SIGXFSZ, wall), End::FileSize) => {
                return ended(wall, "its file was too large");
            }
            _ => {}
        }
    }
    Outcome::Unclear(format!("it said nothing and ended with {:?}", seen.end))
}

fn failed(attempt: &Attempt, call: &str, errno: Errno, seen: &Seen) -> Outcome {
    let evidence = format!("{call}: {}", name(errno));
    if seen.denied.iter().any(|denied| denied == call) {
        return stopped(Wall::Layer(Layer::Seccomp), evidence);
    }
    let by_group = match errno.raw() {
        libc::EAGAIN => seen.processes_refused,
        libc::ENOMEM => seen.memory_killed,
        _ => false,
    };
    if by_group {
        return stopped(Wall::Layer(Layer::Cgroup), evidence);
    }
    let wall = attempt.signs.iter().find_map(|sign| match *sign {
        Sign::Errno(number, wall) if number == errno.raw() => Some(wall),
        Sign::Call(known, number, wall) if known == call && number == errno.raw() => Some(wall),
        _ => None,
    });
    match wall {
        Some(wall) => stopped(wall, evidence),
        None => Outcome::Unclear(evidence),
    }
}

fn stopped(layer: Wall, evidence: String) -> Outcome {
    Outcome::Stopped(Stopped { layer, evidence })
}

/// Whether the kernel, or the host, has no such thing for anybody.
pub(super) fn is_missing(errno: Errno) -> bool {
    let missing = [libc::ENOSYS, libc::ENOENT, libc::ENODEV, libc::ENXIO, libc::EAFNOSUPPORT];
    missing.contains(&errno.raw())
}

/// The symbol of an error number, as manuals have it.
pub(super) fn name(errno: Errno) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == errno.raw());
    known.map_or_else(|| format!("errno {}", errno.raw()), |(_, name)| (*name).to_owned())
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

const NAMES: &[(i32, &str)] = names![
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE ELOOP ENOSYS EDQUOT EOPNOTSUPP EAFNOSUPPORT ESOCKTNOSUPPORT
    EPROTONOSUPPORT EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNRESET ETIMEDOUT ECONNREFUSED
    EHOSTUNREACH ENOKEY EBADMSG EKEYREVOKED EUSERS ENOPROTOOPT ENAMETOOLONG EOVERFLOW
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::{Class, Control, Limits, Reach};

    const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);

    fn attempt(goal: Goal) -> Attempt {
        Attempt {
            name: "test",
            class: Class::HostFiles,
            about: "",
            quick: false,
            control: Control::None(""),
            reach: Reach::Harmless,
            goal,
            limits: Limits::Usual,
            signs: &[
                Sign::Errno(libc::ENOENT, ROOT),
                Sign::Ended(Wall::WallTime),
                Sign::Gone(Wall::Layer(Layer::ProcessTree)),
            ],
        }
    }

    fn seen(said: Option<Said>, end: End) -> Seen {
        Seen {
            said,
            end,
            denied: vec!["ptrace".into()],
            memory_killed: false,
            processes_refused: false,
            left: 0,
        }
    }

    fn failed(call: &str, errno: i32) -> Said {
        Said::Failed { call: call.into(), errno: Errno::from_raw(errno) }
    }

    fn wall(outcome: Outcome) -> Option<Wall> {
        match outcome {
            Outcome::Stopped(stopped) => Some(stopped.layer),
            _ => None,
        }
    }

    #[test]
    fn a_denied_call_is_the_filters_and_another_error_is_not() {
        let attempt = attempt(Goal::Reach);
        let of = |said| wall(conclude(&attempt, &seen(Some(said), End::Exited(0))));
        assert_eq!(of(failed("ptrace", libc::EPERM)), Some(Wall::Layer(Layer::Seccomp)));
        assert_eq!(of(failed("open", libc::ENOENT)), Some(ROOT));
        assert_eq!(of(failed("open", libc::EPERM)), None);
        let end = End::Signalled(libc::SIGSYS);
        assert_eq!(wall(conclude(&attempt, &seen(None, end))), Some(Wall::Layer(Layer::Seccomp)));
    }

    #[test]
    fn what_outlives_its_cell_has_succeeded() {
        let attempt = attempt(Goal::Outlive);
        let mut seen = seen(Some(Said::Succeeded(String::new())), End::Exited(0));
        assert_eq!(wall(conclude(&attempt, &seen)), Some(Wall::Layer(Layer::ProcessTree)));
        seen.left = 1;
        assert!(matches!(conclude(&attempt, &seen), Outcome::Succeeded(_)));
    }

    #[test]
    fn silence_is_not_a_success() {
        let attempt = attempt(Goal::Reach);
        assert!(matches!(conclude(&attempt, &seen(None, End::Exited(1))), Outcome::Unclear(_)));
        assert_eq!(wall(conclude(&attempt, &seen(None, End::WallTime))), Some(Wall::WallTime));
    }
}
