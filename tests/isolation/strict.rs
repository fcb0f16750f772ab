//! What level strict adds: groups, the filter's report, Landlock, and what a report says of limits.
//! Where nobody has given this host's user control groups, strict is refused, which is tested too.

use std::time::Duration;

use neuroflow_sandbox::{
    Collected, End, LaunchError, Layer, Level, Profile, ProfileBuilder, Program, SeccompProfile,
};

use crate::support::{
    Directory, NOBODY, is_root, passes_as_another, passes_elsewhere, perl, plays, sh, try_launch,
};
use crate::untried::untried;

fn strict() -> ProfileBuilder {
    Profile::builder(Level::Strict).wall_time(Duration::from_secs(20))
}

/// Runs a program at strict. `None` where the host can't give the level, which only somebody without
/// privileges may say, and not about groups that were given to them.
async fn run(profile: ProfileBuilder, program: Program) -> Option<Collected> {
    match try_launch(profile, program).await {
        Ok(cell) => Some(cell.collect().await),
        Err(refused) => {
            let may_lack = match refused {
                LaunchError::Unavailable { layer: Layer::OwnIdentity, .. } => true,
                LaunchError::Unavailable { layer: Layer::Cgroup, .. } => {
                    std::env::var_os("ISOLATION_DELEGATED").is_none()
                }
                _ => false,
            };
            assert!(may_lack && !is_root(), "{refused:?}");
            untried("a cell of level strict or paranoid", refused);
            None
        }
    }
}

#[tokio::test]
async fn all_layers_are_in_force() {
    for level in [Level::Strict, Level::Paranoid] {
        let Some(done) = run(Profile::builder(level), sh("true")).await else { return };
        assert!(done.report.is_success());
        assert_eq!(done.report.layers(), level.layers());
        assert_eq!(done.report.degraded, []);
    }
}

#[tokio::test]
async fn refused_calls_are_named() {
    let script = "mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; true";
    let Some(done) = run(strict(), sh(script)).await else { return };
    let named: Vec<(&str, u32)> =
        done.report.denials.iter().map(|denial| (denial.call.as_str(), denial.count)).collect();
    assert!(named.contains(&("mount", 1)) && named.contains(&("unshare", 1)), "{named:?}");
}

#[tokio::test]
async fn a_call_of_another_architecture_ends_the_program() {
    // `int $0x80`, as a program that perl writes: mov eax,20; int 0x80; mov edi,eax; mov eax,60;
    // syscall.
    let program = r#"my $code = "\xb8\x14\0\0\0\xcd\x80\x89\xc7\xb8\x3c\0\0\0\x0f\x05";
        my $elf = "\x7fELF\2\1\1" . "\0" x 9 . pack("S S L Q Q Q L S S S S S S", 2, 62, 1, 0x400078,
        64, 0, 0, 64, 56, 1, 0, 0, 0) . pack("L L Q Q Q Q Q Q", 1, 5, 0, 0x400000, 0x400000,
        120 + length $code, 120 + length $code, 4096) . $code;
        open(my $f, ">", "/work/x"); print $f $elf; close $f; chmod 0755, "/work/x"; exec "/work/x""#;
    let Some(done) = run(strict(), perl(program)).await else { return };
    assert_eq!(done.report.end, End::ForeignCall);
}

#[tokio::test]
async fn memory_is_limited_for_the_cell_as_a_whole() {
    // Each of them stays far below the limit, and waits for the others.
    let many = sh("for i in 1 2 3 4; do \
                   (head -c 12000000 /dev/zero; sleep 30) | tail -c 12000000 > /dev/null & \
                   done; wait; echo alive");
    let Some(done) = run(strict().memory(32 << 20), many).await else { return };
    assert_eq!(done.report.end, End::Memory);
    // Version 1 says so before it kills, and the zygote may be faster then.
    assert!(done.report.group.oom_kills.is_some(), "{:?}", done.report.group);
    let peak = done.report.group.memory_peak_bytes.expect("it's counted");
    assert!((16 << 20..=32 << 20).contains(&peak), "{:?}", done.report.group);
    let files = sh("head -c 60000000 /dev/zero > /work/big; echo alive");
    let done = run(strict().memory(32 << 20), files).await.expect("it was given before");
    assert_eq!(done.report.end, End::Memory, "what is written to memory counts");
}

#[tokio::test]
async fn processes_and_processors_are_limited() {
    let forks = sh(
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done 2>/dev/null; kill %1 2>/dev/null; exit 0",
    );
    let Some(done) = run(strict().processes(4), forks).await else { return };
    assert!(done.report.group.processes_refused.is_some_and(|refused| refused > 0));
    let spin = sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    let done = run(strict().cpu(0.2), spin).await.expect("it was given before");
    assert!(done.report.group.throttled_periods.is_some_and(|periods| periods > 0));
    assert!(done.report.group.cpu_user.is_some() && done.report.group.memory_peak_bytes.is_some());
}

