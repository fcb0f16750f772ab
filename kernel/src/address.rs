//! Where a message goes, and the authority to send it there.
//!
//! Long, because each way to send has its documentation and its example here, over one way in.

mod refusal;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;

pub use self::refusal::{AskError, CallError, Refusal, SendError};

use crate::capability::{AttenuateError, Grant, Restriction};
use crate::clock::{Clock, Moment};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::{CALL_DEADLINE, MAX_HOPS};
use crate::mailbox::{Inbox, Mapped, Vitals};
use crate::message::{Message, Request, WireRequest};
use crate::monitor::{Down, Fall};
use crate::name::Path;
use crate::parcel::Parcel;
use crate::remote::{RemoteRoute, Untaken};
use crate::reply::{Answer, Reply, ReplySink, ReplyStream, reply_pair, reply_stream};
use crate::slot::{MappedSlot, Resolve, await_room};

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
    Name(Arc<dyn Resolve<M>>, Found<M>),
    Remote(Arc<dyn RemoteRoute<M>>),
}

/// The first life that an address has found behind its name, which saves it the look-up while that
/// life lasts: two never overlap, so one that is open is the current one. A clone looks for itself,
/// and so finds the life after a restart.
struct Found<M>(OnceLock<Arc<dyn Inbox<M>>>);

impl<M> Found<M> {
    fn not_yet() -> Self {
        Self(OnceLock::new())
    }

    fn open(&self) -> Option<&Arc<dyn Inbox<M>>> {
        self.0.get().filter(|inbox| inbox.vitals().is_open())
    }
}

impl<M> Clone for Route<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Life(inbox) => Self::Life(Arc::clone(inbox)),
            Self::Name(slot, _found) => Self::Name(Arc::clone(slot), Found::not_yet()),
            Self::Remote(route) => Self::Remote(Arc::clone(route)),
        }
    }
}

impl<M: Message> Address<M> {
    pub(crate) fn of_life(inbox: Arc<dyn Inbox<M>>) -> Self {
        Self { route: Route::Life(inbox), grant: None }
    }

    pub(crate) fn of_name(slot: Arc<dyn Resolve<M>>) -> Self {
        Self { route: Route::Name(slot, Found::not_yet()), grant: None }
    }

    pub(crate) fn of_remote(route: Arc<dyn RemoteRoute<M>>) -> Self {
        Self { route: Route::Remote(route), grant: None }
    }

    /// Sends, waiting for room (and for a restart that is under way) until the header's deadline,
    /// or for [`CALL_DEADLINE`] without one. A message without a deadline that was taken is handled
    /// however long it lies in the mailbox.
    ///
    /// # Errors
    /// Gives the message back and says why it wasn't taken.
    pub async fn tell(&self, header: Header, message: M) -> Result<(), SendError<M>> {
        match self.send_now(header, message, Wait::Room) {
            Ok(_taken) => Ok(()),
            Err(later) => later.await.map(|_taken| ()),
        }
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
        self.try_enter(&target, header, message, || clock.now())
    }

    /// Like [`try_tell`](Self::try_tell), for whoever has just looked at the kernel's clock: that costs
    /// as much as the rest.
    ///
    /// ```
    /// use neuroflow_kernel::{Address, Clock, Header, Message};
    /// fn tell_all<M: Message>(to: &Address<M>, messages: Vec<M>, clock: &Clock) -> usize {
    ///     let now = clock.now();
    ///     let taken = |message| to.try_tell_at(now, Header::new(), message).is_ok();
    ///     messages.into_iter().map(taken).filter(|taken| *taken).count()
    /// }
    /// ```
    ///
    /// # Errors
    /// Gives the message back and says why it wasn't taken.
    pub fn try_tell_at(&self, now: Moment, header: Header, message: M) -> Result<(), SendError<M>> {
        let target = self.target();
        if target.clock().is_none() {
            return Err(SendError { message, reason: target.absence() });
        }
        self.try_enter(&target, header, message, || now)
    }

    fn try_enter(
        &self,
        target: &Target<'_, M>,
        header: Header,
        message: M,
        now: impl Fn() -> Moment,
    ) -> Result<(), SendError<M>> {
        let (header, pass) = match self.authorise(header, &message, &now) {
            Ok(authorised) => authorised,
            Err(reason) => return Err(SendError { message, reason }),
        };
        match self.enter(target, header, message, now) {
            Ok(()) => {
                pass.used();
                Ok(())
            }
            Err(Unsent { message, reason, .. }) => Err(SendError { message, reason }),
        }
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
        let taken = match self.send_now(header, message(reply), Wait::Answer) {
            Ok(taken) => taken,
            Err(later) => later.await.map_err(|unsent| CallError::from_refusal(unsent.reason))?,
        };
        match taken.clock.before(taken.deadline, answer).await {
            Ok(Ok(Answer::Value(value))) => Ok(value),
            Ok(Ok(Answer::Panicked)) => Err(CallError::Panicked),
            Ok(Ok(Answer::Refused(refusal))) => Err(CallError::from_refusal(refusal)),
            Ok(Err(_dropped)) => Err(CallError::Unanswered),
            Err(_elapsed) => Err(CallError::DeadlineExceeded),
        }
    }

