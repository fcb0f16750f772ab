//! The system call filter: loading it, reading back that it is there, answering what it refuses.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Result, check, credentials, file::own};
use crate::errno::Errno;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The thread that called, as the receiver's process ids have it; 0 if they don't.
    pub(crate) pid: u32,
    pub(crate) number: i32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

/// What a waiting call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It fails with this error number.
    Errno(i32),
    /// It goes on as if there were no filter. Never a decision about safety: what its pointers
    /// point to may have changed since.
    Continue,
}

/// Loads a program for the calling thread and what it starts. The kernel demands that privileges
/// are forbidden before. With `listener`, calls that the program wants to be asked about arrive at
/// the descriptor, which closes at exec.
pub(crate) fn load(program: &[u8], listener: bool) -> Result<Option<OwnedFd>> {
    if !listener {
        set(program, 0)?;
        return Ok(None);
    }
    // Once a call was received, only a deadly signal interrupts it: a program that gets many
    // signals would otherwise ask again and again. Kernels before 5.19 don't have it.
    let fd = match set(program, NEW_LISTENER | WAIT_KILLABLE) {
        Err(errno) if errno.raw() == libc::EINVAL => set(program, NEW_LISTENER),
        other => other,
    }?;
    Ok(Some(own(i32::try_from(fd).unwrap_or(-1))))
}

/// The calling thread's mode: 2 is a filter.
pub(crate) fn mode() -> Result<u32> {
    let none: u64 = 0;
    // SAFETY: takes nothing.
    let mode = check(unsafe { libc::prctl(libc::PR_GET_SECCOMP, none, none, none, none) })?;
    Ok(mode.cast_unsigned())
}

/// What [`mode`] says once a filter is loaded.
pub(crate) const FILTERED: u32 = 2;

/// Whether the kernel has filters that ask, kill, and whose messages have the layout that this file
/// knows.
pub(crate) fn supported() -> Result<()> {
    for action in [libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_USER_NOTIF] {
        // SAFETY: the kernel reads one number.
        check(unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_ACTION_AVAIL,
                NO_FLAGS,
                &raw const action,
            )
        })?;
    }
    let mut sizes =
        libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel fills the struct, which is ours.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, NO_FLAGS, &raw mut sizes)
    })?;
    let known = usize::from(sizes.seccomp_notif) == size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) == size_of::<libc::seccomp_notif_resp>();
    if known { Ok(()) } else { Err(credentials::NOT_AS_SET) }
}

/// Takes the next waiting call; waits for one if there is none. `ENOENT` means that the caller died
/// meanwhile, which is no failure of the listener.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    // The kernel insists on zeroes.
    let mut notification = libc::seccomp_notif {
        id: 0,
        pid: 0,
        flags: 0,
        data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
    };
    // SAFETY: the kernel fills the struct, whose size the request carries.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification)
    })?;
    Ok(Notification {
        id: notification.id,
        pid: notification.pid,
        number: notification.data.nr,
        arch: notification.data.arch,
        args: notification.data.args,
    })
}

/// Answers a call. `ENOENT` means that the caller died or was interrupted meanwhile.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<()> {
    let (error, flags) = match answer {
        Answer::Errno(errno) => (errno.saturating_neg(), 0),
        Answer::Continue => (0, CONTINUE),
    };
    let response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the kernel reads the struct, whose size the request carries.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response)
    })?;
    Ok(())
}

/// Whether the call still waits: only then the process id in its notification is still its own.
#[cfg(test)]
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0
    }
}

fn set(program: &[u8], flags: libc::c_ulong) -> Result<libc::c_long> {
    let (instructions, rest) =
        (program.len() / INSTRUCTION_BYTES, program.len() % INSTRUCTION_BYTES);
    let length = u16::try_from(instructions).ok().filter(|length| *length > 0 && rest == 0);
    let Some(len) = length else { return Err(Errno::from_raw(libc::EINVAL)) };
    let filter = libc::sock_fprog {
        len,
        // The kernel copies from here, whatever the alignment.
        filter: program.as_ptr().cast::<libc::c_void>().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the length is that of the live program, which the kernel only reads and checks.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    })
}

