//! What the proxy itself says to a client.

use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    ext::ReasonPhrase,
    header::{self, HeaderValue},
};

use super::{
    forward::Relay,
    head::VERDICT,
    reason::{EgressReason, EgressVerdict},
};

/// A response's body: the proxy's own, or the server's.
pub(crate) type Body = Either<Full<Bytes>, Relay>;

/// Says why there is no other answer. Holds no byte that came from the cell or a server.
pub(crate) fn refusal(reason: EgressReason) -> Response<Body> {
    let verdict = reason.verdict();
    let (code, message) = (reason.code(), reason.message());
    let text = format!(
        "{{\"error\":\"egress_{verdict}\",\"reason\":\"{code}\",\"message\":\"{message}\"}}\n"
    );
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    let status = status(reason);
    *response.status_mut() = status;
    // Many clients show the status line of a refused tunnel and nothing else of the answer.
    let usual = status.canonical_reason().unwrap_or_default();
    if let Ok(phrase) = ReasonPhrase::try_from(format!("{usual}: {message}")) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Codes are made of letters, so this is always a header's value.
    if let Ok(value) = HeaderValue::try_from(format!("{verdict}; reason={code}")) {
        headers.insert(VERDICT, value);
    }
    response
}

/// Says that no further request is read from the connection. A tunnel goes on.
pub(crate) fn last(mut response: Response<Body>, is_tunnel: bool) -> Response<Body> {
    if !is_tunnel || !response.status().is_success() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn status(reason: EgressReason) -> StatusCode {
    match (reason.verdict(), reason) {
        (EgressVerdict::Denied, _) => StatusCode::FORBIDDEN,
        (_, EgressReason::ResolveTime | EgressReason::ConnectTime) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
