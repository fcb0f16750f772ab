//! The way of an agent's appends to the journal and back: what comes together goes together, and so
//! comes back together.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{Address, Context, Header};
use tokio::sync::{mpsc, oneshot};

use crate::agent::AgentCommand;
use crate::journal::{Append, AppendError, Journal};
use crate::limits::{JOURNAL_BATCH, JOURNAL_BATCH_BYTES, JOURNAL_CALLS, LIVE_TASKS};

/// What a task has for the journal.
pub(super) struct Flight {
    pub(super) task: String,
    pub(super) append: Append,
}

/// Takes flights, as many as there may be at once: one of each task.
pub(super) struct Courier {
    queue: mpsc::Sender<Flight>,
    over: oneshot::Sender<()>,
    rest: oneshot::Receiver<Vec<Append>>,
}

impl Courier {
    /// Begins its work beside an agent; none if there is no room for that.
    pub(super) fn begin(journal: Journal, context: &mut Context<AgentCommand>) -> Option<Self> {
        let (queue, flights) = mpsc::channel(LIVE_TASKS);
        let ((over, is_over), (end, rest)) = (oneshot::channel(), oneshot::channel());
        let work = fly(flights, journal, context.address(), is_over, end);
        context.task(work).ok().map(|()| Self { queue, over, rest })
    }

    /// Takes one, or gives it back.
    pub(super) fn send(&self, flight: Flight) -> Option<Flight> {
        self.queue.try_send(flight).err().map(mpsc::error::TrySendError::into_inner)
    }

    /// Takes no more, and gives back what the journal hasn't been given yet.
    pub(super) async fn end(self) -> Vec<Append> {
        let Self { queue, over, rest } = self;
        drop((queue, over));
        rest.await.unwrap_or_default()
    }
}

type Call = BoxFuture<'static, Vec<Result<(), AppendError>>>;

/// Calls that are under way, each with its tasks.
#[derive(Default)]
struct Flying(Vec<(Vec<String>, Call)>);

/// What is next.
enum Step {
    Send(Flight),
    Landed(Vec<(String, Result<(), AppendError>)>),
    Over,
}

impl Flying {
    /// Looks at all of them: they are few, and a list that remembers whom to look at would wake this
    /// task once for each that it takes up.
    fn landed(&mut self, cx: &mut task::Context<'_>) -> Vec<(String, Result<(), AppendError>)> {
        let mut landed = Vec::new();
        self.0.retain_mut(|(tasks, call)| match call.as_mut().poll(cx) {
            Poll::Ready(results) => {
                landed.extend(tasks.drain(..).zip(results));
                false
            }
            Poll::Pending => true,
        });
        landed
    }
}

async fn fly(
    mut flights: mpsc::Receiver<Flight>,
    journal: Journal,
    agent: Address<AgentCommand>,
    mut over: oneshot::Receiver<()>,
    end: oneshot::Sender<Vec<Append>>,
) {
    let mut flying = Flying::default();
    loop {
        let step = poll_fn(|cx| {
            let landed = flying.landed(cx);
            if !landed.is_empty() {
                return Poll::Ready(Step::Landed(landed));
            }
            if Pin::new(&mut over).poll(cx).is_ready() {
                return Poll::Ready(Step::Over);
            }
            if flying.0.len() >= JOURNAL_CALLS {
                return Poll::Pending;
            }
            flights.poll_recv(cx).map(|next| next.map_or(Step::Over, Step::Send))
        });
        match step.await {
            Step::Send(first) => {
                let (mut tasks, mut appends) = (Vec::new(), Vec::new());
                gather(first, &mut flights, |Flight { task, append }| {
                    tasks.push(task);
                    appends.push(append);
                });
                let journal = journal.clone();
                let call: Call = Box::pin(async move { journal.append_all(appends).await });
                flying.0.push((tasks, call));
            }
            Step::Landed(landed) => {
                // The only error is that the agent has ended itself.
                let _ended = agent.tell(Header::new(), AgentCommand::Landed(landed)).await;
            }
            Step::Over => break,
        }
    }
    let _nobody = end.send(rest(&mut flights));
    // Each keeps its place before what comes now. The agent doesn't hear of them any more.
    poll_fn(|cx| {
        let _unheard = flying.landed(cx);
        if flying.0.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Takes what waits, as far as it makes a commit.
fn gather(first: Flight, flights: &mut mpsc::Receiver<Flight>, mut take: impl FnMut(Flight)) {
    let (mut count, mut bytes) = (1, first.append.bytes());
    take(first);
    while count < JOURNAL_BATCH && bytes < JOURNAL_BATCH_BYTES {
        let Ok(next) = flights.try_recv() else { break };
        count += 1;
        bytes += next.append.bytes();
        take(next);
    }
}

fn rest(flights: &mut mpsc::Receiver<Flight>) -> Vec<Append> {
    std::iter::from_fn(|| flights.try_recv().ok()).map(|flight| flight.append).collect()
}
