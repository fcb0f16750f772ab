//! One request through a gateway and three actors arrives at a collector as one connected trace.

use std::collections::HashMap;
use std::time::Duration;

use mock_collector::{MockServer, Protocol, ServerHandle};
use neuroflow_kernel::{ChildSpec, Header, RestartPolicy, SpanKind};
use neuroflow_telemetry::{Sampler, TelemetryConfig, TraceConfig};

use crate::stage::{Pass, Relay, value, watched};

async fn collector() -> (ServerHandle, TraceConfig) {
    let server = MockServer::builder().protocol(Protocol::HttpBinary).port(0).start();
    let server = server.await.unwrap();
    let traces = TraceConfig::collector(format!("http://127.0.0.1:{}", server.addr().port()));
    (server, traces)
}

#[tokio::test]
async fn a_request_is_one_connected_trace() {
    let (server, traces) = collector().await;
    let config = TelemetryConfig::default()
        .service("flows")
        .namespace("tests")
        .instance("node-1")
        .traces(traces.header("x-tenant", "t"));
    let (telemetry, kernel) = watched(config, RestartPolicy::default()).await;
    assert_eq!(telemetry.sampler(), Sampler::ALWAYS);

    let mut next = None;
    for (name, span) in
        [("tool", "execute_tool python"), ("model", "chat m"), ("agent", "invoke_agent a")]
    {
        let after = next.take();
        let make = move || Relay { span, next: after.clone() };
        let (spec, address) = ChildSpec::new(name, make).unwrap();
        kernel.root().start(spec).await.unwrap();
        next = Some(address);
    }
    let sampled = telemetry.sampler().sample();
    let mut root = kernel.tracer().root(sampled, "POST /v1/tasks", SpanKind::Server);
    root.set("http.response.status_code", 200);
    let context = root.context();
    next.unwrap().call(Header::new().traced(context), Pass).await.unwrap();
    drop(root);
    // What isn't sampled isn't sent.
    drop(kernel.tracer().root(false, "GET /health", SpanKind::Server));
    kernel.stop().await;
    telemetry.shutdown(Duration::from_secs(5)).await.unwrap();

    server.wait_for_spans(4, Duration::from_secs(5)).await.unwrap();
    server
        .with_collector(|collector| {
            assert_eq!(collector.span_count(), 4);
            let spans: HashMap<&str, _> =
                collector.spans().iter().map(|it| (it.span().name.as_str(), it.span())).collect();
            let chain = ["POST /v1/tasks", "invoke_agent a", "chat m", "execute_tool python"];
            let mut parent: Vec<u8> = Vec::new();
            for name in chain {
                let span = spans[name];
                assert_eq!(span.trace_id, context.trace_id(), "{name}");
                assert_eq!(span.parent_span_id, parent, "{name}");
                assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
                parent.clone_from(&span.span_id);
            }
            assert_eq!(spans[chain[0]].span_id, context.span_id());
            collector
                .expect_span_with_name("POST /v1/tasks")
                .with_attributes([("http.response.status_code", 200)])
                .with_resource_attributes([
                    ("service.name", "flows"),
                    ("service.namespace", "tests"),
                    ("service.instance.id", "node-1"),
                    ("service.version", env!("CARGO_PKG_VERSION")),
                ])
                .assert_exists();
            collector
                .expect_span()
                .with_resource_attributes([("process.pid", i64::from(std::process::id()))])
                .assert_count(4);
            // Statuses: 0 unset, 2 error. Kinds: 1 internal, 2 server.
            let code = |name: &str| spans[name].status.as_ref().map_or(0, |status| status.code);
            assert_eq!(chain.map(code), [0, 0, 0, 2]);
            assert_eq!(chain.map(|name| spans[name].kind), [2, 1, 1, 1]);
            collector
                .expect_span_with_name("execute_tool python")
                .with_attributes([("error.type", "exit_code"), ("gen_ai.tool.name", "python")])
                .assert_exists();
            let errors = collector.spans().iter().filter(|it| {
                it.span().attributes.iter().any(|attribute| attribute.key == "error.type")
            });
            assert_eq!(errors.count(), 1);
        })
        .await;
    let text = telemetry.render().unwrap();
    assert_eq!(value(&text, "neuroflow_telemetry_spans_exported_total"), 4);
    // What comes after the end is counted, not waited for.
    drop(kernel.tracer().root(true, "late", SpanKind::Server));
    telemetry.shutdown(Duration::from_secs(5)).await.unwrap();
    let text = telemetry.render().unwrap();
    let late = "neuroflow_telemetry_spans_dropped_total{reason=\"shut_down\"}";
    assert_eq!(value(&text, late), 1);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_spans_arrive_in_batches_without_a_loss() {
    let (server, traces) = collector().await;
    let config = TelemetryConfig::default().traces(traces.queue(2_000).batch(100));
    let (telemetry, kernel) = watched(config, RestartPolicy::default()).await;
    for _ in 0..1_000 {
        drop(kernel.tracer().root(true, "one of many", SpanKind::Internal));
    }
    telemetry.shutdown(Duration::from_secs(20)).await.unwrap();
    server.wait_for_spans(1_000, Duration::from_secs(5)).await.unwrap();
    let text = telemetry.render().unwrap();
    assert_eq!(value(&text, "neuroflow_telemetry_spans_exported_total"), 1_000);
    kernel.stop().await;
    server.shutdown().await.unwrap();
}
