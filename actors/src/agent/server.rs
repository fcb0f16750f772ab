//! The actor of one agent: it owns its running tasks and starts an actor for each.
//!
//! Whatever a task says is journaled first, and told once that is durable; a new task begins its work
//! once it's durable that there is one. The journal is never waited for: what is on its way to it is
//! remembered in the task, one append at a time, and what is said meanwhile goes with the next one.

mod again;
mod clients;
mod courier;
mod keep;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use neuroflow_kernel::{
    Actor, Address, Context, Ended, Ending, Header, Name, Parcel, Reply, Request, Spawn,
    StreamError,
};

use super::history::{History, failure, refuse};
use super::live::{Earlier, Live, Origin, Run, effect};
use super::reach::{Reach, bounded};
use super::record::{Record, new_id};
use super::task::{Begin, Left, TaskActor, TaskParts};
use super::trials::{Trial, Trials};
use super::{
    AgentCommand, AgentProfile, AnyAgent, Ask, AskRefusal, BoundedAsk, Change, Incoming, Remains,
    TaskState, read,
};
use crate::access::{Access, CallerGrant};
use crate::held::Holdings;
use crate::journal::{AppendError, Journal, ReadError, TaskHead};
use crate::limits::{LIVE_BYTES, LIVE_TASKS, REMAINS_TIME};
use crate::tools::ToolsCommand;
use again::Suspect;
use clients::answered;
use courier::Courier;

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
    /// The only conversation whose tasks are its own, and whose it is, if there are others like it on this node.
    conversation: Option<(String, Option<String>)>,
    /// Brings appends to the journal, once this life has started.
    courier: Option<Courier>,
    /// What came of appends that were made right here, until it's looked at.
    here: VecDeque<(String, Result<(), AppendError>)>,
    /// Of what waits in the mailbox, what this actor has told itself of its children's ends.
    gone: usize,
    live: HashMap<String, Live>,
    /// What those hold.
    holdings: Holdings,
    /// One more of it for each order of another node that is carried out.
    orders: Arc<()>,
    /// What can't be begun before something else has ended.
    deferred: VecDeque<Deferred>,
    /// What is left of tasks, until it's looked at.
    left: Left,
    /// Who wants to know that no task works.
    drains: Vec<Reply<()>>,
    /// Tasks of an earlier life that aren't all run again at once, and whose turn it is of those of the node.
    suspects: HashMap<String, Suspect>,
    trials: Trials,
    /// Those whose turn it is.
    tried: Vec<(String, Trial)>,
}

