//! The root that all cells share: built once, read-only, cloned as a whole by each cell.
//!
//! Twenty mounts and thirty files cost a cell more than everything else together if it makes them
//! itself. So the zygote makes them once, and keeps a stock of detached copies; a cell puts one into
//! its place with one call. What a profile adds outside of the writable directories needs mount points
//! in that root; each such set is a root of its own, and a few are kept.
//!
//! Every process starts with a copy of its parent's mount table, so roots aren't in the one that the
//! zygote lives in. They are built in a second, and copied for cells from a third: the second's copy
//! in a user namespace below the zygote's. Going down is what makes the kernel lock mounts: nobody in
//! a cell could take one off what it covers or make it writable, even with all of the cell's
//! capabilities. A copy that the zygote made of its own mounts would not be locked.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use super::{
    At, Failure,
    landlock::GUARD,
    sys::{
        Result, file,
        mount::{self, Forbid},
        process::{self, NEW_NS},
    },
};
use crate::{errno::Errno, limits, plan::WORKDIR, step::Step};

/// What of the host's tree a cell may see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// Where one of the top directories is only a link.
    links: Vec<(PathBuf, OsString)>,
    /// What is shown under its own path, and whether it is a directory.
    shown: Vec<(PathBuf, bool)>,
}

impl Layout {
    /// Looks at the host.
    pub(crate) fn of_host() -> Self {
        let mut layout = Self::default();
        for path in TOP {
            let Ok(kind) = fs::symlink_metadata(path) else { continue };
            if kind.is_dir() {
                layout.shown.push((path.into(), true));
            } else if let Ok(target) = fs::read_link(path) {
                layout.links.push((path.into(), target.into_os_string()));
            }
        }
        for path in ETC {
            if let Ok(kind) = fs::metadata(path) {
                layout.shown.push((path.into(), kind.is_dir()));
            }
        }
        layout
    }
}

/// A mount point outside of the writable directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) inside: PathBuf,
    pub(crate) is_directory: bool,
}

/// See [`Templates`].
pub(crate) type Lock = fn() -> Result<OwnedFd>;

/// The roots that this zygote has built.
#[derive(Debug)]
pub(crate) struct Templates {
    layout: Layout,
    /// The mount table that the zygote lives in, with nothing but an empty root and `/proc`.
    home: OwnedFd,
    /// The one that roots are built in.
    workshop: OwnedFd,
    /// Makes a copy of the caller's table that belongs to less privileged users, which locks its
    /// mounts.
    lock: Lock,
    /// Such a copy of the workshop, which cells' roots are copied from.
    shelf: OwnedFd,
    /// Copies of the plain root for the next cells.
    stock: Vec<OwnedFd>,
    /// In the order of their last use, the latest last. The plain one is never given up.
    built: Vec<(Vec<Point>, CString)>,
    plain: CString,
    next: u32,
}

impl Templates {
    /// A directory of the zygote's root that no cell's root has, where cells mount theirs.
    pub(crate) const MARK: &CStr = c"/cell-root";

    /// Leaves the host's mounts for a table that holds `/proc` and little else, and builds the
    /// plain root in another.
    pub(crate) fn build(layout: Layout, lock: Lock) -> std::result::Result<Self, Failure> {
        let sources = layout.shown.iter().map(|(path, _)| path.as_path());
        let sources: Vec<OwnedFd> = sources
            .map(|path| take(path, Forbid { write: true, device: true, execute: false }))
            .collect::<Result<_>>()
            .at(Step::OpenSource)?;
        let devices: Vec<OwnedFd> = DEVICES
            .iter()
            .map(|path| {
                take(Path::new(path), Forbid { write: false, device: false, execute: true })
            })
            .collect::<Result<_>>()
            .at(Step::OpenSource)?;
        let proc = mount::copy(c"/proc").at(Step::MountProc)?;

        mount::make_private().at(Step::MountRoot)?;
        // Any directory will do to mount the new root on, and this one exists everywhere.
        mount::tmpfs(c"/proc", &options(limits::ROOT_BYTES), true).at(Step::MountRoot)?;
        file::enter(c"/proc").at(Step::MountRoot)?;
        mount::pivot_here().at(Step::PivotRoot)?;
        mount::detach_here().at(Step::DetachHost)?;
        file::enter(c"/").at(Step::PivotRoot)?;
        file::make_directory(c"/proc").at(Step::MakeDirectory)?;
        mount::attach(proc.as_fd(), c"/proc").at(Step::MountProc)?;
        file::make_directory(Self::MARK).at(Step::MakeDirectory)?;

        let home = own_table()?;
        process::unshare(NEW_NS).at(Step::MountRoot)?;
        let workshop = own_table()?;
        let (plain, next) = (root_path(0).at(Step::MakeDirectory)?, 1);
        make(&layout, &plain, &[], &sources, &devices)?;
        let shelf = lock().at(Step::Clone)?;
        process::enter_namespace(home.as_fd(), NEW_NS).at(Step::MountRoot)?;
        let (built, stock) = (Vec::new(), Vec::new());
        Ok(Self { layout, home, workshop, lock, shelf, stock, built, plain, next })
    }

