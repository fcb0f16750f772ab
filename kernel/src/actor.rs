//! Actors: the trait, what a handler is given, and the loop on `ractor`, the only place where a
//! panic is caught.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorCell, ActorProcessingErr, SupervisionEvent};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::capability::Grant;
use crate::clock::{Clock, Moment};
use crate::core::{Core, subject};
use crate::event::{
    Cause, FailedMessage, KindObserver, Lifecycle, Outcome, PostMortem, SpanGuard, SpanKind,
    Timing, TrailEntry,
};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::{
    MAILBOX_CAPACITY, MAX_CHILDREN, MAX_TASKS, POST_MORTEM_MESSAGE_BYTES, START_DEADLINE,
    STOP_DEADLINE, TRAIL_LENGTH,
};
use crate::mailbox::{ActorState, Birth, Envelope, Inbox, Lineage, Mailbox, Vitals, Work};
use crate::message::Message;
use crate::name::{Name, NameError, Path};
use crate::restart::ExitKind;
use crate::trace::InTrace;

/// An actor: state that handles one message at a time.
///
/// An error or a panic ends this life; the supervisor decides about the next one. Callers whose
/// messages were being handled or were waiting get a typed error at once.
///
/// ```
/// use std::convert::Infallible;
/// use neuroflow_kernel::{Actor, Context, Message, Reply};
/// enum Command { Add(u64), Total(Reply<u64>) }
/// impl Message for Command {
///     fn name(&self) -> &'static str {
///         match self { Self::Add(_) => "add", Self::Total(_) => "total" }
///     }
/// }
/// #[derive(Default)]
/// struct Counter { total: u64 }
/// impl Actor for Counter {
///     type Message = Command;
///     type Error = Infallible;
///     const KIND: &'static str = "counter";
///
///     async fn handle(&mut self, command: Command, _: &mut Context<Command>) -> Result<(), Infallible> {
///         match command {
///             Command::Add(amount) => self.total += amount,
///             Command::Total(reply) => { let _ = reply.send(self.total); }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Actor: Send + 'static {
    /// What it takes.
    type Message: Message;
    /// What ends it.
    type Error: Error + Send + Sync + 'static;
    /// Its kind, for metrics and the tree: one fixed word.
    const KIND: &'static str;

    /// Runs before the first message. Whoever starts the actor waits for it, up to
    /// [`START_DEADLINE`].
    fn started(
        &mut self,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Handles one message.
    fn handle(
        &mut self,
        message: Self::Message,
        context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A child of this actor has ended. Not called for children that this actor stops itself.
    fn child_ended(
        &mut self,
        _ended: Ended,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Runs after the last message, when the actor was asked to stop; its children still live.
    fn stopping(
        &mut self,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// How a child ended.
///
/// ```
/// use neuroflow_kernel::{Ended, Ending};
/// fn is_failure(ended: &Ended) -> bool {
///     !matches!(ended.ending, Ending::Stopped)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Its identity.
    pub id: ActorId,
    /// Its name below its parent.
    pub name: Name,
    /// How.
    pub ending: Ending,
}

/// The ways to end.
///
/// ```
/// use neuroflow_kernel::{Ending, ExitKind};
/// assert_eq!(Ending::Killed.exit_kind(), ExitKind::Failed);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// In good order.
    Stopped,
    /// It was killed.
    Killed,
    /// It failed.
    Failed(Arc<PostMortem>),
}

impl Ending {
    /// What a supervisor's decision needs to know of it.
    pub fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Stopped => ExitKind::Normal,
            Self::Killed | Self::Failed(_) => ExitKind::Failed,
        }
    }
}

/// Why an actor didn't start.
///
/// ```
/// use neuroflow_kernel::{NameError, StartError};
/// assert!(matches!(StartError::from(NameError::Empty), StartError::Name(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its name isn't one.
    #[error("the child's name isn't valid")]
    Name(#[from] NameError),
    /// A sibling has this name.
    #[error("there is already a child named {name}")]
    Taken {
        /// The name.
        name: Name,
    },
    /// The parent has as many children as it may.
    #[error("the parent has {count} children; {MAX_CHILDREN} are allowed")]
    TooMany {
        /// Its children.
        count: usize,
    },
    /// Its `started` hook failed or panicked.
    #[error("{path} failed to start")]
    Failed {
        /// The actor.
        path: Path,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// Its `started` hook took too long.
    #[error("{path} didn't start within {START_DEADLINE:?}")]
    TimedOut {
        /// The actor.
        path: Path,
    },
    /// The parent is about to stop.
    #[error("the parent of {path} is stopping")]
    ParentStopping {
        /// The actor.
        path: Path,
    },
    /// The supervisor didn't take the command.
    #[error("the supervisor didn't take the child")]
    Supervisor(#[from] crate::address::CallError),
}

/// How an actor is started as a child.
///
/// ```
/// use std::time::Duration;
/// let options = neuroflow_kernel::Spawn::default().mailbox(16).stop_within(Duration::from_secs(1));
/// assert!(format!("{options:?}").contains("16"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spawn {
    pub(crate) mailbox: usize,
    pub(crate) stop_within: Duration,
}

impl Spawn {
    /// Messages that may wait; at least 1.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages.max(1);
        self
    }

    /// The time that it gets to stop before it's killed.
    #[must_use]
    pub fn stop_within(mut self, deadline: Duration) -> Self {
        self.stop_within = deadline;
        self
    }
}

