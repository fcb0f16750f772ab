//! What tasks say, on its way to the journal and back: told once it's durable, looked up where that
//! isn't known.

use neuroflow_kernel::{Context, Header, Name};

use super::courier::Flight;
use super::{AgentServer, names, unreadable};
use crate::agent::history::{failure, refused};
use crate::agent::live::{Live, Origin};
use crate::agent::record::Record;
use crate::agent::resume::events;
use crate::agent::{AgentCommand, AskRefusal, Change, TaskState};
use crate::journal::{AppendError, ReadError, TaskLog};
use crate::limits::{JOURNAL_RETRY, JOURNAL_SETTLED};

impl AgentServer {
    /// Adds an event that the node makes to a live task.
    pub(super) fn append(
        &mut self,
        task: &str,
        change: Change,
        context: &mut Context<AgentCommand>,
    ) {
        let at_ms = context.clock().unix_ms();
        let Some(live) = self.live.get_mut(task) else { return };
        // What the journal has of it is looked up; only then is it known where its end belongs. A task
        // that ends meanwhile changes nothing of that.
        if live.stranded {
            return;
        }
        live.append(change, Origin::Node, at_ms);
        self.flush(task, context);
    }

    /// Adds the events that a task's own function has made, all in one append.
    pub(super) fn progress(
        &mut self,
        task: &str,
        changes: Vec<Change>,
        context: &mut Context<AgentCommand>,
    ) {
        let at_ms = context.clock().unix_ms();
        let Some(live) = self.live.get_mut(task) else { return };
        if live.stranded {
            return;
        }
        if changes.is_empty() {
            // What it will say takes longer, and so its beginning is told now.
            live.tell();
        }
        live.progress(changes, at_ms);
        self.flush(task, context);
    }

    /// Sends to the journal what a task has for it, unless something is on its way.
    pub(super) fn flush(&mut self, task: &str, context: &mut Context<AgentCommand>) {
        let append = self.live.get_mut(task).and_then(|live| live.take_off(&self.profile.name));
        let Some(append) = append else { return };
        // What comes beside others goes together with them. That a task's actor has ended is no work of others:
        // it overtakes what that has said last.
        let alone = context.address().mailbox_depth() <= self.gone;
        let here =
            if alone { self.history.journal.append_here(&append, context.clock()) } else { None };
        if let Some(result) = here {
            return self.here.push_back((task.to_owned(), result));
        }
        let flight = Flight { task: task.to_owned(), append };
        let refused = match &self.courier {
            Some(courier) => courier.send(flight),
            None => Some(flight),
        };
        let Some(Flight { task, append }) = refused else { return };
        let (journal, me) = (self.history.journal.clone(), context.address());
        let flight = async move {
            let landed = AgentCommand::Landed(vec![(task, journal.append(append).await)]);
            // The only error left is that this agent has ended itself.
            let _ended = me.tell(Header::new(), landed).await;
        };
        self.beside(flight, context);
    }

    /// Looks at what was appended right here, and at what that brings.
    pub(super) async fn landed_here(&mut self, context: &mut Context<AgentCommand>) {
        while let Some((task, result)) = self.here.pop_front() {
            self.landed(&task, result, context).await;
        }
    }

    pub(super) async fn landed(
        &mut self,
        task: &str,
        result: Result<(), AppendError>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(task) else { return };
        let Err(error) = result else {
            let over = live.landed();
            if let Some(run) = live.run.take() {
                if live.is_abandoned() {
                    tracing::info!(%task, "a task isn't begun: whoever asked has gone");
                    let end = Change::Status { state: TaskState::Canceled, turn: None };
                    return self.append(task, end, context);
                }
                // What it says at once goes with what is there already: see `TaskActor`.
                self.run(task, run, context).await;
            } else if !over {
                self.flush(task, context);
            } else if let Some(live) = self.live.remove(task) {
                live.finish();
            }
            return;
        };
        let (known, was_stranded) = (live.is_known(), live.stranded);
        // Its end is tried again until the journal takes it: with a full disk once in a second.
        if !was_stranded {
            tracing::error!(%task, error = &error as &dyn std::error::Error, "a task isn't kept");
        }
        live.lost(&error);
        if !error.is_unknown() {
            refuse_unjoined(live, context.clock().unix_ms());
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
    pub(super) fn reread(&mut self, task: &str, context: &mut Context<AgentCommand>) {
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
    pub(super) fn end_stranded(
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
                old.append(end, Origin::Node, context.clock().unix_ms());
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
                refuse_unjoined(old, context.clock().unix_ms());
                self.live.remove(task);
            }
            Err(error) => {
                unreadable(task, &error);
                self.reread(task, context);
            }
        }
    }
}

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
