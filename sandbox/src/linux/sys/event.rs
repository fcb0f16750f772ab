//! Waiting: epoll, signals as descriptors, process descriptors, the monotonic clock.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{Result, check, file::own};

/// Nanoseconds of the monotonic clock, which all processes of a host share.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is ours; the call can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Nanoseconds of the calendar, by which file systems say when something was changed.
pub(crate) fn calendar() -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is ours; the call can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Waits until one of many descriptors has something to say.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    /// Only the end of the other side.
    HangUp,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: makes a descriptor.
        let epoll = own(check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?);
        Ok(Self { epoll })
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        let events = if interest == Interest::Readable { libc::EPOLLIN.cast_unsigned() } else { 0 };
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the event is live for the call, which copies it.
        let added = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &raw mut event,
            )
        };
        check(added)?;
        Ok(())
    }

    /// Closing a descriptor isn't enough, because a cell's first process may have a copy.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let none = ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL ignores the event.
        check(unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), none)
        })?;
        Ok(())
    }

    /// The tokens of what is ready, at most as many as fit. `None` waits for ever.
    pub(crate) fn wait(
        &self,
        tokens: &mut [u64; BATCH],
        nanoseconds: Option<u64>,
    ) -> Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // Rounded up, or the last millisecond would be a busy loop.
        let timeout = nanoseconds
            .map_or(-1, |rest| i32::try_from(rest.div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: the array is ours and has the announced length.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), BATCH_LENGTH, timeout)
        };
        let count = usize::try_from(check(count)?).unwrap_or_default();
        for (token, event) in tokens.iter_mut().zip(events.iter().take(count)) {
            *token = event.u64;
        }
        Ok(count)
    }
}

/// How many events one wait returns.
pub(crate) const BATCH: usize = 32;
const BATCH_LENGTH: libc::c_int = 32;

/// A descriptor that becomes readable when a child ends.
pub(crate) fn child_signals() -> Result<OwnedFd> {
    let set = signal_set(&[libc::SIGCHLD]);
    block(&set)?;
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = check(unsafe {
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    Ok(own(fd))
}

/// Blocks the signals that [`next_signal`] waits for.
pub(crate) fn hold_signals() -> Result<()> {
    block(&signal_set(&[libc::SIGCHLD, libc::SIGTERM]))
}

/// Waits for the next of the held signals.
pub(crate) fn next_signal() -> Result<i32> {
    let set = signal_set(&[libc::SIGCHLD, libc::SIGTERM]);
    // SAFETY: the set is initialised; no information about the signal is asked for.
    check(unsafe { libc::sigwaitinfo(&raw const set, ptr::null_mut()) })
}

/// No signal is blocked any more, and the one that std and the zygote ignore ends a process again.
pub(crate) fn reset_signals() -> Result<()> {
    default_action(libc::SIGPIPE)?;
    let none = signal_set(&[]);
    // SAFETY: the set is initialised; the old mask isn't asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) })?;
    Ok(())
}

/// Gives every signal its default action, whatever the host's parent had ignored, but ignores
/// `SIGPIPE`.
pub(crate) fn zygote_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SIGKILL and SIGSTOP can't be set, and always have it.
        default_action(signal).ok();
    }
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The raw call, because libc refuses the two signals that it keeps for itself, and a host's parent
/// may have ignored those as well.
fn default_action(signal: i32) -> Result<()> {
    // The kernel's struct: handler (0 is the default action), flags, restorer, mask.
    let action = [0_u64; 4];
    let none = ptr::null_mut::<u64>();
    // SAFETY: the default action installs no code; the last argument is the size of the mask.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), none, size_of::<u64>())
    })?;
    Ok(())
}

fn block(set: &libc::sigset_t) -> Result<()> {
    // SAFETY: the set is initialised; the old mask isn't asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, set, ptr::null_mut()) })?;
    Ok(())
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the line above.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialised; the callers name valid signals.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// A descriptor of the calling process itself.
pub(crate) fn own_pidfd() -> Result<OwnedFd> {
    pidfd(super::process::own_pid())
}

/// A descriptor of a process.
pub(crate) fn pidfd(pid: i32) -> Result<OwnedFd> {
    let fd = check(
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) },
    )?;
    Ok(own(i32::try_from(fd).unwrap_or(-1)))
}

/// The id of the process behind a pidfd, from the descriptor's own entry in `/proc`.
pub(crate) fn process_of(pidfd: BorrowedFd<'_>) -> std::io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESRCH))
}

/// A descriptor that others count up, and that is readable from then on.
pub(crate) fn counter() -> Result<OwnedFd> {
    // SAFETY: makes a descriptor.
    Ok(own(check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?))
}

/// A descriptor that is readable when a moment has come; none has yet.
pub(crate) fn timer() -> Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: makes a descriptor.
    Ok(own(check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?))
}

/// Sets the moment, in nanoseconds of the monotonic clock.
pub(crate) fn set_timer(timer: BorrowedFd<'_>, at: u64) -> Result<()> {
    const SECOND: u64 = 1_000_000_000;
    // Nothing at all would switch it off.
    let at = at.max(1);
    let moment = libc::timespec {
        tv_sec: i64::try_from(at / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(at % SECOND).unwrap_or_default(),
    };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = libc::itimerspec { it_interval: never, it_value: moment };
    let (fd, none) = (timer.as_raw_fd(), ptr::null_mut());
    // SAFETY: the setting is live for the call, and the old one isn't asked for.
    check(unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &raw const setting, none) })?;
    Ok(())
}