/// The call's number, for a program that has no name for it.
#[expect(clippy::cast_possible_truncation, reason = "below 1000")]
pub(crate) const NUMBER: u32 = libc::SYS_seccomp as u32;
const INSTRUCTION_BYTES: usize = size_of::<libc::sock_filter>();
const NO_FLAGS: libc::c_ulong = 0;
const NEW_LISTENER: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
const WAIT_KILLABLE: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
const CONTINUE: u32 = 1;

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::{AsFd, IntoRawFd},
            unix::process::ExitStatusExt,
        },
        process::{Command, ExitStatus, Stdio},
        sync::atomic::{AtomicI32, Ordering},
        thread,
    };

    use super::*;
    use crate::{
        Level,
        seccomp::{Cache, Deny, FilterOptions, SeccompProfile, compile::learning, refusal},
    };

    fn strict() -> crate::seccomp::Filter {
        let profile = SeccompProfile::builtin(Level::Strict).expect("a valid profile");
        let options = FilterOptions { inet: false, deny: Deny::Notify };
        Cache::default().filter(&profile, options).expect("a filter")
    }

    /// A system call with two arguments that touches no memory.
    fn call(number: libc::c_long, first: u64, second: u64) -> std::result::Result<i64, i32> {
        // SAFETY: the tests below name calls that take integers, or fail before they read memory.
        check(unsafe { libc::syscall(number, first, second, 0_u64, 0_u64, 0_u64, 0_u64) })
            .map_err(Errno::raw)
    }

    /// Runs `calls` in a thread of its own behind `program`, and answers what it's asked about.
    fn behind<T: Send>(
        program: &[u8],
        answer_with: impl Fn(&Notification) -> Answer,
        calls: impl FnOnce() -> T + Send,
    ) -> (T, Vec<Notification>) {
        // Behind a filter that asks about everything, handing over must not be a system call.
        let place = AtomicI32::new(-1);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                credentials::forbid_privileges().expect("no privileges");
                let listener = load(program, true).expect("a filter").expect("a listener");
                place.store(listener.into_raw_fd(), Ordering::Release);
                calls()
            });
            let listener = loop {
                match place.load(Ordering::Acquire) {
                    -1 if thread.is_finished() => panic!("no listener"),
                    -1 => thread::yield_now(),
                    listener => break own(listener),
                }
            };
            let mut asked = Vec::new();
            loop {
                if super::super::event::is_readable(listener.as_fd(), 20).expect("a poll") {
                    match receive(listener.as_fd()) {
                        Ok(notification) => {
                            let reply = answer_with(&notification);
                            assert!(still_waits(listener.as_fd(), notification.id));
                            answer(listener.as_fd(), notification.id, reply).expect("an answer");
                            assert!(!still_waits(listener.as_fd(), notification.id));
                            asked.push(notification);
                        }
                        // The thread has ended.
                        Err(_) => break,
                    }
                } else if thread.is_finished() {
                    break;
                }
            }
            (thread.join().expect("a result"), asked)
        })
    }

    #[test]
    fn the_kernel_has_what_is_needed() {
        supported().expect("filters that ask");
        assert_eq!(mode(), Ok(0), "this thread has none");
        for program in [&[0_u8; 7] as &[u8], &[], &[0; 8]] {
            let refused = load(program, false);
            assert_eq!(refused.map(drop).map_err(Errno::raw), Err(libc::EINVAL), "{program:?}");
        }
    }

    #[test]
    fn refused_calls_are_asked_about_and_the_others_not() {
        let refuse = |asked: &Notification| Answer::Errno(refusal(asked.number));
        let filter = strict();
        let (results, asked) = behind(filter.program(), refuse, || {
            [
                call(libc::SYS_prctl, 21, 0),
                call(libc::SYS_getppid, 0, 0),
                call(libc::SYS_keyctl, 0, 0x1_0000_0007),
                call(libc::SYS_socket, 16, 3),
                call(libc::SYS_clone3, 0, 0),
                call(libc::SYS_unshare, 0x1000_0000, 0),
                call(457, 0, 0),
                call(libc::SYS_personality, 0xFFFF_FFFF, 0),
            ]
        });
        assert_eq!(results[0], Ok(FILTERED.into()), "read back");
        assert!(results[1].is_ok() && results[7].is_ok());
        assert_eq!(results[2], Err(libc::EPERM));
        assert_eq!(results[3], Err(libc::EAFNOSUPPORT));
        assert_eq!(results[4], Err(libc::ENOSYS));
        assert_eq!(results[5], Err(libc::EPERM));
        assert_eq!(results[6], Err(libc::ENOSYS));
        let numbers: Vec<libc::c_long> =
            asked.iter().map(|asked| libc::c_long::from(asked.number)).collect();
        assert_eq!(numbers, [libc::SYS_keyctl, libc::SYS_socket, libc::SYS_unshare, 457]);
        assert_eq!(asked[0].args[1], 0x1_0000_0007);
        assert_ne!(asked[0].pid, 0);
    }

    #[test]
    fn what_is_continued_happens() {
        let filter = learning().expect("a filter");
        let ((own, unknown), asked) = behind(
            filter.program(),
            |_| Answer::Continue,
            || (call(libc::SYS_getppid, 0, 0), call(900, 0, 0)),
        );
        assert!(own.is_ok_and(|parent| parent > 0));
        assert_eq!(unknown, Err(libc::ENOSYS));
        let asked_about =
            |number: libc::c_long| asked.iter().any(|asked| i64::from(asked.number) == number);
        assert!(asked_about(libc::SYS_getppid) && asked_about(900));
    }

    const ROLE: &str = "SECCOMP_ROLE";

    /// Runs one of these tests in a process of its own, which doesn't survive it.
    #[expect(clippy::disallowed_methods, reason = "a process that the kernel is to kill")]
    fn elsewhere(test: &str) -> ExitStatus {
        let own = std::env::current_exe().expect("a path");
        Command::new(own)
            .args(["--exact", &format!("linux::sys::seccomp::tests::{test}"), "--nocapture"])
            .env(ROLE, test)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("an end")
    }

    fn plays(test: &str) -> bool {
        std::env::var(ROLE).as_deref() == Ok(test)
    }

    fn filter_oneself() {
        credentials::forbid_privileges().expect("no privileges");
        load(strict().program(), false).expect("a filter");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_of_x32_kill_the_process() {
        let name = "numbers_of_x32_kill_the_process";
        if plays(name) {
            filter_oneself();
            call(0x4000_0000 | libc::SYS_getppid, 0, 0).ok();
        } else {
            assert_eq!(elsewhere(name).signal(), Some(libc::SIGSYS));
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_entry_of_32_bit_programs_kills_the_process() {
        let name = "the_entry_of_32_bit_programs_kills_the_process";
        if plays(name) {
            filter_oneself();
            // getppid's number there.
            let mut number: u64 = 64;
            // SAFETY: the entry keeps the stack and changes `rax`, and r8 to r11 on older kernels.
            unsafe {
                std::arch::asm!("int 0x80", inout("rax") number, out("r8") _, out("r9") _,
                    out("r10") _, out("r11") _);
            }
            assert_eq!(number, 0, "still here");
        } else {
            assert_eq!(elsewhere(name).signal(), Some(libc::SIGSYS));
        }
    }

    #[test]
    fn without_the_calls_above_such_a_process_lives() {
        let name = "without_the_calls_above_such_a_process_lives";
        if plays(name) {
            filter_oneself();
            call(libc::SYS_getppid, 0, 0).expect("an allowed call");
        } else {
            assert!(elsewhere(name).success());
        }
    }
}
