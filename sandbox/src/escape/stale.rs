//! What killed processes have left of their scenes: each is found by its directory, and removed with it.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::linux::sys::{
    credentials::effective_ids,
    probe::target::{Keyed, Queue},
    process::own_pid,
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

/// A key that nobody else has, with the process's number in it and a count.
pub(super) fn key(process: i32, count: i32) -> i32 {
    KEY.wrapping_add(process.wrapping_mul(KEYS_PER_PROCESS)).wrapping_add(count % KEYS_PER_PROCESS)
}

/// Removes the scenes of this user's processes that have ended.
pub(super) fn sweep() {
    sweep_in(&std::env::temp_dir());
}

fn sweep_in(directory: &Path) {
    let Ok(found) = fs::read_dir(directory) else { return };
    let names = found.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX)).take(AT_ONCE) {
        // What can't be removed now is found again the next time.
        let _left = remove(&directory.join(&name), &name).is_err();
    }
}

/// Whoever can make a directory here as this user chooses what is in it, a cell with a bind of its own
/// too. So nothing of it is believed that the host doesn't say as well.
fn remove(directory: &Path, name: &str) -> io::Result<()> {
    // The directory of others is theirs, and so is what they say in it.
    let own = effective_ids().0;
    let found = directory.symlink_metadata()?;
    if !found.is_dir() || found.uid() != own {
        return Ok(());
    }
    // Opening a pipe would wait for its other end.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    match File::options().read(true).custom_flags(flags).open(directory.join(OWNER)) {
        Ok(file) => {
            let found = file.metadata()?;
            if !found.is_file() || found.uid() != own || found.len() > OWNER_BYTES {
                return Ok(());
            }
            file.try_lock()?;
            let said = io::read_to_string((&file).take(OWNER_BYTES))?;
            if let (Some(process), Ok(key)) = (process_of(name), said.parse())
                && is_key_of(process, key)
            {
                if !has_ended(process) {
                    // Another has its number now; once that has ended, this is found again.
                    return Ok(());
                }
                drop(Keyed::left(key, process));
            }
        }
        // Its process was killed right before it had one, or right after.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_old(&found) => {}
        Err(error) => return Err(error),
    }
    if let Ok(name) = CString::new(name) {
        Queue::unlink(&name);
    }
    if let Some(secret) = home_secret(name).filter(|secret| secret.exists()) {
        fs::remove_file(secret)?;
    }
    fs::remove_dir_all(directory)
}

/// The number of the process that has made a scene, by its name.
fn process_of(name: &str) -> Option<i32> {
    let (process, _chance) = name.strip_prefix(PREFIX)?.split_once('-')?;
    process.parse().ok()
}

fn is_key_of(process: i32, key: i32) -> bool {
    (0..KEYS_PER_PROCESS).any(|count| self::key(process, count) == key)
}

/// Our own number was another's before: its scenes aren't locked, and ours are.
fn has_ended(process: i32) -> bool {
    process == own_pid() || !Path::new("/proc").join(process.to_string()).exists()
}

/// Whether nobody is still about to put an owner into it.
fn is_old(directory: &fs::Metadata) -> bool {
    let age = directory.modified().ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age > UNOWNED)
}

/// Far longer than between making a directory and its owner.
const UNOWNED: Duration = Duration::from_mins(1);
const OWNER: &str = "owner";
/// A key takes eleven characters at most.
const OWNER_BYTES: u64 = 16;
/// Scenes that one sweep removes: a node that is killed again and again leaves one each time.
const AT_ONCE: usize = 256;
const KEY: i32 = 0x2E46_0000;
const KEYS_PER_PROCESS: i32 = 16;

#[cfg(test)]
mod tests {
    use std::{mem::ManuallyDrop, sync::mpsc, thread};

    use super::*;
    use crate::untried::untried;

    /// A directory that is swept by its own test alone.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("neuroflow-stale-{name}-{}", own_pid());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// A scene of this process, if it's believed, with what its owner says.
        fn scene(&self, owner: &str) -> PathBuf {
            let path = self.0.join(format!("{PREFIX}{}-0badcafe", own_pid()));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(OWNER), owner).unwrap();
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// Beyond what scenes of this process have got by then.
    fn own_key() -> i32 {
        key(own_pid(), KEYS_PER_PROCESS - 1)
    }

    #[test]
    fn a_key_that_is_no_scenes_is_not_believed() {
        let others = 0x0B46_0000 + own_pid().wrapping_mul(4);
        // It looks like a scene's, and has a key that none has.
        let keyed = match Keyed::new(others) {
            Ok(keyed) => keyed,
            Err(why) => return untried("a key that is no scene's", why),
        };
        let place = Place::new("key");
        let scene = place.scene(&others.to_string());
        sweep_in(&place.0);
        assert!(!scene.exists(), "the directory itself is this user's");
        assert!(Keyed::new(others).is_err(), "what has the key stays");
        drop(keyed);
    }

    #[test]
    fn what_a_scene_has_left_is_removed_with_it() {
        let _left = match Keyed::new(own_key()) {
            Ok(left) => ManuallyDrop::new(left),
            Err(why) => return untried("what a scene has left by a key", why),
        };
        let place = Place::new("left");
        let scene = place.scene(&own_key().to_string());
        sweep_in(&place.0);
        assert!(!scene.exists());
        assert!(Keyed::new(own_key()).is_ok(), "nothing has the key");
    }

    #[test]
    fn a_scene_that_lost_its_owner_is_removed_once_nobody_can_be_making_it() {
        let place = Place::new("unowned");
        let scene = place.scene("");
        fs::remove_file(scene.join(OWNER)).unwrap();
        sweep_in(&place.0);
        assert!(scene.exists(), "somebody may be about to furnish it");
        let long_ago =
            File::open(&scene).unwrap().metadata().unwrap().modified().unwrap() - 2 * UNOWNED;
        File::open(&scene).unwrap().set_modified(long_ago).unwrap();
        sweep_in(&place.0);
        assert!(!scene.exists());
    }

    #[test]
    fn an_owner_that_is_no_short_file_is_not_waited_for_nor_read() {
        let place = Place::new("owner");
        let scene = place.scene(&"1".repeat(100_000));
        sweep_in(&place.0);
        assert!(scene.exists(), "nobody has said whose it is");
        let owner = scene.join(OWNER);
        fs::remove_file(&owner).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test's tool")]
        let made = std::process::Command::new("mkfifo").arg(&owner).status().unwrap();
        assert!(made.success());
        let (done, is_done) = mpsc::sync_channel(1);
        let swept = place.0.clone();
        #[expect(clippy::disallowed_methods, reason = "it may hang")]
        let sweeper = thread::spawn(move || {
            sweep_in(&swept);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(10)).expect("nobody writes to the pipe");
        sweeper.join().unwrap();
        assert!(scene.exists());
    }
}
