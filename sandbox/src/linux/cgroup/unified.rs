//! Our place in the hierarchy of version 2.
//!
//! A group that hands controllers down may hold no process itself (but the root may). So the host
//! program, which usually is alone in its group, has to step into a leaf of it first; that is what
//! systemd and container engines expect from a program to which they delegate a group.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::MetadataExt, process::parent_id},
    },
    path::Path,
};

use super::{
    detect::Place,
    missing::Absence,
    stale,
    tree::{self, Hierarchy, Subtree, Version},
};
use crate::{
    diagnosis::Controller,
    linux::sys::{credentials, directory, file, process},
};

/// Our group, and what could not be had with it.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) hierarchy: Hierarchy,
    pub(super) absent: Vec<(Controller, Absence)>,
}

/// Finds the group to divide, divides it, and makes ours in it.
pub(super) fn settle(place: &Place, name: &CString) -> Result<Settled, Absence> {
    let (spot, own) = super::open(place, MAGIC)?;
    if spot.read_only {
        return Err(Absence::ReadOnly);
    }
    // Next to the root, if that can be seen: what the kernel has at all.
    let existing = tree::path(&[spot.mount.as_os_str().as_encoded_bytes()])
        .and_then(|mount| file::open(&mount, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC))
        .map(|mount| controllers(mount.as_fd(), c"cgroup.controllers"))
        .unwrap_or_default();
    let mut division = Ok(());
    let home = match decide(&facts(place, spot.below.as_path(), own.as_fd())) {
        Home::Here => own,
        Home::Above => parent(own.as_fd()).ok_or(Absence::OutOfSight)?,
        Home::AfterStepping(pids) => {
            step_aside(own.as_fd(), &pids)?;
            own
        }
        Home::Undivided(absence) => {
            division = Err(absence);
            own
        }
        Home::Nowhere(absence) => return Err(absence),
    };
    let offered = controllers(home.as_fd(), c"cgroup.controllers");
    let absent = WANTED.into_iter().filter_map(|(_, wanted)| {
        let absence = match (offered.contains(&wanted), existing.contains(&wanted)) {
            (true, _) => division.err()?,
            (false, true) => Absence::NotHandedDown,
            (false, false) => Absence::NotOffered,
        };
        Some((wanted, absence))
    });
    make(home, name, absent.collect())
}

fn make(
    home: OwnedFd,
    name: &CString,
    mut absent: Vec<(Controller, Absence)>,
) -> Result<Settled, Absence> {
    stale::sweep(home.as_fd());
    hand_down(home.as_fd(), &mut absent);
    let subtree = Subtree::make(home.as_fd(), name).map_err(Absence::of)?;
    hand_down(subtree.as_fd(), &mut absent);
    // What the kernel says now, not what was asked of it.
    let mut holds = controllers(subtree.as_fd(), c"cgroup.subtree_control");
    let counts_swap = directory::may_at(subtree.as_fd(), c"memory.swap.max", libc::F_OK).is_ok();
    if holds.contains(&Controller::Memory) && counts_swap {
        holds.push(Controller::Swap);
    }
    Ok(Settled {
        hierarchy: Hierarchy {
            version: Version::Unified,
            holds,
            accounts_cpu: true,
            home,
            subtree,
        },
        absent,
    })
}

/// Enables controllers for the groups in this one, each by itself, so that one refusal doesn't cost
/// the others. Those that are refused join the absent.
fn hand_down(group: BorrowedFd<'_>, absent: &mut Vec<(Controller, Absence)>) {
    let already = controllers(group, c"cgroup.subtree_control");
    for (name, controller) in WANTED {
        let is_absent = absent.iter().any(|(absent, _)| *absent == controller);
        if !is_absent && !already.contains(&controller) {
            let request = [b"+", name.as_bytes()].concat();
            if let Err(errno) = directory::write_at(group, c"cgroup.subtree_control", &request) {
                absent.push((controller, Absence::of(errno)));
            }
        }
    }
}

/// The controllers that a file names; none if there is no such file.
fn controllers(group: BorrowedFd<'_>, file: &std::ffi::CStr) -> Vec<Controller> {
    parse_controllers(&tree::read(group, &file.to_owned()).unwrap_or_default())
}

fn parse_controllers(names: &str) -> Vec<Controller> {
    let mut found = Vec::new();
    for word in names.split_ascii_whitespace() {
        found.extend(WANTED.into_iter().find(|(name, _)| *name == word).map(|(_, which)| which));
    }
    found
}

