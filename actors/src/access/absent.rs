//! What the access actor does without the feature `access`: it refuses settings that need it.

use std::path::Path;

use neuroflow_kernel::{Context, Reply};

use super::keys::Outcome;
use super::server::AccessServer;
use super::{AccessCommand, AccessError};

impl AccessServer {
    pub(super) fn check_issuer(&self, _: &Context<AccessCommand>) -> Result<(), AccessError> {
        match self.config.issuer {
            Some(_) => Err(AccessError::Unsupported { setting: "auth.issuer" }),
            None => Ok(()),
        }
    }

    #[expect(clippy::unused_async, reason = "the signature of its twin, with the feature")]
    pub(super) async fn look_at_rules(&mut self, _: &Path) -> Result<(), AccessError> {
        Err(AccessError::Unsupported { setting: "policy.file" })
    }

    #[expect(clippy::unused_self, reason = "the signature of its twin, with the feature")]
    pub(super) fn fetch_if_due(&self, _: &Context<AccessCommand>) {}

    /// There are no keys, so nothing can become known by asking for them.
    #[expect(clippy::unused_self, reason = "the signature of its twin, with the feature")]
    pub(super) fn keys_wanted(&self, reply: Reply<()>, _: &Context<AccessCommand>) {
        let _gone = reply.send(());
    }

    #[expect(clippy::unused_self, reason = "the signature of its twin, with the feature")]
    pub(super) fn fetched(&self, outcome: Outcome, _: &Context<AccessCommand>) {
        match outcome {}
    }
}