    /// Sends a message that carries a [`ReplySink`], like [`tell`](Self::tell), and gives the stream
    /// that it feeds. Dropping the stream cancels. Only the header's deadline, or whoever takes the
    /// message, says how long the work may take; over a link, the first reply has a bound of its own.
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

    /// A narrower capability to the same actor. What it gives up holds for a remote actor, too, as far as
    /// that can be seen where it's sent from.
    ///
    /// # Errors
    /// [`AttenuateError::TooDeep`] if the chain of derivations is at its limit,
    /// [`AttenuateError::Unreadable`] for a policy if the actor is a remote one.
    pub fn attenuate(&self, restriction: Restriction) -> Result<Self, AttenuateError> {
        if restriction.has_policy() && matches!(self.route, Route::Remote(_)) {
            return Err(AttenuateError::Unreadable);
        }
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
            Route::Name(slot, _found) => {
                let slot = MappedSlot { inner: Arc::clone(slot), map };
                Route::Name(Arc::new(slot) as _, Found::not_yet())
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
            Route::Name(slot, _found) => {
                Route::Life(slot.current().ok_or_else(|| self.target().absence())?)
            }
            other => other.clone(),
        };
        Ok(Self { route, grant: self.grant.clone() })
    }

    /// The generation of the life that is there now.
    pub fn generation(&self) -> Option<Generation> {
        self.vitals().map(|vitals| vitals.generation)
    }

    /// The actor's path, while it lives in this process.
    pub fn path(&self) -> Option<Path> {
        self.vitals().map(|vitals| vitals.path.clone())
    }

    /// The id of the life that is there now.
    pub fn id(&self) -> Option<ActorId> {
        self.vitals().map(|vitals| vitals.id)
    }

    /// Messages that wait in the actor's mailbox.
    pub fn mailbox_depth(&self) -> usize {
        self.vitals().map_or(0, |vitals| vitals.depth())
    }

    /// Waits for the end of the life that is there now, and says how it ended. Dropping the future
    /// ends the watch. The end of an actor on another node comes as soon as its node tells of it; the
    /// end of that node or of the link to it, once the link is known to be lost.
    ///
    /// ```
    /// use neuroflow_kernel::{Address, Fall, Message};
    /// async fn was_killed<M: Message>(worker: &Address<M>) -> bool {
    ///     worker.down().await.fall == Fall::Killed
    /// }
    /// ```
    pub fn down(&self) -> impl Future<Output = Down> + Send + use<M> {
        let vitals = match &self.route {
            Route::Life(_) | Route::Name(..) => Ok(self.vitals()),
            Route::Remote(route) => Err(Arc::clone(route)),
        };
        async move {
            match vitals {
                Ok(Some(vitals)) => vitals.down().await,
                Ok(None) => Down::new(None, Fall::Absent),
                Err(remote) => remote.down().await,
            }
        }
    }

    /// Of the life that is there now, in this process.
    fn vitals(&self) -> Option<Arc<Vitals>> {
        match &self.route {
            Route::Life(inbox) => Some(Arc::clone(inbox.vitals())),
            Route::Name(slot, _) => slot.current().map(|inbox| Arc::clone(inbox.vitals())),
            Route::Remote(_) => None,
        }
    }

