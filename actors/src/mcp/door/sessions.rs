//! Sessions of clients of the earlier version: each belongs to who has begun it, and nobody may have
//! all of them.
//!
//! The protocol's library asks for a session without saying for whom, so the request that is being
//! answered stands in its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::common::server_side_http::{ServerSseMessage, SessionId};
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError,
};

use crate::limits::{MCP_PRINCIPAL_SESSIONS, MCP_SESSIONS};

/// The sessions of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    local: LocalSessionManager,
    held: Mutex<Held>,
    /// One is begun after the other, so that no two take the last place.
    beginning: tokio::sync::Mutex<()>,
}

/// Why no session is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("the node has {MCP_SESSIONS} sessions already")]
    Node,
    #[error("you have {MCP_PRINCIPAL_SESSIONS} sessions already; end one with DELETE")]
    Principal,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
    #[error(transparent)]
    Full(#[from] Full),
}

tokio::task_local! {
    static ASKING: Arc<Asking>;
}

/// Who asks, and what it was refused.
#[derive(Debug)]
struct Asking {
    principal: Option<String>,
    refused: Mutex<Option<Full>>,
}

/// Who has which session. Pure.
#[derive(Debug, Default)]
struct Held {
    owners: HashMap<SessionId, Option<String>>,
    counts: HashMap<String, usize>,
}

impl Held {
    /// Where nobody says who asks, there is nobody to count by.
    fn check(&self, principal: Option<&str>) -> Result<(), Full> {
        let own = principal.and_then(|principal| self.counts.get(principal)).copied();
        if own.unwrap_or_default() >= MCP_PRINCIPAL_SESSIONS {
            return Err(Full::Principal);
        }
        if self.owners.len() >= MCP_SESSIONS { Err(Full::Node) } else { Ok(()) }
    }

    fn add(&mut self, id: SessionId, principal: Option<String>) {
        if let Some(principal) = &principal {
            *self.counts.entry(principal.clone()).or_default() += 1;
        }
        self.owners.insert(id, principal);
    }

    fn remove(&mut self, id: &SessionId) {
        let Some(Some(principal)) = self.owners.remove(id) else { return };
        if let Some(count) = self.counts.get_mut(&principal) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&principal);
            }
        }
    }

    fn is_foreign(&self, id: &str, principal: Option<&str>) -> bool {
        self.owners.get(id).is_some_and(|owner| owner.as_deref() != principal)
    }
}

impl Sessions {
    /// Answers a request in the name of this principal. An error says that it wanted a session too
    /// many.
    pub(super) async fn asked_by<T>(
        principal: Option<String>,
        answer: impl Future<Output = T>,
    ) -> Result<T, Full> {
        let asking = Arc::new(Asking { principal, refused: Mutex::default() });
        let answered = ASKING.scope(Arc::clone(&asking), answer).await;
        let refused = *asking.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.map_or(Ok(answered), Err)
    }

    /// Whether it's the session of somebody else.
    pub(super) fn is_foreign(&self, id: &str, principal: Option<&str>) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_foreign(id, principal)
    }

    fn check(&self, asking: Option<&Asking>) -> Result<(), Full> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = held.check(asking.and_then(|asking| asking.principal.as_deref()));
        if let (Some(asking), Err(full)) = (asking, checked) {
            *asking.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(full);
        }
        checked
    }
}

impl SessionManager for Sessions {
    type Error = SessionError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionError> {
        let asking = ASKING.try_with(Arc::clone).ok();
        let _one = self.beginning.lock().await;
        self.check(asking.as_deref())?;
        let (id, transport) = self.local.create_session().await?;
        let owner = asking.and_then(|asking| asking.principal.clone());
        self.held.lock().unwrap_or_else(PoisonError::into_inner).add(id.clone(), owner);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionError> {
        Ok(self.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionError> {
        Ok(self.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionError> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(self.local.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(self.local.create_stream(id, message).await?)
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), SessionError> {
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(self.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(self.local.resume(id, last_event_id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SessionId {
        number.to_string().into()
    }

    #[test]
    fn nobody_has_more_than_a_share_and_what_has_ended_counts_no_more() {
        let mut held = Held::default();
        for number in 0..MCP_PRINCIPAL_SESSIONS {
            assert_eq!(held.check(Some("greedy")), Ok(()));
            held.add(id(number), Some("greedy".to_owned()));
        }
        assert_eq!(held.check(Some("greedy")), Err(Full::Principal));
        assert_eq!((held.check(Some("other")), held.check(None)), (Ok(()), Ok(())));
        assert!(!held.is_foreign("0", Some("greedy")) && !held.is_foreign("none", Some("other")));
        assert!(held.is_foreign("0", Some("other")) && held.is_foreign("0", None));
        // Ended twice, it's ended once.
        held.remove(&id(0));
        held.remove(&id(0));
        assert_eq!(held.check(Some("greedy")), Ok(()));
        held.add(id(0), Some("greedy".to_owned()));
        assert_eq!(held.check(Some("greedy")), Err(Full::Principal));
    }

    #[test]
    fn all_together_have_no_more_than_the_node_holds() {
        let mut held = Held::default();
        for number in 0..MCP_SESSIONS {
            assert_eq!(held.check(None), Ok(()));
            held.add(id(number), None);
        }
        assert_eq!((held.check(None), held.check(Some("a"))), (Err(Full::Node), Err(Full::Node)));
        for number in 0..MCP_SESSIONS {
            held.remove(&id(number));
        }
        assert!(held.owners.is_empty() && held.counts.is_empty());
    }
}
