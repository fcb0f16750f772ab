//! The actor of one agent: it owns its running tasks and starts an actor for each.
//!
//! Whatever a task says is journaled first, and told once that is durable; a new task begins its work
//! once it's durable that there is one. The journal is never waited for: what is on its way to it is remembered in the task, one append at a time, and what
//! is said meanwhile goes with the next one.
//!
//! Long, because every command that reaches an agent, and every end that a task can have, is here.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use neuroflow_kernel::{
    Actor, Address, Context, Ended, Ending, Header, Name, Parcel, Reply, ReplySink, Request,
    Restriction, Spawn,
};

use super::history::{History, failure, refuse, refused};
use super::live::{Live, Origin, Run, effect};
use super::record::{Record, new_id};
use super::resume::{Caller, events, understand};
use super::task::{Begin, TaskActor, TaskParts};
use super::{
    AgentCommand, AgentProfile, AnyAgent, Ask, AskRefusal, CancelError, Change, TaskEvent,
    TaskEvents, TaskState, read,
};
use crate::access::{Access, CallerGrant};
use crate::journal::{AppendError, Entry, EntryKind, Journal, ReadError, TaskHead, TaskLog};
use crate::limits::{JOURNAL_RETRY, JOURNAL_SETTLED, LIVE_TASKS, TASK_FOLLOWERS, UNREAD_MESSAGES};
use crate::tools::ToolsCommand;

/// An agent as an actor.
///
/// ```
/// use neuroflow_actors::{AgentServer, AnyAgent, Echo, Journal};
/// use neuroflow_kernel::{ChildSpec, NameError};
/// fn spec(journal: Journal) -> Result<ChildSpec, NameError> {
///     let agent = AnyAgent::new(Echo);
///     let server = move || AgentServer::new(agent.clone(), None, journal.clone());
///     Ok(ChildSpec::new("echo", server)?.0)
/// }
/// ```
pub struct AgentServer {
    agent: AnyAgent,
    profile: Arc<AgentProfile>,
    tools: Option<Address<ToolsCommand>>,
    /// Whom to ask what may be used by those for whom tasks are run again.
    access: Option<Access>,
    history: History,
    live: HashMap<String, Live>,
    /// What can't be begun before something else has ended.
    deferred: VecDeque<Deferred>,
}

type Deferred = Pin<Box<dyn Future<Output = ()> + Send>>;

impl std::fmt::Debug for AgentServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentServer")
            .field("agent", &self.agent)
            .field("live", &self.live.len())
            .finish_non_exhaustive()
    }
}

impl AgentServer {
    /// The agent, a capability to the tools that it may call, and one to the journal.
    pub fn new(agent: AnyAgent, tools: Option<Address<ToolsCommand>>, journal: Journal) -> Self {
        let profile = Arc::new(agent.profile());
        let history = History { journal, agent: profile.name.clone() };
        Self {
            profile,
            agent,
            tools,
            access: None,
            history,
            live: HashMap::new(),
            deferred: VecDeque::new(),
        }
    }

    /// Who knows the rules, under which a task that is run again may use tools. Without, one that was
    /// begun under rules has none then.
    #[must_use]
    pub fn access(mut self, access: Option<Access>) -> Self {
        self.access = access;
        self
    }

    fn ask(&mut self, request: Request<Ask>, context: &mut Context<AgentCommand>) {
        let at_ms = now_ms(context);
        let taken = match request.parcel.get().task.as_ref().map(ToString::to_string) {
            Some(task) if self.live.get(&task).is_some_and(Live::is_known) => {
                self.proceed(&task, request, context)
            }
            Some(task) => {
                let history = self.history.clone();
                let answer = async move {
                    match history.refusal(&task, &request).await {
                        Ok(refusal) => refuse(request, refusal, at_ms),
                        Err(error) => unreadable(&task, &error),
                    }
                };
                self.beside(answer, context);
                Ok(())
            }
            None => self.begin(request, context),
        };
        if let Err((refusal, request)) = taken {
            tracing::debug!(agent = %context.path(), %refusal, "request refused");
            refuse(request, refusal, at_ms);
        }
    }