impl Default for Spawn {
    fn default() -> Self {
        Self { mailbox: MAILBOX_CAPACITY, stop_within: STOP_DEADLINE }
    }
}

/// What a handler is given: the message's header and grant, the clock, children, tasks.
///
/// ```
/// use neuroflow_kernel::{Context, Header, Message};
/// fn onward<M: Message>(context: &Context<M>) -> Header {
///     // Carries the trace, the deadline and the budget of the message that is being handled.
///     context.onward()
/// }
/// ```
pub struct Context<M: Message> {
    pub(crate) core: Arc<Core>,
    inbox: Arc<Mailbox<M>>,
    header: Header,
    grant: Option<Arc<Grant>>,
    children: HashMap<ractor::ActorId, Child>,
    born: u64,
    tasks: JoinSet<()>,
}

struct Child {
    /// Its place in the start order, which the stop order reverses.
    order: u64,
    cell: ActorCell,
    vitals: Arc<Vitals>,
    name: Name,
    stop_within: Duration,
}

impl<M: Message> Context<M> {
    /// The header of the message that is being handled.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header for messages sent while handling this one.
    pub fn onward(&self) -> Header {
        self.header.forward(self.inbox.vitals.id)
    }

    /// The grant that the message came through; none if its sender has the full address.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
    }

    /// The kernel's clock.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// This actor's path.
    pub fn path(&self) -> &Path {
        &self.inbox.vitals.path
    }

    /// This actor's id.
    pub fn id(&self) -> ActorId {
        self.inbox.vitals.id
    }

    /// Which life this is.
    pub fn generation(&self) -> Generation {
        self.inbox.vitals.generation
    }

    /// This actor's own address: this life of it.
    pub fn address(&self) -> Address<M> {
        Address::of_life(Arc::clone(&self.inbox) as Arc<dyn Inbox<M>>)
    }

    /// Begins a span below the message's own.
    pub fn span(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> SpanGuard {
        self.core.tracer().span(self.header.trace(), name, kind)
    }

    /// The tracer, for spans that outlive the message.
    pub fn tracer(&self) -> crate::event::Tracer {
        self.core.tracer()
    }

    /// Stops this actor after the current message; what still waits is refused.
    pub fn stop(&self) {
        self.inbox.actor.stop(None);
    }

    /// Starts a child that isn't restarted: when it ends, [`Actor::child_ended`] is called; when
    /// this actor ends, so does the child.
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn spawn<A: Actor>(
        &mut self,
        name: Name,
        actor: A,
        options: Spawn,
    ) -> Result<Address<A::Message>, StartError> {
        let lineage = Lineage::new();
        let address = self.spawn_with(name, actor, options, Arc::clone(&lineage)).await;
        // One life only: whoever holds its address later learns that the actor has stopped.
        lineage.close();
        address.map(|inbox| Address::of_life(inbox))
    }

    pub(crate) async fn spawn_with<A: Actor>(
        &mut self,
        name: Name,
        actor: A,
        options: Spawn,
        lineage: Arc<Lineage>,
    ) -> Result<Arc<dyn Inbox<A::Message>>, StartError> {
        if self.children.len() >= MAX_CHILDREN {
            return Err(StartError::TooMany { count: self.children.len() });
        }
        let path = self.path().join(&name)?;
        let start = Start { core: Arc::clone(&self.core), path, options, lineage, actor };
        let parent = self.inbox.actor.get_cell();
        let inbox = start_actor(start, Some(parent)).await?;
        let cell = inbox.actor.get_cell();
        self.born += 1;
        let child = Child {
            order: self.born,
            cell: cell.clone(),
            vitals: Arc::clone(&inbox.vitals),
            name,
            stop_within: options.stop_within,
        };
        self.children.insert(cell.get_id(), child);
        Ok(inbox)
    }

    /// Children that live.
    pub fn child_count(&self) -> usize {
        self.children.len()
    }

    /// Stops the child of this name, if there is one, and waits until it has ended.
    pub async fn stop_child(&mut self, name: &Name) -> bool {
        let found = self.children.iter().find(|(_, child)| child.name == *name).map(|(&id, _)| id);
        match found.and_then(|id| self.children.remove(&id)) {
            Some(child) => {
                stop_child(&self.core, child).await;
                true
            }
            None => false,
        }
    }

    /// Ends the child of this name at once, wherever its handler is waiting: what that had begun is
    /// dropped, and so cancelled. Says whether there was one.
    pub async fn kill_child(&mut self, name: &Name) -> bool {
        let found = self.children.iter().find(|(_, child)| child.name == *name).map(|(&id, _)| id);
        match found.and_then(|id| self.children.remove(&id)) {
            Some(child) => {
                kill_child(&self.core, &child).await;
                true
            }
            None => false,
        }
    }

    /// Stops all children, the youngest first, each within its deadline.
    pub async fn stop_children(&mut self) {
        let mut children: Vec<Child> = self.children.drain().map(|(_, child)| child).collect();
        children.sort_by_key(|child| child.order);
        while let Some(child) = children.pop() {
            stop_child(&self.core, child).await;
        }
    }

    /// Runs `work` beside the actor. It ends with the actor; if it panics, the actor fails.
    ///
    /// # Errors
    /// Gives the work back if [`MAX_TASKS`] are running.
    pub fn task<F>(&mut self, work: F) -> Result<(), TaskRefused<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= MAX_TASKS {
            return Err(TaskRefused { work });
        }
        let inbox = Arc::clone(&self.inbox);
        let work = InTrace::new(self.header.trace(), Box::pin(work));
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                inbox.push(Envelope {
                    header: Header::new(),
                    grant: None,
                    sent: None,
                    work: Work::TaskPanicked(panic_text(&*panic)),
                });
            }
        });
        Ok(())
    }
}

