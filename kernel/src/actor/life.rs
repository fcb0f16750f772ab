//! One life from start to end: the loop on `ractor`, the only place where a panic is caught.

use std::any::Any;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::{ActorCell, ActorProcessingErr, SupervisionEvent};

use super::{Actor, Context, Ended, Ending, Spawn, StartError};
use crate::address::Refusal;
use crate::clock::Moment;
use crate::core::{Core, subject};
use crate::event::{
    Cause, FailedMessage, KindObserver, Lifecycle, Outcome, PostMortem, Timing, TrailEntry,
};
use crate::limits::{POST_MORTEM_MESSAGE_BYTES, STOP_DEADLINE, TRAIL_LENGTH};
use crate::mailbox::{ActorState, Birth, Envelope, Mailbox, Vitals, Wake, Work};
use crate::message::Message;
use crate::monitor::Fall;
use crate::name::Path;
use crate::parcel::RawParcel;
use crate::reply::{Fate, drop_with};
use crate::slot::Lineage;
use crate::trace::InTrace;

/// Everything that a life begins with.
pub(crate) struct Start<A> {
    pub(crate) core: Arc<Core>,
    pub(crate) path: Path,
    pub(crate) options: Spawn,
    pub(crate) lineage: Arc<Lineage>,
    /// Makes the actor, where a panic fails the child and not its parent.
    pub(crate) make: Box<dyn FnOnce() -> A + Send>,
}

/// Starts an actor and waits for its `started` hook.
pub(crate) async fn start_actor<A: Actor>(
    start: Start<A>,
    parent: Option<ActorCell>,
) -> Result<Arc<Mailbox<A::Message>>, StartError> {
    let clock = start.core.clock.clone();
    let (path, start_within) = (start.path.clone(), start.options.start_within);
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
    let begun = clock.before(clock.now() + start_within, begin).await;
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
    /// Dropped before the end is made known, so that two lives of an actor never overlap.
    actor: Option<A>,
    context: Context<A::Message>,
    observer: Arc<dyn KindObserver>,
    trail: VecDeque<TrailEntry>,
    /// What is done next.
    next: Option<Envelope<A::Message>>,
    doing: Option<Doing>,
}

/// The message that is being handled.
struct Doing {
    name: &'static str,
    archive: Option<RawParcel>,
    timing: Option<(Moment, Moment)>,
}

impl<A: Actor> Life<A> {
    fn vitals(&self) -> &Arc<Vitals> {
        self.context.vitals()
    }

