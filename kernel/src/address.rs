//! Where a message goes, and the authority to send it there.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::capability::{AttenuateError, Denied, Grant, Restriction};
use crate::clock::{Clock, Moment};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::{CALL_DEADLINE, MAX_HOPS};
use crate::mailbox::{
    ActorState, Envelope, Inbox, Mapped, MappedSlot, Resolve, Vitals, Work, await_life,
};
use crate::message::{Message, Request, WireRequest};
use crate::name::Path;
use crate::parcel::{Parcel, ParcelError};
use crate::remote::RemoteRoute;
use crate::reply::{Answer, Reply, ReplySink, ReplyStream, reply_pair, reply_stream};

/// The address of an actor and the capability to send to it.
///
/// It can't be forged: it comes from starting the actor, from a message, or from a
/// [`Scope`](crate::Scope) that covers the name. Whoever has one can hand on a narrower one with
/// [`attenuate`](Self::attenuate) and take that back with [`revoke`](Self::revoke).
///
/// It follows either a name, across restarts, or ([`this_life`](Self::this_life)) one life of the
/// actor, after which it answers [`Refusal::Stale`].
///
/// ```
/// use neuroflow_kernel::{Address, CallError, Header, Message, Reply};
/// # struct Total(Reply<u64>);
/// # impl Message for Total { fn name(&self) -> &'static str { "total" } }
/// async fn total(counter: &Address<Total>) -> Result<u64, CallError> {
///     counter.call(Header::new(), Total).await
/// }
/// ```
pub struct Address<M> {
    route: Route<M>,
    grant: Option<Arc<Grant>>,
}

enum Route<M> {
    Life(Arc<dyn Inbox<M>>),
    Name(Arc<dyn Resolve<M>>),
    Remote(Arc<dyn RemoteRoute<M>>),
}

impl<M> Clone for Route<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Life(inbox) => Self::Life(Arc::clone(inbox)),
            Self::Name(slot) => Self::Name(Arc::clone(slot)),
            Self::Remote(route) => Self::Remote(Arc::clone(route)),
        }
    }
}

impl<M: Message> Address<M> {
    pub(crate) fn of_life(inbox: Arc<dyn Inbox<M>>) -> Self {
        Self { route: Route::Life(inbox), grant: None }
    }

    pub(crate) fn of_name(slot: Arc<dyn Resolve<M>>) -> Self {
        Self { route: Route::Name(slot), grant: None }
    }

    pub(crate) fn of_remote(route: Arc<dyn RemoteRoute<M>>) -> Self {
        Self { route: Route::Remote(route), grant: None }
    }

