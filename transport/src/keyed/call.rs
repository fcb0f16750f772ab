//! The caller's half: sends a call with a key, again and again where that is safe.

use std::sync::Arc;

use neuroflow_kernel::{
    Address, Clock, Grant, Header, Moment, Parcel, ParcelError, RawParcel, RawReplies, Refusal,
    RemoteError, RemotePort, RemoteTarget, Request, StreamError, WireRequest,
    limits::CALL_DEADLINE, reply_stream,
};

use super::pinned::NoPin;
use super::{CallKey, Origin};
use crate::endpoint::Links;
use crate::export::{Delivery, Source};
use crate::identity::NodeId;
use crate::jitter;
use crate::limits::{KEYED_ANSWER_BYTES, KEYED_CALL_TIME, PINNED_CALLS};
use crate::session::retry::{Retry, Step, Tried};

/// One try over one link.
struct Try<'a> {
    links: &'a Links,
    peer: Arc<crate::link::peer::Peer>,
    link: Arc<crate::link::peer::Link>,
    key: CallKey,
}

impl Links {
    /// Asks an actor for a whole answer, and asks again, after a while, when a link is lost or there
    /// is no room. However often it's sent, the call runs once: its node knows it by the key, and tells
    /// a finished answer again. It's tried until the header's deadline, or for
    /// [`CALL_DEADLINE`], and never for longer than
    /// [`KEYED_CALL_TIME`](crate::limits::KEYED_CALL_TIME).
    ///
    /// With `agent://*/<name>` the placement chooses the node: by what the message belongs to
    /// ([`WireRequest::affinity`]), else by the key. Where a call may have run is remembered for
    /// [`KEYED_TIME`](crate::limits::KEYED_TIME): the same key goes there again, or is answered that it may
    /// have run.
    ///
    /// ```
    /// use neuroflow_kernel::{Header, Parcel, WireRequest};
    /// use neuroflow_transport::{CallKey, KeyedError, Links};
    /// async fn pay<W: WireRequest>(
    ///     links: &Links,
    ///     order: &W,
    /// ) -> Result<Vec<Parcel<W::Reply>>, KeyedError> {
    ///     links.call("agent://bank/payments", Header::new(), CallKey::of("order 17"), order).await
    /// }
    /// ```
    ///
    /// # Errors
    /// Says what went wrong; [`KeyedError::may_have_run`], whether the call may have run.
    pub async fn call<W: WireRequest>(
        &self,
        target: &str,
        header: Header,
        key: CallKey,
        message: &W,
    ) -> Result<Vec<Parcel<W::Reply>>, KeyedError> {
        let target: RemoteTarget = target.parse()?;
        let parcel = Parcel::archive(message)?;
        let now = self.clock().now();
        let deadline = header.deadline().unwrap_or(now + CALL_DEADLINE).min(now + KEYED_CALL_TIME);
        let header = header.until(deadline);
        if target.node().is_some() {
            return self.call_on(&target, header, deadline, None, key, parcel).await;
        }
        let place = (target.name().to_owned(), key);
        let choose = || {
            let affinity = W::affinity(parcel.get());
            let by = affinity.map_or_else(|| key.bytes().to_vec(), |text| text.as_bytes().to_vec());
            self.first_placed(&target, &by).map(|node| (node, self.incarnation_of(node)))
        };
        let pinned = self.shared.pins().begin(&place, now, deadline, choose);
        let pin = match pinned {
            Ok(pin) => pin,
            Err(NoPin::Nowhere) => {
                return Err(RemoteError::Unplaced { target: target.to_string() }.into());
            }
            Err(NoPin::Full) => {
                let why = Refusal::Overloaded { capacity: PINNED_CALLS };
                return Err(KeyedError::Refused { why, ran_before: false });
            }
        };
        let on = target.on_node(&pin.node.to_string());
        let ran = if pin.is_known { pin.incarnation } else { None };
        let called = self.call_on(&on, header, deadline, ran, key, parcel).await;
        if !pin.is_known && called.as_ref().is_err_and(|error| !error.may_have_run()) {
            self.shared.pins().remove(&place);
        }
        called
    }

