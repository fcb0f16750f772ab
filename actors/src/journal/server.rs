//! The actor of the journal. Appends that wait while the disk is at work become one write and one
//! flush; reads go beside it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neuroflow_kernel::{Actor, Clock, Context};
use tokio::sync::{Notify, mpsc, oneshot};

use super::retention::AgeGuard;
use super::store::{OpenedJournal, Settled, Store, Waiting, times};
use super::{AppendError, JournalCommand, JournalConfig};
use crate::limits::{
    JOURNAL_BATCH, JOURNAL_BATCH_BYTES, JOURNAL_DEADLINE, JOURNAL_QUEUE, QUIET_LOOK,
    RETENTION_SWEEP, TROUBLE_LOOK,
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
    due: Arc<Notify>,
    line: Option<Line>,
    /// Kept until the end, once no thread works on the store any longer.
    settled: Option<Settled>,
}

/// The way to the commits, and their end.
#[derive(Debug)]
struct Line {
    queue: mpsc::Sender<Waiting>,
    /// Those in the line, and in the commit that is under way: nobody may overtake them.
    waiting: Arc<AtomicUsize>,
    over: oneshot::Receiver<()>,
}

impl JournalServer {
    /// Serves an open journal.
    pub fn new(opened: OpenedJournal) -> Self {
        let OpenedJournal { store, config, due, .. } = opened;
        Self { store, config, due, line: None, settled: None }
    }

    fn append(&self, mut waiting: Waiting, clock: &Clock) {
        let Some(Line { queue, waiting: before, .. }) = &self.line else { return };
        if before.load(Ordering::Acquire) == 0 && self.store.is_quick(waiting.bytes()) {
            let given_back = self.store.commit_here(vec![waiting], clock);
            if self.store.is_urgent(&self.config) {
                self.due.notify_one();
            }
            match given_back.and_then(|mut batch| batch.pop()) {
                Some(given_back) => waiting = given_back,
                None => return,
            }
        }
        before.fetch_add(1, Ordering::AcqRel);
        if let Err(refused) = queue.try_send(waiting) {
            before.fetch_sub(1, Ordering::AcqRel);
            match refused {
                mpsc::error::TrySendError::Full(waiting) => turn_away(&self.store, waiting),
                mpsc::error::TrySendError::Closed(waiting) => {
                    waiting.refuse(&AppendError::Closed { source: None });
                }
            }
        }
    }
}

/// There is more to do than may wait.
fn turn_away(store: &Store, waiting: Waiting) {
    let error = AppendError::Overloaded;
    if let Some(condition) = store.condition() {
        condition.refuse(error.code(), waiting.appends.len() as u64);
    }
    waiting.refuse(&error);
}

/// Commits what waits, until nobody can append any more.
async fn commit(
    store: Arc<Store>,
    (config, clock): (JournalConfig, Clock),
    mut queue: mpsc::Receiver<Waiting>,
    (waiting, due): (Arc<AtomicUsize>, Arc<Notify>),
    over: oneshot::Sender<()>,
) {
    while let Some(first) = queue.recv().await {
        let (mut appends, mut bytes) = (first.appends.len(), first.bytes());
        let mut batch = vec![first];
        while appends < JOURNAL_BATCH && bytes < JOURNAL_BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            appends += next.appends.len();
            bytes += next.bytes();
            batch.push(next);
        }
        let taken = batch.len();
        // A commit may take long; what has waited for it too long mustn't be there in the end.
        let now = clock.now();
        for late in batch.extract_if(.., |late| late.until <= now) {
            turn_away(&store, late);
        }
        store.commit(batch, &clock).await;
        waiting.fetch_sub(taken, Ordering::AcqRel);
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
        let retained = store.retain(&config, limit).await;
        // Where nothing can be removed there may still be what nobody needs any more.
        let tidied = store.tidy(&mut indexed).await;
        if let Err(error) = retained.and(tidied) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what isn't kept any longer can't be removed"
            );
            // With a disk or database that doesn't work it isn't tried without end.
            clock.sleep(RETENTION_SWEEP).await;
        }
    }
}

/// Looks from time to time whether a journal that takes nothing does so again, and whether one elsewhere
/// is still there: who is told that the node isn't ready, or asks it for nothing, asks for nothing that
/// would show it.
async fn look(store: Arc<Store>, clock: Clock) {
    let Some(condition) = store.condition() else { return };
    loop {
        let trouble = condition.in_trouble();
        if store.is_remote() {
            let _quiet = clock.before(clock.now() + QUIET_LOOK, trouble).await;
        } else {
            trouble.await;
        }
        if condition.trouble().is_some() {
            clock.sleep(TROUBLE_LOOK).await;
        }
        store.probe().await;
    }
}

impl Actor for JournalServer {
    type Message = JournalCommand;
    type Error = Infallible;
    const KIND: &'static str = "journal";

    async fn started(&mut self, context: &mut Context<JournalCommand>) -> Result<(), Infallible> {
        let (queue, appends) = mpsc::channel(JOURNAL_QUEUE);
        let (end, over) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (store, due) = (Arc::clone(&self.store), Arc::clone(&self.due));
        // A fresh actor has room for three tasks.
        let with = (self.config.clone(), context.clock().clone());
        let shared = (Arc::clone(&waiting), Arc::clone(&due));
        let _begun = context.task(commit(Arc::clone(&store), with, appends, shared, end)).is_ok();
        let (config, clock) = (self.config.clone(), context.clock().clone());
        let _begun = context.task(look(Arc::clone(&store), clock.clone())).is_ok();
        let _begun = context.task(sweep(store, config, clock, due)).is_ok();
        self.line = Some(Line { queue, waiting, over });
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
            JournalCommand::Append { appends, reply } => {
                let until = context.clock().now() + JOURNAL_DEADLINE;
                self.append(Waiting { appends, reply, until }, context.clock());
                return Ok(());
            }
            JournalCommand::Read { agent, task, reply } => context
                .task(async move {
                    let _gone = reply.send(store.read(agent, task).await);
                })
                .is_err(),
            JournalCommand::Head { agent, task, reply } => context
                .task(async move {
                    let _gone = reply.send(store.head(agent, task).await);
                })
                .is_err(),
            JournalCommand::Heads { agent, query, reply } => context
                .task(async move {
                    let _gone = reply.send(store.heads(agent, query).await);
                })
                .is_err(),
            JournalCommand::Agents { reply } => context
                .task(async move {
                    let _gone = reply.send(store.agents().await);
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
        if let Some(Line { queue, over, .. }) = self.line.take() {
            drop(queue);
            let _ended = over.await;
        }
        self.store.snapshot().await;
        self.settled = self.store.settle().await;
    }
}