    /// Sends, waiting for room (and for a restart that is under way) until the header's deadline,
    /// or [`CALL_DEADLINE`] without one.
    ///
    /// # Errors
    /// Gives the message back and says why it wasn't taken.
    pub async fn tell(&self, header: Header, message: M) -> Result<(), SendError<M>> {
        self.send_in_time(header, message).await.map(|_taken| ())
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// Gives the message back and says why it wasn't taken.
    pub fn try_tell(&self, header: Header, message: M) -> Result<(), SendError<M>> {
        let target = self.target();
        let Some(clock) = target.clock() else {
            return Err(SendError { message, reason: target.absence() });
        };
        let header = match self.authorise(header, &message, clock) {
            Ok(header) => header,
            Err(reason) => return Err(SendError { message, reason }),
        };
        self.enter(&target, header, message).map_err(|unsent| self.give_up(unsent))
    }

    /// Sends a message that carries a [`Reply`] and waits for the answer until the header's
    /// deadline, or [`CALL_DEADLINE`] without one. Dropping the future cancels: the callee's
    /// reply side is closed.
    ///
    /// # Errors
    /// Says whether the message was refused, or what became of the actor that had it.
    pub async fn call<T>(
        &self,
        header: Header,
        message: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, CallError> {
        let (reply, answer) = reply_pair();
        let taken =
            self.send_in_time(header, message(reply)).await.map_err(|refused| refused.reason)?;
        match taken.clock().before(taken.deadline, answer).await {
            Ok(Ok(Answer::Value(value))) => Ok(value),
            Ok(Ok(Answer::Panicked)) => Err(CallError::Panicked),
            Ok(Err(_dropped)) => Err(taken.unanswered()),
            Err(_elapsed) => Err(CallError::DeadlineExceeded),
        }
    }

    /// Sends a message that carries a [`ReplySink`] and gives the stream that it feeds. Dropping
    /// the stream cancels.
    ///
    /// # Errors
    /// Says why the message wasn't taken.
    pub async fn stream<T>(
        &self,
        header: Header,
        message: impl FnOnce(ReplySink<T>) -> M,
    ) -> Result<ReplyStream<T>, Refusal> {
        let (sink, stream) = reply_stream();
        self.tell(header, message(sink)).await.map_err(|refused| refused.reason)?;
        Ok(stream)
    }

    /// A narrower capability to the same actor.
    ///
    /// # Errors
    /// [`AttenuateError::TooDeep`] if the chain of derivations is at its limit.
    pub fn attenuate(&self, restriction: Restriction) -> Result<Self, AttenuateError> {
        let grant = Grant::derive(self.grant.as_ref(), restriction)?;
        Ok(Self { route: self.route.clone(), grant: Some(grant) })
    }

    /// Takes this capability back, and all that were derived from it, wherever their copies are.
    ///
    /// # Errors
    /// [`AttenuateError::OwnersOwn`] for an address that wasn't attenuated.
    pub fn revoke(&self) -> Result<(), AttenuateError> {
        match &self.grant {
            Some(grant) => {
                grant.revoke();
                Ok(())
            }
            None => Err(AttenuateError::OwnersOwn),
        }
    }

    /// The same actor, taking another message that becomes one of its own.
    #[must_use]
    pub fn accepting<N: Message>(&self, map: fn(N) -> M) -> Option<Address<N>> {
        let route = match &self.route {
            Route::Life(inbox) => {
                Route::Life(Arc::new(Mapped { inner: Arc::clone(inbox), map }) as _)
            }
            Route::Name(slot) => {
                Route::Name(Arc::new(MappedSlot { inner: Arc::clone(slot), map }) as _)
            }
            // What a link carries is decided by the wire message alone.
            Route::Remote(_) => return None,
        };
        Some(Address { route, grant: self.grant.clone() })
    }

    /// The address of the life that is there now, which a restart makes stale.
    ///
    /// # Errors
    /// Says that there is none now, or never will be.
    pub fn this_life(&self) -> Result<Self, Refusal> {
        let route = match &self.route {
            Route::Name(slot) => {
                Route::Life(slot.current().ok_or_else(|| self.target().absence())?)
            }
            other => other.clone(),
        };
        Ok(Self { route, grant: self.grant.clone() })
    }

    /// The generation of the life that is there now.
    pub fn generation(&self) -> Option<Generation> {
        match &self.route {
            Route::Life(inbox) => Some(inbox.vitals().generation),
            Route::Name(slot) => slot.current().map(|inbox| inbox.vitals().generation),
            Route::Remote(_) => None,
        }
    }

    /// The actor's path, while it lives in this process.
    pub fn path(&self) -> Option<Path> {
        match &self.route {
            Route::Life(inbox) => Some(inbox.vitals().path.clone()),
            Route::Name(slot) => slot.current().map(|inbox| inbox.vitals().path.clone()),
            Route::Remote(_) => None,
        }
    }

    /// The id of the life that is there now.
    pub fn id(&self) -> Option<ActorId> {
        match &self.route {
            Route::Life(inbox) => Some(inbox.vitals().id),
            Route::Name(slot) => slot.current().map(|inbox| inbox.vitals().id),
            Route::Remote(_) => None,
        }
    }

    /// Messages that wait in the actor's mailbox.
    pub fn mailbox_depth(&self) -> usize {
        match &self.route {
            Route::Life(inbox) => inbox.vitals().depth(),
            Route::Name(slot) => slot.current().map_or(0, |inbox| inbox.vitals().depth()),
            Route::Remote(_) => 0,
        }
    }

    fn target(&self) -> Target<'_, M> {
        match &self.route {
            Route::Life(inbox) => Target::Life(Held::Borrowed(inbox)),
            Route::Name(slot) => match slot.current() {
                Some(inbox) => Target::Life(Held::Owned(inbox)),
                None => Target::Vacant(&**slot),
            },
            Route::Remote(route) => Target::Remote(route),
        }
    }

    /// Rights, uses and hops; takes the use that [`Self::give_up`] gives back.
    fn authorise(&self, header: Header, message: &M, clock: &Clock) -> Result<Header, Refusal> {
        if header.hops() > MAX_HOPS {
            return Err(Refusal::TooManyHops { hops: header.hops() });
        }
        let Some(grant) = &self.grant else { return Ok(header) };
        grant.check(message.required_rights(), || clock.now())?;
        grant.take_use()?;
        Ok(header.through(grant))
    }

    fn give_up(&self, unsent: Unsent<M>) -> SendError<M> {
        if let Some(grant) = &self.grant {
            grant.give_back_use();
        }
        SendError { message: unsent.message, reason: unsent.reason }
    }

    async fn send_in_time(&self, header: Header, message: M) -> Result<Taken, SendError<M>> {
        let target = self.target();
        let Some(clock) = target.clock() else {
            return Err(SendError { message, reason: target.absence() });
        };
        let deadline = header.deadline().unwrap_or_else(|| clock.now() + CALL_DEADLINE);
        let header = match self.authorise(header.until(deadline), &message, clock) {
            Ok(header) => header,
            Err(reason) => return Err(SendError { message, reason }),
        };
        match self.enter(&target, header, message) {
            Ok(()) => Ok(target.taken(deadline)),
            Err(unsent) if unsent.reason.is_retryable() => self
                .enter_later(target, deadline, unsent)
                .await
                .map_err(|unsent| self.give_up(unsent)),
            Err(unsent) => Err(self.give_up(unsent)),
        }
    }

    fn enter(&self, target: &Target<'_, M>, header: Header, message: M) -> Result<(), Unsent<M>> {
        match target {
            Target::Life(inbox) => match inbox.vitals().try_enter() {
                Ok(()) => {
                    self.push(&***inbox, header, message);
                    Ok(())
                }
                Err(reason) => Err(Unsent { header, message, reason }),
            },
            Target::Vacant(_) => Err(Unsent { header, message, reason: target.absence() }),
            Target::Remote(route) => {
                let sent = route.try_send(header.clone(), self.grant.as_ref(), message);
                sent.map_err(|SendError { message, reason }| Unsent { header, message, reason })
            }
        }
    }

    /// The slow path of a send: waits for a restart, and then for room, until the deadline.
    async fn enter_later(
        &self,
        target: Target<'_, M>,
        deadline: Moment,
        unsent: Unsent<M>,
    ) -> Result<Taken, Unsent<M>> {
        let Unsent { header, message, reason } = unsent;
        let Some(clock) = target.clock().cloned() else {
            return Err(Unsent { header, message, reason });
        };
        let refused = |reason| Unsent { header: Header::new(), message: (), reason };
        let waited = clock
            .before(deadline, async {
                match target {
                    Target::Life(inbox) => {
                        inbox.vitals().wait_for_room().await.map_err(refused)?;
                        Ok(Target::Life(inbox))
                    }
                    Target::Vacant(slot) => {
                        let inbox = await_life(slot).await.map_err(refused)?;
                        inbox.vitals().wait_for_room().await.map_err(refused)?;
                        Ok(Target::Life(Held::Owned(inbox)))
                    }
                    Target::Remote(route) => {
                        route.ready().await;
                        Ok(Target::Remote(route))
                    }
                }
            })
            .await;
        match waited {
            Ok(Ok(Target::Life(inbox))) => {
                self.push(&**inbox, header, message);
                Ok(Target::Life(inbox).taken(deadline))
            }
            Ok(Ok(target)) => {
                self.enter(&target, header, message)?;
                Ok(target.taken(deadline))
            }
            Ok(Err(Unsent { reason, .. })) => Err(Unsent { header, message, reason }),
            Err(_elapsed) => Err(Unsent { header, message, reason }),
        }
    }

    fn push(&self, inbox: &dyn Inbox<M>, header: Header, message: M) {
        inbox.push(Envelope {
            header,
            grant: self.grant.clone(),
            sent: inbox.vitals().stamp(),
            work: Work::Message(message),
        });
    }
}

/// Where a message goes, looked up once per send.
enum Target<'a, M> {
    Life(Held<'a, M>),
    Vacant(&'a dyn Resolve<M>),
    Remote(&'a Arc<dyn RemoteRoute<M>>),
}

/// An inbox that the address itself holds, or that its name stood for just now.
enum Held<'a, M> {
    Borrowed(&'a Arc<dyn Inbox<M>>),
    Owned(Arc<dyn Inbox<M>>),
}

impl<M> std::ops::Deref for Held<'_, M> {
    type Target = Arc<dyn Inbox<M>>;

    fn deref(&self) -> &Arc<dyn Inbox<M>> {
        match self {
            Self::Borrowed(inbox) => inbox,
            Self::Owned(inbox) => inbox,
        }
    }
}

impl<M: Message> Target<'_, M> {
    /// The kernel's clock; an actor that was never started has none yet.
    fn clock(&self) -> Option<&Clock> {
        match self {
            Self::Life(inbox) => Some(&inbox.vitals().clock),
            Self::Vacant(slot) => slot.lineage().clock(),
            Self::Remote(route) => Some(route.clock()),
        }
    }

    fn absence(&self) -> Refusal {
        match self {
            Self::Vacant(slot) if slot.lineage().is_over() => Refusal::Stopped,
            _ => Refusal::Restarting,
        }
    }

    fn taken(self, deadline: Moment) -> Taken {
        let by = match self {
            Self::Life(inbox) => By::Life(Arc::clone(inbox.vitals())),
            Self::Remote(route) => By::Link(route.clock().clone()),
            Self::Vacant(_) => unreachable!("a vacant name took a message"),
        };
        Taken { deadline, by }
    }
}

/// A message that was taken, and by whom.
struct Taken {
    deadline: Moment,
    by: By,
}

enum By {
    Life(Arc<Vitals>),
    Link(Clock),
}

impl Taken {
    fn clock(&self) -> &Clock {
        match &self.by {
            By::Life(vitals) => &vitals.clock,
            By::Link(clock) => clock,
        }
    }

