//! Groups above a cell's own that are out of memory, and whose cells that ends.

use std::time::Duration;

use neuroflow_sandbox::{End, Launcher, Level, Profile, ProfileBuilder};

use crate::support::{is_root, passes_elsewhere, perl, plays, sh};
use crate::untried::{not_here, untried};

const CROWDED: &str = "memory::role_crowded";
/// Runs what it is given in a group of version 1 of its own that may have 220 MiB, if there can be one.
const IN_A_SMALL_GROUP: &str = r#"
    own=$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
    home=/sys/fs/cgroup/memory$own
    [ -n "$own" ] && [ -e "$home/memory.limit_in_bytes" ] || exec "$0" "$@"
    small=$home/isolation-$$
    mkdir "$small" && echo 230686720 >"$small/memory.limit_in_bytes" || exit 1
    echo 230686720 >"$small/memory.memsw.limit_in_bytes" 2>/dev/null
    echo $$ >"$small/cgroup.procs"
    ISOLATION_SMALL=yes "$0" "$@"
    code=$?
    echo $$ >"$home/cgroup.procs"
    for again in 1 2 3 4 5 6 7 8 9; do
        find "$small" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -e "$small" ] || break
        sleep 0.2
    done
    exit $code
"#;

#[test]
fn a_group_above_that_is_out_of_memory_ends_only_whom_the_kernel_ends() {
    if !is_root() {
        return untried("a group above that is out of memory", "only root makes one");
    }
    passes_elsewhere(&["sh", "-c", IN_A_SMALL_GROUP], CROWDED);
}

#[tokio::test]
async fn role_crowded() {
    if !plays(CROWDED) {
        return;
    }
    if std::env::var_os("ISOLATION_SMALL").is_none() {
        let why = "it's made in version 1 of control groups, which this host hasn't";
        return not_here("a group above that is out of memory", why);
    }
    let launcher = Launcher::start().expect("a zygote");
    let built = |profile: ProfileBuilder| profile.build().expect("a profile");
    let strict = || Profile::builder(Level::Strict).wall_time(Duration::from_secs(30));
    let quiet = built(strict());
    let greedy = built(strict().memory(512 << 20));
    let modest = built(strict().memory(64 << 20));
    let take = |mebibytes: u32| perl(format!("my $x = 'x' x ({mebibytes} << 20); print 'had it'"));
    // Longer than an alarm is looked after.
    let quiet = launcher.launch(&quiet, &sh("sleep 4; echo fine")).await.expect("a cell");
    let greedy = launcher.launch(&greedy, &take(400)).await.expect("a cell").collect().await;
    assert_eq!((greedy.report.end, greedy.stdout.as_slice()), (End::Memory, &b""[..]));
    let quiet = quiet.collect().await;
    assert_eq!((quiet.report.end, quiet.stdout.as_slice()), (End::Exited(0), &b"fine\n"[..]));
    // Its own want of memory ends a cell whole, also where the kernel ends another than the program.
    let script = "perl -e 'my $x = \"x\" x (400 << 20)'; sleep 20";
    let modest = launcher.launch(&modest, &sh(script)).await.expect("a cell").finish().await;
    assert_eq!(modest.end, End::Memory);
}
