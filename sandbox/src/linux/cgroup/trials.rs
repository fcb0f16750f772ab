//! The real kernel, with whatever hierarchies this host has: the same claims for both versions.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    account::LimitHit,
    errno::Errno,
    eventually::eventually_blocking as eventually,
    linux::sys::{
        process::Ending,
        trial::{self, NOT_STARTED, Trial},
    },
    untried::{not_here, untried},
};

/// Groups of a process have one name, so one test at a time has them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Held {
    groups: Cgroups,
    turn: MutexGuard<'static, ()>,
}

impl Held {
    /// `None` on a host without control groups, which is said.
    fn take() -> Option<Self> {
        Self::take_turn(|| ())
    }

    /// As [`take`](Self::take), with something to do before this process has groups.
    fn take_turn(first: impl FnOnce()) -> Option<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        first();
        let groups = Cgroups::detect();
        if groups.mode() == Mode::None {
            let missing = groups.missing().to_vec();
            groups.end().unwrap();
            untried("control groups", format!("this host gives none: {missing:?}"));
            return None;
        }
        Some(Self { groups, turn })
    }

    /// Whether the host has all of these; said if not.
    fn has(&self, wanted: &[Controller]) -> bool {
        let missing: Vec<_> = self
            .groups
            .missing()
            .iter()
            .filter(|missing| wanted.contains(&missing.controller))
            .collect();
        if !missing.is_empty() {
            untried("limits", format!("this host lacks {missing:?}"));
        }
        missing.is_empty()
    }

    fn group(&mut self, limits: &Limits) -> Group {
        let group = self.groups.take().unwrap();
        group.apply(&self.groups.narrowed(limits)).unwrap();
        group
    }

    /// Ends everything and looks that nothing is left.
    fn end(self) {
        let Self { groups, turn } = self;
        let tree = Rc::clone(&groups.tree);
        groups.end().unwrap();
        for hierarchy in &tree.hierarchies {
            let left = tree::children(hierarchy.home.as_fd()).unwrap();
            assert!(!left.contains(&tree.name), "{:?} is left", tree.name);
        }
        drop(turn);
    }
}

fn start(group: &Group, script: &str) -> Trial {
    let entry = group.entry();
    Trial::start(entry.unified(), || entry.enter(), script).unwrap()
}

fn members(group: &Group, hierarchy: &tree::Hierarchy) -> Vec<i32> {
    let file = tree::path(&[group.name.as_bytes(), b"/cgroup.procs"]).unwrap();
    tree::members(hierarchy.subtree.as_fd(), &file).unwrap()
}

const PATIENCE: i32 = 30_000;

#[test]
fn the_first_process_is_inside_in_every_hierarchy() {
    let Some(mut held) = Held::take() else { return };
    let mut group = held.group(&Limits::default());
    let sleeper = start(&group, "exec sleep 1000");
    for hierarchy in &held.groups.tree.hierarchies {
        eventually("inside", || members(&group, hierarchy) == [sleeper.pid]);
    }
    group.entered();
    assert_eq!(group.entry().enter(), Err(Errno::from_raw(libc::EBADF)));
    assert!(group.entry().unified().is_none());
    group.kill().unwrap();
    assert_eq!(sleeper.wait(PATIENCE).unwrap(), Some(Ending::Signalled(libc::SIGKILL)));
    held.groups.retire(group);
    held.end();
}

#[test]
fn a_namespace_taken_after_entering_begins_at_the_cell() {
    let Some(mut held) = Held::take() else { return };
    let group = held.group(&Limits::default());
    let entry = group.entry();
    // Ends with 0 if every hierarchy that we use is seen as a root.
    let script = "grep -E '^0:|[:,](cpu|memory|pids|blkio)[:,]' /proc/self/cgroup | \
                  while IFS=: read -r number names path; do [ \"$path\" = / ] || exit 1; done";
    let enter = || entry.enter().and_then(|()| trial::own_cgroup_namespace());
    let shell = Trial::start(entry.unified(), enter, script).unwrap();
    match shell.wait(PATIENCE).unwrap() {
        Some(Ending::Exited(NOT_STARTED)) => {
            untried("a namespace of control groups", "this process hasn't the right to make one");
        }
        ended => assert_eq!(ended, Some(Ending::Exited(0))),
    }
    held.end();
}