type Deferred = BoxFuture<'static, ()>;

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
            conversation: None,
            courier: None,
            here: VecDeque::new(),
            gone: 0,
            live: HashMap::new(),
            holdings: Holdings::within(LIVE_BYTES),
            orders: Arc::default(),
            deferred: VecDeque::new(),
            left: Left::default(),
            drains: Vec::new(),
            suspects: HashMap::new(),
            trials: Trials::default(),
            tried: Vec::new(),
        }
    }

    /// Who knows the rules, under which a task that is run again may use tools. Without, one that was
    /// begun under rules has none then.
    #[must_use]
    pub fn access(mut self, access: Option<Access>) -> Self {
        self.access = access;
        self
    }

    /// Which of the node's interrupted tasks are tried when. Without, this agent has only its own in view.
    #[must_use]
    pub fn trials(mut self, trials: Trials) -> Self {
        self.trials = trials;
        self
    }

    /// For this conversation of this caller only, if it's one: others go on with the tasks of theirs.
    #[must_use]
    pub fn conversation(mut self, conversation: Option<String>, caller: Option<String>) -> Self {
        self.conversation = conversation.map(|conversation| (conversation, caller));
        self
    }

    fn is_own(&self, head: &TaskHead) -> bool {
        self.conversation.as_ref().is_none_or(|(conversation, caller)| {
            *conversation == head.context && *caller == head.caller
        })
    }

    /// A request with bounds is one without, whose task keeps them.
    fn ask_within(&mut self, request: Request<BoundedAsk>, context: &mut Context<AgentCommand>) {
        let Request { parcel, replies } = request;
        let (ask, bounds) = bounded(parcel.get());
        match Parcel::archive(&read::ask(ask)) {
            Ok(parcel) => self.ask(Request { parcel, replies }, Reach::Within(bounds), context),
            // It's less than what has come.
            Err(_too_long) => replies.fail(StreamError::Mismatch),
        }
    }

    fn ask(&mut self, request: Request<Ask>, reach: Reach, context: &mut Context<AgentCommand>) {
        let at_ms = context.clock().unix_ms();
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
            None => self.begin(request, reach, context),
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
        reach: Reach,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        let caller = request.parcel.get().caller.as_deref();
        let bytes = request.parcel.as_raw().as_bytes().len();
        if !self.has_place(caller) || !self.holdings.has_room(caller, bytes) {
            let (tasks, bytes) = (self.live.len(), self.holdings.bytes());
            tracing::warn!(agent = %context.path(), tasks, bytes, "too many live tasks");
            return Err((AskRefusal::Busy, request));
        }
        let task = new_id();
        let Request { parcel, replies } = request;
        let ask = read::ask(parcel.get());
        let conversation = ask.context.clone().unwrap_or_else(new_id);
        let record = Record::new(task.clone(), conversation, ask.caller.clone());
        let mut live = Live::new(record, &self.holdings);
        live.join(replies);
        // Bounds are noted whatever the profile says now, for it may be run again under another one.
        if reach.is_bounded() || self.profile.resumable {
            reach.entry().into_iter().for_each(|caller| live.note(caller));
        }
        let accepted =
            live.append(Change::Accepted { ask }, Origin::Node, context.clock().unix_ms());
        // It keeps the trace and the budget of the request, but not its deadline: the task outlives
        // whoever asked, and keeps its own time.
        let asked = context.header();
        let header = Header::new().traced(asked.trace()).budget(asked.remaining_budget());
        let ask = accepted.and_then(Incoming::of);
        live.run = ask.map(|ask| Run { ask, reach, earlier: Earlier::default(), header });
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
        Ok(())
    }

    /// Whether there's a place for another task of this caller, which has to have fewer than are free: so one alone
    /// gets half of them, and whoever comes then finds one. Whom nobody knows isn't told from others.
    fn has_place(&self, caller: Option<&str>) -> bool {
        let (live, free) = (self.live.len(), LIVE_TASKS.saturating_sub(self.live.len()));
        let Some(caller) = caller else { return free > 0 };
        let has = || self.live.values().filter(|live| live.record.caller() == Some(caller)).count();
        live < free || has() < free
    }

    /// Starts the actor of a task. That it works isn't sent to the journal yet: the actor tells at
    /// once what its function has to say by then, if only that it's at work.
    async fn run(&mut self, task: &str, run: Run, context: &mut Context<AgentCommand>) {
        let Run { ask, reach, earlier, header } = run;
        let parts = TaskParts {
            agent: self.agent.clone(),
            profile: Arc::clone(&self.profile),
            task: task.to_owned(),
            conversation: self
                .live
                .get(task)
                .map(|live| live.record.context().to_owned())
                .unwrap_or_default(),
            server: context.address(),
            tools: self.tools.as_ref().and_then(|tools| reach.narrow(tools)),
            reach,
            clock: context.clock().clone(),
            tracer: context.tracer(),
            earlier,
            left: Arc::clone(&self.left),
        };
        // A task is cancelled by killing its actor, so it gets no time to stop.
        let options = Spawn::default().mailbox(1).stop_within(TASK_KILL);
        let started = match Name::new(task) {
            Ok(name) => context.spawn(name, TaskActor::new(parts), options).await,
            Err(error) => Err(error.into()),
        };
        match started {
            Ok(actor) => {
                if let Some(live) = self.live.get_mut(task) {
                    let working = Change::Status { state: TaskState::Working, turn: None };
                    live.append(working, Origin::Agent, context.clock().unix_ms());
                }
                // A fresh actor with room for one message takes it.
                let _taken = actor.try_tell(header, Begin(ask));
            }
            Err(error) => {
                tracing::error!(%task, error = &error as &dyn std::error::Error, "task not started");
                let end = failure("the task could not be started", "not_started");
                self.append(task, end, context);
            }
        }
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
        self.deferred.extend(self.take_left());
        while let Some(work) = self.deferred.pop_front() {
            if let Err(refused) = context.task(work) {
                self.deferred.push_front(refused.work);
                return;
            }
        }
    }

    /// Tells those who wait for it that no task works which would be lost with this process.
    fn tell_drained(&mut self) {
        if self.drains.is_empty() {
            return;
        }
        let goes_on = self.profile.resumable && self.history.journal.outlives_the_process();
        if goes_on || !self.live.values().any(Live::works) {
            for reply in self.drains.drain(..) {
                let _gone = reply.send(());
            }
        }
    }

    fn take_left(&self) -> impl Iterator<Item = Deferred> + use<> {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.into_iter().map(|Remains(work)| work)
    }
}

