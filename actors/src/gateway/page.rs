//! A document that changes with the node only: its bytes, and what clients keep it by.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};

use crate::limits::CARD_AGE_SECONDS;

/// A JSON document with its validators.
#[derive(Clone, Debug)]
pub(super) struct Page {
    body: Bytes,
    /// A strong one: the hash of the bytes.
    tag: String,
    modified: DateTime<Utc>,
    audience: Audience,
}

/// Whom a document is the same for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everybody, for as long as the node runs.
    All,
    /// Who has asked, and until a policy changes: nobody on the way may keep it, and its time says
    /// nothing.
    OneCaller,
}

impl Page {
    pub(super) fn new(body: Vec<u8>, modified: DateTime<Utc>) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, &body);
        let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(hash));
        Self { body: body.into(), tag, modified, audience: Audience::All }
    }

    /// The same document for somebody else.
    pub(super) fn to(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// The document, or 304 if the client has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let (status, body) = if self.is_known(headers) {
            (StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            (StatusCode::OK, Body::from(self.body.clone()))
        };
        let modified = self.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let shared = self.audience == Audience::All;
        let fields = [
            (header::CONTENT_TYPE, Some("application/json".to_owned())),
            (
                header::CACHE_CONTROL,
                Some(if shared {
                    format!("max-age={CARD_AGE_SECONDS}")
                } else {
                    "private, no-cache".to_owned()
                }),
            ),
            (header::ETAG, Some(self.tag.clone())),
            (header::LAST_MODIFIED, shared.then_some(modified)),
        ];
        let mut response = (status, body).into_response();
        for (name, value) in fields {
            let Some(value) = value else { continue };
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// RFC 9110, section 13.2.2: a tag is asked for before a time is.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let mut tags = headers.get_all(header::IF_NONE_MATCH).iter().map(text).peekable();
        if tags.peek().is_some() {
            return tags.any(|list| {
                list.split(',')
                    .map(str::trim)
                    .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag)
            });
        }
        if self.audience == Audience::OneCaller {
            return false;
        }
        let since = headers.get(header::IF_MODIFIED_SINCE).map(text);
        let since = since.and_then(|text| DateTime::parse_from_rfc2822(&text).ok());
        since.is_some_and(|since| self.modified.timestamp() <= since.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let modified = DateTime::from_timestamp(1_700_000_000, 123_000_000).unwrap();
        let page = Page::new(b"{}".to_vec(), modified);
        let status = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            page.answer(&headers).status().as_u16()
        };
        let first = page.answer(&HeaderMap::new());
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()["last-modified"], "Tue, 14 Nov 2023 22:13:20 GMT");
        let tag = first.headers()["etag"].to_str().unwrap();
        assert_eq!(status("if-none-match", tag), 304);
        assert_eq!(status("if-none-match", &format!("\"x\", W/{tag}")), 304);
        assert_eq!(status("if-none-match", "*"), 304);
        assert_eq!(status("if-none-match", "\"x\""), 200);
        assert_eq!(status("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT"), 304);
        assert_eq!(status("if-modified-since", "Tue, 14 Nov 2023 22:13:19 GMT"), 200);
        assert_eq!(status("if-modified-since", "yesterday"), 200);
    }

    #[test]
    fn what_depends_on_the_caller_is_kept_by_nobody_else_and_known_by_its_tag_alone() {
        let modified = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let page = Page::new(b"{}".to_vec(), modified).to(Audience::OneCaller);
        let first = page.answer(&HeaderMap::new());
        assert_eq!(first.headers()["cache-control"], "private, no-cache");
        assert!(!first.headers().contains_key("last-modified"));
        let asked = |name: &'static str, value: &HeaderValue| {
            let headers = [(name.parse().unwrap(), value.clone())].into_iter().collect();
            page.answer(&headers).status().as_u16()
        };
        let later = HeaderValue::from_static("Tue, 14 Nov 2023 22:13:21 GMT");
        assert_eq!(asked("if-modified-since", &later), 200);
        assert_eq!(asked("if-none-match", &first.headers()["etag"]), 304);
    }
}