    /// A copy of the root with these mount points, for one cell.
    pub(crate) fn with(&mut self, points: &[Point]) -> std::result::Result<OwnedFd, Failure> {
        if points.is_empty() {
            return match self.stock.pop() {
                Some(root) => Ok(root),
                None => self.copy(&self.plain),
            };
        }
        if let Some(at) = self.built.iter().position(|(known, _)| known == points) {
            let entry = self.built.remove(at);
            let copied = self.copy(&entry.1);
            self.built.push(entry);
            return copied;
        }
        process::enter_namespace(self.workshop.as_fd(), NEW_NS).at(Step::MountRoot)?;
        let built = self.build_with(points);
        process::enter_namespace(self.home.as_fd(), NEW_NS).at(Step::MountRoot)?;
        let path = built?;
        let copied = self.copy(&path);
        self.built.push((points.to_vec(), path));
        copied
    }

    /// Copies the plain root once more if there are few copies. Whether it did.
    pub(crate) fn stock(&mut self) -> bool {
        if self.stock.len() >= limits::STOCKED_ROOTS {
            return false;
        }
        // A stock only saves time: who needs a root hears why there is none.
        self.copy(&self.plain).is_ok_and(|root| {
            self.stock.push(root);
            true
        })
    }

    fn copy(&self, path: &CStr) -> std::result::Result<OwnedFd, Failure> {
        process::enter_namespace(self.shelf.as_fd(), NEW_NS).at(Step::MountRoot)?;
        let copied = mount::copy(path).at(Step::MountRoot);
        process::enter_namespace(self.home.as_fd(), NEW_NS).at(Step::MountRoot)?;
        copied
    }

    /// Builds a root in the workshop, where the caller is, and puts it on the shelf.
    fn build_with(&mut self, points: &[Point]) -> std::result::Result<CString, Failure> {
        if self.built.len() >= limits::MAX_TEMPLATES {
            let (_, oldest) = self.built.remove(0);
            mount::detach(&oldest).at(Step::MountRoot)?;
        }
        let plain = as_path(&self.plain).to_owned();
        let again = |path: &Path| {
            let below = path.strip_prefix("/").unwrap_or(path);
            mount::copy(&c_path(&plain.join(below))?)
        };
        let sources = self.layout.shown.iter().map(|(path, _)| again(path));
        let sources: Vec<OwnedFd> = sources.collect::<Result<_>>().at(Step::OpenSource)?;
        let devices = DEVICES.iter().map(|path| again(Path::new(path)));
        let devices: Vec<OwnedFd> = devices.collect::<Result<_>>().at(Step::OpenSource)?;
        let path = root_path(self.next).at(Step::MakeDirectory)?;
        self.next = self.next.wrapping_add(1);
        make(&self.layout, &path, points, &sources, &devices)?;
        self.shelf = (self.lock)().at(Step::Clone)?;
        Ok(path)
    }
}

