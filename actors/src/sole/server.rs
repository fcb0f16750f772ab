//! Takes requests to where the instance lives, and starts it here if it lives nowhere.
//!
//! Long, because it is one state machine: who asks, who looks, who starts and who ends wait for each other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use neuroflow_kernel::{
    Actor, Address, CallError, ChildSpec, Clock, Context, Ended, Header, Moment, Name, Parcel,
    Refusal, Reply, Request, Restart, RestartPolicy, StartError, StreamError, Supervisor,
    WireRequest,
};

use super::keys::{Due, Errands, Found, Keys, OnItsWay};
use super::looks::Looks;
use super::{Far, MakeServer, Per, Shard, SoleAgent, SoleCommand};
use crate::agent::history::refuse;
use crate::agent::{
    AgentCommand, AgentWay, ArchivedAsk, ArchivedBoundedAsk, ArchivedTaskOrder, Ask, AskRefusal,
    BoundedAsk, TaskEvent, TaskOrder, read,
};
use crate::lease::{Leases, Singleton};
use crate::limits::{LEASE_BACKOFF, SOLE_ANSWER, SOLE_LOOK, SOLE_LOOKS, SOLE_PAUSE};

/// What leads to instances.
pub(super) struct Way {
    pub(super) name: String,
    pub(super) leases: Leases,
    /// Who holds a key.
    pub(super) looks: Looks,
    pub(super) term: Duration,
    pub(super) node: String,
    pub(super) far: Far,
}

pub(super) struct SoleServer {
    agent: SoleAgent,
    way: Arc<Way>,
    server: MakeServer,
    keepers: Option<Supervisor>,
    keys: Keys<Kept>,
    errands: Errands,
    /// Instances are being asked whether they are idle.
    looking: bool,
    /// The node stops.
    leaving: bool,
}

/// A key that this node has, or tries to get.
struct Kept {
    keeper: Singleton<AgentCommand>,
    child: Name,
}

impl SoleServer {
    pub(super) fn new(agent: SoleAgent, way: Arc<Way>, server: MakeServer) -> Self {
        let keys = Keys::new(way.term, agent.idle, agent.most);
        Self {
            agent,
            way,
            server,
            keepers: None,
            keys,
            errands: Errands::default(),
            looking: false,
            leaving: false,
        }
    }

    /// Which instance a request is for; it names its conversation from then on.
    fn shard(&self, request: Request<Ask>) -> Result<(Shard, Request<Ask>), Unfit> {
        let Request { parcel, replies } = request;
        if self.agent.per == Per::Cluster {
            return Ok((Shard::only(&self.way.name), Request { parcel, replies }));
        }
        if let Some(conversation) = parcel.get().context.as_deref() {
            let shard = Shard::of(&self.way.name, Ask::caller(parcel.get()), conversation);
            return Ok((shard, Request { parcel, replies }));
        }
        if parcel.get().task.is_some() {
            // Whose task it is only its conversation tells.
            return Err(Unfit::Refused(AskRefusal::UnknownTask, Request { parcel, replies }));
        }
        let ask = read::ask(parcel.get()).named();
        let conversation = ask.context.as_deref().unwrap_or_default();
        let shard = Shard::of(&self.way.name, ask.caller.as_deref(), conversation);
        match Parcel::archive(&ask) {
            Ok(parcel) => Ok((shard, Request { parcel, replies })),
            Err(_too_long) => {
                replies.fail(StreamError::Mismatch);
                Err(Unfit::Ended)
            }
        }
    }

    fn ask(&mut self, request: Request<Ask>, context: &mut Context<SoleCommand>) {
        let at_ms = context.clock().unix_ms();
        let (shard, request) = match self.shard(request) {
            Ok(found) => found,
            Err(Unfit::Refused(refusal, request)) => return refuse(request, refusal, at_ms),
            Err(Unfit::Ended) => return,
        };
        if let Some(back) = self.bring(shard, request, context) {
            refuse(back, AskRefusal::Busy, at_ms);
        }
    }

    /// What names its conversation, so that it's known which instance has it.
    fn named<W: Brought>(&mut self, request: Request<W>, context: &mut Context<SoleCommand>) {
        let asked = request.parcel.get();
        let shard = match (self.agent.per, W::affinity(asked)) {
            (Per::Cluster, _) => Shard::only(&self.way.name),
            (Per::Conversation, Some(conversation)) => {
                Shard::of(&self.way.name, W::caller(asked), conversation)
            }
            (Per::Conversation, None) => return request.replies.fail(StreamError::Mismatch),
        };
        if let Some(back) = self.bring(shard, request, context) {
            back.replies.fail(StreamError::Overloaded);
        }
    }

