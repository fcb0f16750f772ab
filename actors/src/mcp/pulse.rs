//! Whether a server is there: one that lets a call time out and says nothing meanwhile is asked, and one whose session
//! is found to be lost by a call is told of. Either way the session ends, so that another is begun.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use neuroflow_kernel::Clock;
use rmcp::model::{ClientRequest, PingRequest};
use rmcp::service::Peer;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use rmcp::{RoleClient, ServiceError};
use tokio::sync::Notify;

use super::{HttpError, McpError};
use crate::limits::MCP_PING;

/// What is known of the life of one session.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Messages that have come.
    heard: AtomicU64,
    doubted: Notify,
    lost: Mutex<Option<McpError>>,
    found_lost: Notify,
}

impl Pulse {
    /// A message has come.
    pub(super) fn beat(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have come so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// A call has got no answer in its time. Its server is asked whether it's there, if nothing else has come since.
    pub(super) fn doubt(&self, heard_before: u64) {
        if self.heard() == heard_before {
            self.doubted.notify_one();
        }
    }

    /// Notes what a failed call says of the session. Another call may have said so before.
    pub(super) fn note(&self, error: &ServiceError) {
        if let Some(lost) = lost(error) {
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
            self.found_lost.notify_one();
        }
    }

    /// Returns once the session is lost, or its server doesn't answer.
    pub(super) async fn stopped(&self, peer: &Peer<RoleClient>, clock: &Clock) -> McpError {
        loop {
            tokio::select! {
                () = self.found_lost.notified() => {
                    let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                    return lost.take().unwrap_or(McpError::Closed);
                }
                () = self.doubted.notified() => {}
            }
            let heard = self.heard();
            let ping = ClientRequest::PingRequest(PingRequest::default());
            let answered = clock.before(clock.now() + MCP_PING, peer.send_request(ping)).await;
            // Whoever refuses a ping is there. What else comes of it is known as of any call.
            match answered {
                Err(_elapsed) if self.heard() == heard => {
                    return McpError::Silent { after: MCP_PING };
                }
                Ok(Err(error)) => self.note(&error),
                _ => {}
            }
        }
    }
}

/// What the failure of a call says of its session: that there is none any more.
fn lost(error: &ServiceError) -> Option<McpError> {
    match over_http(error)? {
        StreamableHttpError::SessionExpired => Some(McpError::Expired),
        StreamableHttpError::Client(HttpError::Outlet(_)) => Some(McpError::Unreachable),
        _ => None,
    }
}

/// Whether it's the failure of one request alone, and the next may do: so it can be over HTTP.
pub(super) fn takes_others(error: &ServiceError) -> bool {
    over_http(error).is_some() && lost(error).is_none()
}

fn over_http(error: &ServiceError) -> Option<&StreamableHttpError<HttpError>> {
    let ServiceError::TransportSend(sent) = error else { return None };
    sent.error.downcast_ref()
}
