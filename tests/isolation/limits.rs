//! What a cell may use up.

use std::time::Duration;

use neuroflow_sandbox::{End, LaunchError, Launcher, Level, Profile, Truncated};

use crate::support::{collect, is_root, now, output_of, perl, sh, standard, try_launch};
use crate::untried::untried;

#[tokio::test]
async fn the_wall_time_ends_a_cell() {
    let begun = now();
    let collected =
        collect(standard().wall_time(Duration::from_millis(300)), sh("echo a; sleep 100")).await;
    assert_eq!(collected.report.end, End::WallTime);
    assert_eq!(collected.stdout, b"a\n");
    assert!(
        begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(10)
    );
}

#[tokio::test]
async fn the_wall_time_counts_while_nobody_listens() {
    let cell =
        crate::support::launch(standard().wall_time(Duration::from_millis(200)), sh("sleep 100"))
            .await;
    crate::support::pause(1500).await;
    let begun = now();
    assert_eq!(cell.finish().await.end, End::WallTime);
    assert!(begun.elapsed() < Duration::from_millis(500), "it had ended long before");
}

#[tokio::test]
async fn a_flood_of_output_ends_a_cell() {
    let collected = collect(standard().output(100_000), sh("yes >&2")).await;
    assert_eq!(collected.report.end, End::OutputLimit);
    assert_eq!(collected.report.truncated, Truncated { stdout: false, stderr: true });
    assert_eq!(collected.stderr.len(), 100_000);
}

#[tokio::test]
async fn output_up_to_the_limit_is_fine() {
    let collected = collect(standard().output(4096), sh("head -c 4096 /dev/zero")).await;
    assert_eq!(collected.report.end, End::Exited(0));
    assert_eq!(collected.stdout.len(), 4096);
    let collected = collect(standard().output(4095), sh("head -c 4096 /dev/zero")).await;
    assert_eq!((collected.report.end, collected.stdout.len()), (End::OutputLimit, 4095));
}

