//! The server for push notifications: keeps the configurations, and has one supervised actor per
//! configuration that delivers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Actor, Context, Ended, Ending, Header, Name, Spawn, TraceContext};
use neuroflow_sandbox::{Outbound, OutboundError};

use super::delivery::{Begin, Delivery};
use super::store::{Kept, PushMemory, fold};
use super::webhook::{Webhook, check};
use super::{PushCommand, PushError, PushOptions, PushRecord, PushStore, PushStoreError, PushTask};
use crate::audit::{AuditEvent, AuditId, Digest, Verdict};
use crate::gateway::GatewayAgent;
use crate::limits::{PUSH_CONFIGS, PUSH_DELIVERIES, PUSH_LIVES};

/// The server for push notifications as an actor. Made by [`push_child`](super::push_child).
///
/// ```
/// use neuroflow_actors::PushServer;
/// use neuroflow_kernel::Actor;
/// assert_eq!(PushServer::KIND, "push");
/// ```
#[derive(Debug)]
pub struct PushServer {
    options: PushOptions,
    store: Arc<dyn PushStore>,
    agents: BTreeMap<String, GatewayAgent>,
    outbound: Option<Outbound>,
    tasks: BTreeMap<PushTask, BTreeMap<String, Live>>,
    /// Whose actors they are, by name.
    names: BTreeMap<Name, (PushTask, String)>,
    started: u64,
}

/// A configuration and its actor.
#[derive(Debug)]
struct Live {
    kept: Kept,
    actor: Name,
    lives: u32,
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
}

impl PushServer {
    pub(super) fn new(options: PushOptions, agents: Vec<GatewayAgent>) -> Self {
        let store = options.store.clone().unwrap_or_else(|| Arc::new(PushMemory::default()));
        let agents = agents.into_iter().map(|agent| (agent.profile.name.clone(), agent)).collect();
        let (tasks, names) = (BTreeMap::new(), BTreeMap::new());
        Self { options, store, agents, outbound: None, tasks, names, started: 0 }
    }

    async fn create(
        &mut self,
        task: PushTask,
        kept: Kept,
        context: &mut Context<PushCommand>,
    ) -> Result<(), PushError> {
        let config = &kept.config;
        let Some(outbound) = &self.outbound else { return Err(PushError::Full) };
        let webhook = check(config, outbound)?;
        let configs = self.tasks.get(&task);
        let replaces = configs.is_some_and(|configs| configs.contains_key(&config.id));
        if !replaces && configs.map_or(0, BTreeMap::len) >= PUSH_CONFIGS {
            return Err(PushError::TooMany);
        }
        if !replaces && self.names.len() >= PUSH_DELIVERIES {
            return Err(PushError::Full);
        }
        let changed = AuditEvent::ConfigChanged {
            part: "push",
            digest: Digest::of(format!("{} {}", task.task, config.url).as_bytes()),
            verdict: Verdict::Allowed,
        };
        self.options.audit.decide(context.onward(), changed).await?;
        let record = PushRecord::Config {
            config: config.clone(),
            caller: kept.caller.clone(),
            creator: kept.creator.clone(),
            after: kept.reached,
        };
        self.store.append(&task, &record).await?;
        if replaces {
            self.kill(&task, &config.id, context).await;
        }
        self.deliver(task, kept, webhook, 1, context).await;
        Ok(())
    }

    /// Starts the actor of a configuration.
    async fn deliver(
        &mut self,
        task: PushTask,
        kept: Kept,
        webhook: Webhook,
        lives: u32,
        context: &mut Context<PushCommand>,
    ) {
        let (Some(agent), Some(outbound)) = (self.agents.get(&task.agent), &self.outbound) else {
            tracing::warn!(agent = task.agent, "push notifications of an agent that isn't here");
            return;
        };
        self.started += 1;
        let Ok(name) = Name::new(format!("delivery-{}", self.started)) else { return };
        let id = kept.config.id.clone();
        let delivery = Delivery {
            task: task.clone(),
            kept: kept.clone(),
            webhook,
            agent: agent.clone(),
            server: context.address(),
            outbound: outbound.clone(),
            options: self.options.clone(),
        };
        let options = Spawn::default().mailbox(1).stop_within(DELIVERY_KILL);
        match context.spawn(name.clone(), delivery, options).await {
            Ok(actor) => {
                // A fresh actor with room for one message takes it.
                let _taken = actor.try_tell(Header::new(), Begin);
                self.names.insert(name.clone(), (task.clone(), id.clone()));
                let live = Live { kept, actor: name, lives };
                self.tasks.entry(task).or_default().insert(id, live);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a push delivery can't be started");
            }
        }
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
    ) -> bool {
        let Some(live) = self.remove(task, id) else { return false };
        context.kill_child(&live.actor).await;
        true
    }

    async fn delete(
        &mut self,
        task: &PushTask,
        id: &str,
        context: &mut Context<PushCommand>,
    ) -> Result<bool, PushError> {
        if !self.tasks.get(task).is_some_and(|configs| configs.contains_key(id)) {
            return Ok(false);
        }
        self.store.append(task, &PushRecord::Ended { id: id.to_owned() }).await?;
        Ok(self.kill(task, id, context).await)
    }

    async fn reached(&mut self, task: &PushTask, id: &str, generation: u64) {
        let live = self.tasks.get_mut(task).and_then(|configs| configs.get_mut(id));
        let Some(live) = live else { return };
        live.kept.reached = generation;
        let record = PushRecord::Reached { id: id.to_owned(), generation };
        if let Err(error) = self.store.append(task, &record).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, task = task.task, "how far a push delivery has come isn't kept");
        }
    }

    async fn over(&mut self, task: &PushTask, id: &str) {
        if self.remove(task, id).is_none() {
            return;
        }
        let record = PushRecord::Ended { id: id.to_owned() };
        if let Err(error) = self.store.append(task, &record).await {
            // The next start finds the task's end delivered, and comes to the same.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, task = task.task, "the end of a push configuration isn't kept");
        }
    }
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
                match Webhook::parse(&kept.config.url) {
                    Ok(webhook) => self.deliver(task.clone(), kept, webhook, 1, context).await,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a push configuration that was kept isn't valid");
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
        // Who doesn't wait for an answer any more has been served all the same.
        match command {
            PushCommand::Create { task, caller, creator, config, after, reply } => {
                let kept = Kept { config, caller, creator, reached: after };
                let created = self.create(task, kept, context).await;
                if let Err(error) = &created {
                    self.note_refusal(error);
                }
                let _gone = reply.send(created);
            }
            PushCommand::List { task, reply } => {
                let configs = self.tasks.get(&task).into_iter().flat_map(BTreeMap::values);
                let _gone = reply.send(configs.map(|live| live.kept.config.clone()).collect());
            }
            PushCommand::Delete { task, id, reply } => {
                let deleted = self.delete(&task, &id, context).await;
                let _gone = reply.send(deleted);
            }
            PushCommand::Reached { task, id, generation, reply } => {
                self.reached(&task, &id, generation).await;
                let _gone = reply.send(());
            }
            PushCommand::Over { task, id } => self.over(&task, &id).await,
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
        if let Some(live) = self.remove(&task, &id)
            && live.lives < PUSH_LIVES
            && let Ok(webhook) = Webhook::parse(&live.kept.config.url)
        {
            self.deliver(task, live.kept, webhook, live.lives + 1, context).await;
        }
        Ok(())
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