/// Whether the process behind a pidfd has ended; for sockets, whether there is something to read.
/// Waits for it as long as these `milliseconds` last, whatever signals come; a negative number waits
/// for ever.
pub(crate) fn is_readable(fd: BorrowedFd<'_>, milliseconds: i32) -> Result<bool> {
    let ready = through_signals(milliseconds, now, |rest| {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry is announced as one.
        check(unsafe { libc::poll(&raw mut poll, 1, rest) })
    })?;
    Ok(ready > 0)
}

/// Goes on waiting for what is left of the time when a signal has come between: the kernel restarts
/// no `poll`, and a host program may handle any signal.
fn through_signals(
    milliseconds: i32,
    now: impl Fn() -> u64,
    mut wait: impl FnMut(i32) -> Result<i32>,
) -> Result<i32> {
    let length = u64::try_from(milliseconds).ok();
    let until = length.map(|length| now().saturating_add(length.saturating_mul(1_000_000)));
    let mut rest = milliseconds;
    loop {
        match wait(rest) {
            Err(errno) if errno.raw() == libc::EINTR => {}
            answer => return answer,
        }
        if let Some(until) = until {
            let left = until.saturating_sub(now()).div_ceil(1_000_000);
            rest = i32::try_from(left).unwrap_or(milliseconds);
        }
    }
}

/// Waits until one of the two has something to read; says which. Neither has when that takes longer
/// than these `milliseconds`; a negative number waits for ever.
pub(crate) fn wait_for_either(
    first: BorrowedFd<'_>,
    second: Option<BorrowedFd<'_>>,
    milliseconds: i32,
) -> Result<(bool, bool)> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // A negative descriptor is passed over.
    let second = second.map_or(-1, |fd| fd.as_raw_fd());
    let mut polls = [entry(first.as_raw_fd()), entry(second)];
    // SAFETY: two live entries are announced as two.
    check(unsafe { libc::poll(polls.as_mut_ptr(), 2, milliseconds) })?;
    let [first, second] = polls;
    Ok((first.revents != 0, second.revents & libc::POLLIN != 0))
}

/// Sends a signal through a pidfd.
pub(crate) fn signal(process: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: no information is passed with the signal.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0)
    })?;
    Ok(())
}

const LAST_SIGNAL: i32 = 64;

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        os::fd::AsFd,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::errno::Errno;

    extern "C" fn nothing(_signal: libc::c_int) {}

    #[test]
    fn a_wait_outlasts_the_hosts_signals() {
        // As a runtime that watches its children has one, only for a signal that nobody else uses here.
        let signal = libc::SIGUSR1;
        // SAFETY: the handler does nothing.
        unsafe {
            libc::signal(signal, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t)
        };
        // SAFETY: asks for nothing but the caller's own name.
        let waiter = unsafe { libc::pthread_self() };
        let timer = timer().unwrap();
        set_timer(timer.as_fd(), now() + 300_000_000).unwrap();
        let (never, over) = (super::timer().unwrap(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    // SAFETY: the waiting thread lives as long as this scope.
                    unsafe { libc::pthread_kill(waiter, signal) };
                    std::thread::yield_now();
                }
            });
            let heard = is_readable(timer.as_fd(), 60_000);
            let silent = is_readable(never.as_fd(), 50);
            over.store(true, Ordering::SeqCst);
            assert_eq!((heard, silent), (Ok(true), Ok(false)));
        });
    }

    #[test]
    fn an_interrupted_wait_has_the_rest_of_its_time() {
        let interrupted = Err(Errno::from_raw(libc::EINTR));
        let (clock, waits) = (Cell::new(0), Cell::new(Vec::new()));
        let wait = |each: u64, milliseconds| {
            clock.set(0);
            waits.set(Vec::new());
            let answer = through_signals(
                milliseconds,
                || clock.get(),
                |rest| {
                    let mut known = waits.take();
                    known.push(rest);
                    let count = known.len();
                    waits.set(known);
                    clock.set(clock.get() + each * 1_000_000);
                    if count < 4 { interrupted } else { Ok(1) }
                },
            );
            (answer, waits.take())
        };
        assert_eq!(wait(30, 100), (Ok(1), vec![100, 70, 40, 10]));
        assert_eq!(wait(60, 100), (Ok(1), vec![100, 40, 0, 0]));
        assert_eq!(wait(60, -1), (Ok(1), vec![-1; 4]));
        assert_eq!(wait(60, 0), (Ok(1), vec![0; 4]));
    }

    #[test]
    fn a_timer_is_over_when_its_moment_has_come() {
        let timer = timer().unwrap();
        assert_eq!(is_readable(timer.as_fd(), 0), Ok(false));
        set_timer(timer.as_fd(), u64::MAX).unwrap();
        assert_eq!(is_readable(timer.as_fd(), 0), Ok(false));
        for past in [0, 1, now()] {
            set_timer(timer.as_fd(), past).unwrap();
            assert_eq!(is_readable(timer.as_fd(), -1), Ok(true));
        }
    }
}
