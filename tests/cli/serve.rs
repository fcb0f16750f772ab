//! `serve`: start, requests, metrics, stop, and what keeps it from starting.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{Running, Scratch, Server, audited, first_text, get, post, send_message};

#[test]
fn a_request_reaches_the_agents() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let answer = server.ask("/agents/echo", "hello");
    assert_eq!(first_text(&answer), "hello");
    assert_eq!(answer["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED");
    // The first enabled agent answers at the root: a real process in a cell.
    let answer = server.ask("/", "echo $((6*7)) from $(id -un)");
    assert_eq!(first_text(&answer), "42 from cell\n");
    let (status, card) = get(server.gateway, "/.well-known/agent-card.json");
    assert_eq!(status, 200);
    assert!(card.contains("\"shell\""), "{card}");
}

#[test]
fn python_runs_in_forks_of_a_warm_interpreter() {
    let scratch = Scratch::new();
    let file = "[agents]\nenabled = [\"python\"]\n[sandbox]\npython = true\nwarm_most = 2\n";
    let file = scratch.file("python.toml", file);
    let server = Server::start(&scratch, &["--config", &file]);
    // A new interpreter has imported nothing of the kind. The first fork may take a moment.
    let code = "import sys; print('asyncio' in sys.modules)";
    for _ in 0..200 {
        let answer = server.ask("/", code);
        match first_text(&answer) {
            "True\n" => return,
            "False\n" => std::thread::sleep(std::time::Duration::from_millis(50)),
            other => panic!("{other:?}"),
        }
    }
    panic!("no fork ran it");
}

#[test]
fn the_banner_says_where_everything_is() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let banner = &server.banner;
    assert!(banner.starts_with("neuroflow 0"), "{banner}");
    for text in [
        format!("http://{}/\n", server.gateway),
        format!("http://{}/.well-known/agent-card.json\n", server.gateway),
        format!("http://{}/metrics\n", server.metrics),
        format!("{}\n", server.socket.display()),
        format!("curl -s http://{}/ -H 'Content-Type: application/json'", server.gateway),
    ] {
        assert!(banner.contains(&text), "{text:?} isn't in {banner:?}");
    }
    // The request that it offers works as it stands.
    let body = banner.split("-d '").nth(1).and_then(|rest| rest.split('\'').next());
    let (status, answer) = post(server.gateway, "/", body.expect("a body"));
    assert_eq!(status, 200);
    assert!(answer.contains("uname -a; id"), "{answer}");
}

#[test]
fn requests_are_metered() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    server.ask("/", "hello");
    let unknown = send_message("x").replace("SendMessage", "Sing");
    post(server.gateway, "/", &unknown);
    for path in ["/agents", "/agents/echo/tasks?A2A-Version=1.0"] {
        assert_eq!(get(server.gateway, path).0, 200, "{path}");
    }
    post(server.gateway, "/mcp", "{}");
    let (status, metrics) = get(server.metrics, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "http_server_request_duration_seconds_count{a2a_method=\"SendMessage\",\
         http_request_method=\"POST\",http_response_status_code=\"200\"} 1",
        "neuroflow_gateway_rpc_errors_total{code=\"-32601\"} 1",
        "http_server_request_duration_seconds_count{a2a_method=\"/agents\",\
         http_request_method=\"GET\",http_response_status_code=\"200\"} 1",
        "http_server_request_duration_seconds_count{a2a_method=\"ListTasks\",\
         http_request_method=\"GET\",http_response_status_code=\"200\"} 1",
        "http_server_request_duration_seconds_count{a2a_method=\"/mcp\",\
         http_request_method=\"POST\",http_response_status_code=\"",
        "neuroflow_journal_up 1\n",
        "neuroflow_log_lines_dropped_total 0\n",
        "neuroflow_actors{actor_kind=\"gateway\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} isn't in {metrics}");
    }
}

#[test]
fn what_a_cell_asks_its_proxy_for_is_metered_and_recorded() {
    let scratch = Scratch::new();
    let file = scratch.file("allow.toml", "[sandbox]\nallow = [\"api.test\"]\n");
    let log = scratch.path("audit.log");
    let flag = format!("--audit-file={}", log.display());
    let server = Server::start(&scratch, &["--config", &file, "--agents-enabled=shell", &flag]);
    let ask = "python3 -c \"import urllib.request as r\ntry: r.urlopen('http://other.test/')\n\
               except Exception as e: print(e.code)\"";
    assert_eq!(first_text(&server.ask("/", ask)), "403\n");
    let (_, metrics) = get(server.metrics, "/metrics");
    let line = "neuroflow_cell_egress_total{reason=\"host\",verdict=\"denied\"} 1";
    assert!(metrics.contains(line), "{line} isn't in {metrics}");
    let denied = audited(&log, "egress", |event| event["reason"] == "host");
    let (verdict, host) = (&denied[0]["verdict"], &denied[0]["host"]);
    assert_eq!((verdict.as_str(), host.as_str()), (Some("denied"), Some("other.test")));
    assert!(
        denied[0]["source"].as_str().is_some_and(|source| source.contains("cell")),
        "{denied:?}"
    );
}

