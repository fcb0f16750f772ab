//! The port for links: how an address leads to an actor on another node.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::address::{Address, Refusal, SendError};
use crate::clock::{Clock, Moment};
use crate::header::Header;
use crate::id::Generation;
use crate::message::{Request, WireMessage, WireRequest};
use crate::monitor::{Down, Fall};
use crate::parcel::{Parcel, ParcelError, RawParcel};
use crate::reply::{ReplySink, SinkError, StreamError};

/// An agent's name in the cluster: `agent://<node or *>/<name>`, and `#<generation>` behind it for
/// one life of it.
///
/// ```
/// let target: neuroflow_kernel::RemoteTarget = "agent://*/echo".parse()?;
/// assert_eq!((target.node(), target.name()), (None, "echo"));
/// let life: neuroflow_kernel::RemoteTarget = "agent://a/echo#2".parse()?;
/// assert_eq!(life.generation().map(|life| life.get()), Some(2));
/// assert_eq!(life.to_string(), "agent://a/echo#2");
/// # Ok::<(), neuroflow_kernel::RemoteError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteTarget {
    node: Option<String>,
    name: String,
    generation: u32,
}

impl RemoteTarget {
    /// The node, or nothing if the placement may choose.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The actor's name there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The life that it names, if it names one.
    pub fn generation(&self) -> Option<Generation> {
        (self.generation != 0).then(|| Generation::from_number(self.generation))
    }

    /// The same actor on this node.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// The same actor in this life alone: a restart makes it stale.
    #[must_use]
    pub fn in_life(mut self, generation: Generation) -> Self {
        self.generation = generation.get();
        self
    }
}

impl std::str::FromStr for RemoteTarget {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let malformed = || RemoteError::MalformedTarget { text: text.to_owned() };
        let (node, name) = text
            .strip_prefix("agent://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(malformed)?;
        let (name, generation) = match name.split_once('#') {
            Some((name, generation)) => (name, generation.parse().ok().ok_or_else(malformed)?),
            None => (name, 0),
        };
        if node.is_empty() || crate::name::Name::new(name).is_err() {
            return Err(malformed());
        }
        let node = (node != "*").then(|| node.to_owned());
        Ok(Self { node, name: name.to_owned(), generation })
    }
}

impl fmt::Display for RemoteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent://{}/{}", self.node.as_deref().unwrap_or("*"), self.name)?;
        match self.generation {
            0 => Ok(()),
            generation => write!(f, "#{generation}"),
        }
    }
}

/// Where a port sends a message whose address leaves it the choice.
///
/// ```
/// use neuroflow_kernel::{Chosen, RemoteTarget};
/// let target: RemoteTarget = "agent://*/echo".parse()?;
/// assert!(matches!(Chosen::There(target.on_node("a")), Chosen::There(_)));
/// # Ok::<(), neuroflow_kernel::RemoteError>(())
/// ```
#[derive(Debug)]
pub enum Chosen {
    /// To an actor of this process: its `Address<Request<W>>`. The message goes straight into its mailbox.
    Here(Arc<dyn Any + Send + Sync>),
    /// To this actor on another node, by [`RemotePort::send`].
    There(RemoteTarget),
}

/// What a link must provide.
///
/// `send` is called with bytes that are already archived; the link puts them on the wire as they
/// are. Replies come back through the [`RawReplies`]; dropping the last of it unfinished tells the
/// caller that something is missing. When [`RawReplies::closed`] is ready the caller has gone, and
/// the link cancels.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_kernel::{Address, RemotePort, RemoteTarget, Request, WireRequest};
/// fn far<W: WireRequest>(link: Arc<dyn RemotePort>, to: RemoteTarget) -> Address<Request<W>> {
///     Address::remote(link, to)
/// }
/// ```
pub trait RemotePort: Send + Sync + 'static {
    /// Chooses where a message goes, for each try to send it and for each wait in between; nothing if the target
    /// says it. `affinity` is what the message belongs to ([`WireRequest::affinity`]): whoever sends it needn't
    /// validate it to know.
    fn choose(&self, _target: &RemoteTarget, _affinity: Option<&str>) -> Option<Chosen> {
        None
    }

    /// A message is put into the mailbox of the actor of this process that the port has chosen: once for each
    /// message, which counts it where `send` doesn't see it.
    fn stays(&self) {}

    /// Puts a request on the wire if the link's credit allows it now. The sender's capability was checked
    /// before, and its budget is in the header. `now` is this moment: whoever sends has looked at the clock
    /// already, which costs as much as a frame's header.
    ///
    /// # Errors
    /// Drops `replies` and says why: whoever keeps them has taken the request.
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError>;

    /// Waits until a send of so many bytes to `target` is worth another try.
    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()>;

    /// Waits until the actor there has ended, or it can't be known any more whether it has. Dropping
    /// the future ends the watch. A port without links knows at once that it can't.
    fn down<'a>(&'a self, _target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        Box::pin(std::future::ready(Down::new(None, Fall::Lost)))
    }

    /// The clock of the kernel that this link serves.
    fn clock(&self) -> &Clock;
}

