//! What a node offers to others: addresses by name, and who may ask them.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, AttenuateError, Down, Fall, Generation, Header, MessageId, Moment, Name, NameError,
    RawParcel, ReplySink, ReplyStream, Request, Restriction, StreamError, WireMessage, WireRequest,
    reply_stream,
};

use crate::identity::NodeId;
use crate::keyed::Keyed;
use crate::limits::{MAX_EXPORTS, MAX_KINDS_BESIDE};

/// The names that a node offers.
#[derive(Default)]
pub(crate) struct Exports {
    names: RwLock<HashMap<String, Export>>,
    /// How often they have changed.
    version: AtomicU64,
    services: OnceLock<Vec<Arc<dyn Service>>>,
    /// What peers have asked for with a key.
    pub(crate) keyed: Keyed,
}

/// What a node's names begin with that belong to the links themselves.
pub(crate) const RESERVED: &str = "neuroflow.";

/// What links do for one another, asked like an actor.
pub(crate) trait Service: Send + Sync {
    /// What this peer asks if it asks for this name, which begins with [`RESERVED`].
    fn serve(&self, name: &str, asker: &Asker<'_>) -> Option<Arc<dyn Exported>>;

    /// This peer was forgotten, and its links are gone.
    fn forget(&self, node: &NodeId);
}

#[derive(Clone)]
struct Export {
    /// All of it: what was exported first, and what takes other kinds of messages beside that.
    actor: Arc<dyn Exported>,
    first: Arc<dyn Exported>,
    beside: Vec<(MessageId, Arc<dyn Exported>)>,
    /// Its address for each kind of message that it takes.
    typed: Vec<(MessageId, Arc<dyn Any + Send + Sync>)>,
    allowed: Allowed,
    /// Who watches it watches another.
    passes: bool,
}

/// Which nodes may ask an exported actor.
///
/// ```
/// use neuroflow_transport::Allowed;
/// let allowed = Allowed::Role("worker".into());
/// assert_ne!(allowed, Allowed::Everyone);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allowed {
    /// Every node of the cluster.
    Everyone,
    /// Nodes whose certificate has this role.
    Role(String),
    /// These nodes.
    Nodes(Vec<NodeId>),
}

/// Why a name can't be exported.
///
/// ```
/// use neuroflow_transport::ExportError;
/// assert!(ExportError::TooMany { count: 9 }.to_string().contains('9'));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Not a name.
    #[error("the name isn't valid")]
    Name(#[from] NameError),
    /// A name of the links' own.
    #[error("names that begin with {RESERVED} belong to the links themselves")]
    Reserved,
    /// There is no such name to add something to.
    #[error("nothing is offered as {name:?} yet")]
    Unknown {
        /// The name.
        name: String,
    },
    /// As many kinds of messages as may be.
    #[error(
        "{name:?} takes {MAX_KINDS_BESIDE} kinds of messages beside its first; no more are allowed"
    )]
    TooManyKinds {
        /// The name.
        name: String,
    },
    /// As many names as may be.
    #[error("the node exports {count} names; {MAX_EXPORTS} are allowed")]
    TooMany {
        /// Names that it exports.
        count: usize,
    },
}

/// What an asker has found by a name.
pub(crate) struct Found {
    name: String,
    actor: Arc<dyn Exported>,
    version: u64,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) node: NodeId,
    pub(crate) roles: &'a [String],
}

