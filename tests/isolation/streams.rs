//! Standard streams, descriptors, environment, arguments.

use neuroflow_sandbox::{Launcher, Output, Program};

use crate::support::{collect, launch, output_of, perl, sh, standard};

#[tokio::test]
async fn only_three_descriptors_are_open() {
    // The directory handle that looks is the fourth.
    let text = output_of(
        standard(),
        perl(r#"opendir(my $d, "/proc/self/fd"); print join " ", sort grep { !/^\./ } readdir $d"#),
    )
    .await;
    assert_eq!(text, "0 1 2 3");
}

#[tokio::test]
async fn the_environment_is_clean() {
    let text = output_of(standard().env("EXTRA", "a=b c"), Program::new("env")).await;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "EXTRA=a=b c",
        "HOME=/work",
        "LANG=C.UTF-8",
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn input_arrives_whole() {
    let input = vec![b'x'; 3 << 20];
    let text = output_of(standard(), Program::new("wc").arg("-c").stdin(input)).await;
    assert_eq!(text.trim(), (3 << 20).to_string());
    assert_eq!(output_of(standard(), Program::new("wc").arg("-c")).await.trim(), "0");
}

#[tokio::test]
async fn input_that_nobody_reads_does_no_harm() {
    let collected = collect(standard(), Program::new("true").stdin(vec![0; 3 << 20])).await;
    assert!(collected.report.is_success());
}

#[tokio::test]
async fn both_streams_come_as_they_are_written() {
    let mut cell =
        launch(standard(), sh("echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three")).await;
    let mut pieces = Vec::new();
    while let Some(piece) = cell.next().await {
        pieces.push(piece);
    }
    let out = |text: &str| Output::Stdout(text.into());
    assert_eq!(pieces, [out("one\n"), Output::Stderr("two\n".into()), out("three\n")]);
    assert!(cell.finish().await.is_success());
}

#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let mut cell =
        launch(standard(), sh("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.05; done")).await;
    let mut bytes = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = crate::support::pause(7) => {}
            piece = cell.next() => match piece {
                Some(Output::Stdout(piece)) => bytes.extend(piece),
                Some(other) => panic!("{other:?}"),
                None => break,
            },
        }
    }
    assert_eq!(bytes, b"1\n2\n3\n4\n5\n6\n7\n8\n");
}

#[tokio::test]
async fn long_arguments_travel_in_a_sealed_file() {
    let long = "y".repeat(100_000);
    let text = output_of(
        standard(),
        sh(r#"printf %s "$1" | wc -c; printf %s "$2""#).args(["sh", &long, "last"]),
    )
    .await;
    assert_eq!(text, "100000\nlast");
}

#[tokio::test]
async fn odd_bytes_pass_unchanged() {
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(vec![0xFF, b'\n', 0xC3, b'"', b'$']);
    let collected = collect(standard(), Program::new("printf").arg("%s").arg(odd)).await;
    assert_eq!(collected.stdout, [0xFF, b'\n', 0xC3, b'"', b'$']);
}

#[test]
fn a_launcher_serves_several_runtimes() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    for _ in 0..3 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let collected = runtime.block_on(async {
            launcher
                .launch(&profile, &Program::new("echo").arg("hi"))
                .await
                .expect("a cell")
                .collect()
                .await
        });
        assert_eq!(collected.stdout, b"hi\n");
    }
}
