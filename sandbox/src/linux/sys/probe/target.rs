//! Targets of attacks that the standard library can't make: terminals, and what processes share by
//! key or name.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::{CStr, CString, c_int},
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
};

use super::super::{Result, check, credentials::effective_ids, file::own};

/// A terminal of nobody's.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// It's there as long as this is open.
    _master: File,
    pub(crate) number: u32,
}

impl Terminal {
    /// Makes one that programs can open.
    pub(crate) fn new(master: File) -> Result<Self> {
        let (mut number, mut unlocked): (u32, c_int) = (0, 0);
        let descriptor = master.as_raw_fd();
        // SAFETY: the kernel reads one integer, which is live.
        check(unsafe { libc::ioctl(descriptor, libc::TIOCSPTLCK, &raw mut unlocked) })?;
        // SAFETY: the kernel writes one integer, which is live.
        check(unsafe { libc::ioctl(descriptor, libc::TIOCGPTN, &raw mut number) })?;
        Ok(Self { _master: master, number })
    }
}

/// Shared memory, semaphores and a message queue with the same key, gone with the value.
///
/// They have sizes that nobody else gives such things, by which they are known.
#[derive(Debug)]
pub(crate) struct Keyed {
    memory: c_int,
    semaphores: c_int,
    messages: c_int,
}

/// Sizes of the three: bytes, semaphores, bytes that may wait. No page, no usual bound, and small.
const MEMORY_BYTES: libc::size_t = 11_846;
const SEMAPHORES: c_int = 46;
const WAITING_BYTES: libc::msglen_t = 4_646;
/// Anybody may use them, so that only the cell's walls hide them.
const MODE: c_int = 0o666;

impl Keyed {
    /// Fails if one of them exists already.
    pub(crate) fn new(key: i32) -> Result<Self> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | MODE;
        let mut this = Self { memory: -1, semaphores: -1, messages: -1 };
        // SAFETY: takes integers only.
        this.memory = check(unsafe { libc::shmget(key, MEMORY_BYTES, flags) })?;
        // SAFETY: takes integers only.
        this.semaphores = check(unsafe { libc::semget(key, SEMAPHORES, flags) })?;
        // SAFETY: takes integers only.
        this.messages = check(unsafe { libc::msgget(key, flags) })?;
        let mut messages = messages(this.messages)?;
        messages.msg_qbytes = WAITING_BYTES;
        // SAFETY: the kernel reads the struct, which is live.
        check(unsafe { libc::msgctl(this.messages, libc::IPC_SET, &raw mut messages) })?;
        Ok(this)
    }

    /// What a process with this number has left by [`new`](Self::new), and nothing that anybody else
    /// has made with the key.
    pub(crate) fn left(key: i32, process: i32) -> Self {
        // SAFETY: takes integers only, and makes nothing without a flag.
        let memory = unsafe { libc::shmget(key, 0, 0) };
        // SAFETY: as above.
        let semaphores = unsafe { libc::semget(key, 0, 0) };
        // SAFETY: as above.
        let messages = unsafe { libc::msgget(key, 0) };
        let ours = |id: c_int, is_ours: bool| if is_ours { id } else { -1 };
        Self {
            memory: ours(memory, is_memory(memory, process)),
            semaphores: ours(semaphores, is_semaphores(semaphores)),
            messages: ours(messages, is_messages(messages)),
        }
    }
}

/// Whether it's as [`Keyed::new`] makes it, for this user.
fn is_made_here(permissions: &libc::ipc_perm) -> bool {
    let own = effective_ids().0;
    let mode = c_int::from(permissions.mode) & 0o777;
    permissions.uid == own && permissions.cuid == own && mode == MODE
}

fn is_memory(id: c_int, process: i32) -> bool {
    let mut found = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the kernel fills the struct, which is ours; -1 is nobody's number.
    let told = check(unsafe { libc::shmctl(id, libc::IPC_STAT, found.as_mut_ptr()) });
    // SAFETY: every bit pattern of its integer fields is valid.
    let found = unsafe { found.assume_init() };
    told.is_ok()
        && is_made_here(&found.shm_perm)
        && (found.shm_cpid, found.shm_segsz) == (process, MEMORY_BYTES)
}

