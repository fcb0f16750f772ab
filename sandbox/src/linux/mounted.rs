//! Whether the cell's mounts are what was asked for, as the kernel tells it from inside.
//!
//! The table is read once, when the root is in place: for a cell that is made ahead, long before anybody
//! waits for it. What the plan adds is asked for mount by mount. What the host has mounted below a bind's
//! source comes along and is restricted together with it; where a plan has binds, the table is read a
//! second time for that, and to see that none of them lies over the shared root's devices.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    At, Failure, forbidden,
    sys::{
        Result,
        credentials::NOT_AS_SET,
        directory,
        file::{self, Mounted},
        mount::Forbid,
    },
    target::Target,
};
use crate::{
    errno::Errno,
    plan::{BindAccess, Entry, Ground, Plan},
    step::Step,
};

/// Looks at the shared root, the devices and `/proc`. `own` is the caller's directory below the
/// zygote's `/proc`, since the cell may have none.
pub(super) fn verify(own: BorrowedFd<'_>, ground: Ground) -> std::result::Result<(), Failure> {
    let mut seen = Seen::default();
    read(own, Step::VerifyRoot, |line| judge(line, ground, &mut seen))?;
    verify_seen(seen, ground)
}

fn verify_seen(seen: Seen, ground: Ground) -> std::result::Result<(), Failure> {
    if seen.proc == ground.no_proc || seen.devices != DEVICES.len() {
        let step =
            if seen.devices == DEVICES.len() { Step::MountProc } else { Step::VerifyDevices };
        return Err(NOT_AS_SET).at(step);
    }
    for (path, number) in DEVICES {
        if file::character_device(path).at(Step::VerifyDevices)? != Some(number) {
            return Err(NOT_AS_SET).at(Step::VerifyDevices);
        }
    }
    // A `/proc` of other process ids calls the first process something else.
    let is_own = ground.no_proc
        || file::link_target(c"/proc/self", &mut [0; 16]).at(Step::MountProc)? == b"1";
    if is_own { Ok(()) } else { Err(NOT_AS_SET).at(Step::MountProc) }
}

/// Whether a writable place has the flags and the bounds that it was mounted with.
pub(super) fn verify_tmpfs(target: &CStr, options: &CStr, no_execute: bool) -> Result<()> {
    let Mounted { kind, bytes, inodes, no_set_id, no_device, no_execute: holds, .. } =
        file::mounted_at(target)?;
    let bounded = [("size", bytes), ("nr_inodes", inodes)].into_iter().all(|(name, set)| {
        // The kernel rounds up to whole pages.
        option(options, name).is_none_or(|asked| set >= asked && set - asked < PAGE)
    });
    let as_set = kind == libc::TMPFS_MAGIC && no_set_id && no_device && holds == no_execute;
    if as_set && bounded { Ok(()) } else { Err(NOT_AS_SET) }
}

/// Whether a bind has the flags that it was prepared with.
pub(super) fn verify_bind(target: &Target<'_>, forbid: Forbid) -> Result<()> {
    if is_bound(&target.mounted()?, forbid) { Ok(()) } else { Err(NOT_AS_SET) }
}

fn is_bound(mounted: &Mounted, forbid: Forbid) -> bool {
    let Mounted { is_read_only, no_set_id, no_device, no_execute, .. } = *mounted;
    // The file system itself may be read-only, or run nothing.
    let as_set = (!forbid.write || is_read_only) && (!forbid.execute || no_execute);
    as_set && no_set_id && (!forbid.device || no_device)
}

/// Whether each bind, and everything that is mounted below it, has the bind's flags, and the shared root
/// is still what [`verify`] has found. `own` as there.
pub(super) fn verify_furnished(
    own: BorrowedFd<'_>,
    plan: &Plan<'_>,
) -> std::result::Result<(), Failure> {
    let (ground, mut seen) = (plan.ground(), Seen::default());
    read(own, Step::AttachBind, |line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(place), Some(flags)) = (fields.nth(4), fields.next()) else {
            return Err(Step::AttachBind);
        };
        let mut room = [0; libc::PATH_MAX as usize];
        let path = unescaped(place, &mut room).ok_or(Step::AttachBind)?;
        let forbid = match place_around(path.to_bytes(), plan) {
            Around::Shared => return judge(line, ground, &mut seen),
            Around::Own => return Ok(()),
            Around::Bind(access) => forbidden(access.writable, plan.no_execute),
        };
        let has = |flag: &str| is_among(flags, flag);
        let as_set = (!forbid.write || has("ro")) && (!forbid.execute || has("noexec"));
        if as_set && has("nosuid") && (!forbid.device || has("nodev")) {
            return Ok(());
        }
        // Another bind may lie over it: what counts is what is reached at that path, if anything is.
        let reached = directory::open_straight_path(path, libc::O_PATH);
        match reached.and_then(|reached| file::mounted(reached.as_fd())) {
            Ok(mounted) if is_bound(&mounted, forbid) => Ok(()),
            Err(errno) if UNREACHED.contains(&errno.raw()) => Ok(()),
            _ => Err(Step::AttachBind),
        }
    })?;
    verify_seen(seen, ground)
}

