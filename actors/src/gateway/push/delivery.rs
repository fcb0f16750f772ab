//! The actor of one configuration: follows a task and posts its events, one after the other.
//!
//! It holds no queue: an event that waits for its turn lies with the task, and is asked for when the
//! one before it was taken.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use neuroflow_kernel::{
    Actor, Address, Backoff, Clock, Context, Header, Message, Name, Parcel, ReplyStream,
    TraceContext,
};
use neuroflow_sandbox::Outbound;

use super::places::Places;
use super::retry::{Next, decide};
use super::store::Kept;
use super::webhook::{Posted, post};
use super::{PushCommand, PushOptions, PushPlace, PushStore, PushTask};
use crate::access::{Action, Principal};
use crate::agent::{TaskEvent, TaskState, follow};
use crate::audit::{AuditEvent, AuditId, Verdict};
use crate::exchange::Place;
use crate::gateway::GatewayAgent;
use crate::gateway::json::{Json, write};
use crate::gateway::pauses::Pauses;
use crate::gateway::task_view::{state_after, update};
use crate::limits::{
    AGENT_ANSWER, PUSH_BACKOFF, PUSH_FOLLOW_ATTEMPTS, PUSH_MISSED, PUSH_ORPHANED, PUSH_TIMEOUT,
};

/// What a delivery is started with.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Of its actor.
    pub(super) name: Name,
    pub(super) task: PushTask,
    pub(super) kept: Kept,
    pub(super) webhook: Place,
    /// None for an agent that isn't on this node.
    pub(super) agent: Option<GatewayAgent>,
    pub(super) server: Address<PushCommand>,
    pub(super) outbound: Outbound,
    /// For what the node posts at once.
    pub(super) posts: Arc<Places>,
    /// Where other nodes may have ended it.
    pub(super) store: Arc<dyn PushStore>,
    pub(super) options: PushOptions,
}

/// The one message of a delivery's actor.
pub(super) struct Begin;

impl Message for Begin {
    fn name(&self) -> &'static str {
        "begin"
    }
}

impl Actor for Delivery {
    type Message = Begin;
    type Error = Infallible;
    const KIND: &'static str = "push_delivery";

    async fn handle(
        &mut self,
        _begin: Begin,
        context: &mut Context<Begin>,
    ) -> Result<(), Infallible> {
        let clock = context.clock().clone();
        let why = match self.agent.clone() {
            Some(agent) => self.run(&agent, &clock).await,
            None => self.wait_for_nobody(&clock).await,
        };
        tracing::debug!(
            task = self.task.task,
            config = self.kept.config.id,
            why = why.as_str(),
            "no more push notifications"
        );
        let (task, id, delivery) =
            (self.task.clone(), self.kept.config.id.clone(), self.name.clone());
        let over = PushCommand::Over { task, id, delivery };
        // If the server is gone, so is what it would do.
        let _gone = self.server.tell(Header::new(), over).await;
        context.stop();
        Ok(())
    }
}

/// Why a delivery has nothing more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    TaskEnded,
    TaskGone,
    AgentGone,
    /// The receiver doesn't want it, or must not have it.
    Refused,
    /// The receiver has missed too many.
    Missed,
    /// Whoever wanted it may not be told any more.
    Withdrawn,
    /// At another node.
    Deleted,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::TaskEnded => "task ended",
            Self::TaskGone => "task gone",
            Self::AgentGone => "agent gone",
            Self::Refused => "refused",
            Self::Missed => "missed too many",
            Self::Withdrawn => "right withdrawn",
            Self::Deleted => "deleted",
        }
    }
}

impl Delivery {
    /// The agent may be put back by a restart, which goes on from here.
    async fn wait_for_nobody(&self, clock: &Clock) -> Why {
        let (agent, task, config) = (&self.task.agent, &self.task.task, &self.kept.config.id);
        tracing::warn!(
            agent,
            task,
            config,
            "push notifications of an agent that isn't here; they end in {PUSH_ORPHANED:?}"
        );
        clock.sleep(PUSH_ORPHANED).await;
        Why::AgentGone
    }

    async fn run(&mut self, agent: &GatewayAgent, clock: &Clock) -> Why {
        let (mut missed, mut looked, mut pauses) = (0, 0, Pauses::default());
        loop {
            let header = Header::new().within(clock, AGENT_ANSWER);
            let (caller, after) = (self.kept.caller.as_deref(), Some(self.kept.reached));
            match follow(&agent.address, header, &self.task.task, caller, after).await {
                Ok(Some((so_far, to_come))) => {
                    looked = 0;
                    let told = self.tell_all(agent, (so_far, to_come), &mut missed, clock);
                    if let ControlFlow::Break(why) = told.await {
                        return why;
                    }
                    // Cut off: the rest lies with the task.
                    pauses.wait(self.kept.reached, PUSH_BACKOFF, clock).await;
                }
                Ok(None) => return Why::TaskGone,
                Err(_unanswered) => {
                    looked += 1;
                    if looked >= PUSH_FOLLOW_ATTEMPTS {
                        return Why::AgentGone;
                    }
                    clock.sleep(PUSH_BACKOFF.delay(looked, Backoff::jitter())).await;
                }
            }
        }
    }