    /// Takes a new task: it's journaled, and run once that has landed.
    fn begin(
        &mut self,
        request: Request<Ask>,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        if self.live.len() >= LIVE_TASKS {
            tracing::warn!(agent = %context.path(), tasks = self.live.len(), "too many live tasks");
            return Err((AskRefusal::Busy, request));
        }
        let task = new_id();
        let Request { parcel, replies } = request;
        let ask = read::ask(parcel.get());
        let conversation = ask.context.clone().unwrap_or_else(new_id);
        let mut live = Live::new(Record::new(task.clone(), conversation, ask.caller.clone()));
        live.join(replies);
        if let Some(caller) = self.caller_to_keep(context) {
            live.note(caller);
        }
        live.append(Change::Accepted { ask }, Origin::Node, now_ms(context));
        // It keeps the trace and the budget of the request, but not its deadline: the task outlives
        // whoever asked, and keeps its own time.
        let asked = context.header();
        let header = Header::new().traced(asked.trace()).budget(asked.remaining_budget());
        let (tools, effects) = (self.tools_for(caller_grant(context).cloned()), HashMap::new());
        live.run = Some(Run { ask: parcel, tools, effects, header });
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
        Ok(())
    }

    /// Starts the actor of a task.
    async fn run(&mut self, task: &str, run: Run, context: &mut Context<AgentCommand>) {
        let Run { ask, tools, effects, header } = run;
        let parts = TaskParts {
            agent: self.agent.clone(),
            profile: Arc::clone(&self.profile),
            task: task.to_owned(),
            server: context.address(),
            tools,
            clock: context.clock().clone(),
            tracer: context.tracer(),
            effects,
        };
        // A task is cancelled by killing its actor, so it gets no time to stop.
        let options = Spawn::default().mailbox(1).stop_within(TASK_KILL);
        let started = match Name::new(task) {
            Ok(name) => context.spawn(name, TaskActor::new(parts), options).await,
            Err(error) => Err(error.into()),
        };
        match started {
            Ok(actor) => {
                // A fresh actor with room for one message takes it.
                let _taken = actor.try_tell(header, Begin(ask));
            }
            Err(error) => {
                tracing::error!(%task, error = &error as &dyn std::error::Error, "task not started");
                let end = failure("the task could not be started", "not_started");
                self.append(task, end, Origin::Node, context);
            }
        }
    }

    /// Who asks, if rules say what that may use, which a later run of the task has to know. What they
    /// permit can't be tried out: a rule may forbid one tool, or one level, of all.
    fn caller_to_keep(&self, context: &Context<AgentCommand>) -> Option<Entry> {
        let grant = caller_grant(context).filter(|grant| !grant.is_unrestricted());
        let grant = grant.filter(|_| self.profile.resumable)?;
        // A few short texts can be archived.
        let record = Parcel::archive(&grant.principal().record()).ok()?;
        Some(Entry::new(EntryKind::Caller, record.as_raw().clone()))
    }

    /// The tools, narrowed to what whoever asks may use of them.
    fn tools_for(&self, grant: Option<CallerGrant>) -> Option<Address<ToolsCommand>> {
        let tools = self.tools.as_ref()?;
        match grant {
            // A chain of grants that can't get longer gives nothing at all.
            Some(grant) => tools.attenuate(Restriction::new().policy(grant)).ok(),
            None => Some(tools.clone()),
        }
    }

    /// The tools for a second run, under the rules of this moment. Without rules any more nobody
    /// knows what its caller might use, and so it's nothing.
    fn tools_again(&self, caller: Option<Caller>) -> Option<Address<ToolsCommand>> {
        match caller {
            None => self.tools_for(None),
            Some(Caller::Unknown) => None,
            Some(Caller::Known(principal)) => {
                let (rules, _) = self.access.as_ref()?.rules().ok()?;
                self.tools_for(Some(CallerGrant::new(principal, rules)))
            }
        }
    }