impl<M: Message> Drop for Context<M> {
    /// However this life ended, also when it was killed: nobody finds it alive any more.
    fn drop(&mut self) {
        self.inbox.vitals.enter(ActorState::Ended);
        self.core.strike(self.inbox.vitals.id);
    }
}

impl<M: Message> fmt::Debug for Context<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("actor", &self.inbox.vitals).finish_non_exhaustive()
    }
}

/// An actor has as many background tasks as it may; the work comes back.
///
/// ```
/// let refused = neuroflow_kernel::TaskRefused { work: async {} };
/// assert!(refused.to_string().contains("tasks"));
/// ```
#[derive(thiserror::Error)]
#[error("the actor already has {MAX_TASKS} background tasks")]
pub struct TaskRefused<F> {
    /// What was to be done.
    pub work: F,
}

impl<F> fmt::Debug for TaskRefused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRefused").finish_non_exhaustive()
    }
}

/// Asks a child to stop, and kills it when its deadline is past.
async fn stop_child(core: &Core, child: Child) {
    child.cell.stop(None);
    let deadline = core.clock.now() + child.stop_within;
    let over = core.clock.before(deadline, child.cell.wait(None)).await;
    if over.is_err() {
        kill_child(core, &child).await;
    }
}

/// Kills a child and waits until it has ended.
async fn kill_child(core: &Core, child: &Child) {
    child.vitals.enter(ActorState::Ended);
    child.cell.kill();
    // A handler that never awaits can't be killed; waiting for ever would hang its parent.
    let deadline = core.clock.now() + child.stop_within;
    let _stuck = core.clock.before(deadline, child.cell.wait(None)).await;
    core.notify(&Lifecycle::Killed { actor: subject(&child.vitals) });
}

/// Everything that a life begins with.
pub(crate) struct Start<A> {
    pub(crate) core: Arc<Core>,
    pub(crate) path: Path,
    pub(crate) options: Spawn,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) actor: A,
}

