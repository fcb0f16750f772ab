//! What the door says no with, in the words of the binding that was spoken to.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::access::{AuthError, Throttled};

/// A request that isn't let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Refusal {
    status: StatusCode,
    /// A stable word for logs.
    code: &'static str,
    message: String,
    /// Says how to prove who one is.
    challenge: Option<String>,
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), challenge: None, retry_after: None }
    }

    pub(super) fn unauthenticated(error: &AuthError) -> Self {
        if matches!(error, AuthError::NotReady) {
            return Self::unavailable(error.to_string());
        }
        let mut challenge = "Bearer realm=\"neuroflow\"".to_owned();
        if let Some(kind) = error.challenge() {
            // None of these texts has a quote or a word of the client's in it.
            let why = format!(", error=\"{kind}\", error_description=\"{error}\"");
            challenge.push_str(&why);
        }
        let refusal = Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string());
        Self { challenge: Some(challenge), ..refusal }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(1), ..refusal }
    }

    pub(super) fn host(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "host", message)
    }

    pub(super) fn misdirected() -> Self {
        let message = "this gateway isn't known by that name; add it to gateway.hosts";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", message)
    }

    pub(super) fn origin() -> Self {
        let message = "web pages of that origin may not use this gateway; see gateway.origins";
        Self::new(StatusCode::FORBIDDEN, "origin", message)
    }

    pub(super) fn encoding() -> Self {
        let message = "the body must not be compressed: send it without Content-Encoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message)
    }

    pub(super) fn coding() -> Self {
        let message = "the body must be sent as it is or in chunks: one Transfer-Encoding, chunked";
        Self::new(StatusCode::BAD_REQUEST, "transfer_encoding", message)
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(super) fn into_response(self, shape: Shape) -> Response {
        let (number, name) = google_rpc(self.status);
        let info = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": name,
            "domain": DOMAIN,
            "metadata": { "code": self.code },
        }]);
        let message = &self.message;
        let body = match shape {
            Shape::Grpc => return self.grpc(number, name),
            Shape::JsonRpc => json!({
                "jsonrpc": "2.0", "id": null,
                "error": { "code": -32600, "message": message, "data": info },
            }),
            Shape::Rest => json!({ "error": {
                "code": self.status.as_u16(), "status": name, "message": message, "details": info,
            } }),
            Shape::OpenAi => json!({ "error": {
                "message": message, "type": openai(self.status), "param": null, "code": self.code,
            } }),
        };
        let content = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, content, body.to_string()).into_response();
        self.write(response.headers_mut());
        response
    }

    /// An answer without messages: status, text and details are among its headers.
    fn grpc(&self, number: i32, reason: &str) -> Response {
        let mut details = ErrorDetails::new();
        let code = ("code".to_owned(), self.code.to_owned());
        details.set_error_info(reason, DOMAIN, HashMap::from([code]));
        let status = Status::with_error_details(Code::from(number), &self.message, details);
        let mut response = status.into_http::<tonic::body::Body>().map(Body::new);
        self.write(response.headers_mut());
        response
    }

    fn write(&self, headers: &mut HeaderMap) {
        if let Some(challenge) = &self.challenge
            && let Ok(value) = HeaderValue::from_str(challenge)
        {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == "transfer_encoding" {
            // Where its body ends, its sender and others may see otherwise.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.code == "content_encoding" {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }
}

impl From<Throttled> for Refusal {
    fn from(throttled: Throttled) -> Self {
        let message = throttled.to_string();
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", message);
        Self { retry_after: Some(throttled.seconds()), ..refusal }
    }
}

/// The binding that a request speaks, as far as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    JsonRpc,
    Rest,
    Grpc,
    OpenAi,
}

impl Shape {
    pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let content = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content.is_some_and(|content| content.starts_with(b"application/grpc")) {
            return Self::Grpc;
        }
        if path.starts_with("/v1/") {
            return Self::OpenAi;
        }
        let agent = path.strip_prefix("/agents/").filter(|rest| !rest.contains('/'));
        let is_rpc = path == "/" || path == "/mcp" || agent.is_some();
        if is_rpc && method == Method::POST { Self::JsonRpc } else { Self::Rest }
    }
}

/// Number and name of the status in `google.rpc.Code`.
fn google_rpc(status: StatusCode) -> (i32, &'static str) {
    match status.as_u16() {
        401 => (16, "UNAUTHENTICATED"),
        403 => (7, "PERMISSION_DENIED"),
        404 => (5, "NOT_FOUND"),
        429 => (8, "RESOURCE_EXHAUSTED"),
        503 => (14, "UNAVAILABLE"),
        _ => (3, "INVALID_ARGUMENT"),
    }
}

fn openai(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        503 => "server_error",
        _ => "invalid_request_error",
    }
}

const DOMAIN: &str = "neuroflow";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_is_answered_in_its_own_words() {
        let of = |method: &Method, path: &str, content: &'static str| {
            let value = HeaderValue::from_static(content);
            let headers = [(header::CONTENT_TYPE, value)].into_iter().collect();
            Shape::of(method, path, &headers)
        };
        let json = "application/json";
        assert_eq!(of(&Method::POST, "/", json), Shape::JsonRpc);
        assert_eq!(of(&Method::POST, "/agents/echo", json), Shape::JsonRpc);
        assert_eq!(of(&Method::POST, "/mcp", json), Shape::JsonRpc);
        assert_eq!(of(&Method::POST, "/message:send", "application/a2a+json"), Shape::Rest);
        assert_eq!(of(&Method::GET, "/agents", json), Shape::Rest);
        assert_eq!(of(&Method::GET, "/agents/echo/tasks", json), Shape::Rest);
        assert_eq!(of(&Method::POST, "/v1/chat/completions", json), Shape::OpenAi);
        let grpc = "/lf.a2a.v1.A2AService/SendMessage";
        assert_eq!(of(&Method::POST, grpc, "application/grpc+proto"), Shape::Grpc);
    }

    #[test]
    fn grpc_says_it_among_the_headers() {
        let response = Refusal::unauthenticated(&AuthError::Missing).into_response(Shape::Grpc);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "16");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.message(), "a credential is needed");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UNAUTHENTICATED", DOMAIN));
        assert_eq!(info.metadata["code"], "missing");
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"neuroflow\"");
    }
}