impl Exports {
    pub(crate) fn insert<W: WireRequest>(
        &self,
        name: &str,
        address: Address<Request<W>>,
        allowed: Allowed,
        behind: Option<Behind>,
    ) -> Result<(), ExportError> {
        let name = Name::new(name)?.to_string();
        if name.starts_with(RESERVED) {
            return Err(ExportError::Reserved);
        }
        let mut exports = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if exports.len() >= MAX_EXPORTS && !exports.contains_key(&name) {
            return Err(ExportError::TooMany { count: exports.len() });
        }
        let typed = vec![typed(&address)];
        let (passes, typed_actor) = (behind.is_some(), exported(address));
        let actor = match behind {
            Some(behind) => Arc::new(Passing { actor: typed_actor, behind }) as _,
            None => typed_actor,
        };
        let (first, beside) = (Arc::clone(&actor), Vec::new());
        exports.insert(name, Export { actor, first, beside, typed, allowed, passes });
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Offers under a name that is offered already what takes messages of another kind.
    pub(crate) fn insert_beside<W: WireRequest>(
        &self,
        name: &str,
        address: Address<Request<W>>,
    ) -> Result<(), ExportError> {
        let mut exports = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let export = exports.get_mut(name);
        let export = export.ok_or_else(|| ExportError::Unknown { name: name.to_owned() })?;
        let kind = MessageId::of(W::NAME);
        let is_new = export.beside.iter().all(|(other, _)| *other != kind);
        if is_new && export.beside.len() >= MAX_KINDS_BESIDE {
            return Err(ExportError::TooManyKinds { name: name.to_owned() });
        }
        replace(&mut export.typed, typed(&address));
        replace(&mut export.beside, (kind, exported(address)));
        let (first, others) = (Arc::clone(&export.first), export.beside.clone());
        export.actor = Arc::new(Beside { first, others });
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str) -> bool {
        let mut exports = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let removed = exports.remove(name).is_some();
        self.version.fetch_add(1, Ordering::Release);
        removed
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = exports.keys().cloned().collect();
        names.sort();
        names
    }

    /// The actor of this name, if this node may ask it.
    pub(crate) fn find(&self, name: &str, asker: &Asker<'_>) -> Option<Arc<dyn Exported>> {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let Some(export) = exports.get(name) else {
            drop(exports);
            return self.service(name, asker);
        };
        let allowed = match &export.allowed {
            Allowed::Everyone => true,
            Allowed::Role(role) => asker.roles.contains(role),
            Allowed::Nodes(nodes) => nodes.contains(&asker.node),
        };
        allowed.then(|| Arc::clone(&export.actor))
    }

    /// The same for an asker that asks for one name again and again: `last` is what was found for it before.
    /// Rights that it has as a node don't change while it's connected.
    pub(crate) fn find_again(
        &self,
        name: &str,
        asker: &Asker<'_>,
        last: &mut Option<Found>,
    ) -> Option<Arc<dyn Exported>> {
        // Before the look: what changes meanwhile is looked at again.
        let version = self.version.load(Ordering::Acquire);
        if let Some(found) = last
            && found.version == version
            && found.name == name
        {
            return Some(Arc::clone(&found.actor));
        }
        let actor = self.find(name, asker)?;
        // What a service gives for a name may be another thing each time, and counts while it's held.
        if !name.starts_with(RESERVED) {
            *last = Some(Found { name: name.to_owned(), actor: Arc::clone(&actor), version });
        }
        Some(actor)
    }

    fn service(&self, name: &str, asker: &Asker<'_>) -> Option<Arc<dyn Exported>> {
        if !name.starts_with(RESERVED) {
            return None;
        }
        self.services.get()?.iter().find_map(|service| service.serve(name, asker))
    }

    /// This peer was forgotten, and so is what the services know of it.
    pub(crate) fn forget(&self, node: &NodeId) {
        self.services.get().into_iter().flatten().for_each(|service| service.forget(node));
    }