    /// Whether the message is still wanted and still allowed.
    fn admit(&self, envelope: &Envelope<A::Message>, message: &A::Message) -> Result<(), Refusal> {
        let clock = &self.context.core.clock;
        if let Some(grant) = &envelope.grant {
            grant.check(message.required_rights(), || clock.now())?;
        }
        // Only a busy actor makes a message wait for long, so only then is the clock worth reading.
        if !envelope.found_idle
            && envelope.header.deadline().is_some_and(|deadline| clock.now() >= deadline)
        {
            return Err(Refusal::Expired);
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
    ///
    /// Boxed: a future is as large as all that it may await, twice over within `ractor`, and each
    /// idle actor would hold the room for what happens once in a life.
    fn fail(
        &mut self,
        cause: Cause,
        message: Option<FailedMessage>,
    ) -> BoxFuture<'_, ActorProcessingErr> {
        Box::pin(self.end_of(cause, message))
    }

    async fn end_of(&mut self, cause: Cause, message: Option<FailedMessage>) -> ActorProcessingErr {
        let core = Arc::clone(&self.context.core);
        let vitals = Arc::clone(self.vitals());
        vitals.enter(ActorState::Ended);
        self.context.inbox.close();
        let panicked = matches!(cause, Cause::Panic { .. });
        let post_mortem = Arc::new(PostMortem {
            id: vitals.id,
            path: vitals.path.clone(),
            kind: vitals.kind,
            generation: vitals.generation,
            cause,
            message,
            trail: self.trail.iter().copied().collect(),
            at: core.clock.wall(),
        });
        core.keep(Arc::clone(&post_mortem));
        if vitals.take_report() {
            core.notify(&Lifecycle::Failed { actor: subject(&vitals), post_mortem: &post_mortem });
        }
        // Callers whose replies the actor had kept learn of the end now, not after the children's; so does
        // the one whose message couldn't even be looked at.
        let actor = (self.actor.take(), self.next.take());
        let _worse = catch_unwind(AssertUnwindSafe(|| {
            if panicked {
                drop_with(Fate::Panicked, actor);
            } else {
                drop(actor);
            }
        }));
        self.context.abort_tasks();
        self.context.turn_inward();
        self.context.stop_children().await;
        self.context.end_tasks().await;
        core.strike(vitals.id);
        vitals.fall(Fall::Failed);
        vitals.depart();
        Box::new(Failure(post_mortem))
    }

    /// Handles one message after another until it's called away, or one only if there are children
    /// to hear of.
    async fn work(&mut self) -> Result<(), ActorProcessingErr> {
        self.context.inbox.take(&mut self.next);
        while self.next.is_some() {
            self.handle().await?;
            if self.context.has_had_children() {
                self.context.inbox.turn_away();
            } else {
                self.context.inbox.next(&mut self.next).await;
            }
        }
        Ok(())
    }

    async fn handle(&mut self) -> Result<(), ActorProcessingErr> {
        let trace = match &mut self.next {
            Some(Envelope { work: Work::TaskPanicked(message), .. }) => {
                let message = std::mem::take(message);
                return Err(self.fail(Cause::Panic { message }, None).await);
            }
            Some(Envelope { work: Work::Linked(down), .. }) => {
                let down = *down;
                return Err(self.fail(Cause::Linked { down }, None).await);
            }
            Some(envelope) => envelope.header.trace(),
            None => return Ok(()),
        };
        let handled = {
            let step = std::pin::pin!(AssertUnwindSafe(self.step()).catch_unwind());
            InTrace::new(trace, step).await
        };
        let (outcome, cause) = match handled {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => (Outcome::Failed, Cause::Error(Arc::new(error))),
            Err(panic) => (Outcome::Panicked, Cause::Panic { message: panic_text(&*panic) }),
        };
        let message = self.doing.take().map(|Doing { name, archive, timing }| {
            self.observer.handled(name, outcome, self.timing(timing));
            let archive = archive.filter(|raw| raw.as_bytes().len() <= POST_MORTEM_MESSAGE_BYTES);
            FailedMessage { name, header: self.context.header().clone(), archive }
        });
        Err(self.fail(cause, message).await)
    }

    /// Handles what is next; all that may panic on the way is code of the actor and its messages.
    async fn step(&mut self) -> Result<(), A::Error> {
        self.doing = None;
        let Some(envelope) = &self.next else { return Ok(()) };
        if let Work::Message(_) = &envelope.work {
            self.vitals().leave();
        }
        let (Work::Message(message) | Work::Reminder(message)) = &envelope.work else {
            return Ok(());
        };
        let name = message.name();
        if let Err(refusal) = self.admit(envelope, message) {
            let outcome = match refusal {
                Refusal::Denied(_) => Outcome::Denied,
                _ => Outcome::Expired,
            };
            self.observer.handled(name, outcome, None);
            self.remember(name);
            drop_with(Fate::Refused(refusal), self.next.take());
            return Ok(());
        }
        let archive = message.archive();
        let Some(Envelope { header, grant, sent, work, .. }) = self.next.take() else {
            return Ok(());
        };
        let (Work::Message(message) | Work::Reminder(message)) = work else { return Ok(()) };
        self.context.turn_to(header, grant);
        let timing = sent.map(|sent| (sent, self.context.core.clock.now()));
        self.doing = Some(Doing { name, archive, timing });
        if let Some(actor) = &mut self.actor {
            actor.handle(message, &mut self.context).await?;
        }
        self.doing = None;
        self.observer.handled(name, Outcome::Ok, self.timing(timing));
        self.remember(name);
        Ok(())
    }

    fn timing(&self, sampled: Option<(Moment, Moment)>) -> Option<Timing> {
        sampled.map(|(sent, begun)| Timing {
            waited: begun.since(sent),
            handled: self.context.core.clock.now().since(begun),
        })
    }

    /// A child has ended, unless it was this actor itself that ended it.
    async fn hear(&mut self, event: SupervisionEvent) -> Result<(), ActorProcessingErr> {
        let (cell, ending) = match event {
            // Only `ractor` itself gives a reason, when it kills.
            SupervisionEvent::ActorTerminated(cell, Some(_state), None) => (cell, Ending::Stopped),
            SupervisionEvent::ActorTerminated(cell, _state, _reason) => (cell, Ending::Killed),
            SupervisionEvent::ActorFailed(cell, error) => match error.downcast::<Failure>() {
                Ok(failure) => (cell, Ending::Failed(failure.0)),
                Err(_foreign) => (cell, Ending::Killed),
            },
            _ => return Ok(()),
        };
        // A child that this actor has stopped itself is no longer among its children.
        let Some(child) = self.context.children.remove_cell(cell.get_id()) else { return Ok(()) };
        if matches!(ending, Ending::Killed) {
            // `ractor` tells of a kill before it drops the state.
            let clock = &self.context.core.clock;
            let _stuck = clock.before(clock.now() + STOP_DEADLINE, child.vitals.gone()).await;
        }
        let ended = Ended { id: child.vitals.id, name: child.name.clone(), ending };
        drop(child);
        self.child_ended(ended).await
    }

    async fn child_ended(&mut self, ended: Ended) -> Result<(), ActorProcessingErr> {
        self.vitals().toil();
        self.context.turn_inward();
        let Some(actor) = &mut self.actor else { return Ok(()) };
        let hook = AssertUnwindSafe(actor.child_ended(ended, &mut self.context));
        let cause = match hook.catch_unwind().await {
            Ok(Ok(())) => {
                self.vitals().rest();
                return Ok(());
            }
            Ok(Err(error)) => Cause::Error(Arc::new(error)),
            Err(panic) => Cause::Panic { message: panic_text(&*panic) },
        };
        Err(self.fail(cause, None).await)
    }

    /// Ends the life in good order.
    async fn stop(&mut self) -> Result<(), Cause> {
        let vitals = Arc::clone(self.vitals());
        vitals.enter(ActorState::Stopping);
        self.context.inbox.close();
        self.context.turn_inward();
        let panicked = |panic: Box<dyn Any + Send>| Cause::Panic { message: panic_text(&*panic) };
        if let Some(actor) = &mut self.actor {
            let hook = AssertUnwindSafe(actor.stopping(&mut self.context));
            hook.catch_unwind().await.map_err(panicked)?;
        }
        self.context.stop_children().await;
        self.context.end_tasks().await;
        // Here, because `ractor` keeps the state until the parent reads of the end.
        let actor = self.actor.take();
        catch_unwind(AssertUnwindSafe(|| drop(actor))).map_err(panicked)?;
        vitals.enter(ActorState::Ended);
        let core = &self.context.core;
        if vitals.take_report() {
            core.notify(&Lifecycle::Stopped { actor: subject(&vitals) });
        }
        core.strike(vitals.id);
        vitals.fall(Fall::Stopped);
        vitals.depart();
        Ok(())
    }
}

type Arguments<A> = (Start<A>, tokio::sync::oneshot::Sender<Arc<Mailbox<<A as Actor>::Message>>>);

impl<A: Actor> ractor::Actor for Loop<A> {
    type Msg = Wake;
    type State = Life<A>;
    type Arguments = Arguments<A>;

