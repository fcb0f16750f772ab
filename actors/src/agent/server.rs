//! The actor of one agent: it owns the records of its tasks and starts an actor for each.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use neuroflow_kernel::{
    Actor, Address, Context, Ended, Ending, Header, Name, Parcel, Reply, ReplySink, Request,
    Restriction, SinkError, Spawn,
};

use super::record::{Record, RecordError, new_id};
use super::task::{Begin, TaskActor, TaskParts};
use super::{
    AgentCommand, AgentProfile, AnyAgent, Ask, AskRefusal, CancelError, Change, TaskCursor,
    TaskEvent, TaskEvents, TaskPage, TaskQuery, TaskState, Turn, read,
};
use crate::access::CallerGrant;
use crate::limits::{KEPT_TASK_BYTES, KEPT_TASKS, LIVE_TASKS, TASK_FOLLOWERS, UNREAD_MESSAGES};
use crate::tools::ToolsCommand;

/// An agent as an actor.
///
/// ```
/// use neuroflow_actors::{AgentServer, AnyAgent, Echo};
/// use neuroflow_kernel::ChildSpec;
/// let agent = AnyAgent::new(Echo);
/// let (spec, _address) = ChildSpec::new("echo", move || AgentServer::new(agent.clone(), None))?;
/// assert_eq!(spec.name().as_str(), "echo");
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
pub struct AgentServer {
    agent: AnyAgent,
    profile: Arc<AgentProfile>,
    tools: Option<Address<ToolsCommand>>,
    live: HashMap<String, Live>,
    ended: HashMap<String, Record>,
    /// Ended tasks, oldest first.
    order: VecDeque<String>,
    ended_bytes: usize,
}

/// A task that runs.
struct Live {
    record: Record,
    followers: Vec<ReplySink<Parcel<TaskEvent>>>,
    /// Where the client's next message goes, while the agent waits for it.
    waiting: Option<Reply<Parcel<Ask>>>,
    /// Messages that came while it didn't.
    unread: Vec<Parcel<Ask>>,
}

impl std::fmt::Debug for AgentServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentServer")
            .field("agent", &self.agent)
            .field("live", &self.live.len())
            .field("ended", &self.ended.len())
            .finish_non_exhaustive()
    }
}

impl AgentServer {
    /// The agent, and a capability to the tools that it may call.
    pub fn new(agent: AnyAgent, tools: Option<Address<ToolsCommand>>) -> Self {
        Self {
            profile: Arc::new(agent.profile()),
            agent,
            tools,
            live: HashMap::new(),
            ended: HashMap::new(),
            order: VecDeque::new(),
            ended_bytes: 0,
        }
    }

    async fn ask(&mut self, request: Request<Ask>, context: &mut Context<AgentCommand>) {
        let taken = match request.parcel.get().task.as_ref().map(ToString::to_string) {
            Some(task) => self.proceed(&task, request, context),
            None => self.begin(request, context).await,
        };
        if let Err((refusal, request)) = taken {
            tracing::debug!(agent = %context.path(), %refusal, "request refused");
            refuse(request, refusal, now_ms(context));
        }
    }

