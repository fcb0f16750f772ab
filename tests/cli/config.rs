//! `config`: where settings come from, and what is said about wrong ones.

use crate::scene::{Ran, Scratch, set_mode};

#[test]
fn the_printed_default_is_a_file_that_changes_nothing() {
    let scratch = Scratch::new();
    let printed = scratch.output(&["config", "--print-default"]);
    assert_eq!(printed.code, 0);
    let without = scratch.output(&["config"]).stdout;
    let file = scratch.file("printed.toml", &printed.stdout);
    let with = scratch.output(&["config", "--config", &file]);
    assert_eq!(with.code, 0, "{}", with.stderr);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or(line).to_owned()).collect()
    };
    assert_eq!(values(&with.stdout), values(&without));
    for key in ["listen", "otlp_endpoint", "sample_ratio", "wall_time", "enabled", "socket"] {
        assert!(printed.stdout.contains(&format!("{key} = ")), "{key} isn't printed");
    }
}

#[test]
fn a_flag_goes_before_a_variable_and_that_before_the_file() {
    let scratch = Scratch::new();
    scratch.file("own.toml", "[stop]\ndeadline = \"1s\"\n[log]\nformat = \"json\"\n");
    let deadline = |flags: &[&str], variable: Option<&str>| {
        let mut command = scratch.neuroflow(&[&["config", "--config=own.toml"], flags].concat());
        if let Some(value) = variable {
            command.env("NEUROFLOW_STOP_DEADLINE", value);
        }
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        text.lines().find(|line| line.starts_with("deadline")).unwrap().to_owned()
    };
    assert_eq!(deadline(&[], None), "deadline = \"1s\" # own.toml:2");
    let variable = "deadline = \"2s\" # the environment variable NEUROFLOW_STOP_DEADLINE";
    assert_eq!(deadline(&[], Some("2s")), variable);
    let flag = deadline(&["--stop-deadline=3s"], Some("2s"));
    assert_eq!(flag, "deadline = \"3s\" # --stop-deadline");
}

#[test]
fn the_file_is_named_by_a_flag_or_a_variable() {
    let scratch = Scratch::new();
    let file = scratch.file("other.toml", "[runtime]\nworkers = 3\n");
    let ran = scratch.output(&["--config", &file, "config"]);
    assert!(ran.stdout.contains("workers = 3"), "{}", ran.stdout);
    let output = scratch.neuroflow(&["config"]).env("NEUROFLOW_CONFIG", &file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("workers = 3"));
    let ran = scratch.output(&["config", "--config", "missing.toml"]);
    ran.failed_with(2, &["missing.toml", "--config"]);
}

