//! A level is given as promised, or refused.

use neuroflow_sandbox::{
    End, LaunchError, Launcher, Layer, Level, Program, Reason, Remedy, Switch, Verdict, examine,
};

use crate::support::{
    NOBODY, collect, eventually, is_root, launch, marker, minimal, output_of, passes_as_another,
    passes_elsewhere, perl, plays, processes_with, sh, standard, try_launch,
};
use crate::untried::untried;

#[tokio::test]
async fn the_report_names_the_layers() {
    let report = collect(standard(), sh("true")).await.report;
    assert!(report.layers().contains(&Layer::NetworkNamespace));
    let report = collect(minimal(), sh("true")).await.report;
    assert_eq!(report.level, Level::Minimal);
    assert!(!report.layers().contains(&Layer::NetworkNamespace));
    assert!(report.layers().contains(&Layer::NoNewPrivileges));
}

#[tokio::test]
async fn minimal_gives_its_five_layers() {
    let text = output_of(
        minimal().open_files(40),
        sh("grep ^NoNewPrivs /proc/self/status; ulimit -Hn; ulimit -Hc; env | sort"),
    )
    .await;
    let expected = "NoNewPrivs:\t1\n40\n0\nHOME=/\nLANG=C.UTF-8\n\
                    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nPWD=/\n";
    assert_eq!(text, expected);
    let session = perl(
        r#"print getpgrp() == $$ ? "own" : "shared", open(my $t, "<", "/dev/tty") ? "tty" : """#,
    );
    assert_eq!(output_of(minimal(), session).await, "own");
}

/// A program at level minimal that leaves a daemon, and a daemon of the daemon.
fn daemons(marker: &str, then: &str) -> Program {
    perl(format!(
        r#"use POSIX (); for (1 .. 2) {{ if (!fork) {{ POSIX::setsid(); exit if fork; $SIG{{TERM}} = "IGNORE";
           if (!fork) {{ POSIX::setsid(); exec "sleep", "{marker}" }} exec "sleep", "{marker}" }} }}
           select undef, undef, undef, 0.3; $| = 1; print "ready"; {then}"#
    ))
}

#[tokio::test]
async fn minimal_ends_daemons_with_the_program() {
    let marker = marker();
    let collected = collect(minimal(), daemons(&marker, "exit 3")).await;
    assert_eq!(collected.report.end, End::Exited(3));
    assert_eq!(processes_with(&marker), [0; 0]);
}

#[tokio::test]
async fn minimal_ends_daemons_with_the_handle_and_the_wall_time() {
    let first = marker();
    let mut cell = launch(minimal(), daemons(&first, "sleep 100")).await;
    assert!(cell.next().await.is_some());
    assert_eq!(processes_with(&first).len(), 4);
    drop(cell);
    eventually("the end", || processes_with(&first).is_empty()).await;
    let second = marker();
    let profile = minimal().wall_time(std::time::Duration::from_millis(700));
    assert_eq!(collect(profile, daemons(&second, "sleep 100")).await.report.end, End::WallTime);
    assert_eq!(processes_with(&second), [0; 0]);
}

#[tokio::test]
async fn minimal_ends_daemons_that_have_ended_their_keeper() {
    let marker = marker();
    let launcher = Launcher::start().expect("a zygote");
    let program = daemons(&marker, "kill 9, getppid; sleep 100");
    let cell =
        launcher.launch(&minimal().build().expect("a profile"), &program).await.expect("a cell");
    assert_eq!(cell.finish().await.end, End::Killed);
    eventually("the end", || processes_with(&marker).is_empty()).await;
}

#[tokio::test]
async fn this_host_gives_standard() {
    let findings = examine(Level::Standard).await.expect("findings");
    assert_eq!(findings.len(), Level::Standard.layers().len());
    for finding in findings {
        assert!(finding.is_available(), "{finding:?}");
    }
}

const WITHOUT_NAMESPACES: &str = "levels::role_host_without_user_namespaces";

