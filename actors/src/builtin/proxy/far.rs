//! The task on the other node: begun, followed through whatever becomes of the way there, and ended with the one here.

use std::collections::VecDeque;

use neuroflow_kernel::{
    Clock, Header, Moment, Parcel, Refusal, ReplySink, ReplyStream, Request, StreamError,
    WireMessage, reply_stream,
};
use serde::{Deserialize, Serialize};

use super::{End, Loss, Part, ProxyPlace, ProxyRoute, declined};
use crate::agent::{
    AgentError, AgentWay, ArchivedAskRefusal, ArchivedChange, Ask, AskRefusal, BoundedAsk,
    Incoming, Remains, TaskContext, TaskEvent, TaskOrder, TaskWish, read,
};
use crate::limits::{PROXY_ANSWER, PROXY_CANCELS, PROXY_LISTEN, PROXY_PAUSES, PROXY_TRIES};

/// A task on another node. Dropping it while it goes on cancels it there.
pub(super) struct Far {
    way: AgentWay,
    /// None before the other node has told it.
    task: Option<FarTask>,
    context: TaskContext,
    caller: Option<String>,
    events: Option<Events>,
    /// The last event that was heard.
    seen: u64,
    /// Tries since something was heard.
    tries: u32,
    /// When the client was listened to.
    listened: Moment,
    /// What it has said without being asked.
    unasked: VecDeque<Incoming>,
    over: bool,
}

type Events = ReplyStream<Parcel<TaskEvent>>;

#[derive(Clone)]
struct FarTask {
    id: String,
    conversation: String,
}

/// Where a task is, as it's kept for when the one here is run again.
#[derive(Serialize, Deserialize)]
struct Kept {
    node: String,
    task: String,
    conversation: String,
}

/// What a proxy's task hears.
pub(super) enum Heard {
    /// The task elsewhere has told something.
    Event(Parcel<TaskEvent>),
    /// The client has said something without being asked.
    Client(Incoming),
}

impl Far {
    /// Begins the task, or finds the one that an earlier run here has begun.
    pub(super) async fn begin(route: &ProxyRoute, part: &Part<'_>) -> Result<Self, End> {
        if !part.resumable {
            return Self::ask(route, part).await;
        }
        let mut begun = None;
        let key = format!("proxy {}", part.run);
        let beginning = async {
            let far = Self::ask(route, part).await.map_err(Failed::into_error)?;
            let task = far.task.clone().unwrap_or_else(|| FarTask::of("", ""));
            let node = far.way.node.clone();
            begun = Some(far);
            Ok(Kept { node, task: task.id, conversation: task.conversation })
        };
        let kept = part.context.effect(&key, beginning).await;
        match (kept, begun) {
            (Ok(_), Some(far)) => Ok(far),
            (Ok(kept), None) => {
                let Ok(way) = route(ProxyPlace::Node(&kept.node)) else {
                    return Err(End::Lost(Loss::Node));
                };
                let mut far = Self::at(way, part);
                far.task = Some(FarTask::of(&kept.task, &kept.conversation));
                Ok(far)
            }
            (Err(error), _) => Err(Failed::into_end(error)),
        }
    }

    fn at(way: AgentWay, part: &Part<'_>) -> Self {
        Self {
            way,
            task: None,
            context: part.context.clone(),
            caller: part.ask.caller.clone(),
            events: None,
            seen: 0,
            tries: 0,
            listened: part.context.clock().now(),
            unasked: VecDeque::new(),
            over: false,
        }
    }

