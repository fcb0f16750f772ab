//! The node that holds a capability: an address whose sends carry it, and narrower ones for others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, Clock, DeliverError, Down, Fall, Header, MessageId, Moment, Parcel, RawParcel,
    RawReplies, RemoteError, RemotePort, RemoteTarget, Request, StreamError, Unheard, WireRequest,
    reply_stream,
};

use super::issuer::{held_name, random_id};
use super::token::{self, Chain, Token};
use super::{CapabilityError, CapabilityToken, Terms};
use crate::endpoint::Links;
use crate::identity::NodeId;
use crate::limits::SHOW_PAUSE;
use crate::link::peer::{Link, Peer};
use crate::watch;

impl Links {
    /// The address that a capability of another node stands for. It's shown to that node once per
    /// connection, before the first message, and again after a refusal that may be otherwise by then.
    /// Every message is checked there: a refusal comes as the end of its replies.
    ///
    /// ```
    /// use neuroflow_kernel::{Address, Request, WireRequest};
    /// use neuroflow_transport::{CapabilityError, Links};
    /// fn held<W: WireRequest>(
    ///     links: &Links,
    ///     token: &str,
    /// ) -> Result<Address<Request<W>>, CapabilityError> {
    ///     links.import(token)
    /// }
    /// ```
    ///
    /// # Errors
    /// Says that it's no token, for another node, or for other messages.
    pub fn import<W: WireRequest>(
        &self,
        token: &str,
    ) -> Result<Address<Request<W>>, CapabilityError> {
        let token = Token::from_text(token)?;
        let (first, last) = (token.first(), token.last());
        if last.holder != self.id() {
            return Err(CapabilityError::OtherHolder { holder: last.holder });
        }
        if first.issuer == self.id() {
            return Err(CapabilityError::Own);
        }
        if first.message != MessageId::of(W::NAME) {
            return Err(CapabilityError::OtherMessage);
        }
        let target = format!("agent://{}/{}", first.issuer, held_name(&token));
        let target: RemoteTarget = target.parse().map_err(|_other| CapabilityError::Malformed)?;
        let port = HeldPort {
            links: self.clone(),
            chain: token.parcel().clone(),
            shown: Mutex::default(),
            refused: Arc::default(),
        };
        Ok(Address::remote(Arc::new(port), target))
    }

    /// Derives a narrower capability from one that this node holds, for itself or another node. Nobody
    /// is asked: its own signature is what counts.
    ///
    /// # Errors
    /// Says that this node doesn't hold it, that the terms allow more than it does, or that it was
    /// derived too often.
    pub fn derive(
        &self,
        token: &str,
        to: NodeId,
        terms: Terms,
    ) -> Result<CapabilityToken, CapabilityError> {
        let token = Token::from_text(token)?;
        let last = token.last();
        if last.holder != self.id() {
            return Err(CapabilityError::OtherHolder { holder: last.holder });
        }
        let expires_ms = self.expiry(terms)?;
        let grant = token::Grant {
            id: random_id()?,
            holder: to,
            // Left out means as before.
            rights: terms.rights.intersection(last.rights),
            expires_ms: expires_ms.min(last.expires_ms),
            uses: terms.uses.or(last.uses),
            ..last.clone()
        };
        if terms.uses.zip(last.uses).is_some_and(|(own, parents)| own > parents) {
            return Err(CapabilityError::Widened);
        }
        token.derive(&self.shared.signer, grant)?.to_text().parse()
    }
}

/// A port that shows a capability before it's used.
struct HeldPort {
    links: Links,
    chain: Parcel<Chain>,
    shown: Mutex<Option<Shown>>,
    /// Whether a message was refused as it's where the capability isn't known, or isn't any more.
    refused: Arc<AtomicBool>,
}

/// Where a capability was shown last.
#[derive(Clone, Copy)]
struct Shown {
    /// The number of the connection.
    on: u64,
    at: Moment,
}

impl HeldPort {
    /// Shows the token on this connection, unless that was done: ahead of what follows on its lane. After a refusal
    /// that may be otherwise by now it's shown again, once in a while.
    fn present(
        &self,
        peer: &Peer,
        link: &Link,
        target: &RemoteTarget,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let is_old = |shown: &Shown| {
            self.refused.load(Ordering::Acquire) && now.since(shown.at) >= SHOW_PAUSE
        };
        if self.shown().is_some_and(|shown| shown.on == link.number && !is_old(&shown)) {
            return Ok(());
        }
        let (header, chain) = (Header::new(), self.chain.as_raw().clone());
        Links::send_on((peer, link), target, &header, chain, Arc::new(Unheard), now)?;
        self.refused.store(false, Ordering::Release);
        *self.shown() = Some(Shown { on: link.number, at: now });
        Ok(())
    }

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemotePort for HeldPort {
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let Some((peer, link)) = self.links.link(target) else {
            return Err(RemoteError::Unreachable { target: target.to_string() });
        };
        self.present(&peer, &link, target, now)?;
        let replies = Arc::new(Told { replies, refused: Arc::clone(&self.refused) });
        Links::send_on((&peer, &link), target, header, parcel, replies, now)
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()> {
        self.links.ready(target, bytes)
    }

    fn down<'a>(&'a self, target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        Box::pin(async move {
            // Watches have a lane of their own, so the token has to be there before.
            let port = Arc::new(self.links.clone());
            let address = Address::<Request<Chain>>::remote(Arc::clone(&port) as _, target.clone());
            let (sink, mut seen) = reply_stream();
            let request = Request { parcel: self.chain.clone(), replies: sink };
            if address.tell(Header::new(), request).await.is_err() {
                return Down::new(None, Fall::Lost);
            }
            match seen.next().await {
                Some(Ok(_)) => watch::down(port, target).await,
                Some(Err(StreamError::Lost)) | None => Down::new(None, Fall::Lost),
                Some(Err(_)) => Down::new(None, Fall::Absent),
            }
        })
    }

    fn clock(&self) -> &Clock {
        self.links.clock()
    }
}

/// The replies to a message that a capability was used for.
struct Told {
    replies: Arc<dyn RawReplies>,
    refused: Arc<AtomicBool>,
}

impl RawReplies for Told {
    fn deliver(&self, reply: RawParcel) -> Result<(), DeliverError> {
        self.replies.deliver(reply)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        self.replies.room()
    }

    fn finish(&self) {
        self.replies.finish();
    }

    fn fail(&self, why: StreamError) {
        // The issuer had no room for it, or doesn't know it any more, or a clock was wrong.
        if matches!(why, StreamError::Overloaded | StreamError::Unknown | StreamError::Expired) {
            self.refused.store(true, Ordering::Release);
        }
        self.replies.fail(why);
    }

    fn is_wanted(&self) -> bool {
        self.replies.is_wanted()
    }

    fn is_closed(&self) -> bool {
        self.replies.is_closed()
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        self.replies.closed()
    }
}
