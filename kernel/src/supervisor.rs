//! The supervisor: an actor that starts, watches and restarts others as its policy says.

mod charges;
mod server;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::actor::{Actor, Context, Spawn, StartError};
use crate::address::{Address, CallError};
use crate::core::Core;
use crate::event::PostMortem;
use crate::header::Header;
use crate::id::ActorId;
use crate::message::Message;
use crate::name::{Name, NameError, Path};
use crate::registry::Registry;
use crate::reply::Reply;
use crate::restart::{Intensity, Restart, RestartPolicy};
use crate::slot::{Lineage, Resolve, Slot};

pub(crate) use self::server::SupervisorActor;

/// How a supervisor starts one child, again and again.
///
/// ```
/// # use std::convert::Infallible;
/// # use neuroflow_kernel::{Actor, Context, Message};
/// # struct Tick;
/// # impl Message for Tick { fn name(&self) -> &'static str { "tick" } }
/// # struct Ticker;
/// # impl Actor for Ticker {
/// #     type Message = Tick; type Error = Infallible; const KIND: &'static str = "ticker";
/// #     async fn handle(&mut self, _: Tick, _: &mut Context<Tick>) -> Result<(), Infallible> { Ok(()) }
/// # }
/// use neuroflow_kernel::{ChildSpec, Restart};
/// let (spec, ticker) = ChildSpec::new("ticker", || Ticker)?;
/// let spec = spec.restart(Restart::Transient).mailbox(64);
/// assert!(ticker.generation().is_none()); // not started yet
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    name: Name,
    restart: Restart,
    options: Spawn,
    starter: Arc<dyn Starter>,
    /// The children that a supervisor starts itself: their names end with its own.
    own: Own,
}

/// The children that a supervisor starts itself, in this order, in every life.
#[derive(Clone, Default)]
pub(crate) struct Own(Arc<RwLock<Vec<ChildSpec>>>);

impl Own {
    /// Adds one. Of its name there is no other: one that has ended by itself makes room for it.
    fn add(&self, spec: ChildSpec) {
        let mut own = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let former = own.iter().position(|known| known.name == spec.name);
        let former = former.map(|at| own.remove(at));
        own.push(spec);
        drop(own);
        // What ends with it is code of others.
        drop(former);
    }

    fn remove(&self, name: &Name) {
        let mut own = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let former = own.iter().position(|known| known.name == *name).map(|at| own.remove(at));
        drop(own);
        drop(former);
    }

    /// Those of this moment. Not looked at under the lock: what ends with them is code of others.
    fn all(&self) -> Vec<ChildSpec> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Vec<ChildSpec>> for Own {
    fn from(children: Vec<ChildSpec>) -> Self {
        Self(Arc::new(RwLock::new(children)))
    }
}

impl ChildSpec {
    /// A permanent child made by `factory`, and the address that will follow its name.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn new<A: Actor>(
        name: &str,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Result<(Self, Address<A::Message>), NameError> {
        let slot = Slot::new();
        let address = Address::of_name(Arc::clone(&slot) as Arc<dyn Resolve<A::Message>>);
        let starter = Arc::new(Typed { slot, factory: Arc::new(factory) });
        let spec = Self {
            name: Name::new(name)?,
            restart: Restart::default(),
            options: Spawn::default(),
            starter,
            own: Own::default(),
        };
        Ok((spec, address))
    }

    /// When it's started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Messages that may wait in its mailbox.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.options = self.options.mailbox(messages);
        self
    }

    /// The time that it gets to stop before it's killed.
    #[must_use]
    pub fn stop_within(mut self, deadline: Duration) -> Self {
        self.options = self.options.stop_within(deadline);
        self
    }

    /// The child's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// No further life will follow, here and below: whoever waits for one is told so.
    fn close(&self) {
        self.starter.lineage().close();
        self.own.all().iter().for_each(Self::close);
    }

    /// Takes the name at `path` out of the registry, and those below.
    fn withdraw(&self, registry: &Registry, path: &Path) {
        registry.remove(path, self.starter.lineage());
        for child in self.own.all() {
            if let Ok(path) = path.join(&child.name) {
                child.withdraw(registry, &path);
            }
        }
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type Starting<'a> = BoxFuture<'a, Result<ActorId, StartError>>;

/// Starts a life of some type of actor.
trait Starter: Send + Sync {
    fn start<'a>(
        &'a self,
        context: &'a mut Context<SupervisorCommand>,
        name: Name,
        options: Spawn,
    ) -> Starting<'a>;
    fn register(&self, core: &Core, path: Path);
    fn lineage(&self) -> &Arc<Lineage>;
    fn kind(&self) -> &'static str;
}

struct Typed<A: Actor, F> {
    slot: Arc<Slot<A::Message>>,
    factory: Arc<F>,
}

impl<A: Actor, F: Fn() -> A + Send + Sync + 'static> Starter for Typed<A, F> {
    fn start<'a>(
        &'a self,
        context: &'a mut Context<SupervisorCommand>,
        name: Name,
        options: Spawn,
    ) -> Starting<'a> {
        Box::pin(async move {
            let lineage = Arc::clone(self.slot.lineage());
            let factory = Arc::clone(&self.factory);
            let make = Box::new(move || factory());
            let inbox = context.spawn_with(name, make, options, lineage).await?;
            let id = inbox.vitals().id;
            self.slot.occupy(inbox);
            Ok(id)
        })
    }

    fn register(&self, core: &Core, path: Path) {
        core.registry.insert(path, Arc::clone(&self.slot) as Arc<dyn Resolve<A::Message>>);
    }

    fn lineage(&self) -> &Arc<Lineage> {
        self.slot.lineage()
    }

    fn kind(&self) -> &'static str {
        A::KIND
    }
}

