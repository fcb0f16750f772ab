//! What a handler is given: header and grant of its message, clock, children, tasks.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, Waker};

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::children::{Child, Children, kill_child, stop_child};
use super::life::{Start, panic_text, start_actor};
use super::{Actor, Spawn, StartError, TaskRefused};
use crate::address::Address;
use crate::capability::Grant;
use crate::clock::{Clock, Moment};
use crate::core::{Core, subject};
use crate::event::{Lifecycle, SpanGuard, SpanKind};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::{MAX_CHILDREN, MAX_TASKS, STOP_DEADLINE};
use crate::mailbox::{ActorState, Inbox, Mailbox, Stop, Vitals, Work};
use crate::message::Message;
use crate::monitor::{Down, Monitor, MonitorRefused};
use crate::name::{Name, Path};
use crate::restart::RestartPolicy;
use crate::slot::Lineage;
use crate::supervisor::{ChildSpec, Supervisor, SupervisorActor};
use crate::trace::InTrace;

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
    pub(super) inbox: Arc<Mailbox<M>>,
    header: Header,
    grant: Option<Arc<Grant>>,
    pub(super) children: Children,
    parent: bool,
    /// None before the first one: most actors never have any.
    tasks: Option<JoinSet<()>>,
}

impl<M: Message> Context<M> {
    pub(super) fn new(core: Arc<Core>, inbox: Arc<Mailbox<M>>) -> Self {
        Self {
            core,
            inbox,
            header: Header::new(),
            grant: None,
            children: Children::default(),
            parent: false,
            tasks: None,
        }
    }

    pub(super) fn vitals(&self) -> &Arc<Vitals> {
        &self.inbox.vitals
    }

    /// Takes over what came with the message that is handled next.
    pub(super) fn turn_to(&mut self, header: Header, grant: Option<Arc<Grant>>) {
        self.header = header;
        self.grant = grant;
    }

