//! What other nodes want of a task that they have begun here: to follow it again, or to end it.

use std::sync::Arc;

use neuroflow_kernel::{
    Address, Header, Parcel, ReplySink, ReplyStream, Request, Rights, StreamError, WireMessage,
    WireRequest,
};
use rkyv::{Archive, Serialize};

use super::history::refused;
use super::{
    AgentCommand, Ask, AskRefusal, BoundedAsk, CANCEL, CancelError, READ, TaskEvent, TaskEvents,
    follow,
};

/// What another node wants of a task that it has begun here. It's answered with the task's events.
///
/// ```
/// use neuroflow_actors::{TaskOrder, TaskWish};
/// let order = TaskOrder {
///     task: "t".into(), context: "c".into(), caller: None, wish: TaskWish::Follow { after: 0 },
/// };
/// assert_ne!(order.wish, TaskWish::Cancel);
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct TaskOrder {
    /// The task.
    pub task: String,
    /// Its conversation.
    pub context: String,
    /// Whose it must be; anybody's if it isn't known who asks.
    pub caller: Option<String>,
    /// What is to be done.
    pub wish: TaskWish,
}

/// What is to be done about a task.
///
/// ```
/// use neuroflow_actors::TaskWish;
/// assert_eq!(TaskWish::Follow { after: 3 }, TaskWish::Follow { after: 3 });
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWish {
    /// Its events behind this generation are told, and those to come until it has ended.
    Follow {
        /// The generation of the last event that is known.
        after: u64,
    },
    /// It's ended, with everything that works for it. It's answered with the last event.
    Cancel,
}

/// The way to an agent on one node.
///
/// ```
/// fn at(way: &neuroflow_actors::AgentWay) -> &str {
///     &way.node
/// }
/// ```
#[derive(Clone, Debug)]
pub struct AgentWay {
    /// The node.
    pub node: String,
    /// Takes requests.
    pub asks: Address<Request<Ask>>,
    /// Takes requests with bounds.
    pub bounded: Address<Request<BoundedAsk>>,
    /// Takes orders for the tasks that those have begun.
    pub orders: Address<Request<TaskOrder>>,
}

impl WireMessage for TaskOrder {
    const NAME: &'static str = "neuroflow.agent.task-order";
    const VERSION: u16 = 1;
}

impl WireRequest for TaskOrder {
    type Reply = TaskEvent;

    fn rights(order: &ArchivedTaskOrder) -> Rights {
        match order.wish {
            ArchivedTaskWish::Follow { .. } => READ,
            ArchivedTaskWish::Cancel => CANCEL,
        }
    }

    /// The task's conversation.
    fn affinity(order: &ArchivedTaskOrder) -> Option<&str> {
        Some(&order.context)
    }
}

/// Carries an order out, beside the agent's actor. `_place` is one of those that such orders have.
pub(super) async fn carry_out(
    agent: Address<AgentCommand>,
    request: Request<TaskOrder>,
    at_ms: u64,
    _place: Arc<()>,
) {
    let Request { parcel, replies } = request;
    let order = parcel.get();
    let (task, caller) = (order.task.to_string(), order.caller.as_ref().map(ToString::to_string));
    match &order.wish {
        ArchivedTaskWish::Follow { after } => {
            let after = Some(after.to_native());
            let followed = follow(&agent, Header::new(), &task, caller.as_deref(), after).await;
            match followed {
                Ok(Some((so_far, to_come))) => pass(so_far, to_come, replies).await,
                Ok(None) => decline(order, AskRefusal::UnknownTask, replies, at_ms),
                Err(_no_answer) => replies.fail(StreamError::Overloaded),
            }
        }
        ArchivedTaskWish::Cancel => {
            let cancel = |reply| AgentCommand::Cancel { task, caller, reply };
            match agent.call(Header::new(), cancel).await {
                Ok(Ok(events)) => {
                    if let Some(last) = events.last() {
                        // The stream is empty, and so it takes one event.
                        let _gone = replies.try_send(last.clone());
                    }
                    replies.finish();
                }
                Ok(Err(error)) => decline(order, error.into(), replies, at_ms),
                Err(_no_answer) => replies.fail(StreamError::Overloaded),
            }
        }
    }
}

/// Tells what there is and what is to come, as fast as it's taken.
async fn pass(
    so_far: TaskEvents,
    mut to_come: ReplyStream<Parcel<TaskEvent>>,
    replies: ReplySink<Parcel<TaskEvent>>,
) {
    for event in so_far {
        if replies.send(event).await.is_err() {
            return;
        }
    }
    loop {
        let next = tokio::select! {
            next = to_come.next() => next,
            () = replies.closed() => return,
        };
        match next {
            Some(Ok(event)) => {
                if replies.send(event).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => return replies.fail(error),
            None => return replies.finish(),
        }
    }
}

fn decline(
    order: &ArchivedTaskOrder,
    refusal: AskRefusal,
    replies: ReplySink<Parcel<TaskEvent>>,
    at_ms: u64,
) {
    let (task, context) = (order.task.to_string(), order.context.to_string());
    if let Some(event) = refused(task, context, refusal, at_ms) {
        let _gone = replies.try_send(event);
    }
    replies.finish();
}

impl From<CancelError> for AskRefusal {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => Self::UnknownTask,
            CancelError::Elsewhere => Self::Elsewhere,
            CancelError::Ended { state } => Self::Ended { state },
        }
    }
}
