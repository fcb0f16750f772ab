//! Where the plan's mounts go: places in the cell's root, found part by part and through no link.
//!
//! What is mounted already may be a directory that somebody else fills, or that another cell changes while
//! this one is made. A link in it, or one that takes a directory's place meanwhile, would lead the next
//! mount anywhere in the root, over programs and devices too. So every part is opened in the one before
//! it, and a mount is put onto what was opened, whatever its path leads to by then.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::sys::{
    Result, directory,
    file::{self, Mounted},
    mount,
};
use crate::errno::Errno;

/// A directory or a file to mount on.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    around: OwnedFd,
    name: &'a CStr,
    place: OwnedFd,
}

impl<'a> Target<'a> {
    /// Opens what is at `path`. What isn't there is made, with the directories around it. A link among
    /// these, or in the place of a directory, is `ELOOP`; a file's mount covers a link in its place.
    pub(crate) fn make(path: &'a CStr, is_directory: bool) -> Result<Self> {
        let mut around = file::open(c"/", PLACE | libc::O_DIRECTORY | libc::O_CLOEXEC)?;
        let mut rest = path.to_bytes_with_nul().strip_prefix(b"/").ok_or(INVALID)?;
        while let Some(end) = rest.iter().position(|byte| *byte == b'/') {
            let (part, after) = rest.split_at(end);
            around = directory_in(around.as_fd(), terminated(part, &mut [0; NAME])?)?;
            rest = after.get(1..).unwrap_or_default();
        }
        let name = CStr::from_bytes_with_nul(rest).map_err(|_empty| INVALID)?;
        let opened = if is_directory { directory_in } else { file_in };
        let place = opened(around.as_fd(), name)?;
        Ok(Self { around, name, place })
    }

    /// Puts a detached mount there.
    pub(crate) fn attach(&self, mount: BorrowedFd<'_>) -> Result<()> {
        mount::attach_to(mount, self.place.as_fd())
    }

    /// How what is there now is mounted.
    pub(crate) fn mounted(&self) -> Result<Mounted> {
        let now =
            directory::open_straight(self.around.as_fd(), self.name, PLACE | libc::O_NOFOLLOW)?;
        file::mounted(now.as_fd())
    }
}

fn directory_in(around: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let open = || directory::open_straight(around, name, PLACE | libc::O_DIRECTORY);
    match open() {
        Err(errno) if errno.raw() == libc::ENOENT => {
            or_there(directory::make_at(around, name))?;
            open()
        }
        Err(errno) if errno.raw() == libc::ELOOP => follow(around, name),
        opened => opened,
    }
}

fn file_in(around: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let open = || directory::open_straight(around, name, PLACE | libc::O_NOFOLLOW);
    match open() {
        Err(errno) if errno.raw() == libc::ENOENT => {
            or_there(directory::create_at(around, name))?;
            open()
        }
        opened => opened,
    }
}

/// Follows a link that the shared root itself has, such as `/bin`, to the directory that it names: only
/// the zygote writes there. What it names must be straight.
fn follow(around: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let root = file::open(c"/", PLACE | libc::O_CLOEXEC)?;
    if file::status(around)?.place.device != file::status(root.as_fd())?.place.device {
        return Err(Errno::from_raw(libc::ELOOP));
    }
    let mut room = [0; libc::PATH_MAX as usize];
    let leads_to = directory::link_at(around, name, &mut room)?;
    directory::open_straight(around, leads_to, PLACE | libc::O_DIRECTORY)
}

/// Somebody else may have made it meanwhile. Where nothing can be made, it's there or the mount has no
/// place.
fn or_there(made: Result<()>) -> Result<()> {
    match made {
        Err(errno) if ![libc::EEXIST, libc::EROFS].contains(&errno.raw()) => Err(errno),
        _ => Ok(()),
    }
}

/// `part` as a C string in `room`.
fn terminated<'a>(part: &[u8], room: &'a mut [u8; NAME]) -> Result<&'a CStr> {
    let too_long = Errno::from_raw(libc::ENAMETOOLONG);
    room.get_mut(..part.len()).ok_or(too_long)?.copy_from_slice(part);
    CStr::from_bytes_until_nul(room).map_err(|_no_room_for_the_end| too_long)
}

const PLACE: i32 = libc::O_PATH;
/// The kernel's longest name, and its end.
const NAME: usize = 256;
const INVALID: Errno = Errno::from_raw(libc::EINVAL);
