//! `/bin/true` in a cold cell of level `standard`, from the request to the reaped exit, beside a
//! bare process and `bwrap` with the same namespaces.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neuroflow::kernel::{Address, ChildSpec, Header, Kernel};
use neuroflow::sandbox::{
    ArchivedExecEvent, End, Exec, How, Launcher, Level, Profile, Program, SandboxCommand,
    SandboxServer,
};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const FIGURES: &[&str] = &[LAUNCH, EXEC];

const LAUNCH: &str = "cell/launch";
const EXEC: &str = "cell/exec";
const PROGRAM: &str = "/bin/true";
const BARE: &str = "std::process, no cell";
const BWRAP: &str = "bwrap, same namespaces";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let wants: Vec<&str> =
        FIGURES.iter().filter(|figure| arguments.wants(figure)).copied().collect();
    if wants.is_empty() {
        return Vec::new();
    }
    let bwrap = Command::new("bwrap").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !bwrap {
        println!("bwrap isn't installed, so cells are measured beside a bare process only");
    }
    let iterations = arguments.iterations;
    let Samplings { launch, exec, bare, wrapped } =
        on_workers(async move { rounds(iterations, bwrap).await });
    let figures = wants.iter().map(|name| {
        let (ours, aim) = if *name == LAUNCH { (&launch, LAUNCH_AIM) } else { (&exec, Aim::None) };
        let figure = Figure::new(name, aim, ours);
        // The first one is what later runs are compared by: it starts as many processes as we do.
        let figure = if bwrap { figure.beside(BWRAP, &wrapped) } else { figure };
        figure.beside(BARE, &bare)
    });
    figures.collect()
}

/// What the launcher is designed for on a quiet machine.
const LAUNCH_AIM: Aim = Aim::AtMost(1_500_000.0);

struct Samplings {
    launch: Samples,
    exec: Samples,
    bare: Samples,
    wrapped: Samples,
}

async fn rounds(iterations: usize, bwrap: bool) -> Samplings {
    let profile = Profile::builder(Level::Standard).build().expect("a profile of defaults");
    let launcher = Launcher::start().expect("the zygote starts");
    let kernel = Kernel::builder().start().await.expect("a kernel starts");
    let server = profile.clone();
    let (spec, sandbox) =
        ChildSpec::new("sandbox", move || SandboxServer::new(server.clone())).expect("a name");
    kernel.root().start(spec).await.expect("the sandbox starts");

    let samples = || Samples::new(Unit::Nanoseconds);
    let mut all =
        Samplings { launch: samples(), exec: samples(), bare: samples(), wrapped: samples() };
    for round in 0..=iterations {
        for turn in 0..4 {
            let (took, samples) = match (round + turn) % 4 {
                0 => (launch(&launcher, &profile).await, &mut all.launch),
                1 => (exec(&sandbox).await, &mut all.exec),
                2 => (run(&mut Command::new(PROGRAM)), &mut all.bare),
                _ if bwrap => (run(&mut wrapped()), &mut all.wrapped),
                _ => continue,
            };
            if round > 0 {
                samples.took(took, 1);
            }
        }
    }
    kernel.stop().await;
    all
}

/// Through the launcher alone.
async fn launch(launcher: &Launcher, profile: &Profile) -> Duration {
    let program = Program::new(PROGRAM);
    let begun = Instant::now();
    let cell = launcher.launch(profile, &program).await;
    let report = cell.expect("the host gives level standard").finish().await;
    let took = begun.elapsed();
    assert_eq!(report.end, End::Exited(0), "the program ran");
    took
}

/// Through the sandbox's actor, as a tool does it: archived request, stream of archived events.
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

/// The namespaces of level `standard`, a read-only root, own `/proc` and `/dev`, no capabilities.
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