/// Builds a root at `path`.
fn make(
    layout: &Layout,
    path: &CStr,
    points: &[Point],
    sources: &[OwnedFd],
    devices: &[OwnedFd],
) -> std::result::Result<(), Failure> {
    file::make_directory(path).at(Step::MakeDirectory)?;
    mount::tmpfs(path, &options(limits::ROOT_BYTES), true).at(Step::MountRoot)?;
    let root = Root { top: as_path(path).to_owned() };
    for directory in ["/etc", "/dev", "/dev/shm", "/proc", "/tmp", WORKDIR, "/run", "/var"] {
        root.directory(Path::new(directory)).at(Step::MakeDirectory)?;
    }
    for (link, target) in LINKS {
        root.link(Path::new(link), target.as_ref()).at(Step::MakeSymlink)?;
    }
    for (link, target) in &layout.links {
        root.link(link, target).at(Step::MakeSymlink)?;
    }
    for (path, contents) in FILES {
        root.file(Path::new(path), contents.as_bytes()).at(Step::WriteFile)?;
    }
    let guard = OsStr::from_bytes(GUARD.to_bytes());
    root.file(Path::new(guard), b"no rule allows to read this\n").at(Step::WriteFile)?;
    for ((path, is_directory), source) in layout.shown.iter().zip(sources) {
        root.point(path, *is_directory).at(Step::MakeDirectory)?;
        root.attach(source, path).at(Step::AttachBind)?;
    }
    for (path, source) in DEVICES.iter().zip(devices) {
        root.point(Path::new(path), false).at(Step::MakeDirectory)?;
        root.attach(source, Path::new(path)).at(Step::AttachBind)?;
    }
    for point in points {
        match root.point(&point.inside, point.is_directory) {
            // The place is inside a directory of the host's, which has it or has not.
            Err(errno) if errno.raw() == libc::EROFS => {}
            other => other.at(Step::MakeDirectory)?,
        }
    }
    mount::seal(path).at(Step::SealRoot)
}

/// A root on its way.
struct Root {
    top: PathBuf,
}

impl Root {
    fn at(&self, path: &Path) -> Result<CString> {
        c_path(&self.top.join(path.strip_prefix("/").unwrap_or(path)))
    }

    fn directory(&self, path: &Path) -> Result<()> {
        file::make_directory(&self.at(path)?)
    }

    fn file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        file::create(&self.at(path)?, contents)
    }

    fn link(&self, path: &Path, target: &OsStr) -> Result<()> {
        let target = CString::new(target.as_bytes()).map_err(|_nul| invalid())?;
        file::symlink(&target, &self.at(path)?)
    }

    /// Makes something to mount on, and the directories around it.
    fn point(&self, path: &Path, is_directory: bool) -> Result<()> {
        let around: Vec<&Path> = path.ancestors().skip(1).collect();
        for directory in around.iter().rev().filter(|path| path.parent().is_some()) {
            self.directory(directory)?;
        }
        if is_directory {
            return self.directory(path);
        }
        match self.file(path, b"") {
            Err(errno) if errno.raw() != libc::EEXIST => Err(errno),
            _ => Ok(()),
        }
    }

    fn attach(&self, source: &OwnedFd, path: &Path) -> Result<()> {
        mount::attach(source.as_fd(), &self.at(path)?)
    }
}

fn take(path: &Path, forbid: Forbid) -> Result<OwnedFd> {
    let copy = mount::copy(&c_path(path)?)?;
    mount::restrict(copy.as_fd(), forbid)?;
    Ok(copy)
}

fn options(bytes: u64) -> CString {
    let text = format!("mode=755,size={bytes},nr_inodes={}", limits::ROOT_INODES);
    CString::new(text).unwrap_or_default()
}

fn own_table() -> std::result::Result<OwnedFd, Failure> {
    file::open(c"/proc/self/ns/mnt", libc::O_RDONLY | libc::O_CLOEXEC).at(Step::MountRoot)
}

fn root_path(number: u32) -> Result<CString> {
    c_path(&PathBuf::from(format!("/root-{number}")))
}

fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| invalid())
}

fn invalid() -> Errno {
    Errno::from_raw(libc::EINVAL)
}

/// Programs and libraries.
const TOP: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs and libraries look for in `/etc`, without anything that is this host's own
/// business.
const ETC: [&str; 7] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
];

const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

const LINKS: [(&str, &str); 5] = [
    ("/var/tmp", "../tmp"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

const FILES: [(&str, &str); 5] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\ncell:x:1000:1000:cell:/work:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\ncell:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost cell\n::1 localhost cell\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
    ("/etc/hostname", "cell\n"),
];
