//! Leases: at most one live instance of an actor per key in the whole cluster.
//!
//! Nodes don't agree among themselves: a `PostgreSQL` database does it for them. A lease has a term by the
//! database's clock; its holder counts from the moment at which it *asked*, by a clock of its own that never
//! jumps, and so is always done first. What a frozen process does when it thaws, the fence tells stores: a number
//! that rises with every holder.

#[cfg(not(feature = "postgres"))]
mod absent;
#[cfg(feature = "postgres")]
mod postgres;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Actor, Address, ChildSpec, Clock, Header, Message, NameError, StartError};
use tokio::sync::watch;

#[cfg(not(feature = "postgres"))]
use self::absent::{Database, Key};
#[cfg(feature = "postgres")]
use self::postgres::{Database, Key};
use self::server::{Keeping, SingletonServer};
use crate::journal::DatabaseError;
use crate::limits::{LEASE_KEY_BYTES, LEASE_TERM, LEASE_TERM_MAX, LEASE_TERM_MIN};

/// How often a key has changed hands: what a store compares, to refuse one that was holder before.
///
/// ```
/// use neuroflow_actors::Fence;
/// fn is_late(seen: Fence, writes: Fence) -> bool {
///     writes < seen
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(u64);

impl Fence {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Who holds a key.
///
/// ```
/// fn target(holder: &neuroflow_actors::Holder, agent: &str) -> String {
///     format!("agent://{}/{agent}", holder.node)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The node, as it calls itself.
    pub node: String,
    /// Its fence.
    pub fence: Fence,
}

/// Where the leases of a cluster are, and for how long one lasts.
///
/// ```
/// use std::time::Duration;
/// let leases = neuroflow_actors::LeasesConfig::new("postgres://me:secret@db/leases")
///     .term(Duration::from_secs(10));
/// assert!(!format!("{leases:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct LeasesConfig {
    url: String,
    term: Duration,
}

impl LeasesConfig {
    /// In this `PostgreSQL` database, for [`LEASE_TERM`](crate::limits::LEASE_TERM).
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), term: LEASE_TERM }
    }

    /// For this time: so long an instance isn't there after its node was lost.
    #[must_use]
    pub fn term(mut self, term: Duration) -> Self {
        self.term = term;
        self
    }

    /// For how long a lease lasts.
    pub fn lasts(&self) -> Duration {
        self.term
    }

    /// Opens them as a node of this name.
    ///
    /// # Errors
    /// Says that the database can't be reached or used.
    pub async fn open(&self, node: &str, clock: Clock) -> Result<Leases, LeaseError> {
        Leases::open(&self.url, node, clock).await
    }
}

impl fmt::Debug for LeasesConfig {
    /// Without the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasesConfig").field("term", &self.term).finish_non_exhaustive()
    }
}

/// The leases of a node; clones are the same.
///
/// ```
/// use neuroflow_actors::{LeaseError, Leases};
/// let nowhere = Leases::unconfigured();
/// # #[derive(Debug)] struct Ledger;
/// # impl neuroflow_kernel::Message for Ledger { fn name(&self) -> &'static str { "ledger" } }
/// # impl neuroflow_kernel::Actor for Ledger {
/// #     type Message = Ledger;
/// #     type Error = std::convert::Infallible;
/// #     const KIND: &'static str = "ledger";
/// #     async fn handle(&mut self, _: Ledger, _: &mut neuroflow_kernel::Context<Ledger>)
/// #         -> Result<(), Self::Error> { Ok(()) }
/// # }
/// let refused = nowhere.singleton("ledger", std::time::Duration::from_secs(15), |_fence| Ledger);
/// assert!(matches!(refused, Err(LeaseError::Unconfigured)));
/// ```
#[derive(Clone)]
pub struct Leases {
    database: Option<Arc<Database>>,
    takes: Takes,
}