/// What a path is at or below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    /// Nothing of the plan.
    Shared,
    /// A writable place of the cell's own, or its overlay.
    Own,
    Bind(BindAccess),
}

/// The innermost of the plan's places.
fn place_around(path: &[u8], plan: &Plan<'_>) -> Around {
    let (mut longest, mut found) = (0, Around::Shared);
    for entry in plan.entries() {
        let (target, kind) = match entry {
            Entry::Bind { target, access, .. } => (target, Around::Bind(access)),
            Entry::Tmpfs { target, .. } | Entry::Overlay { target, .. } => (target, Around::Own),
            _ => continue,
        };
        let target = target.to_bytes();
        let rest = path.strip_prefix(target);
        let is_inside = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if is_inside && longest < target.len() {
            (longest, found) = (target.len(), kind);
        }
    }
    found
}

/// A path as the table writes it: white space and backslashes are three octal digits after a backslash.
fn unescaped<'a>(place: &[u8], room: &'a mut [u8]) -> Option<&'a CStr> {
    let (mut rest, mut length) = (place, 0);
    while let Some((first, after)) = rest.split_first() {
        let mut byte = *first;
        rest = after;
        if byte == b'\\' {
            let (digits, after) = after.split_at_checked(3)?;
            byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
            rest = after;
        }
        *room.get_mut(length)? = byte;
        length += 1;
    }
    *room.get_mut(length)? = 0;
    CStr::from_bytes_with_nul(room.get(..=length)?).ok()
}

/// The number of an option, as in `size=4096,nr_inodes=7`.
fn option(options: &CStr, name: &str) -> Option<u64> {
    let mut all = options.to_bytes().split(|byte| *byte == b',');
    let digits = all.find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What of a mount table was found to be in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    devices: usize,
    proc: bool,
}

/// Reads the caller's table.
fn read(
    own: BorrowedFd<'_>,
    step: Step,
    judge: impl FnMut(&[u8]) -> std::result::Result<(), Step>,
) -> std::result::Result<(), Failure> {
    let table = directory::open_at(own, c"mountinfo", libc::O_RDONLY).at(step)?;
    read_lines(table.as_fd(), step, judge)
}

/// Reads and judges a table, line by line, in the room of one line.
fn read_lines(
    table: BorrowedFd<'_>,
    step: Step,
    mut judge: impl FnMut(&[u8]) -> std::result::Result<(), Step>,
) -> std::result::Result<(), Failure> {
    let (mut room, mut filled) = ([0; LONGEST_LINE], 0);
    loop {
        let into = room.get_mut(filled..).unwrap_or_default();
        let count = file::read(table, into).at(step)?;
        if count == 0 {
            // Each line ends with a line feed.
            let whole = if filled == 0 { Ok(()) } else { Err(Errno::from_raw(libc::EOVERFLOW)) };
            return whole.at(step);
        }
        filled = filled.saturating_add(count);
        let mut rest = room.get(..filled).unwrap_or_default();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            judge(line).map_err(|step| Failure { step, errno: NOT_AS_SET, detail: 0 })?;
            rest = after.get(1..).unwrap_or_default();
        }
        let left = rest.len();
        room.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

/// Everything is read-only and without devices and set-user-id programs, but for five devices, which run
/// nothing, and `/proc`, which hides what the profile says. Otherwise, the step that failed.
fn judge(line: &[u8], ground: Ground, seen: &mut Seen) -> std::result::Result<(), Step> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (Some(place), Some(flags)) = (fields.nth(4), fields.next()) else {
        return Err(Step::VerifyRoot);
    };
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, details) = (after.next(), after.nth(1).unwrap_or_default());
    let has = |flag: &str| is_among(flags, flag);
    if DEVICES.iter().any(|(device, _)| device.to_bytes() == place) {
        seen.devices = seen.devices.saturating_add(1);
        return if has("nosuid") && has("noexec") { Ok(()) } else { Err(Step::VerifyDevices) };
    }
    if place == b"/proc" {
        seen.proc = true;
        let hides = is_among(details, "hidepid=ptraceable")
            && is_among(details, "subset=pid") == ground.bare_proc;
        let is_inert = has("nosuid") && has("nodev") && has("noexec");
        let as_set = kind == Some(b"proc") && hides && is_inert;
        return if as_set { Ok(()) } else { Err(Step::MountProc) };
    }
    if place.starts_with(b"/dev/") && place != b"/dev/shm" {
        return Err(Step::VerifyDevices);
    }
    if has("ro") && has("nosuid") && has("nodev") { Ok(()) } else { Err(Step::VerifyRoot) }
}