/// Time that a killed task gets until its parent goes on without waiting for it.
const TASK_KILL: Duration = Duration::from_millis(500);

/// For whom the message that is handled was sent, if its way was narrowed for somebody.
fn caller_grant(context: &Context<AgentCommand>) -> Option<&CallerGrant> {
    context.grant().and_then(|grant| grant.policy::<CallerGrant>())
}

fn names(head: &TaskHead) -> (String, String, Option<String>) {
    (head.task.clone(), head.context.clone(), head.caller.clone())
}

fn unreadable(task: &str, error: &ReadError) {
    tracing::error!(%task, error = error as &dyn std::error::Error, "a task can't be read");
}

impl Actor for AgentServer {
    type Message = AgentCommand;
    type Error = ReadError;
    const KIND: &'static str = "agent";

    /// Goes on with what an earlier life has left.
    async fn started(&mut self, context: &mut Context<AgentCommand>) -> Result<(), ReadError> {
        self.courier = Courier::begin(self.history.journal.clone(), context);
        for head in self.history.journal.unfinished(&self.history.agent).await? {
            if !self.is_own(&head) {
                continue;
            }
            if let Some(log) = self.history.journal.read(&head.agent, &head.task).await? {
                self.recover(log, context).await;
            }
        }
        self.try_suspects(context);
        self.landed_here(context).await;
        Ok(())
    }