    async fn begin(
        &mut self,
        request: Request<Ask>,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        if self.live.len() >= LIVE_TASKS {
            tracing::warn!(agent = %context.path(), tasks = self.live.len(), "too many live tasks");
            return Err((AskRefusal::Busy, request));
        }
        let task = new_id();
        // A random id in hexadecimal is a name.
        let Ok(name) = Name::new(&task) else { return Err((AskRefusal::Busy, request)) };
        let Request { parcel, replies } = request;
        let ask = read::ask(parcel.get());
        let conversation = ask.context.clone().unwrap_or_else(new_id);
        let record = Record::new(task.clone(), conversation, ask.caller.clone());
        self.live.insert(task.clone(), Live::new(record, replies));
        self.append(&task, Change::Accepted { ask }, context);

        let parts = TaskParts {
            agent: self.agent.clone(),
            profile: Arc::clone(&self.profile),
            task: task.clone(),
            server: context.address(),
            tools: self.tools_for(context),
            clock: context.clock().clone(),
            tracer: context.tracer(),
        };
        // It keeps the trace and the budget of the request, but not its deadline: the task outlives
        // whoever asked, and keeps its own time.
        let asked = context.header();
        let header = Header::new().traced(asked.trace()).budget(asked.remaining_budget());
        // A task is cancelled by killing its actor, so it gets no time to stop.
        let options = Spawn::default().mailbox(1).stop_within(TASK_KILL);
        match context.spawn(name, TaskActor::new(parts), options).await {
            Ok(actor) => {
                // A fresh actor with room for one message takes it.
                let _taken = actor.try_tell(header, Begin(parcel));
            }
            Err(error) => {
                tracing::error!(%task, error = &error as &dyn std::error::Error, "task not started");
                self.fail(&task, "the task could not be started", context);
            }
        }
        Ok(())
    }

    /// The tools, narrowed to what whoever asks may use of them.
    fn tools_for(&self, context: &Context<AgentCommand>) -> Option<Address<ToolsCommand>> {
        let tools = self.tools.as_ref()?;
        match context.grant().and_then(|grant| grant.policy::<CallerGrant>()) {
            // A chain of grants that can't get longer gives nothing at all.
            Some(grant) => tools.attenuate(Restriction::new().policy(grant.clone())).ok(),
            None => Some(tools.clone()),
        }
    }

    /// Says something to a task that has begun: its agent goes on if it has waited for that.
    fn proceed(
        &mut self,
        task: &str,
        request: Request<Ask>,
        context: &Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        let ask = read::ask(request.parcel.get());
        let Some(record) = self.record(task, ask.caller.as_deref()) else {
            return Err((AskRefusal::UnknownTask, request));
        };
        if ask.context.as_ref().is_some_and(|context| context != record.context()) {
            return Err((AskRefusal::OtherContext, request));
        }
        let state = record.state();
        let Some(live) = self.live.get_mut(task) else {
            return Err((AskRefusal::Ended { state }, request));
        };
        live.prune();
        let waiting = live.waiting.take();
        let unread = waiting.is_none() && live.unread.len() >= UNREAD_MESSAGES;
        if unread || live.followers.len() >= TASK_FOLLOWERS {
            live.waiting = waiting;
            return Err((AskRefusal::Busy, request));
        }
        let Request { parcel, replies } = request;
        live.followers.push(replies);
        self.append(task, Change::Continued { ask }, context);
        match waiting {
            Some(waiting) => {
                let working = Change::Status { state: TaskState::Working, turn: None };
                self.append(task, working, context);
                // Gone if the wait is over: the task is about to end then.
                let _gone = waiting.send(parcel);
            }
            None => {
                if let Some(live) = self.live.get_mut(task) {
                    live.unread.push(parcel);
                }
            }
        }
        Ok(())
    }

    /// A task waits for its client: the next message is the answer.
    fn wait(
        &mut self,
        task: &str,
        (state, turn): (TaskState, Turn),
        reply: Reply<Parcel<Ask>>,
        context: &Context<AgentCommand>,
    ) {
        self.append(task, Change::Status { state, turn: Some(turn) }, context);
        if let Some(live) = self.live.get_mut(task) {
            live.waiting = Some(reply);
        }
    }

    /// Adds an event to a live task, tells its followers, and files the task when it has ended.
    fn append(&mut self, task: &str, change: Change, context: &Context<AgentCommand>) {
        let Some(live) = self.live.get_mut(task) else { return };
        let at_ms = now_ms(context);
        match live.record.append(change, at_ms) {
            Ok(event) => live.tell(&event),
            Err(RecordError::Ended { .. }) => return,
            Err(error @ (RecordError::Full | RecordError::Archive(_))) => {
                tracing::warn!(%task, error = &error as &dyn std::error::Error, "task failed");
                let turn = Some(Turn::agent(error.to_string()));
                let end = Change::Status { state: TaskState::Failed, turn };
                if let Ok(event) = live.record.append(end, at_ms) {
                    live.tell(&event);
                }
            }
        }
        if live.record.state().is_terminal() {
            self.file(task);
        }
    }