#[test]
fn one_address_leaves_descriptors_to_others_where_there_are_few() {
    let scratch = Scratch::new();
    let starter = ["prlimit", "--nofile=256:256"];
    let server = Server::start_by(&scratch, &starter, &["--agents-enabled=echo"]);
    // More than the process may have files.
    let silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(server.gateway).expect("the backlog")).collect();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = other.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(server.gateway).await.expect("a connection");
        let head = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(silent);
}

#[test]
fn a_node_opens_as_many_files_as_it_may() {
    let scratch = Scratch::new();
    let starter = ["prlimit", "--nofile=256:2048"];
    let server = Server::start_by(&scratch, &starter, &["--agents-enabled=shell"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process.0.id()));
    let limits = limits.unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: Vec<&str> = files.split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(files, ["2048", "2048"]);
    // Cells have what their profile says.
    let other = Scratch::new();
    let usual = Server::start(&other, &["--agents-enabled=shell"]);
    let of = |server: &Server| first_text(&server.ask("/", "ulimit -n; ulimit -Hn")).to_owned();
    assert_eq!(of(&server), of(&usual));
}

#[test]
fn a_client_that_says_very_much_does_not_silence_the_log() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let call = serde_json::json!({
        "jsonrpc": "2.0", "id": "i".repeat(1_200_000), "method": "tools/call",
        "params": {
            "name": "nobody", "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let body = call.to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/call\r\nmcp-name: nobody\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(server.gateway).expect("a connection");
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(body.as_bytes()).expect("a body");
    let mut answer = String::new();
    Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.contains("-32602"), "{}", &answer[..answer.len().min(400)]);
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0);
    let log = server.process.stderr();
    assert!(log.contains("(1200000 bytes)"), "what it said is there, in short: {log}");
    assert!(log.contains("stopped") && log.len() < 64 * 1024, "{} bytes: {log}", log.len());
}

#[test]
fn a_signal_stops_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new();
        let mut server = Server::start(&scratch, &[]);
        server.process.signal(signal);
        assert_eq!(server.process.exit_code(), 0, "{}", server.process.stderr());
        let left = std::fs::read_dir(scratch.path("run")).unwrap().count();
        assert_eq!(left, 0, "the socket and its lock are removed");
        assert!(TcpStream::connect(server.gateway).is_err());
    }
}

#[test]
fn a_terminal_that_is_closed_lets_what_was_begun_come_to_its_end() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &[]);
    let mut request = begin_task(&server, "sleep 1; echo answered");
    // The terminal says so, and so does its shell.
    server.process.signal("HUP");
    server.process.signal("HUP");
    let mut answer = String::new();
    request.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("answered\\n"), "{answer}");
    assert_eq!(server.process.exit_code(), 0, "{}", server.process.stderr());
}

#[test]
fn a_task_that_nobody_waits_for_is_done_before_the_node_ends() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--stop-deadline=60s"]);
    let message = send_message("sleep 1; echo finished");
    let mut call: serde_json::Value = serde_json::from_str(&message).expect("JSON");
    call["params"]["configuration"] = serde_json::json!({ "returnImmediately": true });
    let (status, answer) = post(server.gateway, "/", &call.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let task = answer["result"]["task"]["id"].as_str().expect("an id");
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0, "{}", server.process.stderr());
    let server = Server::start(&scratch, &[]);
    let (status, task) = get(server.gateway, &format!("/tasks/{task}?A2A-Version=1.0"));
    assert!(status == 200 && task.contains("TASK_STATE_COMPLETED"), "{task}");
    assert!(task.contains("finished\\n"), "{task}");
}

#[test]
fn who_is_to_outlive_its_terminal_does() {
    let scratch = Scratch::new();
    let plain = scratch.neuroflow(&["serve", "--agents-enabled=echo", "--log-format=json"]);
    let mut command = std::process::Command::new("nohup");
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(scratch.path("."));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut process = Running(child.expect("nohup"));
    let gateway = ready(&mut process);
    process.signal("HUP");
    for _ in 0..10 {
        assert_eq!(get(gateway, "/readyz").0, 200);
    }
    process.signal("TERM");
    assert_eq!(process.exit_code(), 0);
}