    async fn tell_all(
        &mut self,
        agent: &GatewayAgent,
        (so_far, mut to_come): (Vec<Parcel<TaskEvent>>, ReplyStream<Parcel<TaskEvent>>),
        missed: &mut u32,
        clock: &Clock,
    ) -> ControlFlow<Why> {
        for event in so_far {
            self.tell(agent, &event, missed, clock).await?;
        }
        loop {
            match to_come.next().await {
                Some(Ok(event)) => self.tell(agent, &event, missed, clock).await?,
                Some(Err(_cut_off)) => return ControlFlow::Continue(()),
                None => return ControlFlow::Break(Why::TaskEnded),
            }
        }
    }

    /// Posts an event, and keeps that it was.
    async fn tell(
        &mut self,
        agent: &GatewayAgent,
        event: &Parcel<TaskEvent>,
        missed: &mut u32,
        clock: &Clock,
    ) -> ControlFlow<Why> {
        let event = event.get();
        let generation = event.generation.to_native();
        if generation <= self.kept.reached {
            return ControlFlow::Continue(());
        }
        self.kept.reached = generation;
        // What the client itself has said isn't told to it.
        if let Some(response) = update(event)
            && let Ok(body) = write(&Json(&response))
        {
            match self.deliver(agent, (generation, body.into()), clock).await? {
                Next::Delivered => *missed = 0,
                Next::End => return ControlFlow::Break(Why::Refused),
                Next::Skip | Next::Again(_) => *missed += 1,
            }
            let (task, id, delivery) =
                (self.task.clone(), self.kept.config.id.clone(), self.name.clone());
            let reached = |reply| PushCommand::Reached { task, id, delivery, generation, reply };
            // Unkept, it's posted again after a restart; that is what the id in the header is for.
            let _unkept = self.server.call(Header::new(), reached).await;
        }
        if state_after(event).is_some_and(TaskState::is_terminal) {
            return ControlFlow::Break(Why::TaskEnded);
        }
        if *missed >= PUSH_MISSED {
            ControlFlow::Break(Why::Missed)
        } else {
            ControlFlow::Continue(())
        }
    }

    async fn deliver(
        &self,
        agent: &GatewayAgent,
        (generation, body): (u64, Bytes),
        clock: &Clock,
    ) -> ControlFlow<Why, Next> {
        let (begun, mut waited) = (clock.now(), Duration::ZERO);
        let principal = self.kept.creator.principal();
        let id = format!("{}/{generation}", self.task.task);
        let config = &self.kept.config;
        for nth in 1.. {
            let asked = clock.now();
            let place = self.place(&principal, clock).await?;
            // That it has waited for others is not the receiver's doing.
            waited += clock.now().since(asked);
            if !self.kept.creator.is_told(self.options.access.as_ref(), &agent.profile) {
                self.note_withdrawal();
                return ControlFlow::Break(Why::Withdrawn);
            }
            let deadline = clock.now() + PUSH_TIMEOUT;
            let posting = post(&self.outbound, &self.webhook, config, &id, body.clone(), deadline);
            let posted = clock.before(deadline, posting).await;
            let posted = posted.unwrap_or(Posted::TIMED_OUT);
            drop(place);
            let age = clock.now().since(begun).saturating_sub(waited);
            let next = decide(posted.attempt, nth, age, Backoff::jitter());
            self.account(posted, next, nth, body.len());
            match next {
                Next::Again(pause) => clock.sleep(pause).await,
                done => return ControlFlow::Continue(done),
            }
        }
        ControlFlow::Continue(Next::Skip)
    }

    /// A place to post, while the configuration is in force. Where nobody can say that, nothing is posted.
    async fn place(&self, principal: &Principal, clock: &Clock) -> ControlFlow<Why, PushPlace> {
        let mut in_vain = 0_u32;
        loop {
            let place = self.posts.wait(principal).await;
            match self.store.stands(&self.task, &self.kept.config.id).await {
                Ok(true) => return ControlFlow::Continue(place),
                Ok(false) => return ControlFlow::Break(Why::Deleted),
                Err(error) => {
                    let (error, task) = (&error as &dyn std::error::Error, &self.task.task);
                    tracing::warn!(error, task, "whether a push configuration stands isn't known");
                }
            }
            drop(place);
            in_vain = in_vain.saturating_add(1);
            clock.sleep(PUSH_BACKOFF.delay(in_vain, Backoff::jitter())).await;
        }
    }

