//! Which namespaces a process is in, to prove that a cell shares none with its zygote.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
};

use super::sys::{Result, credentials, directory, file};

/// The namespaces of one process, by the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespaces {
    numbers: [u64; KINDS.len()],
}

impl Namespaces {
    pub(crate) fn of_caller() -> Result<Self> {
        let own = file::open(c"/proc/self", libc::O_PATH | libc::O_CLOEXEC)?;
        Self::of(own.as_fd())
    }

    /// Those of the process whose directory below `/proc` this is.
    fn of(process: BorrowedFd<'_>) -> Result<Self> {
        let mut numbers = [0; KINDS.len()];
        for (number, path) in numbers.iter_mut().zip(KINDS) {
            *number = directory::inode_at(process, path)?;
        }
        Ok(Self { numbers })
    }

    /// Fails unless the caller, whose directory below `/proc` is `own`, shares none of these. They
    /// were taken before the zygote entered any cell's network, so the network counts too.
    pub(super) fn verify_left(&self, own: BorrowedFd<'_>) -> Result<()> {
        let own = Self::of(own)?;
        if own.numbers.iter().zip(self.numbers).all(|(own, other)| *own != other) {
            Ok(())
        } else {
            Err(credentials::NOT_AS_SET)
        }
    }
}

const KINDS: [&CStr; 7] =
    [c"ns/user", c"ns/pid", c"ns/mnt", c"ns/net", c"ns/ipc", c"ns/uts", c"ns/cgroup"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_not_left_its_own() {
        let own = Namespaces::of_caller().unwrap();
        assert_eq!(own, Namespaces::of_caller().unwrap());
        let directory = file::open(c"/proc/self", libc::O_PATH | libc::O_CLOEXEC).unwrap();
        assert!(own.verify_left(directory.as_fd()).is_err());
    }
}
