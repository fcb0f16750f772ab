//! A lock on a file: who has it may write what stands beside it.

use std::fs::{File, TryLockError};

/// A file that this process has locked, until this is dropped or the process ends.
///
/// The lock belongs to the opened file (`flock(2)`), which a child has too between `fork` and `exec`. To close it here
/// would leave it locked until then, and so it's released by name.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Locks the file, unless somebody else has.
    pub(crate) fn take(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // If that fails, the system releases it when nobody has the file open.
        let _released = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_released_at_once_whoever_has_the_file_open_too() {
        let path = std::env::temp_dir().join(format!("lock-{}", uuid::Uuid::new_v4()));
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let file = open();
        // As in a child that was forked and hasn't executed its program yet.
        let inherited = file.try_clone().unwrap();
        let lock = FileLock::take(file).unwrap();
        assert!(matches!(FileLock::take(open()), Err(TryLockError::WouldBlock)));
        drop(lock);
        let again = FileLock::take(open()).unwrap();
        drop((inherited, again));
        std::fs::remove_file(path).unwrap();
    }
}