    /// Messages that wait in the mailboxes of what is offered.
    pub(crate) fn waiting(&self) -> u32 {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = exports.values().map(|export| export.actor.waiting()).sum();
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// What the links do for one another; said once.
    pub(crate) fn offer(&self, services: Vec<Arc<dyn Service>>) {
        // Whoever makes the links says this, and nobody else.
        let _once = self.services.set(services).is_err();
    }

    /// The actor of this name, for this node's own use.
    pub(crate) fn owned(&self, name: &str) -> Option<Arc<dyn Exported>> {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        exports.get(name).map(|export| Arc::clone(&export.actor))
    }

    /// The address of this name as it was exported for messages of this kind, for this node's own use. A name
    /// that takes no such message gives the address of another kind: who sends there is told so.
    pub(crate) fn typed(&self, name: &str, kind: MessageId) -> Option<Arc<dyn Any + Send + Sync>> {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let typed = &exports.get(name)?.typed;
        let taken = typed.iter().find(|(taken, _)| *taken == kind).or(typed.first());
        taken.map(|(_, address)| Arc::clone(address))
    }

    /// Whether who watches this name watches another actor than the one that is asked.
    pub(crate) fn passes(&self, name: &str) -> bool {
        let exports = self.names.read().unwrap_or_else(PoisonError::into_inner);
        exports.get(name).is_some_and(|export| export.passes)
    }

    /// The address of this name, for this node's own use.
    pub(crate) fn own<W: WireRequest>(&self, name: &str) -> Option<Address<Request<W>>> {
        self.typed(name, MessageId::of(W::NAME))?.downcast_ref().cloned()
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// An actor of this node as links know it: something that takes parcels.
pub(crate) trait Exported: Send + Sync {
    /// Validates the parcel, once, and puts it into the actor's mailbox. `now` is about this moment.
    fn deliver(&self, header: Header, parcel: RawParcel, wanted: bool, now: Moment) -> Delivery;

    /// The life that is there now.
    fn generation(&self) -> Option<Generation>;

    /// The same actor, with fewer rights.
    fn narrow(&self, _restriction: Restriction) -> Result<Arc<dyn Exported>, AttenuateError> {
        Err(AttenuateError::TooDeep)
    }

    /// Takes these rights back.
    fn revoke(&self) {}

    /// Messages that wait in its mailbox.
    fn waiting(&self) -> usize {
        0
    }

    /// This life of it alone; nothing if another is there, or none.
    fn in_life(&self, _life: Generation) -> Option<Arc<dyn Exported>> {
        None
    }

    /// Waits for the end of the life that is there now.
    fn down(&self) -> BoxFuture<'static, Down> {
        Box::pin(std::future::ready(Down::new(None, Fall::Absent)))
    }
}

/// What became of a message at its actor.
pub(crate) enum Delivery {
    Taken(Option<Box<dyn Source>>),
    /// The mailbox is full, or the actor is being restarted.
    Waiting(Waiting),
    Refused(StreamError),
}

/// Waits for room until the message's deadline.
pub(crate) type Waiting = BoxFuture<'static, Result<Option<Box<dyn Source>>, StreamError>>;

/// Where replies come from.
pub(crate) trait Source: Send {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawParcel, StreamError>>>;

    /// The caller has said that it wants no more; dropping says only that nobody reads here.
    fn cancelled(&mut self) {}
}

struct Typed<W: WireRequest>(Address<Request<W>>);

/// How what is asked behind an actor ends, each time that somebody watches the actor's name.
pub(crate) type Behind = Arc<dyn Fn() -> BoxFuture<'static, Down> + Send + Sync>;

/// An actor that passes what it's asked on: who watches it watches that other one.
struct Passing {
    actor: Arc<dyn Exported>,
    behind: Behind,
}

impl Exported for Passing {
    fn deliver(&self, header: Header, parcel: RawParcel, wanted: bool, now: Moment) -> Delivery {
        self.actor.deliver(header, parcel, wanted, now)
    }

    fn generation(&self) -> Option<Generation> {
        self.actor.generation()
    }

    fn narrow(&self, restriction: Restriction) -> Result<Arc<dyn Exported>, AttenuateError> {
        let (actor, behind) = (self.actor.narrow(restriction)?, Arc::clone(&self.behind));
        Ok(Arc::new(Self { actor, behind }))
    }

    fn revoke(&self) {
        self.actor.revoke();
    }

    fn waiting(&self) -> usize {
        self.actor.waiting()
    }

    fn in_life(&self, life: Generation) -> Option<Arc<dyn Exported>> {
        let (actor, behind) = (self.actor.in_life(life)?, Arc::clone(&self.behind));
        Some(Arc::new(Self { actor, behind }))
    }

    fn down(&self) -> BoxFuture<'static, Down> {
        (self.behind)()
    }
}

/// An actor that takes messages of other kinds, too. All kinds wait in one mailbox, and have one life.
struct Beside {
    first: Arc<dyn Exported>,
    others: Vec<(MessageId, Arc<dyn Exported>)>,
}

impl Beside {
    /// The same of each of them.
    fn each<E>(
        &self,
        of: impl Fn(&dyn Exported) -> Result<Arc<dyn Exported>, E>,
    ) -> Result<Arc<dyn Exported>, E> {
        let first = of(&*self.first)?;
        let others = self.others.iter().map(|(kind, other)| Ok((*kind, of(&**other)?)));
        Ok(Arc::new(Self { others: others.collect::<Result<_, E>>()?, first }))
    }
}

impl Exported for Beside {
    fn deliver(&self, header: Header, parcel: RawParcel, wanted: bool, now: Moment) -> Delivery {
        let taken = self.others.iter().find(|(kind, _)| parcel.message() == *kind);
        let to = taken.map_or(&self.first, |(_, other)| other);
        to.deliver(header, parcel, wanted, now)
    }

