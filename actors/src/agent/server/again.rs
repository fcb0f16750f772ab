//! Tasks that an earlier life of the agent, or of the node, has left: run again or ended.
//!
//! A task can take the whole process along: by an abort, an overflown stack, or all of the memory. So each second
//! run is in the journal before it begins, and a task of which some have ended with the node and brought nothing isn't
//! run again. Several may have run when the node ended: those that have been run again for nothing before are tried
//! one after another.

use neuroflow_kernel::{Context, Header};

use super::{AgentServer, names};
use crate::access::CallerGrant;
use crate::agent::history::failure;
use crate::agent::live::{Live, Origin, Run};
use crate::agent::reach::Reach;
use crate::agent::record::Record;
use crate::agent::resume::{Caller, Fruitless, understand};
use crate::agent::trials::Trial;
use crate::agent::{AgentCommand, Change};
use crate::journal::TaskLog;
use crate::limits::LIVE_TASKS;

impl AgentServer {
    /// Goes on with a task that the last life of this agent, or of the node, has left; or ends it.
    pub(super) async fn recover(&mut self, log: TaskLog, context: &mut Context<AgentCommand>) {
        let (head, entries) = (log.head.clone(), log.head.entries);
        let understood = understand(log);
        for damage in &understood.damage {
            tracing::error!(task = %head.task, %damage, "damage of the journal");
        }
        let mut replay = understood.replay;
        let earlier = std::mem::take(&mut replay.earlier);
        let record = Record::restored(names(&head), understood.events, head.generation);
        let whole = understood.damage.is_empty();
        // Whoever has asked over a connection that is gone may be asking again already.
        let is_wanted = understood.ask.as_ref().is_some_and(|ask| !ask.get().ends_with_asker());
        let Fruitless { runs, last_ms } = understood.fruitless;
        let may_resume = self.profile.resumable && whole && is_wanted;
        let resumes =
            may_resume && runs < self.profile.fruitless_runs && self.live.len() < LIVE_TASKS;
        let mut live = Live::restored(record, entries, replay, &self.holdings);
        let task = head.task;
        if let (true, Some(ask)) = (resumes, understood.ask) {
            tracing::info!(%task, events = head.generation, "an interrupted task is run again");
            // The life before has taken them, and so they aren't refused now.
            live.give(earlier.held());
            self.live.insert(task.clone(), live);
            let reach = self.reach_again(understood.caller);
            let run = Run { ask, reach, earlier, header: Header::new() };
            if runs > 0 {
                self.suspects.insert(task, Suspect { last_ms, run });
            } else {
                self.run_again(&task, run, context).await;
            }
            return;
        }
        if may_resume && runs >= self.profile.fruitless_runs {
            tracing::error!(%task, runs, "a task isn't run again: the node has ended each time");
        }
        let end = end(whole, may_resume && runs >= self.profile.fruitless_runs);
        live.append(end, Origin::Node, context.clock().unix_ms());
        live.stranded = true;
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
    }

    /// Runs a task again, once it's durable that it is.
    async fn run_again(&mut self, task: &str, run: Run, context: &mut Context<AgentCommand>) {
        let at_ms = self.trials.next_ms(context.clock().unix_ms());
        let Some(live) = self.live.get_mut(task) else { return };
        if let Some(run) = live.run_again(run, at_ms) {
            return self.run(task, run, context).await;
        }
        self.flush(task, context);
    }

    /// Has those that have been run again for nothing tried beside this actor, each in its turn.
    pub(super) fn try_suspects(&mut self, context: &mut Context<AgentCommand>) {
        if self.suspects.is_empty() {
            return;
        }
        let waiting = self.suspects.iter().map(|(task, it)| (it.last_ms, task.clone()));
        let places = self.trials.places(waiting.collect());
        let (clock, me) = (context.clock().clone(), context.address());
        let trials = async move {
            for (trial, task) in places {
                trial.turn(&clock).await;
                // The only error is that this agent has ended itself.
                let _ended = me.tell(Header::new(), AgentCommand::Try { task, trial }).await;
            }
        };
        self.beside(trials, context);
    }

    /// It's the turn of this one.
    pub(super) async fn try_one(
        &mut self,
        task: String,
        trial: Trial,
        context: &mut Context<AgentCommand>,
    ) {
        let Some(Suspect { run, .. }) = self.suspects.remove(&task) else { return };
        // It may have been cancelled meanwhile, or be lost.
        let goes_on = |live: &Live| !live.record.state().is_terminal() && !live.stranded;
        if self.live.get(&task).is_some_and(goes_on) {
            self.run_again(&task, run, context).await;
            self.tried.push((task, trial));
        }
    }

    /// Makes way for others as soon as it's known what comes of those that are tried.
    pub(super) fn end_trials(&mut self) {
        let is_tried = |task: &String| self.live.get(task).is_some_and(Live::is_tried);
        self.tried.retain(|(task, _)| is_tried(task));
    }

    /// What a second run may use, under the rules of this moment. Without rules any more nobody knows what its
    /// caller might use, and so it's nothing.
    fn reach_again(&self, caller: Caller) -> Reach {
        match caller {
            Caller::Unbounded => Reach::Whole,
            Caller::Unknown => Reach::Nothing,
            Caller::Within(bounds) => Reach::Within(bounds),
            Caller::Known(principal) => {
                let rules = self.access.as_ref().and_then(|access| access.rules().ok());
                rules.map_or(Reach::Nothing, |(rules, _)| {
                    Reach::Caller(CallerGrant::new(principal, rules))
                })
            }
        }
    }
}

/// Why a task isn't run again.
fn end(is_whole: bool, ends_nodes: bool) -> Change {
    if !is_whole {
        return failure("the journal of the task is damaged", "damaged");
    }
    if ends_nodes {
        let text = "the node ended each time that the task was run again";
        return failure(text, "crashed_again");
    }
    failure("the node ended while the task ran", "interrupted")
}

/// A task that has been run again for nothing, and waits to be tried once more.
pub(super) struct Suspect {
    /// When its last run began.
    last_ms: u64,
    run: Run,
}
