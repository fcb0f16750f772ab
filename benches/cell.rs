//! `/bin/true` in a cell of level `strict`, cold and from a pool, beside a bare process and `bwrap`
//! with the same namespaces; and how many cells there can be.
//!
//! *Cold* is a launch with a profile that no pool is kept for. The zygote's own stock, which knows no
//! profile, has a first process for it, because it had time since the launch before; *unstocked* is the
//! first launch of a zygote, which makes everything then.
//!
//! Two moments are measured. *Exit*: the caller knows the program's status and has all of its output.
//! *Gone*: in addition everything of the cell has been taken down and its usage is known. `bwrap` and
//! a bare process are measured until they are reaped, which is both.

mod load;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neuroflow::kernel::{Address, ChildSpec, Header, Kernel};
use neuroflow::sandbox::{
    ArchivedExecEvent, End, Exec, How, Launcher, Level, Profile, Program, Running, SandboxCommand,
    SandboxServer, Warm,
};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const FIGURES: &[&str] = &[
    COLD_EXIT,
    COLD_GONE,
    UNSTOCKED,
    WARM_EXIT,
    WARM_GONE,
    LARGE_HOST,
    EXEC,
    load::COLD_RATE,
    load::WARM_RATE,
    load::LATENCY,
    load::LIVE,
    load::WAITING,
];

const COLD_EXIT: &str = "cell/cold-exit";
const COLD_GONE: &str = "cell/cold-gone";
const UNSTOCKED: &str = "cell/unstocked-exit";
const WARM_EXIT: &str = "cell/warm-exit";
const WARM_GONE: &str = "cell/warm-gone";
const LARGE_HOST: &str = "cell/cold-exit-large-host";
const EXEC: &str = "cell/exec";
const PROGRAM: &str = "/bin/true";
const BARE: &str = "std::process, no cell";
const BWRAP: &str = "bwrap, same namespaces";
const SMALL: &str = "the same from a small host";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let wants = |figure: &str| arguments.wants(figure);
    let mut figures = Vec::new();
    let interleaved = [COLD_EXIT, COLD_GONE, UNSTOCKED, WARM_EXIT, WARM_GONE, LARGE_HOST, EXEC];
    if interleaved.into_iter().any(wants) {
        let bwrap = has_bwrap();
        let iterations = arguments.iterations;
        let all = on_workers(async move { rounds(iterations, bwrap).await });
        let unstocked = wants(UNSTOCKED).then(|| on_workers(unstocked(iterations)));
        let large = wants(LARGE_HOST).then(|| on_workers(large_host(iterations)));
        let of_cold = |name, aim, samples| {
            let figure = Figure::new(name, aim, samples);
            let figure = if bwrap { figure.beside(BWRAP, &all.wrapped) } else { figure };
            figure.beside(BARE, &all.bare)
        };
        let of_warm = |name, aim, samples| {
            let figure = Figure::new(name, aim, samples).beside(BARE, &all.bare);
            if bwrap { figure.beside(BWRAP, &all.wrapped) } else { figure }
        };
        let made = [
            of_cold(COLD_EXIT, Aim::Ratios { p50: 0.35, p99: 0.4 }, &all.cold.exit),
            of_cold(COLD_GONE, Aim::None, &all.cold.gone),
            of_warm(WARM_EXIT, Aim::Ratios { p50: 1.2, p99: 1.3 }, &all.warm.exit),
            of_warm(WARM_GONE, Aim::None, &all.warm.gone),
            of_warm(EXEC, Aim::None, &all.exec),
        ];
        figures.extend(made.into_iter().filter(|figure| wants(&figure.name)));
        if let Some(unstocked) = unstocked {
            let figure = Figure::new(UNSTOCKED, Aim::None, &unstocked);
            figures.push(if bwrap { figure.beside(BWRAP, &all.wrapped) } else { figure });
        }
        if let Some(large) = large {
            let figure = Figure::new(LARGE_HOST, Aim::Ratio(1.1), &large);
            figures.push(figure.beside(SMALL, &all.cold.exit));
        }
    }
    figures.extend(load::measure(arguments));
    figures
}

fn has_bwrap() -> bool {
    let bwrap = Command::new("bwrap").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !bwrap {
        println!("bwrap isn't installed, so cells are measured beside a bare process only");
    }
    bwrap
}

/// The two moments of a cell.
struct Moments {
    exit: Samples,
    gone: Samples,
}

impl Moments {
    fn new() -> Self {
        Self { exit: Samples::new(Unit::Nanoseconds), gone: Samples::new(Unit::Nanoseconds) }
    }

    fn took(&mut self, (exit, gone): (Duration, Duration)) {
        self.exit.took(exit, 1);
        self.gone.took(gone, 1);
    }
}

struct Samplings {
    cold: Moments,
    warm: Moments,
    exec: Samples,
    bare: Samples,
    wrapped: Samples,
}