    fn generation(&self) -> Option<Generation> {
        self.first.generation()
    }

    fn narrow(&self, restriction: Restriction) -> Result<Arc<dyn Exported>, AttenuateError> {
        self.each(|one| one.narrow(restriction.clone()))
    }

    fn revoke(&self) {
        self.first.revoke();
        self.others.iter().for_each(|(_, other)| other.revoke());
    }

    fn waiting(&self) -> usize {
        self.first.waiting()
    }

    fn in_life(&self, life: Generation) -> Option<Arc<dyn Exported>> {
        self.each(|one| one.in_life(life).ok_or(())).ok()
    }

    fn down(&self) -> BoxFuture<'static, Down> {
        self.first.down()
    }
}

/// Puts one of a kind in the place of another of that kind, or behind all.
fn replace<T>(those: &mut Vec<(MessageId, T)>, (kind, one): (MessageId, T)) {
    match those.iter_mut().find(|(other, _)| *other == kind) {
        Some((_, other)) => *other = one,
        None => those.push((kind, one)),
    }
}

fn typed<W: WireRequest>(address: &Address<Request<W>>) -> (MessageId, Arc<dyn Any + Send + Sync>) {
    (MessageId::of(W::NAME), Arc::new(address.clone()))
}

/// An actor as links know it.
pub(crate) fn exported<W: WireRequest>(address: Address<Request<W>>) -> Arc<dyn Exported> {
    Arc::new(Typed(address))
}

impl<W: WireRequest> Exported for Typed<W> {
    fn deliver(&self, header: Header, parcel: RawParcel, wanted: bool, now: Moment) -> Delivery {
        let Ok(parcel) = parcel.open::<W>() else {
            return Delivery::Refused(StreamError::Mismatch);
        };
        let (replies, source) = if wanted {
            let (replies, stream) = reply_stream();
            (replies, Some(Box::new(Replies::<W>(stream)) as Box<dyn Source>))
        } else {
            (ReplySink::unheard(), None)
        };
        let request = Request { parcel, replies };
        match self.0.try_tell_at(now, header.clone(), request) {
            Ok(()) => Delivery::Taken(source),
            Err(unsent) if unsent.reason.is_retryable() => {
                let address = self.0.clone();
                Delivery::Waiting(Box::pin(async move {
                    match address.tell(header, unsent.message).await {
                        Ok(()) => Ok(source),
                        Err(unsent) => Err(StreamError::from(&unsent.reason)),
                    }
                }))
            }
            Err(unsent) => Delivery::Refused(StreamError::from(&unsent.reason)),
        }
    }

    fn generation(&self) -> Option<Generation> {
        self.0.generation()
    }

    fn narrow(&self, restriction: Restriction) -> Result<Arc<dyn Exported>, AttenuateError> {
        Ok(exported(self.0.attenuate(restriction)?))
    }

    fn revoke(&self) {
        // An address that wasn't narrowed is never given out.
        let _own = self.0.revoke().is_err();
    }

    fn waiting(&self) -> usize {
        self.0.mailbox_depth()
    }

    fn in_life(&self, life: Generation) -> Option<Arc<dyn Exported>> {
        let address = self.0.this_life().ok()?;
        (address.generation() == Some(life)).then(|| Arc::new(Self(address)) as Arc<dyn Exported>)
    }

    fn down(&self) -> BoxFuture<'static, Down> {
        Box::pin(self.0.down())
    }
}

struct Replies<W: WireRequest>(ReplyStream<neuroflow_kernel::Parcel<W::Reply>>);

impl<W: WireRequest> Source for Replies<W>
where
    W::Reply: WireMessage,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawParcel, StreamError>>> {
        // The future holds nothing but its place in the stream, which is there again next time.
        let next = pin!(self.0.next());
        next.poll(cx).map(|item| item.map(|item| item.map(|reply| reply.as_raw().clone())))
    }
}
