//! The server for push notifications: keeps the configurations, and has one supervised actor per
//! configuration that delivers. Long, because places, configurations and what the store has to take of them
//! are one state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Context, Ended, Ending, Header, Name, Reply, Spawn, StartError, TraceContext,
};
use neuroflow_sandbox::{Outbound, OutboundError};

use super::delivery::{Begin, Delivery};
use super::places::Places;
use super::store::{Kept, PushMemory, fold};
use super::webhook::{self, check};
use super::{
    PushCommand, PushConfig, PushError, PushOptions, PushPlace, PushRecord, PushShared, PushStore,
    PushStoreError, PushTask,
};
use crate::access::Principal;
use crate::audit::{AuditEvent, AuditId, Digest, Verdict};
use crate::exchange::Place;
use crate::gateway::GatewayAgent;
use crate::limits::{PUSH_CONFIGS, PUSH_LIVES};

/// The server for push notifications as an actor. Made by [`push_child`](super::push_child).
#[derive(Debug)]
pub(super) struct PushServer {
    options: PushOptions,
    store: Arc<dyn PushStore>,
    agents: BTreeMap<String, GatewayAgent>,
    outbound: Option<Outbound>,
    shared: Shared,
    tasks: BTreeMap<PushTask, BTreeMap<String, Live>>,
    /// Whose actors they are, by name.
    names: BTreeMap<Name, (PushTask, String)>,
    /// Tasks of which the store has something to take, and what waits for that. So what many deliveries
    /// have reached shares a commit, and what is said of one task keeps its order.
    landing: BTreeMap<PushTask, VecDeque<PushCommand>>,
}

/// What outlives the actor.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// For as many configurations as there may be.
    places: Arc<Places>,
    /// For as many posts as there may be at once.
    posts: Arc<Places>,
    /// Deliveries so far. What one of an earlier life has said may still lie in the mailbox, so none is named
    /// like another.
    started: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn new(options: &PushOptions) -> Self {
        let (places, posts) = (Places::new(options.deliveries), Places::new(options.posts.max(1)));
        Self { places, posts, started: Arc::default() }
    }
}

/// A configuration and its actor.
#[derive(Debug)]
struct Live {
    kept: Kept,
    actor: Name,
    lives: u32,
    /// None for one that was kept when there might be more.
    place: Option<PushPlace>,
}

/// A configuration whose deliveries are to begin.
#[derive(Debug)]
struct Due {
    kept: Kept,
    webhook: Place,
    lives: u32,
    place: Option<PushPlace>,
}