#[tokio::test]
async fn only_processes_are_in_proc() {
    let Some(done) = run(strict(), sh("ls /proc | grep -v '^[0-9]'")).await else { return };
    assert_eq!(done.stdout, b"self\nthread-self\n");
    let nothing = run(Profile::builder(Level::Paranoid), sh("ls -A /proc")).await;
    if let Some(nothing) = nothing {
        assert_eq!(nothing.stdout, b"");
    }
}

#[tokio::test]
async fn paranoid_executes_nothing_that_was_written() {
    let script = "cp /bin/true /work/x && /work/x";
    let Some(done) = run(Profile::builder(Level::Paranoid), sh(script)).await else { return };
    assert_eq!(done.report.end, End::Exited(126));
}

/// One file that is mapped twice would be memory that is written and executed.
#[tokio::test]
async fn paranoid_executes_nothing_that_was_written_to_the_host_or_beside_it_either() {
    let script = format!(
        r#"use Fcntl; sysopen(my $f, "code", O_RDWR | O_CREAT) or die "open: $!"; syswrite $f, "x" x 4096;
           for my $rights (3, 5) {{ my $at = syscall {mmap}, 0, 4096, $rights, 1, fileno $f, 0;
             print $at == -1 ? $! + 0 : "mapped", "\n" }}
           system "cp /bin/true program && chmod +x program" and die; exec {{"./program"}} "program";
           print $! + 0, "\n";"#,
        mmap = libc::SYS_mmap
    );
    let refused = format!("mapped\n{}\n{}\n", libc::EPERM, libc::EACCES);
    for inside in ["/work", "/data"] {
        for is_project in [true, false] {
            let host = Directory::new();
            host.give_to(4321);
            let profile = Profile::builder(Level::Paranoid);
            let profile = if is_project {
                profile.copy_on_write(&host.0, inside)
            } else {
                profile.bind_rw(&host.0, inside)
            };
            let Some(done) = run(profile, perl(&script).directory(inside)).await else { return };
            let text = String::from_utf8_lossy(&done.stdout);
            assert_eq!(text, refused, "{inside}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }
    // What the cell can't write to runs all the same.
    let host = Directory::new();
    let tool = host.file("tool", &std::fs::read("/bin/true").expect("a program"), 0o755);
    let profile = Profile::builder(Level::Paranoid).bind_ro(&tool, "/opt/tool");
    let Some(done) = run(profile, Program::new("/opt/tool")).await else { return };
    assert!(done.report.is_success());
}

#[tokio::test]
async fn an_own_list_of_calls_takes_the_levels_place() {
    let Some(learned) = run(strict().learn(true), Program::new("/bin/true")).await else { return };
    // What lets every call pass is no layer.
    assert!(!learned.report.layers().contains(&Layer::Seccomp));
    assert!(learned.report.degraded.contains(&Layer::Seccomp));
    let list = learned.report.learned.expect("a list");
    let own = SeccompProfile::parse(&list).expect("what was learned can be read");
    let done = run(strict().seccomp(own.clone()), Program::new("/bin/true")).await.expect("a cell");
    assert!(done.report.is_success(), "{list}");
    assert!(done.report.layers().contains(&Layer::Seccomp));
    let other = run(strict().seccomp(own), sh("mkdir /work/x")).await.expect("a cell");
    assert!(!other.report.is_success() && !other.report.denials.is_empty());
}

const WITHOUT_GROUPS: &str = "strict::role_without_groups";

#[test]
fn without_groups_strict_is_refused_or_degraded_on_purpose() {
    if is_root() {
        passes_as_another(&NOBODY, WITHOUT_GROUPS);
    } else {
        passes_elsewhere(&["env"], WITHOUT_GROUPS);
    }
}

#[tokio::test]
async fn role_without_groups() {
    if !plays(WITHOUT_GROUPS) {
        return;
    }
    match try_launch(strict(), sh("true")).await {
        Err(LaunchError::Unavailable { layer: Layer::Cgroup, .. }) => {}
        // Somebody has delegated groups to this user.
        Ok(_) => return untried("a host without groups", "this user has been given some"),
        Err(other) => panic!("{other:?}"),
    }
    let cell = try_launch(strict().allow_degraded(true), sh("true")).await.expect("a lesser cell");
    let report = cell.collect().await.report;
    assert!(report.is_success());
    assert_eq!(report.degraded, [Layer::Cgroup]);
    assert!(!report.layers().contains(&Layer::Cgroup));
}