    /// Takes a request to its instance; gives it back if as many as may be are on their way.
    fn bring<W: Brought>(
        &mut self,
        shard: Shard,
        mut request: Request<W>,
        context: &mut Context<SoleCommand>,
    ) -> Option<Request<W>> {
        let header = context.onward();
        if let Found::Kept(kept) = self.keys.ask(&shard.key, context.clock().now())
            && let Some((_, here)) = kept.keeper.here()
        {
            match hand_over(&here, header.clone(), request) {
                Err(Some(back)) => request = back,
                Ok(()) | Err(None) => return None,
            }
        }
        let Some(on_its_way) = self.errands.begin() else { return Some(request) };
        let errand = Errand {
            way: Arc::clone(&self.way),
            own: context.address(),
            clock: context.clock().clone(),
            shard,
            header,
            _on_its_way: on_its_way,
        };
        // There is room: fewer are on their way than an actor may have tasks.
        let _full = context.task(errand.run(request)).is_err();
        None
    }

    /// Starts to try for a key: beside this actor, for whoever starts keepers may be busy, and requests for others
    /// mustn't wait for that.
    async fn keep(
        &mut self,
        shard: Shard,
        context: &mut Context<SoleCommand>,
    ) -> Option<Singleton<AgentCommand>> {
        let now = context.clock().now();
        match self.keys.ask(&shard.key, now) {
            Found::Kept(kept) => return Some(kept.keeper.clone()),
            // Another one is begun when that one has ended.
            Found::Ending => return None,
            Found::Nothing => {}
        }
        if !self.way.leases.takes() {
            return None;
        }
        if self.keys.is_full() {
            self.make_room(context);
            return None;
        }
        let (agent, server) = (self.agent.clone(), Arc::clone(&self.server));
        let Shard { key, caller, .. } = shard.clone();
        let make = move |_fence| server(agent.instance(&shard), &shard);
        let (spec, keeper) = match self.way.leases.singleton(&key, self.way.term, make) {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no key for an agent");
                return None;
            }
        };
        // Of a conversation it may end, which is no failure.
        let spec = spec.restart(match self.agent.per {
            Per::Cluster => Restart::Permanent,
            Per::Conversation => Restart::Transient,
        });
        let keepers = self.keepers(context).await?;
        let kept = Kept { keeper: keeper.clone(), child: spec.name().clone() };
        let life = self.keys.insert(key.clone(), caller, kept, now)?;
        let own = context.address();
        let starting = async move {
            if !begun(&keepers, spec).await {
                tell(&own, SoleCommand::Gone { key, life }).await;
            }
        };
        // There is room: as many errands, and one task for each key, are fewer than an actor may have.
        let _full = context.task(starting).is_err();
        Some(keeper)
    }

    async fn keepers(&mut self, context: &mut Context<SoleCommand>) -> Option<Supervisor> {
        if self.keepers.is_none()
            && let Ok(name) = Name::new(KEEPERS)
        {
            self.keepers = context.supervise(name, RestartPolicy::default(), Vec::new()).await.ok();
        }
        self.keepers.clone()
    }

    /// What was kept for a key has ended, or couldn't begin.
    fn gone(&mut self, key: &str, life: u64, context: &mut Context<SoleCommand>) {
        if self.keys.remove(key, life) && self.agent.per == Per::Cluster {
            self.keep_later(context);
        }
    }

    /// Tries for the only key again, after a pause and until it can.
    fn keep_later(&self, context: &mut Context<SoleCommand>) {
        let (own, clock) = (context.address(), context.clock().clone());
        let shard = Shard::only(&self.way.name);
        let later = async move {
            loop {
                clock.sleep(LEASE_BACKOFF.max).await;
                let shard = shard.clone();
                let keep = own.call(Header::new(), |reply| SoleCommand::Keep { shard, reply });
                if let Ok(Some(_tries)) = keep.await {
                    return;
                }
            }
        };
        let _full = context.task(later).is_err();
    }

    /// Gives up keys that others have, and finds out which instances that nobody has asked for long are idle: in a
    /// task, for an instance may be slow to say, and requests for others mustn't wait for that.
    fn sweep(&mut self, context: &mut Context<SoleCommand>) {
        // Who has nobody to leave them to has them to the last.
        if self.leaving && (self.way.far)(ANYWHERE, &self.way.name).is_err() {
            return;
        }
        let now = context.clock().now();
        let (mut over, mut unused) = (Vec::new(), Vec::new());
        for (key, kept, due) in self.keys.due(now, |kept| kept.keeper.here().is_some()) {
            match (due, kept.keeper.here()) {
                (Due::IfIdle, Some((_, here))) => unused.push((key.to_owned(), here)),
                (Due::Ends, _) => over.push(key.to_owned()),
                _ if kept.keeper.is_over() => over.push(key.to_owned()),
                // An instance that was lost meanwhile is looked at again the next time.
                (Due::Stays | Due::IfIdle, _) => {}
            }
        }
        self.end(over, context);
        self.look(unused, usize::MAX, context);
    }

    /// As many conversations live here as may: some of those that have no task end before their time, so that who
    /// asks for another has it at one of its next tries.
    fn make_room(&mut self, context: &mut Context<SoleCommand>) {
        let crowd = self.keys.crowd().into_iter().filter_map(|(key, kept)| {
            let (_, here) = kept.keeper.here()?;
            Some((key.to_owned(), here))
        });
        self.look(crowd.collect(), SOLE_LOOKS, context);
    }

    /// Finds out in a task which of these instances are idle, and ends as many of them, the first ones first.
    fn look(
        &mut self,
        instances: Vec<(String, Address<AgentCommand>)>,
        most: usize,
        context: &mut Context<SoleCommand>,
    ) {
        if instances.is_empty() || self.looking {
            return;
        }
        let (own, clock, now) = (context.address(), context.clock().clone(), context.clock().now());
        // Who waits for a client is to wait on, unless the node stops, which would end it anyway.
        let waiting = !self.leaving;
        let looking = async move {
            let asked = stream::iter(instances).map(|(key, here)| {
                let clock = &clock;
                async move { is_idle(&here, waiting, clock).await.then_some(key) }
            });
            let idle = asked.buffered(SOLE_LOOKS).filter_map(std::future::ready);
            let keys = idle.take(most).collect().await;
            tell(&own, SoleCommand::Idle { keys, since: now }).await;
        };
        self.looking = context.task(looking).is_ok();
    }

    /// Of these instances, which had no task, ends those that nobody has asked meanwhile.
    fn end_idle(
        &mut self,
        mut idle: Vec<String>,
        since: Moment,
        context: &mut Context<SoleCommand>,
    ) {
        self.looking = false;
        idle.retain(|key| self.keys.is_unused_since(key, since));
        self.end(idle, context);
    }

    /// Lets go of all that nobody needs at this moment, until nothing is left: others can have it then, while this
    /// node brings what else it has begun to its end.
    fn leave(&mut self, context: &mut Context<SoleCommand>) {
        self.keys.leave();
        if !std::mem::replace(&mut self.leaving, true) {
            sweep_every(SOLE_PAUSE, context);
        }
    }

    /// Has the instances here tell when none of their tasks works.
    fn drain(&self, reply: Reply<()>, context: &mut Context<SoleCommand>) {
        let here: Vec<_> = self.keys.all().filter_map(|kept| kept.keeper.here()).collect();
        let header = context.onward();
        let draining = async move {
            let drained = here.iter().map(|(_, instance)| {
                instance.call(header.clone(), |reply| AgentCommand::Drain { reply })
            });
            // Of one that was lost there's nothing to wait for.
            let _lost = join_all(drained).await;
            let _gone = reply.send(());
        };
        let _full = context.task(draining).is_err();
    }

    /// Ends keepers, all at a time: each gives its key back, and a database may be slow to take it. Until one has
    /// ended its key isn't forgotten, for it holds that as long as it lives.
    fn end(&mut self, over: Vec<String>, context: &mut Context<SoleCommand>) {
        let Some(keepers) = &self.keepers else { return };
        for key in over {
            let Some((kept, life)) = self.keys.end(&key) else { continue };
            let (keeper, child) = (kept.keeper.clone(), kept.child.clone());
            let (own, keepers) = (context.address(), keepers.clone());
            let ending = async move {
                keeper.end().await;
                // It's another life's turn if it has failed meanwhile.
                while keepers.stop_child(&child).await == Err(CallError::DeadlineExceeded) {}
                tell(&own, SoleCommand::Gone { key, life }).await;
            };
            let _full = context.task(ending).is_err();
        }
    }
}

