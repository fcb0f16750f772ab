//! The peer: the server of the official Rust SDK with its store in memory, and an agent that echoes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use a2a::{
    A2AError, Artifact, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus,
    TaskStatusUpdateEvent, new_artifact_id,
};
use a2a_server::jsonrpc::jsonrpc_router;
use a2a_server::{AgentExecutor, DefaultRequestHandler, ExecutorContext, InMemoryTaskStore};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::net::TcpListener;

/// Serves on the current runtime, as long as that lives.
pub(in crate::gateway) async fn serve() -> SocketAddr {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(anywhere).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let handler = DefaultRequestHandler::new(Echoes, InMemoryTaskStore::new());
    let router = jsonrpc_router(Arc::new(handler));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the peer serves") });
    address
}

/// What our agent `echo` does: a task begins, gets one artifact, and is completed.
struct Echoes;

impl AgentExecutor for Echoes {
    fn execute(
        &self,
        context: ExecutorContext,
    ) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let (id, context_id) = (context.task_id, context.context_id);
        let parts = context.message.iter().flat_map(|message| message.parts.clone()).collect();
        let begun = Task {
            id: id.clone(),
            context_id: context_id.clone(),
            status: status(TaskState::Submitted),
            artifacts: None,
            history: context.message.map(|message| vec![message]),
            metadata: None,
        };
        let artifact = Artifact {
            artifact_id: new_artifact_id(),
            name: Some("echo".to_owned()),
            description: None,
            parts,
            metadata: None,
            extensions: None,
        };
        let echoed = TaskArtifactUpdateEvent {
            task_id: id.clone(),
            context_id: context_id.clone(),
            artifact,
            append: None,
            last_chunk: None,
            metadata: None,
        };
        let ended = TaskStatusUpdateEvent {
            task_id: id,
            context_id,
            status: status(TaskState::Completed),
            metadata: None,
        };
        stream::iter([
            Ok(StreamResponse::Task(begun)),
            Ok(StreamResponse::ArtifactUpdate(echoed)),
            Ok(StreamResponse::StatusUpdate(ended)),
        ])
        .boxed()
    }

    fn cancel(&self, _: ExecutorContext) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        stream::empty().boxed()
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, message: None, timestamp: Some(std::time::SystemTime::now().into()) }
}
