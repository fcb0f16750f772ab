//! What an agent may use of its tools while it works on a task: what the rules say whom it works for may. Rules
//! are a node's own, so what they permit of an agent elsewhere goes there with the request.

use neuroflow_kernel::{Address, Parcel, Restriction, Rights, WireMessage, WireRequest};
use neuroflow_sandbox::Level;
use rkyv::{Archive, Serialize};

use super::{ASK, ArchivedAsk, Ask, TaskEvent};
use crate::access::CallerGrant;
use crate::journal::{Entry, EntryKind};
use crate::tools::{ToolBounds, ToolsCommand};

/// A request of another node, whose rules don't permit everything to whom it's for. A task that it begins keeps
/// the bounds; one that it continues has those that it was begun with. It names its conversation.
///
/// ```
/// use neuroflow_actors::{Ask, BoundedAsk, ToolBounds, Turn};
/// use neuroflow_kernel::Parcel;
/// let ask = Ask::new(Turn::user("hello")).in_context("c");
/// let bounded = BoundedAsk { ask, bounds: ToolBounds::default() };
/// assert!(Parcel::archive(&bounded)?.get().bounds.tools.is_empty());
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct BoundedAsk {
    /// What is asked.
    pub ask: Ask,
    /// What may be used for that.
    pub bounds: ToolBounds,
}

impl WireMessage for BoundedAsk {
    const NAME: &'static str = "neuroflow.agent.bounded-ask";
    const VERSION: u16 = 1;
}

impl WireRequest for BoundedAsk {
    type Reply = TaskEvent;

    fn rights(_: &ArchivedBoundedAsk) -> Rights {
        ASK
    }

    /// Its conversation.
    fn affinity(bounded: &ArchivedBoundedAsk) -> Option<&str> {
        <Ask as WireRequest>::affinity(&bounded.ask)
    }
}

/// In a task's log: it may use everything. Without a word of that nobody could tell it from a task of whose bounds
/// nothing was noted.
#[derive(Archive, Serialize)]
pub(super) struct Unbounded;

impl WireMessage for Unbounded {
    const NAME: &'static str = "neuroflow.agent.unbounded";
    const VERSION: u16 = 1;
}

/// What of an agent's tools a task may use.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// All.
    Whole,
    /// What this node's rules permit.
    Caller(CallerGrant),
    /// What another node has said.
    Within(ToolBounds),
    /// Nothing: nobody knows any more what whom it works for may.
    Nothing,
}

impl Reach {
    /// As far as the rules let the caller of a message, if it has come under any.
    pub(super) fn of(grant: Option<&CallerGrant>) -> Self {
        grant.map_or(Self::Whole, |grant| Self::Caller(grant.clone()))
    }

    /// The agent's tools, narrowed to that.
    pub(super) fn narrow(&self, tools: &Address<ToolsCommand>) -> Option<Address<ToolsCommand>> {
        let narrowed = match self {
            Self::Whole => return Some(tools.clone()),
            Self::Nothing => return None,
            Self::Caller(grant) => Restriction::new().policy(grant.clone()),
            Self::Within(bounds) => Restriction::new().policy(bounds.clone()),
        };
        // A chain of grants that can't get longer gives nothing at all.
        tools.attenuate(narrowed).ok()
    }

    /// It as the journal has it, for a later run of the task, which may use nothing if there's nothing. What rules
    /// permit can't be tried out: one may forbid one tool, or one level, of all.
    pub(super) fn entry(&self) -> Option<Entry> {
        // A few short texts can be archived.
        let record = match self {
            Self::Nothing => return None,
            Self::Within(bounds) => Parcel::archive(bounds).ok()?.as_raw().clone(),
            Self::Caller(grant) if self.is_bounded() => {
                Parcel::archive(&grant.principal().record()).ok()?.as_raw().clone()
            }
            Self::Whole | Self::Caller(_) => Parcel::archive(&Unbounded).ok()?.as_raw().clone(),
        };
        Some(Entry::new(EntryKind::Caller, record))
    }

    /// Of these tools of an agent elsewhere, which may be used there; nothing if there are no bounds.
    pub(super) fn bounds(&self, agent: &str, tools: &[String]) -> Option<ToolBounds> {
        let tools = tools.iter().filter(|tool| self.permits_tool(agent, tool));
        let levels = LEVELS.into_iter().filter(|level| self.permits_level(*level));
        self.is_bounded().then(|| ToolBounds {
            tools: tools.cloned().collect(),
            levels: levels.map(|level| level.to_string()).collect(),
        })
    }

    /// Whether there can be anything that isn't permitted.
    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Self::Whole => false,
            Self::Caller(grant) => !grant.is_unrestricted(),
            Self::Within(_) | Self::Nothing => true,
        }
    }

    fn permits_tool(&self, agent: &str, tool: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Caller(grant) => grant.permits_tool(Some(agent), tool),
            Self::Within(bounds) => bounds.permits(tool, None),
            Self::Nothing => false,
        }
    }

    fn permits_level(&self, level: Level) -> bool {
        match self {
            Self::Whole => true,
            Self::Caller(grant) => grant.permits_level(level),
            Self::Within(bounds) => bounds.has(level),
            Self::Nothing => false,
        }
    }
}

const LEVELS: [Level; 4] = [Level::Minimal, Level::Standard, Level::Strict, Level::Paranoid];

/// A request with its bounds, as its sender made them.
pub(super) fn bounded(bounded: &ArchivedBoundedAsk) -> (&ArchivedAsk, ToolBounds) {
    (&bounded.ask, ToolBounds::from(&bounded.bounds))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::{Action, Principal, Rules, Ruling, Target, Unrestricted};

    /// Permits one tool of one agent, at one level.
    #[derive(Debug)]
    struct One;

    impl Rules for One {
        fn decide(&self, _: &Principal, _: Action, target: &Target<'_>) -> Ruling {
            let tool = Target::Tool { agent: Some("far"), tool: "exec" };
            Ruling::by_rule(*target == tool || *target == Target::Level(Level::Strict), "one")
        }
    }

    fn under(rules: impl Rules) -> Reach {
        Reach::Caller(CallerGrant::new(Principal::anonymous(), Arc::new(rules)))
    }

    #[test]
    fn what_goes_elsewhere_is_what_is_permitted_here_and_never_more_than_has_come() {
        let tools = ["exec".to_owned(), "read".to_owned()];
        let bounds = under(One).bounds("far", &tools).unwrap();
        assert!(bounds.permits("exec", Some(Level::Strict)) && bounds.permits("exec", None));
        assert!(!bounds.permits("exec", Some(Level::Minimal)) && !bounds.permits("read", None));
        assert_eq!(under(One).bounds("near", &tools).unwrap().tools, [""; 0]);
        assert_eq!(Reach::Within(bounds.clone()).bounds("next", &tools), Some(bounds.clone()));
        assert!(Reach::Within(bounds).bounds("next", &tools[1..]).unwrap().tools.is_empty());
        assert_eq!(Reach::Nothing.bounds("far", &tools), Some(ToolBounds::default()));
        for free in [Reach::Whole, under(Unrestricted)] {
            assert_eq!(free.bounds("far", &tools), None);
        }
    }
}
