//! `exec`: output as it comes, input, and the exit codes that shells have.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::scene::{Running, Scratch};

/// Runs a line of shell in a cell.
fn shell(scratch: &Scratch, line: &str) -> crate::scene::Ran {
    scratch.output(&["exec", "--", "/bin/sh", "-c", line])
}

#[test]
fn the_exit_code_is_the_program_s() {
    let scratch = Scratch::new();
    for (line, code) in [("true", 0), ("exit 7", 7), ("exit 255", 255)] {
        assert_eq!(shell(&scratch, line).code, code, "{line}");
    }
    assert_eq!(shell(&scratch, "kill -TERM $$").code, 128 + 15);
    assert_eq!(shell(&scratch, "kill -KILL $$").code, 128 + 9);
}

/// More memory than a small cell has.
const HOG: &str = "exec head -c 100000000 /dev/zero | tail";

#[test]
fn what_is_not_the_program_s_doing_has_its_own_codes() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["exec", "--timeout", "300ms", "--", "sleep", "60"]);
    assert_eq!(ran.code, 124, "{ran:?}");
    let ran = scratch.output(&["exec", "--timeout", "1ms", "--", "sleep", "60"]);
    assert_eq!(ran.code, 124, "also if the cell isn't ready by then: {ran:?}");
    scratch.output(&["exec", "--", "/no/such/program"]).failed_with(127, &["/no/such/program"]);
    scratch.output(&["exec", "--", "/etc/passwd"]).failed_with(126, &["/etc/passwd"]);
    let poor = scratch.output_without_namespaces(&["exec", "--", "true"]);
    poor.failed_with(125, &["user namespace", "doctor", "--level"]);
    let spoilt = scratch.output(&["exec", "--sandbox-memory=16MiB", "--", "sh", "-c", HOG]);
    spoilt.failed_with(137, &["sandbox.memory"]);
    let ran = scratch.output(&["exec", "--sandbox-output=1KiB", "--", "yes"]);
    ran.failed_with(125, &["sandbox.output"]);
    let ran = scratch.output(&["exec", "--sandbox-memory=much", "--", "true"]);
    ran.failed_with(125, &["sandbox.memory", "--sandbox-memory", "512MiB"]);
    assert_eq!(scratch.output(&["exec"]).code, 2);
}

#[test]
fn streams_are_kept_apart_and_input_is_passed() {
    let scratch = Scratch::new();
    let ran = shell(&scratch, "echo out; echo err >&2");
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let input = b"b\na\n".repeat(50_000);
    let ran = scratch.output_with(&input, &["exec", "--", "sort", "-u"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("a\nb\n", 0), "{}", ran.stderr);
}

#[test]
fn input_that_does_not_end_is_not_waited_for() {
    let scratch = Scratch::new();
    let mut command = scratch.neuroflow(&["exec", "--timeout", "300ms", "--", "cat"]);
    let child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let _open = running.0.stdin.take();
    assert_eq!(running.exit_code(), 124);
    assert!(running.stderr().contains("/dev/null"));
}

#[test]
fn it_runs_in_a_cell() {
    let scratch = Scratch::new();
    let ran = shell(&scratch, "id -u; pwd; ls /proc | grep -c '^[0-9]'");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..2], ["1000", "/work"]);
    assert!(lines[2].parse::<u32>().unwrap() < 8, "only the cell's own processes are seen");
}

#[test]
fn a_folder_that_is_worked_in_does_not_decide_how() {
    let scratch = Scratch::new();
    let planted = "[sandbox]\nlevel = \"minimal\"\n\
                   [mcp.x]\ncommand = \"/bin/sh\"\ncell = \"off\"\nagents = [\"*\"]\n";
    let file = scratch.file("neuroflow.toml", planted);
    for secret in ["/etc/shadow", &file] {
        let ran = scratch.output(&["exec", "--project", ".", "--", "cat", secret]);
        assert_ne!(ran.code, 0, "{secret}: {ran:?}");
        assert_eq!(ran.stdout, "", "{secret}");
        assert!(ran.stderr.contains("neuroflow.toml in the current directory isn't read"));
    }
    let ran = scratch.output(&["tools"]);
    assert!(ran.code == 0 && !ran.stdout.contains("mcp/x"), "{ran:?}");
}

