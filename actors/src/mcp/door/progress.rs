//! What a client hears of its call while that is at work.

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::RequestContext;

/// Tells a client that wants to hear it how far its call has come.
pub(super) struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    token: Option<ProgressToken>,
    last: Mark,
}

/// How far a call was when its client heard of it last. A client has to hear more each time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mark {
    whole: u32,
    /// How often it has heard that there is nothing more.
    still: u32,
}

impl Mark {
    /// So much has been done. Past what a number of the protocol tells apart it's as if nothing more were.
    fn at(self, done: u64) -> Self {
        let whole = u32::try_from(done).unwrap_or(u32::MAX);
        if whole > self.whole {
            return Self { whole, still: 0 };
        }
        Self { still: self.still.saturating_add(1), ..self }
    }

    /// The whole number that is done, and less than one more for each time that it stayed the same.
    fn value(self) -> f64 {
        f64::from(self.whole) + (1.0 - 1.0 / (f64::from(self.still) + 1.0))
    }
}

impl<'a> Progress<'a> {
    pub(super) fn of(context: &'a RequestContext<RoleServer>) -> Self {
        Self { context, token: context.meta.get_progress_token(), last: Mark::default() }
    }

    /// An agent has said something more.
    pub(super) async fn step(&mut self, said: String) {
        self.tell(u64::from(self.last.whole).saturating_add(1), said).await;
    }

    /// A program has written so many bytes.
    pub(super) async fn written(&mut self, bytes: u64, said: String) {
        self.tell(bytes, said).await;
    }

    async fn tell(&mut self, done: u64, said: String) {
        let Some(token) = &self.token else { return };
        self.last = self.last.at(done);
        let params = ProgressNotificationParam::new(token.clone(), self.last.value());
        let told = self.context.peer.notify_progress(params.with_message(said)).await;
        if let Err(error) = told {
            tracing::debug!(%error, "a client doesn't take progress");
        }
    }
}