/// Whether keys are taken now, and from whom although they are held.
#[derive(Clone)]
struct Takes {
    now: Arc<dyn Fn() -> bool + Send + Sync>,
    shut_out: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Takes {
    /// Takes a key that nobody holds who may.
    async fn take(
        &self,
        database: &Database,
        key: &Key,
        term: Duration,
    ) -> Result<Option<Fence>, DatabaseError> {
        if !(self.now)() {
            return Ok(None);
        }
        if let Some(fence) = database.take(key, term, None).await? {
            return Ok(Some(fence));
        }
        match database.holder(key.text()).await? {
            Some(holder) if (self.shut_out)(&holder.node) => {
                tracing::warn!(holder = holder.node, "a node that was shut out loses its key");
                database.take(key, term, Some(&holder.node)).await
            }
            _ => Ok(None),
        }
    }

    /// Who holds a key and may.
    async fn holder(
        &self,
        database: &Database,
        key: &str,
    ) -> Result<Option<Holder>, DatabaseError> {
        let holder = database.holder(key).await?;
        Ok(holder.filter(|holder| !(self.shut_out)(&holder.node)))
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Leases {
    /// Without a database: every use is refused and says so.
    pub fn unconfigured() -> Self {
        Self::of(None)
    }

    fn of(database: Option<Database>) -> Self {
        let takes = Takes { now: Arc::new(|| true), shut_out: Arc::new(|_| false) };
        Self { database: database.map(Arc::new), takes }
    }

    /// In a `PostgreSQL` database, as a node of this name.
    ///
    /// # Errors
    /// Says that the database can't be reached or used, or that this build lacks the feature `postgres`.
    pub async fn open(url: &str, node: &str, clock: Clock) -> Result<Self, LeaseError> {
        Ok(Self::of(Some(Database::open(url, node, clock).await?)))
    }

    /// The same, by which no key is taken while `takes` says no, because the node drains, say. What is held then
    /// is kept. It's asked at each try.
    #[must_use]
    pub fn taken_while(mut self, takes: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.takes.now = Arc::new(takes);
        self
    }

    /// The same, for which nodes that the cluster has shut out hold nothing: they still reach the database, and
    /// would keep their keys for as long as they run. One of which `shut_out` says so loses its key to whoever wants it;
    /// its instance ends when it hears that, after a third of a term at most; until then stores tell them apart by the fence.
    #[must_use]
    pub fn shutting_out(mut self, shut_out: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.takes.shut_out = Arc::new(shut_out);
        self
    }

    /// Whether keys are taken now.
    pub(crate) fn takes(&self) -> bool {
        (self.takes.now)()
    }

    /// In a database that is never there.
    #[cfg(all(test, feature = "postgres"))]
    pub(crate) fn nowhere(clock: Clock) -> Self {
        Self::of(Some(Database::nowhere(clock)))
    }

    /// An actor that lives on one node of the cluster at a time: a child that waits for the key, starts what
    /// `make` makes once this node holds it, and ends that before another node can hold it. Each node that
    /// may run it starts such a child. For sharded actors, start one per key when it's asked for, under a
    /// key such as `orders/17`.
    ///
    /// If the instance fails, or can't be made or started, the child lives on: it gives the key back, and tries
    /// for it again after a pause that grows from failure to failure ([`LEASE_BACKOFF`](crate::limits::LEASE_BACKOFF)),
    /// if no other node has it by then. If the instance stops in good order, so does the child.
    ///
    /// # Errors
    /// [`LeaseError::Unconfigured`] without a database; else says what is wrong with key or term.
    pub fn singleton<A: Actor>(
        &self,
        key: &str,
        term: Duration,
        make: impl Fn(Fence) -> A + Send + Sync + 'static,
    ) -> Result<(ChildSpec, Singleton<A::Message>), LeaseError> {
        let database = self.check(key, term)?;
        let (held, here) = watch::channel(None);
        let (held, make) = (Arc::new(held), Arc::new(make));
        // Names have no slashes, and a key may.
        let name = format!("singleton-{}", key.replace(['/', ' ', ':'], "."));
        let (leases, of_all, own) = (self.clone(), Arc::clone(&database), Key::new(key));
        let factory = move || {
            let wants = (leases.takes.clone(), own.clone(), term);
            SingletonServer::new(Arc::clone(&of_all), wants, Arc::clone(&make), Arc::clone(&held))
        };
        let (spec, keeper) = ChildSpec::new(&name, factory)?;
        let takes = self.takes.clone();
        Ok((spec, Singleton { database, takes, key: key.to_owned(), here, keeper }))
    }

    /// Whether such a key can be held for such a term.
    fn check(&self, key: &str, term: Duration) -> Result<Arc<Database>, LeaseError> {
        let database = self.database.clone().ok_or(LeaseError::Unconfigured)?;
        if key.is_empty() || key.len() > LEASE_KEY_BYTES {
            return Err(LeaseError::Key { bytes: key.len() });
        }
        if !(LEASE_TERM_MIN..=LEASE_TERM_MAX).contains(&term) {
            return Err(LeaseError::Term { term });
        }
        Ok(database)
    }

    /// The same, for whoever makes keys later.
    pub(crate) fn allow(&self, key: &str, term: Duration) -> Result<(), LeaseError> {
        self.check(key, term).map(drop)
    }

    /// Who holds a key now.
    ///
    /// # Errors
    /// [`LeaseError::Unconfigured`] without a database; else says that it can't be asked.
    pub async fn holder(&self, key: &str) -> Result<Option<Holder>, LeaseError> {
        let database = self.database.as_ref().ok_or(LeaseError::Unconfigured)?;
        Ok(self.takes.holder(database, key).await?)
    }
}

/// One key, as its users see it.
///
/// ```
/// use neuroflow_actors::{LeaseError, Place, Singleton};
/// use neuroflow_kernel::Message;
/// async fn is_here<M: Message>(ledger: &Singleton<M>) -> Result<bool, LeaseError> {
///     Ok(matches!(ledger.place().await?, Place::Here(_)))
/// }
/// ```
pub struct Singleton<M: Message> {
    database: Arc<Database>,
    takes: Takes,
    key: String,
    here: watch::Receiver<Option<(Fence, Address<M>)>>,
    keeper: Address<Keeping>,
}

/// Where the one instance lives.
///
/// ```
/// use neuroflow_actors::Place;
/// fn is_anywhere<M: neuroflow_kernel::Message>(place: &Place<M>) -> bool {
///     !matches!(place, Place::Nowhere)
/// }
/// ```
#[non_exhaustive]
pub enum Place<M: Message> {
    /// In this process. The address is of this life alone: it ends with the lease.
    Here(Address<M>),
    /// On another node.
    There(Holder),
    /// Nowhere, right now.
    Nowhere,
}

impl<M: Message> fmt::Debug for Singleton<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singleton").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<M: Message> fmt::Debug for Place<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(address) => f.debug_tuple("Here").field(address).finish(),
            Self::There(holder) => f.debug_tuple("There").field(holder).finish(),
            Self::Nowhere => f.write_str("Nowhere"),
        }
    }
}

