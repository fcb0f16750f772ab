//! From an HTTP request to a process in a cell, and back.

use std::fs;
use std::time::Duration;

use neuroflow::{AgentBuilder, Answer, Artifact, Content, Node};
use serde_json::{Value, json};

use crate::client::{Connection, get_task, send_data, send_text};
use crate::support::{loopback, output, profile, report, said, shell_node, standard, start, state};

#[tokio::test]
async fn the_artifact_is_what_a_process_in_a_cell_printed() {
    let (node, to) = start(shell_node()).await;
    let line = "uname -n; id -u; readlink /proc/self/ns/pid; echo $$; echo oh >&2";
    let task = send_text(to, "/", line).await;
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");
    assert_eq!(task["artifacts"][0]["name"], "output");

    let lines: Vec<&str> = output(&task).lines().collect();
    let [host, user, namespace, pid, complaint] = lines[..] else { panic!("{lines:?}") };
    let own = fs::read_link("/proc/self/ns/pid").expect("this process has a namespace");
    assert_eq!((host, user, complaint), ("cell", "1000", "oh"));
    assert!(namespace.starts_with("pid:["), "{namespace}");
    assert_ne!(namespace, own.to_string_lossy());
    assert!(pid.parse::<u32>().expect("a process id") < 10, "{pid}");

    let report = report(&task);
    assert_eq!(report["ended"], "exited");
    assert_eq!(report["exit_code"], 0);
    assert_eq!(report["stderr"], "oh\n");
    assert_eq!(report["level"], "standard");
    assert_eq!(report["truncated"], false);
    node.stop().await;
}

