//! One request is one trace, from the socket to the process, and every actor on its way is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use neuroflow::kernel::{KindObserver, Lifecycle, Outcome, Span, SpanKind, SpanValue, Timing};
use neuroflow::{
    AgentBuilder, Answer, GatewayConfig, Meter, Metered, Node, Observer, TraceContext,
};
use serde_json::{Value, json};

use crate::client::{Connection, message, request, task_of};
use crate::support::{caller, eventually, loopback, output, profile, shell_node, standard, start};

/// Keeps what it sees.
#[derive(Debug, Default)]
struct Seen {
    spans: Mutex<Vec<Span>>,
    handled: Arc<Mutex<Handled>>,
    lifecycle: Mutex<Vec<String>>,
    requests: Mutex<Vec<(&'static str, u16, Option<i32>)>>,
    methods: Mutex<Vec<(&'static str, &'static str)>>,
}

/// How often each message of each kind of actor had which outcome.
type Handled = BTreeMap<(&'static str, &'static str, &'static str), u32>;

#[derive(Debug)]
struct OfKind {
    kind: &'static str,
    handled: Arc<Mutex<Handled>>,
}

impl Observer for Seen {
    fn lifecycle(&self, event: &Lifecycle<'_>) {
        let line = match event {
            Lifecycle::Started { actor } => format!("started {}", actor.kind),
            Lifecycle::Stopped { actor } => format!("stopped {}", actor.kind),
            Lifecycle::Failed { actor, .. } => format!("failed {}", actor.kind),
            Lifecycle::Killed { actor } => format!("killed {}", actor.kind),
            _ => return,
        };
        locked(&self.lifecycle).push(line);
    }

    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        Arc::new(OfKind { kind, handled: Arc::clone(&self.handled) })
    }

    fn span(&self, span: &Span) {
        locked(&self.spans).push(span.clone());
    }
}

impl KindObserver for OfKind {
    fn handled(&self, message: &'static str, outcome: Outcome, _timing: Option<Timing>) {
        *locked(&self.handled).entry((self.kind, message, outcome.as_str())).or_default() += 1;
    }
}

impl Meter for Seen {
    fn request(&self, request: &Metered) {
        let Metered { operation, status, error, .. } = *request;
        locked(&self.requests).push((operation, status, error));
        locked(&self.methods).push((request.method, operation));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// Runs a command over HTTP with these headers.
async fn run(to: std::net::SocketAddr, headers: &[(&str, &str)], line: &str) -> Value {
    let body = request("SendMessage", message(json!([{ "text": line }])));
    let response = Connection::open(to).await.post_with("/", headers, &body).await;
    task_of(response.json())
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a SpanValue> {
    span.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn has(span: &Span, name: &str, value: impl Into<SpanValue>) {
    assert_eq!(attribute(span, name), Some(&value.into()), "{name} of {}", span.name);
}

#[tokio::test]
async fn a_sampled_request_is_one_trace_down_to_its_process() {
    let seen = Arc::<Seen>::default();
    let (node, to) = start(shell_node().observer(seen.clone())).await;
    let task = run(to, &[("traceparent", SAMPLED)], "echo traced").await;
    assert_eq!(output(&task), "traced\n");
    // A span is told when it has ended, which may be after the answer.
    eventually("four spans", || locked(&seen.spans).len() >= 4).await;
    let spans = locked(&seen.spans).clone();
    assert_eq!(spans.len(), 4, "{spans:#?}");

    let client: TraceContext = SAMPLED.parse().expect("a context");
    let named = |name: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        found.next().unwrap_or_else(|| panic!("no span {name} among {spans:#?}"))
    };
    let server = named("SendMessage");
    let invoke = named("invoke_agent shell");
    let execute = named("execute_tool exec");
    let cell = named("sh");
    for (span, parent, kind) in [
        (server, client, SpanKind::Server),
        (invoke, server.context, SpanKind::Internal),
        (execute, invoke.context, SpanKind::Internal),
        (cell, execute.context, SpanKind::Client),
    ] {
        assert_eq!(span.context.trace_id(), client.trace_id(), "{}", span.name);
        assert_eq!(span.parent.span_id(), parent.span_id(), "the parent of {}", span.name);
        assert_eq!(span.kind, kind, "{}", span.name);
        assert_eq!(span.remote_parent, span.kind == SpanKind::Server, "{}", span.name);
        assert!(span.started <= span.ended && span.error.is_none(), "{span:?}");
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| span.context.span_id()).collect();
    assert_eq!(ids.len(), 4);

    has(server, "a2a.method.name", "SendMessage");
    has(server, "http.request.method", "POST");
    has(server, "http.response.status_code", 200);
    has(server, "gen_ai.agent.name", "shell");
    has(invoke, "gen_ai.operation.name", "invoke_agent");
    has(invoke, "gen_ai.agent.name", "shell");
    has(execute, "gen_ai.operation.name", "execute_tool");
    has(execute, "gen_ai.tool.name", "exec");
    has(cell, "process.executable.name", "sh");
    has(cell, "process.exit.code", 0);
    has(cell, "neuroflow.sandbox.level", "standard");
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_is_not_sampled_has_no_spans() {
    let seen = Arc::<Seen>::default();
    let (node, to) = start(shell_node().observer(seen.clone())).await;
    let malformed = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    for headers in [&[][..], &[("traceparent", UNSAMPLED)], &[("traceparent", malformed)]] {
        assert_eq!(output(&run(to, headers, "echo plain").await), "plain\n");
    }
    node.stop().await;
    assert!(locked(&seen.spans).is_empty(), "{:#?}", locked(&seen.spans));
}

#[tokio::test]
async fn a_request_without_a_trace_is_sampled_as_the_node_wants() {
    let seen = Arc::<Seen>::default();
    let mut config = GatewayConfig::new(loopback());
    config.sample = Arc::new(|| true);
    let (node, to) = start(shell_node().gateway_with(config).observer(seen.clone())).await;
    run(to, &[], "true").await;
    eventually("four spans", || locked(&seen.spans).len() >= 4).await;
    // Whoever says that it isn't sampled is believed.
    run(to, &[("traceparent", UNSAMPLED)], "true").await;
    node.stop().await;
    let spans = locked(&seen.spans).clone();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_none()).collect();
    assert!(roots.len() == 1 && roots[0].name == "SendMessage" && !roots[0].remote_parent);
    let traces: BTreeSet<_> = spans.iter().map(|span| span.context.trace_id()).collect();
    assert_eq!(traces.len(), 1);
}

#[tokio::test]
async fn what_fails_is_marked_where_it_fails() {
    let seen = Arc::<Seen>::default();
    let node = Node::builder()
        .agent(AgentBuilder::new("fails", "Fails.").shared_tool("exec").on_ask(
            |_, context| async move {
                let lost = json!({ "command": ["no-such-program"] });
                assert!(context.call("exec", lost).await.is_err());
                context.call("exec", json!({ "command": ["false"] })).await?;
                context.call("no-such-tool", json!({})).await?;
                Ok(Answer::done())
            },
        ))
        .sandbox(profile(standard()))
        .gateway(loopback())
        .observer(seen.clone());
    let (node, to) = start(node).await;
    run(to, &[("traceparent", SAMPLED)], "go").await;
    eventually("seven spans", || locked(&seen.spans).len() >= 7).await;
    let mut errors: Vec<(String, Option<String>)> = locked(&seen.spans)
        .iter()
        .map(|span| (span.name.to_string(), span.error.as_deref().map(str::to_owned)))
        .collect();
    errors.sort();
    let error = |name: &str, error: &str| (name.to_owned(), Some(error.to_owned()));
    assert_eq!(
        errors,
        [
            // The request was served: that the task failed isn't the server's error.
            ("SendMessage".to_owned(), None),
            ("execute_tool exec".to_owned(), None),
            error("execute_tool exec", "tool_error"),
            error("execute_tool no-such-tool", "unknown_tool"),
            error("false", "exit"),
            error("invoke_agent fails", "agent_error"),
            error("no-such-program", "program"),
        ]
    );
    node.stop().await;
}

#[tokio::test]
async fn every_actor_on_the_way_is_counted() {
    let seen = Arc::<Seen>::default();
    let (node, to) = start(shell_node().observer(seen.clone())).await;
    run(to, &[], "true").await;
    let wanted = [
        ("agent", "ask"),
        ("agent", "progress"),
        ("task", "begin"),
        ("tools", "invoke"),
        ("tool_call", "call"),
        ("sandbox", "exec"),
        ("cell", "run"),
    ];
    let count = |(kind, message)| locked(&seen.handled).get(&(kind, message, "ok")).copied();
    eventually("all messages", || wanted.iter().all(|wanted| count(*wanted).is_some())).await;
    for wanted in wanted {
        // That it's at work, and then the artifact together with the end.
        let expected = if wanted.1 == "progress" { 2 } else { 1 };
        assert_eq!(count(wanted), Some(expected), "{wanted:?}");
    }
    node.stop().await;
    let lifecycle = locked(&seen.lifecycle).clone();
    for kind in ["agent", "task", "tools", "tool_call", "sandbox", "cell", "gateway"] {
        for event in ["started", "stopped"] {
            let line = format!("{event} {kind}");
            assert!(lifecycle.contains(&line), "no {line} in {lifecycle:?}");
        }
    }
    assert!(!lifecycle.iter().any(|line| line.starts_with("failed")), "{lifecycle:?}");
}

#[tokio::test]
async fn a_panic_is_counted_and_told() {
    let seen = Arc::<Seen>::default();
    let agent = AgentBuilder::new("fragile", "Panics.").on_ask(|_, _| async { panic!("told so") });
    let (node, to) =
        start(Node::builder().agent(agent).gateway(loopback()).observer(seen.clone())).await;
    run(to, &[], "go").await;
    node.stop().await;
    assert_eq!(locked(&seen.handled).get(&("task", "begin", "panicked")), Some(&1));
    assert!(locked(&seen.lifecycle).contains(&"failed task".to_owned()));
}

#[tokio::test]
async fn the_meter_hears_of_every_call() {
    let seen = Arc::<Seen>::default();
    let agent = caller(AgentBuilder::new("plain", "Has no tools."));
    let node = Node::builder().agent(agent).gateway(loopback());
    let (node, to) = start(node.meter(seen.clone(), Arc::new(|| false))).await;
    let mut connection = Connection::open(to).await;
    connection.rpc("/", "SendMessage", message(json!([{ "text": "x" }]))).await;
    connection.rpc("/", "GetTask", json!({ "id": "none" })).await;
    connection.rpc("/", "Nonsense", json!({})).await;
    connection.post("/", b"{").await;
    connection.post_with("/", &[("content-type", "text/plain")], b"{}").await;
    assert_eq!(
        *locked(&seen.requests),
        [
            ("SendMessage", 200, None),
            ("GetTask", 200, Some(-32001)),
            // A name of the client's choice is no label.
            ("unknown", 200, Some(-32601)),
            ("unknown", 200, Some(-32700)),
            ("unknown", 415, Some(-32005)),
        ]
    );
    node.stop().await;
}

#[tokio::test]
async fn the_meter_hears_of_pages_and_of_mcp_by_their_methods() {
    let seen = Arc::<Seen>::default();
    let node = Node::builder().agent(neuroflow::AnyAgent::new(neuroflow::Echo)).gateway(loopback());
    let node = node.mcp_server(neuroflow::McpServer { http: true, exec: false });
    let (node, to) = start(node.meter(seen.clone(), Arc::new(|| false))).await;
    let mut connection = Connection::open(to).await;
    for path in ["/readyz", "/agents", "/agents/echo/.well-known/agent-card.json", "/tasks"] {
        connection.get(path).await;
    }
    connection.post("/mcp", b"{}").await;
    connection.post("/message:send", b"{}").await;
    assert_eq!(
        *locked(&seen.methods),
        [
            ("GET", "/readyz"),
            ("GET", "/agents"),
            // An agent's name is no label.
            ("GET", "/agents/{agent}/.well-known/agent-card.json"),
            ("GET", "ListTasks"),
            ("POST", "/mcp"),
            ("POST", "SendMessage"),
        ]
    );
    node.stop().await;
}

#[tokio::test]
async fn chat_completions_are_counted_and_traced_as_whatever_they_come_to() {
    let seen = Arc::<Seen>::default();
    let failing = AgentBuilder::new("failing", "Fails.").on_ask(|_, _| async move {
        Err::<Answer, _>(neuroflow::AgentError::failed("on purpose"))
    });
    let node = Node::builder().agent(neuroflow::AnyAgent::new(neuroflow::Echo)).agent(failing);
    let node = node.gateway(loopback()).observer(seen.clone());
    let (node, to) = start(node.meter(seen.clone(), Arc::new(|| true))).await;
    let mut connection = Connection::open(to).await;
    let ask = |model: &str| {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        json!({ "model": model, "messages": messages }).to_string()
    };
    let path = "/v1/chat/completions";
    for body in [ask("echo"), ask("failing"), ask("none"), "{".to_owned(), "{}".to_owned()] {
        connection.post(path, body.as_bytes()).await;
    }
    connection.get("/v1/models/none").await;
    let operation = "CreateChatCompletion";
    assert_eq!(
        *locked(&seen.requests),
        [
            (operation, 200, None),
            (operation, 422, Some(-32603)),
            (operation, 404, Some(-32602)),
            (operation, 400, Some(-32700)),
            (operation, 400, Some(-32602)),
            ("GetModel", 404, Some(-32602)),
        ]
    );
    let ended = || {
        let spans = locked(&seen.spans);
        spans.iter().filter(|span| span.name == operation).cloned().collect::<Vec<Span>>()
    };
    eventually("the spans of all completions", || ended().len() == 5).await;
    let spans = ended();
    has(&spans[0], "gen_ai.agent.name", "echo");
    has(&spans[1], "gen_ai.agent.name", "failing");
    let errors: Vec<_> = spans.iter().map(|span| span.error.is_some()).collect();
    assert_eq!(errors, [false, true, true, true, true]);
    assert!(spans[2..].iter().all(|span| attribute(span, "gen_ai.agent.name").is_none()));
    node.stop().await;
}