/// What a supervisor can be told. Sent through [`Supervisor`] only.
pub(crate) struct SupervisorCommand(Command);

enum Command {
    Start { spec: Box<ChildSpec>, own: bool, reply: Reply<Result<(), StartError>> },
    Stop { name: Name, reply: Reply<bool> },
    Restart,
}

impl Message for SupervisorCommand {
    fn name(&self) -> &'static str {
        match self.0 {
            Command::Start { .. } => "start",
            Command::Stop { .. } => "stop",
            Command::Restart => "restart",
        }
    }
}

impl std::fmt::Debug for SupervisorCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SupervisorCommand").field(&self.name()).finish()
    }
}

/// The power over a supervisor: to start and stop children below it.
///
/// ```
/// # use std::convert::Infallible;
/// # use neuroflow_kernel::{Actor, Context, Message, Reply};
/// # struct Ask(Reply<u8>);
/// # impl Message for Ask { fn name(&self) -> &'static str { "ask" } }
/// # struct Seven;
/// # impl Actor for Seven {
/// #     type Message = Ask; type Error = Infallible; const KIND: &'static str = "seven";
/// #     async fn handle(&mut self, ask: Ask, _: &mut Context<Ask>) -> Result<(), Infallible> {
/// #         let _ = ask.0.send(7); Ok(())
/// #     }
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::{ChildSpec, Header, Kernel, RestartPolicy, Supervisor};
/// let kernel = Kernel::builder().start().await?;
/// let (agents, spec) = Supervisor::spec("agents", RestartPolicy::default(), Vec::new())?;
/// kernel.root().start(spec).await?;
/// let (spec, seven) = ChildSpec::new("seven", || Seven)?;
/// agents.start(spec).await?;
/// assert_eq!(seven.call(Header::new(), Ask).await?, 7);
/// kernel.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Supervisor {
    address: Address<SupervisorCommand>,
}

impl Supervisor {
    /// A supervisor as a child, with children that it starts itself, in this order, in every life.
    ///
    /// It may take as long to start and to stop as its children take, each within its own deadline.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn spec(
        name: &str,
        policy: RestartPolicy,
        children: Vec<ChildSpec>,
    ) -> Result<(Self, ChildSpec), NameError> {
        let own = Own::from(children);
        let children = own.clone();
        let (spec, address) =
            ChildSpec::new(name, move || SupervisorActor::new(policy, children.clone()))?;
        let options = spec.options.of_a_supervisor();
        Ok((Self { address }, ChildSpec { options, own, ..spec }))
    }

    pub(crate) fn of(address: Address<SupervisorCommand>) -> Self {
        Self { address }
    }

    /// Starts a child and waits for its `started` hook. It's lost if the supervisor itself fails.
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn start(&self, spec: ChildSpec) -> Result<(), StartError> {
        self.begin(spec, false).await
    }

    /// Like [`start`](Self::start), for a child that comes back with the supervisor: every later life starts
    /// it itself, behind those that it has so far. If it doesn't start now, it's none.
    ///
    /// ```
    /// use neuroflow_kernel::{ChildSpec, StartError, Supervisor};
    /// async fn both(team: &Supervisor, lasting: ChildSpec, passing: ChildSpec) -> Result<(), StartError> {
    ///     team.adopt(lasting).await?;
    ///     team.start(passing).await // a restart of the team ends it
    /// }
    /// ```
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn adopt(&self, spec: ChildSpec) -> Result<(), StartError> {
        self.begin(spec, true).await
    }

    async fn begin(&self, spec: ChildSpec, own: bool) -> Result<(), StartError> {
        let spec = Box::new(spec);
        self.address
            .call(Header::new(), |reply| SupervisorCommand(Command::Start { spec, own, reply }))
            .await?
    }

    /// Stops a child, waits until it has ended, and forgets it: no later life of the supervisor starts it
    /// either. Says whether there was one.
    ///
    /// # Errors
    /// Says why the supervisor didn't answer.
    pub async fn stop_child(&self, name: &Name) -> Result<bool, CallError> {
        let name = name.clone();
        self.address
            .call(Header::new(), |reply| SupervisorCommand(Command::Stop { name, reply }))
            .await
    }
}

/// Why a supervisor ended.
///
/// ```
/// use neuroflow_kernel::{Intensity, Name, SupervisorError};
/// let error = SupervisorError::TooManyRestarts {
///     child: Name::new("worker")?,
///     intensity: Intensity::default(),
///     last: None,
/// };
/// assert!(error.to_string().contains("worker"));
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// A child has failed more often than the policy allows.
    #[error(
        "{child} was to be restarted more than {} times in {:?}",
        intensity.restarts, intensity.within
    )]
    TooManyRestarts {
        /// The child that failed last.
        child: Name,
        /// What is allowed.
        intensity: Intensity,
        /// How it failed last.
        last: Option<Arc<PostMortem>>,
    },
    /// A child that the supervisor starts itself didn't start.
    #[error("{child} didn't start")]
    Child {
        /// The child.
        child: Name,
        /// Why.
        #[source]
        source: StartError,
    },
}
