//! The caller's half: sends a call with a key, again and again where that is safe.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, Backoff, Clock, Header, Moment, Parcel, RawParcel, RawReplies, Refusal, RemoteError,
    RemotePort, RemoteTarget, Request, StreamError, WireRequest, limits::CALL_DEADLINE,
    reply_stream,
};

use super::error::tried;
use super::pinned::{NoPin, Place};
use super::{CallKey, KeyedError, Origin};
use crate::directory::MemberState;
use crate::endpoint::Links;
use crate::export::{Delivery, Source};
use crate::identity::NodeId;
use crate::limits::{KEYED_ANSWER_BYTES, KEYED_CALL_TIME, KEYED_TIME, PINNED_CALLS};
use crate::session::retry::{Retry, Step, Tried};

/// One call over all its tries.
struct Calling<'a, W> {
    links: &'a Links,
    target: RemoteTarget,
    header: Header,
    deadline: Moment,
    key: CallKey,
    parcel: Parcel<W>,
    retry: Retry,
    /// Where it goes, if no node is named.
    share: Option<Share<'a>>,
}

/// A call's share in the place of its key.
struct Share<'a> {
    links: &'a Links,
    place: Place,
    node: NodeId,
    /// Whether it may have run, as far as is known: also if nobody waits for it any more.
    ran: bool,
    /// What it runs for at most, if it isn't answered.
    deadline: Moment,
    answered: bool,
}

impl Drop for Share<'_> {
    /// The callee knows it for a time that begins when it has ended there. An answer says that it has; without one it
    /// may go on until its deadline.
    fn drop(&mut self) {
        let now = self.links.clock().now();
        let ended = if self.answered { now } else { now.max(self.deadline) };
        self.links.shared.pins().ends(&self.place, self.ran.then_some(ended + KEYED_TIME));
    }
}

/// A try that has failed, and in which start of the callee's node.
struct Failed {
    tried: Tried,
    start: u64,
    error: KeyedError,
}

impl Failed {
    fn never(error: KeyedError) -> Self {
        Self { tried: Tried::Never, start: 0, error }
    }
}

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
    /// ([`WireRequest::affinity`]), else by the key. A try that surely didn't run leaves it the choice again.
    /// Where a call may have run is remembered for [`KEYED_TIME`](crate::limits::KEYED_TIME), while this node
    /// lives: the same key goes there again, or is answered that it may have run.
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
        let (header, retry) = (header.until(deadline), Retry::new(deadline));
        let calling =
            Calling { links: self, target, header, deadline, key, parcel, retry, share: None };
        calling.run().await
    }

    /// Whether the node has said that it leaves, or was shut out: what ran there nobody will tell.
    fn has_left(&self, target: &RemoteTarget) -> bool {
        let peer = target.node().and_then(|node| self.shared.peers.named(node));
        let view = self.shared.directory.view();
        let is_gone = |state| matches!(state, MemberState::Left | MemberState::Revoked);
        peer.is_some_and(|peer| {
            view.members.iter().any(|member| member.node == peer.id && is_gone(member.state))
        })
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
        let collect = async {
            let source = match delivery {
                Delivery::Taken(source) => Ok(source),
                Delivery::Waiting(waiting) => waiting.await,
                Delivery::Refused(why) => Err(why),
            };
            // A call with a key always has a source.
            let source = source.and_then(|source| source.ok_or(StreamError::Interrupted));
            let mut source = Listening(source.map_err(ended)?);
            let mut answer = Answer::default();
            while let Some(reply) = std::future::poll_fn(|cx| source.0.poll_next(cx)).await {
                answer.add(reply.map_err(ended)?.open::<R>()?)?;
            }
            Ok(answer.replies)
        };
        let collected = self.clock().before(deadline, collect).await;
        collected.unwrap_or(Err(ended(StreamError::DeadlineExceeded)))
    }
}

/// A run of this node's own, while its caller listens. Whoever gives it up cancels it, as one that has asked over a
/// link does; to one that is over that is nothing.
struct Listening(Box<dyn Source>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.cancelled();
    }
}