    /// Asks until a node has taken the request, as long as that has surely not run anywhere.
    async fn ask(route: &ProxyRoute, part: &Part<'_>) -> Result<Self, End> {
        let conversation = part.context.conversation();
        let ask = Ask { task: None, ..part.ask.clone() }.in_context(conversation);
        let opening = Opening::of(ask, part)?;
        let mut last = End::Lost(Loss::Unreachable);
        for nth in 1..=PROXY_TRIES {
            if let Ok(way) = route(ProxyPlace::Conversation(conversation)) {
                let mut far = Self::at(way, part);
                match far.send(&opening).await {
                    Ok(()) => return Ok(far),
                    Err(Unsent::Ended(end)) => return Err(end),
                    Err(Unsent::Later(why)) => last = why,
                }
            }
            pause(part.context.clock(), nth).await;
        }
        Err(last)
    }

    /// Sends the first request, and waits until it's known to be taken.
    async fn send(&mut self, opening: &Opening) -> Result<(), Unsent> {
        let (replies, events) = reply_stream();
        if let Err(reason) = opening.send(&self.way, self.context.header(), replies).await {
            // Nothing was sent, and so there's nothing to be cancelled.
            self.over = true;
            return Err(match reason {
                Refusal::Overloaded { .. } => Unsent::Later(busy()),
                Refusal::Denied(_) | Refusal::TooManyHops { .. } => lost(Loss::Absent),
                _ => Unsent::Later(End::Lost(Loss::Unreachable)),
            });
        }
        let events = self.events.insert(events);
        let first = events.next().await;
        match first {
            Some(Ok(event)) => {
                if let ArchivedChange::Refused(refusal) = &event.get().change {
                    self.over = true;
                    return Err(match refusal {
                        ArchivedAskRefusal::Busy => Unsent::Later(busy()),
                        ArchivedAskRefusal::Unkept => {
                            let text = AskRefusal::Unkept.to_string();
                            Unsent::Later(End::Agent(declined(&text, "refused")))
                        }
                        other => Unsent::Ended(End::refused(other.into())),
                    });
                }
                let event = event.get();
                self.task = Some(FarTask::of(&event.task, &event.context));
                self.seen = event.generation.to_native();
                Ok(())
            }
            Some(Err(error)) if !error.may_have_run() => {
                self.over = true;
                Err(match error {
                    StreamError::Overloaded => Unsent::Later(busy()),
                    StreamError::Stale | StreamError::Stopped => {
                        Unsent::Later(End::Lost(Loss::Unreachable))
                    }
                    StreamError::Mismatch if opening.is_bounded() => lost(Loss::Boundless),
                    _ => lost(Loss::Absent),
                })
            }
            // Whether it was taken nobody knows, and what it's called there neither.
            Some(Err(_)) | None => {
                self.over = true;
                Err(lost(Loss::Node))
            }
        }
    }

    /// The next thing that is heard of either side. Whatever becomes of the way to the other node, nothing is
    /// missed and nothing is heard twice.
    pub(super) async fn next(&mut self, context: &TaskContext) -> Result<Heard, End> {
        loop {
            if let Some(said) = self.unasked.pop_front() {
                return Ok(Heard::Client(said));
            }
            let clock = context.clock();
            let listen = self.listened + PROXY_LISTEN;
            if clock.now() >= listen {
                self.listened = clock.now();
                let said = context.said_meanwhile().await.map_err(End::Agent)?;
                self.unasked.extend(said);
                continue;
            }
            let Some(events) = &mut self.events else {
                self.follow(clock).await?;
                continue;
            };
            let error = match clock.before(listen, events.next()).await {
                Err(_elapsed) => continue,
                Ok(Some(Ok(event))) => {
                    let number = event.get().generation.to_native();
                    let is_known = number != 0 && number <= self.seen;
                    self.seen = self.seen.max(number);
                    self.tries = 0;
                    if is_known {
                        continue;
                    }
                    return Ok(Heard::Event(event));
                }
                Ok(Some(Err(error))) => Some(error),
                Ok(None) => None,
            };
            self.events = None;
            self.missed(error, clock).await?;
        }
    }