#[test]
fn memory_is_limited() {
    let Some(mut held) = Held::take() else { return };
    if held.has(&[Controller::Memory]) {
        const MOST: u64 = 32 << 20;
        let limits = Limits { memory_max: Some(MOST), swap_max: Some(0), ..Limits::default() };
        let group = held.group(&limits);
        // The last line of a file without line ends is as long as the file.
        let script = "head -c 256M /dev/zero | tail > /dev/null; exit 137";
        let glutton = start(&group, script);
        let ended = glutton.wait(PATIENCE).unwrap();
        // Version 2 ends the group, version 1 the greediest process.
        let killed = [Ending::Exited(137), Ending::Signalled(libc::SIGKILL)];
        assert!(ended.is_some_and(|ended| killed.contains(&ended)), "{ended:?}");
        let usage = group.usage();
        assert!(usage.oom_kills.unwrap() >= 1, "{usage:?}");
        assert!(matches!(usage.limits_hit()[0], LimitHit::Memory { .. }), "{usage:?}");
        let peak = usage.memory_peak_bytes.unwrap_or(MOST);
        assert!(peak > MOST / 2 && peak <= MOST, "{usage:?}");
        if held.groups.mode() == Mode::Unified {
            assert_eq!(ended, Some(Ending::Signalled(libc::SIGKILL)));
        }
    }
    held.end();
}

#[test]
fn processes_are_limited() {
    let Some(mut held) = Held::take() else { return };
    if held.has(&[Controller::Pids]) {
        let group = held.group(&Limits { pids_max: Some(8), ..Limits::default() });
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done 2> /dev/null";
        let bomb = start(&group, script);
        let ended = bomb.wait(PATIENCE).unwrap();
        assert!(!matches!(ended, None | Some(Ending::Exited(0 | NOT_STARTED))), "{ended:?}");
        let usage = group.usage();
        assert!(usage.processes_refused.unwrap() >= 1, "{usage:?}");
        assert!(usage.processes_peak.is_none_or(|peak| peak <= 8), "{usage:?}");
        assert!(matches!(usage.limits_hit()[..], [LimitHit::Processes { .. }]), "{usage:?}");
    }
    held.end();
}

#[test]
fn processor_time_is_limited() {
    let Some(mut held) = Held::take() else { return };
    if held.has(&[Controller::Cpu]) {
        let limits = Limits { cpu_millis: Some(50), cpu_weight: Some(10), ..Limits::default() };
        let group = held.group(&limits);
        let spinner = start(&group, "while :; do :; done");
        // A slow machine spends what it may use on starting the shell first.
        eventually("throttled", || {
            let usage = group.usage();
            let has_run = usage.cpu_user.is_some_and(|time| !time.is_zero());
            has_run && usage.throttled_periods.is_some_and(|periods| periods >= 3)
        });
        // Who is throttled waits for a processor; a kernel that counts such waits tells of each group's.
        if held.groups.tree.unified().is_some() && Path::new("/proc/pressure/cpu").exists() {
            let stalled = || group.usage().cpu_stalled.is_some_and(|time| !time.is_zero());
            eventually("stalled", stalled);
            let usage = group.usage();
            assert!(usage.memory_stalled.is_some() && usage.io_stalled.is_some(), "{usage:?}");
        }
        let usage = group.usage();
        assert!(!usage.throttled.unwrap().is_zero(), "{usage:?}");
        assert!(!usage.cpu_user.unwrap().is_zero(), "{usage:?}");
        assert!(matches!(usage.limits_hit()[..], [LimitHit::Processor { .. }]), "{usage:?}");
        group.kill().unwrap();
        assert_eq!(spinner.wait(PATIENCE).unwrap(), Some(Ending::Signalled(libc::SIGKILL)));
    }
    held.end();
}

#[test]
fn without_limits_nothing_is_hit() {
    let Some(mut held) = Held::take() else { return };
    let group = held.group(&Limits::default());
    let worker = start(&group, "head -c 48M /dev/zero | tail > /dev/null; sleep 0 & wait");
    assert_eq!(worker.wait(PATIENCE).unwrap(), Some(Ending::Exited(0)));
    assert_eq!(group.usage().limits_hit(), []);
    held.end();
}