impl<M: Message> Clone for Singleton<M> {
    fn clone(&self) -> Self {
        let (database, takes) = (Arc::clone(&self.database), self.takes.clone());
        let (here, keeper) = (self.here.clone(), self.keeper.clone());
        Self { database, takes, key: self.key.clone(), here, keeper }
    }
}

impl<M: Message> Singleton<M> {
    /// The instance, if it's in this process now.
    pub fn here(&self) -> Option<(Fence, Address<M>)> {
        self.here.borrow().clone()
    }

    /// Where the instance lives now.
    ///
    /// # Errors
    /// Says that the database can't be asked.
    pub async fn place(&self) -> Result<Place<M>, LeaseError> {
        if let Some((_, address)) = self.here() {
            return Ok(Place::Here(address));
        }
        Ok(match self.takes.holder(&self.database, &self.key).await? {
            Some(holder) => Place::There(holder),
            None => Place::Nowhere,
        })
    }

    /// Waits until this node holds the key.
    pub async fn held(&mut self) -> Option<(Fence, Address<M>)> {
        let held = self.here.wait_for(Option::is_some).await.ok()?;
        held.clone()
    }

    /// Whether its keeper lives no more, nor will again.
    pub(crate) fn is_over(&self) -> bool {
        self.here.has_changed().is_err()
    }

    /// Has its keeper end by itself, as one that failed may not, and waits until it has: however long it takes to
    /// give the key back, its supervisor goes on with others.
    pub(crate) async fn end(&self) {
        let down = self.keeper.down();
        if self.keeper.tell(Header::new(), Keeping::End).await.is_ok() {
            down.await;
        }
    }
}

/// Why there is no lease.
///
/// ```
/// use neuroflow_actors::LeaseError;
/// assert!(LeaseError::Unconfigured.to_string().contains("PostgreSQL"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Nobody who could decide.
    #[error(
        "one instance per cluster needs a database that decides who has it, and none is configured: \
         open the leases with the URL of a PostgreSQL database"
    )]
    Unconfigured,
    /// This build has no databases.
    #[error(
        "leases are kept in a PostgreSQL database, and this build doesn't have the feature postgres; \
         build it with that feature"
    )]
    Unsupported,
    /// The database can't be used.
    #[error("the database of the leases can't be used")]
    Database(#[from] DatabaseError),
    /// The key is none, or too long.
    #[error("a key has 1 to {LEASE_KEY_BYTES} bytes, and this one has {bytes}")]
    Key {
        /// Its bytes.
        bytes: usize,
    },
    /// The key makes no name for an actor.
    #[error("the key makes no name for an actor: letters, digits, and /.:_- are allowed")]
    Name(#[from] NameError),
    /// A term that isn't one.
    #[error("a term is {LEASE_TERM_MIN:?} to {LEASE_TERM_MAX:?}, and this one is {term:?}")]
    Term {
        /// As asked for.
        term: Duration,
    },
}

/// Why the keeper of a key ends, and is started anew. Its instance's failure is no such reason.
///
/// ```
/// use neuroflow_actors::SingletonError;
/// assert!(SingletonError::NoRoom.to_string().contains("keeper"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SingletonError {
    /// The instance can't be a child.
    #[error("the instance can't be a child")]
    Start(#[from] StartError),
    /// The keeper has no room for its task.
    #[error("the keeper of the key has no room for a task")]
    NoRoom,
}