    /// The start that a node is in, as far as its link says.
    fn incarnation_of(&self, node: NodeId) -> Option<u64> {
        Some(self.shared.peers.get(&node)?.link()?.incarnation)
    }

    /// A call to one node, which may have run there in this start of it.
    async fn call_on<W: WireRequest>(
        &self,
        target: &RemoteTarget,
        header: Header,
        deadline: Moment,
        ran: Option<u64>,
        key: CallKey,
        parcel: Parcel<W>,
    ) -> Result<Vec<Parcel<W::Reply>>, KeyedError> {
        if target.node().is_some_and(|node| self.shared.is_own(node)) {
            return self.call_own(target, header, deadline, key, parcel.as_raw().clone()).await;
        }
        let mut retry = Retry::new(deadline).ran_in(ran);
        loop {
            let (tried, incarnation, error) = match self.link(target) {
                Some((_, link)) if !retry.is_safe_in(link.incarnation) => {
                    return Err(KeyedError::BeganAnew);
                }
                Some((peer, link)) => {
                    let incarnation = link.incarnation;
                    let one = Try { links: self, peer, link, key };
                    match one.ask::<W>(target, &header, parcel.clone(), deadline).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => (tried(&error), incarnation, error),
                    }
                }
                None => {
                    let error = RemoteError::Unreachable { target: target.to_string() };
                    let error = Refusal::Unreachable(Arc::new(error));
                    (Tried::Later, 0, KeyedError::Refused { why: error, ran_before: false })
                }
            };
            match retry.failed(tried, incarnation, self.clock().now(), jitter()) {
                Step::Again(wait) => self.clock().sleep(wait).await,
                Step::GiveUp => return Err(error.after(retry.may_have_run())),
            }
        }
    }

    /// The same for an actor of this node, which peers may have been asked for with the same key.
    async fn call_own<R: neuroflow_kernel::WireMessage>(
        &self,
        target: &RemoteTarget,
        header: Header,
        deadline: Moment,
        key: CallKey,
        parcel: RawParcel,
    ) -> Result<Vec<Parcel<R>>, KeyedError> {
        let shared = &self.shared;
        let unreachable = || RemoteError::Unreachable { target: target.to_string() };
        let actor = shared.exports.owned(target.name()).ok_or_else(unreachable)?;
        let origin = Origin { node: shared.id, actor: target.name(), key };
        let life = target.generation();
        let actor = || life.map_or(Some(Arc::clone(&actor)), |life| actor.in_life(life));
        let delivery = shared.exports.keyed.deliver(origin, actor, header, parcel, self.clock());
        let ended = |why| KeyedError::Ended { why, ran_before: false };
        let mut source: Box<dyn Source> = match delivery {
            Delivery::Taken(Some(source)) => source,
            Delivery::Refused(why) => return Err(ended(why)),
            // A call with a key always has a source.
            Delivery::Taken(None) | Delivery::Waiting(_) => {
                return Err(ended(StreamError::Interrupted));
            }
        };
        let collect = async {
            let mut answer = Answer::default();
            while let Some(reply) = std::future::poll_fn(|cx| source.poll_next(cx)).await {
                answer.add(reply.map_err(ended)?.open::<R>()?)?;
            }
            Ok(answer.replies)
        };
        let collected = self.clock().before(deadline, collect).await;
        collected.unwrap_or(Err(ended(StreamError::DeadlineExceeded)))
    }
}

