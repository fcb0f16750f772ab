//! What clients want of a task that there is: to go on, to be followed, read or cancelled.

use std::sync::Arc;

use neuroflow_kernel::{Context, Name, Parcel, Reply, ReplySink, Request, StreamError};

use super::{AgentServer, unreadable};
use crate::agent::live::Origin;
use crate::agent::{
    AgentCommand, Ask, AskRefusal, CancelError, Change, Incoming, TaskEvent, TaskEvents, TaskOrder,
    TaskState, order, read,
};
use crate::journal::ReadError;
use crate::limits::{TASK_FOLLOWERS, TASK_ORDERS, UNREAD_MESSAGES};

impl AgentServer {
    /// Says something to a task that has begun: its agent goes on if it has waited for that.
    pub(super) fn proceed(
        &mut self,
        task: &str,
        request: Request<Ask>,
        context: &mut Context<AgentCommand>,
    ) -> Result<(), (AskRefusal, Request<Ask>)> {
        let ask = read::ask(request.parcel.get());
        let visible = self.live.get_mut(task);
        let visible = visible.filter(|live| live.record.is_visible_to(ask.caller.as_deref()));
        let Some(live) = visible else { return Err((AskRefusal::UnknownTask, request)) };
        if ask.context.as_ref().is_some_and(|context| context != live.record.context()) {
            return Err((AskRefusal::OtherContext, request));
        }
        let state = live.record.state();
        if state.is_terminal() {
            return Err((AskRefusal::Ended { state }, request));
        }
        live.prune();
        let unread = !live.is_asking() && live.unread.len() >= UNREAD_MESSAGES;
        let bytes = request.parcel.as_raw().as_bytes().len();
        let has_room = self.holdings.has_room(ask.caller.as_deref(), bytes);
        if unread || !has_room || live.stranded || live.followed() >= TASK_FOLLOWERS {
            return Err((AskRefusal::Busy, request));
        }
        let at_ms = context.clock().unix_ms();
        // Else it would look like an answer.
        live.settle(at_ms);
        live.join(request.replies);
        let said = live.append(Change::Continued { ask }, Origin::Node, at_ms);
        // None if the task has no room for it: it has failed then.
        if said.and_then(Incoming::of).is_some_and(|said| live.answer(said)) {
            // Right behind the answer: by that it's known again as one.
            let working = Change::Status { state: TaskState::Working, turn: None };
            live.append(working, Origin::Node, at_ms);
        }
        self.flush(task, context);
        Ok(())
    }

    pub(super) fn follow(
        &mut self,
        task: String,
        caller: Option<String>,
        after: Option<u64>,
        events: ReplySink<Parcel<TaskEvent>>,
        reply: Reply<Option<TaskEvents>>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(&task).filter(|live| live.is_known()) else {
            let history = self.history.clone();
            let answer = async move {
                let seen = after.unwrap_or(0);
                let found = history.read_after(&task, caller.as_deref(), seen).await;
                let Some(found) = answered(&task, found) else { return };
                // A task that isn't over runs elsewhere, and what it will say isn't known here.
                let is_over = found.as_ref().is_none_or(|(head, _)| head.state.is_terminal());
                let so_far = found.map(|(_, events)| events);
                if is_over {
                    events.finish();
                } else {
                    events.cut_off();
                }
                let _gone = reply.send(so_far);
            };
            return self.beside(answer, context);
        };
        if !live.record.is_visible_to(caller.as_deref()) {
            let _gone = reply.send(None);
            return;
        }
        // Those who followed before are told first: what this one reads now isn't told again.
        live.tell();
        let so_far = live.events_after(after);
        live.prune();
        if live.followed() < TASK_FOLLOWERS {
            live.followers.push(events);
        } else {
            events.cut_off();
        }
        let _gone = reply.send(Some(so_far));
    }

    /// Carries out what another node wants of a task, with as many others as may be at a time.
    pub(super) fn order(
        &mut self,
        request: Request<TaskOrder>,
        context: &mut Context<AgentCommand>,
    ) {
        if Arc::strong_count(&self.orders) > TASK_ORDERS {
            return request.replies.fail(StreamError::Overloaded);
        }
        let (own, place) = (context.address(), Arc::clone(&self.orders));
        self.beside(order::carry_out(own, request, context.clock().unix_ms(), place), context);
    }

    pub(super) fn read(
        &mut self,
        task: String,
        caller: Option<String>,
        reply: Reply<Option<TaskEvents>>,
        context: &mut Context<AgentCommand>,
    ) {
        if let Some(live) = self.live.get(&task).filter(|live| live.is_known()) {
            let visible = live.record.is_visible_to(caller.as_deref());
            let _gone = reply.send(visible.then(|| live.events_after(None)));
            return;
        }
        let history = self.history.clone();
        let answer = async move {
            let found = history.read(&task, caller.as_deref()).await;
            if let Some(found) = answered(&task, found) {
                let _gone = reply.send(found.map(|(_, events)| events));
            }
        };
        self.beside(answer, context);
    }

    pub(super) async fn cancel(
        &mut self,
        task: String,
        caller: Option<String>,
        reply: Reply<Result<TaskEvents, CancelError>>,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(live) = self.live.get_mut(&task).filter(|live| live.is_known()) else {
            let history = self.history.clone();
            let answer = async move {
                let found = history.cancel(&task, caller.as_deref()).await;
                if let Some(error) = answered(&task, found) {
                    let _gone = reply.send(Err(error));
                }
            };
            return self.beside(answer, context);
        };
        if !live.record.is_visible_to(caller.as_deref()) {
            let _gone = reply.send(Err(CancelError::Unknown));
            return;
        }
        let state = if live.stranded { TaskState::Failed } else { live.record.state() };
        if state.is_terminal() {
            let _gone = reply.send(Err(CancelError::Ended { state }));
            return;
        }
        if let Ok(name) = Name::new(&task) {
            // The actor's future is dropped, and with it every reply side that it holds: its tool
            // calls end, and the processes in their cells.
            context.kill_child(&name).await;
        }
        live.cancel(reply);
        // If it waits to be run again, it does so no longer.
        self.suspects.remove(&task);
        let end = Change::Status { state: TaskState::Canceled, turn: None };
        self.append(&task, end, context);
    }
}

/// What the journal says. Without that the reply is dropped, and so the caller told.
pub(super) fn answered<T>(task: &str, found: Result<T, ReadError>) -> Option<T> {
    found.inspect_err(|error| unreadable(task, error)).ok()
}
