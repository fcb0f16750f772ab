//! Where an agent is asked, and its tasks are followed: on this node, or wherever in the cluster it is.

use neuroflow_actors::{AgentCommand, Ask, TaskEvent, TaskEvents, TaskOrder, TaskWish, follow};
use neuroflow_kernel::{Address, Header, Parcel, Refusal, ReplyStream, Request};

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

/// How much of a task is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    task: String,
    context: String,
    generation: u64,
}

impl Known {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Parcel<TaskEvent>) {
        let event = event.get();
        if self.task.is_empty() {
            event.task.as_str().clone_into(&mut self.task);
            event.context.as_str().clone_into(&mut self.context);
        }
        self.generation = self.generation.max(event.generation.to_native());
    }
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
        known: &Known,
        caller: Option<&str>,
    ) -> Option<(TaskEvents, Events)> {
        let Known { task, context, generation: after } = known;
        match self {
            Self::Near(agent) => follow(agent, header, task, caller, Some(*after)).await.ok()?,
            Self::Far(far) => {
                let (task, context) = (task.clone(), context.clone());
                let wish = TaskWish::Follow { after: *after };
                let order = TaskOrder { task, context, caller: caller.map(str::to_owned), wish };
                let parcel = Parcel::archive(&order).ok()?;
                let orders = far.orders.as_ref()?;
                let to_come = orders.stream(header, |replies| Request { parcel, replies }).await;
                Some((TaskEvents::default(), to_come.ok()?))
            }
        }
    }
}
