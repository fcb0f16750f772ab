//! The JSON-RPC binding: one call in, one answer or one stream out.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::{
    Observed, Shared, activated, answer_json, check_version, content_type, event_stream, read_body,
    retry_after,
};
use crate::gateway::error::A2aError;
use crate::gateway::json::Json;
use crate::gateway::jsonrpc::{self, Call, Id, Params};
use crate::gateway::operations::{Place, Updates, Visit};
use crate::gateway::sse::{self, Envelope};

enum Answer {
    Whole(Vec<u8>),
    Stream(Box<Updates>),
}

/// Reads the call, does it, and writes the answer.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    place: Place<'_>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let mut observed = Observed::begin(shared, &head);
    let mut visit = None;
    let result = serve(shared, place, &head, body, &mut observed, &mut visit).await;
    let (error, mut response) = match result {
        Ok((_, Answer::Whole(body))) => (None, answer_json(StatusCode::OK, body)),
        Ok((id, Answer::Stream(updates))) => {
            let body = sse::body(updates, Envelope::Rpc(id), shared.clock.clone());
            (None, event_stream(body))
        }
        Err((id, error)) => {
            let status = StatusCode::from_u16(error.rpc_status()).unwrap_or_default();
            (Some(error.code()), answer_json(status, jsonrpc::failure(&id, &error)))
        }
    };
    retry_after(&mut response);
    activated(visit.as_ref(), response.headers_mut());
    observed.end(visit.as_ref(), response.status().as_u16(), error);
    response
}

async fn serve<'v>(
    shared: &'v Arc<Shared>,
    place: Place<'v>,
    head: &Parts,
    body: Body,
    observed: &mut Observed<'_>,
    visit: &mut Option<Visit<'v>>,
) -> Result<(Id, Answer), (Id, A2aError)> {
    let nobody = |error| (Id::NULL, error);
    let found = content_type(&head.headers);
    if !found.eq_ignore_ascii_case("application/json") {
        return Err(nobody(A2aError::content_type("application/json", found)));
    }
    let Call { id, method, params } = {
        let body = read_body(shared, body).await.map_err(nobody)?;
        jsonrpc::read(&body)?
    };
    observed.operation(&method);
    let result = async {
        check_version(head)?;
        let visit = visit.insert(observed.visit(shared, place, head)?);
        dispatch(visit, &id, &method, params).await
    };
    match result.await {
        Ok(answer) => Ok((id, answer)),
        Err(error) => Err((id, error)),
    }
}

async fn dispatch(
    visit: &Visit<'_>,
    id: &Id,
    method: &str,
    params: Params,
) -> Result<Answer, A2aError> {
    match method {
        "SendMessage" => whole(id, &Json(&visit.send(params.read()?).await?)),
        "SendStreamingMessage" => stream(visit.send_streaming(params.read()?).await?),
        "GetTask" => whole(id, &Json(&visit.get(params.read()?).await?)),
        "ListTasks" => whole(id, &Json(&visit.list(params.read_or_default()?).await?)),
        "CancelTask" => whole(id, &Json(&visit.cancel(params.read()?).await?)),
        "SubscribeToTask" => stream(visit.subscribe(params.read()?).await?),
        "CreateTaskPushNotificationConfig" => whole(id, &visit.create_push(params.read()?).await?),
        "GetTaskPushNotificationConfig" => whole(id, &visit.get_push(params.read()?).await?),
        "ListTaskPushNotificationConfigs" => whole(id, &visit.list_push(params.read()?).await?),
        "DeleteTaskPushNotificationConfig" => {
            visit.delete_push(params.read()?).await?;
            whole(id, &())
        }
        "GetExtendedAgentCard" => {
            whole(id, &visit.extended_card(&params.read_or_default()?).await?)
        }
        method => Err(A2aError::no_method(method)),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an arm of the dispatch like the others")]
fn stream(updates: Updates) -> Result<Answer, A2aError> {
    Ok(Answer::Stream(Box::new(updates)))
}

fn whole(id: &Id, result: &impl Serialize) -> Result<Answer, A2aError> {
    jsonrpc::success(id, result).map(Answer::Whole)
}
