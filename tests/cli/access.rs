//! `policy`, `token` and `tools`: what an operator tries before anybody is let in.

use crate::scene::Scratch;

const POLICIES: &str = r#"
@id("builders")
permit(principal in Group::"builders", action == Action::"ask", resource in Agent::"shell");
@id("never")
forbid(principal == Token::"gone", action, resource);
"#;

#[test]
fn policies_are_checked_and_what_is_wrong_is_named_with_its_place() {
    let scratch = Scratch::new();
    scratch.file("good.cedar", POLICIES);
    let ran = scratch.output(&["policy", "check", "good.cedar"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "good.cedar: 2 policies, all valid\n"));
    scratch.file("bad.cedar", "permit(principal, action == Action::\"fly\", resource);");
    let bad = scratch.output(&["policy", "check", "bad.cedar"]);
    bad.failed_with(2, &["bad.cedar:1:29", "fly"]);
    scratch.output(&["policy", "check", "none.cedar"]).failed_with(2, &["none.cedar"]);
    scratch.output(&["policy", "check"]).failed_with(2, &["FILE"]);
    let schema = scratch.output(&["policy", "schema"]);
    assert_eq!(schema.code, 0, "{schema:?}");
    assert!(schema.stdout.contains("run_level"), "{schema:?}");
}

#[test]
fn a_policy_is_explained_and_the_exit_code_is_its_answer() {
    let scratch = Scratch::new();
    scratch.file("p.cedar", POLICIES);
    let explain = |principal: &str, resource: &str, more: &[&str]| {
        let mut arguments = vec!["policy", "explain", "--principal", principal, "--action", "ask"];
        arguments.extend(["--resource", resource]);
        arguments.extend(more);
        scratch.output(&arguments)
    };
    let builders = ["--group", "builders", "--file", "p.cedar"];
    let ran = explain("token:ci", "agent:shell", &builders);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("allowed: token:ci ask "), "{ran:?}");
    assert!(ran.stdout.contains("permitted by \"builders\""), "{ran:?}");
    let ran = explain("token:gone", "agent:shell", &builders);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.starts_with("denied: token:gone ask "), "{ran:?}");
    assert!(ran.stdout.contains("forbidden by \"never\""), "{ran:?}");
    let ran = explain("token:ci", "agent:echo", &builders);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("no policy permits it"), "{ran:?}");
    explain("nobody", "agent:shell", &builders).failed_with(2, &["--principal", "token:NAME"]);
    explain("token:ci", "shell", &builders).failed_with(2, &["--resource", "agent:NAME"]);
    explain("token:ci", "agent:shell", &[]).failed_with(2, &["--file", "policy.file"]);
    // The configuration names the file as well.
    scratch.file("neuroflow.toml", "[policy]\nfile = \"p.cedar\"\n");
    let arguments = ["--config", "neuroflow.toml", "policy", "explain", "--principal", "token:ci"];
    let rest = ["--group", "builders", "--action", "ask", "--resource", "agent:shell"];
    assert_eq!(scratch.output(&[&arguments[..], &rest].concat()).code, 0);
}

#[test]
fn what_follows_from_another_action_is_explained_as_a_gateway_decides_it() {
    let scratch = Scratch::new();
    let policies = r#"
@id("watch")
permit(principal, action in [Action::"supervise", Action::"ask"], resource == Agent::"shell");
@id("hands-off")
forbid(principal, action == Action::"cancel", resource);
@id("not-that")
forbid(principal, action == Action::"ask", resource == Skill::"zzz");
"#;
    scratch.file("p.cedar", policies);
    for (action, resource, code, said) in [
        ("read", "agent:shell", 0, "permitted by \"watch\""),
        ("cancel", "agent:shell", 1, "forbidden by \"hands-off\""),
        ("read", "agent:echo", 1, "no policy permits it"),
        ("ask", "skill:shell/zzz", 1, "forbidden by \"not-that\""),
        ("ask", "skill:shell/run", 1, "unless \"shell\" doesn't list it"),
    ] {
        let asked = ["policy", "explain", "--principal", "token:ops", "--file", "p.cedar"];
        let asked = [&asked[..], &["--action", action, "--resource", resource]].concat();
        let ran = scratch.output(&asked);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stdout.contains(said), "{ran:?}");
    }
}