#[tokio::test]
async fn a_program_may_fail_and_the_task_is_complete() {
    let (node, to) = start(shell_node()).await;
    let task = send_text(to, "/agents/shell", "echo tried; exit 3").await;
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");
    assert_eq!(output(&task), "tried\n");
    assert_eq!(report(&task)["exit_code"], 3);

    let task = send_text(to, "/agents/shell", "kill -SEGV $$").await;
    let report = report(&task);
    assert_eq!((&report["ended"], &report["signal"]), (&json!("signalled"), &json!(11)));
    assert_eq!(report["exit_code"], Value::Null);
    node.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_task_by_its_name() {
    let (node, to) = start(shell_node()).await;
    let task = send_data(to, "/", json!({ "command": ["no-such-program", "-v"] })).await;
    assert_eq!(state(&task), "TASK_STATE_FAILED");
    let said = said(&task);
    assert!(said.contains("command[0]") && said.contains("no-such-program"), "{said}");
    assert_eq!(task.get("artifacts"), None);
    node.stop().await;
}

#[tokio::test]
async fn a_data_part_is_a_program_with_its_arguments_and_input() {
    let (node, to) = start(shell_node()).await;
    let command = json!({ "command": ["tr", "a-z", "A-Z"], "stdin": "to be; or $(not)\n" });
    let task = send_data(to, "/", command).await;
    assert_eq!(output(&task), "TO BE; OR $(NOT)\n");

    let stdin = "x".repeat(700_000);
    let task = send_data(to, "/", json!({ "command": ["wc", "-c"], "stdin": stdin })).await;
    assert_eq!(output(&task).trim(), "700000");
    // More than a tool call may carry: refused in words that say so.
    let stdin = "x".repeat(1_500_000);
    let task = send_data(to, "/", json!({ "command": ["wc", "-c"], "stdin": stdin })).await;
    assert_eq!(state(&task), "TASK_STATE_FAILED");
    assert!(said(&task).contains("request can't be archived"), "{}", said(&task));
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_names_nothing_to_do_fails_by_its_field() {
    let (node, to) = start(shell_node()).await;
    let task = send_text(to, "/", "  \n ").await;
    assert_eq!((state(&task), said(&task)), ("TASK_STATE_FAILED", "message.parts is empty"));
    for (data, field) in [
        (json!({}), "/command"),
        (json!({ "command": [] }), "/command"),
        (json!({ "command": "ls" }), "/command"),
        (json!({ "command": ["ls", 1] }), "/command/1"),
        (json!({ "command": ["cat"], "stdin": 5 }), "/stdin"),
    ] {
        let task = send_data(to, "/", data.clone()).await;
        assert_eq!(state(&task), "TASK_STATE_FAILED");
        let said = said(&task);
        assert!(said.contains(&format!("argument {field} ")), "{data}: {said}");
    }
    node.stop().await;
}

#[tokio::test]
async fn output_of_hundreds_of_kilobytes_arrives_whole() {
    let (node, to) = start(shell_node()).await;
    let task = send_text(to, "/", "seq 1 70000").await;
    let numbers: Vec<String> = (1..=70_000).map(|number| number.to_string()).collect();
    let whole = numbers.join("\n") + "\n";
    assert!(output(&task) == whole, "{} bytes of {}", output(&task).len(), whole.len());
    assert_eq!(report(&task)["truncated"], false);
    node.stop().await;
}

/// The default profile lets a cell write more than one message can carry.
#[tokio::test]
async fn a_flood_of_output_is_cut_and_the_task_completes() {
    let (node, to) = start(shell_node()).await;
    // Text, bytes that grow sixfold as JSON, and bytes that aren't text.
    for (line, ended) in [
        ("yes", "output_limit"),
        ("head -c 3000000 /dev/zero", "exited"),
        ("head -c 3000000 /dev/zero | tr '\\0' '\\377'", "exited"),
    ] {
        let task = send_text(to, "/", line).await;
        assert_eq!(state(&task), "TASK_STATE_COMPLETED", "{line}: {}", task["status"]);
        assert_eq!(report(&task)["truncated"], true, "{line}");
        assert_eq!(report(&task)["ended"], ended, "{line}");
        assert!(output(&task).len() > 100_000, "{line}: {} bytes", output(&task).len());
    }
    node.stop().await;
}

#[tokio::test]
async fn the_profile_limits_output_and_wall_time() {
    let tight = profile(standard().output(4_096).wall_time(Duration::from_millis(700)));
    let (node, to) = start(shell_node().sandbox(tight)).await;
    let task = send_text(to, "/", "yes").await;
    let cut = report(&task);
    assert_eq!((&cut["ended"], &cut["truncated"]), (&json!("output_limit"), &json!(true)));
    assert!(output(&task).len() <= 4_096);

    let task = send_text(to, "/", "echo begun; sleep 100").await;
    assert_eq!(report(&task)["ended"], "wall_time");
    assert_eq!(output(&task), "begun\n");
    node.stop().await;
}

#[tokio::test]
async fn a_task_can_be_read_afterwards_by_its_agent_only() {
    let (node, to) = start(shell_node()).await;
    let task = send_text(to, "/", "echo once").await;
    let id = task["id"].as_str().expect("a task has an id");
    assert_eq!(get_task(to, "/", id).await, task);
    assert_eq!(task["history"][0]["parts"][0]["text"], "echo once");
    assert_eq!(task["history"][0]["taskId"], id);
    assert!(!task["contextId"].as_str().expect("a context").is_empty());

    let mut connection = Connection::open(to).await;
    let short = json!({ "id": id, "historyLength": 0 });
    let answer = connection.rpc("/", "GetTask", short).await;
    assert_eq!(answer["result"].get("history"), None);
    let answer = connection.rpc("/agents/echo", "GetTask", json!({ "id": id })).await;
    assert_eq!(answer["error"]["code"], -32001, "another agent's task: {answer}");
    node.stop().await;
}

#[tokio::test]
async fn every_agent_has_a_card_and_answers_at_its_url() {
    let (node, to) = start(shell_node()).await;
    let mut connection = Connection::open(to).await;
    for (place, name) in [("", "shell"), ("/agents/shell", "shell"), ("/agents/echo", "echo")] {
        let response = connection.get(&format!("{place}/.well-known/agent-card.json")).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        let card = response.json();
        assert_eq!(card["name"], name);
        assert_eq!(card["skills"][0]["id"], name);
        let interface = &card["supportedInterfaces"][0];
        assert_eq!(interface["protocolBinding"], "JSONRPC");
        assert_eq!(interface["protocolVersion"], "1.0");
        let url = interface["url"].as_str().expect("an interface has a URL");
        let path = url.strip_prefix(&format!("http://{to}")).expect("this gateway's URL");
        let task = send_text(to, path, "echo hi").await;
        assert_eq!(task["artifacts"][0]["name"], if name == "shell" { "output" } else { "echo" });
    }
    let response = connection.get("/agents/nobody/.well-known/agent-card.json").await;
    assert_eq!(response.status, 404);
    assert!(response.text().contains("echo, shell"), "{}", response.text());
    node.stop().await;
}

#[tokio::test]
async fn echo_gives_every_kind_of_part_back() {
    let (node, to) = start(shell_node()).await;
    let parts = json!([
        { "text": "ä\u{0}\u{1F600}\"", "mediaType": "text/plain" },
        { "raw": "AAEC/w==", "filename": "a.bin" },
        { "url": "https://example.com/x" },
        { "data": { "a": [1, -2.5, null, true, "b"], "c": {} }, "metadata": { "k": 1 } },
    ]);
    let answer = Connection::open(to)
        .await
        .rpc("/agents/echo", "SendMessage", crate::client::message(parts.clone()))
        .await;
    assert_eq!(answer["result"]["task"]["artifacts"][0]["parts"], parts);
    node.stop().await;
}

#[tokio::test]
async fn health_and_readiness_are_told_apart_from_everything_else() {
    let (node, to) = start(shell_node()).await;
    let mut connection = Connection::open(to).await;
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let response = connection.get(path).await;
        assert_eq!((response.status, response.text().as_str()), (200, body), "{path}");
    }
    let nowhere = connection.get("/nowhere").await;
    assert_eq!((nowhere.status, &nowhere.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
    assert_eq!(connection.post("/healthz", b"{}").await.status, 405);
    assert_eq!(connection.get("/").await.status, 405);
    node.stop().await;
}

/// A number of the agent's that a double can't hold exactly comes out as the nearest one, in data
/// that is still data.
#[tokio::test]
async fn an_agents_json_stays_json() {
    let agent = AgentBuilder::new("counts", "Counts.").on_ask(|_, _| async {
        let json =
            Content::Json(r#"{"exact":9007199254740991,"large":1732400000000000001}"#.into());
        Ok(Answer::artifact(Artifact::new("numbers", vec![json.into()])))
    });
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    let task = send_text(to, "/", "go").await;
    let data = &task["artifacts"][0]["parts"][0]["data"];
    assert_eq!(data["exact"], 9_007_199_254_740_991_u64);
    let large = data["large"].as_f64().expect("a number");
    assert!((large - 1_732_400_000_000_000_001.0).abs() < 256.0, "{data}");
    node.stop().await;
}

/// Whole numbers reach an agent as such, so that it can read them into whole numbers.
#[tokio::test]
async fn a_clients_whole_numbers_stay_whole() {
    let agent = AgentBuilder::new("reads", "Says what it reads.")
        .on_ask(|ask, _| async move { Ok(Answer::text(ask.json().unwrap_or_default())) });
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    let data = json!({ "a": [1, -2, 2.5, 0], "b": 9_007_199_254_740_991_u64 });
    let task = send_data(to, "/", data.clone()).await;
    assert_eq!(output(&task), data.to_string());
    node.stop().await;
}