impl Try<'_> {
    async fn ask<W: WireRequest>(
        self,
        target: &RemoteTarget,
        header: &Header,
        parcel: Parcel<W>,
        deadline: Moment,
    ) -> Result<Vec<Parcel<W::Reply>>, KeyedError> {
        let clock = self.links.clock().clone();
        let port = Arc::new(Over {
            links: self.links.clone(),
            peer: self.peer,
            link: self.link,
            key: self.key,
        });
        let address = Address::<Request<W>>::remote(port, target.clone());
        let (sink, mut replies) = reply_stream();
        let sent = address.try_tell(header.clone(), Request { parcel, replies: sink });
        sent.map_err(|unsent| KeyedError::Refused { why: unsent.reason, ran_before: false })?;
        let ended = |why| KeyedError::Ended { why, ran_before: false };
        let collect = async {
            let mut answer = Answer::default();
            while let Some(reply) = replies.next().await {
                answer.add(reply.map_err(ended)?)?;
            }
            Ok(answer.replies)
        };
        // A stream that has begun outlives the wait for its start; a call doesn't.
        let collected = clock.before(deadline, collect).await;
        collected.unwrap_or(Err(ended(StreamError::DeadlineExceeded)))
    }
}

/// The replies so far.
struct Answer<R> {
    replies: Vec<Parcel<R>>,
    bytes: usize,
}

impl<R> Default for Answer<R> {
    fn default() -> Self {
        Self { replies: Vec::new(), bytes: 0 }
    }
}

impl<R: neuroflow_kernel::WireMessage> Answer<R> {
    fn add(&mut self, reply: Parcel<R>) -> Result<(), KeyedError> {
        self.bytes = self.bytes.saturating_add(reply.as_raw().as_bytes().len());
        if self.bytes > KEYED_ANSWER_BYTES {
            let why = StreamError::Forgotten;
            return Err(KeyedError::Ended { why, ran_before: true });
        }
        self.replies.push(reply);
        Ok(())
    }
}

/// A port of one link and one key.
struct Over {
    links: Links,
    peer: Arc<crate::link::peer::Peer>,
    link: Arc<crate::link::peer::Link>,
    key: CallKey,
}

impl RemotePort for Over {
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        _grant: Option<&Arc<Grant>>,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let to = (&*self.peer, &*self.link);
        Links::send_keyed(to, target, header, self.key, parcel, replies, now)
    }

    fn ready<'a>(
        &'a self,
        target: &'a RemoteTarget,
        bytes: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.links.ready(target, bytes)
    }

    fn clock(&self) -> &Clock {
        self.links.clock()
    }
}

/// What a failed try means for the next one.
fn tried(error: &KeyedError) -> Tried {
    match error {
        KeyedError::Refused { why, .. } if why.is_retryable() => Tried::Later,
        KeyedError::Ended { why: StreamError::Overloaded, .. } => Tried::Later,
        KeyedError::Ended { why: StreamError::Lost, .. } => Tried::Lost,
        _ => Tried::Never,
    }
}

/// Why a call with a key has no answer.
///
/// ```
/// use neuroflow_transport::KeyedError;
/// assert!(KeyedError::BeganAnew.may_have_run());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedError {
    /// No such target, or no way to it.
    #[error("the actor can't be asked")]
    Remote(#[from] RemoteError),
    /// The message or an answer isn't one.
    #[error("the message can't be archived, or the answer can't be read")]
    Parcel(#[from] ParcelError),
    /// The last try wasn't taken.
    #[error("the call was refused")]
    Refused {
        /// Why.
        #[source]
        why: Refusal,
        /// Whether an earlier try may have run.
        ran_before: bool,
    },
    /// The last try ended without a whole answer.
    #[error("the call has no whole answer")]
    Ended {
        /// Why.
        #[source]
        why: StreamError,
        /// Whether an earlier try may have run.
        ran_before: bool,
    },
    /// A try may have run, and the node has begun anew since: it doesn't know what it did before, so
    /// the call isn't sent again.
    #[error("the node began anew while the call ran, and doesn't know it any more")]
    BeganAnew,
}

impl KeyedError {
    /// Whether the call may have run. If not, it's safe to make it again with any key.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Remote(_) => false,
            Self::Parcel(_) | Self::BeganAnew => true,
            Self::Refused { ran_before, .. } => *ran_before,
            Self::Ended { why, ran_before } => *ran_before || why.may_have_run(),
        }
    }

    fn after(mut self, ran: bool) -> Self {
        if let Self::Refused { ran_before, .. } | Self::Ended { ran_before, .. } = &mut self {
            *ran_before |= ran;
        }
        self
    }
}