impl<W: WireRequest> Calling<'_, W> {
    async fn run(mut self) -> Result<Vec<Parcel<W::Reply>>, KeyedError> {
        let mut error = None;
        loop {
            let tried = match self.place(error.take()) {
                Ok(on) => self.once(&on).await,
                Err(nowhere) => Err(nowhere),
            };
            let Failed { tried, start, error: why } = match tried {
                Ok(answer) => {
                    if let Some(share) = &mut self.share {
                        share.answered = true;
                    }
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let step = self.retry.failed(tried, start, self.links.clock().now(), Backoff::jitter());
            let ran = self.retry.may_have_run() || why.may_have_run();
            if let Some(share) = &mut self.share {
                share.ran = ran;
            }
            let Step::Again(wait) = step else {
                return Err(why.after(self.may_have_run()));
            };
            if !ran {
                // The placement may find a better place for it, if nothing of this key runs where it was.
                self.share = None;
            }
            error = Some(why);
            self.links.clock().sleep(wait).await;
        }
    }

    /// Whether it may have run: by a try of its own, or of another call with the same key.
    fn may_have_run(&self) -> bool {
        let others = |share: &Share<'_>| self.links.shared.pins().may_have_run(&share.place);
        self.retry.may_have_run() || self.share.as_ref().is_some_and(others)
    }

    /// Whom to ask. That there is nobody ends a call at its first try, and after this error only fails another.
    fn place(&mut self, before: Option<KeyedError>) -> Result<RemoteTarget, Failed> {
        if self.target.node().is_some() {
            return Ok(self.target.clone());
        }
        let node = match &self.share {
            Some(share) => share.node,
            None => self.pin().map_err(|nowhere| match (nowhere, before) {
                (NoPin::Nowhere, Some(error)) => Failed { tried: Tried::Later, start: 0, error },
                (NoPin::Nowhere, None) => {
                    Failed::never(RemoteError::Unplaced { target: self.target.to_string() }.into())
                }
                (NoPin::Full, _) => {
                    let why = Refusal::Overloaded { capacity: PINNED_CALLS };
                    let error = KeyedError::Refused { why, ran_before: false };
                    Failed { tried: Tried::Later, start: 0, error }
                }
            })?,
        };
        Ok(self.target.clone().on_node(&node.to_string()))
    }

    /// The node to which calls of this key go.
    fn pin(&mut self) -> Result<NodeId, NoPin> {
        let Self { links, key, deadline, .. } = *self;
        let place = (self.target.name().to_owned(), key);
        let choose = || {
            let affinity = W::affinity(self.parcel.get());
            let by = affinity.map_or_else(|| key.bytes().to_vec(), |text| text.as_bytes().to_vec());
            links.first_placed(&self.target, &by)
        };
        let node = links.shared.pins().begin(&place, links.clock().now(), choose)?;
        self.share = Some(Share { links, place, node, ran: false, deadline, answered: false });
        Ok(node)
    }

    /// One try.
    async fn once(&mut self, on: &RemoteTarget) -> Result<Vec<Parcel<W::Reply>>, Failed> {
        let Self { links, deadline, key, .. } = *self;
        if on.node().is_some_and(|node| links.shared.is_own(node)) {
            self.is_sent();
            let (header, parcel) = (self.header.clone(), self.parcel.as_raw().clone());
            let called = links.call_own(on, header, deadline, key, parcel).await;
            return called.map_err(|error| match tried(&error) {
                Tried::Later => Failed { tried: Tried::Later, start: 0, error },
                // There is no link that could have been lost on the way.
                _ => Failed::never(error),
            });
        }
        match links.link(on) {
            Some((_, link)) if !self.is_safe_in(link.incarnation) => {
                Err(Failed::never(KeyedError::BeganAnew))
            }
            Some((peer, link)) => {
                self.is_sent();
                let start = link.incarnation;
                let one = Try { links, peer, link, key };
                let asked = one.ask(on, &self.header, self.parcel.clone(), deadline).await;
                asked.map_err(|error| Failed { tried: tried(&error), start, error })
            }
            None if self.may_have_run() && links.has_left(on) => {
                Err(Failed::never(KeyedError::BeganAnew))
            }
            None => {
                let error = RemoteError::Unreachable { target: on.to_string() };
                let why = Refusal::Unreachable(Arc::new(error));
                let error = KeyedError::Refused { why, ran_before: false };
                Err(Failed { tried: Tried::Later, start: 0, error })
            }
        }
    }

    /// Whoever gives the call up from here on doesn't know whether it ran.
    fn is_sent(&mut self) {
        if let Some(share) = &mut self.share {
            share.ran = true;
        }
    }

    fn is_safe_in(&self, start: u64) -> bool {
        let ran = self.retry.may_have_run();
        let others =
            |share: &Share<'_>| self.links.shared.pins().may_send(&share.place, start, ran);
        self.retry.is_safe_in(start) && self.share.as_ref().is_none_or(others)
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
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let to = (&*self.peer, &*self.link);
        Links::send_keyed(to, target, header, self.key, parcel, replies, now)
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()> {
        self.links.ready(target, bytes)
    }

    fn clock(&self) -> &Clock {
        self.links.clock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use neuroflow_kernel::WireMessage;

    use super::*;
    use crate::directory::Member;
    use crate::identity::{Authority, Trust};
    use crate::limits::CERTIFICATE_LIFE;
    use crate::membership::record::Offer;

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Order;

    impl WireMessage for Order {
        const NAME: &'static str = "test.order";
        const VERSION: u16 = 1;
    }

    impl WireRequest for Order {
        type Reply = Self;
    }

    #[tokio::test]
    async fn a_call_whose_place_cannot_be_remembered_waits() {
        let clock = Clock::system();
        let authority = Authority::create("test", clock.wall()).unwrap();
        let credential = authority.issue("a", &[], CERTIFICATE_LIFE, clock.wall()).unwrap();
        let trust = Trust::from_pem(authority.certificate_pem()).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = crate::LinksConfig::new(listen, credential, trust);
        let (_not_started, links) = config.child(clock.clone()).unwrap();
        links.shared.directory.show(vec![Member {
            node: links.id(),
            name: links.name().clone(),
            state: MemberState::Alive,
            address: listen,
            oldest_protocol: 1,
            newest_protocol: 1,
            build: String::new(),
            capacity: 1,
            load: 0,
            draining: false,
            certificate_expires: clock.wall(),
            agents: vec![Offer::new("orders")],
            own: true,
        }]);
        let place = |nth: usize| ("orders".to_owned(), CallKey::of(&nth.to_string()));
        for nth in 0..PINNED_CALLS {
            let begun = links.shared.pins().begin(&place(nth), clock.now(), || Some(links.id()));
            assert!(begun.is_ok());
        }
        let header = Header::new().within(&clock, Duration::from_secs(20));
        let call = links.call("agent://*/orders", header, CallKey::of("more"), &Order);
        let (called, ()) = tokio::join!(call, async {
            clock.sleep(Duration::from_millis(50)).await;
            links.shared.pins().ends(&place(0), None);
        });
        // There it's placed, and nothing is offered.
        let called = called.map(drop).unwrap_err();
        assert!(
            matches!(called, KeyedError::Remote(RemoteError::Unreachable { .. })),
            "{called:?}"
        );
    }
}