    /// Follows the task behind what was heard of it.
    async fn follow(&mut self, clock: &Clock) -> Result<(), End> {
        let Some(task) = &self.task else { return Err(End::Lost(Loss::Node)) };
        let wish = TaskWish::Follow { after: self.seen };
        let order = order(task, self.caller.clone(), wish);
        let parcel = archived(&order)?;
        let header = Header::new().within(clock, PROXY_ANSWER);
        let request = |replies| Request { parcel, replies };
        match self.way.orders.stream(header, request).await {
            Ok(events) => {
                self.events = Some(events);
                Ok(())
            }
            Err(_refused) => self.missed(None, clock).await,
        }
    }

    /// Waits before the next try to follow, or says that there's no use.
    async fn missed(&mut self, error: Option<StreamError>, clock: &Clock) -> Result<(), End> {
        self.tries += 1;
        match error {
            // It told more than fitted, and has the rest.
            Some(StreamError::Lagged) if self.tries == 1 => return Ok(()),
            Some(
                StreamError::Unknown
                | StreamError::Mismatch
                | StreamError::Denied
                | StreamError::Rights,
            ) => return Err(End::Lost(Loss::Forgotten)),
            _ => {}
        }
        if self.tries > PROXY_TRIES {
            return Err(End::Lost(Loss::Node));
        }
        pause(clock, self.tries).await;
        Ok(())
    }

    /// Says something to the task that a later run of the one here doesn't say again: `what` it is, for it alone.
    pub(super) async fn say(
        &mut self,
        part: &Part<'_>,
        said: &Incoming,
        what: &str,
    ) -> Result<(), End> {
        if !part.resumable {
            return self.say_now(part, said).await;
        }
        let key = format!("proxy {} {what}", part.run);
        let saying = async { self.say_now(part, said).await.map_err(Failed::into_error) };
        part.context.effect(&key, saying).await.map_err(Failed::into_end)
    }

    /// Says something to the task, once: what may have been heard isn't repeated.
    async fn say_now(&mut self, part: &Part<'_>, said: &Incoming) -> Result<(), End> {
        let Some(task) = self.task.clone() else { return Err(End::Lost(Loss::Node)) };
        let said = read::ask(said.get());
        let caller = self.caller.clone();
        let ask = Ask { task: Some(task.id), context: Some(task.conversation), caller, ..said };
        let parcel = archived(&ask)?;
        let clock = part.context.clock();
        for nth in 1..=PROXY_TRIES {
            let header = part.context.header();
            let request = |replies| Request { parcel: parcel.clone(), replies };
            if let Ok(mut answer) = self.way.asks.stream(header, request).await {
                match answer.next().await {
                    Some(Ok(event)) => match &event.get().change {
                        ArchivedChange::Refused(ArchivedAskRefusal::Busy) => {}
                        // What it ended with is told by its events.
                        ArchivedChange::Refused(ArchivedAskRefusal::Ended { .. }) => return Ok(()),
                        ArchivedChange::Refused(refusal) => {
                            return Err(End::refused(refusal.into()));
                        }
                        _ => return Ok(()),
                    },
                    Some(Err(error)) if !error.may_have_run() => {}
                    Some(Err(_)) | None => return Err(End::Lost(Loss::Node)),
                }
            }
            pause(clock, nth).await;
        }
        Err(End::Lost(Loss::Node))
    }

    /// The task has ended there.
    pub(super) fn is_over(&mut self) {
        self.over = true;
    }
}

impl Drop for Far {
    /// Nothing is waited for here: the agent's actor does the rest, for as long as it lives.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (way, caller) = (self.way.clone(), self.caller.clone());
        let (task, events, clock) =
            (self.task.take(), self.events.take(), self.context.clock().clone());
        self.context.leave(Remains::new(async move {
            let task = match (task, events) {
                (Some(task), _) => task,
                // It was asked for a moment ago.
                (None, Some(mut events)) => {
                    let at = clock.now() + PROXY_ANSWER;
                    match clock.before(at, events.next()).await {
                        Ok(Some(Ok(event))) => FarTask::of(&event.get().task, &event.get().context),
                        _ => return,
                    }
                }
                (None, None) => return,
            };
            cancel(&way, &task, caller, &clock).await;
        }));
    }
}