async fn rounds(iterations: usize, bwrap: bool) -> Samplings {
    let cold = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    // Another profile, so that its pool isn't asked for the cold ones.
    let warm = Profile::builder(Level::Strict).env("WARM", "1").build().expect("a profile");
    let launcher = Launcher::start().expect("the zygote starts");
    launcher.keep_warm(&warm, Warm { least: 4, most: 4 }).expect("a pool");
    let kernel = Kernel::builder().start().await.expect("a kernel starts");
    let server = warm.clone();
    let (spec, sandbox) = ChildSpec::new("sandbox", move || {
        SandboxServer::new(server.clone()).warm(Warm { least: 4, most: 4 }).actor()
    })
    .expect("a name");
    kernel.root().start(spec).await.expect("the host gives level strict");
    tokio::time::sleep(SETTLING).await;

    let samples = || Samples::new(Unit::Nanoseconds);
    let mut all = Samplings {
        cold: Moments::new(),
        warm: Moments::new(),
        exec: samples(),
        bare: samples(),
        wrapped: samples(),
    };
    for round in 0..=iterations {
        let counts = round > 0;
        // Each follows each of the others equally often, because whatever one leaves to be done falls
        // on the next.
        let stride = 1 + round / 5 % 4;
        for turn in 0..5 {
            match (round + turn * stride) % 5 {
                0 => {
                    let (took, _) = launch(&launcher, &cold).await;
                    counts.then(|| all.cold.took(took));
                }
                1 => {
                    let (took, prepared) = launch(&launcher, &warm).await;
                    assert!(prepared, "the pool had a cell");
                    counts.then(|| all.warm.took(took));
                }
                2 => {
                    let took = exec(&sandbox).await;
                    counts.then(|| all.exec.took(took, 1));
                }
                3 => {
                    let took = run(&mut Command::new(PROGRAM));
                    counts.then(|| all.bare.took(took, 1));
                }
                _ if bwrap => {
                    let took = run(&mut wrapped());
                    counts.then(|| all.wrapped.took(took, 1));
                }
                _ => {}
            }
            // What is made ahead, or taken down afterwards, is no part of the next one's time.
            tokio::time::sleep(PAUSE).await;
        }
    }
    kernel.stop().await;
    all
}

/// A pool is full by then.
const SETTLING: Duration = Duration::from_millis(300);
/// Longer than a pool's refill and a mount table's end.
const PAUSE: Duration = Duration::from_millis(8);

/// Through the launcher alone.
async fn launch(launcher: &Launcher, profile: &Profile) -> ((Duration, Duration), bool) {
    let program = Program::new(PROGRAM);
    let begun = Instant::now();
    let cell = launcher.launch(profile, &program).await;
    let mut cell: Running = cell.expect("the host gives level strict");
    let end = cell.exit().await;
    let exit = begun.elapsed();
    assert_eq!(end, Some(End::Exited(0)), "the program ran");
    let report = cell.finish().await;
    let gone = begun.elapsed();
    assert_eq!((report.end, report.degraded.len()), (End::Exited(0), 0), "with all layers");
    ((exit, gone), report.prepared)
}

async fn unstocked(iterations: usize) -> Samples {
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    let mut samples = Samples::new(Unit::Nanoseconds);
    for round in 0..=iterations {
        let launcher = Launcher::start().expect("the zygote starts");
        tokio::time::sleep(PAUSE).await;
        let ((exit, _), _) = launch(&launcher, &profile).await;
        if round > 0 {
            samples.took(exit, 1);
        }
    }
    samples
}

/// A gigabyte that is really there.
const BALLAST: usize = 1 << 30;

async fn large_host(iterations: usize) -> Samples {
    let ballast = vec![1_u8; BALLAST];
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    let launcher = Launcher::start().expect("the zygote starts");
    let mut samples = Samples::new(Unit::Nanoseconds);
    for round in 0..=iterations {
        let ((exit, _), _) = launch(&launcher, &profile).await;
        if round > 0 {
            samples.took(exit, 1);
        }
        tokio::time::sleep(PAUSE).await;
    }
    assert!(ballast.iter().step_by(4096).all(|byte| *byte == 1), "it stayed");
    samples
}

/// Through the sandbox's actor, as a tool does it: archived request, stream of archived events, until
/// everything is gone.
async fn exec(sandbox: &Address<SandboxCommand>) -> Duration {
    let begun = Instant::now();
    let parcel =
        neuroflow::kernel::Parcel::archive(&Exec::new([PROGRAM])).expect("a short request");
    let request = |replies| SandboxCommand::Exec(neuroflow::kernel::Request { parcel, replies });
    let mut events = sandbox.stream(Header::new(), request).await.expect("the sandbox takes it");
    let mut end = None;
    while let Some(event) = events.next().await {
        match event.expect("the stream is whole").get() {
            ArchivedExecEvent::Ended(ended) => end = Some(How::from(&ended.how)),
            ArchivedExecEvent::Output { .. } => panic!("{PROGRAM} writes nothing"),
            ArchivedExecEvent::Refused(_) => panic!("the sandbox refused {PROGRAM}"),
        }
    }
    let took = begun.elapsed();
    assert_eq!(end, Some(How::Exited(0)), "the program ran");
    took
}

fn run(command: &mut Command) -> Duration {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = quiet.status().expect("the program is there");
    let took = begun.elapsed();
    assert!(status.success(), "the program ran");
    took
}

/// The namespaces of a cell, a read-only root, own `/proc` and `/dev`, no capabilities; no filter, no
/// groups, no Landlock, which `bwrap` doesn't bring.
fn wrapped() -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1"]);
    command.args(["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]);
    for folder in ["/usr", "/bin", "/lib", "/lib64"] {
        command.args(["--ro-bind-try", folder, folder]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--", PROGRAM]);
    command
}