#[test]
fn a_node_serves_whoever_reads_its_banner() {
    let scratch = Scratch::new();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let mut command = scratch.neuroflow(&["serve", "--agents-enabled=echo", "--log-format=json"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn();
    let mut process = Running(child.expect("the built binary"));
    let gateway = ready(&mut process);
    assert_eq!(get(gateway, "/readyz").0, 200);
    process.signal("TERM");
    assert_eq!(process.exit_code(), 0);
}

/// Where the gateway of a node is, once its log says that it's ready.
fn ready(process: &mut Running) -> SocketAddr {
    let log = BufReader::new(process.0.stderr.take().expect("a pipe"));
    let mut lines = log.lines().map(|line| line.expect("text"));
    let gateway = |line: &String| {
        let (_, rest) = line.split_once("\"gateway\":\"")?;
        rest.split('"').next()?.parse().ok()
    };
    let address = lines.find_map(|line| gateway(&line)).expect("it's ready");
    // Somebody has to read the rest.
    std::thread::spawn(move || lines.for_each(drop));
    address
}

#[test]
fn what_runs_is_ended_when_the_time_to_stop_is_over() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--stop-deadline=900ms"]);
    let _request = begin_long_task(&server);
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 1);
    // Whether the gateway's share of the time was enough for all behind it isn't fixed.
    let said = server.process.stderr();
    assert!(said.contains("was killed: /gateway with the requests"), "{said}");
    assert!(said.contains("raise stop.deadline"), "{said}");
}