    async fn handle(
        &mut self,
        command: AgentCommand,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), ReadError> {
        match command {
            AgentCommand::Ask(request) => {
                let reach = Reach::of(caller_grant(context));
                self.ask(request, reach, context);
            }
            AgentCommand::BoundedAsk(request) => self.ask_within(request, context),
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
            AgentCommand::Order(request) => self.order(request, context),
            // It's looked at after every message.
            AgentCommand::Leave => {}
            AgentCommand::Wait { task, state, turn, reply } => {
                let at_ms = context.clock().unix_ms();
                if let Some(live) = self.live.get_mut(&task).filter(|live| !live.stranded) {
                    live.wait((state, turn), reply, at_ms);
                }
                self.flush(&task, context);
            }
            AgentCommand::Unread { task, reply } => {
                let unread = self.live.get_mut(&task).map(|live| std::mem::take(&mut live.unread));
                let _gone = reply.send(unread.unwrap_or_default());
            }
            AgentCommand::Keep { task, key, json, reply } => {
                let at_ms = context.clock().unix_ms();
                if let Some(live) = self.live.get_mut(&task).filter(|live| !live.stranded) {
                    match effect(key, json) {
                        Ok(entry) => live.keep(entry, reply, at_ms),
                        Err(error) => tracing::warn!(
                            %task, error = &error as &dyn std::error::Error, "an effect isn't kept"
                        ),
                    }
                }
                self.flush(&task, context);
            }
            AgentCommand::Note { task, entry, kept } => {
                let at_ms = context.clock().unix_ms();
                let goes_on =
                    |live: &&mut Live| !live.stranded && !live.record.state().is_terminal();
                let live = self.live.get_mut(&task).filter(goes_on);
                if live.is_some_and(|live| live.noted(entry, kept, at_ms)) {
                    self.flush(&task, context);
                }
            }
            AgentCommand::Live { waiting, reply } => {
                let counts = |live: &&Live| waiting || !live.record.state().is_interrupted();
                let _gone = reply.send(self.live.values().filter(counts).count());
            }
            AgentCommand::Drain { reply } => {
                self.drains.retain(|waiting| !waiting.is_closed());
                self.drains.push(reply);
            }
            AgentCommand::Landed(landed) => {
                for (task, result) in landed {
                    self.landed(&task, result, context).await;
                }
            }
            AgentCommand::Reread { task, log } => self.end_stranded(&task, log, context),
            AgentCommand::Progress { task, changes } => self.progress(&task, changes, context),
            AgentCommand::Try { task, trial } => self.try_one(task, trial, context).await,
            AgentCommand::Gone { task, change } => {
                self.gone = self.gone.saturating_sub(1);
                self.append(&task, change, context);
            }
        }
        self.landed_here(context).await;
        self.end_trials();
        self.begin_deferred(context);
        self.tell_drained();
        Ok(())
    }

    /// A task waits for something most of the time, and would do so until it's killed: one after
    /// another, that took as long as all of their times together. Tasks that may be run again are
    /// left for the next start, with all that they have begun.
    async fn stopping(&mut self, context: &mut Context<AgentCommand>) {
        let rest = match self.courier.take() {
            Some(courier) => courier.end().await,
            None => Vec::new(),
        };
        let working = self.live.values().filter(|live| live.works()).count();
        if working > 0 && !self.profile.resumable {
            tracing::warn!(agent = %context.path(), tasks = working, "tasks end with their agent");
        }
        let mut ends = Vec::new();
        for (task, mut live) in std::mem::take(&mut self.live) {
            if let Ok(name) = Name::new(&task) {
                context.kill_child(&name).await;
            }
            let at_ms = context.clock().unix_ms();
            if self.profile.resumable {
                live.stood(at_ms);
            } else if !live.stranded {
                live.append(failure("the agent was stopped", "stopped"), Origin::Node, at_ms);
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
        let before = async {
            if !rest.is_empty() {
                // Whatever becomes of them, the appends that come after them tell.
                let _told = self.history.journal.append_all(rest).await;
            }
        };
        let left = self.take_left().filter(|_| !self.profile.resumable);
        let until = context.clock().now() + REMAINS_TIME;
        let after = context.clock().before(until, join_all(left.collect::<Vec<_>>()));
        let ((), _, left) = tokio::join!(biased; before, join_all(ends), after);
        if left.is_err() {
            tracing::warn!(agent = %context.path(), "what is left of some tasks isn't done in time");
        }
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
        let task = ended.name.as_str().to_owned();
        if self.live.get(&task).is_none_or(|live| live.record.state().is_terminal()) {
            return Ok(());
        }
        // The end of a child overtakes what it has sent. So this waits behind that, and changes
        // nothing if the task has told its own end.
        let gone = AgentCommand::Gone { task, change };
        let me = context.address();
        match me.try_tell(Header::new(), gone) {
            Ok(()) => self.gone += 1,
            Err(refused) => self.beside(
                async move {
                    // The only error left is that this agent has ended itself.
                    let _ended = me.tell(Header::new(), refused.message).await;
                },
                context,
            ),
        }
        Ok(())
    }
}
