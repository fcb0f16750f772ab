//! The peer: axum, a JSON parser, and an answer of the same size.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves on the current runtime, as long as that lives.
pub(super) async fn serve() -> SocketAddr {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(anywhere).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let router = Router::new().route("/", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the peer serves") });
    address
}

async fn answer(body: Bytes) -> impl IntoResponse {
    let call: Value = serde_json::from_slice(&body).expect("the benchmark sends JSON");
    let message = &call["params"]["message"];
    let (task, context, artifact) = (id(), id(), id());
    let answer = json!({
        "jsonrpc": "2.0",
        "id": call["id"],
        "result": { "task": {
            "id": task,
            "contextId": context,
            "status": { "state": "TASK_STATE_COMPLETED", "timestamp": "2024-01-01T00:00:00.000Z" },
            "artifacts": [{
                "artifactId": artifact,
                "name": "echo",
                "parts": message["parts"],
            }],
            "history": [{
                "messageId": message["messageId"],
                "contextId": context,
                "taskId": task,
                "role": message["role"],
                "parts": message["parts"],
            }],
        } },
    });
    let body = serde_json::to_vec(&answer).expect("a value can be written");
    ([(CONTENT_TYPE, "application/json")], body)
}

/// As long as a UUID, and as different from the next one.
fn id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("00000000-0000-4000-8000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed))
}