fn is_semaphores(id: c_int) -> bool {
    let mut found = MaybeUninit::<libc::semid_ds>::zeroed();
    // SAFETY: the kernel fills the struct, which is ours; -1 is nobody's number.
    let told = check(unsafe { libc::semctl(id, 0, libc::IPC_STAT, found.as_mut_ptr()) });
    // SAFETY: every bit pattern of its integer fields is valid.
    let found = unsafe { found.assume_init() };
    told.is_ok()
        && is_made_here(&found.sem_perm)
        && c_int::try_from(found.sem_nsems) == Ok(SEMAPHORES)
}

fn is_messages(id: c_int) -> bool {
    messages(id)
        .is_ok_and(|found| is_made_here(&found.msg_perm) && found.msg_qbytes == WAITING_BYTES)
}

fn messages(id: c_int) -> Result<libc::msqid_ds> {
    let mut found = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: the kernel fills the struct, which is ours; -1 is nobody's number.
    check(unsafe { libc::msgctl(id, libc::IPC_STAT, found.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    Ok(unsafe { found.assume_init() })
}

impl Drop for Keyed {
    fn drop(&mut self) {
        let none = std::ptr::null_mut();
        // SAFETY: removing takes no argument; -1 is nobody's number.
        unsafe { libc::shmctl(self.memory, libc::IPC_RMID, none) };
        // SAFETY: as above.
        unsafe { libc::semctl(self.semaphores, 0, libc::IPC_RMID) };
        // SAFETY: as above.
        unsafe { libc::msgctl(self.messages, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// A POSIX message queue, gone with the value.
#[derive(Debug)]
pub(crate) struct Queue {
    name: CString,
    _queue: OwnedFd,
}

impl Queue {
    /// `name` has no slash. Fails if it exists already.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the name is NUL-terminated; without attributes the queue has the usual ones.
        let queue = unsafe {
            libc::syscall(
                libc::SYS_mq_open,
                name.as_ptr(),
                flags,
                0o666,
                std::ptr::null::<libc::mq_attr>(),
            )
        };
        let queue = own(i32::try_from(check(queue)?).unwrap_or(-1));
        Ok(Self { name: name.to_owned(), _queue: queue })
    }

    /// Takes the name from the queue that has it, if there is one.
    pub(crate) fn unlink(name: &CStr) {
        // SAFETY: the name is NUL-terminated and lives through the call.
        unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        Self::unlink(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;
    use crate::untried::untried;

    /// A key that no scene and no other test has.
    fn key(number: i32) -> i32 {
        0x0A46_0000 + std::process::id().cast_signed().wrapping_mul(4) + number
    }

    fn own() -> i32 {
        std::process::id().cast_signed()
    }

    #[test]
    fn what_a_scene_has_left_is_known_and_removed() {
        let key = key(0);
        let left = match Keyed::new(key) {
            Ok(left) => ManuallyDrop::new(left),
            Err(why) => return untried("what a scene has left by a key", why),
        };
        let found = ManuallyDrop::new(Keyed::left(key, own() + 1));
        assert_eq!(found.memory, -1, "another process is said to have made it");
        let found = Keyed::left(key, own());
        let all = |keyed: &Keyed| [keyed.memory, keyed.semaphores, keyed.messages];
        assert_eq!(all(&found), all(&left));
        drop(found);
        assert!(Keyed::new(key).is_ok(), "nothing has the key");
    }

    #[test]
    fn what_others_have_made_with_a_key_is_left_alone() {
        let key = key(1);
        let flags = libc::IPC_CREAT | libc::IPC_EXCL;
        // As many programs make them: a page of their own, one semaphore, a queue as it comes.
        for (bytes, mode) in [(4_096, 0o600), (4_096, MODE), (MEMORY_BYTES, 0o600)] {
            // SAFETY: takes integers only.
            let memory = unsafe { libc::shmget(key, bytes, flags | mode) };
            // SAFETY: takes integers only.
            let semaphores = unsafe { libc::semget(key, 1, flags | mode) };
            // SAFETY: takes integers only.
            let messages = unsafe { libc::msgget(key, flags | mode) };
            let all = [memory, semaphores, messages];
            let foreign = Keyed { memory, semaphores, messages };
            if all.contains(&-1) {
                return untried("what others have made with a key", "they can't make it here");
            }
            drop(Keyed::left(key, own()));
            // SAFETY: takes integers only, and makes nothing without a flag.
            let memory = unsafe { libc::shmget(key, 0, 0) };
            // SAFETY: as above.
            let semaphores = unsafe { libc::semget(key, 0, 0) };
            // SAFETY: as above.
            let messages = unsafe { libc::msgget(key, 0) };
            assert_eq!([memory, semaphores, messages], all);
            drop(foreign);
        }
    }
}