#[test]
fn a_file_that_nobody_names_is_read_in_the_users_own_place_and_not_where_one_happens_to_be() {
    let scratch = Scratch::new();
    let workers =
        |ran: &Ran| ran.stdout.lines().find(|it| it.starts_with("workers")).map(str::to_owned);
    scratch.file("neuroflow.toml", "[runtime]\nworkers = 3\n");
    let said = "neuroflow.toml in the current directory isn't read; name it with --config";
    let ran = scratch.output(&["config"]);
    assert_eq!((ran.code, workers(&ran).as_deref()), (0, Some("workers = 0")));
    assert_eq!(ran.stderr.matches(said).count(), 1, "{}", ran.stderr);
    std::fs::create_dir_all(scratch.path("config/neuroflow")).unwrap();
    let own = scratch.file("config/neuroflow/neuroflow.toml", "[runtime]\nworkers = 5\n");
    let ran = scratch.output(&["config"]);
    assert_eq!(workers(&ran).as_deref(), Some(&*format!("workers = 5 # {own}:2")));
    assert_eq!(ran.stderr.matches(said).count(), 1, "{}", ran.stderr);
    // Who names it knows of it, and whose place it is has it read.
    let ran = scratch.output(&["config", "--config=neuroflow.toml"]);
    assert_eq!(workers(&ran).as_deref(), Some("workers = 3 # neuroflow.toml:2"));
    assert_eq!(ran.stderr, "");
    let mut command = scratch.neuroflow(&["config"]);
    let output = command.current_dir(scratch.path("config/neuroflow")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // A node says so too, and whoever is refused for what the file has.
    let ran = scratch.output(&["serve", "--auth-tokens=tokens"]);
    ran.failed_with(2, &[said, "policy.file"]);
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.file("own.toml", "[sandbox]\nlevel = \"minimal\"\n");
    let path = std::path::Path::new(&file);
    let refused = |words: &[&str]| {
        scratch.output(&["config", "--config", &file]).failed_with(2, words);
        scratch.output(&["serve", "--config", &file]).failed_with(2, words);
        scratch.output(&["exec", "--config", &file, "--", "true"]).failed_with(125, words);
    };
    for mode in [0o666, 0o664, 0o602] {
        set_mode(path, mode);
        refused(&[&file, &format!("can be written by others (mode {mode:o})"), "chmod go-w"]);
    }
    set_mode(path, 0o644);
    assert_eq!(scratch.output(&["config", "--config", &file]).code, 0);
    // Only root can give a file away.
    if std::os::unix::fs::chown(path, Some(12_345), None).is_ok() {
        refused(&[&file, "belongs to user 12345", "chown"]);
    }
}

#[test]
fn an_unknown_key_names_the_nearest_the_file_and_the_line() {
    let scratch = Scratch::new();
    let file = scratch.file("typo.toml", "[gateway]\nlistne = \"127.0.0.1:1\"\n");
    let ran = scratch.output(&["serve", "--config", &file]);
    ran.failed_with(2, &["gateway.listne", "typo.toml:2", "gateway.listen"]);
    let mut command = scratch.neuroflow(&["config"]);
    let output = command.env("NEUROFLOW_LOG_FORMT", "json").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NEUROFLOW_LOG_FORMAT"));
}

#[test]
fn a_wrong_value_names_key_type_value_and_origin() {
    let scratch = Scratch::new();
    let file = scratch.file("wrong.toml", "[sandbox]\n\nwall_time = 60\n");
    let ran = scratch.output(&["config", "--config", &file]);
    ran.failed_with(2, &["sandbox.wall_time is 60", "wrong.toml:3", "a duration such as"]);
    let ran = scratch.output(&["config", "--telemetry-sample-ratio=2"]);
    ran.failed_with(2, &["telemetry.sample_ratio", "\"2\"", "--telemetry-sample-ratio", "0 to 1"]);
    let file = scratch.file("broken.toml", "[sandbox\n");
    scratch.output(&["config", "--config", &file]).failed_with(2, &["TOML", "--print-default"]);
    let ran = scratch.output(&["config", "--sandbox-open-files=1"]);
    ran.failed_with(2, &["open files is 1"]);
}

#[test]
fn the_rest_of_the_command_line() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["--version"]);
    assert_eq!(ran.stdout, format!("neuroflow {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let ran = scratch.output(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("gateway-listen"), "{shell}");
    }
    scratch.output(&["srve"]).failed_with(2, &["serve"]);
}

#[test]
fn ways_out_are_hosts_that_a_cell_can_have() {
    let scratch = Scratch::new();
    let file =
        scratch.file("out.toml", "[sandbox]\nallow = [\"pypi.org\", \"*.example.com:8443\"]\n");
    let ran = scratch.output(&["config", "--config", &file]);
    let line = "allow = [\"pypi.org\", \"*.example.com:8443\"] # ";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    let file = scratch.file("url.toml", "[sandbox]\nallow = [\"https://pypi.org\"]\n");
    let ran = scratch.output(&["config", "--config", &file]);
    ran.failed_with(2, &["sandbox.allow", "url.toml:2", "pypi.org"]);
    let flags = ["run", "--sandbox-level=paranoid", "--sandbox-allow=pypi.org", "true"];
    assert_ne!(scratch.output(&flags).code, 0, "level paranoid has no network");
}