/// Has the router look what is idle, again and again.
fn sweep_every(pause: Duration, context: &mut Context<SoleCommand>) {
    let (own, clock) = (context.address(), context.clock().clone());
    let sweeping = async move {
        loop {
            clock.sleep(pause).await;
            if own.tell(Header::new(), SoleCommand::Sweep).await.is_err() {
                return;
            }
        }
    };
    let _full = context.task(sweeping).is_err();
}

/// Tells the router what it has to know, however long it takes until there is room, or until it has ended.
async fn tell(router: &Address<SoleCommand>, mut command: SoleCommand) {
    while let Err(late) = router.tell(Header::new(), command).await {
        if !matches!(late.reason, Refusal::Overloaded { .. }) {
            return;
        }
        command = late.message;
    }
}

/// Starts a keeper. One of its name of which nobody knows any more makes way: nobody would ever ask it.
async fn begun(keepers: &Supervisor, spec: ChildSpec) -> bool {
    let mut started = keepers.start(spec.clone()).await;
    if let Err(StartError::Taken { name }) = &started {
        let _none = keepers.stop_child(name).await.is_err();
        started = keepers.start(spec).await;
    }
    if let Err(error) = &started {
        tracing::debug!(error = error as &dyn std::error::Error, "no keeper of a key");
    }
    started.is_ok()
}

