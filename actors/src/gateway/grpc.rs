//! The gRPC binding: the service `lf.a2a.v1.A2AService`, on the port of all others.

mod timeout;

use std::future::Future;
use std::sync::{Arc, OnceLock};

use a2a_pb::protojson as pb;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream;
use http_body_util::Full;
use neuroflow_kernel::{Clock, Moment};
use tonic::Status;
use tonic::codec::Codec;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::error::A2aError;
use super::http::{Observed, Shared, activated, check_version, read_body};
use super::operations::{Place, Updates, Visit};
use crate::limits::BODY_BYTES;

/// Reads the call, does it, and writes the answer.
pub(super) async fn answer(shared: &Arc<Shared>, method: &str, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    if head.version != Version::HTTP_2 {
        let text = "gRPC needs HTTP/2\n";
        return (StatusCode::HTTP_VERSION_NOT_SUPPORTED, text).into_response();
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = |value: &[u8]| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(b"+proto") || rest.starts_with(b";")
        })
    };
    if !content_type.is_some_and(is_grpc) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let mut observed = Observed::begin(shared, &head);
    observed.operation(method);
    let mut visit = None;
    // What went wrong, for those who count.
    let failed = OnceLock::new();
    let served = serve_in_time(shared, method, head, body, &observed, &mut visit, &failed).await;
    let mut response = match served {
        Ok(response) => response,
        Err(error) => {
            let _first = failed.set(error.code());
            error.to_status().into_http::<tonic::body::Body>().map(Body::new)
        }
    };
    activated(visit.as_ref(), response.headers_mut());
    observed.end(visit.as_ref(), response.status().as_u16(), failed.get().copied());
    response
}

/// Serves the call until its caller waits no longer. What it has begun by then goes on, as it does when the
/// caller is gone.
async fn serve_in_time<'v>(
    shared: &'v Arc<Shared>,
    method: &str,
    head: Parts,
    body: Body,
    observed: &Observed<'_>,
    visit: &mut Option<Visit<'v>>,
    failed: &OnceLock<i32>,
) -> Result<Response, A2aError> {
    let now = shared.clock.now();
    let Some(timeout) = timeout::timeout(&head.headers)? else {
        return serve(shared, method, (head, body, None), observed, visit, failed).await;
    };
    if timeout.is_zero() {
        return Err(A2aError::DeadlineExceeded);
    }
    let deadline = now + timeout;
    let served = serve(shared, method, (head, body, Some(deadline)), observed, visit, failed);
    shared.clock.before(deadline, served).await.unwrap_or(Err(A2aError::DeadlineExceeded))
}

async fn serve<'v>(
    shared: &'v Arc<Shared>,
    method: &str,
    (head, body, deadline): (Parts, Body, Option<Moment>),
    observed: &Observed<'_>,
    visit: &mut Option<Visit<'v>>,
    failed: &OnceLock<i32>,
) -> Result<Response, A2aError> {
    let body = read_body(shared, body).await?;
    check_version(&head)?;
    let visit: &Visit<'_> = visit.insert(observed.visit(shared, Place::default(), &head)?);
    let until = deadline.map(|deadline| (shared.clock.clone(), deadline));
    let call = Call { request: Request::from_parts(head, Full::new(body)), until, failed };
    Ok(match method {
        "SendMessage" => call.unary(|request| visit.send(request)).await,
        "SendStreamingMessage" => call.stream(|request| visit.send_streaming(request)).await,
        "GetTask" => call.unary(|request| visit.get(request)).await,
        "ListTasks" => call.unary(|request| visit.list(request)).await,
        "CancelTask" => call.unary(|request| visit.cancel(request)).await,
        "SubscribeToTask" => call.stream(|request| visit.subscribe(request)).await,
        "CreateTaskPushNotificationConfig" => {
            call.unary(|request| visit.create_push(request)).await
        }
        "GetTaskPushNotificationConfig" => call.unary(|request| visit.get_push(request)).await,
        "ListTaskPushNotificationConfigs" => call.unary(|request| visit.list_push(request)).await,
        "DeleteTaskPushNotificationConfig" => {
            call.unary(|request| visit.delete_push(request)).await
        }
        "GetExtendedAgentCard" => {
            call.unary(|request| async move { visit.extended_card(&request).await }).await
        }
        method => return Err(A2aError::no_method(method)),
    })
}

/// A call whose message isn't read yet.
struct Call<'a> {
    request: Request<Full<Bytes>>,
    /// When its caller waits no longer.
    until: Option<(Clock, Moment)>,
    failed: &'a OnceLock<i32>,
}

impl Call<'_> {
    async fn unary<Q, A, F>(self, operation: impl FnOnce(Q) -> F) -> Response
    where
        ProstCodec<A, Q>: Codec<Encode = A, Decode = Q>,
        F: Future<Output = Result<A, A2aError>>,
        Q: Send + 'static,
        A: Send + 'static,
    {
        let (mut operation, failed) = (Some(operation), self.failed);
        let service = service_fn(|request: tonic::Request<Q>| {
            let operation = operation.take();
            async move {
                let Some(operation) = operation else {
                    return Err(Status::internal("called twice"));
                };
                let answer = operation(request.into_inner()).await;
                answer.map(tonic::Response::new).map_err(|error| failure(&error, failed))
            }
        });
        codec::<A, Q>().unary(service, self.request).await.map(Body::new)
    }

    async fn stream<Q, F>(self, operation: impl FnOnce(Q) -> F) -> Response
    where
        ProstCodec<pb::StreamResponse, Q>: Codec<Encode = pb::StreamResponse, Decode = Q>,
        F: Future<Output = Result<Updates, A2aError>>,
        Q: Send + 'static,
    {
        let (mut operation, failed) = (Some((operation, self.until)), self.failed);
        let service = service_fn(|request: tonic::Request<Q>| {
            let operation = operation.take();
            async move {
                let Some((operation, until)) = operation else {
                    return Err(Status::internal("called twice"));
                };
                let updates = operation(request.into_inner()).await;
                let updates = updates.map_err(|error| failure(&error, failed))?;
                Ok(tonic::Response::new(Box::pin(responses(updates, until))))
            }
        });
        let mut grpc = codec::<pb::StreamResponse, Q>();
        grpc.server_streaming(service, self.request).await.map(Body::new)
    }
}

fn codec<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    ProstCodec<A, Q>: Codec<Encode = A, Decode = Q>,
{
    Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(BODY_BYTES), None)
}

fn failure(error: &A2aError, failed: &OnceLock<i32>) -> Status {
    let _first = failed.set(error.code());
    error.to_status()
}

/// The updates; an error is the last.
fn responses(
    updates: Updates,
    until: Option<(Clock, Moment)>,
) -> impl Stream<Item = Result<pb::StreamResponse, Status>> + Send {
    stream::unfold(Some((updates, until)), |state| async move {
        let (mut updates, until) = state?;
        let next = match &until {
            Some((clock, deadline)) => {
                let next = clock.before(*deadline, updates.next()).await;
                next.unwrap_or(Err(A2aError::DeadlineExceeded))
            }
            None => updates.next().await,
        };
        match next {
            Ok(Some(update)) => Some((Ok(update.response), Some((updates, until)))),
            Ok(None) => None,
            Err(error) => Some((Err(error.to_status()), None)),
        }
    })
}
