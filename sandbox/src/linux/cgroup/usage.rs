//! What a group counted. The parsers are pure.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use super::tree::{self, Hierarchy, Tree, Version};
use crate::{
    account::GroupUsage,
    diagnosis::Controller,
    linux::sys::{directory, file},
};

/// The files that accounts are read from, opened when the group is made: at the end of a cell,
/// looking each of them up would cost more than reading them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pages: Vec<Page>,
}

/// One of them.
#[derive(Debug)]
struct Page {
    /// The place of its hierarchy among the tree's.
    at: usize,
    version: Version,
    name: &'static str,
    file: OwnedFd,
}

impl Ledger {
    /// Opens what is there. What isn't is looked for by its path, and not found, later.
    pub(super) fn open(tree: &Tree, group: &CString) -> Self {
        let mut ledger = Self::default();
        for at in 0..tree.hierarchies.len() {
            ledger.reopen(tree, group, at);
        }
        ledger
    }

    /// Opens the files of one hierarchy, in which the group has just been made.
    pub(super) fn reopen(&mut self, tree: &Tree, group: &CString, at: usize) {
        self.pages.retain(|page| page.at != at);
        let Some(hierarchy) = tree.hierarchies.get(at) else { return };
        let version = hierarchy.version;
        let wanted = match version {
            Version::Unified => UNIFIED,
            Version::Legacy => LEGACY,
        };
        for (controller, name) in wanted.iter().copied() {
            let holds = controller.is_none_or(|controller| hierarchy.holds(controller));
            if !holds || self.page(version, name).is_some() {
                continue;
            }
            let path = tree::path(&[group.as_bytes(), b"/", name.as_bytes()]);
            let opened = path.and_then(|path| {
                directory::open_at(hierarchy.subtree.as_fd(), &path, libc::O_RDONLY)
            });
            if let Ok(file) = opened {
                self.pages.push(Page { at, version, name, file });
            }
        }
    }

    /// The open file of that name.
    pub(super) fn page(&self, version: Version, name: &str) -> Option<BorrowedFd<'_>> {
        let known = |page: &&Page| (page.version, page.name) == (version, name);
        self.pages.iter().find(known).map(|page| page.file.as_fd())
    }

    fn text(&self, version: Version, name: &str) -> Option<String> {
        let file = self.page(version, name)?;
        let mut bytes = [0; LONGEST];
        let length = file::read_at_start(file, &mut bytes).ok()?;
        // One that fills the room may go on.
        let bytes = bytes.get(..length).filter(|_| length < LONGEST)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

const UNIFIED: &[(Option<Controller>, &str)] = &[
    (None, "cpu.stat"),
    (Some(Controller::Memory), "memory.peak"),
    (Some(Controller::Memory), "memory.events"),
    (Some(Controller::Pids), "pids.peak"),
    (Some(Controller::Pids), "pids.events"),
    (Some(Controller::Io), "io.stat"),
    (None, "cpu.pressure"),
    (None, "memory.pressure"),
    (None, "io.pressure"),
];
/// Where version 1 says what happened to a group for want of memory.
pub(super) const EVENTS: &str = "memory.oom_control";
const LEGACY: &[(Option<Controller>, &str)] = &[
    (Some(Controller::Cpu), "cpu.stat"),
    (Some(Controller::Memory), "memory.max_usage_in_bytes"),
    (Some(Controller::Memory), EVENTS),
    (Some(Controller::Pids), "pids.peak"),
    (Some(Controller::Pids), "pids.events"),
    (Some(Controller::Io), "blkio.throttle.io_service_bytes"),
];
/// Longest file that is read in one go: but for `io.stat` on machines with dozens of disks, they are
/// a few hundred bytes.
const LONGEST: usize = 4096;

/// Reads all accounts of a group. What a hierarchy doesn't have stays `None`.
pub(super) fn read(tree: &Tree, group: &CString, ledger: &Ledger) -> GroupUsage {
    let mut usage = GroupUsage::default();
    processor(tree, group, ledger, &mut usage);
    memory(tree, group, ledger, &mut usage);
    usage.processes_peak = most_processes(tree, group, ledger);
    if let Some(pids) = Account::of(tree, Controller::Pids, group, ledger) {
        usage.processes_refused = pids.text("pids.events").and_then(|text| field(&text, "max"));
    }
    if let Some(io) = Account::of(tree, Controller::Io, group, ledger) {
        let transferred = match io.hierarchy.version {
            Version::Unified => io.text("io.stat").map(|text| transferred(&text)),
            Version::Legacy => {
                io.text("blkio.throttle.io_service_bytes").map(|text| transferred_legacy(&text))
            }
        };
        (usage.read_bytes, usage.written_bytes) = transferred.unzip();
    }
    if let Some(unified) = tree.unified() {
        let account = Account { hierarchy: unified, group, ledger };
        let pressure = |file| account.text(file).unwrap_or_default();
        usage.cpu_stalled = stalled(&pressure("cpu.pressure"), "some");
        let memory = pressure("memory.pressure");
        usage.memory_stalled = stalled(&memory, "some");
        usage.memory_stalled_fully = stalled(&memory, "full");
        let io = pressure("io.pressure");
        usage.io_stalled = stalled(&io, "some");
        usage.io_stalled_fully = stalled(&io, "full");
    }
    usage
}

fn processor(tree: &Tree, group: &CString, ledger: &Ledger, usage: &mut GroupUsage) {
    let statistics =
        |hierarchy| Account { hierarchy, group, ledger }.text("cpu.stat").unwrap_or_default();
    let (mut limited, mut used) = (String::new(), String::new());
    if let Some(limiter) = tree.holder(Controller::Cpu) {
        limited = statistics(limiter);
        if limiter.version == Version::Unified {
            used.clone_from(&limited);
        }
    }
    usage.throttled_periods = field(&limited, "nr_throttled");
    usage.throttled = field(&limited, "throttled_usec").map(Duration::from_micros).or(field(
        &limited,
        "throttled_time",
    )
    .map(Duration::from_nanos));
    if let Some(unified) = tree.unified() {
        // Version 2 counts processor time whether it has the controller or not.
        if used.is_empty() {
            used = statistics(unified);
        }
        usage.cpu_user = field(&used, "user_usec").map(Duration::from_micros);
        usage.cpu_system = field(&used, "system_usec").map(Duration::from_micros);
    } else if let Some(hierarchy) = tree.legacy().find(|hierarchy| hierarchy.accounts_cpu) {
        let account = Account { hierarchy, group, ledger };
        usage.cpu_user = account.number("cpuacct.usage_user").map(Duration::from_nanos);
        usage.cpu_system = account.number("cpuacct.usage_sys").map(Duration::from_nanos);
    }
}

fn memory(tree: &Tree, group: &CString, ledger: &Ledger, usage: &mut GroupUsage) {
    let Some(account) = Account::of(tree, Controller::Memory, group, ledger) else { return };
    let (peak, events) = match account.hierarchy.version {
        Version::Unified => ("memory.peak", "memory.events"),
        Version::Legacy => ("memory.max_usage_in_bytes", EVENTS),
    };
    usage.memory_peak_bytes = account.number(peak);
    usage.oom_kills = account.text(events).and_then(|text| field(&text, "oom_kill"));
}

/// The most processes and threads that the group has had at a time.
pub(super) fn most_processes(tree: &Tree, group: &CString, ledger: &Ledger) -> Option<u64> {
    Account::of(tree, Controller::Pids, group, ledger)?.number("pids.peak")
}

/// Whether the kernel has ended a process of the group for want of memory.
pub(super) fn was_starved(tree: &Tree, group: &CString, ledger: &Ledger) -> bool {
    let mut usage = GroupUsage::default();
    memory(tree, group, ledger, &mut usage);
    usage.oom_kills.is_some_and(|kills| kills > 0)
}

/// Whether the group of version 1 has all the memory that it may have, or all but what one charge takes.
pub(super) fn is_full(tree: &Tree, group: &CString, ledger: &Ledger) -> bool {
    let Some(account) = Account::of(tree, Controller::Memory, group, ledger) else { return false };
    let is_full = |used: &str, most: &str| {
        let (used, most) = (account.number(used), account.number(most));
        used.zip(most).is_some_and(|(used, most)| used.saturating_add(CHARGE) >= most)
    };
    is_full("memory.usage_in_bytes", "memory.limit_in_bytes")
        || is_full("memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes")
}

/// The kernel charges a group for 64 pages at a time.
const CHARGE: u64 = 64 * 4096;

/// A group in one hierarchy.
struct Account<'a> {
    hierarchy: &'a Hierarchy,
    group: &'a CString,
    ledger: &'a Ledger,
}

