//! Many cells: how many in a second, how many at once, and what a waiting one costs.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use neuroflow::sandbox::{End, Launcher, Level, Profile, Program, Running, Warm};

use super::{BARE, BWRAP, PROGRAM};
use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const COLD_RATE: &str = "cell/rate-cold";
pub(crate) const WARM_RATE: &str = "cell/rate-warm";
pub(crate) const LATENCY: &str = "cell/latency-under-load";
pub(crate) const LIVE: &str = "cell/start-of-200-live";
pub(crate) const WAITING: &str = "cell/waiting-memory";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let mut figures = Vec::new();
    // A single round only shows that it works.
    let seconds = if arguments.iterations > 1 { RATE_SECONDS } else { 1 };
    let mut latency = None;
    for (name, warm) in [(COLD_RATE, false), (WARM_RATE, true)] {
        if arguments.wants(name) || (warm && arguments.wants(LATENCY)) {
            let bwrap = super::has_bwrap();
            let rates = on_workers(rate(seconds, warm, bwrap));
            let figure = Figure::new(name, Aim::AtLeast(550.0), &rates.ours);
            let figure = figure.beside(BARE, &rates.bare);
            figures.push(if bwrap { figure.beside(BWRAP, &rates.wrapped) } else { figure });
            latency = Some(rates.times);
        }
    }
    if let Some(times) = latency.filter(|_| arguments.wants(LATENCY)) {
        figures.push(Figure::new(LATENCY, Aim::None, &times));
    }
    if arguments.wants(LIVE) {
        figures.push(Figure::new(LIVE, Aim::None, &on_workers(live())));
    }
    if arguments.wants(WAITING) {
        figures.push(Figure::new(WAITING, Aim::AtMost(350.0 * 1024.0), &on_workers(waiting())));
    }
    figures.retain(|figure| arguments.wants(&figure.name));
    figures
}

/// A minute, each second of it a sample.
const RATE_SECONDS: u64 = 60;
/// After so many of them the peers have their turn.
const OURS_A_TURN: u64 = 10;
/// Cells in flight: two for each of two processors, so that none waits for the other's wake-ups.
const IN_FLIGHT: usize = 4;
const POOL: Warm = Warm { least: 8, most: 16 };
/// Its socket, its process, and where its egress would be.
const DESCRIPTORS_OF_A_CELL: usize = 3;

struct Rates {
    ours: Samples,
    times: Samples,
    bare: Samples,
    wrapped: Samples,
}

async fn rate(seconds: u64, warm: bool, bwrap: bool) -> Rates {
    let launcher = Launcher::start().expect("the zygote starts");
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    if warm {
        launcher.keep_warm(&profile, POOL).expect("a pool");
    }
    // Of each cell that waits.
    let waiting = if warm { usize::from(POOL.most) * DESCRIPTORS_OF_A_CELL } else { 0 };
    let open = || fs::read_dir("/proc/self/fd").expect("own descriptors").count();
    run(&launcher, &profile).await;
    let before = open();
    let per_second = || Samples::new(Unit::PerSecond);
    let (ours, times) = (per_second(), Samples::new(Unit::Nanoseconds));
    let mut rates = Rates { ours, times, bare: per_second(), wrapped: per_second() };
    for second in 0..seconds {
        let begun = Instant::now();
        let workers: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (launcher, profile) = (launcher.clone(), profile.clone());
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while begun.elapsed() < Duration::from_secs(1) {
                        let begun = Instant::now();
                        run(&launcher, &profile).await;
                        times.push(begun.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut cells = 0;
        for worker in workers {
            for took in worker.await.expect("every cell ran") {
                rates.times.took(took, 1);
                cells += 1;
            }
        }
        rates.ours.took(begun.elapsed(), cells);
        if second % OURS_A_TURN == 0 {
            let (took, programs) = of_peers(|| Command::new(PROGRAM)).await;
            rates.bare.took(took, programs);
            if bwrap {
                let (took, programs) = of_peers(super::wrapped).await;
                rates.wrapped.took(took, programs);
            }
        }
    }
    assert!(open() <= before + IN_FLIGHT + waiting, "no descriptor is left");
    rates
}

/// A second of programs, as many in flight as cells.
async fn of_peers(command: fn() -> Command) -> (Duration, usize) {
    let begun = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            tokio::task::spawn_blocking(move || {
                let mut programs = 0;
                while begun.elapsed() < Duration::from_secs(1) {
                    super::run(&mut command());
                    programs += 1;
                }
                programs
            })
        })
        .collect();
    let mut programs = 0;
    for worker in workers {
        programs += worker.await.expect("every program ran");
    }
    (begun.elapsed(), programs)
}

async fn run(launcher: &Launcher, profile: &Profile) {
    let cell = launcher.launch(profile, &Program::new(PROGRAM)).await;
    let report = cell.expect("the host gives level strict").finish().await;
    assert_eq!(report.end, End::Exited(0), "the program ran");
}

/// Cells that live at once.
const AT_ONCE: usize = 200;

async fn live() -> Samples {
    let launcher = Launcher::start().expect("the zygote starts");
    let profile = Profile::builder(Level::Strict)
        .wall_time(Duration::from_mins(2))
        .build()
        .expect("a profile");
    let mut samples = Samples::new(Unit::Nanoseconds);
    let mut cells: Vec<Running> = Vec::new();
    for _ in 0..AT_ONCE {
        let begun = Instant::now();
        let program = Program::new("/bin/sleep").arg("600");
        let cell = launcher.launch(&profile, &program).await;
        samples.took(begun.elapsed(), 1);
        cells.push(cell.expect("one more cell"));
    }
    for mut cell in cells {
        cell.kill();
        assert_eq!(cell.finish().await.end, End::Cancelled, "it lived until then");
    }
    samples
}

/// Waiting cells, of which each is a sample.
const WAIT: u16 = 64;

async fn waiting() -> Samples {
    let launcher = Launcher::start().expect("the zygote starts");
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    launcher.keep_warm(&profile, Warm { least: WAIT, most: WAIT }).expect("a pool");
    let zygote = children(std::process::id()).first().copied().expect("a zygote");
    let begun = Instant::now();
    while children(zygote).len() < usize::from(WAIT) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the pool fills");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The last ones may still be at work on themselves.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut samples = Samples::new(Unit::Bytes);
    let mut ended = 0;
    let cells = children(zygote);
    for cell in &cells {
        match fs::read_to_string(format!("/proc/{cell}/smaps_rollup")) {
            Ok(rollup) => samples.push(share(&rollup)),
            // A child that just ended has no memory.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => ended += 1,
            Err(error) => panic!("whoever measures memory is root: {error}"),
        }
    }
    assert!(cells.len() - ended >= usize::from(WAIT) - 1, "the pool is still full");
    samples
}

/// Bytes, of a file `smaps_rollup`.
fn share(rollup: &str) -> f64 {
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a share");
    let kibibytes = pss.trim().trim_end_matches(" kB").parse::<u32>().expect("a number");
    f64::from(kibibytes) * 1024.0
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let mut found: Vec<u32> = tasks
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    if found.is_empty() {
        // Children of the host's other threads.
        for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}