    /// Why it got no answer.
    fn unanswered(&self) -> CallError {
        match &self.by {
            By::Life(vitals) if vitals.state() == ActorState::Ended => {
                CallError::Refused(vitals.ending())
            }
            _ => CallError::Unanswered,
        }
    }
}

/// A message that wasn't taken, with what is needed to try again.
struct Unsent<M> {
    header: Header,
    message: M,
    reason: Refusal,
}

impl<W: WireRequest> Address<Request<W>> {
    /// Archives `message`, sends it, and gives the stream of its replies.
    ///
    /// # Errors
    /// Says whether the message can't be archived or wasn't taken.
    pub fn ask(
        &self,
        header: Header,
        message: &W,
    ) -> impl Future<Output = Result<ReplyStream<Parcel<W::Reply>>, AskError>> + Send {
        let parcel = Parcel::archive(message);
        async move {
            let parcel = parcel?;
            Ok(self.stream(header, |replies| Request { parcel, replies }).await?)
        }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { route: self.route.clone(), grant: self.grant.clone() }
    }
}

impl<M: Message> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Address");
        match &self.route {
            Route::Life(inbox) => debug.field("life", inbox.vitals()),
            Route::Name(_) => debug.field("name", &self.path()),
            Route::Remote(route) => debug.field("remote", &route.target()),
        };
        debug.field("grant", &self.grant).finish()
    }
}