    /// What happens next isn't on behalf of any message.
    pub(super) fn turn_inward(&mut self) {
        self.turn_to(Header::new(), None);
    }

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
        self.inbox.stop();
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
        self.spawn_made(name, move || actor, options).await
    }

    /// The same for what `make` makes in the child's own life: if it panics, the child doesn't start, and
    /// this actor goes on.
    ///
    /// A start that is given up (the future is dropped) leaves nothing: the child ends there and then, and what it
    /// has begun below it is killed.
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn spawn_made<A: Actor>(
        &mut self,
        name: Name,
        make: impl FnOnce() -> A + Send + 'static,
        options: Spawn,
    ) -> Result<Address<A::Message>, StartError> {
        let lineage = Lineage::new();
        let inbox = self.spawn_with(name, Box::new(make), options, Arc::clone(&lineage)).await;
        // One life only: whoever holds its address later learns that the actor has stopped.
        lineage.close();
        inbox.map(Address::of_life)
    }

    /// Starts a supervisor below this actor, with children that it starts itself, in this order, and
    /// restarts as the policy says. Their addresses come from [`ChildSpec::new`] and follow their
    /// names across restarts. Nobody starts the supervisor itself again: when it ends, or doesn't start,
    /// so do they and their names, for good.
    ///
    /// # Errors
    /// Says which of them didn't start, and why.
    pub async fn supervise(
        &mut self,
        name: Name,
        policy: RestartPolicy,
        children: Vec<ChildSpec>,
    ) -> Result<Supervisor, StartError> {
        let actor = SupervisorActor::new(policy, children.into()).only_life();
        let options = Spawn::default().of_a_supervisor();
        self.spawn(name, actor, options).await.map(Supervisor::of)
    }

    pub(crate) async fn spawn_with<A: Actor>(
        &mut self,
        name: Name,
        make: Box<dyn FnOnce() -> A + Send>,
        options: Spawn,
        lineage: Arc<Lineage>,
    ) -> Result<Arc<dyn Inbox<A::Message>>, StartError> {
        if self.children.len() >= MAX_CHILDREN {
            return Err(StartError::TooMany { count: self.children.len() });
        }
        if self.children.has(&name) {
            return Err(StartError::Taken { name });
        }
        // Before the first one starts: `ractor` tells of that too.
        self.parent = true;
        let path = self.path().join(&name)?;
        let start = Start { core: Arc::clone(&self.core), path, options, lineage, make };
        let inbox = start_actor(start, Some(self.inbox.actor.get_cell())).await?;
        self.children.add(Child {
            cell: inbox.actor.get_cell(),
            mailbox: Arc::clone(&inbox) as Arc<dyn Stop>,
            vitals: Arc::clone(&inbox.vitals),
            name,
            stop_within: options.stop_within,
        });
        Ok(inbox)
    }

    /// Whether there is, or has ever been, somebody whose end has to be heard of.
    pub(super) fn has_had_children(&self) -> bool {
        self.parent
    }

    /// Children that live.
    pub fn child_count(&self) -> usize {
        self.children.len()
    }

    /// Stops the child of this name, if there is one, and waits until it has ended.
    pub async fn stop_child(&mut self, name: &Name) -> bool {
        match self.children.remove_named(name) {
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
        match self.children.remove_named(name) {
            Some(child) => {
                kill_child(&self.core, child).await;
                true
            }
            None => false,
        }
    }

    /// Stops all children, the youngest first, each within its deadline.
    pub async fn stop_children(&mut self) {
        while let Some(child) = self.children.remove_youngest() {
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
        let tasks = self.tasks.get_or_insert_default();
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MAX_TASKS {
            return Err(TaskRefused { work });
        }
        let inbox = Arc::clone(&self.inbox);
        let work = InTrace::new(self.header.trace(), Box::pin(work));
        tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                inbox.interject(Work::TaskPanicked(panic_text(&*panic)));
            }
        });
        Ok(())
    }

    /// Watches another actor, of this process or on another node. When the life that is there now
    /// ends, or can't be reached any more, this actor gets the message that `make` makes of that,
    /// once, before all that waits then. It needs no room in the mailbox.
    ///
    /// # Errors
    /// Says that there are [`MAX_TASKS`] tasks and watches already.
    pub fn monitor<N: Message>(
        &mut self,
        other: &Address<N>,
        make: impl FnOnce(Down) -> M + Send + 'static,
    ) -> Result<Monitor, MonitorRefused> {
        self.watch(other, |down| Some(Work::Reminder(make(down))))
    }

    /// Ties this actor to another, of this process or on another node: if the life that is there now
    /// ends other than in good order, or can't be reached any more, this one fails with
    /// [`Cause::Linked`](crate::Cause::Linked). The other way round it's for the other actor to say:
    /// an address is the authority to send, not to end.
    ///
    /// # Errors
    /// Says that there are [`MAX_TASKS`] tasks and watches already.
    pub fn link<N: Message>(&mut self, other: &Address<N>) -> Result<Monitor, MonitorRefused> {
        self.watch(other, |down| down.is_failure().then_some(Work::Linked(down)))
    }

    fn watch<N: Message>(
        &mut self,
        other: &Address<N>,
        make: impl FnOnce(Down) -> Option<Work<M>> + Send + 'static,
    ) -> Result<Monitor, MonitorRefused> {
        let tasks = self.tasks.get_or_insert_default();
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MAX_TASKS {
            return Err(MonitorRefused);
        }
        let (mut down, inbox) = (Box::pin(other.down()), Arc::clone(&self.inbox));
        // A first look, so that a watch over an actor elsewhere is under way when this returns.
        let mut down = match down.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(down) => futures_util::future::Either::Left(std::future::ready(down)),
            Poll::Pending => futures_util::future::Either::Right(down),
        };
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let task = tasks.spawn(async move {
            let down = (&mut down).await;
            if ended.load(Ordering::Acquire) {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| make(down))) {
                Ok(Some(work)) => inbox.interject(work),
                Ok(None) => {}
                Err(panic) => inbox.interject(Work::TaskPanicked(panic_text(&*panic))),
            }
        });
        Ok(Monitor::new(task, over))
    }

    /// Gives this actor a message of its own at a moment, before all that waits then.
    pub(crate) fn remind(&mut self, at: Moment, message: M) {
        if at <= self.clock().now() {
            self.inbox.interject(Work::Reminder(message));
            return;
        }
        let inbox = Arc::clone(&self.inbox);
        let clock = self.clock().clone();
        // Only supervisors do this, and each reminder under way is for a moment before the others'.
        let _refused = self.task(async move {
            clock.sleep_until(at).await;
            inbox.interject(Work::Reminder(message));
        });
    }

    pub(super) fn abort_tasks(&mut self) {
        if let Some(tasks) = &mut self.tasks {
            tasks.abort_all();
        }
    }

    /// Ends the background tasks; one that never awaits is left behind.
    pub(super) async fn end_tasks(&mut self) {
        let Some(mut tasks) = self.tasks.take() else { return };
        if tasks.is_empty() {
            return;
        }
        let deadline = self.core.clock.now() + STOP_DEADLINE;
        let _stuck = self.core.clock.before(deadline, tasks.shutdown()).await;
    }
}

impl<M: Message> Drop for Context<M> {
    /// However this life ended, also when it was killed: nobody finds it alive any more, and nobody
    /// goes on waiting for it.
    fn drop(&mut self) {
        let vitals = Arc::clone(&self.inbox.vitals);
        if vitals.is_gone() {
            return;
        }
        vitals.enter(ActorState::Ended);
        self.inbox.close();
        self.children.kill_all();
        self.abort_tasks();
        if vitals.take_report() {
            self.core.notify(&Lifecycle::Killed { actor: subject(&vitals) });
        }
        self.core.strike(vitals.id);
        vitals.depart();
    }
}

impl<M: Message> fmt::Debug for Context<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("actor", &self.inbox.vitals).finish_non_exhaustive()
    }
}
