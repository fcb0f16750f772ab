//! The supervisor: an actor that starts, watches and restarts others as its policy says.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Actor, Context, Ended, Ending, Spawn, StartError};
use crate::address::{Address, CallError};
use crate::clock::Moment;
use crate::core::Core;
use crate::event::{Lifecycle, PostMortem};
use crate::header::Header;
use crate::id::ActorId;
use crate::limits::MAX_CHILDREN;
use crate::mailbox::{Lineage, Resolve, Slot};
use crate::message::Message;
use crate::name::{Name, NameError, Path};
use crate::reply::Reply;
use crate::restart::{
    Decision, ExitKind, Intensity, Restart, RestartHistory, RestartPolicy, decide,
};

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
        let starter = Arc::new(Typed { slot, factory });
        let spec = Self {
            name: Name::new(name)?,
            restart: Restart::default(),
            options: Spawn::default(),
            starter,
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

type Starting<'a> = Pin<Box<dyn Future<Output = Result<ActorId, StartError>> + Send + 'a>>;

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
    factory: F,
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
            let inbox = context.spawn_with(name, (self.factory)(), options, lineage).await?;
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
    Start { spec: Box<ChildSpec>, reply: Reply<Result<(), StartError>> },
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
    /// # Errors
    /// Says what is wrong with the name.
    pub fn spec(
        name: &str,
        policy: RestartPolicy,
        children: Vec<ChildSpec>,
    ) -> Result<(Self, ChildSpec), NameError> {
        let (spec, address) =
            ChildSpec::new(name, move || SupervisorActor::new(policy, children.clone()))?;
        Ok((Self { address }, spec))
    }

    pub(crate) fn of(address: Address<SupervisorCommand>) -> Self {
        Self { address }
    }

    /// Starts a child and waits for its `started` hook. It's lost if the supervisor itself fails.
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn start(&self, spec: ChildSpec) -> Result<(), StartError> {
        let spec = Box::new(spec);
        self.address
            .call(Header::new(), |reply| SupervisorCommand(Command::Start { spec, reply }))
            .await?
    }

    /// Stops a child, waits until it has ended, and forgets it. Says whether there was one.
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

pub(crate) struct SupervisorActor {
    policy: RestartPolicy,
    own: Vec<ChildSpec>,
    history: RestartHistory,
    children: Vec<Charge>,
}

/// A child in a supervisor's charge.
struct Charge {
    spec: ChildSpec,
    state: State,
    own: bool,
}

enum State {
    Alive(ActorId),
    Down { due: Moment },
}

impl SupervisorActor {
    pub(crate) fn new(policy: RestartPolicy, own: Vec<ChildSpec>) -> Self {
        Self { policy, own, history: RestartHistory::default(), children: Vec::new() }
    }

    async fn add(
        &mut self,
        spec: ChildSpec,
        own: bool,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), StartError> {
        if self.children.iter().any(|charge| charge.spec.name == spec.name) {
            return Err(StartError::Taken { name: spec.name });
        }
        if self.children.len() >= MAX_CHILDREN {
            return Err(StartError::TooMany { count: self.children.len() });
        }
        let path = context.path().join(&spec.name)?;
        let id = spec.starter.start(context, spec.name.clone(), spec.options).await?;
        spec.starter.register(&context.core, path);
        self.children.push(Charge { spec, state: State::Alive(id), own });
        Ok(())
    }

    fn forget(&mut self, at: usize, context: &Context<SupervisorCommand>) {
        let charge = self.children.remove(at);
        charge.spec.starter.lineage().close();
        if let Ok(path) = context.path().join(&charge.spec.name) {
            context.core.registry.remove(&path);
        }
    }

    async fn react(
        &mut self,
        at: usize,
        exit: ExitKind,
        last: Option<Arc<PostMortem>>,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let now = context.clock().now();
        let restart = self.children[at].spec.restart;
        let history = std::mem::take(&mut self.history);
        let (decision, history) = decide(&self.policy, history, restart, exit, now, jitter());
        self.history = history;
        match decision {
            Decision::Forget => {
                self.forget(at, context);
                Ok(())
            }
            Decision::Restart { after } => {
                self.take_down(at, now + after, context).await;
                self.restart_after(after, context);
                Ok(())
            }
            Decision::Escalate => {
                context.core.notify(&Lifecycle::Escalated { path: context.path() });
                Err(SupervisorError::TooManyRestarts {
                    child: self.children[at].spec.name.clone(),
                    intensity: self.policy.intensity,
                    last,
                })
            }
        }
    }

    /// Stops whom the failure takes along, the youngest first, and marks all for the restart.
    async fn take_down(
        &mut self,
        failed: usize,
        due: Moment,
        context: &mut Context<SupervisorCommand>,
    ) {
        let affected = self.policy.strategy.affected(failed, self.children.len());
        for at in affected.rev() {
            let alive = matches!(self.children[at].state, State::Alive(_)) && at != failed;
            if alive {
                let name = self.children[at].spec.name.clone();
                context.stop_child(&name).await;
                if self.children[at].spec.restart == Restart::Temporary {
                    self.forget(at, context);
                    continue;
                }
            }
            self.children[at].state = State::Down { due };
        }
    }

    fn restart_after(&self, after: Duration, context: &mut Context<SupervisorCommand>) {
        let clock = context.clock().clone();
        let me = context.address();
        let wait = async move {
            clock.sleep(after).await;
            // The only error is that this supervisor has ended, and then nobody restarts.
            let _ended = me.tell(Header::new(), SupervisorCommand(Command::Restart)).await;
        };
        // At most one wait per restart, and the intensity bounds those far below the task limit.
        let _refused = context.task(wait);
    }

    /// Starts, in order, everyone whose wait is over.
    async fn restart_due(
        &mut self,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let now = context.clock().now();
        for at in 0..self.children.len() {
            let spec = match self.children[at].state {
                State::Down { due } if due <= now => self.children[at].spec.clone(),
                _ => continue,
            };
            match spec.starter.start(context, spec.name.clone(), spec.options).await {
                Ok(id) => {
                    self.children[at].state = State::Alive(id);
                    let Ok(path) = context.path().join(&spec.name) else { continue };
                    let kind = spec.starter.kind();
                    context.core.notify(&Lifecycle::Restarted { path: &path, kind });
                }
                Err(_failed_again) => {
                    // The kernel's post-mortems have the cause; those after it wait with it.
                    return self.react(at, ExitKind::Failed, None, context).await;
                }
            }
        }
        Ok(())
    }
}

impl Actor for SupervisorActor {
    type Message = SupervisorCommand;
    type Error = SupervisorError;
    const KIND: &'static str = "supervisor";

    async fn started(
        &mut self,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        for spec in self.own.clone() {
            let child = spec.name.clone();
            if let Err(source) = self.add(spec, true, context).await {
                return Err(SupervisorError::Child { child, source });
            }
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SupervisorCommand,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        match command.0 {
            Command::Start { spec, reply } => {
                let started = self.add(*spec, false, context).await;
                // If the asker has gone, the child stays: it was asked for.
                let _gone = reply.send(started);
            }
            Command::Stop { name, reply } => {
                let at = self.children.iter().position(|charge| charge.spec.name == name);
                if let Some(at) = at {
                    context.stop_child(&name).await;
                    self.forget(at, context);
                }
                let _gone = reply.send(at.is_some());
            }
            Command::Restart => self.restart_due(context).await?,
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let alive = |charge: &Charge| matches!(charge.state, State::Alive(id) if id == ended.id);
        let Some(at) = self.children.iter().position(alive) else { return Ok(()) };
        let last = match &ended.ending {
            Ending::Failed(post_mortem) => Some(Arc::clone(post_mortem)),
            Ending::Stopped | Ending::Killed => None,
        };
        self.react(at, ended.ending.exit_kind(), last, context).await
    }

    async fn stopping(&mut self, context: &mut Context<SupervisorCommand>) {
        // Children stop while their names still lead to them, and are closed then.
        context.stop_children().await;
        while let Some(last) = self.children.len().checked_sub(1) {
            self.forget(last, context);
        }
    }
}

impl Drop for SupervisorActor {
    /// A supervisor that failed is started again with its own children only: the others' names
    /// lead nowhere from now on.
    fn drop(&mut self) {
        for charge in self.children.iter().filter(|charge| !charge.own) {
            charge.spec.starter.lineage().close();
        }
    }
}

/// A random number in 0..1: enough for spreading restarts.
fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}
