//! Filters in a directory that only the host's own user can write.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{limits, linux::sys::credentials, seccomp::Filter};

/// A directory that was found fit.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

/// Why a directory isn't used for filters.
///
/// ```
/// fn explain(error: &neuroflow_sandbox::CacheError) -> String {
///     error.to_string()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It can't be made, or not be looked at.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The directory, or one above it.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It isn't a directory.
    #[error("{} is no directory: name one that is or can be made", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else owns it or one above it.
    #[error("{} belongs to user {owner}: use a directory below one of your own", path.display())]
    Foreign {
        /// The directory, or one above it.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others can write into it or into one above it.
    #[error("others can write into {} (mode {mode:o}): chmod go-w", path.display())]
    Open {
        /// The directory, or one above it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Directory {
    pub(super) fn open(path: PathBuf) -> Result<Self, CacheError> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CacheError::Unusable { path, source });
            }
            _ => {}
        }
        let real = match fs::canonicalize(&path) {
            Ok(real) => real,
            Err(source) => return Err(CacheError::Unusable { path, source }),
        };
        for (depth, place) in real.ancestors().enumerate() {
            trustworthy(place, depth == 0)?;
        }
        Ok(Self { path: real })
    }

    /// The filter made from `key`, if there is a whole one. A damaged file is as good as none, and
    /// is written anew.
    pub(super) fn read(&self, key: &[u8]) -> Option<Filter> {
        let path = self.place(key);
        match read(&path, key) {
            Ok(filter) => filter,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached filter not read");
                None
            }
        }
    }

    /// Keeps a filter. A cache that can't be written makes the next start slower and nothing worse.
    pub(super) fn write(&self, key: &[u8], filter: &Filter) {
        let path = self.place(key);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let beside = self.path.join(format!(".{}-{serial}", process::id()));
        let written = write(&beside, key, filter).and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "filter not cached");
            fs::remove_file(&beside).ok();
        }
    }

    fn place(&self, key: &[u8]) -> PathBuf {
        self.path.join(format!("{:016x}.bpf", checksum(&[key])))
    }
}

/// Directories above may belong to root, and may be open to others if nobody can move what isn't
/// theirs there.
fn trustworthy(place: &Path, innermost: bool) -> Result<(), CacheError> {
    let path = place.to_path_buf();
    let status = match fs::symlink_metadata(place) {
        Ok(status) => status,
        Err(source) => return Err(CacheError::Unusable { path, source }),
    };
    if !status.is_dir() {
        return Err(CacheError::NotADirectory { path });
    }
    let (owner, mode) = (status.uid(), status.mode() & 0o7777);
    let (own, _) = credentials::effective_ids();
    if owner != own && (innermost || owner != 0) {
        return Err(CacheError::Foreign { path, owner });
    }
    let sticky = mode & 0o1000 != 0 && !innermost;
    if mode & OTHERS_WRITE != 0 && !sticky {
        return Err(CacheError::Open { path, mode });
    }
    Ok(())
}

fn read(path: &Path, key: &[u8]) -> io::Result<Option<Filter>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let status = file.metadata()?;
    if !own_file(&status) {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(decode(&bytes, key))
}

fn own_file(status: &Metadata) -> bool {
    let (own, _) = credentials::effective_ids();
    status.is_file() && status.uid() == own && status.mode() & OTHERS_WRITE == 0
}

fn write(path: &Path, key: &[u8], filter: &Filter) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&encode(key, filter.program()))?;
    file.sync_all()
}

/// Layout: eight bytes that say what it is, the checksum of the rest, the lengths of both parts, the
/// key, the program.
fn encode(key: &[u8], program: &[u8]) -> Vec<u8> {
    let lengths = lengths(key, program);
    let sum = checksum(&[&lengths, key, program]);
    [MAGIC.as_slice(), &sum.to_le_bytes(), &lengths, key, program].concat()
}

fn decode(bytes: &[u8], key: &[u8]) -> Option<Filter> {
    let rest = bytes.strip_prefix(MAGIC.as_slice())?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != checksum(&[rest]) {
        return None;
    }
    let (stated, rest) = rest.split_first_chunk::<16>()?;
    let program = rest.strip_prefix(key)?;
    if *stated != lengths(key, program) {
        return None;
    }
    Filter::from_bytes(program).ok().filter(|filter| filter.instructions() > 0)
}

fn lengths(key: &[u8], program: &[u8]) -> [u8; 16] {
    let both = ((program.len() as u128) << 64) | key.len() as u128;
    both.to_le_bytes()
}

/// FNV-1a. It finds damage; forgery is what the permissions are for.
fn checksum(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xCBF2_9CE4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

static SERIAL: AtomicU64 = AtomicU64::new(0);
const MAGIC: &[u8; 8] = b"nf-bpf\0\x01";
const OTHERS_WRITE: u32 = 0o022;
/// Header, two profiles' texts, and the longest program.
const LONGEST: u64 =
    64 + 2 * limits::MAX_SECCOMP_PROFILE_BYTES as u64 + 8 * limits::MAX_FILTER_INSTRUCTIONS as u64;
