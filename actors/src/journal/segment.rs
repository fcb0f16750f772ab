//! One file of the embedded journal: appended to at its end, read anywhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::codec::Position;
use super::heading::{SEGMENT_HEADER, Salt, segment_header};

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) salt: Salt,
    path: PathBuf,
    file: File,
}

impl Segment {
    /// Makes a segment, and makes sure that it's still there after a loss of power.
    pub(super) fn create(folder: &Path, number: u32, sync: bool) -> io::Result<Self> {
        let path = folder.join(file_name(number));
        let salt = Salt::fresh()?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let made = file.write_all_at(&segment_header(number, salt), 0).and_then(|()| {
            if sync {
                file.sync_all()?;
                sync_folder(folder)?;
            }
            Ok(())
        });
        if let Err(error) = made {
            // What has no header isn't a segment; if it stays, the next start removes it.
            let _still_there = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { number, salt, path, file })
    }

    /// Opens a segment, whose header says its salt.
    pub(super) fn open(folder: &Path, number: u32) -> io::Result<Self> {
        let path = folder.join(file_name(number));
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { number, salt: Salt::NONE, path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// All of its bytes: at most a segment's size and one commit.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).ok().ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The bytes of a record.
    pub(super) fn record(&self, position: Position) -> io::Result<Vec<u8>> {
        // A position that was read from damaged bytes must not decide how much memory is taken.
        let end = u64::from(position.offset) + u64::from(position.len);
        if end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; position.len as usize];
        self.file.read_exact_at(&mut bytes, position.offset.into())?;
        Ok(bytes)
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes what is behind `at`.
    pub(super) fn cut(&self, at: u64) -> io::Result<()> {
        self.file.set_len(at.max(SEGMENT_HEADER as u64))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn file_name(number: u32) -> String {
    format!("{number:08}.{SUFFIX}")
}

const SUFFIX: &str = "segment";

/// The numbers of a folder's segments, in order.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.'));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes sure that a folder's entries are still there after a loss of power.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