/// What decides where our group can be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    standing: Standing,
    /// We may make groups in it, divide it, and move processes into them.
    is_writable: bool,
    members: Vec<i32>,
    /// The host program and this process.
    ourselves: Vec<i32>,
}

/// What kind of group this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The leaf of a group that is ours: another start of this crate made it, or whoever delegates
    /// the group above.
    Leaf,
    /// systemd made it, and marks what it delegates, and this isn't marked. It takes controllers
    /// away from such a group whenever it likes.
    KeptBySystemd,
    /// The root of the whole hierarchy, for which the rule doesn't hold.
    Root,
    /// It hands down everything that it has, which may be nothing: then controllers are with
    /// version 1.
    Divided,
    Plain,
}

#[derive(Debug, PartialEq, Eq)]
enum Home {
    Here,
    Above,
    AfterStepping(Vec<i32>),
    /// Groups there have no controllers; they serve for killing and counting.
    Undivided(Absence),
    Nowhere(Absence),
}

fn decide(facts: &Facts) -> Home {
    match facts.standing {
        Standing::Leaf => Home::Above,
        Standing::KeptBySystemd => Home::Nowhere(Absence::NotDelegated),
        _ if !facts.is_writable => Home::Nowhere(Absence::NotDelegated),
        Standing::Root | Standing::Divided => Home::Here,
        Standing::Plain if facts.members.is_empty() => Home::Here,
        Standing::Plain => {
            if facts.members.iter().all(|member| facts.ourselves.contains(member)) {
                Home::AfterStepping(facts.members.clone())
            } else {
                Home::Undivided(Absence::Busy)
            }
        }
    }
}

fn facts(place: &Place, below: &Path, own: BorrowedFd<'_>) -> Facts {
    let may = |file, access| directory::may_at(own, file, access).is_ok();
    let mut ourselves = vec![process::own_pid()];
    ourselves.extend(host());
    Facts {
        standing: standing(place, below, own),
        is_writable: may(c".", libc::W_OK)
            && may(c"cgroup.procs", libc::W_OK)
            && may(c"cgroup.subtree_control", libc::W_OK),
        members: tree::members(own, &c"cgroup.procs".to_owned()).unwrap_or_default(),
        ourselves,
    }
}

fn standing(place: &Place, below: &Path, own: BorrowedFd<'_>) -> Standing {
    let name = place.path.rsplit('/').next().unwrap_or_default();
    let is_unit = [".scope", ".service", ".slice"].iter().any(|ending| name.ends_with(ending));
    // At the mount's own root `..` leads out of the hierarchy.
    let above = if below.as_os_str().is_empty() { None } else { parent(own) };
    if let Some(above) = above {
        let is_made_by_others = || !is_unit && !is_marked(own) && is_marked(above.as_fd());
        if name.as_bytes() == LEAF.to_bytes() || is_made_by_others() {
            return Standing::Leaf;
        }
    }
    let offered = controllers(own, c"cgroup.controllers");
    if offered.is_empty() {
        return Standing::Divided;
    }
    if is_unit && !is_marked(own) && marks_are_shown(below, own) {
        return Standing::KeptBySystemd;
    }
    if directory::may_at(own, c"cgroup.type", libc::F_OK).is_err() {
        return Standing::Root;
    }
    let divided = controllers(own, c"cgroup.subtree_control");
    if offered.iter().all(|controller| divided.contains(controller)) {
        return Standing::Divided;
    }
    Standing::Plain
}

fn parent(group: BorrowedFd<'_>) -> Option<OwnedFd> {
    directory::open_at(group, c"..", libc::O_RDONLY | libc::O_DIRECTORY).ok()
}

/// Whether systemd says that it leaves this group to its owner.
fn is_marked(group: BorrowedFd<'_>) -> bool {
    [c"user.delegate", c"trusted.delegate"].iter().any(|name| {
        let mut value = [0];
        directory::attribute(group, name, &mut value) == Ok(1) && value == *b"1"
    })
}

/// Whether a mark would be seen if there were one: as root, or if a group further up shows one.
fn marks_are_shown(below: &Path, own: BorrowedFd<'_>) -> bool {
    if credentials::effective_ids().0 == 0 && Path::new(SYSTEMD_RUNS).is_dir() {
        return true;
    }
    let mut group = parent(own);
    for _ in below.components() {
        let Some(current) = group else { return false };
        if is_marked(current.as_fd()) {
            return true;
        }
        group = parent(current.as_fd());
    }
    false
}

