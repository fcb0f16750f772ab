//! Tasks that don't run here: they are read from the journal when somebody asks.

use neuroflow_kernel::{Parcel, Request};

use super::record::Record;
use super::resume::events;
use super::{
    Ask, AskRefusal, CancelError, Change, TaskCursor, TaskEvent, TaskEvents, TaskPage, TaskQuery,
    TaskState,
};
use crate::journal::{Journal, ReadError, TaskHead};
use crate::limits::LIST_BYTES;

/// One agent's part of the journal.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) journal: Journal,
    pub(super) agent: String,
}

impl History {
    /// A task's events; none if there is no such task, or if it isn't this caller's.
    pub(super) async fn read(
        &self,
        task: &str,
        caller: Option<&str>,
    ) -> Result<Option<(TaskHead, TaskEvents)>, ReadError> {
        let log = self.journal.read(&self.agent, task).await?;
        let log = log.filter(|log| caller.is_none() || log.head.caller.as_deref() == caller);
        Ok(log.map(|log| (log.head.clone(), events(log))))
    }

    /// A task's events after one of them. Where there are none its head says so, and its log isn't read: who waits
    /// for another node's task looks again and again.
    pub(super) async fn read_after(
        &self,
        task: &str,
        caller: Option<&str>,
        seen: u64,
    ) -> Result<Option<(TaskHead, TaskEvents)>, ReadError> {
        if seen > 0 {
            let head = self.journal.head(&self.agent, task).await?;
            let visible = head.filter(|head| caller.is_none() || head.caller.as_deref() == caller);
            match visible {
                Some(head) if head.generation > seen => {}
                none => return Ok(none.map(|head| (head, TaskEvents::new()))),
            }
        }
        let found = self.read(task, caller).await?;
        Ok(found.map(|(head, mut events)| {
            events.retain(|event| event.get().generation > seen);
            (head, events)
        }))
    }

    /// A page of tasks. Ends early where the tasks are so large that they would fill too much memory
    /// at once.
    pub(super) async fn page(&self, query: TaskQuery) -> Result<TaskPage, ReadError> {
        let page = self.journal.heads(&self.agent, query).await?;
        let (mut tasks, mut bytes) = (Vec::new(), 0);
        let mut last = None;
        for TaskHead { task, changed_ms, .. } in page.heads {
            // Gone if it was removed meanwhile.
            if let Some((_, events)) = self.read(&task, None).await? {
                bytes += events.iter().map(|event| event.as_raw().as_bytes().len()).sum::<usize>();
                if bytes > LIST_BYTES && !tasks.is_empty() {
                    return Ok(TaskPage { tasks, next: last, total: page.total });
                }
                tasks.push(events);
            }
            last = Some(TaskCursor { changed_ms, task });
        }
        Ok(TaskPage { tasks, next: page.next, total: page.total })
    }

    /// Why nothing can be said to a task that doesn't run here.
    pub(super) async fn refusal(
        &self,
        task: &str,
        request: &Request<Ask>,
    ) -> Result<AskRefusal, ReadError> {
        let ask = request.parcel.get();
        let Some((head, _)) = self.read(task, ask.caller.as_deref()).await? else {
            return Ok(AskRefusal::UnknownTask);
        };
        if ask.context.as_ref().is_some_and(|context| **context != *head.context) {
            return Ok(AskRefusal::OtherContext);
        }
        if head.state.is_terminal() {
            return Ok(AskRefusal::Ended { state: head.state });
        }
        // Another node on the same database has it.
        Ok(AskRefusal::Elsewhere)
    }

    /// Why a task that doesn't run here can't be cancelled.
    pub(super) async fn cancel(
        &self,
        task: &str,
        caller: Option<&str>,
    ) -> Result<CancelError, ReadError> {
        Ok(match self.read(task, caller).await? {
            Some((head, _)) if head.state.is_terminal() => CancelError::Ended { state: head.state },
            Some(_) => CancelError::Elsewhere,
            None => CancelError::Unknown,
        })
    }
}

impl Record {
    /// The head of the task's log, with its events as they are.
    pub(super) fn head(&self, agent: &str) -> TaskHead {
        TaskHead {
            agent: agent.to_owned(),
            task: self.task().to_owned(),
            context: self.context().to_owned(),
            caller: self.caller().map(str::to_owned),
            state: self.state(),
            changed_ms: self.changed_ms(),
            generation: self.generation(),
            entries: 0,
        }
    }
}

/// Tells whoever asked why nothing comes of it.
pub(crate) fn refuse(request: Request<Ask>, refusal: AskRefusal, at_ms: u64) {
    let ask = request.parcel.get();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let (task, context) = (text(ask.task.as_deref()), text(ask.context.as_deref()));
    // A few short texts can be archived; if nobody listens any more, nobody has to be told.
    if let Some(event) = refused(task, context, refusal, at_ms)
        && request.replies.try_send(event).is_ok()
    {
        request.replies.finish();
    }
}

/// An event that is part of no task.
pub(super) fn refused(
    task: String,
    context: String,
    refusal: AskRefusal,
    at_ms: u64,
) -> Option<Parcel<TaskEvent>> {
    let change = Change::Refused(refusal);
    Parcel::archive(&TaskEvent { task, context, generation: 0, at_ms, change }).ok()
}

/// The end of a task that its agent hasn't told: a text for people, and a reason for programs.
pub(crate) fn failure(text: &str, reason: &'static str) -> Change {
    let mut turn = super::Turn::agent(text);
    turn.metadata = Some(format!("{{\"neuroflow\":{{\"reason\":\"{reason}\"}}}}"));
    Change::Status { state: TaskState::Failed, turn: Some(turn) }
}