    fn target(&self) -> Target<'_, M> {
        match &self.route {
            Route::Life(inbox) => Target::Life(inbox),
            Route::Name(slot, found) => {
                if let Some(inbox) = found.open() {
                    return Target::Name(&**slot, Some(Held::Borrowed(inbox)));
                }
                let current = slot.current();
                if let Some(inbox) = &current {
                    found.0.get_or_init(|| Arc::clone(inbox));
                }
                Target::Name(&**slot, current.map(Held::Owned))
            }
            Route::Remote(route) => Target::Remote(&**route),
        }
    }

    /// Deadline, hops, rights and uses.
    fn authorise(
        &self,
        header: Header,
        message: &M,
        now: impl Fn() -> Moment,
    ) -> Result<(Header, Pass<'_>), Refusal> {
        if header.deadline().is_some_and(|deadline| now() >= deadline) {
            return Err(Refusal::Expired);
        }
        if header.hops() > MAX_HOPS {
            return Err(Refusal::TooManyHops { hops: header.hops() });
        }
        let Some(grant) = &self.grant else { return Ok((header, Pass(None))) };
        grant.check(message.required_rights(), now)?;
        grant.take_use()?;
        Ok((header.through(grant), Pass(Some(grant))))
    }

    /// Sends if that can be done at once, as nearly always; otherwise the rest is to be awaited.
    fn send_now(&self, header: Header, message: M, wait: Wait) -> Result<Taken<'_>, Later<'_, M>> {
        let target = self.target();
        let Some(clock) = target.clock() else {
            return Err(never(message, target.absence()));
        };
        let now = clock.now();
        let (header, deadline) = wait.bound(header, now);
        let (header, pass) = match self.authorise(header, &message, || now) {
            Ok(authorised) => authorised,
            Err(reason) => return Err(never(message, reason)),
        };
        match self.enter(&target, header, message, || now) {
            Ok(()) => {
                pass.used();
                Ok(Taken { deadline, clock })
            }
            Err(unsent) if unsent.reason.is_retryable() => Err(Box::pin(async move {
                match self.enter_later(&target, clock, deadline, unsent).await {
                    Ok(()) => {
                        pass.used();
                        Ok(Taken { deadline, clock })
                    }
                    Err(Unsent { message, reason, .. }) => Err(SendError { message, reason }),
                }
            })),
            Err(Unsent { message, reason, .. }) => Err(never(message, reason)),
        }
    }

    fn enter(
        &self,
        target: &Target<'_, M>,
        header: Header,
        message: M,
        now: impl Fn() -> Moment,
    ) -> Result<(), Unsent<M>> {
        let inbox: &Arc<dyn Inbox<M>> = match target {
            Target::Life(inbox) => inbox,
            Target::Name(_, Some(inbox)) => inbox,
            Target::Name(_, None) => {
                return Err(Unsent::refused(header, message, target.absence()));
            }
            Target::Remote(route) => {
                let sent = route.try_send(header.clone(), message, now());
                return sent.map_err(|Untaken { message, reason, near }| Unsent {
                    header,
                    message,
                    reason,
                    near,
                });
            }
        };
        match inbox.vitals().try_enter() {
            Ok(()) => {
                inbox.push(header, self.grant.clone(), message);
                Ok(())
            }
            // A name outlives the life that ended just now.
            Err(Refusal::Stale { .. }) if matches!(target, Target::Name(..)) => {
                Err(Unsent::refused(header, message, target.absence()))
            }
            Err(reason) => Err(Unsent::refused(header, message, reason)),
        }
    }

    /// The slow path of a send: waits for a restart, and then for room, until the deadline.
    async fn enter_later(
        &self,
        target: &Target<'_, M>,
        clock: &Clock,
        deadline: Moment,
        mut unsent: Unsent<M>,
    ) -> Result<(), Unsent<M>> {
        loop {
            if let Some(near) = unsent.near.take() {
                // It's for an actor of this process, whose mailbox it waits for like any other message.
                let Unsent { header, message, .. } = unsent;
                let wait = Wait::RoomUntil(deadline);
                let sent = match near.send_now(header.clone(), message, wait) {
                    Ok(_taken) => Ok(()),
                    Err(later) => later.await.map(|_taken| ()),
                };
                return sent.map_err(|SendError { message, reason }| {
                    Unsent::refused(header, message, reason)
                });
            }
            let room = target.room(&unsent.message);
            match clock.before(deadline, room).await {
                Ok(Ok(Some(inbox))) => {
                    inbox.push(unsent.header, self.grant.clone(), unsent.message);
                    return Ok(());
                }
                // The link seems to have room; others may have been faster.
                Ok(Ok(None)) => {
                    match self.enter(target, unsent.header, unsent.message, || clock.now()) {
                        Err(again) if again.is_overload() && clock.now() < deadline => {
                            unsent = again;
                            // A link that is always ready must not keep this thread for itself.
                            tokio::task::yield_now().await;
                        }
                        sent => return sent,
                    }
                }
                Ok(Err(reason)) => return Err(Unsent { reason, ..unsent }),
                Err(_elapsed) => return Err(unsent),
            }
        }
    }
}

/// What a sender waits for. There is always an end to that, also without a deadline in the header.
#[derive(Clone, Copy)]
enum Wait {
    /// Room in the mailbox, and no more: once taken, the message is wanted for as long as its header
    /// says. What was told would otherwise be lost, unknown to anybody, behind work that takes long.
    Room,
    /// Room, for what is left of such a wait.
    RoomUntil(Moment),
    /// The answer: nobody wants the message handled once the caller has stopped waiting.
    Answer,
}