/// The host program, if it is our parent: the zygote runs the same executable.
fn host() -> Option<i32> {
    let file = |pid: &str| {
        let status = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((status.dev(), status.ino()))
    };
    let parent = parent_id();
    (file("self")? == file(&parent.to_string())?).then_some(parent.cast_signed())
}

/// Moves the host program and this process into a leaf, so that the group can be divided.
fn step_aside(group: BorrowedFd<'_>, pids: &[i32]) -> Result<(), Absence> {
    match directory::make_at(group, LEAF) {
        Err(errno) if errno.raw() != libc::EEXIST => return Err(Absence::of(errno)),
        _ => {}
    }
    let leaf =
        directory::open_at(group, LEAF, libc::O_RDONLY | libc::O_DIRECTORY).map_err(Absence::of)?;
    for pid in pids {
        directory::write_at(leaf.as_fd(), c"cgroup.procs", pid.to_string().as_bytes())
            .map_err(Absence::of)?;
    }
    Ok(())
}

/// Controllers by the kernel's name.
pub(super) const WANTED: [(&str, Controller); 4] = [
    ("cpu", Controller::Cpu),
    ("memory", Controller::Memory),
    ("pids", Controller::Pids),
    ("io", Controller::Io),
];
/// Where the host program and its zygotes are when their group is divided. It stays when they end:
/// the group around it is removed by who made it.
const LEAF: &std::ffi::CStr = c"neuroflow-host";
/// There as long as systemd runs the system.
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// `CGROUP2_SUPER_MAGIC`
const MAGIC: i64 = 0x6367_7270;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn delegated() -> Facts {
        Facts {
            standing: Standing::Plain,
            is_writable: true,
            members: vec![10, 11],
            ourselves: vec![11, 10],
        }
    }

    #[test]
    fn a_delegated_group_is_divided_after_stepping_aside() {
        assert_eq!(decide(&delegated()), Home::AfterStepping(vec![10, 11]));
        assert_eq!(
            decide(&Facts { members: vec![11], ..delegated() }),
            Home::AfterStepping(vec![11])
        );
    }

    #[test]
    fn nobody_else_is_moved() {
        let facts = Facts { members: vec![10, 11, 12], ..delegated() };
        assert_eq!(decide(&facts), Home::Undivided(Absence::Busy));
    }

    #[test]
    fn a_root_and_a_divided_group_are_used_as_they_are() {
        for standing in [Standing::Root, Standing::Divided] {
            let facts = Facts { standing, members: vec![1, 2, 3], ..delegated() };
            assert_eq!(decide(&facts), Home::Here);
        }
        assert_eq!(decide(&Facts { members: Vec::new(), ..delegated() }), Home::Here);
    }

    #[test]
    fn what_isnt_ours_is_left_alone() {
        for standing in [Standing::Root, Standing::Divided, Standing::Plain] {
            let facts = Facts { standing, is_writable: false, ..delegated() };
            assert_eq!(decide(&facts), Home::Nowhere(Absence::NotDelegated));
        }
        let facts = Facts { standing: Standing::KeptBySystemd, ..delegated() };
        assert_eq!(decide(&facts), Home::Nowhere(Absence::NotDelegated));
    }

    #[test]
    fn from_a_leaf_the_group_above_is_divided() {
        assert_eq!(decide(&Facts { standing: Standing::Leaf, ..delegated() }), Home::Above);
    }

    /// Also what [`a_host_is_a_parent_that_runs_the_same_program`] starts, to read what it prints.
    #[test]
    fn a_host_is_never_oneself() {
        println!("\nhost: {:?}", host());
        assert_ne!(host(), Some(process::own_pid()));
    }

    #[test]
    fn a_host_is_a_parent_that_runs_the_same_program() {
        #[expect(clippy::disallowed_methods, reason = "a child of the test's own")]
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "linux::cgroup::unified::tests::a_host_is_never_oneself"])
            .arg("--nocapture")
            .output()
            .unwrap();
        let told = String::from_utf8(child.stdout).unwrap();
        assert!(told.contains(&format!("host: Some({})\n", process::own_pid())), "{told}");
        // Whatever started the tests is another program.
        assert_eq!(host(), None);
    }

    #[test]
    fn unknown_controllers_are_passed_over() {
        assert_eq!(
            parse_controllers("cpuset cpu io memory hugetlb pids rdma misc\n"),
            [Controller::Cpu, Controller::Io, Controller::Memory, Controller::Pids]
        );
        assert_eq!(parse_controllers("hugetlb\n"), []);
        assert_eq!(parse_controllers(""), []);
    }
}
