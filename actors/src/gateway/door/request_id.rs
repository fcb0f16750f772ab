//! The id of a request: the client's, if it's one, or a fresh one. Logs, spans and answers have it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::REQUEST_ID_BYTES;

/// The header, both ways.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request.
///
/// ```
/// fn log(id: &neuroflow_actors::RequestId) -> String {
///     format!("request {}", id.as_str())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The client's id if there is one and it's of letters, digits, `.`, `_` and `-`: what goes into
    /// logs must not be able to look like something else there.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(NAME).iter();
        match (sent.next(), sent.next()) {
            (Some(id), None) if is_sane(id.as_bytes()) => Self(id.clone()),
            _ => Self::fresh(),
        }
    }

    fn fresh() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // Hexadecimal digits are always a header's value.
        Self(HeaderValue::from_str(&id).unwrap_or_else(|_other| HeaderValue::from_static("none")))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_sane(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES && id.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let of = |ids: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(NAME, HeaderValue::from_static(id));
            }
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(of(&["abc-1.2_3"]), "abc-1.2_3");
        for ids in [&["a b"][..], &["a", "b"], &[""], &["a\"b"], &[]] {
            let id = of(ids);
            assert_eq!(id.len(), 32, "{ids:?} {id}");
        }
        assert_ne!(of(&[]), of(&[]));
        assert_eq!(of(&["x".repeat(REQUEST_ID_BYTES + 1).leak()]).len(), 32);
    }
}
