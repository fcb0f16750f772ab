//! What an agent of another node may use for whom is said by the rules of the gateway that offers it.

use std::sync::Arc;

use neuroflow::actors::{AuditConfig, BoundedAsk, JournalConfig, JournalPlace, ToolBounds};
use neuroflow::kernel::{Address, Request};
use neuroflow::transport::Allowed;
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Ask, Header, Node, NodeBuilder, ProxyAgent, ToolError, Turn,
    tool,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::{Files, Ping, call, config, token};
use crate::client::{get_task, message, send_text, task_of};
use crate::proxy::{Cluster, reason};
use crate::support::{Nothing, loopback, output, pause, profile, standard, start, state};

/// Answers, too.
#[tool]
async fn other(_: Nothing) -> Result<(), ToolError> {
    Ok(())
}

/// Tries all that it has, once it's let go, and says what came of each.
fn handy(gate: &Arc<Semaphore>) -> AnyAgent {
    let gate = Arc::clone(gate);
    AgentBuilder::new("handy", "Uses tools.")
        .profile(|profile| profile.resumable = true)
        .tool(Ping)
        .tool(other)
        .shared_tool("exec")
        .on_ask(move |_, context| {
            let gate = Arc::clone(&gate);
            async move {
                let _open = gate.acquire().await;
                let mut told = Vec::new();
                let run = json!({ "command": ["true"] });
                for (tool, arguments) in [("ping", json!({})), ("other", json!({})), ("exec", run)]
                {
                    let came = context.call(tool, arguments).await;
                    let came =
                        came.map_or_else(|error| error.code().to_owned(), |_| "done".to_owned());
                    told.push(format!("{tool} {came}"));
                }
                Ok(Answer::text(told.join(", ")))
            }
        })
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(9))
}

const ALL: &str = "ping done, other done, exec done";