/// Why a request isn't taken anywhere.
enum Unfit {
    Refused(AskRefusal, Request<Ask>),
    /// It was told already.
    Ended,
}

async fn is_idle(instance: &Address<AgentCommand>, waiting: bool, clock: &Clock) -> bool {
    let header = Header::new().within(clock, SOLE_ANSWER);
    let live: Result<usize, CallError> =
        instance.call(header, |reply| AgentCommand::Live { waiting, reply }).await;
    live.is_ok_and(|live| live == 0)
}

/// What is brought to an instance.
trait Brought: WireRequest<Reply = TaskEvent> {
    /// Whose conversation it belongs to.
    fn caller(asked: &Self::Archived) -> Option<&str>;

    /// Where it's brought on another node.
    fn there(way: &AgentWay) -> &Address<Request<Self>>
    where
        Self: Sized;

    /// What an instance here takes.
    fn here(request: Request<Self>) -> AgentCommand
    where
        Self: Sized;

    /// What it didn't take.
    fn back(command: AgentCommand) -> Option<Request<Self>>
    where
        Self: Sized;
}

impl Brought for Ask {
    fn caller(ask: &ArchivedAsk) -> Option<&str> {
        ask.caller.as_deref()
    }

    fn there(way: &AgentWay) -> &Address<Request<Self>> {
        &way.asks
    }

    fn here(request: Request<Self>) -> AgentCommand {
        AgentCommand::Ask(request)
    }

    fn back(command: AgentCommand) -> Option<Request<Self>> {
        if let AgentCommand::Ask(request) = command { Some(request) } else { None }
    }
}

impl Brought for BoundedAsk {
    fn caller(bounded: &ArchivedBoundedAsk) -> Option<&str> {
        Ask::caller(&bounded.ask)
    }

    fn there(way: &AgentWay) -> &Address<Request<Self>> {
        &way.bounded
    }

    fn here(request: Request<Self>) -> AgentCommand {
        AgentCommand::BoundedAsk(request)
    }

    fn back(command: AgentCommand) -> Option<Request<Self>> {
        if let AgentCommand::BoundedAsk(request) = command { Some(request) } else { None }
    }
}

impl Brought for TaskOrder {
    fn caller(order: &ArchivedTaskOrder) -> Option<&str> {
        order.caller.as_deref()
    }

    fn there(way: &AgentWay) -> &Address<Request<Self>> {
        &way.orders
    }

    fn here(request: Request<Self>) -> AgentCommand {
        AgentCommand::Order(request)
    }

    fn back(command: AgentCommand) -> Option<Request<Self>> {
        if let AgentCommand::Order(request) = command { Some(request) } else { None }
    }
}

/// Gives the request back if the instance doesn't take it now.
fn hand_over<W: Brought>(
    instance: &Address<AgentCommand>,
    header: Header,
    request: Request<W>,
) -> Result<(), Option<Request<W>>> {
    instance.try_tell(header, W::here(request)).map_err(|unsent| W::back(unsent.message))
}