    /// Says something to a task that has begun: its agent goes on if it has waited for that.
    fn proceed(
        &mut self,
        task: &str,
        request: Request<Ask>,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        let ask = read::ask(request.parcel.get());
        let visible = self.live.get_mut(task);
        let visible = visible.filter(|live| live.record.is_visible_to(ask.caller.as_deref()));
        let Some(live) = visible else { return Err((AskRefusal::UnknownTask, request)) };
        if ask.context.as_ref().is_some_and(|context| context != live.record.context()) {
            return Err((AskRefusal::OtherContext, request));
        }
        let state = live.record.state();
        if state.is_terminal() {
            return Err((AskRefusal::Ended { state }, request));
        }
        live.prune();
        let unread = !live.is_asking() && live.unread.len() >= UNREAD_MESSAGES;
        if unread || live.stranded || live.followed() >= TASK_FOLLOWERS {
            return Err((AskRefusal::Busy, request));
        }
        let Request { parcel, replies } = request;
        live.join(replies);
        let at_ms = now_ms(context);
        live.append(Change::Continued { ask }, Origin::Node, at_ms);
        if live.answer(parcel) {
            // Right behind the answer: by that it's known again as one.
            let working = Change::Status { state: TaskState::Working, turn: None };
            live.append(working, Origin::Node, at_ms);
        }
        self.flush(task, context);
        Ok(())
    }

    /// Adds an event to a live task.
    fn append(
        &mut self,
        task: &str,
        change: Change,
        origin: Origin,
        context: &mut Context<AgentCommand>,
    ) {
        let at_ms = now_ms(context);
        let Some(live) = self.live.get_mut(task) else { return };
        if live.stranded && origin == Origin::Agent {
            return;
        }
        live.append(change, origin, at_ms);
        self.flush(task, context);
    }

    /// Sends to the journal what a task has for it, unless something is on its way.
    fn flush(&mut self, task: &str, context: &mut Context<AgentCommand>) {
        let append = self.live.get_mut(task).and_then(|live| live.take_off(&self.profile.name));
        let Some(append) = append else { return };
        let (journal, me, task) =
            (self.history.journal.clone(), context.address(), task.to_owned());
        let flight = async move {
            let result = journal.append(append).await;
            // The only error left is that this agent has ended itself.
            let _ended = me.tell(Header::new(), AgentCommand::Landed { task, result }).await;
        };
        self.beside(flight, context);
    }

    /// Does something beside this actor, now or as soon as there is a place for it.
    fn beside(
        &mut self,
        work: impl Future<Output = ()> + Send + 'static,
        context: &mut Context<AgentCommand>,
    ) {
        let work: Deferred = Box::pin(work);
        if let Err(refused) = context.task(work) {
            self.deferred.push_back(refused.work);
        }
    }

    fn begin_deferred(&mut self, context: &mut Context<AgentCommand>) {
        while let Some(work) = self.deferred.pop_front() {
            if let Err(refused) = context.task(work) {
                self.deferred.push_front(refused.work);
                return;
            }
        }
    }

    async fn landed(
        &mut self,
        task: &str,
        result: Result<(), AppendError>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(task) else { return };
        let Err(error) = result else {
            let over = live.landed();
            if let Some(run) = live.run.take() {
                self.run(task, run, context).await;
            }
            if !over {
                self.flush(task, context);
            } else if let Some(live) = self.live.remove(task) {
                live.finish();
            }
            return;
        };
        tracing::error!(%task, error = &error as &dyn std::error::Error, "a task isn't kept");
        let (known, was_stranded) = (live.is_known(), live.stranded);
        live.lost(&error);
        if !error.is_unknown() {
            refuse_unjoined(live, now_ms(context));
        } else if live.unsettled.is_none() {
            live.unsettled = Some(context.clock().now() + JOURNAL_SETTLED);
        }
        if let Ok(name) = Name::new(task) {
            context.kill_child(&name).await;
        }
        let gone = match error {
            // Nothing can be said about it before the next start.
            AppendError::Broken { .. } | AppendError::Unflushed { .. } => true,
            // What wasn't known to be there is there; else it's another node's now.
            AppendError::Conflict { .. } => !was_stranded,
            error => !known && !error.is_unknown(),
        };
        if gone {
            self.live.remove(task);
        } else {
            self.reread(task, context);
        }
    }