/// Where a link delivers the replies of one request.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_kernel::{DeliverError, RawParcel, RawReplies};
/// fn last(replies: Arc<dyn RawReplies>, reply: RawParcel) -> Result<(), DeliverError> {
///     replies.deliver(reply)?;
///     replies.finish();
///     Ok(())
/// }
/// ```
pub trait RawReplies: Send + Sync {
    /// Validates a reply, once, and hands it to the caller.
    ///
    /// # Errors
    /// Says whether the bytes are wrong or the caller doesn't take them.
    fn deliver(&self, reply: RawParcel) -> Result<(), DeliverError>;

    /// Ready when a reply can be delivered, or the caller has gone. Wait for it before the next
    /// reply is read from the wire, so that a slow caller slows its peer down.
    fn room(&self) -> BoxFuture<'_, ()>;

    /// Ends the stream in good order, once this is dropped.
    fn finish(&self);

    /// Ends the stream early and says why, once this is dropped.
    fn fail(&self, why: StreamError);

    /// Whether the caller wants replies at all.
    fn is_wanted(&self) -> bool;

    /// Whether the caller has gone.
    fn is_closed(&self) -> bool;

    /// Ready when the caller has gone.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// Why a reply wasn't delivered.
///
/// ```
/// assert_eq!(neuroflow_kernel::DeliverError::Gone.to_string(), "the caller has gone");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverError {
    /// The bytes aren't a reply to this request.
    #[error("the reply isn't valid")]
    Invalid(#[from] ParcelError),
    /// The caller takes replies more slowly than they come; try again after
    /// [`RawReplies::room`].
    #[error("the caller doesn't keep up")]
    Full,
    /// Nobody waits any more.
    #[error("the caller has gone")]
    Gone,
}

/// Why a link doesn't take a request.
///
/// ```
/// use neuroflow_kernel::{RemoteError, RemoteTarget};
/// let wrong = "http://node/echo".parse::<RemoteTarget>().unwrap_err();
/// assert!(matches!(wrong, RemoteError::MalformedTarget { .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Not of the form `agent://<node or *>/<name>`.
    #[error("{text:?} isn't of the form agent://<node or *>/<name>")]
    MalformedTarget {
        /// What was given.
        text: String,
    },
    /// The address names a life that is over, of the actor or of its node.
    #[error("life {generation} of {target} is over")]
    Stale {
        /// Where the request was to go.
        target: String,
        /// The life that the address names.
        generation: Generation,
    },
    /// The link's credit is used up.
    #[error("the link to {target} is saturated")]
    Saturated {
        /// Where the request was to go.
        target: String,
    },
    /// This build or configuration has no links to other nodes.
    #[error("this node has no links to others, so {target} can't be reached")]
    Unsupported {
        /// Where the request was to go.
        target: String,
    },
    /// No node that is there offers it.
    #[error("no node of the cluster that is there and takes work offers {target}")]
    Unplaced {
        /// Where the request was to go.
        target: String,
    },
    /// No node answers for it.
    #[error("no node answers for {target}")]
    Unreachable {
        /// Where the request was to go.
        target: String,
    },
}

/// A message that a way to a remote actor hasn't taken.
pub(crate) struct Untaken<M> {
    pub(crate) message: M,
    pub(crate) reason: Refusal,
    /// The actor that it was for, if that lives in this process.
    pub(crate) near: Option<Arc<Address<M>>>,
}

/// A typed way to a remote actor.
pub(crate) trait RemoteRoute<M>: Send + Sync {
    fn try_send(&self, header: Header, message: M, now: Moment) -> Result<(), Untaken<M>>;
    /// Waits until sending this message is worth another try.
    fn ready(&self, message: &M) -> BoxFuture<'_, ()>;
    fn down(&self) -> BoxFuture<'_, Down>;
    fn clock(&self) -> &Clock;
    fn target(&self) -> &RemoteTarget;
}

impl<W: WireRequest> Address<Request<W>> {
    /// The address of an actor behind a link.
    pub fn remote(port: Arc<dyn RemotePort>, target: RemoteTarget) -> Self {
        Self::of_remote(Arc::new(Remote { port, target, unheard: Arc::new(Unheard) }))
    }
}

struct Remote {
    port: Arc<dyn RemotePort>,
    target: RemoteTarget,
    /// What links get for the replies of messages that want none.
    unheard: Arc<Unheard>,
}