#[tokio::test]
async fn rules_bound_what_is_used_elsewhere_and_without_rules_it_is_all() {
    let cluster = Cluster::new();
    let node = Node::builder().agent(handy(&open())).sandbox(profile(standard()));
    let b = cluster.other_of("b", node, &[]).await;
    // As a node that knows of no bounds offers it.
    let links = b.node.links().expect("it has links");
    let plain: Address<Request<Ask>> = b.node.resolve("agent://b/handy").expect("it's there");
    links.export("plain", plain, Allowed::Everyone).expect("it's exported");

    let files = Files::fresh();
    let clients = ["user", "runner", "guest", "admin"].map(|name| token(name, &[name]));
    let tokens = files
        .write("tokens", &clients.each_ref().map(neuroflow::actors::FreshToken::line).join("\n"));
    let policy = files.write(
        "policy",
        r#"
        permit(principal, action in [Action::"ask", Action::"read"], resource);
        permit(principal in Group::"user", action == Action::"call_tool", resource in Agent::"far")
            unless { resource == Tool::"exec" };
        permit(principal in Group::"runner", action == Action::"call_tool", resource == Tool::"exec");
        permit(principal in Group::"runner", action == Action::"run_level", resource == Level::"standard");
        permit(principal in Group::"admin", action, resource);
        "#,
    );
    let proxies = |node: NodeBuilder| {
        node.proxy(ProxyAgent::new("far", "agent://*/handy").tools(["ping", "exec"]))
            .proxy(ProxyAgent::new("unnamed", "agent://b/handy"))
            .proxy(ProxyAgent::new("plain", "agent://b/plain"))
    };
    let (node, to) = start(proxies(cluster.gateway(&[&b])).access(config(&tokens, &policy))).await;
    let asked = |agent: &'static str, who: usize| {
        let secret = clients[who].secret().to_owned();
        async move {
            let params = message(json!([{ "text": "go" }]));
            let path = format!("/agents/{agent}");
            task_of(call(to, &path, Some(&secret), "SendMessage", params).await.json())
        }
    };
    let nothing = "ping unknown_tool, other unknown_tool, exec unknown_tool";
    for (agent, who, expected) in [
        ("far", 0, "ping done, other unknown_tool, exec unknown_tool"),
        // The tool and the level, both.
        ("far", 1, "ping unknown_tool, other unknown_tool, exec done"),
        ("far", 2, nothing),
        // What this node knows by name, even for those who may do everything.
        ("far", 3, "ping done, other unknown_tool, exec done"),
        ("unnamed", 3, nothing),
    ] {
        assert_eq!(output(&asked(agent, who).await), expected, "{agent} for {who}");
    }
    let refused = asked("plain", 3).await;
    assert_eq!((state(&refused), reason(&refused)), ("TASK_STATE_FAILED", "boundless"));
    node.stop().await;

    let (node, to) = start(proxies(cluster.gateway(&[&b]))).await;
    for agent in ["far", "unnamed", "plain"] {
        assert_eq!(output(&send_text(to, &format!("/agents/{agent}"), "go").await), ALL, "{agent}");
    }
    node.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_had_it_run_elsewhere_is_found_by_one_trace_in_the_logs_of_both() {
    let cluster = Cluster::new();
    let files = Files::fresh();
    let log = |node: &str| files.path().join(node);
    let node = Node::builder().agent(handy(&open())).sandbox(profile(standard()));
    let b = cluster.other_of("b", node.audit(AuditConfig::new(log("b"))), &[]).await;
    let dev = token("dev", &[]);
    let tokens = files.write("tokens", dev.line());
    let policy = files.write("policy", "permit(principal, action, resource);");
    let node = cluster.gateway(&[&b]).audit(AuditConfig::new(log("a")));
    let far = ProxyAgent::new("far", "agent://b/handy").tools(["exec"]);
    let (node, to) = start(node.proxy(far).access(config(&tokens, &policy))).await;
    let params = message(json!([{ "text": "go" }]));
    let asked = call(to, "/agents/far", Some(dev.secret()), "SendMessage", params).await;
    assert!(output(&task_of(asked.json())).ends_with("exec done"));
    node.stop().await;
    b.stop().await;
    let traces = |node: &str, kind: &str| -> Vec<Option<String>> {
        let text = std::fs::read_to_string(log(node)).expect("there is a log");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let records = lines.map(|mut line| line["record"].take());
        let records = records.filter(|record| record["event"]["kind"] == kind);
        records.map(|record| record["trace"].as_str().map(str::to_owned)).collect()
    };
    let asked = traces("a", "authorisation");
    assert!(matches!(&asked[..], [Some(_)]), "{asked:?}");
    for kind in ["cell_started", "cell_ended"] {
        assert_eq!(traces("b", kind), asked, "{kind}");
    }
    assert!(traces("b", "capability_use").iter().all(|trace| *trace == asked[0]));
}

#[tokio::test]
async fn a_task_keeps_its_bounds_when_it_is_run_again() {
    let cluster = Cluster::new();
    let files = Files::fresh();
    let gate = Arc::new(Semaphore::new(0));
    let node = || {
        let place = JournalPlace::Directory(files.path().join("journal"));
        let node = Node::builder().agent(handy(&gate)).sandbox(profile(standard()));
        node.journal(JournalConfig::new(place)).gateway(loopback())
    };
    let a = cluster.other_of("a", Node::builder(), &[]).await;
    let b = cluster.other_of("b", node(), &[&a]).await;
    let bounds = ToolBounds { tools: vec!["ping".into(), "exec".into()], levels: Vec::new() };
    let ask = Ask::new(Turn::user("go")).in_context("c");
    let bounded = BoundedAsk { ask, bounds };
    let links = a.node.links().expect("it has links");
    let far: Address<Request<BoundedAsk>> = links.resolve("agent://b/handy").expect("an address");
    let mut events = loop {
        match far.ask(Header::new(), &bounded).await {
            Ok(events) => break events,
            Err(_no_link_yet) => pause(20).await,
        }
    };
    let first = events.next().await.expect("an event").expect("it's whole");
    let task = first.get().task.to_string();
    b.stop().await;
    gate.add_permits(9);
    let b = cluster.other_of("b", node(), &[&a]).await;
    let to = b.node.gateway().expect("it has a gateway");
    while state(&get_task(to, "/", &task).await) != "TASK_STATE_COMPLETED" {
        pause(20).await;
    }
    let told = get_task(to, "/", &task).await;
    assert_eq!(output(&told), "ping done, other unknown_tool, exec unknown_tool");
    a.stop().await;
    b.stop().await;
}