#[test]
fn a_token_is_shown_once_with_the_line_that_lets_it_in() {
    let scratch = Scratch::new();
    let new = ["token", "new", "ci", "--group", "builders", "--expires-in", "720h"];
    let ran = scratch.output(&new);
    assert_eq!(ran.code, 0, "{ran:?}");
    let token = ran.stdout.lines().find(|line| line.starts_with("nf_")).expect("a token");
    let line = ran.stdout.lines().last().expect("a line");
    assert!(line.contains("ci") && line.contains("sha256:"), "{line}");
    assert!(line.contains("builders") && !line.contains(token), "{line}");
    let again = scratch.output(&new);
    assert!(!again.stdout.contains(token), "each is another");
    scratch.output(&["token", "new", "a b"]).failed_with(2, &["no token was made"]);
    let soon = scratch.output(&["token", "new", "ci", "--expires-in", "soon"]);
    soon.failed_with(2, &["--expires-in"]);
}

#[test]
fn tools_are_listed_and_a_server_that_says_nothing_is_named() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["tools"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let row = ran.stdout.lines().find(|line| line.contains(" exec ")).expect("a row");
    assert!(row.starts_with("shell") && row.contains("node"), "{row}");
    let ran = scratch.output(&["tools", "--json"]);
    let tools: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let tools = tools.as_array().expect("a list");
    let exec = tools.iter().find(|tool| tool["name"] == "exec").expect("exec");
    assert_eq!(exec["schema"]["type"], "object", "{exec}");
    // A model reads it, and no Rust engineer.
    assert_eq!(exec["schema"]["description"], "The program to run.", "{exec}");
    let silent = "[mcp.silent]\ncommand = \"/bin/true\"\ncell = \"off\"\nagents = [\"*\"]\n";
    scratch.file("neuroflow.toml", silent);
    let ran = scratch.output(&["--config", "neuroflow.toml", "tools"]);
    ran.failed_with(1, &["silent"]);
    assert!(ran.stdout.contains(" exec "), "what there is, is listed all the same: {ran:?}");
    let failing = "[mcp.failing]\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"printf 'no key\\\\033[2J' >&2; exit 3\"]\n\
                   agents = [\"*\"]\n";
    scratch.file("failing.toml", failing);
    let ran = scratch.output(&["--config", "failing.toml", "tools"]);
    ran.failed_with(1, &["failing", "exit status 3", r"no key\u{1b}[2J"]);
    assert!(!ran.stderr.contains("\x1b[2J"), "{ran:?}");
}

#[test]
fn a_token_that_no_line_can_say_the_end_of_is_refused() {
    let scratch = Scratch::new();
    let fresh = |life: &str| scratch.output(&["token", "new", "ci", "--expires-in", life]);
    for life in ["99999999999d", "3000000d"] {
        fresh(life).failed_with(2, &["--expires-in is longer than any calendar"]);
    }
    for life in ["0h", "0ms"] {
        fresh(life).failed_with(2, &["--expires-in", "of no use"]);
    }
    assert_eq!(fresh("720h").code, 0);
}

#[test]
fn a_policy_without_a_name_is_named_by_its_place() {
    let scratch = Scratch::new();
    scratch.file("p.cedar", "\npermit(principal, action, resource);\n");
    let ran = scratch.output(&[
        "policy",
        "explain",
        "--principal",
        "token:ci",
        "--action",
        "ask",
        "--resource",
        "agent:shell",
        "--file",
        "p.cedar",
    ]);
    assert!(ran.stdout.contains("permitted by the policy at p.cedar:2"), "{ran:?}");
}
