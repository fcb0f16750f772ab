//! The JSON-RPC 2.0 binding: bytes to a call, a result to bytes. No I/O.

use axum::body::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::error::A2aError;
use super::json;
use crate::limits::CLIENT_ID_BYTES;

/// A request as it was sent.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) params: Params,
}

/// The parameters of a request, with the body that they are a part of: who has read them holds neither any more.
#[derive(Debug)]
pub(super) struct Params(Option<Bytes>);

/// A request's id as it was written, a text or a number of any size; null is the id of an answer to
/// something that has none.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Id(Option<Box<RawValue>>);

impl Id {
    pub(super) const NULL: Self = Self(None);

    fn read(id: Option<&RawValue>) -> Result<Self, String> {
        let Some(id) = id else { return Err("is missing".to_owned()) };
        let written = id.get();
        if written.len() > CLIENT_ID_BYTES {
            return Err(format!("has {} bytes; {CLIENT_ID_BYTES} are allowed", written.len()));
        }
        // What can't be read as a value here couldn't be read in the answer either.
        let is_text = serde_json::from_str::<String>(written).is_ok();
        if is_text || serde_json::from_str::<f64>(written).is_ok() {
            return Ok(Self(Some(id.to_owned())));
        }
        Err("must be a text or a number".to_owned())
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, borrow)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    method: Option<&'a RawValue>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
}

/// Reads a call. An error has the id of the request, where that could be read.
pub(super) fn read(body: &Bytes) -> Result<Call, (Id, A2aError)> {
    if !body.trim_ascii_start().starts_with(b"{") {
        // A list would be taken for an object's fields in order.
        let problem = match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => "must be an object; batches aren't served",
            Err(source) => return Err((Id::NULL, A2aError::Parse { source })),
        };
        return Err((Id::NULL, A2aError::invalid_request("request", problem)));
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|source| {
        let error = match source.classify() {
            Category::Data => A2aError::invalid_request("request", &source.to_string()),
            Category::Syntax | Category::Eof | Category::Io => A2aError::Parse { source },
        };
        (Id::NULL, error)
    })?;
    let wrong =
        |id: Id, field: &str, problem: &str| (id, A2aError::invalid_request(field, problem));
    let id = Id::read(envelope.id).map_err(|problem| wrong(Id::NULL, "id", &problem))?;
    let text = |member: &RawValue| serde_json::from_str::<String>(member.get()).ok();
    if envelope.jsonrpc.and_then(text).as_deref() != Some("2.0") {
        return Err(wrong(id, "jsonrpc", "must be \"2.0\""));
    }
    let Some(method) = envelope.method else {
        return Err(wrong(id, "method", "is missing"));
    };
    let Some(method) = text(method) else {
        return Err(wrong(id, "method", "must be a text"));
    };
    let params = Params(envelope.params.map(|params| body.slice_ref(params.get().as_bytes())));
    Ok(Call { id, method, params })
}

impl Params {
    /// The parameters as a `T`; the error names the field that doesn't fit.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, A2aError> {
        let params = self.0.ok_or_else(|| A2aError::invalid("params", "is missing"))?;
        json::read(&params, "params")
    }

    /// The parameters, where none may be sent at all.
    pub(super) fn read_or_default<T: DeserializeOwned + Default>(self) -> Result<T, A2aError> {
        if self.0.is_none() { Ok(T::default()) } else { self.read() }
    }
}

#[derive(Serialize)]
struct Success<'a, T> {
    jsonrpc: &'static str,
    id: &'a Id,
    result: T,
}

#[derive(Serialize)]
struct Failure<'a> {
    jsonrpc: &'static str,
    id: &'a Id,
    error: serde_json::Value,
}

pub(super) fn success(id: &Id, result: &impl Serialize) -> Result<Vec<u8>, A2aError> {
    json::write(&Success { jsonrpc: "2.0", id, result })
}

pub(super) fn failure(id: &Id, error: &A2aError) -> Vec<u8> {
    let response = Failure { jsonrpc: "2.0", id, error: error.to_json() };
    serde_json::to_vec(&response).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> (i32, String, String) {
        let (id, error) = read(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
        (error.code(), serde_json::to_string(&id).unwrap(), error.to_string())
    }

    #[test]
    fn says_which_member_is_wrong() {
        let seven = "7".to_owned();
        assert_eq!(error("{").0, -32700);
        assert_eq!(error("[]").0, -32600);
        assert_eq!(error("\"text\"").0, -32600);
        assert_eq!(error(r#"["2.0",7,"x"]"#).0, -32600);
        assert!(error(r#"{"jsonrpc":"2.0","method":"x"}"#).2.contains("id is missing"));
        assert!(error(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#).2.contains("id is missing"));
        let (code, id, text) = error(r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#);
        assert_eq!((code, id), (-32600, seven.clone()));
        assert!(text.contains("jsonrpc"));
        let (code, id, text) = error(r#"{"jsonrpc":"2.0","id":7}"#);
        assert_eq!((code, id), (-32600, seven));
        assert!(text.contains("method"));
        assert_eq!(error(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#).0, -32600);
        assert_eq!(error(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#).0, -32600);
        assert_eq!(error(&"[".repeat(100_000)).0, -32700);
    }

    #[test]
    fn an_id_is_given_back_as_it_was_written() {
        for id in ["18446744073709551616", "-0", "1.50", r#""\u00e4""#, "1e2"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            let call = read(&body.into()).unwrap();
            let answer = String::from_utf8(success(&call.id, &true).unwrap()).unwrap();
            assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":true}}"#));
        }
        for id in ["true", "{}", "[]", r#""\ud800""#, "1e999", &"7".repeat(300)] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            assert_eq!(error(&body).0, -32600, "{id}");
        }
    }

    #[test]
    fn a_parameter_that_does_not_fit_is_named_with_its_path() {
        #[derive(Debug, Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only its reading is tested")]
            inner: Vec<u32>,
        }
        let body = br#"{"jsonrpc":"2.0","id":"a","method":"x","params":{"inner":[1,"two"]}}"#;
        let call = read(&Bytes::from_static(body)).unwrap();
        let text = call.params.read::<Outer>().unwrap_err().to_string();
        assert!(text.starts_with("inner[1] "), "{text}");
    }
}