#[test]
fn a_delay_that_leaves_no_time_to_end_is_refused() {
    let scratch = Scratch::new();
    for command in ["serve", "config"] {
        let ran = scratch.output(&[command, "--gateway-drain-delay=8s", "--stop-deadline=15s"]);
        ran.failed_with(2, &["gateway.drain_delay is 8s", "stop.deadline", "15s"]);
    }
    let ran = scratch.output(&["config", "--gateway-drain-delay=8s", "--stop-deadline=16s"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn a_reader_of_the_log_that_stalls_holds_nothing_up() {
    for reads_in_the_end in [false, true] {
        let scratch = Scratch::new();
        let mut server = Server::start(&scratch, &["--agents-enabled=echo", "--log-filter=trace"]);
        // Nobody reads standard error. Each of these is a line with its path in it.
        let path = format!("/{}", "x".repeat(8_000));
        let mut requests = 0..2_000;
        let none_lost = "neuroflow_log_lines_dropped_total 0\n";
        while get(server.metrics, "/metrics").1.contains(none_lost) {
            assert!(requests.next().is_some(), "all of it found room");
            for _ in 0..20 {
                assert_eq!(get(server.gateway, &path).0, 404);
            }
        }
        assert_eq!(first_text(&server.ask("/", "hello")), "hello");
        let stderr = server.process.0.stderr.take().expect("a pipe");
        let reader =
            reads_in_the_end.then(|| std::thread::spawn(|| std::io::read_to_string(stderr)));
        server.process.signal("TERM");
        assert_eq!(server.process.exit_code(), 0);
        if let Some(reader) = reader {
            let said = reader.join().expect("a reader").expect("text");
            let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("no {words:?}"));
            assert!(at(" ready") < at("log lines were lost"));
            assert!(at("log lines were lost") < at(" stopped"));
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--stop-deadline=1h"]);
    let _request = begin_long_task(&server);
    server.process.signal("TERM");
    // The gateway says that it drains: the first signal was taken.
    while TcpStream::connect(server.gateway).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server.process.signal("INT");
    assert_eq!(server.process.exit_code(), 130);
}

#[test]
fn a_second_signal_does_not_wait_for_the_last_spans() {
    let scratch = Scratch::new();
    // It takes connections and never answers.
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = collector.local_addr().expect("it has an address");
    let endpoint = format!("--telemetry-otlp-endpoint=http://{endpoint}");
    let mut server = Server::start(&scratch, &["--agents-enabled=echo", &endpoint]);
    server.ask("/", "hello");
    server.process.signal("TERM");
    // The metrics end last.
    while TcpStream::connect(server.metrics).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server.process.signal("INT");
    assert_eq!(server.process.exit_code(), 130, "{}", server.process.stderr());
}

/// A request whose task won't end by itself, and that is being worked on.
fn begin_long_task(server: &Server) -> TcpStream {
    begin_task(server, "echo begun; sleep 600")
}

/// A request that is being worked on.
fn begin_task(server: &Server, script: &str) -> TcpStream {
    let body = send_message(script);
    let mut stream = TcpStream::connect(server.gateway).expect("a connection");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("a request");
    let live = "neuroflow_actors{actor_kind=\"cell\"} 1";
    while !get(server.metrics, "/metrics").1.contains(live) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    stream
}

/// Values of which each takes seven bytes in a body, and some hundreds in memory.
#[test]
fn who_waits_for_a_task_holds_little_of_what_was_sent() {
    const WAITING: usize = 8;
    // What a body of so many takes as values, at the least.
    const VALUES: usize = 32_768;
    const VALUES_MIB: usize = 12;
    let values = vec![r#"{"":0}"#; VALUES].join(",");
    let chat = format!(
        r#"{{"model":"shell","messages":[{{"role":"user","content":"sleep 50","x":[{values}]}}]}}"#
    );
    let part = r#"{"text":"sleep 50"}"#;
    let send = format!(
        r#"{{"message":{{"messageId":"m","role":"ROLE_USER","parts":[{part}],"metadata":{{"x":[{values}]}}}}}}"#
    );
    let scratch = Scratch::new();
    // So that what was needed for a moment doesn't look like being held.
    let environment = [("MIMALLOC_PURGE_DELAY", "0"), ("TOKIO_WORKER_THREADS", "2")];
    let server = Server::start_in(&scratch, &[], &environment);
    let before = resident_mib(&server);
    let mut connections = Vec::new();
    for (path, body) in [("/v1/chat/completions", &chat), ("/message:send", &send)] {
        for _ in 0..WAITING {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 a2a-version: 1.0\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let mut connection = TcpStream::connect(server.gateway).expect("a connection");
            connection.write_all(head.as_bytes()).expect("a head");
            connection.write_all(body.as_bytes()).expect("a body");
            connections.push(connection);
            until_there_are(&server, connections.len());
        }
    }
    let grown = resident_mib(&server).saturating_sub(before);
    let as_values = 2 * WAITING * VALUES_MIB;
    assert!(grown < as_values / 3, "{grown} MiB more, where values would be {as_values}");
}

#[track_caller]
fn until_there_are(server: &Server, tasks: usize) {
    for _ in 0..1_000 {
        let (status, list) =
            get(server.gateway, "/tasks?pageSize=1&historyLength=0&A2A-Version=1.0");
        assert_eq!(status, 200, "{list}");
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        if list["totalSize"] == tasks {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("there are never {tasks} tasks");
}

fn resident_mib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.0.id()));
    let status = status.expect("/proc can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    number.expect("VmRSS is a number") / 1024
}

#[test]
fn a_taken_port_is_named_with_the_setting() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let socket = format!("--control-socket={}", scratch.path("c.sock").display());
    let gateway = format!("--gateway-listen={address}");
    let ran = scratch.output(&["serve", &gateway, "--telemetry-metrics-listen=off", &socket]);
    ran.failed_with(1, &[&address, "gateway.listen", "in use"]);
    let metrics = format!("--telemetry-metrics-listen={address}");
    let ran = scratch.output(&["serve", "--gateway-listen=127.0.0.1:0", &metrics, &socket]);
    ran.failed_with(1, &[&address, "telemetry.metrics_listen", "in use"]);
    assert!(!scratch.path("c.sock").exists(), "what was started before it is stopped");
}

#[test]
fn others_are_not_let_in_by_accident() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["serve", "--gateway-listen=0.0.0.0:0"]);
    let expected = ["gateway.listen", "auth.tokens", "allow_remote_without_authentication"];
    ran.failed_with(2, &expected);
    let ran = scratch.output(&["serve", "--telemetry-metrics-listen=[::]:0"]);
    ran.failed_with(2, &["telemetry.metrics_listen", "no authentication"]);
}

#[test]
fn a_level_that_the_host_cannot_give_is_refused_at_the_start() {
    let scratch = Scratch::new();
    let file = scratch.file("neuroflow.toml", "[sandbox]\nlevel = \"strict\"\n");
    let arguments = [
        "--config",
        &file,
        "serve",
        "--gateway-listen=127.0.0.1:0",
        "--telemetry-metrics-listen=off",
        "--control-socket=off",
    ];
    let ran = scratch.output_without_namespaces(&arguments);
    ran.failed_with(1, &["user namespace", "neuroflow doctor", "sandbox.level"]);
}

/// Whoever isn't let in must not fill the log: neither by how much is asked, nor by how often.
#[test]
fn who_is_refused_again_and_again_is_logged_a_few_times_and_briefly() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let path = "a".repeat(20_000);
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.gateway).expect("a connection");
        let head =
            format!("GET /{path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    }
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0);
    let log = server.process.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("request refused")).collect();
    assert_eq!(lines.len(), 5, "{log}");
    assert!(lines.iter().all(|line| line.len() < 1_000), "{log}");
    let more = log.lines().find(|line| line.contains("more requests refused"));
    assert!(
        more.is_some_and(|line| line.contains("requests=3") || line.contains("\"requests\":3")),
        "{log}"
    );
}