/// A message that wasn't taken, and why.
///
/// ```
/// use neuroflow_kernel::{Address, Header, Message, Refusal};
/// # struct Job(u32);
/// # impl Message for Job { fn name(&self) -> &'static str { "job" } }
/// fn offer(worker: &Address<Job>, job: Job) -> Option<Job> {
///     match worker.try_tell(Header::new(), job) {
///         Ok(()) => None,
///         Err(refused) => Some(refused.message), // nothing is lost
///     }
/// }
/// ```
pub struct SendError<M> {
    /// The message, given back.
    pub message: M,
    /// Why.
    pub reason: Refusal,
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<M> std::error::Error for SendError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Why an address doesn't take a message.
///
/// ```
/// use neuroflow_kernel::Refusal;
/// assert!(Refusal::Overloaded { capacity: 8 }.is_retryable());
/// assert!(!Refusal::Stopped.is_retryable());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The mailbox is full, and stayed so until the deadline.
    #[error("the mailbox is full (capacity {capacity})")]
    Overloaded {
        /// Messages that it holds; 0 if a link's credit is used up.
        capacity: usize,
    },
    /// The address names a life that is over; the actor lives on in a later one.
    #[error("generation {generation} of the actor is over")]
    Stale {
        /// The life that the address names.
        generation: Generation,
    },
    /// The name has no life right now; its supervisor is restarting it.
    #[error("the actor is being restarted")]
    Restarting,
    /// The actor has ended for good.
    #[error("the actor has stopped")]
    Stopped,
    /// The capability doesn't allow it.
    #[error("denied")]
    Denied(#[from] Denied),
    /// The message has passed through too many actors: probably a loop.
    #[error("the message has passed through {hops} actors; {MAX_HOPS} are allowed")]
    TooManyHops {
        /// Actors passed.
        hops: u8,
    },
    /// The other node can't be reached.
    #[error("the node is unreachable")]
    Unreachable(#[source] Arc<crate::remote::RemoteError>),
}

impl Refusal {
    /// A stable word for metrics and protocols.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Stale { .. } => "stale",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Denied(_) => "denied",
            Self::TooManyHops { .. } => "too_many_hops",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// Whether the same message may be taken a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::Restarting | Self::Unreachable(_))
    }
}

/// Why a call has no answer.
///
/// ```
/// use neuroflow_kernel::CallError;
/// assert_eq!(CallError::Panicked.code(), "panicked");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The message wasn't taken, or the actor's life ended while it waited in the mailbox.
    #[error("the call was refused")]
    Refused(#[from] Refusal),
    /// No answer came in time. The callee may still be at work until it looks at its reply side.
    #[error("no answer before the deadline")]
    DeadlineExceeded,
    /// The actor panicked while it handled this call.
    #[error("the actor panicked while it handled the call")]
    Panicked,
    /// The actor let go of the reply without an answer.
    #[error("the actor dropped the call without an answer")]
    Unanswered,
}

impl CallError {
    /// A stable word for metrics and protocols.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Panicked => "panicked",
            Self::Unanswered => "unanswered",
        }
    }

    /// Whether the same call is safe to send again: it was never handled.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_retryable())
    }
}

/// Why a wire request wasn't sent.
///
/// ```
/// use neuroflow_kernel::{AskError, Refusal};
/// assert_eq!(AskError::from(Refusal::Stopped).to_string(), "the request was refused");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It can't be archived.
    #[error("the request can't be archived")]
    Archive(#[from] ParcelError),
    /// It wasn't taken.
    #[error("the request was refused")]
    Refused(#[from] Refusal),
}