/// Starts an actor and waits for its `started` hook.
pub(crate) async fn start_actor<A: Actor>(
    start: Start<A>,
    parent: Option<ActorCell>,
) -> Result<Arc<Mailbox<A::Message>>, StartError> {
    let clock = start.core.clock.clone();
    let path = start.path.clone();
    let (ready, mut inbox) = tokio::sync::oneshot::channel();
    let arguments = (start, ready);
    let begin = async {
        match parent {
            Some(parent) => {
                <Loop<A> as ractor::Actor>::spawn_linked(None, Loop(PhantomData), arguments, parent)
                    .await
            }
            None => <Loop<A> as ractor::Actor>::spawn(None, Loop(PhantomData), arguments).await,
        }
    };
    let begun = clock.before(clock.now() + START_DEADLINE, begin).await;
    match begun {
        Ok(Ok(_)) => inbox.try_recv().map_err(|_empty| StartError::ParentStopping { path }),
        Ok(Err(ractor::SpawnErr::StartupFailed(error))) => match error.downcast::<StartFailed>() {
            Ok(failed) => Err(StartError::Failed { path, cause: failed.0 }),
            Err(_other) => Err(StartError::ParentStopping { path }),
        },
        Ok(Err(_)) => Err(StartError::ParentStopping { path }),
        Err(_elapsed) => Err(StartError::TimedOut { path }),
    }
}

/// What the `started` hook failed with, on its way through `ractor`.
#[derive(Debug, thiserror::Error)]
#[error("failed to start")]
struct StartFailed(#[source] Cause);

/// A failure on its way to the parent.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.cause)]
struct Failure(Arc<PostMortem>);

/// The adapter that runs an [`Actor`] on `ractor`.
struct Loop<A>(PhantomData<fn() -> A>);

/// One running life.
struct Life<A: Actor> {
    actor: A,
    context: Context<A::Message>,
    observer: Arc<dyn KindObserver>,
    trail: VecDeque<TrailEntry>,
}

impl<A: Actor> Life<A> {
    fn vitals(&self) -> &Arc<Vitals> {
        &self.context.inbox.vitals
    }

    /// Whether the message is still wanted and still allowed.
    fn admit(&self, envelope: &Envelope<A::Message>, message: &A::Message) -> Result<(), Outcome> {
        let clock = &self.context.core.clock;
        if let Some(grant) = &envelope.grant {
            let allowed = grant.check(message.required_rights(), || clock.now());
            allowed.map_err(|_denied| Outcome::Denied)?;
        }
        // Only a backlog makes a message wait for long, so only then is the clock worth reading.
        if self.vitals().depth() > 0
            && envelope.header.deadline().is_some_and(|deadline| clock.now() > deadline)
        {
            return Err(Outcome::Expired);
        }
        Ok(())
    }

    fn remember(&mut self, name: &'static str) {
        if self.trail.len() == TRAIL_LENGTH {
            self.trail.pop_front();
        }
        self.trail.push_back(TrailEntry { number: self.vitals().handled(), name });
    }

    /// Ends the life because of `cause`: tells everyone, and lets the children go in order.
    async fn fail(&mut self, cause: Cause, message: Option<FailedMessage>) -> ActorProcessingErr {
        let vitals = Arc::clone(self.vitals());
        vitals.enter(ActorState::Ended);
        let post_mortem = Arc::new(PostMortem {
            id: vitals.id,
            path: vitals.path.clone(),
            kind: vitals.kind,
            generation: vitals.generation,
            cause,
            message,
            trail: self.trail.iter().copied().collect(),
            at: self.context.core.clock.wall(),
        });
        let core = Arc::clone(&self.context.core);
        core.keep(Arc::clone(&post_mortem));
        core.strike(vitals.id);
        core.notify(&Lifecycle::Failed { actor: subject(&vitals), post_mortem: &post_mortem });
        self.context.stop_children().await;
        Box::new(Failure(post_mortem))
    }

    async fn handle(&mut self, envelope: Envelope<A::Message>) -> Result<(), ActorProcessingErr> {
        let message = match &envelope.work {
            Work::TaskPanicked(text) => {
                let cause = Cause::Panic { message: text.clone() };
                return Err(self.fail(cause, None).await);
            }
            Work::Message(message) => message,
        };
        self.vitals().leave();
        let name = message.name();
        self.remember(name);
        if let Err(outcome) = self.admit(&envelope, message) {
            self.observer.handled(name, outcome, None);
            return Ok(());
        }
        let archive = message.archive();
        let Envelope { header, grant, sent, work: Work::Message(message) } = envelope else {
            return Ok(());
        };
        self.context.header = header;
        self.context.grant = grant;
        let timing = sent.map(|sent| (sent, self.context.core.clock.now()));
        let trace = self.context.header.trace();
        let handled = {
            let handling = AssertUnwindSafe(self.actor.handle(message, &mut self.context));
            let handling = std::pin::pin!(handling.catch_unwind());
            InTrace::new(trace, handling).await
        };
        let timing = timing.map(|(sent, begun): (Moment, Moment)| Timing {
            waited: begun.since(sent),
            handled: self.context.core.clock.now().since(begun),
        });
        let (outcome, cause) = match handled {
            Ok(Ok(())) => {
                self.observer.handled(name, Outcome::Ok, timing);
                return Ok(());
            }
            Ok(Err(error)) => (Outcome::Failed, Cause::Error(Arc::new(error))),
            Err(panic) => (Outcome::Panicked, Cause::Panic { message: panic_text(&*panic) }),
        };
        self.observer.handled(name, outcome, timing);
        let archive = archive.filter(|raw| raw.as_bytes().len() <= POST_MORTEM_MESSAGE_BYTES);
        let header = self.context.header.clone();
        Err(self.fail(cause, Some(FailedMessage { name, header, archive })).await)
    }

    async fn child_ended(&mut self, ended: Ended) -> Result<(), ActorProcessingErr> {
        let hook = AssertUnwindSafe(self.actor.child_ended(ended, &mut self.context));
        let cause = match hook.catch_unwind().await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Cause::Error(Arc::new(error)),
            Err(panic) => Cause::Panic { message: panic_text(&*panic) },
        };
        Err(self.fail(cause, None).await)
    }
}

