//! The way to an actor of this node that passes on what it's asked: asked like any other, and watched through.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Chosen, Clock, Down, Fall, Header, MessageId, Moment, RawParcel, RawReplies, RemoteError,
    RemotePort, RemoteTarget,
};

use super::Links;

/// A port to what this node itself offers for messages of this kind.
pub(super) struct Passed(pub(super) Links, pub(super) MessageId);

impl RemotePort for Passed {
    fn choose(&self, target: &RemoteTarget, _: Option<&str>) -> Option<Chosen> {
        self.0.shared.exports.typed(target.name(), self.1).map(Chosen::Here)
    }

    /// It's offered no more, or it would have been chosen.
    fn send(
        &self,
        target: &RemoteTarget,
        _: &Header,
        _: RawParcel,
        _: Arc<dyn RawReplies>,
        _: Moment,
    ) -> Result<(), RemoteError> {
        Err(RemoteError::Unreachable { target: target.to_string() })
    }

    fn ready<'a>(&'a self, _: &'a RemoteTarget, _: usize) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn down<'a>(&'a self, target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        match self.0.shared.exports.owned(target.name()) {
            Some(actor) => actor.down(),
            None => Box::pin(std::future::ready(Down::new(None, Fall::Absent))),
        }
    }

    fn clock(&self) -> &Clock {
        self.0.clock()
    }
}
