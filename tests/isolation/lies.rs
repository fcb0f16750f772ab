//! A kernel that says yes and does nothing is found out: each layer is read back, and a cell without it
//! is refused, by that layer's name. A filter around the whole host program plays that kernel.

use std::path::Path;

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use neuroflow_sandbox::{LaunchError, Launcher, Layer, Level, Profile, Program, Reason};

use crate::support::{Directory, is_root, passes_elsewhere, plays, sh};
use crate::untried::untried;

/// Which argument of a call, by its place, must have which value.
type Argument = (u32, u64);

/// Calls that are answered and not made, and the layer that has to miss them.
const LIES: [(&str, &str, Option<Argument>, Layer); 9] = [
    ("session", "setsid", None, Layer::Session),
    ("death", "prctl", Some((0, 1)), Layer::ProcessTree),
    ("flags", "mount_setattr", None, Layer::PrivateRoot),
    ("proc", "fsconfig", Some((1, 1)), Layer::PrivateProc),
    ("privileges", "prctl", Some((0, 38)), Layer::NoNewPrivileges),
    ("capabilities", "capset", None, Layer::NoCapabilities),
    ("bounds", "prctl", Some((0, 24)), Layer::NoCapabilities),
    ("rules", "landlock_restrict_self", None, Layer::Landlock),
    // Said to whoever asks whether a process is within reach of its signals.
    (SIGNALS, "kill", Some((1, 0)), Layer::Landlock),
];
const SIGNALS: &str = "signals";

const ROLE: &str = "lies::role_deceived";
const CHOSEN: &str = "ISOLATION_LIE";

/// From here on the calling thread, and those that it makes, start neither processes nor threads: not at
/// the moment, as the kernel says to them, so that work for other threads waits for one that is there.
pub(crate) fn start_nothing() {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).expect("a filter");
    for call in ["clone", "clone3", "fork", "vfork"] {
        let call = ScmpSyscall::from_name(call).expect("a call that the library knows");
        filter.add_rule(ScmpAction::Errno(libc::EAGAIN), call).expect("a rule");
    }
    filter.load().expect("a filter in force");
}

/// From here on the kernel answers this call with success and doesn't make it, to the calling thread and
/// what it starts.
pub(crate) fn tell(call: &str, argument: Option<Argument>, keep_privileges: bool) {
    let arguments: Vec<Argument> = argument.into_iter().collect();
    tell_of(call, &arguments, keep_privileges);
}

/// The same, of each call that has one of these arguments; without any, of all.
fn tell_of(call: &str, arguments: &[Argument], keep_privileges: bool) {
    let call = ScmpSyscall::from_name(call).expect("a call that the library knows");
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).expect("a filter");
    let equal = |(at, value)| ScmpArgCompare::new(at, ScmpCompareOp::Equal, value);
    if arguments.is_empty() {
        filter.add_rule(ScmpAction::Errno(0), call).expect("a rule");
    }
    for argument in arguments {
        let equal = [equal(*argument)];
        filter.add_rule_conditional(ScmpAction::Errno(0), call, &equal).expect("a rule");
    }
    filter.set_ctl_nnp(!keep_privileges).expect("a filter");
    filter.load().expect("a filter in force");
}

#[test]
fn what_was_said_and_not_done_refuses_the_cell() {
    for (name, ..) in LIES {
        passes_elsewhere(&["env", &format!("{CHOSEN}={name}")], ROLE);
    }
}