    async fn pre_start(
        &self,
        myself: ractor::ActorRef<Self::Msg>,
        (start, ready): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let Start { core, path, options, lineage, make } = start;
        let vitals = Arc::new(Vitals::new(Birth {
            path,
            kind: A::KIND,
            capacity: options.mailbox,
            clock: core.clock.clone(),
            lineage,
        }));
        let inbox = Mailbox::new(Arc::clone(&vitals), myself);
        let mut life = Life {
            actor: None,
            context: Context::new(Arc::clone(&core), Arc::clone(&inbox)),
            observer: core.kind(A::KIND),
            trail: VecDeque::new(),
            next: None,
            doing: None,
        };
        core.enrol(&vitals);
        let Life { actor, context, .. } = &mut life;
        let hook = AssertUnwindSafe(async { actor.insert(make()).started(context).await });
        let cause = match hook.catch_unwind().await {
            Ok(Ok(())) => {
                vitals.enter(ActorState::Running);
                vitals.rest();
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

    // Boxed: `ractor` holds such a future twice over in every actor. An actor that stays at its
    // queue makes this one once, and one that waits elsewhere has none.
    fn handle(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        _wake: Self::Msg,
        life: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Box::pin(life.work())
    }

    fn handle_supervisor_evt(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        event: SupervisionEvent,
        life: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Box::pin(life.hear(event))
    }

    async fn post_stop(
        &self,
        _myself: ractor::ActorRef<Self::Msg>,
        life: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match life.stop().await {
            Ok(()) => Ok(()),
            Err(cause) => Err(life.fail(cause, None).await),
        }
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
