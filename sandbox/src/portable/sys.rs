//! The few calls of a Unix that have no safe way: what a process does to itself before it executes the
//! program, signals to a group, and reaping with the costs.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    time::Duration,
};

use crate::{
    limits,
    plan::{INHERIT, RESOURCES, Resource},
    report::{End, Usage},
};

/// What a new process says that isn't what it was told to be; neither `fork` nor `exec` says it.
pub(super) const NOT_A_SESSION: i32 = libc::EDOM;
/// The same, of resource limits.
pub(super) const NOT_LIMITED: i32 = libc::ERANGE;

/// Has the program lead a session of its own, within these limits, with no descriptor but its streams.
pub(super) fn confine(command: &mut Command, values: [u64; RESOURCES]) {
    let step = move || {
        if !begin_session() {
            return Err(io::Error::from_raw_os_error(NOT_A_SESSION));
        }
        keep_streams_only();
        let all = Resource::ALL.into_iter().zip(values);
        for (number, value) in all.filter_map(|(resource, value)| Some((number(resource)?, value)))
        {
            if value != INHERIT && !limit(number, value) {
                return Err(io::Error::from_raw_os_error(NOT_LIMITED));
            }
        }
        Ok(())
    };
    // SAFETY: between `fork` and `exec` the closure calls `setsid`, `getsid`, `getpid`, `fcntl`,
    // `getrlimit` and `setrlimit` only, which are safe after a fork, allocates nothing and takes no lock.
    unsafe { command.pre_exec(step) };
}

/// Whether this process leads a session now.
fn begin_session() -> bool {
    // SAFETY: it takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: it takes a number, and 0 is the caller.
    let session = unsafe { libc::getsid(0) };
    // SAFETY: it takes nothing.
    session == unsafe { libc::getpid() }
}

/// Closes what libraries of the host have left open, at the moment of the `exec`. Numbers past the
/// bound stay; a process gets the lowest free number, so only one with as many open files has any.
fn keep_streams_only() {
    let (most, _) = limits_of(libc::RLIMIT_NOFILE as Number).unwrap_or((u64::MAX, u64::MAX));
    let most = most.min(limits::MAX_OPEN_FILES.into());
    for descriptor in 3..i32::try_from(most).unwrap_or(i32::MAX) {
        // SAFETY: it takes numbers; one that is no descriptor is refused.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Number = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Number = libc::c_int;

/// The number of a resource that every Unix limits in the same way. Memory isn't one: some heed neither
/// limit, others count what a loader shares between all programs.
fn number(resource: Resource) -> Option<Number> {
    let number = match resource {
        Resource::CpuSeconds => libc::RLIMIT_CPU,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::Data
        | Resource::Resident
        | Resource::Processes
        | Resource::AddressSpace
        | Resource::FileLocks
        | Resource::PendingSignals
        | Resource::MessageQueues
        | Resource::Nice
        | Resource::RealTimePriority
        | Resource::RealTimeMicroseconds => return None,
    };
    Some(number as Number)
}

/// Sets soft and hard limit, never above what the host has, and reads them back.
fn limit(number: Number, value: u64) -> bool {
    let Some((_, most)) = limits_of(number) else { return false };
    let value = value.min(most);
    let wanted = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: it reads the structure, which lives through the call.
    let set = unsafe { libc::setrlimit(number, &raw const wanted) };
    set == 0 && limits_of(number) == Some((value, value))
}

/// Soft and hard limit.
fn limits_of(number: Number) -> Option<(u64, u64)> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it fills the structure, which lives through the call.
    let got = unsafe { libc::getrlimit(number, &raw mut found) };
    (got == 0).then_some((found.rlim_cur, found.rlim_max))
}

/// Whether the child has ended. It isn't reaped, so its number stays its own. A child that somebody else
/// has reaped has ended.
pub(super) fn has_ended(pid: i32) -> bool {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let id = libc::id_t::try_from(pid).unwrap_or_default();
    // SAFETY: it fills the structure, which lives through the call.
    let answer = unsafe { libc::waitid(libc::P_PID, id, &raw mut found, how) };
    // Nothing is filled in while it runs.
    if answer == 0 { found.si_signo != 0 } else { !is_interrupted() }
}

fn is_interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

/// Kills the group that the child leads; no error says anything about who is left.
pub(super) fn kill_group(leader: i32) {
    // SAFETY: it takes numbers. The leader isn't reaped, so the group is still its own.
    unsafe { libc::killpg(leader, libc::SIGKILL) };
}

/// What is known of a child that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    NotYet,
    /// How it ended; nothing if somebody else has reaped it.
    Gone(Option<(End, Usage)>),
}

/// Reaps the child, if it has ended.
pub(super) fn reap(pid: i32) -> Reaped {
    let mut status = 0;
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut costs: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it fills both, which live through the call.
    let answer = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut costs) };
    match answer {
        0 => Reaped::NotYet,
        -1 if is_interrupted() => Reaped::NotYet,
        -1 => Reaped::Gone(None),
        _ => {
            let status = ExitStatus::from_raw(status);
            let usage = usage(&costs);
            let end = match (status.code(), status.signal()) {
                (Some(code), _) => End::Exited(code),
                (None, Some(signal)) => End::of_signal(signal, &usage),
                (None, None) => End::Killed,
            };
            Reaped::Gone(Some((end, usage)))
        }
    }
}

fn usage(costs: &libc::rusage) -> Usage {
    let time = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
    };
    // Apple counts bytes, the others KiB.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1 << 10 };
    let resident = u64::try_from(costs.ru_maxrss).unwrap_or_default();
    Usage {
        user: time(costs.ru_utime),
        system: time(costs.ru_stime),
        peak_resident_bytes: resident.saturating_mul(unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_child_is_gone() {
        // The first process is nobody's child here.
        assert!(has_ended(1));
        assert_eq!(reap(1), Reaped::Gone(None));
    }

    #[test]
    fn no_resource_is_raised_above_what_the_host_has() {
        let (_, most) = limits_of(libc::RLIMIT_CORE as Number).unwrap();
        assert!(most == 0 || limit(libc::RLIMIT_CORE as Number, most));
    }
}