    /// Logs, counts and notes that nothing more is posted.
    fn note_withdrawal(&self) {
        let principal = self.kept.creator.principal();
        let (task, config) = (&self.task.task, &self.kept.config.id);
        tracing::warn!(
            task,
            config,
            principal = principal.id(),
            "a push configuration is dropped: its creator may not be told of the task any more"
        );
        if let Some(meter) = &self.options.meter {
            meter.push("withdrawn");
        }
        let denied = AuditEvent::Authorisation {
            principal: Some(AuditId::new(principal.id())),
            action: Action::Read.name(),
            resource: AuditId::new(format!("push:{task}:{config}")),
            verdict: Verdict::Denied,
            reason: "withdrawn",
        };
        self.options.audit.note(TraceContext::NONE, denied);
    }

    /// Logs, counts and notes an attempt.
    fn account(&self, posted: Posted, next: Next, nth: u32, bytes: usize) {
        let (config, host) = (&self.kept.config, self.webhook.host());
        if next != Next::Delivered {
            let (task, id) = (&self.task.task, &config.id);
            tracing::warn!(
                task,
                config = id,
                host,
                attempt = nth,
                reason = posted.reason,
                ?next,
                "push notification not taken"
            );
        }
        if let Some(meter) = &self.options.meter {
            meter.push(posted.reason);
        }
        let source = AuditId::new(format!("push:{}:{}", self.task.task, config.id));
        let audit = &self.options.audit;
        if config.authorization.is_some() && posted.reached_the_receiver() {
            let credential = source.clone();
            let (user, purpose) = (AuditId::new("push"), "webhook");
            let used = AuditEvent::CredentialUse { credential, user, purpose };
            audit.note(TraceContext::NONE, used);
        }
        let verdict = match next {
            Next::Delivered => Verdict::Allowed,
            Next::End if posted.reason == "forbidden_address" => Verdict::Denied,
            _ => Verdict::Failed,
        };
        let event = AuditEvent::Egress {
            source,
            host: AuditId::new(host),
            port: self.webhook.port(),
            address: None,
            verdict,
            reason: posted.reason,
            bytes_up: u64::try_from(bytes).unwrap_or(u64::MAX),
            bytes_down: 0,
        };
        audit.note(TraceContext::NONE, event);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};

    use neuroflow_kernel::{ChildSpec, Kernel, ManualClock};

    use super::super::store::PushMemory;
    use super::super::{PushBasis, PushConfig, PushCreator, push_child};
    use super::*;
    use crate::agent::{AgentCommand, AgentProfile};

    /// Has a task that runs on another node: whoever follows it is cut off at once. At last it's gone.
    struct Elsewhere(Arc<AtomicU32>);

    impl Actor for Elsewhere {
        type Message = AgentCommand;
        type Error = Infallible;
        const KIND: &'static str = "elsewhere";

        async fn handle(
            &mut self,
            command: AgentCommand,
            _: &mut Context<AgentCommand>,
        ) -> Result<(), Infallible> {
            let AgentCommand::Follow { events, reply, .. } = command else { return Ok(()) };
            let gone = self.0.fetch_add(1, Ordering::SeqCst) == 6;
            events.cut_off();
            let _gone = reply.send((!gone).then(Vec::new));
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_cuts_off_at_once_is_followed_again_after_growing_pauses() {
        let time = ManualClock::new();
        let kernel = Kernel::builder().clock(time.clock()).start().await.unwrap();
        let followed = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&followed);
        let agent = move || Elsewhere(Arc::clone(&counted));
        let (spec, address) = ChildSpec::new("elsewhere", agent).unwrap();
        kernel.root().start(spec).await.unwrap();
        let (spec, server) = push_child(PushOptions::default(), Vec::new()).unwrap();
        kernel.root().start(spec).await.unwrap();
        let agent = GatewayAgent::new(AgentProfile::new("elsewhere", "Elsewhere."), address);
        let creator = PushCreator::of(&Principal::anonymous(), PushBasis::Ask);
        let config = PushConfig::new("c", "https://example.org/");
        let mut delivery = Delivery {
            name: Name::new("delivery").unwrap(),
            task: PushTask { agent: "elsewhere".to_owned(), task: "t".to_owned() },
            webhook: Place::parse(&config.url).unwrap(),
            kept: Kept { config, caller: None, creator: Box::new(creator), reached: 0 },
            agent: None,
            server,
            outbound: Outbound::new(time.clock()),
            posts: Places::new(1),
            store: Arc::new(PushMemory::default()),
            options: PushOptions::default(),
        };
        let (clock, system, step) = (time.clock(), Clock::system(), Duration::from_millis(50));
        let (mut run, mut waited) = (pin!(delivery.run(&agent, &clock)), Duration::ZERO);
        let why = loop {
            tokio::select! {
                why = &mut run => break why,
                () = system.sleep(Duration::from_millis(2)) => {
                    time.advance(step);
                    waited += step;
                }
            }
        };
        assert_eq!((why, followed.load(Ordering::SeqCst)), (Why::TaskGone, 7));
        let pauses: Duration = (1..=6).map(|nth| PUSH_BACKOFF.delay(nth, 1.0)).sum();
        assert!(waited >= pauses, "{waited:?} is less than {pauses:?}");
        kernel.stop().await;
    }
}
