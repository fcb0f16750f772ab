//! A stream of updates as server-sent events.

use axum::body::{Body, Bytes};
use futures_util::stream;

use super::error::A2aError;
use super::json::{Json, write};
use super::jsonrpc::{self, Id};
use super::operations::{Update, Updates};
use crate::limits::STREAM_KEEP_ALIVE;
use neuroflow_kernel::Clock;

/// How an update is written: JSON-RPC has its envelope around it.
#[derive(Debug)]
pub(super) enum Envelope {
    Bare,
    Rpc(Id),
}

impl Envelope {
    fn update(&self, update: &Update) -> Result<Vec<u8>, A2aError> {
        match self {
            Self::Bare => write(&Json(&update.response)),
            Self::Rpc(id) => jsonrpc::success(id, &Json(&update.response)),
        }
    }

    fn error(&self, error: &A2aError) -> Vec<u8> {
        match self {
            Self::Bare => error.to_rest().to_string().into_bytes(),
            Self::Rpc(id) => jsonrpc::failure(id, error),
        }
    }
}

/// The body of the answer. Boxed, because there may be ten thousand of them, and a future holds what
/// moves into it twice. It ends with the updates; while there are none it says that it lives.
pub(super) fn body(updates: Box<Updates>, envelope: Envelope, clock: Clock) -> Body {
    let begun = (updates, envelope, clock, false);
    let events = stream::unfold(begun, |(mut updates, envelope, clock, over)| async move {
        if over {
            return None;
        }
        let silent = clock.now() + STREAM_KEEP_ALIVE;
        let (bytes, over) = match clock.before(silent, updates.next()).await {
            Err(_elapsed) => (Bytes::from_static(b": \n\n"), false),
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(update))) => match envelope.update(&update) {
                Ok(json) => (event(Some(update.generation), &json), false),
                Err(error) => (event(None, &envelope.error(&error)), true),
            },
            Ok(Err(error)) => (event(None, &envelope.error(&error)), true),
        };
        Some((Ok::<_, std::convert::Infallible>(bytes), (updates, envelope, clock, over)))
    });
    Body::from_stream(events)
}

/// One event. JSON has no line break outside of its texts, and inside they are escaped.
fn event(generation: Option<u64>, json: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(json.len() + 40);
    if let Some(generation) = generation {
        bytes.extend_from_slice(format!("id: {generation}\n").as_bytes());
    }
    bytes.extend_from_slice(b"data: ");
    bytes.extend_from_slice(json);
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_generation_as_its_id() {
        assert_eq!(event(Some(7), b"{}"), "id: 7\ndata: {}\n\n");
        assert_eq!(event(None, b"{}"), "data: {}\n\n");
    }
}