#[test]
fn every_limit_is_held_by_the_kernel() {
    let Some(mut held) = Held::take() else { return };
    let limits = Limits {
        cpu_millis: Some(5),
        cpu_weight: Some(1),
        memory_max: Some((64 << 20) + 17),
        memory_high: Some((48 << 20) + 17),
        swap_max: Some((1 << 20) + 17),
        pids_max: Some(1),
        io: Some(IoLimits {
            read_bytes: Some(1 << 20),
            write_bytes: Some(1 << 20),
            read_operations: Some(100),
            write_operations: Some(100),
        }),
    };
    let group = held.group(&limits);
    // The same again is as good, and so is another.
    group.apply(&held.groups.narrowed(&limits)).unwrap();
    let other = Limits { cpu_millis: Some(1500), cpu_weight: Some(10_000), ..limits };
    group.apply(&held.groups.narrowed(&other)).unwrap();
    for missing in held.groups.missing() {
        let refused = group.apply(&limits).unwrap_err();
        assert!(held.groups.missing().iter().any(|m| m.controller == refused.controller()));
        assert_eq!((refused.file(), refused.errno().raw()), (None, libc::ENODEV));
        untried("each limit", format!("this host lacks {missing:?}: {refused}"));
    }
    held.end();
}

#[test]
fn killing_leaves_nobody() {
    let Some(mut held) = Held::take() else { return };
    let group = held.group(&Limits::default());
    let script = "trap '' TERM INT HUP; for i in 1 2 3 4 5 6 7 8 9 10; do \
                  (trap '' TERM; sleep 1000) & done; wait";
    let crowd = start(&group, script);
    let first = &held.groups.tree.hierarchies[0];
    eventually("all started", || members(&group, first).len() >= 11);
    group.kill().unwrap();
    assert_eq!(crowd.wait(PATIENCE).unwrap(), Some(Ending::Signalled(libc::SIGKILL)));
    for hierarchy in &held.groups.tree.hierarchies {
        eventually("empty", || members(&group, hierarchy).is_empty());
    }
    held.groups.retire(group);
    eventually("removed", || held.groups.tidy());
    held.end();
}

#[test]
fn killing_one_by_one_leaves_nobody_either() {
    let Some(mut held) = Held::take() else { return };
    if held.has(&[Controller::Pids]) {
        let group = held.group(&Limits { pids_max: Some(64), ..Limits::default() });
        // Twenty that start something all the time.
        let script = "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); \
                      (while :; do sleep 0.01; done) & done; exec sleep 1000";
        let crowd = start(&group, script);
        let hierarchy = held.groups.tree.holder(Controller::Pids).unwrap();
        eventually("many", || members(&group, hierarchy).len() > 20);
        tree::kill_one_by_one(hierarchy.subtree.as_fd(), &group.name, KILL_ROUNDS).unwrap();
        let ended = crowd.wait(PATIENCE).unwrap();
        assert_eq!(ended, Some(Ending::Signalled(libc::SIGKILL)));
        assert!(members(&group, hierarchy).is_empty());
    }
    held.end();
}

#[test]
fn a_group_in_use_is_removed_when_it_is_empty() {
    let Some(mut held) = Held::take() else { return };
    let group = held.group(&Limits::default());
    let name = group.name.clone();
    let sleeper = start(&group, "exec sleep 1000");
    for hierarchy in &held.groups.tree.hierarchies {
        eventually("inside", || members(&group, hierarchy) == [sleeper.pid]);
    }
    // Not retired, only forgotten.
    drop(group);
    eventually("removed", || held.groups.tidy());
    assert_eq!(sleeper.wait(PATIENCE).unwrap(), Some(Ending::Signalled(libc::SIGKILL)));
    for hierarchy in &held.groups.tree.hierarchies {
        let left = tree::children(hierarchy.subtree.as_fd()).unwrap();
        assert!(!left.contains(&name), "{left:?}");
    }
    held.end();
}

#[test]
fn two_hundred_cells_leave_nothing() {
    let Some(mut held) = Held::take() else { return };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let limits = Limits { memory_max: Some(64 << 20), pids_max: Some(8), ..Limits::default() };
    let before = descriptors();
    for round in 0..200 {
        let group = held.group(&limits);
        if round % 20 == 0 {
            let shell = start(&group, "exit 3");
            assert_eq!(shell.wait(PATIENCE).unwrap(), Some(Ending::Exited(3)));
        }
        held.groups.retire(group);
        held.groups.tidy();
    }
    eventually("removed", || held.groups.tidy());
    for hierarchy in &held.groups.tree.hierarchies {
        assert_eq!(tree::children(hierarchy.subtree.as_fd()).unwrap().len(), 0);
    }
    // Other tests open files meanwhile, but not hundreds.
    assert!(descriptors() < before + 50);
    held.end();
}

