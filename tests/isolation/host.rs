//! Hosts that are large, die, or lose their zygote. Each plays in a process of its own.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use neuroflow_sandbox::{
    End, LaunchError, Launcher, Level, Output, Profile, Program, Warm,
    limits::{self, STOCKED_SEEDLINGS},
};

use crate::{
    lifecycle::{kill, signal},
    support::{
        children_of, eventually, is_root, launch, marker, minimal, other_host, output_of,
        passes_elsewhere, pause, plays, processes_with, sh, standard,
    },
    untried::untried,
};

const MANY_CELLS: &str = "host::role_many_cells";

#[test]
fn five_hundred_cells_leave_nothing_behind() {
    passes_elsewhere(&["env"], MANY_CELLS);
}

#[tokio::test]
async fn role_many_cells() {
    if !plays(MANY_CELLS) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let (zygote, _) = children_of(std::process::id())[0];
    let profile = standard().build().expect("a profile");
    let count = |path: String| std::fs::read_dir(path).expect("a directory").count();
    let mounts =
        || std::fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count();
    let run = async |number: u32| {
        let program = if number.is_multiple_of(7) {
            Program::new("no-such-program")
        } else {
            sh("sleep 100 & echo x")
        };
        match launcher.launch(&profile, &program).await {
            Ok(cell) if number.is_multiple_of(5) => drop(cell),
            Ok(cell) => assert_eq!(cell.finish().await.end, End::Exited(0)),
            Err(LaunchError::Program { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    };
    run(1).await;
    let before = (count("/proc/self/fd".into()), mounts());
    for number in 0..500 {
        run(number).await;
    }
    // What waits for the next launch has run nothing.
    let children = || children_of(zygote.unsigned_abs()).len();
    eventually("the last end", || children() <= STOCKED_SEEDLINGS).await;
    assert_eq!((count("/proc/self/fd".into()), mounts()), before);
    // The zygote is a child of ours, so that its table can be looked at by root only.
    if let Ok(table) = std::fs::read_dir(format!("/proc/{zygote}/fd")) {
        let open = table.count();
        // Its own, and what it has ready for the next cells: network namespaces and groups.
        let hierarchies = std::fs::read_to_string("/proc/self/cgroup").expect("groups");
        let ready = 8 * (1 + hierarchies.lines().count()) + 64;
        assert!(open <= 16 + ready, "the zygote has {open} descriptors");
    }
    drop(launcher);
    assert_eq!(children_of(std::process::id()), [], "the zygote is reaped with the launcher");
}

const TEN_THOUSAND: &str = "host::role_ten_thousand_cells";

/// Half of them cold, half prepared, four at a time; some fail, some are dropped, some leave
/// processes behind.
#[test]
fn ten_thousand_cells_leave_nothing_behind() {
    if !is_root() {
        return untried("ten thousand cells", "only root sees all that a zygote holds");
    }
    // A temporary directory of its own, which can't be removed if anything is left in it.
    let script = r#"TMPDIR=$(mktemp -d) && export TMPDIR && "$0" "$@" && rmdir "$TMPDIR""#;
    passes_elsewhere(&["sh", "-c", script], TEN_THOUSAND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_ten_thousand_cells() {
    if !plays(TEN_THOUSAND) {
        return;
    }
    // Where groups of ours come to lie: the zygote may move us.
    let places = own_groups();
    let launcher = Launcher::start().expect("a zygote");
    let cold = Profile::builder(Level::Strict).build().expect("a profile");
    let warm = Profile::builder(Level::Strict).env("WARM", "1").build().expect("a profile");
    launcher.keep_warm(&warm, Warm { least: POOL, most: POOL }).expect("a pool");
    let zygote = own_zygote("cells").cast_unsigned();
    let stands = || Standing::of(zygote, &places);
    // So that everything that is made once has been made.
    many_cells(&launcher, &cold, &warm, 25).await;
    let before = at_rest(&launcher, &warm, zygote, stands).await;
    many_cells(&launcher, &cold, &warm, 2500).await;
    let after = at_rest(&launcher, &warm, zygote, stands).await;
    assert!(
        after.has_nothing_beyond(&before),
        "after ten thousand cells {after:?}, not {before:?}"
    );
    let networks = links_of(zygote).filter(|link| link.starts_with("net:[")).count();
    assert!(networks <= limits::IDLE_NETWORKS + limits::STOCKED_NETWORKS, "{networks}");
    drop(launcher);
    assert_eq!(children_of(std::process::id()), [], "the zygote is reaped with the launcher");
    assert_eq!(groups_of(zygote, &places), 0, "its groups are gone");
}

/// Cells that are kept ready.
const POOL: u16 = 4;

/// Four callers, each with that many cells.
#[expect(clippy::disallowed_methods, reason = "four callers at a time are four tasks")]
async fn many_cells(launcher: &Launcher, cold: &Profile, warm: &Profile, each: u32) {
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (launcher, cold, warm) = (launcher.clone(), cold.clone(), warm.clone());
            tokio::spawn(async move {
                for number in 0..each {
                    let profile = if number % 2 == 0 { &cold } else { &warm };
                    let program = match number % 50 {
                        7 => Program::new("no-such-program"),
                        9 => sh("sleep 100 & sleep 100 & exit 0"),
                        _ => Program::new("/bin/true"),
                    };
                    match launcher.launch(profile, &program).await {
                        Ok(cell) if number % 50 == 3 => drop(cell),
                        Ok(cell) => assert_eq!(cell.finish().await.end, End::Exited(0)),
                        Err(LaunchError::Program { .. }) => assert_eq!(number % 50, 7),
                        Err(other) => panic!("{caller}/{number}: {other:?}"),
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("every cell was as it should be");
    }
}

/// What there is when nothing runs, everything that waits for the next cell is there, and the host knows
/// of all that is prepared but one: it hears of that when it takes another, and lets go of what it held of a cell
/// after the cell's processes are gone.
async fn at_rest(
    launcher: &Launcher,
    profile: &Profile,
    zygote: u32,
    stands: impl Fn() -> Standing,
) -> Standing {
    let ready = usize::from(POOL) + STOCKED_SEEDLINGS;
    let children = || children_of(zygote);
    let all = || children().len() == ready && children().iter().all(|(_, state)| *state != 'Z');
    let mut rounds: Vec<Standing> = Vec::new();
    while rounds.len() < 50 {
        let cell = launcher.launch(profile, &Program::new("/bin/true")).await.expect("a cell");
        assert_eq!(cell.finish().await.end, End::Exited(0));
        eventually("a full pool, a full stock, and no zombie", all).await;
        let (mut last, mut unchanged) = (stands(), 0);
        let settled = || {
            let now = stands();
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
            unchanged == 10
        };
        eventually("a moment without a change", settled).await;
        rounds.push(last);
        if let [.., first, second, third] = &rounds[..]
            && first == second
            && second == third
            && let Some(last) = rounds.pop()
        {
            return last;
        }
    }
    panic!("it never comes to rest: {rounds:?}");
}

/// What a host and its zygote have of the machine. Network namespaces aside: as many lie ready as were
/// in use at once.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    own_descriptors: BTreeMap<String, usize>,
    own_mounts: usize,
    own_children: usize,
    zygote_descriptors: usize,
    zygote_mounts: usize,
    zygote_children: usize,
    groups: usize,
}

impl Standing {
    fn has_nothing_beyond(&self, other: &Self) -> bool {
        let kinds = |(kind, count): (&String, &usize)| {
            other.own_descriptors.get(kind).is_some_and(|before| count <= before)
        };
        self.own_descriptors.iter().all(kinds)
            && self.own_mounts <= other.own_mounts
            && self.own_children <= other.own_children
            && self.zygote_descriptors <= other.zygote_descriptors
            && self.zygote_mounts <= other.zygote_mounts
            && self.zygote_children <= other.zygote_children
            && self.groups <= other.groups
    }

    fn of(zygote: u32, places: &[PathBuf]) -> Self {
        let own = std::process::id();
        let mounts = |pid: u32| {
            let table = format!("/proc/{pid}/mountinfo");
            std::fs::read_to_string(table).expect("mounts").lines().count()
        };
        Self {
            own_descriptors: kinds_of(own),
            own_mounts: mounts(own),
            own_children: children_of(own).len(),
            zygote_descriptors: links_of(zygote).filter(|link| !link.starts_with("net:[")).count(),
            zygote_mounts: mounts(zygote),
            zygote_children: children_of(zygote).len(),
            groups: groups_of(zygote, places),
        }
    }
}

/// How many descriptors a process has of each kind.
fn kinds_of(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for link in links_of(pid) {
        let kind = link.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// What a process's descriptors lead to.
fn links_of(pid: u32) -> impl Iterator<Item = String> {
    let table = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    table.flatten().map(|entry| {
        // One may be gone again, as that of the directory itself.
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        link.to_string_lossy().into_owned()
    })
}

/// The directories of this process's own groups, in all hierarchies.
fn own_groups() -> Vec<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").expect("groups");
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mut found = Vec::new();
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for mount in table.lines() {
            let Some((place, system)) = mount.split_once(" - ") else { continue };
            let place: Vec<&str> = place.split(' ').collect();
            let system: Vec<&str> = system.split(' ').collect();
            let is_it = match system[0] {
                "cgroup2" => controllers.is_empty(),
                "cgroup" => {
                    let has = |wanted| system[2].split(',').any(|option| option == wanted);
                    !controllers.is_empty() && controllers.split(',').all(has)
                }
                _ => false,
            };
            let below = Path::new(path).strip_prefix(place[3]).unwrap_or(Path::new(""));
            if is_it {
                found.push(Path::new(place[4]).join(below));
                break;
            }
        }
    }
    assert_eq!(found.len(), groups.lines().count(), "{groups}\n{table}");
    found
}

/// How many groups of that zygote there are below these.
fn groups_of(zygote: u32, places: &[PathBuf]) -> usize {
    let ours = format!("neuroflow-{zygote}-");
    let (mut count, mut left) = (0, Vec::new());
    left.extend(places.iter().map(|place| (place.clone(), false)));
    while let Some((place, is_ours)) = left.pop() {
        count += usize::from(is_ours);
        for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let is_ours = is_ours || entry.file_name().to_string_lossy().starts_with(&ours);
                left.push((entry.path(), is_ours));
            }
        }
    }
    count
}

const CROWDED: &str = "host::role_two_hundred_at_once";

/// The soft limit of descriptors is often too low for so many.
#[test]
fn two_hundred_cells_live_at_once() {
    let script = r#"ulimit -n 4096 2>/dev/null || exit 3; exec "$0" "$@""#;
    passes_elsewhere(&["sh", "-c", script], CROWDED);
}

#[tokio::test]
async fn role_two_hundred_at_once() {
    const MANY: usize = 200;
    if !plays(CROWDED) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let strict = Profile::builder(Level::Strict).allow_degraded(true).memory(32 << 20);
    let profile = strict.wall_time(Duration::from_mins(5)).build().expect("a profile");
    let marker = marker();
    let mut cells = Vec::new();
    for number in 0..MANY {
        // Each answers with what it is told, and lasts.
        let program = sh(format!("read word; echo $word; exec sleep {marker}")).interactive();
        let mut cell = launcher.launch(&profile, &program).await.expect("room for one more");
        let mut input = cell.take_stdin().expect("an input");
        input.write(format!("cell {number}\n").as_bytes()).await.expect("it reads");
        cells.push(cell);
    }
    for (number, cell) in cells.iter_mut().enumerate() {
        match cell.next().await {
            Some(Output::Stdout(bytes)) => {
                assert_eq!(bytes, format!("cell {number}\n").as_bytes());
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    eventually("all of them", || processes_with(&marker).len() == MANY).await;
    let last = cells.pop().expect("one of them");
    drop(cells);
    eventually("their end", || processes_with(&marker).len() == 1).await;
    drop(last);
    eventually("its end", || processes_with(&marker).is_empty()).await;
    assert_eq!(
        launcher.launch(&profile, &sh("exit 9")).await.expect("a cell").finish().await.end,
        End::Exited(9)
    );
}

const LARGE: &str = "host::role_large_host";

#[test]
fn a_large_host_has_a_small_zygote() {
    passes_elsewhere(&["env"], LARGE);
}

#[tokio::test]
async fn role_large_host() {
    if !plays(LARGE) {
        return;
    }
    let ballast = vec![1_u8; 256 << 20];
    let cell = launch(standard(), sh("cat; exit 6").stdin("through")).await;
    let (zygote, _) = children_of(std::process::id())[0];
    let status = std::fs::read_to_string(format!("/proc/{zygote}/status")).expect("a status");
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    let kibibytes: u32 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kibibytes < 4096, "{resident}");
    let collected = cell.collect().await;
    assert_eq!(
        (collected.stdout.as_slice(), collected.report.end),
        (&b"through"[..], End::Exited(6))
    );
    assert!(ballast.iter().step_by(4096).all(|byte| *byte == 1));
}

const LOST_ZYGOTE: &str = "host::role_lost_zygote";

#[test]
fn a_lost_zygote_takes_its_cells_along_and_is_replaced() {
    passes_elsewhere(&["env"], LOST_ZYGOTE);
}

#[tokio::test]
async fn role_lost_zygote() {
    if !plays(LOST_ZYGOTE) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    for (profile, kind) in [(standard(), "cells"), (minimal(), "minimal")] {
        let profile = profile.build().expect("a profile");
        let marker = marker();
        let program = sh(format!("sleep {marker} & sleep {marker}"));
        let cell = launcher.launch(&profile, &program).await.expect("a cell");
        eventually("the start", || processes_with(&marker).len() == 2).await;
        let zygote = own_zygote(kind);
        kill(zygote);
        assert_eq!(cell.finish().await.end, End::LauncherLost);
        eventually("the end", || processes_with(&marker).is_empty()).await;
        let next = launcher.launch(&profile, &sh("exit 9")).await.expect("a new zygote");
        assert_eq!(next.finish().await.end, End::Exited(9));
        let children = children_of(std::process::id());
        assert!(children.iter().all(|(pid, _)| *pid != zygote), "the lost one is reaped");
        assert_ne!(own_zygote(kind), zygote);
    }
}

const STALLED_ZYGOTE: &str = "host::role_stalled_zygote";

#[test]
fn a_zygote_that_hangs_is_given_up_and_holds_nobody_up() {
    passes_elsewhere(&["env"], STALLED_ZYGOTE);
}

#[tokio::test]
async fn role_stalled_zygote() {
    if !plays(STALLED_ZYGOTE) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().wall_time(Duration::from_secs(2)).build().expect("a profile");
    let patient = standard().wall_time(Duration::from_mins(5)).build().expect("a profile");
    let (first, second) = (marker(), marker());
    let told = sh(format!("sleep {first} & read word; exit 4")).interactive();
    let mut ending = launcher.launch(&patient, &told).await.expect("a cell");
    let mut word = ending.take_stdin().expect("an input");
    let lasting = sh(format!("sleep {second} & sleep {second}"));
    let mut killed = launcher.launch(&patient, &lasting).await.expect("a cell");
    let both = || processes_with(&first).len() == 1 && processes_with(&second).len() == 2;
    eventually("the start", both).await;
    let zygote = own_zygote("cells");
    signal(zygote, "STOP");
    word.write(b"go\n").await.expect("it reads");
    killed.kill();
    let late = sh("exit 5");
    let (ended, killed, refused) =
        tokio::join!(ending.finish(), killed.finish(), launcher.launch(&profile, &late));
    // Their own first processes have told, or ended, all that matters.
    assert_eq!((ended.end, killed.end), (End::Exited(4), End::Cancelled));
    assert_eq!((processes_with(&first), processes_with(&second)), (Vec::new(), Vec::new()));
    match refused {
        Err(error @ LaunchError::LauncherStalled { .. }) => assert!(error.is_unknown()),
        other => panic!("{other:?}"),
    }
    let next = launcher.launch(&profile, &sh("exit 9")).await.expect("another zygote");
    assert_eq!(next.finish().await.end, End::Exited(9));
    assert_ne!(own_zygote("cells"), zygote);
    let children = children_of(std::process::id());
    assert!(children.iter().all(|(pid, _)| *pid != zygote), "it is ended and reaped");
}

/// The zygote of this process for cells of that kind.
pub(crate) fn own_zygote(kind: &str) -> i32 {
    found_zygote(kind).expect("a zygote")
}

/// The same, where there may be none.
pub(crate) fn found_zygote(kind: &str) -> Option<i32> {
    let all = processes_with(&format!("neuroflow-zygote-7c1f4b6e-{kind}"));
    let mut children = children_of(std::process::id()).into_iter().map(|(pid, _)| pid);
    children.find(|pid| all.contains(pid))
}

#[tokio::test]
async fn a_cell_keeps_its_zygote() {
    let launcher = Launcher::start().expect("a zygote");
    let cell =
        launcher.launch(&standard().build().expect("a profile"), &sh("sleep 0.3; exit 2")).await;
    drop(launcher);
    assert_eq!(cell.expect("a cell").finish().await.end, End::Exited(2));
}

const VICTIM: &str = "host::role_victim";

#[tokio::test]
async fn cells_end_with_a_killed_host() {
    let mut host = other_host(&["env"], VICTIM);
    let mut text = String::new();
    let mut output = host.stdout.take().expect("a pipe");
    let mut byte = [0];
    while !text.ends_with("END") {
        assert_eq!(output.read(&mut byte).expect("output"), 1, "{text}");
        text.push(char::from(byte[0]));
    }
    let markers: Vec<&str> =
        text.split_whitespace().filter(|word| word.starts_with("7654.")).collect();
    assert_eq!(markers.len(), 2, "{text}");
    for marker in &markers {
        assert!(!processes_with(marker).is_empty());
    }
    host.kill().expect("an end");
    host.wait().expect("an end");
    for marker in markers {
        eventually("the cells' end", || processes_with(marker).is_empty()).await;
    }
}

#[tokio::test]
async fn role_victim() {
    if !plays(VICTIM) {
        return;
    }
    let (first, second) = (marker(), marker());
    let _standard = launch(standard(), sh(format!("sleep {first} & sleep {first}"))).await;
    let _minimal = launch(minimal(), sh(format!("sleep {second} & sleep {second}"))).await;
    let both = || processes_with(&first).len() == 2 && processes_with(&second).len() == 2;
    eventually("the start", both).await;
    println!("\n{first} {second} END");
    pause(60_000).await;
}

const REPEATED: &str = "host::role_repeated_losses";

#[test]
fn zygotes_are_not_replaced_for_ever() {
    passes_elsewhere(&["env"], REPEATED);
}

#[tokio::test]
async fn role_repeated_losses() {
    if !plays(REPEATED) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    for _ in 0..=neuroflow_sandbox::limits::MAX_RESTARTS {
        let (zygote, _) = children_of(std::process::id())[0];
        // A process that it is just making has a copy of its socket for a moment.
        pause(100).await;
        kill(zygote);
        eventually("the loss", || children_of(std::process::id()) == [(zygote, 'Z')]).await;
        // No cell starts between two losses, because the program doesn't exist.
        let refused = launcher.launch(&profile, &Program::new("no-such-program")).await;
        match refused {
            Err(LaunchError::Program { .. }) => {}
            Err(LaunchError::TooManyRestarts { restarts }) => {
                assert_eq!(restarts, neuroflow_sandbox::limits::MAX_RESTARTS);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("replaced for ever");
}

#[tokio::test]
async fn the_summons_alone_makes_no_zygote() {
    // A process that is started with our argument, but without our socket, ends at once.
    let own = std::env::current_exe().expect("a path");
    #[expect(clippy::disallowed_methods, reason = "an impostor is a process")]
    let status = std::process::Command::new(own)
        .arg("neuroflow-zygote-7c1f4b6e-cells")
        .stdin(std::process::Stdio::null())
        .status()
        .expect("an end");
    assert_eq!(status.code(), Some(126));
    assert_eq!(
        output_of(standard(), Program::new("echo").arg("neuroflow-zygote-7c1f4b6e-cells")).await,
        "neuroflow-zygote-7c1f4b6e-cells\n"
    );
}