/// One request on its way.
struct Errand {
    way: Arc<Way>,
    own: Address<SoleCommand>,
    clock: Clock,
    shard: Shard,
    header: Header,
    _on_its_way: OnItsWay,
}

impl Errand {
    /// Tries until an instance has taken the request, its caller has gone, or the time is over: that of the
    /// request, and at most what a lost node's lease needs to end and another to begin.
    async fn run<W: Brought>(self, mut request: Request<W>) {
        let most = self.clock.now() + 2 * self.way.term + SOLE_LOOK;
        let until = self.header.deadline().map_or(most, |deadline| deadline.min(most));
        while self.clock.now() < until && !request.replies.is_closed() {
            match self.step(request, until).await {
                Some(back) => request = back,
                None => return,
            }
            self.clock.sleep(SOLE_PAUSE).await;
        }
        // It was surely not handled.
        request.replies.fail(StreamError::Overloaded);
    }

    /// One try; gives the request back if it wasn't taken.
    async fn step<W: Brought>(&self, request: Request<W>, until: Moment) -> Option<Request<W>> {
        let node = match self.way.looks.holder(&self.shard.key).await {
            Ok(Some(holder)) if holder.node != self.way.node => holder.node,
            // It's for a node that takes the key.
            Ok(None) if !self.way.leases.takes() => ANYWHERE.to_owned(),
            Ok(_here_or_nowhere) => return self.here(request, until).await,
            Err(error) => {
                let error = &*error as &dyn std::error::Error;
                tracing::warn!(agent = self.way.name, error, "the leases can't be asked");
                return Some(request);
            }
        };
        match (self.way.far)(&node, &self.way.name) {
            Ok(there) => {
                let sent = W::there(&there).try_tell(self.header.clone(), request);
                sent.err().map(|unsent| unsent.message)
            }
            // It may be lost, and its lease will end.
            Err(_unreachable) => Some(request),
        }
    }

    async fn here<W: Brought>(&self, request: Request<W>, until: Moment) -> Option<Request<W>> {
        let shard = self.shard.clone();
        let header = Header::new().until(until);
        let keep = self.own.call(header, |reply| SoleCommand::Keep { shard, reply }).await;
        let Ok(Some(mut keeper)) = keep else { return Some(request) };
        let at = until.min(self.clock.now() + SOLE_LOOK);
        match self.clock.before(at, keeper.held()).await {
            Ok(Some((_, instance))) => {
                hand_over(&instance, self.header.clone(), request).err().flatten()
            }
            _ => Some(request),
        }
    }
}

impl Actor for SoleServer {
    type Message = SoleCommand;
    type Error = Infallible;
    const KIND: &'static str = "sole";

    async fn started(&mut self, context: &mut Context<SoleCommand>) -> Result<(), Infallible> {
        if self.agent.per == Per::Cluster {
            // Without being asked, so that there is one, and another when that is lost.
            if self.keep(Shard::only(&self.way.name), context).await.is_none() {
                self.keep_later(context);
            }
            return Ok(());
        }
        sweep_every(self.way.term, context);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SoleCommand,
        context: &mut Context<SoleCommand>,
    ) -> Result<(), Infallible> {
        match command {
            SoleCommand::Ask(request) => self.ask(request, context),
            SoleCommand::BoundedAsk(request) => self.named(request, context),
            SoleCommand::Order(request) => self.named(request, context),
            SoleCommand::Keep { shard, reply } => {
                let keeper = self.keep(shard, context).await;
                let _gone = reply.send(keeper);
            }
            SoleCommand::Sweep => self.sweep(context),
            SoleCommand::Leave => self.leave(context),
            SoleCommand::Drain { reply } => self.drain(reply, context),
            SoleCommand::Idle { keys, since } => self.end_idle(keys, since, context),
            SoleCommand::Gone { key, life } => self.gone(&key, life, context),
        }
        Ok(())
    }

    /// The keepers' supervisor has given up, and they have ended before it. Instances that fail are no reason for
    /// that, so something is wrong with this node; who asks is served again all the same.
    async fn child_ended(
        &mut self,
        _keepers: Ended,
        context: &mut Context<SoleCommand>,
    ) -> Result<(), Infallible> {
        tracing::error!(agent = %context.path(), "the keepers of keys are begun anew");
        self.keepers = None;
        self.keys.clear();
        if self.agent.per == Per::Cluster {
            self.keep_later(context);
        }
        Ok(())
    }
}