    /// Looks, after a moment, what the journal has of a task.
    fn reread(&mut self, task: &str, context: &mut Context<AgentCommand>) {
        let (history, me, clock) =
            (self.history.clone(), context.address(), context.clock().clone());
        let task = task.to_owned();
        let look = async move {
            clock.sleep(JOURNAL_RETRY).await;
            let log = history.journal.read(&history.agent, &task).await;
            let _ended = me.tell(Header::new(), AgentCommand::Reread { task, log }).await;
        };
        self.beside(look, context);
    }

    /// Ends a stranded task where the journal has it.
    fn end_stranded(
        &mut self,
        task: &str,
        log: Result<Option<TaskLog>, ReadError>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(old) = self.live.get_mut(task) else { return };
        match log {
            Ok(Some(log)) => {
                let (head, entries) = (log.head.clone(), log.head.entries);
                let record = Record::restored(names(&head), events(log), head.generation);
                old.found(record, entries);
                let end = failure("the journal didn't take what the task said", "not_kept");
                old.append(end, Origin::Node, now_ms(context));
                if !head.state.is_terminal() {
                    self.flush(task, context);
                } else if let Some(live) = self.live.remove(task) {
                    live.finish();
                }
            }
            Ok(None) => {
                let now = context.clock().now();
                if !old.is_known() && old.unsettled.is_some_and(|settled| now < settled) {
                    return self.reread(task, context);
                }
                refuse_unjoined(old, now_ms(context));
                self.live.remove(task);
            }
            Err(error) => {
                unreadable(task, &error);
                self.reread(task, context);
            }
        }
    }

    fn follow(
        &mut self,
        task: String,
        caller: Option<String>,
        after: Option<u64>,
        events: ReplySink<Parcel<TaskEvent>>,
        reply: Reply<Option<TaskEvents>>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(&task).filter(|live| live.is_known()) else {
            let history = self.history.clone();
            let answer = async move {
                let found = history.read(&task, caller.as_deref()).await;
                let Some(found) = answered(&task, found) else { return };
                let seen = after.unwrap_or(0);
                // A task that isn't over runs elsewhere, and what it will say isn't known here.
                let is_over = found.as_ref().is_none_or(|(head, _)| head.state.is_terminal());
                let so_far = found.map(|(_, mut events)| {
                    events.retain(|event| event.get().generation > seen);
                    events
                });
                if is_over {
                    events.finish();
                } else {
                    events.cut_off();
                }
                let _gone = reply.send(so_far);
            };
            return self.beside(answer, context);
        };
        if !live.record.is_visible_to(caller.as_deref()) {
            let _gone = reply.send(None);
            return;
        }
        let so_far = live.events_after(after);
        live.prune();
        if live.followed() < TASK_FOLLOWERS {
            live.followers.push(events);
        } else {
            events.cut_off();
        }
        let _gone = reply.send(Some(so_far));
    }

    fn read(
        &mut self,
        task: String,
        caller: Option<String>,
        reply: Reply<Option<TaskEvents>>,
        context: &mut Context<AgentCommand>,
    ) {
        if let Some(live) = self.live.get(&task).filter(|live| live.is_known()) {
            let visible = live.record.is_visible_to(caller.as_deref());
            let _gone = reply.send(visible.then(|| live.events_after(None)));
            return;
        }
        let history = self.history.clone();
        let answer = async move {
            let found = history.read(&task, caller.as_deref()).await;
            if let Some(found) = answered(&task, found) {
                let _gone = reply.send(found.map(|(_, events)| events));
            }
        };
        self.beside(answer, context);
    }