    fn file(&mut self, task: &str) {
        let Some(live) = self.live.remove(task) else { return };
        live.followers.into_iter().for_each(ReplySink::finish);
        self.ended_bytes += live.record.bytes();
        self.ended.insert(task.to_owned(), live.record);
        self.order.push_back(task.to_owned());
        while self.order.len() > KEPT_TASKS || self.ended_bytes > KEPT_TASK_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(record) = self.ended.remove(&oldest) {
                self.ended_bytes -= record.bytes();
            }
        }
    }

    fn fail(&mut self, task: &str, text: &str, context: &Context<AgentCommand>) {
        let turn = Some(Turn::agent(text));
        self.append(task, Change::Status { state: TaskState::Failed, turn }, context);
    }

    fn record(&self, task: &str, caller: Option<&str>) -> Option<&Record> {
        let live = self.live.get(task).map(|live| &live.record);
        let record = live.or_else(|| self.ended.get(task))?;
        record.is_visible_to(caller).then_some(record)
    }

    fn follow(
        &mut self,
        task: &str,
        caller: Option<&str>,
        after: Option<u64>,
        events: ReplySink<Parcel<TaskEvent>>,
    ) -> Option<TaskEvents> {
        let so_far = self.record(task, caller)?.events_after(after);
        match self.live.get_mut(task) {
            Some(live) => {
                live.prune();
                if live.followers.len() < TASK_FOLLOWERS {
                    live.followers.push(events);
                } else {
                    events.cut_off();
                }
            }
            None => events.finish(),
        }
        Some(so_far)
    }

    fn list(&self, query: &TaskQuery) -> TaskPage {
        let records = self.live.values().map(|live| &live.record).chain(self.ended.values());
        let (mut total, mut places) = (0, Vec::new());
        for record in records.filter(|record| record.fits(query)) {
            total += 1;
            let place = record.place();
            if query.after.as_ref().is_none_or(|after| place > *after) {
                places.push(place);
            }
        }
        let more = places.len() > query.limit;
        if more {
            // Only the page is put in order.
            places.select_nth_unstable(query.limit);
            places.truncate(query.limit);
        }
        places.sort_unstable();
        let events = |place: &TaskCursor| Some(self.record(&place.task, None)?.events().clone());
        let tasks = places.iter().filter_map(events).collect();
        let next = if more { places.pop() } else { None };
        TaskPage { tasks, next, total }
    }

    async fn cancel(
        &mut self,
        task: &str,
        caller: Option<&str>,
        context: &mut Context<AgentCommand>,
    ) -> Result<TaskEvents, CancelError> {
        let state = self.record(task, caller).ok_or(CancelError::Unknown)?.state();
        if state.is_terminal() {
            return Err(CancelError::Ended { state });
        }
        if let Ok(name) = Name::new(task) {
            // The actor's future is dropped, and with it every reply side that it holds: its tool
            // calls end, and the processes in their cells.
            context.kill_child(&name).await;
        }
        self.append(task, Change::Status { state: TaskState::Canceled, turn: None }, context);
        let record = self.record(task, caller).ok_or(CancelError::Unknown)?;
        Ok(record.events().clone())
    }
}

/// Time that a killed task gets until its parent goes on without waiting for it.
const TASK_KILL: std::time::Duration = std::time::Duration::from_millis(500);

/// Tells whoever asked why nothing comes of it.
fn refuse(request: Request<Ask>, refusal: AskRefusal, at_ms: u64) {
    let ask = request.parcel.get();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let event = TaskEvent {
        task: text(ask.task.as_deref()),
        context: text(ask.context.as_deref()),
        generation: 0,
        at_ms,
        change: Change::Refused(refusal),
    };
    // A few short texts can be archived; if nobody listens any more, nobody has to be told.
    if let Ok(event) = Parcel::archive(&event)
        && request.replies.try_send(event).is_ok()
    {
        request.replies.finish();
    }
}

