//! The actor of the journal. Appends that wait while the disk is at work become one write and one
//! flush; reads go beside it.

use std::convert::Infallible;
use std::sync::Arc;

use neuroflow_kernel::{Actor, Clock, Context};
use tokio::sync::{Notify, mpsc, oneshot};

use super::retention::AgeGuard;
use super::store::{OpenedJournal, Store, Waiting, times};
use super::{AppendError, JournalCommand, JournalConfig};
use crate::limits::{
    JOURNAL_BATCH, JOURNAL_BATCH_BYTES, JOURNAL_DEADLINE, JOURNAL_QUEUE, RETENTION_SWEEP,
};

/// A journal as an actor.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_actors::{Journal, JournalConfig, JournalPlace, JournalServer, OpenedJournal};
/// use neuroflow_kernel::{ChildSpec, Clock, Kernel};
/// let kernel = Kernel::builder().start().await?;
/// let config = JournalConfig::new(JournalPlace::Memory);
/// let opened = OpenedJournal::open(config, kernel.clock().clone()).await?;
/// let (spec, address) = ChildSpec::new("journal", move || JournalServer::new(opened.clone()))?;
/// kernel.root().start(spec).await?;
/// assert!(Journal::new(address).read("echo", "no-such-task").await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JournalServer {
    store: Arc<Store>,
    config: JournalConfig,
    line: Option<Line>,
}

/// The way to the commits, and their end.
#[derive(Debug)]
struct Line {
    queue: mpsc::Sender<Waiting>,
    over: oneshot::Receiver<()>,
}

impl JournalServer {
    /// Serves an open journal.
    pub fn new(opened: OpenedJournal) -> Self {
        let OpenedJournal { store, config, .. } = opened;
        Self { store, config, line: None }
    }

    fn append(&self, waiting: Waiting) {
        let refused = match &self.line {
            Some(line) => line.queue.try_send(waiting).err(),
            None => return,
        };
        if let Some(refused) = refused {
            let (waiting, error) = match refused {
                mpsc::error::TrySendError::Full(waiting) => (waiting, AppendError::Overloaded),
                mpsc::error::TrySendError::Closed(waiting) => {
                    (waiting, AppendError::Closed { source: None })
                }
            };
            let _gone = waiting.reply.send(Err(error));
        }
    }
}

/// Commits what waits, until nobody can append any more.
async fn commit(
    store: Arc<Store>,
    (config, clock): (JournalConfig, Clock),
    mut queue: mpsc::Receiver<Waiting>,
    due: Arc<Notify>,
    over: oneshot::Sender<()>,
) {
    while let Some(first) = queue.recv().await {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < JOURNAL_BATCH && bytes < JOURNAL_BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        // A commit may take long; what has waited for it too long mustn't be there in the end.
        let now = clock.now();
        for late in batch.extract_if(.., |waiting| waiting.until <= now) {
            let _gone = late.reply.send(Err(AppendError::Overloaded));
        }
        store.commit(batch).await;
        if store.is_urgent(&config) {
            due.notify_one();
        }
    }
    // Nobody waits for it unless the actor stops in good order.
    let _nobody = over.send(());
}

/// Removes what isn't kept any longer, from time to time and when it's urgent.
async fn sweep(store: Arc<Store>, config: JournalConfig, clock: Clock, due: Arc<Notify>) {
    let mut guard = AgeGuard::default();
    let mut indexed = 0;
    loop {
        tokio::select! {
            () = clock.sleep(RETENTION_SWEEP) => {}
            () = due.notified() => {}
        }
        let (wall, steady) = times(&clock);
        let limit = guard.limit_ms(config.retention.age, wall, steady).unwrap_or_else(|jump| {
            tracing::warn!(?jump, "the clock was set forward; nothing is removed by its age now");
            None
        });
        let swept = match store.retain(&config, limit).await {
            Ok(_) => store.tidy(&mut indexed).await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what isn't kept any longer can't be removed"
            );
            // With a disk or database that doesn't work it isn't tried without end.
            clock.sleep(RETENTION_SWEEP).await;
        }
    }
}

impl Actor for JournalServer {
    type Message = JournalCommand;
    type Error = Infallible;
    const KIND: &'static str = "journal";

    async fn started(&mut self, context: &mut Context<JournalCommand>) -> Result<(), Infallible> {
        let (queue, appends) = mpsc::channel(JOURNAL_QUEUE);
        let (end, over) = oneshot::channel();
        let due = Arc::new(Notify::new());
        let (store, config) = (Arc::clone(&self.store), self.config.clone());
        // A fresh actor has room for two tasks.
        let with = (config, context.clock().clone());
        let _begun = context.task(commit(store, with, appends, Arc::clone(&due), end)).is_ok();
        let (store, config) = (Arc::clone(&self.store), self.config.clone());
        let clock = context.clock().clone();
        let _begun = context.task(sweep(store, config, clock, due)).is_ok();
        self.line = Some(Line { queue, over });
        Ok(())
    }

    async fn handle(
        &mut self,
        command: JournalCommand,
        context: &mut Context<JournalCommand>,
    ) -> Result<(), Infallible> {
        let store = Arc::clone(&self.store);
        // A task that is refused drops its reply, and so tells the caller.
        let _refused = match command {
            JournalCommand::Append { append, reply } => {
                let until = context.clock().now() + JOURNAL_DEADLINE;
                self.append(Waiting { append, reply, until });
                return Ok(());
            }
            JournalCommand::Read { agent, task, reply } => context
                .task(async move {
                    let _gone = reply.send(store.read(agent, task).await);
                })
                .is_err(),
            JournalCommand::Heads { agent, query, reply } => context
                .task(async move {
                    let _gone = reply.send(store.heads(agent, query).await);
                })
                .is_err(),
            JournalCommand::Unfinished { agent, reply } => context
                .task(async move {
                    let _gone = reply.send(store.unfinished(agent).await);
                })
                .is_err(),
            JournalCommand::Remove { agent, task, reply } => context
                .task(async move {
                    let _gone = reply.send(store.remove_ended(agent, task).await);
                })
                .is_err(),
        };
        Ok(())
    }

    /// What was taken is brought to the disk, the index is written for the next start, and nothing works
    /// on the directory any longer.
    async fn stopping(&mut self, _: &mut Context<JournalCommand>) {
        if let Some(Line { queue, over }) = self.line.take() {
            drop(queue);
            let _ended = over.await;
        }
        self.store.snapshot().await;
        self.store.settle().await;
    }
}
