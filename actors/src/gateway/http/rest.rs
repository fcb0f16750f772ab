//! The HTTP+JSON binding: one request in, one answer or one stream out.

use std::sync::Arc;

use a2a_pb::protojson as pb;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::{
    Observed, Shared, activated, check_version, content_type, event_stream, read_body, retry_after,
};
use crate::gateway::error::A2aError;
use crate::gateway::json::{self, Json};
use crate::gateway::operations::{Updates, Visit};
use crate::gateway::rest::{self, Call, Route, Tenant, Unrouted};
use crate::gateway::sse::{self, Envelope};

enum Answer {
    Whole(Vec<u8>),
    Stream(Box<Updates>),
}

/// Finds the operation of a path, does it, and writes the answer.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let media = media_type(&head.headers);
    let mut observed = Observed::begin(shared, &head);
    let route = match rest::route(head.method.as_str(), head.uri.path(), head.uri.query()) {
        Ok(route) => route,
        Err(unrouted) => {
            let response = astray(&unrouted, head.uri.path(), media);
            observed.end(None, response.status().as_u16(), Some(-32601));
            return response;
        }
    };
    observed.operation(route.call.operation());
    let mut visit = None;
    let result = serve(shared, &route, &head, body, &observed, &mut visit).await;
    let (error, mut response) = match result {
        Ok(Answer::Whole(body)) => (None, write(StatusCode::OK, media, body)),
        Ok(Answer::Stream(updates)) => {
            (None, event_stream(sse::body(updates, Envelope::Bare, shared.clock.clone())))
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.rest_status()).unwrap_or_default();
            (Some(error.code()), write(status, media, error.to_rest().to_string()))
        }
    };
    retry_after(&mut response);
    activated(visit.as_ref(), response.headers_mut());
    observed.end(visit.as_ref(), response.status().as_u16(), error);
    response
}

async fn serve<'v>(
    shared: &'v Arc<Shared>,
    route: &'v Route<'_>,
    head: &Parts,
    body: Body,
    observed: &Observed<'_>,
    visit: &mut Option<Visit<'v>>,
) -> Result<Answer, A2aError> {
    let found = content_type(&head.headers);
    let known = found.is_empty() || [PLAIN, A2A].iter().any(|own| found.eq_ignore_ascii_case(own));
    if route.call.takes_body() && (!known || found.is_empty() && route.call.has_body()) {
        return Err(A2aError::content_type("application/a2a+json or application/json", found));
    }
    let body = if route.call.takes_body() { read_body(shared, body).await? } else { Bytes::new() };
    check_version(head)?;
    let tenant = Tenant::read(head.uri.query())?;
    let visit = visit.insert(observed.visit(shared, route.place(), head)?);
    dispatch(visit, &route.call, tenant, body).await
}

async fn dispatch(
    visit: &Visit<'_>,
    call: &Call<'_>,
    tenant: Tenant,
    body: Bytes,
) -> Result<Answer, A2aError> {
    match call {
        Call::Send => {
            let mut request: pb::SendMessageRequest = read_whole(body)?;
            tenant.put_in(&mut request.tenant)?;
            whole(&Json(&visit.send(request).await?))
        }
        Call::Stream => {
            let mut request: pb::SendMessageRequest = read_whole(body)?;
            tenant.put_in(&mut request.tenant)?;
            stream(visit.send_streaming(request).await?)
        }
        Call::List(query) => {
            let mut request: pb::ListTasksRequest = query.read(rest::LIST)?;
            tenant.put_in(&mut request.tenant)?;
            whole(&Json(&visit.list(request).await?))
        }
        Call::Get(id, query) => {
            let mut request: pb::GetTaskRequest = query.read(rest::GET)?;
            tenant.put_in(&mut request.tenant)?;
            request.id.clone_from(id);
            whole(&Json(&visit.get(request).await?))
        }
        Call::Cancel(id) => {
            let mut request = rest::cancel(id, &body)?;
            tenant.put_in(&mut request.tenant)?;
            whole(&Json(&visit.cancel(request).await?))
        }
        Call::Subscribe(id) => {
            let mut request = rest::subscribe(id, &body)?;
            tenant.put_in(&mut request.tenant)?;
            stream(visit.subscribe(request).await?)
        }
        Call::CreatePush(task) => {
            let mut request = rest::push(task, &body)?;
            tenant.put_in(&mut request.tenant)?;
            whole(&visit.create_push(request).await?)
        }
        Call::GetPush(task, id) => {
            let (task_id, id) = (task.clone(), id.clone());
            let mut request =
                pb::GetTaskPushNotificationConfigRequest { task_id, id, ..Default::default() };
            tenant.put_in(&mut request.tenant)?;
            whole(&visit.get_push(request).await?)
        }
        Call::ListPush(task, query) => {
            let mut request: pb::ListTaskPushNotificationConfigsRequest =
                query.read(rest::LIST_PUSH)?;
            tenant.put_in(&mut request.tenant)?;
            request.task_id.clone_from(task);
            whole(&visit.list_push(request).await?)
        }
        Call::DeletePush(task, id) => {
            let (task_id, id) = (task.clone(), id.clone());
            let mut request =
                pb::DeleteTaskPushNotificationConfigRequest { task_id, id, ..Default::default() };
            tenant.put_in(&mut request.tenant)?;
            visit.delete_push(request).await?;
            whole(&json!({}))
        }
        Call::ExtendedCard => {
            let mut request = pb::GetExtendedAgentCardRequest::default();
            tenant.put_in(&mut request.tenant)?;
            whole(&visit.extended_card(&request).await?)
        }
    }
}

/// Reads a message to an agent, whose answer may take long: the body is gone by then.
#[expect(clippy::needless_pass_by_value, reason = "it's given up here")]
fn read_whole(body: Bytes) -> Result<pb::SendMessageRequest, A2aError> {
    json::read(&body, "body")
}

#[expect(clippy::unnecessary_wraps, reason = "an arm of the dispatch like the others")]
fn stream(updates: Updates) -> Result<Answer, A2aError> {
    Ok(Answer::Stream(Box::new(updates)))
}

fn whole(result: &impl Serialize) -> Result<Answer, A2aError> {
    json::write(result).map(Answer::Whole)
}

/// There is no such path, or not for this method.
fn astray(unrouted: &Unrouted, path: &str, media: &'static str) -> Response {
    let path = json::shown(path);
    let (status, name, message, allow) = match unrouted {
        Unrouted::Unknown => {
            (StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is nothing at {path:?}"), None)
        }
        Unrouted::Method { allow } => {
            let message = format!("{path:?} has another method: {allow}");
            (StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", message, Some(*allow))
        }
    };
    let error = json!({
        "code": status.as_u16(), "status": name, "message": message, "details": [],
    });
    let mut response = write(status, media, json!({ "error": error }).to_string());
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

const PLAIN: &str = "application/json";
const A2A: &str = "application/a2a+json";

/// The protocol's own type, unless the client speaks of plain JSON.
fn media_type(headers: &HeaderMap) -> &'static str {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut accepts = accepts.flat_map(|list| list.split(','));
    let plain = |media: &str| {
        media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PLAIN)
    };
    if accepts.any(plain) || content_type(headers).eq_ignore_ascii_case(PLAIN) {
        PLAIN
    } else {
        A2A
    }
}

fn write(status: StatusCode, media: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, media)], body.into()).into_response()
}