#[tokio::test]
async fn role_deceived() {
    if !plays(ROLE) {
        return;
    }
    let chosen = std::env::var(CHOSEN).expect("a lie");
    let (_, call, argument, layer) =
        LIES.into_iter().find(|(name, ..)| *name == chosen).expect("a known lie");
    if !is_root() && layer == Layer::NoNewPrivileges {
        let why = "only who has the right to takes a filter without the layer itself";
        return untried("a lie about privileges", why);
    }
    tell(call, argument, is_root());
    let launcher = Launcher::start().expect("a zygote");
    // Without what not every host has, which this is not about.
    let strict = Profile::builder(Level::Strict).allow_degraded(true).build().expect("a profile");
    let minimal = Profile::builder(Level::Minimal).build().expect("a profile");
    let of_all = matches!(layer, Layer::Session | Layer::ProcessTree | Layer::NoNewPrivileges);
    // The first one is made for the order, the second one may come from the stock.
    for profile in [&strict, &strict].into_iter().chain(of_all.then_some(&minimal)) {
        match launcher.launch(profile, &Program::new("/bin/true")).await {
            Err(LaunchError::Unavailable {
                layer: refused, reason: Reason::NotInForce, ..
            }) => {
                assert_eq!(refused, layer);
            }
            Ok(cell) if layer == Layer::Landlock => {
                let report = cell.finish().await;
                let is_asked = chosen != SIGNALS || scopes_signals();
                assert!(
                    report.degraded.contains(&layer) || !is_asked,
                    "there is nothing to lie about"
                );
            }
            other => panic!("{chosen}: {other:?}"),
        }
    }
}

/// Whether rules are about signals, which they are from Linux 6.12 on.
fn scopes_signals() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    numbers.take(2).collect::<Vec<_>>() >= vec![6, 12]
}

const BELOW: &str = "lies::role_deceived_below_a_bind";
/// Binds of a profile that the lie is told about the last of: so many that its descriptor has a number
/// which nothing of the cell's root has had.
const BINDS: usize = 31;
const LAST_ONES: std::ops::Range<u64> = 44..256;

#[test]
fn what_was_not_done_below_a_bind_refuses_the_cell() {
    if !is_root() {
        return untried("a lie about what is below a bind", "only root mounts below it");
    }
    passes_elsewhere(&["unshare", "--mount"], BELOW);
}

/// The place itself is as a bind has to be; only what lies below it would need to be restricted.
#[tokio::test]
async fn role_deceived_below_a_bind() {
    if !plays(BELOW) {
        return;
    }
    let (plain, deep) = (Directory::new(), Directory::new());
    for place in [&plain.0, &deep.0] {
        mount(&["-t", "tmpfs", "tmpfs"], place);
    }
    let below = deep.0.join("below place");
    std::fs::create_dir(&below).expect("a directory");
    mount(&["-t", "tmpfs", "tmpfs"], &below);
    for place in [&plain.0, &deep.0] {
        mount(&["-o", "remount,bind,ro,nosuid,nodev"], place);
    }
    let profile = |last: &Path| {
        let others = (1..BINDS).map(|number| format!("/work/{number}"));
        let profile = Profile::builder(Level::Standard).bind_ro(last, "/work/the/last");
        let profile = others.fold(profile, |profile, inside| profile.bind_ro(&plain.0, inside));
        profile.build().expect("a profile")
    };
    let ask = sh("grep -c ' /work/the/last/below.040place ro,nosuid,nodev' /proc/self/mountinfo");
    let launcher = Launcher::start().expect("a zygote");
    let honest = launcher.launch(&profile(&deep.0), &ask).await.expect("a cell").collect().await;
    assert_eq!(honest.stdout, b"1\n", "{honest:?}");
    let numbered: Vec<Argument> = LAST_ONES.map(|number| (0, number)).collect();
    tell_of("mount_setattr", &numbered, true);
    let launcher = Launcher::start().expect("a zygote");
    let told = launcher.launch(&profile(&plain.0), &sh("true")).await.expect("nothing to find");
    assert!(told.finish().await.is_success());
    match launcher.launch(&profile(&deep.0), &sh("true")).await {
        Err(LaunchError::Unavailable { layer, reason: Reason::NotInForce, .. }) => {
            assert_eq!(layer, Layer::PrivateRoot);
        }
        other => panic!("{other:?}"),
    }
    for place in [&plain.0, &deep.0] {
        umount(place);
    }
}

fn mount(how: &[&str], place: &Path) {
    run("mount", how, place);
}

fn umount(place: &Path) {
    run("umount", &["--recursive"], place);
}

fn run(program: &str, how: &[&str], place: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the host's mounts are the test's subject")]
    let done = std::process::Command::new(program).args(how).arg(place).status();
    assert!(done.is_ok_and(|status| status.success()), "{program} {how:?} {}", place.display());
}
