//! One notification to one webhook: a URL that is checked, a POST, a status.
//!
//! A redirection isn't followed, and the answer's body isn't read.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Request, header};
use http_body_util::Full;
use neuroflow_kernel::Moment;
use neuroflow_sandbox::{Outbound, OutboundError};

use super::retry::Attempt;
use super::{PushConfig, PushError};
use crate::exchange::{self, Place, PlaceError, USER_AGENT};
use crate::limits::{PUSH_SECRET_BYTES, PUSH_URL_BYTES};

/// What is wrong with a webhook's URL.
///
/// ```
/// assert!(neuroflow_actors::WebhookProblem::Userinfo.to_string().contains("authentication"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookProblem {
    /// It's too long.
    #[error("has more than {PUSH_URL_BYTES} bytes")]
    Length,
    /// It can't be read.
    #[error("isn't a URL such as https://example.org/hook")]
    Syntax,
    /// It isn't HTTP.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// It has a user or a password in it.
    #[error("must have no user and no password; say them in authentication")]
    Userinfo,
    /// Its host must not be connected to.
    #[error("leads where this node doesn't connect to: {0}; webhooks need a public address")]
    Host(#[source] OutboundError),
}

impl WebhookProblem {
    /// A stable word for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length => "url_length",
            Self::Syntax => "url_syntax",
            Self::Scheme => "url_scheme",
            Self::Userinfo => "url_userinfo",
            Self::Host(_) => "forbidden_address",
        }
    }
}

/// Takes a webhook's URL apart.
pub(super) fn place(url: &str) -> Result<Place, WebhookProblem> {
    if url.len() > PUSH_URL_BYTES {
        return Err(WebhookProblem::Length);
    }
    // A fragment is for the client, and none of the receiver's business.
    Place::parse(url.split('#').next().unwrap_or_default()).map_err(|problem| match problem {
        PlaceError::Scheme => WebhookProblem::Scheme,
        PlaceError::Userinfo => WebhookProblem::Userinfo,
        PlaceError::Syntax | PlaceError::Fragment => WebhookProblem::Syntax,
    })
}

/// Checks all that can be checked before the first connection.
pub(super) fn check(config: &PushConfig, outbound: &Outbound) -> Result<Place, PushError> {
    let webhook = place(&config.url)?;
    outbound.check(webhook.host()).map_err(WebhookProblem::Host)?;
    if let Some(token) = &config.token {
        value("token", token.reveal())?;
    }
    if let Some((scheme, credentials)) = &config.authorization {
        let is_token = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if scheme.is_empty() || !is_token {
            return Err(PushError::Header { field: "authentication.scheme" });
        }
        value("authentication.credentials", &format!("{scheme} {}", credentials.reveal()))?;
    }
    Ok(webhook)
}

fn value(field: &'static str, text: &str) -> Result<HeaderValue, PushError> {
    let fits = text.len() <= PUSH_SECRET_BYTES && text.bytes().all(|it| matches!(it, 0x20..=0x7e));
    let value = HeaderValue::from_str(text).ok().filter(|_| fits);
    let mut value = value.ok_or(PushError::Header { field })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an attempt came to, and the word for it in logs and metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub(super) attempt: Attempt,
    pub(super) reason: &'static str,
}

impl Posted {
    pub(super) const TIMED_OUT: Self = Self { attempt: Attempt::Unanswered, reason: "timeout" };

    /// Whether the request, with all its headers, may have come to anybody.
    pub(super) fn reached_the_receiver(&self) -> bool {
        matches!(self.reason, "delivered" | "status" | "timeout" | "protocol")
    }
}

