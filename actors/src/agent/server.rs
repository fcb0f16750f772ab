//! The actor of one agent: it owns the records of its tasks and starts an actor for each.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use neuroflow_kernel::{
    Actor, Address, Context, Ended, Ending, Header, Name, Parcel, ReplySink, Request, SinkError,
    Spawn,
};

use super::record::{Record, RecordError, new_id};
use super::task::{Begin, TaskActor, TaskParts};
use super::{
    AgentCommand, AgentProfile, AnyAgent, Ask, CancelError, Change, TaskEvent, TaskEvents,
    TaskState, Turn, read,
};
use crate::limits::{KEPT_TASK_BYTES, KEPT_TASKS, LIVE_TASKS, TASK_FOLLOWERS};
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

    async fn begin(&mut self, request: Request<Ask>, context: &mut Context<AgentCommand>) {
        let Request { parcel, replies } = request;
        if self.live.len() >= LIVE_TASKS {
            // Dropped unfinished: the asker sees an interrupted stream without a first event.
            tracing::warn!(agent = %context.path(), tasks = self.live.len(), "too many live tasks");
            return;
        }
        let task = new_id();
        let ask = parcel.get();
        let conversation = ask.context.as_ref().map_or_else(new_id, ToString::to_string);
        let Ok(name) = Name::new(&task) else { return };
        let turn = read::turn(&ask.turn);
        let record = Record::new(task.clone(), conversation);
        self.live.insert(task.clone(), Live { record, followers: vec![replies] });
        self.append(&task, Change::Accepted { turn }, context);

        let parts = TaskParts {
            agent: self.agent.clone(),
            profile: Arc::clone(&self.profile),
            task: task.clone(),
            server: context.address(),
            tools: self.tools.clone(),
            clock: context.clock().clone(),
            tracer: context.tracer(),
        };
        let header = self.task_header(context);
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
    }

    /// The task's own header: it keeps the trace and the budget of the request, but not its
    /// deadline, because the task outlives whoever asked.
    fn task_header(&self, context: &Context<AgentCommand>) -> Header {
        let asked = context.header();
        Header::new()
            .traced(asked.trace())
            .budget(asked.remaining_budget())
            .within(context.clock(), self.profile.task_deadline)
    }

    /// Adds an event to a live task, tells its followers, and files the task when it has ended.
    fn append(&mut self, task: &str, change: Change, context: &Context<AgentCommand>) {
        let Some(live) = self.live.get_mut(task) else { return };
        let wall = context.clock().wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
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

    fn events(&self, task: &str) -> Option<TaskEvents> {
        let live = self.live.get(task).map(|live| &live.record);
        live.or_else(|| self.ended.get(task)).map(|record| record.events().clone())
    }

    async fn cancel(
        &mut self,
        task: &str,
        context: &mut Context<AgentCommand>,
    ) -> Result<TaskEvents, CancelError> {
        if let Some(record) = self.ended.get(task) {
            return Err(CancelError::Ended { state: record.state() });
        }
        if !self.live.contains_key(task) {
            return Err(CancelError::Unknown);
        }
        if let Ok(name) = Name::new(task) {
            // The actor's future is dropped, and with it every reply side that it holds: its tool
            // calls end, and the processes in their cells.
            context.kill_child(&name).await;
        }
        self.append(task, Change::Status { state: TaskState::Canceled, turn: None }, context);
        self.events(task).ok_or(CancelError::Unknown)
    }
}

/// Time that a killed task gets until its parent goes on without waiting for it.
const TASK_KILL: std::time::Duration = std::time::Duration::from_millis(500);

impl Live {
    fn tell(&mut self, event: &Parcel<TaskEvent>) {
        let mut kept = Vec::with_capacity(self.followers.len());
        for follower in self.followers.drain(..).take(TASK_FOLLOWERS) {
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
            AgentCommand::Ask(request) => self.begin(request, context).await,
            AgentCommand::Read { task, reply } => {
                let _gone = reply.send(self.events(&task));
            }
            AgentCommand::Follow { task, events, reply } => {
                let so_far = self.events(&task);
                match self.live.get_mut(&task) {
                    Some(live) => live.followers.push(events),
                    None => events.finish(),
                }
                let _gone = reply.send(so_far);
            }
            AgentCommand::Cancel { task, reply } => {
                let cancelled = self.cancel(&task, context).await;
                let _gone = reply.send(cancelled);
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