#[tokio::test]
async fn memory_is_limited_per_process() {
    let collected =
        collect(standard().memory(64 << 20), perl(r#"my $x = "x" x 200_000_000; print "got it""#))
            .await;
    assert!(!collected.report.is_success() && collected.stdout.is_empty());
    assert!(String::from_utf8_lossy(&collected.stderr).contains("Out of memory"));
}

#[tokio::test]
async fn a_fork_bomb_stays_small() {
    let bomb = r#"my $n = 0; while (defined(my $p = fork)) { if (!$p) { sleep 100 } $n++ } print 0 + $!, " $n""#;
    let text = output_of(standard().processes(10), perl(bomb)).await;
    assert_eq!(text, format!("{} 9", libc::EAGAIN), "the program itself is the tenth");
}

#[tokio::test]
async fn files_and_descriptors_are_limited() {
    let collected =
        collect(standard().file_size(1 << 16), sh("head -c 100000 /dev/zero >/work/f")).await;
    assert_ne!(collected.report.end, End::Exited(0));
    let open =
        r#"my @f; while (open(my $f, "<", "/dev/null")) { push @f, $f } print 0 + $!, " ", 3 + @f"#;
    assert_eq!(
        output_of(standard().open_files(32), perl(open)).await,
        format!("{} 32", libc::EMFILE)
    );
}

#[tokio::test]
async fn limits_are_hard_ones() {
    let text = output_of(
        standard().open_files(50),
        sh("ulimit -Hn; ulimit -Hc; ulimit -n 51 2>&1 || echo refused"),
    )
    .await;
    assert!(text.starts_with("50\n0\n") && text.ends_with("refused\n"), "{text}");
}

/// Soft and hard value of each row of a `/proc/self/limits`.
fn limits_of(text: &str) -> Vec<(String, [String; 2])> {
    let rows = text.lines().skip(1).map(|line| {
        let (name, values) = line.split_at(25);
        let mut values = values.split_whitespace().map(ToOwned::to_owned);
        let [soft, hard] = std::array::from_fn(|_| values.next().expect("a value"));
        (name.trim_end().to_owned(), [soft, hard])
    });
    rows.collect()
}

#[tokio::test]
async fn limits_are_all_sixteen_that_there_are() {
    let own = limits_of(&std::fs::read_to_string("/proc/self/limits").expect("limits"));
    let inside = limits_of(&output_of(standard(), sh("cat /proc/self/limits")).await);
    let set = [
        ("Max cpu time", Some(21 * 64)),
        ("Max file size", Some(256 << 20)),
        ("Max data size", Some(1 << 30)),
        ("Max stack size", Some(8 << 20)),
        ("Max core file size", Some(1)),
        // No kernel with namespaces heeds this one and that about locks.
        ("Max resident set", None),
        ("Max processes", Some(65)),
        ("Max open files", Some(256)),
        ("Max locked memory", Some(64 << 10)),
        ("Max address space", Some(1 << 30)),
        ("Max file locks", None),
        ("Max pending signals", Some(1024)),
        ("Max msgqueue size", Some(64 << 10)),
        ("Max nice priority", Some(0)),
        ("Max realtime priority", Some(0)),
        ("Max realtime timeout", Some(0)),
    ];
    assert_eq!(inside.len(), set.len(), "{inside:?}");
    for (((name, inside), (known, own)), (expected, value)) in inside.iter().zip(&own).zip(set) {
        assert_eq!((name.as_str(), known.as_str()), (expected, expected));
        match value {
            None => assert_eq!(inside, own, "{name}"),
            // Nobody gets more than the host has.
            Some(value) => {
                let value: u64 = own[1].parse().map_or(value, |most: u64| value.min(most));
                assert_eq!(*inside, [value.to_string(), value.to_string()], "{name}");
            }
        }
    }
}

#[tokio::test]
async fn no_core_is_dumped_into_a_file_or_a_program() {
    let text =
        output_of(standard(), sh("grep 'core file size' /proc/self/limits | tr -s ' '")).await;
    assert_eq!(text, "Max core file size 1 1 bytes \n");
}

#[tokio::test]
async fn usage_is_reported() {
    let burn = perl("my $x; $x += $_ for 1 .. 3_000_000");
    let report = collect(standard(), burn).await.report;
    assert!(
        report.usage.user + report.usage.system >= Duration::from_millis(20),
        "{:?}",
        report.usage
    );
    assert!(report.usage.peak_resident_bytes >= 1 << 20);
    assert!(report.stages.total() > Duration::ZERO);
}

/// Processor time of what is killed, or left behind, is told by nobody but the group.
#[tokio::test]
async fn usage_of_what_nobody_waited_for_is_reported() {
    let busy = "while :; do :; done";
    for (script, end) in [
        (busy.to_owned(), End::WallTime),
        (format!("({busy}) & ({busy}) & exec sleep 1"), End::Exited(0)),
    ] {
        let strict = Profile::builder(Level::Strict).wall_time(Duration::from_millis(1500));
        let report = match try_launch(strict, sh(script)).await {
            Ok(cell) => cell.finish().await,
            Err(unavailable @ LaunchError::Unavailable { .. }) if !is_root() => {
                return untried("usage of what nobody waited for", unavailable);
            }
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(report.end, end);
        let used = report.usage.user + report.usage.system;
        if report.group.cpu_user.is_some() {
            // Many times what a shell takes to start, and little enough for a busy machine.
            assert!(used >= Duration::from_millis(50), "{used:?}");
        }
        let peak = report.group.memory_peak_bytes.unwrap_or_default();
        assert!(report.usage.peak_resident_bytes >= peak, "{:?}", report.usage);
    }
}

/// Groups go from one cell to the next.
#[tokio::test]
async fn a_cells_account_says_nothing_of_the_cells_before() {
    let launcher = Launcher::start().expect("the zygote starts");
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    let greedy = "for i in 1 2 3 4 5 6 7 8; do sleep 0.6 & done; i=0; \
                  while [ $i -lt 100000 ]; do i=$((i+1)); done; \
                  head -c 24000000 /dev/zero > /work/big; wait";
    // Enough of them that each group has had a greedy one in it.
    for round in 0..24 {
        let (script, is_greedy) = if round % 3 == 0 { (greedy, true) } else { ("exit 0", false) };
        let report = match launcher.launch(&profile, &sh(script)).await {
            Ok(cell) => cell.finish().await,
            Err(unavailable @ LaunchError::Unavailable { .. }) if !is_root() => {
                return untried("accounts of cells one after the other", unavailable);
            }
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(report.end, End::Exited(0));
        let group = &report.group;
        let is_as_it_was = |counted: Option<u64>, much: u64| {
            counted.is_none_or(|counted| (counted >= much) == is_greedy)
        };
        assert!(is_as_it_was(group.processes_peak, 8), "{round}: {group:?}");
        assert!(is_as_it_was(group.memory_peak_bytes, 20 << 20), "{round}: {group:?}");
        assert_eq!(group.limits_hit(), [], "{round}: {group:?}");
        let used = group.cpu_user.unwrap_or_default() + group.cpu_system.unwrap_or_default();
        // The seventh of the greedy ones would have been in seven modest ones' account.
        assert!(is_greedy || used < Duration::from_millis(200), "{round}: {group:?}");
    }
}
