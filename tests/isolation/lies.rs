//! A kernel that says yes and does nothing is found out: each layer is read back, and a cell without it
//! is refused, by that layer's name. A filter around the whole host program plays that kernel.

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use neuroflow_sandbox::{LaunchError, Launcher, Layer, Level, Profile, Program, Reason};

use crate::support::{is_root, passes_elsewhere, plays};

/// Which argument of a call, by its place, must have which value.
type Argument = (u32, u64);

/// Calls that are answered and not made, and the layer that has to miss them.
const LIES: [(&str, &str, Option<Argument>, Layer); 8] = [
    ("session", "setsid", None, Layer::Session),
    ("death", "prctl", Some((0, 1)), Layer::ProcessTree),
    ("flags", "mount_setattr", None, Layer::PrivateRoot),
    ("proc", "fsconfig", Some((1, 1)), Layer::PrivateProc),
    ("privileges", "prctl", Some((0, 38)), Layer::NoNewPrivileges),
    ("capabilities", "capset", None, Layer::NoCapabilities),
    ("bounds", "prctl", Some((0, 24)), Layer::NoCapabilities),
    ("rules", "landlock_restrict_self", None, Layer::Landlock),
];

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
    let call = ScmpSyscall::from_name(call).expect("a call that the library knows");
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).expect("a filter");
    let equal = |(at, value)| ScmpArgCompare::new(at, ScmpCompareOp::Equal, value);
    let conditions: Vec<ScmpArgCompare> = argument.map(equal).into_iter().collect();
    filter.add_rule_conditional(ScmpAction::Errno(0), call, &conditions).expect("a rule");
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
    // Who has the right to needn't give privileges up to take a filter, which would be the layer itself.
    if !is_root() && layer == Layer::NoNewPrivileges {
        return;
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
                assert!(report.degraded.contains(&layer), "there is nothing to lie about");
            }
            other => panic!("{chosen}: {other:?}"),
        }
    }
}