    async fn cancel(
        &mut self,
        task: String,
        caller: Option<String>,
        reply: Reply<Result<TaskEvents, CancelError>>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(&task).filter(|live| live.is_known()) else {
            let history = self.history.clone();
            let answer = async move {
                let found = history.cancel(&task, caller.as_deref()).await;
                if let Some(error) = answered(&task, found) {
                    let _gone = reply.send(Err(error));
                }
            };
            return self.beside(answer, context);
        };
        if !live.record.is_visible_to(caller.as_deref()) {
            let _gone = reply.send(Err(CancelError::Unknown));
            return;
        }
        let state = if live.stranded { TaskState::Failed } else { live.record.state() };
        if state.is_terminal() {
            let _gone = reply.send(Err(CancelError::Ended { state }));
            return;
        }
        if let Ok(name) = Name::new(&task) {
            // The actor's future is dropped, and with it every reply side that it holds: its tool
            // calls end, and the processes in their cells.
            context.kill_child(&name).await;
        }
        live.cancel(reply);
        let end = Change::Status { state: TaskState::Canceled, turn: None };
        self.append(&task, end, Origin::Node, context);
    }

    /// Goes on with a task that the last life of this agent, or of the node, has left; or ends it.
    async fn recover(&mut self, log: TaskLog, context: &mut Context<AgentCommand>) {
        let (head, entries) = (log.head.clone(), log.head.entries);
        let understood = understand(log);
        for damage in &understood.damage {
            tracing::error!(task = %head.task, %damage, "damage of the journal");
        }
        let mut replay = understood.replay;
        let effects = std::mem::take(&mut replay.effects);
        let record = Record::restored(names(&head), understood.events, head.generation);
        let whole = understood.damage.is_empty();
        let resumes = self.profile.resumable && whole && self.live.len() < LIVE_TASKS;
        let mut live = Live::restored(record, entries, replay);
        let task = head.task;
        if let (true, Some(ask)) = (resumes, understood.ask) {
            tracing::info!(%task, events = head.generation, "an interrupted task is run again");
            self.live.insert(task.clone(), live);
            let tools = self.tools_again(understood.caller);
            let run = Run { ask, tools, effects, header: Header::new() };
            self.run(&task, run, context).await;
            return;
        }
        let end = if whole {
            failure("the node ended while the task ran", "interrupted")
        } else {
            failure("the journal of the task is damaged", "damaged")
        };
        live.append(end, Origin::Node, now_ms(context));
        live.stranded = true;
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
    }
}

/// Time that a killed task gets until its parent goes on without waiting for it.
const TASK_KILL: Duration = Duration::from_millis(500);

/// Tells those whose message isn't kept that it isn't.
fn refuse_unjoined(live: &mut Live, at_ms: u64) {
    let (task, conversation) = (live.record.task().to_owned(), live.record.context().to_owned());
    let event = refused(task, conversation, AskRefusal::Unkept, at_ms);
    for follower in live.unjoined() {
        if let Some(event) = event.clone()
            && follower.try_send(event).is_ok()
        {
            follower.finish();
        }
    }
}

/// For whom the message that is handled was sent, if its way was narrowed for somebody.
fn caller_grant(context: &Context<AgentCommand>) -> Option<&CallerGrant> {
    context.grant().and_then(|grant| grant.policy::<CallerGrant>())
}

fn names(head: &TaskHead) -> (String, String, Option<String>) {
    (head.task.clone(), head.context.clone(), head.caller.clone())
}

