//! The audit log's actor: takes events, and has one writer that records what came together.
//!
//! The writer works on a thread of its own, so that no actor waits for a disk. Who asks meanwhile
//! shares the next write and its synchronisation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use neuroflow_kernel::{Actor, Clock, Context, Generation, Header, Moment, Reply, TraceContext};
use tokio::sync::{mpsc, oneshot};

use super::file::{Entry, Writer};
use super::{
    AuditCommand, AuditConfig, AuditError, AuditEvent, AuditId, Losses, SyncPolicy, Unrecorded,
};
use crate::limits::{
    AUDIT_BATCH, AUDIT_QUEUE, AUDIT_SIGN_INTERVAL, AUDIT_SYNC_INTERVAL, TROUBLE_LOOK,
};

type Answer = Reply<Result<u64, Unrecorded>>;

/// The audit log as an actor. Made by [`audit_child`](super::audit_child).
#[derive(Debug)]
pub(super) struct AuditServer {
    config: AuditConfig,
    losses: Arc<Losses>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    queue: mpsc::Sender<(Entry, Option<Answer>)>,
    ended: oneshot::Receiver<()>,
}

impl AuditServer {
    pub(super) fn new(config: AuditConfig, losses: Arc<Losses>) -> Self {
        Self { config, losses, running: None }
    }
}

impl Actor for AuditServer {
    type Message = AuditCommand;
    type Error = AuditError;
    const KIND: &'static str = "audit";

    async fn started(&mut self, context: &mut Context<AuditCommand>) -> Result<(), AuditError> {
        let (config, clock) = (self.config.clone(), context.clock().clone());
        let at = clock.unix_ms();
        let opened = tokio::task::spawn_blocking(move || Writer::open(config, at)).await;
        let writer = opened.map_err(|panicked| AuditError::File {
            file: self.config.file.clone(),
            source: std::io::Error::other(panicked),
        })??;
        let (queue, entries) = mpsc::channel(AUDIT_QUEUE);
        let (end, ended) = oneshot::channel();
        let started = AuditEvent::NodeStarted {
            version: AuditId::new(&self.config.version),
            config: self.config.config,
        };
        let log = Log {
            clock,
            entries,
            losses: Arc::clone(&self.losses),
            sync: self.config.sync,
            sign_by: None,
            sync_by: None,
            look_by: None,
        };
        let work = async move {
            log.run(writer).await;
            // If nobody waits, the actor was killed.
            let _gone = end.send(());
        };
        if context.task(work).is_err() {
            return Err(AuditError::Writer(neuroflow_kernel::Refusal::Stopped));
        }
        // A later life of this actor isn't the node's; the log says by itself that it was opened.
        if context.generation() == Generation::FIRST {
            // An empty queue has room for one.
            let _taken = queue.try_send((entry(context, started), None));
        }
        self.running = Some(Running { queue, ended });
        Ok(())
    }

    async fn handle(
        &mut self,
        command: AuditCommand,
        context: &mut Context<AuditCommand>,
    ) -> Result<(), AuditError> {
        let (event, reply) = match command {
            AuditCommand::Record { event, reply } => (event, Some(reply)),
            AuditCommand::Note { event } => (event, None),
        };
        let Some(running) = &self.running else { return Ok(()) };
        // While the writer is behind, so is the mailbox, and those who note learn it.
        if running.queue.send((entry(context, event), reply)).await.is_err() {
            self.losses.add(1);
        }
        Ok(())
    }

    async fn stopping(&mut self, context: &mut Context<AuditCommand>) {
        let Some(Running { queue, ended }) = self.running.take() else { return };
        let _writer_gone = queue.send((entry(context, AuditEvent::NodeStopped), None)).await;
        drop(queue);
        let _writer_gone = ended.await;
    }
}

fn entry(context: &Context<AuditCommand>, event: AuditEvent) -> Entry {
    let trace = trace_id(context.header());
    Entry { at: context.clock().unix_ms(), trace, event }
}

fn trace_id(header: &Header) -> Option<String> {
    let trace: TraceContext = header.trace();
    (!trace.is_none()).then(|| HEXLOWER.encode(&trace.trace_id()))
}

/// The loop around the writer.
struct Log {
    clock: Clock,
    entries: mpsc::Receiver<(Entry, Option<Answer>)>,
    losses: Arc<Losses>,
    sync: SyncPolicy,
    sign_by: Option<Moment>,
    sync_by: Option<Moment>,
    /// When a log that takes nothing is looked at again.
    look_by: Option<Moment>,
}