/// The supervisor of the keepers.
const KEEPERS: &str = "keys";

/// In place of a node: wherever the agent is placed.
const ANYWHERE: &str = "*";

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use neuroflow_kernel::{Kernel, RemoteError};

    use super::*;
    use crate::agent::{AgentServer, AnyAgent};
    use crate::builtin::Echo;
    use crate::journal::{Journal, JournalServer};

    type Seen = Arc<Mutex<Option<Supervisor>>>;

    /// A router that shows the supervisor of its keepers.
    struct Shown {
        router: SoleServer,
        keepers: Seen,
    }

    impl Actor for Shown {
        type Message = SoleCommand;
        type Error = Infallible;
        const KIND: &'static str = "shown";

        async fn handle(
            &mut self,
            command: SoleCommand,
            context: &mut Context<SoleCommand>,
        ) -> Result<(), Infallible> {
            self.router.handle(command, context).await?;
            let keepers = self.router.keepers.clone();
            *self.keepers.lock().unwrap_or_else(PoisonError::into_inner) = keepers;
            Ok(())
        }

        async fn child_ended(
            &mut self,
            ended: Ended,
            context: &mut Context<SoleCommand>,
        ) -> Result<(), Infallible> {
            self.router.child_ended(ended, context).await
        }
    }

    /// Ends as soon as it's told anything.
    struct Brief;

    impl Actor for Brief {
        type Message = SoleCommand;
        type Error = Infallible;
        const KIND: &'static str = "brief";

        async fn handle(
            &mut self,
            _: SoleCommand,
            context: &mut Context<SoleCommand>,
        ) -> Result<(), Infallible> {
            context.stop();
            Ok(())
        }
    }

    /// Asks for a key until its keeper lives, and so goes on trying for it.
    async fn keep(router: &Address<SoleCommand>, clock: &Clock) -> Singleton<AgentCommand> {
        loop {
            let shard = Shard::of("echo", None, "talk");
            let kept = router.call(Header::new(), |reply| SoleCommand::Keep { shard, reply }).await;
            let soon = clock.now() + Duration::from_millis(50);
            if let Ok(Some(mut keeper)) = kept
                && clock.before(soon, keeper.held()).await.is_err()
            {
                return keeper;
            }
        }
    }

    #[tokio::test]
    async fn keepers_whose_supervisor_has_given_up_are_forgotten_and_begun_anew() {
        let kernel = Kernel::builder().start().await.unwrap();
        let clock = kernel.clock().clone();
        let way = Arc::new(Way {
            name: "echo".to_owned(),
            leases: Leases::nowhere(clock.clone()),
            looks: Looks::at(Leases::nowhere(clock.clone())),
            term: Duration::from_secs(15),
            node: "a".to_owned(),
            far: Arc::new(|node, _| Err(RemoteError::Unreachable { target: node.to_owned() })),
        });
        let (_, nobody) =
            ChildSpec::new("journal", || -> JournalServer { unreachable!() }).unwrap();
        let journal = Journal::new(nobody);
        let server: MakeServer =
            Arc::new(move |agent, _| AgentServer::new(agent, None, journal.clone()));
        let keepers = Seen::default();
        let shown = Arc::clone(&keepers);
        let agent = SoleAgent::sharded(AnyAgent::new(Echo));
        let make = move || Shown {
            router: SoleServer::new(agent.clone(), Arc::clone(&way), Arc::clone(&server)),
            keepers: Arc::clone(&shown),
        };
        let (spec, router) = ChildSpec::new("echo", make).unwrap();
        kernel.root().start(spec).await.unwrap();
        let in_time = || clock.now() + Duration::from_mins(1);
        let mut first = clock.before(in_time(), keep(&router, &clock)).await.unwrap();
        // A child that ends again and again costs the supervisor its patience, and the keepers their lives.
        let keepers = keepers.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap();
        let (spec, brief) = ChildSpec::new("brief", || Brief).unwrap();
        keepers.start(spec).await.unwrap();
        while brief.tell(Header::new(), SoleCommand::Sweep).await.is_ok() {}
        let ended = clock.before(in_time(), first.held()).await.unwrap();
        assert!(ended.is_none(), "its keeper has ended");
        assert!(clock.before(in_time(), keep(&router, &clock)).await.is_ok(), "there is another");
        kernel.stop().await;
    }
}