fn now_ms(context: &Context<AgentCommand>) -> u64 {
    let wall = context.clock().wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

fn unreadable(task: &str, error: &ReadError) {
    tracing::error!(%task, error = error as &dyn std::error::Error, "a task can't be read");
}

/// What the journal says. Without that the reply is dropped, and so the caller told.
fn answered<T>(task: &str, found: Result<T, ReadError>) -> Option<T> {
    found.inspect_err(|error| unreadable(task, error)).ok()
}

impl Actor for AgentServer {
    type Message = AgentCommand;
    type Error = ReadError;
    const KIND: &'static str = "agent";

    /// Goes on with what an earlier life has left.
    async fn started(&mut self, context: &mut Context<AgentCommand>) -> Result<(), ReadError> {
        for head in self.history.journal.unfinished(&self.history.agent).await? {
            if let Some(log) = self.history.journal.read(&head.agent, &head.task).await? {
                self.recover(log, context).await;
            }
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        command: AgentCommand,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), ReadError> {
        match command {
            AgentCommand::Ask(request) => self.ask(request, context),
            AgentCommand::Read { task, caller, reply } => self.read(task, caller, reply, context),
            AgentCommand::Follow { task, caller, after, events, reply } => {
                self.follow(task, caller, after, events, reply, context);
            }
            AgentCommand::List { query, reply } => {
                let history = self.history.clone();
                let answer = async move {
                    if let Some(page) = answered("a list", history.page(query).await) {
                        let _gone = reply.send(page);
                    }
                };
                self.beside(answer, context);
            }
            AgentCommand::Cancel { task, caller, reply } => {
                self.cancel(task, caller, reply, context).await;
            }
            AgentCommand::Wait { task, state, turn, reply } => {
                let at_ms = now_ms(context);
                if let Some(live) = self.live.get_mut(&task) {
                    live.wait((state, turn), reply, at_ms);
                }
                self.flush(&task, context);
            }
            AgentCommand::Unread { task, reply } => {
                let unread = self.live.get_mut(&task).map(|live| std::mem::take(&mut live.unread));
                let _gone = reply.send(unread.unwrap_or_default());
            }
            AgentCommand::Keep { task, key, json, reply } => {
                if let Some(live) = self.live.get_mut(&task).filter(|live| !live.stranded) {
                    match effect(key, json) {
                        Ok(entry) => live.keep(entry, reply),
                        Err(error) => tracing::warn!(
                            %task, error = &error as &dyn std::error::Error, "an effect isn't kept"
                        ),
                    }
                }
                self.flush(&task, context);
            }
            AgentCommand::Landed { task, result } => self.landed(&task, result, context).await,
            AgentCommand::Reread { task, log } => self.end_stranded(&task, log, context),
            AgentCommand::Progress { task, change } => {
                self.append(&task, change, Origin::Agent, context);
            }
            AgentCommand::Gone { task, change } => {
                self.append(&task, change, Origin::Node, context);
            }
        }
        self.begin_deferred(context);
        Ok(())
    }

    /// A task waits for something most of the time, and would do so until it's killed: one after
    /// another, that took as long as all of their times together. Tasks that may be run again are
    /// left for the next start.
    async fn stopping(&mut self, context: &mut Context<AgentCommand>) {
        let mut ends = Vec::new();
        for (task, mut live) in std::mem::take(&mut self.live) {
            if let Ok(name) = Name::new(&task) {
                context.kill_child(&name).await;
            }
            if !self.profile.resumable && !live.stranded {
                live.append(
                    failure("the agent was stopped", "stopped"),
                    Origin::Node,
                    now_ms(context),
                );
            }
            let Some((append, events)) = live.last_append(&self.profile.name) else { continue };
            let journal = &self.history.journal;
            ends.push(async move {
                match journal.append(append).await {
                    Ok(()) => {
                        live.last_landed(events);
                        if live.record.state().is_terminal() {
                            live.finish();
                        }
                    }
                    Err(error) => tracing::warn!(
                        %task, error = &error as &dyn std::error::Error, "a task's end isn't kept"
                    ),
                }
            });
        }
        join_all(ends).await;
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), ReadError> {
        let change = match ended.ending {
            Ending::Failed(_) => failure("the agent failed unexpectedly", "failed"),
            _ => failure("the agent ended without an answer", "unanswered"),
        };
        // The end of a child overtakes what it has sent. So this waits behind that, and changes
        // nothing if the task has told its own end.
        let task = ended.name.as_str().to_owned();
        let gone = AgentCommand::Gone { task, change };
        let me = context.address();
        if let Err(refused) = me.try_tell(Header::new(), gone) {
            self.beside(
                async move {
                    // The only error left is that this agent has ended itself.
                    let _ended = me.tell(Header::new(), refused.message).await;
                },
                context,
            );
        }
        Ok(())
    }
}