#[test]
fn a_renewed_group_knows_nothing_of_the_cell_before() {
    let Some(mut held) = Held::take() else { return };
    let limits = Limits {
        cpu_millis: Some(200),
        memory_max: Some(256 << 20),
        pids_max: Some(16),
        ..Limits::default()
    };
    let mut group = held.group(&limits);
    if !group.is_renewable() {
        not_here("a renewed group", "with controllers in version 2 all are made anew");
        return held.end();
    }
    // More processes, memory and processor time than a shell that only ends.
    let greedy = "for i in 1 2 3 4 5 6 7; do sleep 0.4 & done; i=0; \
                  while [ $i -lt 200000 ]; do i=$((i + 1)); done; \
                  head -c 48M /dev/zero | tail > /dev/null; wait";
    for (script, is_greedy) in [(greedy, true), ("exit 3", false), ("exit 3", false)] {
        let shell = start(&group, script);
        assert_eq!(shell.wait(PATIENCE).unwrap(), Some(Ending::Exited(3 * i32::from(!is_greedy))));
        let usage = group.usage();
        let peak = usage.memory_peak_bytes.is_none_or(|peak| (peak > 40 << 20) == is_greedy);
        let processes = usage.processes_peak.is_none_or(|peak| (peak > 7) == is_greedy);
        let used = usage.cpu_user.unwrap() + usage.cpu_system.unwrap();
        assert!(peak && processes && (used > A_LITTLE || !is_greedy), "{script}: {usage:?}");
        eventually("deserted", || group.may_be_renewed());
        group = held.groups.renew(group).unwrap();
        let fresh = group.usage();
        let times = [fresh.cpu_user, fresh.cpu_system, fresh.throttled, fresh.cpu_stalled];
        assert!(times.into_iter().flatten().all(|time| time < A_LITTLE), "{fresh:?}");
        assert!(fresh.processes_peak.is_none_or(|peak| peak <= 2), "{fresh:?}");
        assert_eq!(fresh.limits_hit(), []);
        group.apply(&held.groups.narrowed(&limits)).unwrap();
    }
    // Its way in, and what says that it starves, are new too.
    let sleeper = start(&group, "exec sleep 1000");
    for hierarchy in &held.groups.tree.hierarchies {
        eventually("inside", || members(&group, hierarchy) == [sleeper.pid]);
    }
    assert!(!group.may_be_renewed(), "somebody is in it");
    let name = group.name.clone();
    assert!(held.groups.renew(group).is_none());
    assert_eq!(sleeper.wait(PATIENCE).unwrap(), Some(Ending::Signalled(libc::SIGKILL)));
    eventually("removed", || held.groups.tidy());
    for hierarchy in &held.groups.tree.hierarchies {
        assert!(!tree::children(hierarchy.subtree.as_fd()).unwrap().contains(&name));
    }
    held.end();
}

/// A process takes a moment to die, and that counts; it's less than what the greedy one takes.
const A_LITTLE: Duration = Duration::from_millis(20);

/// The process that [`leaver`] starts, and whoever called that kills. By itself it does nothing.
#[test]
fn leave_a_group_behind() {
    if std::env::var_os(LEAVER).is_none() {
        return;
    }
    let mut groups = Cgroups::detect();
    let group = groups.take().ok();
    let sleeper = group.as_ref().map_or(0, |group| start(group, "exec sleep 1000").pid);
    println!("\n{LEFT} {} {sleeper}", groups.tree.name.to_str().unwrap());
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

const LEFT: &str = "left behind:";
/// Tells a copy of the test program that it is the [`leaver`].
const LEAVER: &str = "NEUROFLOW_TEST_LEAVER";

/// Starts [`leave_a_group_behind`]: the process, its groups' name, and the sleeper in one.
fn leaver() -> (Child, CString, i32) {
    #[expect(clippy::disallowed_methods, reason = "the process to be killed is not a cell")]
    let mut leaver = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "linux::cgroup::trials::leave_a_group_behind"])
        .args(["--nocapture", "--test-threads=1"])
        .env(LEAVER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(leaver.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).find_map(|line| {
        let (name, pid) = line.strip_prefix(LEFT)?.trim().split_once(' ')?;
        Some((CString::new(name).ok()?, pid.parse::<i32>().ok()?))
    });
    let (name, sleeper) = told.unwrap();
    (leaver, name, sleeper)
}