#[test]
fn output_comes_as_it_is_written_and_a_signal_ends_the_cell() {
    let scratch = Scratch::new();
    let mut command = scratch.neuroflow(&["exec", "--", "sh", "-c", "echo first; sleep 600"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    running.signal("INT");
    assert_eq!(running.exit_code(), 130);
}

#[test]
fn a_reader_that_does_not_read_holds_up_neither_the_time_limit_nor_a_signal() {
    let scratch = Scratch::new();
    let start = |arguments: &[&str]| {
        let mut command = scratch.neuroflow(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running(child.unwrap())
    };
    let mut running = start(&["exec", "--timeout", "1s", "--", "yes"]);
    assert_eq!(running.exit_code(), 124);
    for arguments in [&["exec", "--", "yes"][..], &["exec", "--", "sh", "-c", "yes >&2"]] {
        let mut running = start(arguments);
        // Until it has filled the pipe that nobody empties.
        std::thread::sleep(std::time::Duration::from_secs(2));
        running.signal("TERM");
        assert_eq!(running.exit_code(), 143);
    }
    // What has ended by itself is heard out, however long that takes.
    let line = "head -c 200000 /dev/zero; exit 4";
    let mut running = start(&["exec", "--timeout", "4s", "--", "sh", "-c", line]);
    let mut stdout = running.0.stdout.take().unwrap();
    let mut first = vec![0; 120_000];
    stdout.read_exact(&mut first).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!((first.len() + rest.len(), running.exit_code()), (200_000, 4));
}

#[test]
fn the_report_is_json() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["exec", "--json", "--", "sh", "-c", "echo out; echo e >&2; exit 3"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ended"], "exited");
    assert_eq!(report["exit_code"], 3);
    assert_eq!(report["stdout"], "out\n");
    assert_eq!(report["stderr"], "e\n");
    assert_eq!(report["level"], "strict");
    assert_eq!(report["boundary"], "the host's kernel");
    let ran = scratch.output(&["exec", "--json", "--", "mount", "-t", "tmpfs", "x", "/tmp"]);
    let refused: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(refused["denied"]["mount"], 1, "{refused}");
    let ran = scratch.output(&["exec", "--json", "--timeout", "1s", "--", "sleep", "60"]);
    assert_eq!(ran.code, 124, "{ran:?}");
    assert!(ran.stdout.contains("\"wall_time\""), "{}", ran.stdout);
}

#[test]
fn a_profile_is_learned_and_then_enforced() {
    let scratch = Scratch::new();
    let learned = scratch.path("learned.toml");
    let learned = learned.to_str().unwrap();
    let ran = scratch.output(&["exec", "--learn", learned, "--", "ls", "/"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = std::fs::read_to_string(learned).unwrap();
    assert!(text.contains("getdents64") && !text.contains("socket"), "{text}");
    let ran = scratch.output(&["exec", "--seccomp", learned, "--", "ls", "/"]);
    assert_eq!((ran.code, ran.stdout.contains("work")), (0, true), "{ran:?}");
    let other = ["exec", "--json", "--seccomp", learned, "--", "mkdir", "x"];
    let report: serde_json::Value = serde_json::from_str(&scratch.output(&other).stdout).unwrap();
    assert_eq!(report["denied"]["mkdir"], 1, "{report}");
    let broken = scratch.file("broken.toml", "version = 1\nname = \"x\"\ncals = []\n");
    let ran = scratch.output(&["exec", "--seccomp", &broken, "--", "true"]);
    ran.failed_with(125, &["broken.toml", "cals"]);
}

#[test]
fn a_project_is_copied_and_changed_only_on_purpose() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("project")).unwrap();
    let file = scratch.file("project/file", "old\n");
    let project = scratch.path("project");
    let project = project.to_str().unwrap();
    let change = ["--", "sh", "-c", "echo new > file; touch other"];
    let mut arguments = vec!["exec", "--project", project];
    let ran = scratch.output(&[arguments.as_slice(), &change].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("modified  file\n") && ran.stderr.contains("added     other\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old\n");
    arguments.push("--apply");
    scratch.output(&[arguments.as_slice(), &change].concat());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
}

/// A project with one file, `keep`, and how it's given.
fn project(scratch: &Scratch) -> (String, String) {
    std::fs::create_dir(scratch.path("project")).expect("a fresh directory");
    let keep = scratch.file("project/keep", "old\n");
    (scratch.path("project").to_str().expect("a plain path").to_owned(), keep)
}

#[test]
fn a_program_that_did_not_end_by_itself_with_success_changes_nothing() {
    let scratch = Scratch::new();
    let (project, keep) = project(&scratch);
    let given = ["exec", "--project", &project, "--apply", "--timeout", "2s", "--", "sh", "-c"];
    for (line, code, why) in [
        (": > keep; sleep 100", 124, "time was over"),
        (": > keep; exit 3", 3, "status 3"),
        (": > keep; kill -KILL $$", 137, "by itself"),
    ] {
        let ran = scratch.output(&[&given[..], &[line]].concat());
        ran.failed_with(code, &["modified  keep\n", "nothing was applied", why]);
        assert_eq!(std::fs::read_to_string(&keep).unwrap(), "old\n", "{line}");
    }
}

#[test]
fn a_program_that_is_interrupted_changes_nothing() {
    let scratch = Scratch::new();
    let (project, keep) = project(&scratch);
    let line = ": > keep; echo here; sleep 600";
    let mut command =
        scratch.neuroflow(&["exec", "--project", &project, "--apply", "--", "sh", "-c", line]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let mut said = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    running.signal("INT");
    assert_eq!((said.as_str(), running.exit_code()), ("here\n", 130));
    let listed = running.stderr();
    assert!(listed.contains("modified  keep\n") && listed.contains("SIGINT"), "{listed}");
    assert_eq!(std::fs::read_to_string(&keep).unwrap(), "old\n");
}

#[test]
fn changes_of_which_one_is_refused_are_not_applied() {
    let scratch = Scratch::new();
    let (project, keep) = project(&scratch);
    let change = ["--", "sh", "-c", "echo new > keep; mkfifo pipe"];
    let given = ["exec", "--project", &project];
    let ran = scratch.output(&[&given[..], &change].concat());
    assert_eq!(ran.code, 0, "nothing was to be applied: {ran:?}");
    let ran = scratch.output(&[&given[..], &["--apply"], &change].concat());
    let told = ["modified  keep\n", "refused   pipe (Fifo)\n", "nothing was applied: 1 of"];
    ran.failed_with(125, &told);
    assert_eq!(std::fs::read_to_string(&keep).unwrap(), "old\n");
}

#[test]
fn what_was_changed_beside_the_program_is_not_overwritten() {
    let scratch = Scratch::new();
    let (project, keep) = project(&scratch);
    std::fs::create_dir(scratch.path("project/dir")).unwrap();
    let old = scratch.file("project/dir/old", "old\n");
    std::fs::create_dir(scratch.path("beside")).unwrap();
    let beside = scratch.path("beside");
    let beside = beside.to_str().unwrap();
    let line = format!(
        "echo two >> keep; rm -r dir; echo more > other; echo here
         while [ ! -e {beside}/go ]; do sleep 0.1; done"
    );
    let project = project.as_str();
    let given = ["exec", "--project", project, "--apply", "--bind-ro", beside, "--", "sh", "-c"];
    let mut command = scratch.neuroflow(&[&given[..], &[&line]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let mut said = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "here\n");
    std::fs::write(&keep, "old\nmine\n").unwrap();
    // In a directory that is gone in the cell; and what the program waits for.
    let new = scratch.file("project/dir/new", "mine\n");
    scratch.file("beside/go", "");
    assert_eq!(running.exit_code(), 125);
    let said = running.stderr();
    assert!(
        said.contains("meanwhile") && said.contains("keep") && said.contains("dir/new"),
        "{said}"
    );
    let text = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_eq!(
        (text(&keep), text(&old), text(&new)),
        ("old\nmine\n".into(), "old\n".into(), "mine\n".into())
    );
    assert!(!scratch.path("project/other").exists(), "nothing is applied in part");
    // What was changed before doesn't matter, nor what the program leaves alone.
    let line = "echo three >> keep; rm -r dir; mkdir fresh; echo x > fresh/file; ln -s keep link";
    let given = ["exec", "--project", project, "--apply", "--", "sh", "-c", line];
    let ran = scratch.output(&given);
    assert_eq!((ran.code, text(&keep).as_str()), (0, "old\nmine\nthree\n"), "{ran:?}");
    assert!(!scratch.path("project/dir").exists() && scratch.path("project/fresh/file").exists());
}

#[test]
fn a_project_stays_its_owner_s() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let scratch = Scratch::new();
    let (project, keep) = project(&scratch);
    let owned = |path: &str| {
        let found = std::fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid(), found.permissions().mode() & 0o777)
    };
    let is_root = owned("/proc/self").0 == 0;
    let id = if is_root { 1717 } else { owned(&project).0 };
    for path in [&project, &keep] {
        chown(path, is_root.then_some(id), is_root.then_some(id)).unwrap();
    }
    std::fs::set_permissions(&keep, std::fs::Permissions::from_mode(0o640)).unwrap();
    let line =
        "echo new >> keep; mkdir -p a/b; echo x > a/b/file; chmod 755 a/b/file; ln -s keep a/link";
    let ran = scratch.output(&["exec", "--project", &project, "--apply", "--", "sh", "-c", line]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(std::fs::read_to_string(&keep).unwrap(), "old\nnew\n");
    assert_eq!((owned(&keep).0, owned(&keep).2), (id, 0o640));
    for (name, mode) in [("a", 0o755), ("a/b", 0o755), ("a/b/file", 0o755), ("a/link", 0o777)] {
        let found = owned(&format!("{project}/{name}"));
        assert_eq!((found.0, found.2), (id, mode), "{name}");
        assert!(!is_root || found.1 == id, "{name}");
    }
}

#[test]
fn no_name_of_a_file_forges_or_hides_a_line_of_the_list() {
    let scratch = Scratch::new();
    let (project, _) = project(&scratch);
    let line = "touch \"$(printf 'a\\nadded     b\\033[2K\\177\\377\\302\\233')\" 'c\\n'
        mkfifo \"$(printf 'd\\n\\342\\200\\256e')\"";
    let ran = scratch.output(&["exec", "--project", &project, "--", "sh", "-c", line]);
    let listed = "added     a\\nadded     b\\u{1b}[2K\\u{7f}\\xff\\u{9b}\n\
                  added     c\\\\n\n\
                  refused   d\\n\\u{202e}e (Fifo)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (0, listed));
}

#[test]
fn only_allowed_hosts_are_reached() {
    let scratch = Scratch::new();
    let ask = "import urllib.request as r\n\
               try: r.urlopen('http://other.test/')\n\
               except Exception as e: print(e.headers['x-neuroflow-egress'])";
    let ran = scratch.output(&["exec", "--allow", "api.test", "--", "python3", "-c", ask]);
    assert_eq!(ran.stdout, "denied; reason=host\n", "{ran:?}");
    let ran =
        scratch.output(&["exec", "--json", "--allow", "api.test", "--", "python3", "-c", ask]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let (counts, reasons) = (&report["egress_counts"], &report["egress_counts"]["reasons"]);
    assert_eq!((&counts["denied"], &counts["allowed"]), (&1.into(), &0.into()), "{report}");
    assert_eq!((&reasons["host"], &report["prepared"]), (&1.into(), &false.into()), "{report}");
    scratch.output(&["exec", "--allow", "api.test:x", "--", "true"]).failed_with(125, &["--allow"]);
}
