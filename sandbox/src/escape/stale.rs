//! What killed processes have left of their scenes: each is found by its directory, and removed with it.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::linux::sys::{
    credentials::effective_ids,
    probe::target::{Keyed, Queue},
};

/// How the directories of scenes are called: the number of their process, and something random, come behind.
pub(super) const PREFIX: &str = "neuroflow-escape-";

/// Says that a scene is somebody's. The kernel lets go of the lock when the process has ended.
#[derive(Debug)]
pub(super) struct Owner {
    _locked: File,
}

impl Owner {
    /// `key` is that of the scene's shared memory and what else has one.
    pub(super) fn take(directory: &Path, key: i32) -> io::Result<Self> {
        let unlocked = directory.join("unlocked");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unlocked)?;
        file.try_lock()?;
        write!(file, "{key}")?;
        // Whoever finds it there finds it locked.
        fs::rename(unlocked, directory.join(OWNER))?;
        Ok(Self { _locked: file })
    }
}

/// Where a secret lies in the home of the host's user; a host without a home has none to lose.
pub(super) fn home_secret(unique: &str) -> Option<PathBuf> {
    let home = std::env::home_dir().filter(|home| home.is_absolute())?;
    Some(home.join(format!(".{unique}")))
}

/// Removes the scenes of this user's processes that have ended.
pub(super) fn sweep() {
    let directory = std::env::temp_dir();
    let Ok(found) = fs::read_dir(&directory) else { return };
    let names = found.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX)).take(AT_ONCE) {
        // What can't be removed now is found again the next time.
        let _left = remove(&directory.join(&name), &name).is_err();
    }
}

fn remove(directory: &Path, name: &str) -> io::Result<()> {
    // The directory of others is theirs, and so is what they say in it.
    let own = effective_ids().0;
    let is_own = |path: &Path| path.symlink_metadata().map(|it| (it.is_dir(), it.uid() == own));
    let owner = directory.join(OWNER);
    if is_own(directory)? != (true, true) || is_own(&owner)? != (false, true) {
        return Ok(());
    }
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&owner)?;
    file.try_lock()?;
    if let Ok(key) = io::read_to_string(&file)?.parse() {
        drop(Keyed::left(key));
    }
    if let Ok(name) = CString::new(name) {
        Queue::unlink(&name);
    }
    if let Some(secret) = home_secret(name).filter(|secret| secret.exists()) {
        fs::remove_file(secret)?;
    }
    fs::remove_dir_all(directory)
}

const OWNER: &str = "owner";
/// Scenes that one sweep removes: a node that is killed again and again leaves one each time.
const AT_ONCE: usize = 256;