#[test]
fn a_host_and_its_zygote_stay_together() {
    // Where a group has to be divided, the leaver takes this process along into a leaf.
    let Some(held) = Held::take_turn(|| {
        let (mut leaver, ..) = leaver();
        let groups = |pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let (ours, its) = (groups("self".to_owned()), groups(leaver.id().to_string()));
        leaver.kill().unwrap();
        leaver.wait().unwrap();
        assert_eq!(ours, its);
        eprintln!("together in {ours}");
    }) else {
        return;
    };
    held.end();
}

#[test]
fn what_a_killed_process_leaves_is_removed() {
    let Some(held) = Held::take() else { return };
    let (mut zygote, name, sleeper) = leaver();
    let is_there = || {
        held.groups
            .tree
            .hierarchies
            .iter()
            .any(|hierarchy| tree::children(hierarchy.home.as_fd()).unwrap().contains(&name))
    };
    let sweep = || {
        for hierarchy in &held.groups.tree.hierarchies {
            stale::sweep(hierarchy.home.as_fd());
        }
    };
    let sleeper = sys::event::pidfd(sleeper).unwrap();
    let has_ended = || sys::event::is_readable(sleeper.as_fd(), 0).unwrap();
    sweep();
    assert!(is_there() && !has_ended(), "the living are left alone");
    zygote.kill().unwrap();
    zygote.wait().unwrap();
    assert!(is_there() && !has_ended(), "killing a process doesn't remove its groups");
    sweep();
    assert!(!is_there(), "{name:?} is left");
    eventually("what was in it ends", has_ended);
    held.end();
}

#[test]
fn a_group_that_is_taken_for_a_dead_ones_before_it_is_marked_is_made_again() {
    let Some(held) = Held::take() else { return };
    // No zygote's, so that nobody else sweeps it.
    let name = CString::new(format!("swept-{}", std::process::id())).unwrap();
    for hierarchy in &held.groups.tree.hierarchies {
        let home = hierarchy.home.as_fd();
        let is_there = || tree::children(home).unwrap().contains(&name);
        let mut sweeps = 3;
        let ours = tree::Subtree::make_beside(home, &name, || {
            if sweeps > 0 {
                sweeps -= 1;
                stale::remove(home, &name);
                assert!(!is_there());
            }
        });
        assert!(ours.is_ok() && is_there() && sweeps == 0);
        stale::remove(home, &name);
        assert!(is_there(), "what is marked is left alone");
        drop(ours);
        stale::remove(home, &name);
        assert!(!is_there());
    }
    held.end();
}

#[test]
fn what_is_being_removed_is_not_marked() {
    let Some(held) = Held::take() else { return };
    let name = CString::new(format!("removed-{}", std::process::id())).unwrap();
    for hierarchy in &held.groups.tree.hierarchies {
        let home = hierarchy.home.as_fd();
        let mut seized = None;
        let mut looks = 0;
        let ours = tree::Subtree::make_beside(home, &name, || {
            looks += 1;
            // Somebody has seen that it has no mark, and takes his time until he removes it.
            match looks {
                1 => seized = stale::mark(home, &name).unwrap(),
                2 => {
                    directory::remove_at(home, &name).unwrap();
                    seized = None;
                }
                _ => {}
            }
        });
        assert!(ours.is_ok() && looks >= 3 && seized.is_none());
        drop(ours);
        stale::remove(home, &name);
    }
    held.end();
}

#[test]
fn without_hierarchies_everything_is_missing() {
    let mut groups = Cgroups::nothing(Absence::NotMounted);
    assert_eq!(groups.mode(), Mode::None);
    assert_eq!(groups.missing().len(), Controller::ALL.len());
    assert_eq!(groups.take().unwrap_err(), Errno::from_raw(libc::ENODEV));
    assert!(groups.tidy());
    groups.end().unwrap();
}