fn refusal(error: RemoteError) -> Refusal {
    match error {
        RemoteError::Saturated { .. } => Refusal::Overloaded { capacity: 0 },
        RemoteError::Stale { generation, .. } => Refusal::Stale { generation },
        error => Refusal::Unreachable(Arc::new(error)),
    }
}

impl<W: WireRequest> RemoteRoute<Request<W>> for Remote {
    fn try_send(
        &self,
        header: Header,
        message: Request<W>,
        now: Moment,
    ) -> Result<(), Untaken<Request<W>>> {
        let affinity = W::affinity(message.parcel.get());
        let chosen = match self.port.choose(&self.target, affinity) {
            Some(Chosen::Here(actor)) => {
                self.port.stays();
                return here(actor, header, message, now);
            }
            Some(Chosen::There(target)) => Some(target),
            None => None,
        };
        let target = chosen.as_ref().unwrap_or(&self.target);
        let Request { parcel, replies } = message;
        if !replies.is_heard() {
            let unheard = Arc::clone(&self.unheard) as Arc<dyn RawReplies>;
            let raw = parcel.as_raw().clone();
            let sent = self.port.send(target, &header, raw, unheard, now);
            return sent.map_err(|error| Untaken {
                message: Request { parcel, replies },
                reason: refusal(error),
                near: None,
            });
        }
        let replies = Arc::new(TypedReplies::<W::Reply>(replies));
        let raw = Arc::clone(&replies) as Arc<dyn RawReplies>;
        match self.port.send(target, &header, parcel.as_raw().clone(), raw, now) {
            Ok(()) => Ok(()),
            Err(error) => {
                let reason = refusal(error);
                // The port let go of its half, so this one is the last.
                let replies = match Arc::try_unwrap(replies) {
                    Ok(TypedReplies(replies)) => replies,
                    Err(_kept) => crate::reply::reply_stream().0,
                };
                Err(Untaken { message: Request { parcel, replies }, reason, near: None })
            }
        }
    }

    fn ready(&self, message: &Request<W>) -> BoxFuture<'_, ()> {
        let bytes = message.parcel.as_raw().as_bytes().len();
        match self.port.choose(&self.target, W::affinity(message.parcel.get())) {
            None => self.port.ready(&self.target, bytes),
            Some(Chosen::There(target)) => {
                Box::pin(async move { self.port.ready(&target, bytes).await })
            }
            // The next try finds its mailbox, and waits there.
            Some(Chosen::Here(_)) => Box::pin(std::future::ready(())),
        }
    }

    fn down(&self) -> BoxFuture<'_, Down> {
        self.port.down(&self.target)
    }

    fn clock(&self) -> &Clock {
        self.port.clock()
    }

    fn target(&self) -> &RemoteTarget {
        &self.target
    }
}

/// Sends to an actor of this process.
fn here<W: WireRequest>(
    actor: Arc<dyn Any + Send + Sync>,
    header: Header,
    message: Request<W>,
    now: Moment,
) -> Result<(), Untaken<Request<W>>> {
    let Ok(near) = actor.downcast::<Address<Request<W>>>() else {
        // As an actor of another node would say it.
        message.replies.mark_failed(StreamError::Mismatch);
        return Ok(());
    };
    match near.try_tell_at(now, header, message) {
        Ok(()) => Ok(()),
        Err(SendError { message, reason }) => Err(Untaken { message, reason, near: Some(near) }),
    }
}

/// The replies to a message that has none: takes what it's told, as [`ReplySink::unheard`] does.
///
/// ```
/// use neuroflow_kernel::{RawReplies, Unheard};
/// assert!(!Unheard.is_wanted() && !Unheard.is_closed());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unheard;

impl RawReplies for Unheard {
    fn deliver(&self, _: RawParcel) -> Result<(), DeliverError> {
        Ok(())
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn finish(&self) {}

    fn fail(&self, _: StreamError) {}

    fn is_wanted(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct TypedReplies<R>(ReplySink<Parcel<R>>);

impl<R: WireMessage> RawReplies for TypedReplies<R> {
    fn deliver(&self, reply: RawParcel) -> Result<(), DeliverError> {
        self.0.try_send(reply.open::<R>()?).map_err(|refused| match refused {
            SinkError::Full(_) => DeliverError::Full,
            SinkError::Closed(_) => DeliverError::Gone,
        })
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.room())
    }

    fn finish(&self) {
        self.0.mark_finished();
    }

    fn fail(&self, why: StreamError) {
        self.0.mark_failed(why);
    }

    fn is_wanted(&self) -> bool {
        self.0.is_heard()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.closed())
    }
}
