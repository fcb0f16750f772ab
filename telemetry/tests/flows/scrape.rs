//! The endpoint as Prometheus and less polite clients see it, over a plain socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use neuroflow_kernel::{Backoff, Cause, Header, Kernel, RestartPolicy, StartError, Strategy};
use neuroflow_telemetry::server::{self, MetricsConfig, MetricsEndpoint};
use neuroflow_telemetry::{Telemetry, TelemetryConfig};

use crate::stage::{Order, value, watched, work, worker};

async fn served(telemetry: &Telemetry, kernel: &Kernel, config: MetricsConfig) -> MetricsEndpoint {
    let (spec, endpoint) = server::child(telemetry, &config).unwrap();
    kernel.root().start(spec).await.unwrap();
    endpoint
}

fn anywhere() -> MetricsConfig {
    MetricsConfig::default().address(([127, 0, 0, 1], 0).into())
}

/// Sends a request and gives the status line with headers, and the body.
async fn ask(address: SocketAddr, request: &'static str) -> (String, String) {
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut answer = String::new();
        // The server closes the connection after its answer.
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = asking.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_scrape_gets_the_metrics_and_everything_else_gets_nothing() {
    let (telemetry, kernel) = watched(TelemetryConfig::default(), RestartPolicy::default()).await;
    let endpoint = served(&telemetry, &kernel, anywhere()).await;
    let address = endpoint.address().await.unwrap();
    work(&worker(&kernel).await).await;

    let (head, body) = ask(address, "GET /metrics").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert_eq!(value(&body, "neuroflow_actors{actor_kind=\"telemetry\"}"), 1);
    assert_eq!(value(&body, "neuroflow_actors{actor_kind=\"worker\"}"), 1);
    if cfg!(target_os = "linux") {
        assert!(value(&body, "process_resident_memory_bytes") > 1_000_000);
        assert!(value(&body, "process_open_fds") > 3);
    }
    let version = format!("neuroflow_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&body, &version), 1);

    for request in ["POST /metrics", "GET /", "GET /metrics/", "DELETE /x", "HEAD /metrics"] {
        let (head, body) = ask(address, request).await;
        assert!(head.starts_with("http/1.1 404 "), "{request}: {head}");
        assert!(body.is_empty(), "{request}: {body}");
    }
    // A query doesn't change what is asked for.
    let (head, _) = ask(address, "GET /metrics?name=x").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    kernel.stop().await;
    assert!(TcpStream::connect(address).is_err(), "nobody listens after the stop");
}

#[tokio::test]
async fn a_restarted_endpoint_binds_again() {
    let policy = RestartPolicy {
        strategy: Strategy::OneForAll,
        backoff: Backoff { first: Duration::from_millis(1), max: Duration::from_millis(5) },
        ..RestartPolicy::default()
    };
    let (telemetry, kernel) = watched(TelemetryConfig::default(), policy).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = served(&telemetry, &kernel, MetricsConfig::default().address(free)).await;
    let worker = worker(&kernel).await;
    worker.tell(Header::new(), Order::Fail).await.unwrap();
    work(&worker).await;
    assert_eq!(endpoint.address().await.unwrap(), free);
    let (head, body) = ask(free, "GET /metrics").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(value(&body, "neuroflow_actor_restarts_total{actor_kind=\"telemetry\"}"), 1);
    kernel.stop().await;
}

#[tokio::test]
async fn a_given_socket_is_used() {
    let (telemetry, kernel) = watched(TelemetryConfig::default(), RestartPolicy::default()).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = MetricsConfig::default().listener(socket);
    let endpoint = served(&telemetry, &kernel, config).await;
    assert_eq!(endpoint.address().await.unwrap(), address);
    assert!(ask(address, "GET /metrics").await.0.starts_with("http/1.1 200 "));
    kernel.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_what_to_do() {
    let (telemetry, kernel) = watched(TelemetryConfig::default(), RestartPolicy::default()).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = MetricsConfig::default().address(taken.local_addr().unwrap());
    let (spec, _) = server::child(&telemetry, &config).unwrap();
    let refused = kernel.root().start(spec).await.unwrap_err();
    let StartError::Failed { cause: Cause::Error(cause), .. } = refused else {
        panic!("{refused:?}")
    };
    let expected = "is taken: choose another port for metrics, or 0 for any that is free";
    assert!(cause.to_string().ends_with(expected), "{cause}");
    kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dawdling_clients_stop_neither_scrapes_nor_the_kernel() {
    let (telemetry, kernel) = watched(TelemetryConfig::default(), RestartPolicy::default()).await;
    let endpoint = served(&telemetry, &kernel, anywhere()).await;
    let address = endpoint.address().await.unwrap();
    let mut dawdling = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metr").unwrap();
        dawdling.push(stream);
    }
    assert!(ask(address, "GET /metrics").await.0.starts_with("http/1.1 200 "));
    let begun = kernel.clock().now();
    kernel.stop().await;
    let took = kernel.clock().now().since(begun);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