/// Posts a body and waits for the status, until the deadline.
pub(super) async fn post(
    outbound: &Outbound,
    webhook: &Place,
    config: &PushConfig,
    id: &str,
    body: Bytes,
    deadline: Moment,
) -> Posted {
    let unanswered = |reason| Posted { attempt: Attempt::Unanswered, reason };
    let forbidden = |reason| Posted { attempt: Attempt::Forbidden, reason };
    let Ok(request) = request(webhook, config, id, body) else { return forbidden("header") };
    let (host, port) = (webhook.host(), webhook.port());
    let stream = match outbound.connect(host, port, webhook.is_tls(), deadline).await {
        Ok(stream) => stream,
        Err(error) if error.is_forbidden() => return forbidden("forbidden_address"),
        Err(OutboundError::Tls { .. }) => return unanswered("tls"),
        Err(_) => return unanswered("unreachable"),
    };
    let Ok(response) = exchange::ask(stream, request).await else { return unanswered("protocol") };
    let again_after = response.headers().get(header::RETRY_AFTER).and_then(seconds);
    let status = response.status().as_u16();
    let reason = if response.status().is_success() { "delivered" } else { "status" };
    Posted { attempt: Attempt::Answered { status, again_after }, reason }
}

/// A date is a pause of no certain length, and so none.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn request(
    webhook: &Place,
    config: &PushConfig,
    id: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, PushError> {
    let invalid = |_invalid| PushError::Header { field: "url" };
    let mut request = Request::post(webhook.target())
        .header(header::HOST, webhook.authority())
        .header(header::CONTENT_TYPE, "application/a2a+json")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .header("a2a-version", "1.0")
        .header("x-a2a-notification-id", id);
    if let Some(token) = &config.token {
        request = request.header("x-a2a-notification-token", value("token", token.reveal())?);
    }
    if let Some((scheme, credentials)) = &config.authorization {
        let field = "authentication.credentials";
        let credentials = format!("{scheme} {}", credentials.reveal());
        request = request.header(header::AUTHORIZATION, value(field, &credentials)?);
    }
    request.body(Full::new(body)).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Clock;

    use super::super::PushSecret;
    use super::*;

    fn problem(url: &str) -> String {
        let outbound = Outbound::new(Clock::system());
        match check(&PushConfig::new("c", url), &outbound) {
            Ok(webhook) => format!("{webhook:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_fragment_is_left_out() {
        assert_eq!(place("https://example.org/a?b=c#d").unwrap().target(), "/a?b=c");
    }

    #[test]
    fn what_must_not_be_reached_is_refused_before_it_is_tried() {
        for url in ["", "example.org", "/hook", "http://", "http:///x", "http://a b/"] {
            let problem = problem(url);
            assert!(problem.starts_with("url "), "{url}: {problem}");
        }
        assert!(problem("ftp://example.org/").contains("must begin with https://"));
        assert!(problem("http://user:secret@example.org/").contains("authentication"));
        assert!(!problem("http://user:secret@example.org/").contains("secret"));
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "127.1",
            "0x7f.1",
            "2130706433",
        ] {
            let problem = problem(&format!("http://{host}/hook"));
            assert!(problem.contains("public address"), "{host}: {problem}");
        }
        assert!(problem(&format!("http://example.org/{}", "x".repeat(3_000))).contains("bytes"));
    }

    #[test]
    fn what_goes_into_headers_is_checked() {
        let outbound = Outbound::new(Clock::system());
        let mut config = PushConfig::new("c", "https://example.org/");
        config.token = Some(PushSecret::new("a\r\nx: y"));
        assert!(matches!(check(&config, &outbound), Err(PushError::Header { field: "token" })));
        config.token = Some(PushSecret::new("fine"));
        config.authorization = Some(("Bearer\n".to_owned(), PushSecret::new("x")));
        let refused = check(&config, &outbound);
        assert!(matches!(refused, Err(PushError::Header { field: "authentication.scheme" })));
        config.authorization = Some(("Bearer".to_owned(), PushSecret::new("x".repeat(5_000))));
        assert!(check(&config, &outbound).is_err());
        config.authorization = Some(("Bearer".to_owned(), PushSecret::new("x")));
        assert!(check(&config, &outbound).is_ok());
    }
}
