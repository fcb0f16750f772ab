//! Tasks that an earlier life of the agent, or of the node, has left: run again or ended.

use neuroflow_kernel::{Context, Header};

use super::{AgentServer, names};
use crate::access::CallerGrant;
use crate::agent::AgentCommand;
use crate::agent::history::failure;
use crate::agent::live::{Live, Origin, Run};
use crate::agent::reach::Reach;
use crate::agent::record::Record;
use crate::agent::resume::{Caller, understand};
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
        let effects = std::mem::take(&mut replay.effects);
        let record = Record::restored(names(&head), understood.events, head.generation);
        let whole = understood.damage.is_empty();
        // Whoever has asked over a connection that is gone may be asking again already.
        let is_wanted = understood.ask.as_ref().is_some_and(|ask| !ask.get().ends_with_asker());
        let resumes = self.profile.resumable && whole && is_wanted && self.live.len() < LIVE_TASKS;
        let mut live = Live::restored(record, entries, replay, &self.holdings);
        let task = head.task;
        if let (true, Some(ask)) = (resumes, understood.ask) {
            tracing::info!(%task, events = head.generation, "an interrupted task is run again");
            // The life before has taken them, and so they aren't refused now.
            live.give(effects.iter().map(|(key, json)| key.len() + json.len()).sum());
            self.live.insert(task.clone(), live);
            let reach = self.reach_again(understood.caller);
            let run = Run { ask, reach, effects, header: Header::new() };
            self.run(&task, run, context).await;
            return;
        }
        let end = if whole {
            failure("the node ended while the task ran", "interrupted")
        } else {
            failure("the journal of the task is damaged", "damaged")
        };
        live.append(end, Origin::Node, context.clock().unix_ms());
        live.stranded = true;
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
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