/// Why the server doesn't start.
///
/// ```
/// fn names_the_store(error: &neuroflow_actors::PushStartError) -> bool {
///     matches!(error, neuroflow_actors::PushStartError::Store(_))
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushStartError {
    /// What was kept can't be read.
    #[error("the push configurations that were kept can't be read")]
    Store(#[from] PushStoreError),
    /// A certificate to trust is none.
    #[error("a certificate to trust for webhooks can't be used")]
    Trust(#[from] OutboundError),
    /// The deliveries of a configuration that was kept don't begin.
    #[error("the deliveries of a push configuration that was kept can't be started")]
    Delivery(#[from] StartError),
}

impl PushServer {
    pub(super) fn new(options: PushOptions, agents: Vec<GatewayAgent>, shared: Shared) -> Self {
        let store = options.store.clone().unwrap_or_else(|| Arc::new(PushMemory::default()));
        let agents = agents.into_iter().map(|agent| (agent.profile.name.clone(), agent)).collect();
        let (tasks, names, landing) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { options, store, agents, outbound: None, shared, tasks, names, landing }
    }

    /// Checks all that can be checked of a configuration before it's kept. Says whether it would
    /// replace another of its creator's.
    fn check(
        &self,
        agent: &str,
        task: Option<&PushTask>,
        by: &Principal,
        config: &PushConfig,
        others: &Others,
    ) -> Result<(Place, bool), PushError> {
        let Some(outbound) = &self.outbound else { return Err(PushError::Full) };
        let webhook = check(config, outbound)?;
        if !self.agents.contains_key(agent) {
            return Err(PushError::UnknownAgent { agent: agent.to_owned() });
        }
        let here = task.and_then(|task| self.kept(task, &config.id));
        let mut same = here.into_iter().chain(others.get(&config.id)).peekable();
        let is_there = same.peek().is_some();
        if same.any(|kept| !kept.creator.is(by)) {
            return Err(PushError::Taken);
        }
        let has = task.map_or(0, |task| self.of(task, by).count()) + of(others, by).count();
        if !is_there && has >= PUSH_CONFIGS {
            return Err(PushError::TooMany);
        }
        Ok((webhook, here.is_some()))
    }

    fn kept(&self, task: &PushTask, id: &str) -> Option<&Kept> {
        self.tasks.get(task)?.get(id).map(|live| &live.kept)
    }

    /// What other nodes have of a task. What they have ended of this one's ends here.
    async fn others(
        &mut self,
        task: &PushTask,
        context: &mut Context<PushCommand>,
    ) -> Result<Others, PushStoreError> {
        let Some(PushShared { own, others }) = self.store.shared(task).await? else {
            return Ok(Others::new());
        };
        let here = self.tasks.get(task).into_iter().flat_map(BTreeMap::keys);
        let ended: Vec<String> = here.filter(|id| !own.contains(id)).cloned().collect();
        for id in ended {
            self.kill(task, &id, context).await;
        }
        Ok(fold(others))
    }

    /// The configurations of a task that a principal has made. Those of others, and what these send as their
    /// credentials, are none of its business.
    fn of(&self, task: &PushTask, by: &Principal) -> impl Iterator<Item = &PushConfig> {
        let all = self.tasks.get(task).into_iter().flat_map(BTreeMap::values);
        all.filter(move |live| live.kept.creator.is(by)).map(|live| &live.kept.config)
    }

    async fn reserve(
        &mut self,
        agent: &str,
        task: Option<String>,
        (by, config): (&Principal, &PushConfig),
        context: &mut Context<PushCommand>,
    ) -> Result<Option<PushPlace>, PushError> {
        let task = task.map(|task| PushTask { agent: agent.to_owned(), task });
        let others = match &task {
            Some(task) => self.others(task, context).await?,
            None => Others::new(),
        };
        match self.check(agent, task.as_ref(), by, config, &others)? {
            (_, true) => Ok(None),
            (_, false) => self.shared.places.take(by).map(Some).ok_or(PushError::Full),
        }
    }

    async fn create(
        &mut self,
        task: PushTask,
        mut kept: Kept,
        place: Option<PushPlace>,
        context: &mut Context<PushCommand>,
    ) -> Result<(), PushError> {
        let by = kept.creator.principal();
        let others = self.others(&task, context).await?;
        let (webhook, replaces) =
            self.check(&task.agent, Some(&task), &by, &kept.config, &others)?;
        // One that comes with each message goes on where it was, as it was or as it is now: nothing is left out.
        let (here, there) = (self.kept(&task, &kept.config.id), others.get(&kept.config.id));
        let moves = there.is_some();
        if let (Some(same), true) = (here.or(there), kept.creator.came_with_message()) {
            kept.reached = same.reached;
            if *same == kept && !moves {
                return Ok(());
            }
        }
        let config = &kept.config;
        let free = || if replaces { None } else { self.shared.places.take(&by) };
        let place = place.or_else(free);
        if place.is_none() && !replaces {
            return Err(PushError::Full);
        }
        let changed = AuditEvent::ConfigChanged {
            part: "push",
            digest: Digest::of(format!("{} {}", task.task, config.url).as_bytes()),
            verdict: Verdict::Allowed,
        };
        self.options.audit.decide(context.onward(), changed).await?;
        self.store.append(&task, &kept.to_record()).await?;
        let former = if replaces { self.kill(&task, &config.id, context).await } else { None };
        let place = place.or_else(|| former.and_then(|former| former.place));
        let id = config.id.clone();
        let due = Due { kept, webhook, lives: 1, place };
        if let Err(error) = self.deliver(task.clone(), due, context).await {
            // Who hears that it isn't there must not be told of anything after the next start.
            self.forget(&task, &id).await;
            return Err(error.into());
        }
        if moves {
            // Behind that, so that nothing is left out in between; who asks again does this again.
            self.store.withdraw(&task, &id, &by).await?;
        }
        Ok(())
    }

    /// Starts the actor of a configuration.
    async fn deliver(
        &mut self,
        task: PushTask,
        due: Due,
        context: &mut Context<PushCommand>,
    ) -> Result<(), StartError> {
        let Due { kept, webhook, lives, place } = due;
        let agent = self.agents.get(&task.agent).cloned();
        let nth = self.shared.started.fetch_add(1, Ordering::Relaxed);
        let name = Name::new(format!("delivery-{nth}"))?;
        let id = kept.config.id.clone();
        let delivery = Delivery {
            name: name.clone(),
            task: task.clone(),
            kept: kept.clone(),
            webhook,
            agent,
            server: context.address(),
            // There is one since the start of this actor.
            outbound: self
                .outbound
                .clone()
                .unwrap_or_else(|| Outbound::new(context.clock().clone())),
            posts: Arc::clone(&self.shared.posts),
            store: Arc::clone(&self.store),
            options: self.options.clone(),
        };
        let options = Spawn::default().mailbox(1).stop_within(DELIVERY_KILL);
        let actor = context.spawn(name.clone(), delivery, options).await?;
        // A fresh actor with room for one message takes it.
        let _taken = actor.try_tell(Header::new(), Begin);
        self.names.insert(name.clone(), (task.clone(), id.clone()));
        let live = Live { kept, actor: name, lives, place };
        self.tasks.entry(task).or_default().insert(id, live);
        Ok(())
    }

    fn remove(&mut self, task: &PushTask, id: &str) -> Option<Live> {
        let configs = self.tasks.get_mut(task)?;
        let live = configs.remove(id);
        if configs.is_empty() {
            self.tasks.remove(task);
        }
        if let Some(live) = &live {
            self.names.remove(&live.actor);
        }
        live
    }

    async fn kill(
        &mut self,
        task: &PushTask,
        id: &str,
        context: &mut Context<PushCommand>,
    ) -> Option<Live> {
        let live = self.remove(task, id)?;
        context.kill_child(&live.actor).await;
        Some(live)
    }

    async fn delete(
        &mut self,
        task: &PushTask,
        by: &Principal,
        id: &str,
        context: &mut Context<PushCommand>,
    ) -> Result<bool, PushError> {
        let others = self.others(task, context).await?;
        let is_here = self.of(task, by).any(|config| config.id == id);
        let is_there = of(&others, by).any(|config| config.id == id);
        if !is_here && !is_there {
            return Ok(false);
        }
        let changed = AuditEvent::ConfigChanged {
            part: "push_deleted",
            digest: Digest::of(format!("{} {id}", task.task).as_bytes()),
            verdict: Verdict::Allowed,
        };
        self.options.audit.decide(context.onward(), changed).await?;
        if is_there {
            self.store.withdraw(task, id, by).await?;
        }
        if is_here {
            self.store.append(task, &PushRecord::Ended { id: id.to_owned() }).await?;
            self.kill(task, id, context).await;
        }
        Ok(true)
    }

    /// Tells which configurations of a task a principal has made, wherever they are.
    fn list(
        &self,
        task: PushTask,
        by: Principal,
        reply: Reply<Result<Vec<PushConfig>, PushError>>,
        context: &mut Context<PushCommand>,
    ) {
        let by_id = |config: &PushConfig| (config.id.clone(), config.clone());
        let mut here: BTreeMap<_, _> = self.of(&task, &by).map(by_id).collect();
        let store = Arc::clone(&self.store);
        let list = async move {
            let listed = store.shared(&task).await.map(|shared| {
                if let Some(PushShared { own, others }) = shared {
                    here.retain(|id, _| own.contains(id));
                    here.extend(of(&fold(others), &by).map(by_id));
                }
                here.into_values().collect()
            });
            let _gone = reply.send(listed.map_err(PushError::from));
        };
        // Where there is no room for it, the reply that is dropped says so.
        let _full = context.task(list);
    }

    /// Has the store keep how far a delivery has come, beside what others have reached.
    fn reached(
        &mut self,
        task: PushTask,
        (id, delivery, generation): (String, Name, u64),
        reply: Reply<()>,
        context: &mut Context<PushCommand>,
    ) {
        let live = self.tasks.get_mut(&task).and_then(|configs| configs.get_mut(&id));
        let Some(live) = live.filter(|live| live.actor == delivery) else {
            let _gone = reply.send(());
            return;
        };
        live.kept.reached = generation;
        let (store, me) = (Arc::clone(&self.store), context.address());
        let of = task.clone();
        let keep = async move {
            let record = PushRecord::Reached { id, generation };
            if let Err(error) = store.append(&of, &record).await {
                let (error, task) = (&error as &dyn std::error::Error, &of.task);
                tracing::warn!(error, task, "how far a push delivery has come isn't kept");
            }
            let _gone = reply.send(());
            // The only error is that this actor has ended.
            let _ended = me.tell(Header::new(), PushCommand::Landed { task: of }).await;
        };
        // Where there is no room for it, the reply says nothing: it's posted again after a restart.
        if context.task(keep).is_ok() {
            self.landing.insert(task, VecDeque::new());
        }
    }

    /// Does what has waited for the store, up to what the store has to take next.
    async fn landed(&mut self, task: PushTask, context: &mut Context<PushCommand>) {
        let mut waiting = self.landing.remove(&task).unwrap_or_default();
        while let Some(command) = waiting.pop_front() {
            self.obey(command, context).await;
            if let Some(landing) = self.landing.get_mut(&task) {
                landing.append(&mut waiting);
                return;
            }
        }
    }

    async fn over(&mut self, task: &PushTask, id: &str, delivery: &Name) {
        let live = self.tasks.get(task).and_then(|configs| configs.get(id));
        // The end of one that was replaced isn't that of its successor.
        if live.is_some_and(|live| live.actor == *delivery) && self.remove(task, id).is_some() {
            self.forget(task, id).await;
        }
    }

    /// Keeps that there is no such configuration any more.
    async fn forget(&self, task: &PushTask, id: &str) {
        let record = PushRecord::Ended { id: id.to_owned() };
        if let Err(error) = self.store.append(task, &record).await {
            // The next start finds the task's end delivered, and comes to the same.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, task = task.task, "the end of a push configuration isn't kept");
        }
    }
}

/// What other nodes have of a task, by the ids of the configurations.
type Others = BTreeMap<String, Kept>;

/// Those of them that a principal has made.
fn of<'a>(others: &'a Others, by: &'a Principal) -> impl Iterator<Item = &'a PushConfig> {
    others.values().filter(move |kept| kept.creator.is(by)).map(|kept| &kept.config)
}

/// Time that a delivery gets when the node stops: what it was posting is posted again.
const DELIVERY_KILL: Duration = Duration::from_millis(100);

impl Actor for PushServer {
    type Message = PushCommand;
    type Error = PushStartError;
    const KIND: &'static str = "push";

    async fn started(&mut self, context: &mut Context<PushCommand>) -> Result<(), PushStartError> {
        let outbound = Outbound::new(context.clock().clone());
        let outbound = outbound.allow_private(self.options.allow_private);
        self.outbound = Some(outbound.trust(&self.options.roots)?);
        for (task, records) in self.store.load().await? {
            for kept in fold(records).into_values() {
                match webhook::place(&kept.config.url) {
                    Ok(webhook) => {
                        let place = self.shared.places.take_again(&kept.creator.principal());
                        let due = Due { kept, webhook, lives: 1, place };
                        self.deliver(task.clone(), due, context).await?;
                    }
                    Err(error) => {
                        let (task_id, id) = (&task.task, &kept.config.id);
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            task = task_id,
                            config = id,
                            "a push configuration that was kept isn't valid, and is dropped"
                        );
                        self.forget(&task, id).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        command: PushCommand,
        context: &mut Context<PushCommand>,
    ) -> Result<(), PushStartError> {
        match command {
            PushCommand::Landed { task } => self.landed(task, context).await,
            command => match command.writes().and_then(|task| self.landing.get_mut(task)) {
                Some(waiting) => waiting.push_back(command),
                None => self.obey(command, context).await,
            },
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<PushCommand>,
    ) -> Result<(), PushStartError> {
        let Some((task, id)) = self.names.get(&ended.name).cloned() else { return Ok(()) };
        // One that has come to its end has said so, and that is on its way.
        if !matches!(ended.ending, Ending::Failed(_)) {
            return Ok(());
        }
        let Some(live) = self.tasks.get(&task).and_then(|configs| configs.get(&id)) else {
            return Ok(());
        };
        let (kept, lives) = (live.kept.clone(), live.lives + 1);
        let begun = match webhook::place(&kept.config.url) {
            Ok(webhook) if lives <= PUSH_LIVES => {
                let place = self.remove(&task, &id).and_then(|live| live.place);
                let due = Due { kept: kept.clone(), webhook, lives, place };
                let begun = self.deliver(task.clone(), due, context).await.is_ok();
                if !begun {
                    // It's still known, and what is known is forgotten in its turn.
                    let live = Live { kept, actor: ended.name.clone(), lives, place: None };
                    self.tasks.entry(task.clone()).or_default().insert(id.clone(), live);
                }
                begun
            }
            _ => false,
        };
        if !begun {
            tracing::warn!(
                task = task.task,
                config = id,
                "a push configuration is dropped: its delivery fails again and again"
            );
            let over = PushCommand::Over { task, id, delivery: ended.name };
            return self.handle(over, context).await;
        }
        Ok(())
    }
}

impl PushCommand {
    /// The task whose records it changes.
    fn writes(&self) -> Option<&PushTask> {
        match self {
            Self::Create { task, .. }
            | Self::Delete { task, .. }
            | Self::Reached { task, .. }
            | Self::Over { task, .. } => Some(task),
            Self::Reserve { .. } | Self::List { .. } | Self::Landed { .. } => None,
        }
    }
}

impl PushServer {
    /// Does what it's told. Who doesn't wait for an answer any more has been served all the same.
    async fn obey(&mut self, command: PushCommand, context: &mut Context<PushCommand>) {
        match command {
            PushCommand::Reserve { agent, task, by, config, reply } => {
                let reserved = self.reserve(&agent, task, (&by, &config), context).await;
                if let Err(error) = &reserved {
                    self.note_refusal(error);
                }
                let _gone = reply.send(reserved);
            }
            PushCommand::Create { task, caller, creator, config, after, place, reply } => {
                let kept = Kept { config, caller, creator, reached: after };
                let created = self.create(task, kept, place, context).await;
                if let Err(error) = &created {
                    self.note_refusal(error);
                }
                let _gone = reply.send(created);
            }
            PushCommand::List { task, by, reply } => {
                self.list(task, by, reply, context);
            }
            PushCommand::Delete { task, by, id, reply } => {
                let deleted = self.delete(&task, &by, &id, context).await;
                let _gone = reply.send(deleted);
            }
            PushCommand::Reached { task, id, delivery, generation, reply } => {
                self.reached(task, (id, delivery, generation), reply, context);
            }
            PushCommand::Over { task, id, delivery } => self.over(&task, &id, &delivery).await,
            // What has landed is seen to before anything is obeyed.
            PushCommand::Landed { .. } => {}
        }
    }
}

impl PushServer {
    fn note_refusal(&self, error: &PushError) {
        if let PushError::Url(problem) = error {
            let event = AuditEvent::Egress {
                source: AuditId::new("push"),
                host: AuditId::new("-"),
                port: 0,
                address: None,
                verdict: Verdict::Denied,
                reason: problem.code(),
                bytes_up: 0,
                bytes_down: 0,
            };
            self.options.audit.note(TraceContext::NONE, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::{Address, Clock, Kernel, ManualClock};

    use super::super::{PushBasis, PushCreator, push_child};
    use super::*;
    use crate::access::Principal;

    fn kept_elsewhere() -> (PushTask, PushRecord) {
        let task = PushTask { agent: "gone".to_owned(), task: "t".to_owned() };
        let record = PushRecord::Config {
            config: PushConfig::new("c", "https://example.org/"),
            caller: None,
            creator: Box::new(PushCreator::of(&Principal::anonymous(), PushBasis::Read)),
            after: 0,
        };
        (task, record)
    }

    async fn started(
        time: &ManualClock,
        store: &Arc<PushMemory>,
    ) -> (Kernel, Address<PushCommand>) {
        let kernel = Kernel::builder().clock(time.clock()).start().await.unwrap();
        let store: Arc<dyn PushStore> = Arc::clone(store) as _;
        let options = PushOptions { store: Some(store), ..PushOptions::default() };
        let (spec, push) = push_child(options, Vec::new()).unwrap();
        kernel.root().start(spec).await.unwrap();
        (kernel, push)
    }

    async fn listed(push: &Address<PushCommand>, task: &PushTask) -> usize {
        let (task, by) = (task.clone(), Principal::anonymous());
        let list = |reply| PushCommand::List { task, by, reply };
        push.call(Header::new(), list).await.unwrap().unwrap().len()
    }

    #[tokio::test]
    async fn what_was_kept_for_an_agent_that_is_gone_is_listed_and_deleted() {
        let (task, record) = kept_elsewhere();
        let store = Arc::new(PushMemory::default());
        store.append(&task, &record).await.unwrap();
        let (kernel, push) = started(&ManualClock::new(), &store).await;
        assert_eq!(listed(&push, &task).await, 1);
        let (of, id, by) = (task.clone(), "c".to_owned(), Principal::anonymous());
        let delete = |reply| PushCommand::Delete { task: of, by, id, reply };
        assert!(push.call(Header::new(), delete).await.unwrap().unwrap());
        assert_eq!(listed(&push, &task).await, 0);
        assert!(store.load().await.unwrap().is_empty());
        kernel.stop().await;
    }

    #[tokio::test]
    async fn what_was_kept_for_an_agent_that_stays_away_ends() {
        let (task, record) = kept_elsewhere();
        let (time, store) = (ManualClock::new(), Arc::new(PushMemory::default()));
        store.append(&task, &record).await.unwrap();
        let (kernel, push) = started(&time, &store).await;
        assert_eq!(listed(&push, &task).await, 1);
        for _ in 0..1_000 {
            if store.load().await.unwrap().is_empty() {
                break;
            }
            time.advance(Duration::from_mins(1));
            Clock::system().sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(listed(&push, &task).await, 0);
        assert!(store.load().await.unwrap().is_empty());
        kernel.stop().await;
    }

    #[tokio::test]
    async fn a_configuration_that_nobody_can_deliver_is_refused_and_not_kept() {
        let store = Arc::new(PushMemory::default());
        let (kernel, push) = started(&ManualClock::new(), &store).await;
        let (task, record) = kept_elsewhere();
        let PushRecord::Config { config, caller, creator, after } = record else { unreachable!() };
        let (agent, checked, by) = (task.agent.clone(), config.clone(), creator.principal());
        let reserve =
            |reply| PushCommand::Reserve { agent, task: None, by, config: checked, reply };
        let reserved = push.call(Header::new(), reserve).await.unwrap();
        assert!(matches!(reserved, Err(PushError::UnknownAgent { .. })), "{reserved:?}");
        let place = None;
        let create =
            |reply| PushCommand::Create { task, caller, creator, config, after, place, reply };
        let created = push.call(Header::new(), create).await.unwrap();
        assert!(matches!(created, Err(PushError::UnknownAgent { .. })), "{created:?}");
        assert!(store.load().await.unwrap().is_empty());
        kernel.stop().await;
    }
}
