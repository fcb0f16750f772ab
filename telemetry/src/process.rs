//! The process itself, read from `/proc` at scrape; elsewhere than on Linux these metrics are
//! absent.

use std::fs;
use std::path::Path;

use prometheus::proto::MetricFamily;

use crate::instrument::MetricError;
use crate::instruments::{Instruments, counters, gauges};
use crate::metrics::{
    PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START,
    PROCESS_THREADS, PROCESS_VIRTUAL,
};

pub(crate) fn register(instruments: &Instruments) -> Result<(), MetricError> {
    let described = vec![
        PROCESS_CPU.described()?,
        PROCESS_RESIDENT.described()?,
        PROCESS_VIRTUAL.described()?,
        PROCESS_OPEN_FDS.described()?,
        PROCESS_MAX_FDS.described()?,
        PROCESS_THREADS.described()?,
        PROCESS_START.described()?,
    ];
    instruments.collect(described, || families(Path::new("/proc")))
}

fn families(proc: &Path) -> Vec<MetricFamily> {
    let own = proc.join("self");
    let mut families = Vec::new();
    if let Some((stat, host)) = Stat::read(&own).zip(Host::read(proc)) {
        families.extend(counters(&PROCESS_CPU, &one(stat.ticks / host.ticks_per_second)));
        families.extend(gauges(&PROCESS_THREADS, &one(stat.threads)));
        families.extend(gauges(&PROCESS_VIRTUAL, &one(stat.virtual_bytes)));
        families.extend(gauges(&PROCESS_RESIDENT, &one(stat.resident_pages * host.page_bytes)));
        let started = host.booted + stat.started / host.ticks_per_second;
        families.extend(gauges(&PROCESS_START, &one(started)));
    }
    if let Ok(entries) = fs::read_dir(own.join("fd")) {
        // One of them is the directory that is being read.
        let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
        families.extend(gauges(&PROCESS_OPEN_FDS, &one(f64::from(open))));
    }
    if let Some(max) = fs::read_to_string(own.join("limits")).ok().as_deref().and_then(max_fds) {
        families.extend(gauges(&PROCESS_MAX_FDS, &one(max)));
    }
    families
}

fn one(value: f64) -> [([&'static str; 0], f64); 1] {
    [([], value)]
}

/// What `/proc/self/stat` says, in the kernel's units.
#[derive(Debug, PartialEq)]
struct Stat {
    ticks: f64,
    threads: f64,
    started: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn read(own: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(own.join("stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The command's name stands in brackets and may contain anything, brackets too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the first field after the name is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The kernel's units, from the vector that it hands every process, and when it booted.
#[derive(Debug, PartialEq)]
struct Host {
    ticks_per_second: f64,
    page_bytes: f64,
    booted: f64,
}

impl Host {
    fn read(proc: &Path) -> Option<Self> {
        let vector = fs::read(proc.join("self/auxv")).ok()?;
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(Self {
            ticks_per_second: auxiliary(&vector, AT_CLKTCK)?,
            page_bytes: auxiliary(&vector, AT_PAGESZ)?,
            booted: booted.trim().parse().ok()?,
        })
    }
}

const AT_PAGESZ: usize = 6;
const AT_CLKTCK: usize = 17;

/// The value of `kind` in an auxiliary vector: pairs of words in the machine's own form.
fn auxiliary(vector: &[u8], kind: usize) -> Option<f64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    vector.chunks_exact(2 * WORD).find_map(|pair| {
        let (name, value) = pair.split_at(WORD);
        let value = word(value).filter(|_| word(name) == Some(kind))?;
        u32::try_from(value).ok().filter(|&value| value > 0).map(f64::from)
    })
}

/// The soft limit of open files; none if it's unlimited.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_can_be_anything() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 \
                    900 8192 3 18446744073709551615";
        let expected = Stat {
            ticks: 200.0,
            threads: 4.0,
            started: 900.0,
            virtual_bytes: 8192.0,
            resident_pages: 3.0,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_limit_of_open_files_is_found() {
        let line = "Max open files            1024                 524288               files";
        assert_eq!(max_fds(line), Some(1024.0));
        assert_eq!(max_fds("Max open files            unlimited  unlimited files"), None);
    }

    #[test]
    fn this_process_has_sane_numbers() {
        let host = Host::read(Path::new("/proc")).unwrap();
        assert!(host.page_bytes >= 4096.0 && host.ticks_per_second >= 1.0, "{host:?}");
        let stat = Stat::read(Path::new("/proc/self")).unwrap();
        assert!(stat.threads >= 1.0 && stat.resident_pages > 0.0, "{stat:?}");
        let now = neuroflow_kernel::Clock::system().wall();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - host.booted - stat.started / host.ticks_per_second;
        assert!((-5.0..86_400.0).contains(&age), "{age}");
        assert!(families(Path::new("/proc")).len() >= 6, "unlimited files have no maximum");
    }

    #[test]
    fn where_there_is_no_proc_there_are_no_metrics() {
        assert!(families(Path::new("/nowhere")).is_empty());
    }
}