impl Wait {
    /// The header to send with, and when the sender stops waiting.
    fn bound(self, header: Header, now: Moment) -> (Header, Moment) {
        let default = match self {
            Self::Room | Self::Answer => now + CALL_DEADLINE,
            Self::RoomUntil(at) => at,
        };
        let deadline = header.deadline().unwrap_or(default);
        match self {
            Self::Room | Self::RoomUntil(_) => (header, deadline),
            Self::Answer => (header.until(deadline), deadline),
        }
    }
}

/// One use of a capability, given back unless the message was taken: also when the send is
/// cancelled while it waits.
struct Pass<'a>(Option<&'a Grant>);

impl Pass<'_> {
    fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(grant) = self.0 {
            grant.give_back_use();
        }
    }
}

/// Where a message goes, looked up once per send.
enum Target<'a, M> {
    Life(&'a Arc<dyn Inbox<M>>),
    Name(&'a dyn Resolve<M>, Option<Held<'a, M>>),
    Remote(&'a dyn RemoteRoute<M>),
}

/// An inbox that the address has found before, or that its name stands for just now.
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

impl<'a, M: Message> Target<'a, M> {
    /// The kernel's clock; an actor that was never started has none yet.
    fn clock(&self) -> Option<&'a Clock> {
        match self {
            Self::Life(inbox) => Some(&inbox.vitals().clock),
            Self::Name(slot, _) => slot.lineage().clock(),
            Self::Remote(route) => Some(route.clock()),
        }
    }

    fn absence(&self) -> Refusal {
        match self {
            Self::Name(slot, _) if slot.lineage().is_over() => Refusal::Stopped,
            _ => Refusal::Restarting,
        }
    }

    /// Waits for a place in a mailbox, and takes it; or until a link is worth a try with this message.
    fn room(&self, message: &M) -> Room<'_, M> {
        match self {
            Self::Life(inbox) => Box::pin(async {
                inbox.vitals().wait_for_room().await?;
                Ok(Some(Arc::clone(inbox)))
            }),
            Self::Name(slot, _) => Box::pin(async { await_room(*slot).await.map(Some) }),
            Self::Remote(route) => {
                let ready = route.ready(message);
                Box::pin(async {
                    ready.await;
                    Ok(None)
                })
            }
        }
    }
}

/// A wait for a place; it holds nothing of the message, which may not be `Sync`.
type Room<'a, M> = BoxFuture<'a, Result<Option<Arc<dyn Inbox<M>>>, Refusal>>;

/// A message that was taken, and what is needed to wait for its answer.
struct Taken<'a> {
    deadline: Moment,
    clock: &'a Clock,
}

/// A send that isn't done yet.
///
/// Boxed: a future is as large as all that it may await, and every handler that calls another actor
/// would hold the room for a wait that hardly ever happens.
type Later<'a, M> = BoxFuture<'a, Result<Taken<'a>, SendError<M>>>;

/// A send that is refused for good.
fn never<'a, M: Message>(message: M, reason: Refusal) -> Later<'a, M> {
    Box::pin(std::future::ready(Err(SendError { message, reason })))
}

/// A message that wasn't taken, with what is needed to try again.
struct Unsent<M> {
    header: Header,
    message: M,
    reason: Refusal,
    /// The actor that the placement has chosen, if it lives in this process.
    near: Option<Arc<Address<M>>>,
}

impl<M> Unsent<M> {
    fn refused(header: Header, message: M, reason: Refusal) -> Self {
        Self { header, message, reason, near: None }
    }

    fn is_overload(&self) -> bool {
        matches!(self.reason, Refusal::Overloaded { .. })
    }
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

    /// Archives `message` and sends it, and wants no reply.
    ///
    /// # Errors
    /// Says whether the message can't be archived or wasn't taken.
    pub fn notify(
        &self,
        header: Header,
        message: &W,
    ) -> impl Future<Output = Result<(), AskError>> + Send {
        let parcel = Parcel::archive(message);
        async move {
            // A future within would hold the message once more, and be moved with it.
            let request = Request { parcel: parcel?, replies: ReplySink::unheard() };
            match self.send_now(header, request, Wait::Room) {
                Ok(_taken) => Ok(()),
                Err(later) => Ok(later.await.map(drop).map_err(|unsent| unsent.reason)?),
            }
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
            Route::Name(..) => debug.field("name", &self.path()),
            Route::Remote(route) => debug.field("remote", &route.target()),
        };
        debug.field("grant", &self.grant).finish()
    }
}
