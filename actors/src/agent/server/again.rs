//! Tasks that an earlier life of the agent, or of the node, has left: run again or ended.

use neuroflow_kernel::{Address, Context, Header, Parcel};

use super::{AgentServer, caller_grant, names, now_ms};
use crate::access::CallerGrant;
use crate::agent::AgentCommand;
use crate::agent::history::failure;
use crate::agent::live::{Live, Origin, Run};
use crate::agent::record::Record;
use crate::agent::resume::{Caller, understand};
use crate::journal::{Entry, EntryKind, TaskLog};
use crate::limits::LIVE_TASKS;
use crate::tools::ToolsCommand;

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
        let resumes = self.profile.resumable && whole && self.live.len() < LIVE_TASKS;
        let mut live = Live::restored(record, entries, replay);
        let task = head.task;
        if let (true, Some(ask)) = (resumes, understood.ask) {
            tracing::info!(%task, events = head.generation, "an interrupted task is run again");
            self.live.insert(task.clone(), live);
            let tools = self.tools_again(understood.caller);
            let run = Run { ask, tools, effects, header: Header::new() };
            self.run(&task, run, context).await;
            return;
        }
        let end = if whole {
            failure("the node ended while the task ran", "interrupted")
        } else {
            failure("the journal of the task is damaged", "damaged")
        };
        live.append(end, Origin::Node, now_ms(context));
        live.stranded = true;
        self.live.insert(task.clone(), live);
        self.flush(&task, context);
    }

    /// Who asks, if rules say what that may use, which a later run of the task has to know. What they
    /// permit can't be tried out: a rule may forbid one tool, or one level, of all.
    pub(super) fn caller_to_keep(&self, context: &Context<AgentCommand>) -> Option<Entry> {
        let grant = caller_grant(context).filter(|grant| !grant.is_unrestricted());
        let grant = grant.filter(|_| self.profile.resumable)?;
        // A few short texts can be archived.
        let record = Parcel::archive(&grant.principal().record()).ok()?;
        Some(Entry::new(EntryKind::Caller, record.as_raw().clone()))
    }

    /// The tools for a second run, under the rules of this moment. Without rules any more nobody
    /// knows what its caller might use, and so it's nothing.
    pub(super) fn tools_again(&self, caller: Option<Caller>) -> Option<Address<ToolsCommand>> {
        match caller {
            None => self.tools_for(None),
            Some(Caller::Unknown) => None,
            Some(Caller::Known(principal)) => {
                let (rules, _) = self.access.as_ref()?.rules().ok()?;
                self.tools_for(Some(CallerGrant::new(principal, rules)))
            }
        }
    }
}