#[test]
fn a_host_without_user_namespaces_is_diagnosed() {
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@""#;
    passes_elsewhere(
        &["unshare", "--user", "--map-root-user", "sh", "-c", script],
        WITHOUT_NAMESPACES,
    );
}

#[tokio::test]
async fn role_host_without_user_namespaces() {
    if !plays(WITHOUT_NAMESPACES) {
        return;
    }
    match try_launch(standard(), sh("true")).await {
        Err(LaunchError::Unavailable { layer, reason, remedy }) => {
            assert_eq!(layer, Layer::UserNamespace);
            assert_eq!(reason, Reason::Switch(Switch::MaxUserNamespaces));
            assert_eq!(remedy, Remedy::SetSwitch(Switch::MaxUserNamespaces));
        }
        other => panic!("{other:?}"),
    }
    let findings = examine(Level::Standard).await.expect("findings");
    let verdict =
        |layer| findings.iter().find(|finding| finding.layer == layer).expect("a finding").verdict;
    assert!(matches!(verdict(Layer::UserNamespace), Verdict::Missing { .. }));
    assert_eq!(verdict(Layer::PidNamespace), Verdict::Unknown { behind: Layer::UserNamespace });
    assert_eq!(verdict(Layer::PrivateRoot), Verdict::Unknown { behind: Layer::UserNamespace });
    assert_eq!(verdict(Layer::ResourceLimits), Verdict::Available);
    assert!(
        collect(minimal(), sh("true")).await.report.is_success(),
        "minimal needs no namespaces"
    );
}

const WITH_MASKED_PROC: &str = "levels::role_host_with_masked_proc";

#[test]
fn a_host_with_a_masked_proc_is_diagnosed() {
    let script = r#"mount --bind /dev/null /proc/meminfo && exec "$0" "$@""#;
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        script,
    ];
    if is_root() {
        // Whose cells aren't root outside.
        passes_as_another(&[&NOBODY[..], &wrapper].concat(), WITH_MASKED_PROC);
    } else {
        passes_elsewhere(&wrapper, WITH_MASKED_PROC);
    }
}

#[tokio::test]
async fn role_host_with_masked_proc() {
    if !plays(WITH_MASKED_PROC) {
        return;
    }
    match try_launch(standard(), sh("true")).await {
        Err(LaunchError::Unavailable { layer, reason, remedy }) => {
            assert_eq!(layer, Layer::PrivateProc);
            assert_eq!((reason, remedy), (Reason::ProcMasked, Remedy::UnmaskProc));
        }
        other => panic!("{other:?}"),
    }
}

const IN_CONTAINER: &str = "levels::role_host_in_a_container";

#[test]
fn a_root_with_few_ids_still_gives_standard() {
    if !is_root() {
        return untried("a root with few ids", "only root can give a process some");
    }
    let script = format!(
        "my $me = $$; if (!fork) {{ select(undef, undef, undef, 0.02) until readlink('/proc/self/ns/user') ne readlink(\"/proc/$me/ns/user\");
           for my $ids ('uid_map', 'gid_map') {{ open(my $f, '>', \"/proc/$me/$ids\") or die; print $f '0 100000 65536' }} exit }}
         syscall({}, {}) == 0 or die; wait; syscall({}, 0, 0, 0); syscall({}, 0, 0, 0); exec @ARGV",
        libc::SYS_unshare,
        libc::CLONE_NEWUSER,
        libc::SYS_setresgid,
        libc::SYS_setresuid,
    );
    passes_as_another(&["perl", "-e", &script], IN_CONTAINER);
}

#[tokio::test]
async fn role_host_in_a_container() {
    if plays(IN_CONTAINER) {
        let text = output_of(standard(), sh("cut -c1-22 /proc/self/uid_map")).await;
        let outer: u32 = text.split_whitespace().nth(1).expect("an id").parse().expect("a number");
        assert!((32768..65534).contains(&outer), "{text}");
    }
}
