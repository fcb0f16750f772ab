//! Room on the disk that is kept for making room: what removes tasks has to be written too.

use std::fs;
use std::path::{Path, PathBuf};

use crate::limits::RESERVE_BYTES;

/// A file that only takes up room. It's given up where a full disk has none for what makes some, and made again
/// afterwards.
#[derive(Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// That of a journal's folder. It's made if there's room for it.
    pub(super) fn of(folder: &Path) -> Self {
        let reserve = Self(folder.join("reserve"));
        reserve.make();
        reserve
    }

    /// Makes it if it isn't there, and there's room for it.
    pub(super) fn make(&self) {
        let is_there = |file: fs::Metadata| file.len() == RESERVE_BYTES as u64;
        if fs::metadata(&self.0).is_ok_and(is_there) {
            return;
        }
        if fs::write(&self.0, vec![0; RESERVE_BYTES]).is_err() {
            self.give_up();
        }
    }

    /// Says whether there was one, whose room can be had now.
    pub(super) fn give_up(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_given_up_once_until_it_is_made_again() {
        let folder = std::env::temp_dir().join(format!("reserve-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let reserve = Reserve::of(&folder);
        assert_eq!([reserve.give_up(), reserve.give_up()], [true, false]);
        // What was left of one by a disk without room for the rest isn't one.
        fs::write(folder.join("reserve"), "short").unwrap();
        reserve.make();
        assert_eq!(fs::metadata(folder.join("reserve")).unwrap().len(), RESERVE_BYTES as u64);
        fs::remove_dir_all(folder).unwrap();
    }
}