impl<'a> Account<'a> {
    fn of(
        tree: &'a Tree,
        controller: Controller,
        group: &'a CString,
        ledger: &'a Ledger,
    ) -> Option<Self> {
        tree.holder(controller).map(|hierarchy| Self { hierarchy, group, ledger })
    }

    fn text(&self, file: &str) -> Option<String> {
        if let Some(text) = self.ledger.text(self.hierarchy.version, file) {
            return Some(text);
        }
        let path = tree::path(&[self.group.as_bytes(), b"/", file.as_bytes()]).ok()?;
        tree::read(self.hierarchy.subtree.as_fd(), &path).ok()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }
}

/// A number in a file of lines `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The sum in a line of a pressure file, as in `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`.
fn stalled(text: &str, who: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix(who)?.strip_prefix(' '))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    total.trim().parse().ok().map(Duration::from_micros)
}

/// Bytes read and written, over lines as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn transferred(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse().ok())
            .fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// The same, over lines as `8:0 Read 1`.
fn transferred_legacy(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split(' ').skip(1);
                (words.next()? == kind).then(|| words.next()?.parse().ok()).flatten()
            })
            .fold(0, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\nmax 14\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field(text, "max"), Some(14));
        assert_eq!(field(text, "kill"), None);
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill"), Some(7));
        assert_eq!(field("max x\n", "max"), None);
    }

    #[test]
    fn pressure_is_summed_up_by_the_kernel() {
        let text = "some avg10=0.00 avg60=0.10 avg300=0.00 total=1500\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=20\n";
        assert_eq!(stalled(text, "some"), Some(Duration::from_micros(1500)));
        assert_eq!(stalled(text, "full"), Some(Duration::from_micros(20)));
        assert_eq!(stalled("some avg10=0.00\n", "some"), None);
        assert_eq!(stalled("", "full"), None);
    }

    #[test]
    fn transfers_of_all_disks_count() {
        let text =
            "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2\n";
        assert_eq!(transferred(text), (11, 22));
        let text =
            "254:0 Read 10\n254:0 Write 20\n254:0 Sync 30\n254:0 Total 30\n8:0 Read 1\nTotal 61\n";
        assert_eq!(transferred_legacy(text), (11, 20));
        assert_eq!(transferred_legacy("Total 0\n"), (0, 0));
    }

    #[test]
    fn no_text_upsets_the_parsers() {
        let mut noise = Noise::new(11);
        for _ in 0..500 {
            let text = String::from_utf8_lossy(&noise.bytes(200)).into_owned();
            field(&text, "max");
            stalled(&text, "some");
            transferred(&text);
            transferred_legacy(&text);
        }
    }
}