#[test]
fn what_is_printed_has_every_table_and_no_secret() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "secrets.toml",
        "[gateway]\npublic_url = \"https://me:s3cr3t@agents.example/x?key=s3cr3t\"\n\
         [cluster]\nlisten = \"127.0.0.1:0\"\nidentity = \"n\"\n\
         [mcp.files]\nurl = \"https://u:s3cr3t@files.example/mcp?key=s3cr3t\"\nagents = [\"*\"]\n\
         headers = { authorization = \"s3cr3t\", x-key = { env = \"FILES_KEY\" } }\n\
         [proxy.billing]\nagent = \"agent://*/billing\"\n",
    );
    let mut command = scratch.neuroflow(&["config", "--config", &file]);
    let output = command.env("FILES_KEY", "s3cr3t").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(!stdout.contains("s3cr3t"), "{stdout}");
    for line in [
        "public_url = \"https://***@agents.example/x?***\"",
        "[mcp.files]",
        "url = \"https://***@files.example/mcp?***\"",
        "authorization = \"***\"",
        "env = \"FILES_KEY\"",
        "[proxy.billing]",
        "agent = \"agent://*/billing\"",
    ] {
        assert!(stdout.contains(line), "{line} isn't in {stdout}");
    }
    // What isn't set has an example that would do.
    for line in [
        "# otlp_endpoint isn't set; such as otlp_endpoint = \"http://localhost:4318\"",
        "# card_key isn't set; such as card_key = \"/etc/neuroflow/card-key.pem\"",
    ] {
        assert!(stdout.contains(line), "{line} isn't in {stdout}");
    }
}

#[test]
fn an_mcp_server_or_a_key_that_serve_refuses_config_refuses_too() {
    let scratch = Scratch::new();
    for (table, words) in [
        ("command = \"x\"\nagents = [\"nobody\"]", ["mcp.x can't be used", "\"nobody\""]),
        (
            "url = \"https://x.example\"\nagents = [\"*\"]\nheaders = { a = { env = \"NO_SUCH_KEY\" } }",
            ["headers.a", "NO_SUCH_KEY"],
        ),
    ] {
        let file = scratch.file("mcp.toml", &format!("[mcp.x]\n{table}\n"));
        for command in ["config", "serve"] {
            let ran = scratch.output(&[command, "--config", &file]);
            ran.failed_with(2, &words);
            // The problem is told once.
            assert_eq!(ran.stderr.matches(words[1]).count(), 1, "{}", ran.stderr);
        }
    }
    let open = scratch.file("key.pem", "a key");
    for command in ["config", "serve"] {
        for (setting, path, words) in [
            ("tls.key", "missing.pem", ["missing.pem can't be read", "tls.key"]),
            ("tls.key", &*open, ["can be read by others (mode 644)", "tls.key"]),
            ("gateway.card_key", &*open, ["can be read by others (mode 644)", "gateway.card_key"]),
        ] {
            let flag = format!("--{}={path}", setting.replace(['.', '_'], "-"));
            let mut arguments = vec![command, &flag];
            if setting == "tls.key" {
                arguments.push("--tls-certificate=node.crt");
            }
            scratch.output(&arguments).failed_with(2, &words);
        }
    }
}

#[test]
fn what_serve_refuses_config_refuses_too() {
    let scratch = Scratch::new();
    for (flag, words) in [
        ("--log-filter=infoo,=x", ["log.filter", "log filter"]),
        ("--telemetry-otlp-endpoint=https://collector:4318", ["otlp_endpoint", "http://"]),
        ("--telemetry-otlp-endpoint=http://collector:4318/?key=s3cr3t", ["query", "otlp_endpoint"]),
        ("--sandbox-cells=0", ["sandbox.cells is 0", "--sandbox-cells"]),
        ("--cluster-listen=127.0.0.1:0", ["cluster.identity", "node init"]),
        ("--cluster-seeds=127.0.0.1:7946", ["cluster.seeds", "cluster.listen"]),
    ] {
        for command in ["config", "serve"] {
            let ran = scratch.output(&[command, flag]);
            ran.failed_with(2, &words);
            assert!(!ran.stderr.contains("s3cr3t"), "{}", ran.stderr);
        }
    }
}