impl Log {
    async fn run(mut self, mut writer: Writer) {
        loop {
            let wake = [self.sign_by, self.sync_by, self.look_by].into_iter().flatten().min();
            let alarm = async {
                match wake {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut batch = Vec::new();
            let count = tokio::select! {
                biased;
                () = alarm => None,
                count = self.entries.recv_many(&mut batch, AUDIT_BATCH) => Some(count),
            };
            let is_last = count == Some(0);
            let lost = self.losses.waiting.swap(0, Ordering::Relaxed);
            let now = self.clock.now();
            let due = |by: Option<Moment>| is_last || by.is_some_and(|by| by <= now);
            let work = Work {
                at: self.clock.unix_ms(),
                lost,
                sign: due(self.sign_by),
                sync: due(self.sync_by) || self.sync == SyncPolicy::Each,
                look: due(self.look_by) && !is_last,
            };
            let (entries, answers): (Vec<Entry>, Vec<Option<Answer>>) = batch.into_iter().unzip();
            let done = tokio::task::spawn_blocking(move || {
                let done = work.carry_out(&mut writer, &entries);
                (writer, done)
            });
            let done = match done.await {
                Ok((back, done)) => {
                    writer = back;
                    done
                }
                // The actor fails with it, and those who wait are told.
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down.
                    Err(_cancelled) => return,
                },
            };
            self.answer(answers, &done, lost);
            let from = |now: Moment, by: Option<Moment>, after| by.or(Some(now + after));
            let open = writer.has_unsigned() && !is_last;
            let by = self.sign_by.filter(|by| *by > now);
            self.sign_by = open.then(|| from(now, by, AUDIT_SIGN_INTERVAL)).flatten();
            let open = writer.is_unsynced() && !is_last;
            let by = self.sync_by.filter(|by| *by > now);
            self.sync_by = open.then(|| from(now, by, AUDIT_SYNC_INTERVAL)).flatten();
            let open = self.losses.condition.trouble().is_some() && !is_last;
            let by = self.look_by.filter(|by| *by > now);
            self.look_by = open.then(|| from(now, by, TROUBLE_LOOK)).flatten();
            if is_last {
                return;
            }
        }
    }

    fn answer(&self, answers: Vec<Option<Answer>>, done: &Done, lost: u64) {
        if let Err(error) = &done.housekeeping {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the audit log can't be signed"
            );
        }
        let condition = &self.losses.condition;
        match &done.recorded {
            Ok(first) => {
                if done.tried {
                    condition.took();
                }
                for (seq, answer) in (*first..).zip(answers) {
                    // Who doesn't wait any more has been recorded all the same.
                    let _gone = answer.map(|answer| answer.send(Ok(seq)));
                }
            }
            Err(error) => {
                condition.fell(error.code(), error);
                let notes = answers.iter().filter(|answer| answer.is_none()).count();
                condition.refuse(error.code(), (answers.len() - notes) as u64);
                self.losses.waiting.fetch_add(lost, Ordering::Relaxed);
                self.losses.add(notes as u64);
                for answer in answers.into_iter().flatten() {
                    let _gone = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// What the writer does in one go.
#[derive(Clone, Copy, Debug)]
struct Work {
    at: u64,
    lost: u64,
    sign: bool,
    sync: bool,
    look: bool,
}

struct Done {
    /// Whether the disk was asked to take something.
    tried: bool,
    /// The number of the first record.
    recorded: Result<u64, Unrecorded>,
    /// What went wrong with signatures, which the next time may put right.
    housekeeping: Result<(), Unrecorded>,
}

impl Work {
    fn carry_out(self, writer: &mut Writer, entries: &[Entry]) -> Done {
        let mut recorded = Ok(0);
        let mut tried = !entries.is_empty() || self.lost > 0;
        if tried {
            recorded = self.record(writer, entries).map_err(Unrecorded::from);
        } else if self.look {
            tried = writer.has_room();
        }
        let mut housekeeping = Ok(());
        if self.sign && writer.has_unsigned() {
            housekeeping = writer.sign(self.at).map_err(Unrecorded::from);
        } else if self.sync && recorded.is_ok() {
            housekeeping = writer.sync().map_err(Unrecorded::from);
            // Who is told that it's on disk must be able to rely on it.
            if let Err(error) = &housekeeping {
                recorded = Err(error.clone());
            }
        }
        Done { tried, recorded, housekeeping }
    }

    fn record(self, writer: &mut Writer, entries: &[Entry]) -> std::io::Result<u64> {
        if writer.must_sign_before(entries.len()) {
            writer.sign(self.at)?;
        }
        writer.record(entries, self.lost)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use neuroflow_kernel::Kernel;

    use super::*;
    use crate::audit::{Audit, Verdict, audit_child, verify_files};

    async fn node(file: PathBuf) -> (Kernel, Audit) {
        let kernel = Kernel::builder().start().await.unwrap();
        let (spec, audit) = audit_child(AuditConfig::new(file)).unwrap();
        kernel.root().start(spec).await.unwrap();
        (kernel, audit)
    }

    fn event(number: u64) -> AuditEvent {
        AuditEvent::Authorisation {
            principal: None,
            action: "agent.ask",
            resource: AuditId::new(number.to_string()),
            verdict: Verdict::Allowed,
            reason: "open",
        }
    }

    #[tokio::test]
    async fn what_is_recorded_and_noted_is_in_the_log_in_order_and_signed_at_the_stop() {
        let folder = std::env::temp_dir().join(format!("audit-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("audit.log");
        let (kernel, audit) = node(file.clone()).await;
        let mut last = 0;
        for number in 0..50 {
            audit.note(TraceContext::default(), event(number));
            let seq = audit.decide(Header::new(), event(number)).await.unwrap().unwrap();
            assert!(seq > last);
            last = seq;
        }
        let together = (0..700).map(|number| audit.record(Header::new(), event(number)));
        let together = futures_util::future::join_all(together).await;
        let mut numbers: Vec<u64> = together.into_iter().map(|it| it.unwrap().unwrap()).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 700);
        kernel.stop().await;
        let verified = verify_files(&file, None, None).unwrap().verified;
        assert!(verified.closed && verified.signed == verified.last, "{verified:?}");
        assert!(verified.last > 800);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn without_a_log_nothing_fails_and_without_an_actor_a_decision_does() {
        assert_eq!(Audit::off().decide(Header::new(), event(1)).await.unwrap(), None);
        let (_spec, audit) = audit_child(AuditConfig::new("/nowhere/audit.log")).unwrap();
        let refused = audit.decide(Header::new(), event(1)).await;
        assert!(matches!(refused, Err(Unrecorded::Unanswered(_))), "{refused:?}");
    }
}