/// What a task there is begun with.
enum Opening {
    Whole(Parcel<Ask>),
    Bounded(Parcel<BoundedAsk>),
}

impl Opening {
    fn of(ask: Ask, part: &Part<'_>) -> Result<Self, End> {
        match part.context.bounds(part.tools) {
            None => archived(&ask).map(Self::Whole),
            Some(bounds) => archived(&BoundedAsk { ask, bounds }).map(Self::Bounded),
        }
    }

    fn is_bounded(&self) -> bool {
        matches!(self, Self::Bounded(_))
    }

    async fn send(
        &self,
        way: &AgentWay,
        header: Header,
        replies: ReplySink<Parcel<TaskEvent>>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Whole(parcel) => {
                let request = Request { parcel: parcel.clone(), replies };
                way.asks.tell(header, request).await.map_err(|unsent| unsent.reason)
            }
            Self::Bounded(parcel) => {
                let request = Request { parcel: parcel.clone(), replies };
                way.bounded.tell(header, request).await.map_err(|unsent| unsent.reason)
            }
        }
    }
}

/// Cancels a task on another node, as soon as that can be reached.
async fn cancel(way: &AgentWay, task: &FarTask, caller: Option<String>, clock: &Clock) {
    let Ok(parcel) = Parcel::archive(&order(task, caller, TaskWish::Cancel)) else { return };
    for nth in 1..=PROXY_CANCELS {
        let header = Header::new().within(clock, PROXY_ANSWER);
        let request = |replies| Request { parcel: parcel.clone(), replies };
        if let Ok(mut answer) = way.orders.stream(header, request).await {
            match answer.next().await {
                // Cancelled, or ended before.
                Some(Ok(_)) | None => return,
                Some(Err(StreamError::Unknown | StreamError::Mismatch | StreamError::Denied)) => {
                    break;
                }
                Some(Err(_)) => {}
            }
        }
        pause(clock, nth).await;
    }
    tracing::warn!(task = task.id, node = way.node, "a task on another node isn't cancelled");
}

impl FarTask {
    fn of(id: &str, conversation: &str) -> Self {
        Self { id: id.to_owned(), conversation: conversation.to_owned() }
    }
}

fn order(task: &FarTask, caller: Option<String>, wish: TaskWish) -> TaskOrder {
    TaskOrder { task: task.id.clone(), context: task.conversation.clone(), caller, wish }
}

fn archived<M: WireMessage>(message: &M) -> Result<Parcel<M>, End> {
    Parcel::archive(message).map_err(|error| End::Agent(error.into()))
}

async fn pause(clock: &Clock, nth: u32) {
    clock.sleep(PROXY_PAUSES.delay(nth, 0.0)).await;
}

fn busy() -> End {
    End::Agent(declined(&AskRefusal::Busy.to_string(), "busy"))
}

fn lost(loss: Loss) -> Unsent {
    Unsent::Ended(End::Lost(loss))
}

/// Why a request isn't taken.
enum Unsent {
    /// It surely didn't run, and may be taken a little later; otherwise that is the end.
    Later(End),
    Ended(End),
}

/// An end on its way through an effect, which takes errors of agents only.
#[derive(Debug, thiserror::Error)]
#[error("the task wasn't begun elsewhere")]
struct Failed(Loss);

impl Failed {
    fn into_error(end: End) -> AgentError {
        match end {
            End::Lost(loss) => AgentError::failed(Self(loss)),
            End::Agent(error) => error,
        }
    }

    fn into_end(error: AgentError) -> End {
        match error {
            AgentError::Failed(source) => match source.downcast_ref::<Self>() {
                Some(Self(loss)) => End::Lost(*loss),
                None => End::Agent(AgentError::Failed(source)),
            },
            error => End::Agent(error),
        }
    }
}