fn is_among(list: &[u8], wanted: &str) -> bool {
    list.split(|byte| *byte == b',').any(|each| each == wanted.as_bytes())
}

/// The devices of a cell, by their numbers.
const DEVICES: [(&CStr, (u32, u32)); 5] = [
    (c"/dev/null", (1, 3)),
    (c"/dev/zero", (1, 5)),
    (c"/dev/full", (1, 7)),
    (c"/dev/random", (1, 8)),
    (c"/dev/urandom", (1, 9)),
];

/// A mount's own path has something else in the place of one of its parts.
const UNREACHED: [i32; 3] = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP];
/// Two paths of the kernel's longest, and the rest.
const LONGEST_LINE: usize = 3 * libc::PATH_MAX as usize;
/// The largest page that the kernel rounds sizes up to, and more than it rounds inodes up.
const PAGE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{level::Level, plan::Means, profile::Profile};

    const GROUND: Ground =
        Ground { loopback: false, egress: false, no_proc: false, bare_proc: true, landlock: 0 };
    const ROOT: &str = "70 60 0:40 / / ro,nosuid,nodev,noexec - tmpfs cell rw,size=4k";
    const USR: &str = "71 70 8:1 /usr /usr ro,nosuid,nodev shared:1 - ext4 /dev/sda1 rw";
    const NULL: &str = "72 70 0:5 /null /dev/null rw,nosuid,noexec - devtmpfs udev rw,mode=755";
    const PROC: &str =
        "73 70 0:50 / /proc rw,nosuid,nodev,noexec - proc proc rw,hidepid=ptraceable,subset=pid";

    fn judged(line: &str) -> std::result::Result<Seen, Step> {
        let mut seen = Seen::default();
        judge(line.as_bytes(), GROUND, &mut seen).map(|()| seen)
    }

    #[test]
    fn a_table_in_order_is_found_so() {
        assert_eq!(judged(ROOT), Ok(Seen::default()));
        assert_eq!(judged(USR), Ok(Seen::default()));
        assert_eq!(judged(NULL), Ok(Seen { devices: 1, proc: false }));
        assert_eq!(judged(PROC), Ok(Seen { devices: 0, proc: true }));
    }

    #[test]
    fn each_missing_flag_is_its_layers_fault() {
        for (line, flags, step) in [
            (ROOT, &["ro", "nosuid", "nodev"][..], Step::VerifyRoot),
            (USR, &["ro", "nosuid", "nodev"], Step::VerifyRoot),
            (NULL, &["nosuid", "noexec"], Step::VerifyDevices),
            (
                PROC,
                &["nosuid", "nodev", "noexec", "hidepid=ptraceable", "subset=pid"],
                Step::MountProc,
            ),
        ] {
            for flag in flags {
                let without = line.replacen(flag, "relatime", 1);
                assert_eq!(judged(&without), Err(step), "{without}");
            }
        }
        assert_eq!(judged(&PROC.replace("- proc", "- tmpfs")), Err(Step::MountProc));
        assert_eq!(judged(&NULL.replace("/dev/null", "/dev/kmsg")), Err(Step::VerifyDevices));
        assert_eq!(judged("garbage"), Err(Step::VerifyRoot));
        assert_eq!(judged(""), Err(Step::VerifyRoot));
        // A level that shows facts about the machine has a whole `/proc`.
        let mut seen = Seen::default();
        let whole = Ground { bare_proc: false, ..GROUND };
        assert_eq!(judge(PROC.as_bytes(), whole, &mut seen), Err(Step::MountProc));
    }

    #[test]
    fn a_table_is_read_across_reads_and_to_its_end() {
        let table = |text: &str| {
            let file = file::sealed_text(text.as_bytes()).unwrap();
            let mut seen = Seen::default();
            let judge = |line: &[u8]| judge(line, GROUND, &mut seen);
            read_lines(file.as_fd(), Step::VerifyRoot, judge).map(|()| seen)
        };
        let many = format!("{ROOT}\n{}{PROC}\n", format!("{USR}\n").repeat(400));
        assert_eq!(table(&many), Ok(Seen { devices: 0, proc: true }));
        assert!(table(&format!("{ROOT}\n{PROC}")).is_err());
        assert!(table(&"x".repeat(2 * LONGEST_LINE)).is_err());
    }

    #[test]
    fn the_hosts_own_mounts_are_not_a_cells() {
        let own = file::open(c"/proc/self", libc::O_PATH | libc::O_CLOEXEC).unwrap();
        assert_eq!(verify(own.as_fd(), GROUND).unwrap_err().errno, NOT_AS_SET);
        assert_eq!(verify_tmpfs(c"/proc", c"size=4096", false), Err(NOT_AS_SET));
        let target = Target::make(c"/dev", true).unwrap();
        for (writable, no_execute) in [(false, false), (true, false), (true, true)] {
            assert_eq!(verify_bind(&target, forbidden(writable, no_execute)), Err(NOT_AS_SET));
        }
    }

    #[test]
    fn a_bind_has_what_its_plan_forbids() {
        let whole = Mounted {
            is_read_only: true,
            no_set_id: true,
            no_device: true,
            no_execute: true,
            ..Mounted::default()
        };
        let read_only = Mounted { no_execute: false, ..whole };
        let writable = Mounted { is_read_only: false, ..whole };
        let executable = Mounted { no_execute: false, ..writable };
        for (mounted, is_bound_as) in [
            (whole, [true, true, true]),
            (read_only, [true, true, false]),
            (writable, [false, true, true]),
            (executable, [false, true, false]),
            (Mounted { no_set_id: false, ..whole }, [false; 3]),
            (Mounted { no_device: false, ..whole }, [false; 3]),
        ] {
            let of = |(writable, no_execute)| is_bound(&mounted, forbidden(writable, no_execute));
            let found = [(false, true), (true, false), (true, true)].map(of);
            assert_eq!(found, is_bound_as, "{mounted:?}");
        }
    }

    #[test]
    fn paths_are_read_as_the_table_writes_them() {
        let read = |text: &str| {
            let mut room = [0; 16];
            unescaped(text.as_bytes(), &mut room).map(|path| path.to_bytes().to_vec())
        };
        assert_eq!(read(r"/a\040b\134\011c"), Some(b"/a b\\\tc".to_vec()));
        assert_eq!(read("/fifteen-bytes-"), Some(b"/fifteen-bytes-".to_vec()));
        for broken in [r"/a\04", r"/a\9", r"/a\777", r"/a\000b", "/sixteen-bytes--"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_innermost_place_decides_what_a_mount_has_to_be() {
        let profile = Profile::builder(Level::Standard)
            .bind_rw("/srv/a", "/work")
            .bind_ro("/srv/b", "/work/in")
            .bind_ro("/srv/c", "/opt/c")
            .build()
            .unwrap();
        let plan = crate::plan::plan(&profile, &Means::default()).unwrap();
        let plan = Plan::parse(&plan).unwrap();
        let bound = |writable| Around::Bind(BindAccess { writable });
        for (path, place) in [
            ("/work", bound(true)),
            ("/work/x", bound(true)),
            ("/work/in/x/y", bound(false)),
            ("/work/inner", bound(true)),
            ("/opt/c/x", bound(false)),
            ("/opt/c", bound(false)),
            ("/opt/cx", Around::Shared),
            ("/tmp", Around::Own),
            ("/tmp/x", Around::Own),
            ("/usr/lib", Around::Shared),
        ] {
            assert_eq!(place_around(path.as_bytes(), &plan), place, "{path}");
        }
    }

    #[test]
    fn options_are_found_by_their_whole_name() {
        let options = c"mode=755,size=65536,nr_inodes=12";
        assert_eq!(
            (option(options, "size"), option(options, "nr_inodes")),
            (Some(65536), Some(12))
        );
        assert_eq!((option(options, "inodes"), option(options, "mod")), (None, None));
        assert_eq!(option(c"", "size"), None);
    }
}
