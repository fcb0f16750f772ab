//! What a cell sees of files.

use neuroflow_sandbox::Program;

use crate::support::{collect, output_of, perl, sh, standard};

/// Tries to open each path; prints `open` or the error number.
const OPEN: &str = r#"for (@ARGV) { my $ok = opendir(my $d, $_) || open(my $f, "<", $_); print $ok ? "open" : 0 + $!, "\n" }"#;
/// Tries to make a file at each path; prints `made` or the error number.
const MAKE: &str = r#"for (@ARGV) { print open(my $f, ">", $_) ? "made" : 0 + $!, "\n" }"#;

fn results(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn host_files_are_not_there() {
    let paths = [
        "/etc/shadow",
        "/root",
        "/home",
        "/../../etc/shadow",
        "/var/lib",
        "/sys",
        "/run/systemd",
        "/boot",
    ];
    let text = output_of(standard(), perl(OPEN).args(paths)).await;
    let enoent = libc::ENOENT.to_string();
    assert_eq!(results(&text), vec![enoent.as_str(); paths.len()]);
}

#[tokio::test]
async fn the_first_process_is_no_way_out() {
    let paths = ["/proc/1/root/etc", "/proc/1/cwd", "/proc/1/environ", "/proc/1/fd", "/proc/1/mem"];
    let text = output_of(standard(), perl(OPEN).args(paths)).await;
    // What may not be looked into isn't even listed.
    let enoent = libc::ENOENT.to_string();
    assert_eq!(results(&text), vec![enoent.as_str(); paths.len()]);
}

#[tokio::test]
async fn nothing_outside_of_the_scratch_places_can_be_written() {
    let text = output_of(
        standard(),
        perl(MAKE).args(["/x", "/usr/x", "/etc/x", "/etc/passwd", "/dev/x", "/run/x"]),
    )
    .await;
    let erofs = libc::EROFS.to_string();
    assert_eq!(results(&text), vec![erofs.as_str(); 6]);
    let text =
        output_of(standard(), perl(MAKE).args(["/work/x", "/tmp/x", "/dev/shm/x", "/var/tmp/y"]))
            .await;
    assert_eq!(results(&text), vec!["made"; 4]);
}

#[tokio::test]
async fn kernel_switches_can_not_be_set() {
    let paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/user/max_user_namespaces",
    ];
    let text = output_of(standard(), perl(MAKE).args(paths)).await;
    let eacces = libc::EACCES.to_string();
    assert_eq!(results(&text), vec![eacces.as_str(); paths.len()]);
}

#[tokio::test]
async fn only_harmless_devices_exist() {
    let text = output_of(
        standard(),
        sh("cd /dev && echo *; echo x >/dev/null; head -c3 /dev/zero | wc -c"),
    )
    .await;
    assert_eq!(text, "fd full null random shm stderr stdin stdout urandom zero\n3\n");
    let mknod = format!(
        "my $n = '/work/n'; print syscall({}, -100, $n, 0060644, 0x0801), ' ', 0 + $!",
        libc::SYS_mknodat
    );
    assert_eq!(output_of(standard(), perl(mknod)).await, format!("-1 {}", libc::EPERM));
}

#[tokio::test]
async fn the_working_directory_fills_up() {
    let fill = r#"open(my $f, ">", "/work/f"); binmode $f; my $n = 0;
        while (1) { my $w = syswrite($f, "x" x 65536); defined $w ? ($n += $w) : last } print 0 + $!, " $n""#;
    let text = output_of(standard().workdir_size(1 << 20), perl(fill)).await;
    assert_eq!(text, format!("{} {}", libc::ENOSPC, 1 << 20));
}

#[tokio::test]
async fn inodes_run_out_too() {
    let fill = r#"my $n = 0; while (open(my $f, ">", "/work/$n")) { $n++ } print 0 + $!, " ", $n < 70000 ? "few" : "many""#;
    assert_eq!(output_of(standard(), perl(fill)).await, format!("{} few", libc::ENOSPC));
}

#[tokio::test]
async fn cells_do_not_share_scratch_places() {
    let leave = sh("echo secret | tee /work/left /tmp/left >/dev/shm/left");
    assert!(collect(standard(), leave).await.report.is_success());
    let text = output_of(standard(), sh("ls -A /work /tmp /dev/shm")).await;
    assert!(!text.contains("left"), "{text}");
}

#[tokio::test]
async fn the_root_is_the_end_of_the_world() {
    let climb = r#"for (1 .. 30) { chdir ".." } opendir(my $d, "."); print join " ", sort grep { !/^\./ } readdir $d"#;
    let text = output_of(standard(), perl(climb)).await;
    assert!(text.contains("usr") && text.contains("work") && !text.contains("root"), "{text}");
    let chroot = perl(r#"print chroot("/tmp") ? "changed" : 0 + $!"#);
    assert_eq!(output_of(standard(), chroot).await, libc::EPERM.to_string());
}

#[tokio::test]
async fn the_cell_has_a_name_and_a_user() {
    let text = output_of(standard(), sh("uname -n; id; pwd")).await;
    assert_eq!(text, "cell\nuid=1000(cell) gid=1000(cell) groups=1000(cell)\n/work\n".to_owned());
    let text = output_of(standard(), Program::new("pwd").directory("/tmp")).await;
    assert_eq!(text, "/tmp\n");
}
