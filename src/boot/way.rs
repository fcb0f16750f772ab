//! Where an agent is asked, and its tasks are followed: on this node, or wherever in the cluster it is.

use neuroflow_actors::{AgentCommand, Ask, TaskEvent, TaskEvents, TaskOrder, TaskWish, follow};
use neuroflow_kernel::{Address, Header, Parcel, Refusal, ReplyStream, Request};

use crate::outcome::TaskOutcome;

/// What is told of a task.
pub(super) type Events = ReplyStream<Parcel<TaskEvent>>;

/// The way to one agent.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// To its own actor.
    Near(&'a Address<AgentCommand>),
    /// Over links, or to whatever leads to the only instance.
    Far(FarWay),
}

/// A way that doesn't end at an agent's own actor.
#[derive(Clone, Debug)]
pub(super) struct FarWay {
    pub(super) asks: Address<Request<Ask>>,
    /// None if what is asked there has no tasks.
    pub(super) orders: Option<Address<Request<TaskOrder>>>,
}

impl Way<'_> {
    /// Sends a request.
    pub(super) async fn ask(&self, header: Header, parcel: Parcel<Ask>) -> Result<Events, Refusal> {
        let request = |replies| Request { parcel, replies };
        match self {
            Self::Near(agent) => {
                agent.stream(header, |replies| AgentCommand::Ask(request(replies))).await
            }
            Self::Far(far) => far.asks.stream(header, request).await,
        }
    }

    /// What was told of a task behind what is known, and what will be; nothing if nobody says.
    pub(super) async fn follow(
        &self,
        header: Header,
        known: &TaskOutcome,
        caller: Option<&str>,
    ) -> Option<(TaskEvents, Events)> {
        let (task, after) = (known.task(), known.generation());
        match self {
            Self::Near(agent) => follow(agent, header, task, caller, Some(after)).await.ok()?,
            Self::Far(far) => {
                let order = TaskOrder {
                    task: task.to_owned(),
                    context: known.context().to_owned(),
                    caller: caller.map(str::to_owned),
                    wish: TaskWish::Follow { after },
                };
                let parcel = Parcel::archive(&order).ok()?;
                let orders = far.orders.as_ref()?;
                let to_come = orders.stream(header, |replies| Request { parcel, replies }).await;
                Some((TaskEvents::default(), to_come.ok()?))
            }
        }
    }
}
