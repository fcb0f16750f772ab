//! What a cell sees of processes.

use neuroflow_sandbox::End;

use crate::support::{collect, output_of, perl, sh, standard};

#[tokio::test]
async fn only_the_cells_own_processes_are_listed() {
    let list = r#"opendir(my $d, "/proc"); print join " ", sort { $a <=> $b } grep { /^\d+$/ } readdir $d"#;
    // The first process can't be looked into, so it isn't listed.
    assert_eq!(output_of(standard(), perl(list)).await, "2");
}

#[tokio::test]
async fn the_first_process_shrugs_signals_off() {
    let text = output_of(
        standard(),
        sh("for s in KILL STOP TERM INT SEGV; do kill -$s 1; done; echo alive"),
    )
    .await;
    assert_eq!(text, "alive\n");
}

#[tokio::test]
async fn the_first_process_can_not_be_traced() {
    let seize = format!("print syscall({}, 0x4206, 1, 0, 0), ' ', 0 + $!", libc::SYS_ptrace);
    assert_eq!(output_of(standard(), perl(seize)).await, format!("-1 {}", libc::EPERM));
    let steal = format!(
        "my $p = syscall({}, 1, 0); print syscall({}, $p, 3, 0), ' ', 0 + $!",
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd
    );
    assert_eq!(output_of(standard(), perl(steal)).await, format!("-1 {}", libc::EPERM));
}

/// Calls that take processor time from a process, with what they answer: for the process `$p`.
pub(crate) fn slow_down() -> String {
    format!(
        r#"my $one = pack("Q", 1); my $none = pack("L", 0);
        my @slowed = map {{ 0 + $_ }} (syscall({}, $p, 8, $one), syscall({}, 0, $p, 19),
            syscall({}, $p, 5, $none));"#,
        libc::SYS_sched_setaffinity,
        libc::SYS_setpriority,
        libc::SYS_sched_setscheduler
    )
}

#[tokio::test]
async fn the_first_process_can_not_be_slowed_down_and_others_can() {
    let try_both = |of: &str| perl(format!("my $p = {of}; {} print \"@slowed\"", slow_down()));
    assert_eq!(output_of(standard(), try_both("1")).await, "-1 -1 -1");
    assert_eq!(output_of(standard(), try_both("(1 << 32) + 1")).await, "-1 -1 -1");
    // A thread's own number is what libc gives for it.
    assert_eq!(output_of(standard(), try_both("$$")).await, "0 0 0");
    assert_eq!(output_of(standard(), try_both("0")).await, "0 0 0");
    // Those of the user, and those of the group of processes that the first one may be in.
    let many =
        format!("print join ' ', map {{ syscall({}, $_, 0, 19) }} (1, 2)", libc::SYS_setpriority);
    assert_eq!(output_of(standard(), perl(many)).await, "-1 -1");
}

#[tokio::test]
async fn orphans_are_reaped_inside() {
    let script = "for i in 1 2 3 4 5; do (true & ) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(output_of(standard(), sh(script)).await, "0\n");
}

#[tokio::test]
async fn status_and_signal_are_told_apart() {
    assert_eq!(collect(standard(), sh("exit 3")).await.report.end, End::Exited(3));
    assert_eq!(collect(standard(), sh("exit 137")).await.report.end, End::Exited(137));
    assert_eq!(
        collect(standard(), sh("kill -KILL $$")).await.report.end,
        End::Signalled(libc::SIGKILL)
    );
}

#[tokio::test]
async fn signals_have_their_standard_meaning() {
    let text = output_of(
        standard(),
        sh("cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)' | tr -d '[:space:]'"),
    )
    .await;
    assert_eq!(text, "SigBlk:0000000000000000SigIgn:0000000000000000SigCgt:0000000000000000");
}

#[tokio::test]
async fn the_session_is_new_and_has_no_terminal() {
    let text = output_of(
        standard(),
        perl(r#"print getppid(), " ", getpgrp(), " ", open(my $t, "<", "/dev/tty") ? 1 : 0"#),
    )
    .await;
    assert_eq!(text, "1 2 0");
}
