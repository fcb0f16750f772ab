//! Where the socket is, and how it comes to be there: private, locked, and gone with its node.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::{ControlError, Step};
use crate::limits::SOCKET_PATH_BYTES;
use crate::owner::own_user;

/// Where the socket is unless the configuration says otherwise.
pub(crate) fn default_path() -> io::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = match (runtime.filter(|path| path.is_absolute()), own_user()?) {
        (Some(runtime), _) => runtime.join("neuroflow"),
        (None, 0) => PathBuf::from("/run/neuroflow"),
        (None, user) => PathBuf::from(format!("/tmp/neuroflow-{user}")),
    };
    Ok(base.join("control.sock"))
}

/// A socket that listens. Dropping it removes its files.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    pub(super) files: Files,
}

/// The socket and its lock. The lock says that a node lives, and so whether a socket that is found
/// is stale; two nodes that start at once can't both take its place.
#[derive(Debug)]
pub(super) struct Files {
    socket: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Drop for Files {
    fn drop(&mut self) {
        // Under the lock both are ours. If they can't be removed, the next start does it.
        let _left = fs::remove_file(&self.socket);
        let _left = fs::remove_file(&self.lock);
    }
}

/// Listens on `path`, in a private directory, for this user and root only.
pub(super) fn bind(path: &Path, user: u32) -> Result<Bound, ControlError> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES {
        return Err(ControlError::TooLong { path: path.to_owned() });
    }
    // A path without a directory is one in the current directory.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    prepare(directory, user)?;
    let (lock, held) = lock(path)?;
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(ControlError::at(Step::Bind, path))?;
    let files = Files { socket: path.to_owned(), lock, _held: held };
    // Until this line the directory or the umask protects it, and the check of every peer does.
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(ControlError::at(Step::Protect, path))?;
    Ok(Bound { listener, files })
}

/// Makes the directory if it's missing, and refuses one where others could swap the socket.
fn prepare(directory: &Path, user: u32) -> Result<(), ControlError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(ControlError::at(Step::MakeDirectory, directory))?;
    let found = fs::metadata(directory).map_err(ControlError::at(Step::Inspect, directory))?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let ours = owner == user || owner == 0;
    let sticky = mode & 0o1000 != 0;
    if ours && (mode & 0o022 == 0 || sticky) {
        return Ok(());
    }
    Err(ControlError::Directory { path: directory.to_owned(), owner, mode })
}

/// How often the lock's file may vanish between opening and locking it: another node has to stop
/// in just that moment for each.
const LOCK_ATTEMPTS: usize = 8;

fn lock(socket: &Path) -> Result<(PathBuf, File), ControlError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| ControlError::System { step: Step::Lock, path: path.clone(), source };
    for _ in 0..LOCK_ATTEMPTS {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The node that had it may have removed the file that was just locked.
        let locked = file.metadata().map_err(failed)?;
        if fs::metadata(&path).is_ok_and(|found| found.ino() == locked.ino()) {
            return Ok((path, file));
        }
    }
    Err(ControlError::Live { path: socket.to_owned() })
}

/// Removes the socket of a node that didn't come to remove it itself. The lock is held.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            tracing::info!(path = %path.display(), "removing the control socket of a dead node");
            fs::remove_file(path).map_err(ControlError::at(Step::Remove, path))
        }
        Ok(_other) => Err(ControlError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::at(Step::Inspect, path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed with everything in it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("neuroflow-place-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_its_node() {
        let scratch = Scratch::new("private");
        let path = scratch.path("made/control.sock");
        let bound = bind(&path, own_user().unwrap()).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(bound);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_live_socket_is_kept_and_a_stale_one_replaced() {
        let scratch = Scratch::new("stale");
        let path = scratch.path("control.sock");
        let user = own_user().unwrap();
        let first = bind(&path, user).unwrap();
        assert!(matches!(bind(&path, user), Err(ControlError::Live { .. })));
        drop(first);
        // What a killed node leaves: a socket that nobody listens on, and a file without a lock.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        fs::write(scratch.path("control.sock.lock"), "").unwrap();
        assert!(bind(&path, user).is_ok());
    }

    #[tokio::test]
    async fn nothing_but_a_socket_is_removed() {
        let scratch = Scratch::new("file");
        let path = scratch.path("control.sock");
        fs::write(&path, "precious").unwrap();
        let refused = bind(&path, own_user().unwrap());
        assert!(matches!(refused, Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_directory_that_others_can_change_is_refused() {
        let scratch = Scratch::new("open");
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).unwrap();
        let user = own_user().unwrap();
        let refused = bind(&scratch.path("control.sock"), user);
        assert!(matches!(refused, Err(ControlError::Directory { mode: 0o777, .. })));
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o1777)).unwrap();
        assert!(bind(&scratch.path("control.sock"), user).is_ok());
        let long = scratch.path(&"x".repeat(SOCKET_PATH_BYTES));
        assert!(matches!(bind(&long, user), Err(ControlError::TooLong { .. })));
    }
}
