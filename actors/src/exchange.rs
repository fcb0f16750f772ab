//! One HTTP/1.1 exchange over a connection that somebody else has made, and checked where it leads:
//! keys of issuers, webhooks, MCP servers and their OAuth. Redirects aren't followed.
//!
//! There is no task beside it. The connection is driven by whoever waits for something of it, and
//! closed when that is dropped.

mod place;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::{Request, Response};
use futures_util::future::BoxFuture;
#[cfg(any(feature = "access", feature = "mcp"))]
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use neuroflow_sandbox::OutboundStream;

pub(crate) use self::place::{Place, PlaceError};
use crate::limits::HEAD_BYTES;

/// How requests name their sender.
pub(crate) const USER_AGENT: &str = concat!("neuroflow/", env!("CARGO_PKG_VERSION"));

/// Sends a request and waits until its answer begins.
pub(crate) async fn ask(
    stream: impl OutboundStream + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Answer>, hyper::Error> {
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    let mut connection: Wire = Box::pin(connection);
    let mut asked = std::pin::pin!(sender.send_request(request));
    let (response, connection) = tokio::select! {
        biased;
        response = &mut asked => (response?, Some(connection)),
        ended = &mut connection => {
            ended?;
            (asked.await?, None)
        }
    };
    Ok(response.map(|body| Answer { connection, body }))
}

type Wire = BoxFuture<'static, hyper::Result<()>>;

/// An answer's body, and the connection that it comes over.
pub(crate) struct Answer {
    connection: Option<Wire>,
    body: Incoming,
}

/// Why a body isn't had.
#[cfg(any(feature = "access", feature = "mcp"))]
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the answer has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the answer broke off")]
    Broken(#[from] hyper::Error),
}

#[cfg(any(feature = "access", feature = "mcp"))]
impl Answer {
    /// The whole of it, if it isn't larger.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Vec<u8>, AnswerError> {
        let mut whole = Vec::new();
        while let Some(frame) = self.frame().await {
            let Ok(bytes) = frame?.into_data() else { continue };
            if bytes.len() > limit.saturating_sub(whole.len()) {
                return Err(AnswerError::TooLarge { limit });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            // How it ended is told by the body.
            self.connection = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A peer that reads one request, answers with these bytes and closes.
    async fn answering(mut peer: DuplexStream, answer: &[u8]) -> String {
        let mut asked = vec![0; 4096];
        let count = peer.read(&mut asked).await.unwrap();
        // Who has heard enough doesn't take the rest.
        let _closed = peer.write_all(answer).await;
        String::from_utf8(asked[..count].to_vec()).unwrap()
    }

    async fn asked(answer: &[u8], limit: usize) -> (String, Result<Vec<u8>, AnswerError>) {
        let (ours, theirs) = tokio::io::duplex(256);
        let request = Request::get("/keys").header("host", "a.example").body(Full::default());
        let exchange = async { ask(ours, request.unwrap()).await?.into_body().whole(limit).await };
        tokio::join!(answering(theirs, answer), exchange)
    }

    #[tokio::test]
    async fn a_request_is_answered_over_the_connection_that_it_is_given() {
        let (request, body) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 5).await;
        assert!(request.starts_with("GET /keys HTTP/1.1\r\nhost: a.example\r\n"), "{request}");
        assert_eq!(body.unwrap(), b"hello");
        let (_, body) = asked(b"HTTP/1.1 200 OK\r\n\r\nuntil it closes", 100).await;
        assert_eq!(body.unwrap(), b"until it closes");
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_or_cut_off_is_none() {
        let hello = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        let too_large = asked(hello, 4).await.1;
        assert!(matches!(too_large, Err(AnswerError::TooLarge { limit: 4 })), "{too_large:?}");
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert!(matches!(asked(chunks, 4).await.1, Err(AnswerError::TooLarge { limit: 4 })));
        for cut in [&hello[..hello.len() - 1], b"HTTP/1.1 200 OK\r\n", b"", b"SSH-2.0-x\r\n"] {
            assert!(matches!(asked(cut, 100).await.1, Err(AnswerError::Broken(_))), "{cut:?}");
        }
    }

    #[tokio::test]
    async fn a_head_is_bounded() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        while endless.len() < 2 * HEAD_BYTES {
            endless.extend_from_slice(b"x-more: and more\r\n");
        }
        assert!(matches!(asked(&endless, 100).await.1, Err(AnswerError::Broken(_))));
    }
}