fn now_ms(context: &Context<AgentCommand>) -> u64 {
    let wall = context.clock().wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

impl Live {
    fn new(record: Record, follower: ReplySink<Parcel<TaskEvent>>) -> Self {
        Self { record, followers: vec![follower], waiting: None, unread: Vec::new() }
    }

    /// Lets go of followers that have gone, before the list would grow.
    fn prune(&mut self) {
        if self.followers.len() == self.followers.capacity() {
            self.followers.retain(|follower| !follower.is_closed());
        }
    }

    fn tell(&mut self, event: &Parcel<TaskEvent>) {
        let mut kept = Vec::with_capacity(self.followers.len());
        for follower in self.followers.drain(..) {
            match follower.try_send(event.clone()) {
                Ok(()) => kept.push(follower),
                // It can read the task instead; waiting for it would hold up the others.
                Err(SinkError::Full(_)) => follower.cut_off(),
                Err(_gone) => {}
            }
        }
        self.followers = kept;
    }
}

impl Actor for AgentServer {
    type Message = AgentCommand;
    type Error = Infallible;
    const KIND: &'static str = "agent";

    async fn handle(
        &mut self,
        command: AgentCommand,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), Infallible> {
        match command {
            AgentCommand::Ask(request) => self.ask(request, context).await,
            AgentCommand::Read { task, caller, reply } => {
                let record = self.record(&task, caller.as_deref());
                let _gone = reply.send(record.map(|record| record.events().clone()));
            }
            AgentCommand::Follow { task, caller, after, events, reply } => {
                let so_far = self.follow(&task, caller.as_deref(), after, events);
                let _gone = reply.send(so_far);
            }
            AgentCommand::List { query, reply } => {
                let _gone = reply.send(self.list(&query));
            }
            AgentCommand::Cancel { task, caller, reply } => {
                let cancelled = self.cancel(&task, caller.as_deref(), context).await;
                let _gone = reply.send(cancelled);
            }
            AgentCommand::Wait { task, state, turn, reply } => {
                self.wait(&task, (state, turn), reply, context);
            }
            AgentCommand::Unread { task, reply } => {
                let unread = self.live.get_mut(&task).map(|live| std::mem::take(&mut live.unread));
                let _gone = reply.send(unread.unwrap_or_default());
            }
            AgentCommand::Progress { task, change } => self.append(&task, change, context),
        }
        Ok(())
    }

    /// A task waits for something most of the time, and would do so until it's killed: one after
    /// another, that took as long as all of their times together.
    async fn stopping(&mut self, context: &mut Context<AgentCommand>) {
        for task in self.live.keys().cloned().collect::<Vec<_>>() {
            if let Ok(name) = Name::new(&task) {
                context.kill_child(&name).await;
            }
            self.fail(&task, "the agent was stopped", context);
        }
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), Infallible> {
        let text = match ended.ending {
            Ending::Failed(_) => "the agent failed unexpectedly",
            _ => "the agent ended without an answer",
        };
        // The end of a child overtakes what it has sent. So this waits behind that, and changes
        // nothing if the task has told its own end.
        let task = ended.name.as_str().to_owned();
        let change = Change::Status { state: TaskState::Failed, turn: Some(Turn::agent(text)) };
        let progress = AgentCommand::Progress { task, change };
        let me = context.address();
        if let Err(refused) = me.try_tell(Header::new(), progress) {
            let wait = async move {
                // The only error left is that this agent has ended itself.
                let _ended = me.tell(Header::new(), refused.message).await;
            };
            if context.task(wait).is_err() {
                self.fail(ended.name.as_str(), text, context);
            }
        }
        Ok(())
    }
}
