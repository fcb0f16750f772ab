//! What a cell may do: nothing that takes a privilege.

use crate::support::{is_root, output_of, perl, sh, standard};
use crate::untried::untried;

/// A perl program that makes one system call and prints the error number.
fn call(number: libc::c_long, arguments: &str) -> String {
    format!("my @a = ({arguments}); print syscall({number}, @a) == -1 ? 0 + $! : 'done'")
}

#[tokio::test]
async fn no_capability_is_left() {
    let text = output_of(
        standard(),
        sh("grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '[:space:]'"),
    )
    .await;
    let none = "0".repeat(16);
    assert_eq!(
        text,
        format!("CapInh:{none}CapPrm:{none}CapEff:{none}CapBnd:{none}CapAmb:{none}NoNewPrivs:1")
    );
    let bits = format!("print syscall({}, 27, 0, 0, 0, 0)", libc::SYS_prctl);
    assert_eq!(output_of(standard(), perl(bits)).await, 0xEF.to_string());
}

#[tokio::test]
async fn mounts_are_refused() {
    let eperm = libc::EPERM.to_string();
    for program in [
        call(libc::SYS_mount, "'x', '/tmp', 'tmpfs', 0, 0"),
        call(libc::SYS_umount2, "'/proc', 2"),
        call(libc::SYS_pivot_root, "'/work', '/work'"),
        call(libc::SYS_fsopen, "'tmpfs', 0"),
        call(libc::SYS_sethostname, "'x', 1"),
        call(libc::SYS_unshare, &libc::CLONE_NEWNS.to_string()),
        call(libc::SYS_unshare, &libc::CLONE_NEWNET.to_string()),
    ] {
        assert_eq!(output_of(standard(), perl(program.clone())).await, eperm, "{program}");
    }
}

#[tokio::test]
async fn no_further_user_namespaces() {
    let text =
        output_of(standard(), perl(call(libc::SYS_unshare, &libc::CLONE_NEWUSER.to_string())))
            .await;
    assert_eq!(text, libc::EPERM.to_string());
}

#[tokio::test]
async fn keyrings_are_not_shared() {
    // KEYCTL_DESCRIBE of the session keyring.
    let text = output_of(standard(), perl(call(libc::SYS_keyctl, "6, -3, 0, 0"))).await;
    assert_eq!(text, libc::EPERM.to_string());
}

#[tokio::test]
async fn ids_can_not_be_changed() {
    for program in
        [call(libc::SYS_setuid, "0"), call(libc::SYS_setgid, "0"), call(libc::SYS_setuid, "1001")]
    {
        assert_eq!(output_of(standard(), perl(program)).await, libc::EINVAL.to_string());
    }
    let text = output_of(standard(), perl(call(libc::SYS_setgroups, "0, 0"))).await;
    assert_eq!(text, libc::EPERM.to_string());
}

#[tokio::test]
async fn one_id_is_mapped_and_it_is_not_roots() {
    let text = output_of(standard(), sh("cat /proc/self/uid_map /proc/self/gid_map")).await;
    for line in text.lines() {
        let fields: Vec<u32> =
            line.split_whitespace().map(|field| field.parse().expect("a number")).collect();
        assert!(fields[0] == 1000 && fields[1] > 0 && fields[2] == 1, "{line}");
        if is_root() {
            assert!(fields[1] >= neuroflow_sandbox::limits::FIRST_CELL_ID, "{line}");
        }
    }
    assert_eq!(text.lines().count(), 2);
}

#[tokio::test]
async fn neighbours_have_different_ids() {
    if !is_root() {
        return untried("cells with different ids", "only root has more than one to give");
    }
    let launcher = neuroflow_sandbox::Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    let mut maps = Vec::new();
    for _ in 0..3 {
        let cell = launcher.launch(&profile, &sh("cat /proc/self/uid_map")).await.expect("a cell");
        maps.push(cell.collect().await.stdout);
    }
    assert!(maps[0] != maps[1] && maps[1] != maps[2], "{maps:?}");
}

#[tokio::test]
async fn groups_of_the_host_are_given_up() {
    if !is_root() {
        return untried("groups that are given up", "only root can give them up");
    }
    let text =
        output_of(standard(), sh("grep ^Groups: /proc/self/status | tr -d '[:space:]'")).await;
    assert_eq!(text, "Groups:");
}
