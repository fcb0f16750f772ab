//! A task's events without a gap, and the updates that followers get of them.

use std::collections::VecDeque;

use a2a_pb::protojson as pb;
use neuroflow_kernel::{Address, Clock, Header, Parcel, ReplyStream};

use super::standing::Allowed;
use super::unanswered;
use crate::agent::{AgentCommand, TaskEvent, TaskState, follow};
use crate::gateway::bytes;
use crate::gateway::door::Unsent;
use crate::gateway::error::A2aError;
use crate::gateway::pauses::Pauses;
use crate::gateway::task_view::{TaskView, invalid_reply, state_after, update};
use crate::limits::{AGENT_ANSWER, FOLLOW_BACKOFF};

/// The events of a task after one of them. Who was cut off follows anew from where it was, also if the task runs
/// on another node, which it then looks at from time to time.
pub(in crate::gateway) struct Following {
    pub(in crate::gateway) agent: Address<AgentCommand>,
    /// What the answer holds in which they are told.
    pub(in crate::gateway) unsent: Unsent,
    pub(super) header: Header,
    pub(super) clock: Clock,
    pub(in crate::gateway) caller: Option<String>,
    pub(in crate::gateway) task: String,
    /// The last generation that was given out.
    pub(super) last: u64,
    /// Events that are there already.
    pub(super) ready: VecDeque<Parcel<TaskEvent>>,
    /// None once the stream was lost, until it's followed anew.
    pub(super) to_come: Option<ReplyStream<Parcel<TaskEvent>>>,
    pub(super) pauses: Pauses,
}

impl Following {
    /// The next event; none after the task's end. Dropping the future loses no event.
    pub(in crate::gateway) async fn next(&mut self) -> Result<Option<Parcel<TaskEvent>>, A2aError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if self.is_next(&event) {
                    return Ok(Some(event));
                }
            }
            let Some(to_come) = &mut self.to_come else {
                self.pauses.wait(self.last, FOLLOW_BACKOFF, &self.clock).await;
                // Boxed, because it's rare: a stream that waits for days would keep room for it.
                Box::pin(self.follow_anew()).await?;
                continue;
            };
            match to_come.next().await {
                Some(Ok(event)) if self.is_next(&event) => return Ok(Some(event)),
                Some(Ok(_seen)) => {}
                None => return Ok(None),
                // The task is still there, whatever became of this stream of its events.
                Some(Err(_)) => self.to_come = None,
            }
        }
    }

    /// Who asks for more has room for it: what was there is on its way.
    pub(in crate::gateway) fn wanted(&self) {
        if self.ready.is_empty() {
            self.unsent.sent();
        }
    }

    fn is_next(&mut self, event: &Parcel<TaskEvent>) -> bool {
        let generation = event.get().generation.to_native();
        let next = generation > self.last;
        self.last = self.last.max(generation);
        next
    }

    async fn follow_anew(&mut self) -> Result<(), A2aError> {
        let header = self.header.clone().within(&self.clock, AGENT_ANSWER);
        let (caller, last) = (self.caller.as_deref(), Some(self.last));
        let followed = follow(&self.agent, header, &self.task, caller, last).await;
        let missing = || A2aError::TaskNotFound { task: self.task.clone() };
        let (so_far, to_come) = followed.map_err(unanswered)?.ok_or_else(missing)?;
        if !self.unsent.grow(bytes(&so_far)) {
            return Err(A2aError::Busy);
        }
        self.ready = so_far.into();
        self.to_come = Some(to_come);
        Ok(())
    }
}

/// What a follower is told, and the generation that it knows then.
#[derive(Debug)]
pub(in crate::gateway) struct Update {
    pub(in crate::gateway) generation: u64,
    pub(in crate::gateway) response: pb::StreamResponse,
}

impl Update {
    /// The task as it is.
    pub(super) fn snapshot(view: &TaskView, history: Option<usize>) -> Self {
        let payload = pb::stream_response::Payload::Task(view.to_task(history));
        let response = pb::StreamResponse { payload: Some(payload) };
        Self { generation: view.generation(), response }
    }

    /// With this as the metadata of the task that it shows.
    pub(super) fn noting(mut self, note: Option<pbjson_types::Struct>) -> Self {
        if let Some(pb::stream_response::Payload::Task(task)) = &mut self.response.payload {
            task.metadata = note;
        }
        self
    }
}

/// When a stream of updates ends, besides with its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Only then.
    TasksEnd,
    /// When the agent waits for the client's next message. Authorization may come another way, so
    /// that isn't an end.
    ClientsTurn,
}

impl End {
    /// Whether it's there.
    pub(super) fn is_at(self, state: TaskState) -> bool {
        let clients_turn = self == Self::ClientsTurn && state == TaskState::InputRequired;
        state.is_terminal() || clients_turn
    }
}

/// The updates of one task for one follower.
pub(in crate::gateway) struct Updates {
    first: Option<Update>,
    following: Following,
    end: End,
    over: bool,
    /// What it needs to go on; none if it needs nothing.
    allowed: Option<Box<Allowed>>,
}

impl Updates {
    pub(super) fn new(
        first: Option<Update>,
        following: Following,
        end: End,
        allowed: Option<Box<Allowed>>,
    ) -> Self {
        Self { first, following, end, over: false, allowed }
    }

    /// That nothing comes after the first.
    pub(super) fn over_if(mut self, over: bool) -> Self {
        self.over = over;
        self
    }

    /// The next update; none at the end. Dropping the future loses none.
    pub(in crate::gateway) async fn next(&mut self) -> Result<Option<Update>, A2aError> {
        let Self { first, following, end, over, allowed } = self;
        if first.is_none() && *over {
            return Ok(None);
        }
        let Some(allowed) = allowed else { return advance(first, following, *end, over).await };
        let lost = {
            let update = advance(first, following, *end, over);
            tokio::select! {
                biased;
                lost = allowed.lost() => lost,
                update = update => return update,
            }
        };
        (*first, *over) = (None, true);
        Err(lost)
    }
}

async fn advance(
    first: &mut Option<Update>,
    following: &mut Following,
    end: End,
    over: &mut bool,
) -> Result<Option<Update>, A2aError> {
    if let Some(first) = first.take() {
        return Ok(Some(first));
    }
    following.wanted();
    while !*over {
        let event = match following.next().await {
            Ok(Some(event)) => event,
            Ok(None) => {
                *over = true;
                break;
            }
            Err(error) => {
                *over = true;
                return Err(error);
            }
        };
        let event = event.get();
        *over = state_after(event).is_some_and(|state| end.is_at(state));
        // Whoever has asked is told that there is no answer; whoever follows, how the task stands.
        if end == End::ClientsTurn
            && let Some(invalid) = invalid_reply(event)
        {
            return Err(invalid);
        }
        if let Some(response) = update(event) {
            let generation = event.generation.to_native();
            return Ok(Some(Update { generation, response }));
        }
    }
    Ok(None)
}

impl std::fmt::Debug for Updates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updates").field("task", &self.following.task).finish_non_exhaustive()
    }
}
