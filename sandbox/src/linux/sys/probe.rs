//! System calls that only an attacker makes. Probes of the escape suite use them, in processes of
//! their own.

#![expect(unsafe_code, reason = "system calls; see each block")]

pub(crate) mod entry;
pub(crate) mod memory;
pub(crate) mod target;

use std::{
    ffi::{CStr, c_long},
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use super::{Result, check, file::own};

/// The promise that the calling process has one thread, which forking needs.
#[derive(Debug)]
pub(crate) struct Alone {
    /// Threads can't pass it to each other.
    here: PhantomData<*const ()>,
}

impl Alone {
    /// # Safety
    ///
    /// The process has one thread, and starts others only through [`memory::start_thread`].
    pub(crate) unsafe fn promise() -> Self {
        Self { here: PhantomData }
    }

    /// Forks. `None` in the child.
    #[expect(clippy::unused_self, reason = "having it is what makes this sound")]
    pub(crate) fn fork(&self) -> Result<Option<i32>> {
        // SAFETY: there is one thread, so the child meets no lock that nobody opens.
        let pid = check(unsafe { libc::fork() })?;
        Ok((pid > 0).then_some(pid))
    }
}

/// An argument of [`call`].
#[derive(Debug)]
pub(crate) enum Argument<'a> {
    /// No address: nothing of a program that is loaded anywhere lives in the lowest 2 GiB.
    Number(i32),
    Text(&'a CStr),
    /// Bytes that the kernel reads.
    Bytes(&'a [u8]),
    /// A page that the kernel may write.
    Page(&'a mut Page),
}

/// Larger than anything that a call of [`Call`] reads or writes through one pointer.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Page(pub(crate) [u8; 4096]);

impl Page {
    /// Zeros, except for `words` at its start.
    pub(crate) fn of(words: &[u32]) -> Self {
        let mut page = Self([0; 4096]);
        for (slot, word) in page.0.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        page
    }
}

macro_rules! calls {
    ($($(#[$attribute:meta])* $name:ident = $number:ident, $text:literal;)*) => {
        /// Calls that write to memory only where an argument is a [`Page`], at most that much, and
        /// that change nothing about the caller's memory.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Call { $($(#[$attribute])* $name),* }

        impl Call {
            /// As manuals and filters have it.
            pub(crate) const fn name(self) -> &'static str {
                match self { $($(#[$attribute])* Self::$name => $text),* }
            }

            const fn number(self) -> c_long {
                match self { $($(#[$attribute])* Self::$name => libc::$number),* }
            }
        }
    };
}

calls! {
    Acct = SYS_acct, "acct";
    AddKey = SYS_add_key, "add_key";
    Adjtimex = SYS_adjtimex, "adjtimex";
    Bpf = SYS_bpf, "bpf";
    Capset = SYS_capset, "capset";
    Chroot = SYS_chroot, "chroot";
    DeleteModule = SYS_delete_module, "delete_module";
    FanotifyInit = SYS_fanotify_init, "fanotify_init";
    Fcntl = SYS_fcntl, "fcntl";
    FinitModule = SYS_finit_module, "finit_module";
    Fsopen = SYS_fsopen, "fsopen";
    InitModule = SYS_init_module, "init_module";
    Ioctl = SYS_ioctl, "ioctl";
    #[cfg(target_arch = "x86_64")]
    Ioperm = SYS_ioperm, "ioperm";
    #[cfg(target_arch = "x86_64")]
    Iopl = SYS_iopl, "iopl";
    IoUringSetup = SYS_io_uring_setup, "io_uring_setup";
    Kcmp = SYS_kcmp, "kcmp";
    KexecFileLoad = SYS_kexec_file_load, "kexec_file_load";
    KexecLoad = SYS_kexec_load, "kexec_load";
    Keyctl = SYS_keyctl, "keyctl";
    Kill = SYS_kill, "kill";
    Mknodat = SYS_mknodat, "mknodat";
    MemfdCreate = SYS_memfd_create, "memfd_create";
    #[cfg(target_arch = "x86_64")]
    ModifyLdt = SYS_modify_ldt, "modify_ldt";
    Mount = SYS_mount, "mount";
    MountSetattr = SYS_mount_setattr, "mount_setattr";
    MqOpen = SYS_mq_open, "mq_open";
    Msgget = SYS_msgget, "msgget";
    NameToHandleAt = SYS_name_to_handle_at, "name_to_handle_at";
    OpenByHandleAt = SYS_open_by_handle_at, "open_by_handle_at";
    OpenTree = SYS_open_tree, "open_tree";
    PerfEventOpen = SYS_perf_event_open, "perf_event_open";
    Personality = SYS_personality, "personality";
    PidfdGetfd = SYS_pidfd_getfd, "pidfd_getfd";
    PidfdOpen = SYS_pidfd_open, "pidfd_open";
    PivotRoot = SYS_pivot_root, "pivot_root";
    Prctl = SYS_prctl, "prctl";
    Prlimit = SYS_prlimit64, "prlimit64";
    Ptrace = SYS_ptrace, "ptrace";
    Reboot = SYS_reboot, "reboot";
    RequestKey = SYS_request_key, "request_key";
    SchedSetaffinity = SYS_sched_setaffinity, "sched_setaffinity";
    SchedSetscheduler = SYS_sched_setscheduler, "sched_setscheduler";
    Semget = SYS_semget, "semget";
    Sethostname = SYS_sethostname, "sethostname";
    Setgroups = SYS_setgroups, "setgroups";
    Setns = SYS_setns, "setns";
    Setpriority = SYS_setpriority, "setpriority";
    Setresgid = SYS_setresgid, "setresgid";
    Setresuid = SYS_setresuid, "setresuid";
    Setsid = SYS_setsid, "setsid";
    Setxattr = SYS_setxattr, "setxattr";
    Shmget = SYS_shmget, "shmget";
    Socket = SYS_socket, "socket";
    Swapon = SYS_swapon, "swapon";
    Syslog = SYS_syslog, "syslog";
    Umount2 = SYS_umount2, "umount2";
    Unshare = SYS_unshare, "unshare";
    Userfaultfd = SYS_userfaultfd, "userfaultfd";
}

/// Makes a call with up to six arguments; the rest is 0.
pub(crate) fn call<const N: usize>(call: Call, arguments: [Argument<'_>; N]) -> Result<i64> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => number.into(),
            Argument::Text(text) => address(text.as_ptr().cast()),
            Argument::Bytes(bytes) => address(bytes.as_ptr()),
            Argument::Page(page) => address(ptr::from_mut(page).cast_const().cast()),
        };
    }
    let [first, second, third, fourth, fifth, sixth] = words;
    // SAFETY: the calls of `Call` write only through a `Page`, which is exclusively borrowed and
    // larger than what they write; a number where they want a pointer is no address of ours, and
    // the answer to it is EFAULT.
    check(unsafe { libc::syscall(call.number(), first, second, third, fourth, fifth, sixth) })
}

/// The kernel ends the calling process after this many seconds.
pub(crate) fn end_after(seconds: u32) {
    // SAFETY: takes an integer; the default action of the signal is in force.
    unsafe { libc::alarm(seconds) };
}

/// Waits for ever.
pub(crate) fn pause() -> ! {
    loop {
        // SAFETY: takes nothing, and returns only after a handler, of which there are none.
        unsafe { libc::pause() };
    }
}

/// Ignores every signal that can be ignored, except SIGCHLD, without which children could not be
/// awaited.
pub(crate) fn ignore_signals() {
    for signal in (1..=64).filter(|signal| *signal != libc::SIGCHLD) {
        // SAFETY: ignoring installs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Waits for a child's end: its status.
pub(crate) fn wait_for(pid: i32) -> Result<i32> {
    let mut status = 0;
    // SAFETY: the status is live and ours.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    Ok(status)
}

/// Puts `from` at the place of descriptor `to`.
pub(crate) fn place(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: duplicating a descriptor touches no memory; probes own their standard streams.
    check(unsafe { libc::dup2(from, to) })?;
    Ok(())
}

fn address(pointer: *const u8) -> i64 {
    pointer.expose_provenance().cast_signed() as i64
}

/// A second descriptor of the same file that programs started later inherit.
pub(crate) fn inheritable(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: duplicating a descriptor touches no memory.
    let copy = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 3) })?;
    Ok(own(copy))
}