type Arguments<A> = (Start<A>, tokio::sync::oneshot::Sender<Arc<Mailbox<<A as Actor>::Message>>>);

impl<A: Actor> ractor::Actor for Loop<A> {
    type Msg = Envelope<A::Message>;
    type State = Life<A>;
    type Arguments = Arguments<A>;

    async fn pre_start(
        &self,
        myself: ractor::ActorRef<Self::Msg>,
        (start, ready): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let Start { core, path, options, lineage, actor } = start;
        let vitals = Arc::new(Vitals::new(Birth {
            path,
            kind: A::KIND,
            capacity: options.mailbox,
            clock: core.clock.clone(),
            lineage,
        }));
        let inbox = Arc::new(Mailbox { vitals: Arc::clone(&vitals), actor: myself });
        let observer = core.kind(A::KIND);
        let context = Context {
            core: Arc::clone(&core),
            inbox: Arc::clone(&inbox),
            header: Header::new(),
            grant: None,
            children: HashMap::new(),
            born: 0,
            tasks: JoinSet::new(),
        };
        let mut life = Life { actor, context, observer, trail: VecDeque::new() };
        core.enrol(&vitals);
        let hook = AssertUnwindSafe(life.actor.started(&mut life.context));
        let cause = match hook.catch_unwind().await {
            Ok(Ok(())) => {
                vitals.enter(ActorState::Running);
                core.notify(&Lifecycle::Started { actor: subject(&vitals) });
                // Whoever waits for the start may have given up; the link to the parent decides then.
                let _unwanted = ready.send(inbox);
                return Ok(life);
            }
            Ok(Err(error)) => Cause::Error(Arc::new(error)),
            Err(panic) => Cause::Panic { message: panic_text(&*panic) },
        };
        life.fail(cause.clone(), None).await;
        Err(Box::new(StartFailed(cause)))
    }

    async fn handle(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        envelope: Self::Msg,
        life: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        life.handle(envelope).await
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        event: SupervisionEvent,
        life: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, ending) = match event {
            SupervisionEvent::ActorTerminated(cell, Some(_state), _reason) => {
                (cell, Ending::Stopped)
            }
            SupervisionEvent::ActorTerminated(cell, None, _reason) => (cell, Ending::Killed),
            SupervisionEvent::ActorFailed(cell, error) => match error.downcast::<Failure>() {
                Ok(failure) => (cell, Ending::Failed(failure.0)),
                Err(_foreign) => (cell, Ending::Killed),
            },
            _ => return Ok(()),
        };
        // A child that this actor has stopped itself is no longer among its children.
        let Some(child) = life.context.children.remove(&cell.get_id()) else { return Ok(()) };
        if matches!(ending, Ending::Killed) {
            child.vitals.enter(ActorState::Ended);
            life.context.core.notify(&Lifecycle::Killed { actor: subject(&child.vitals) });
        }
        life.child_ended(Ended { id: child.vitals.id, name: child.name, ending }).await
    }

    async fn post_stop(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        life: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let vitals = Arc::clone(life.vitals());
        vitals.enter(ActorState::Stopping);
        let hook = AssertUnwindSafe(life.actor.stopping(&mut life.context)).catch_unwind().await;
        if let Err(panic) = hook {
            let cause = Cause::Panic { message: panic_text(&*panic) };
            return Err(life.fail(cause, None).await);
        }
        life.context.stop_children().await;
        life.context.tasks.shutdown().await;
        vitals.enter(ActorState::Ended);
        let core = &life.context.core;
        core.strike(vitals.id);
        core.notify(&Lifecycle::Stopped { actor: subject(&vitals) });
        Ok(())
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
