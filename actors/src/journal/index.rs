//! Where every task stands, and in which order they changed: pure, and small for each task.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{HeadPage, TaskCursor, TaskHead, TaskQuery, TaskState};
use crate::limits::JOURNAL_PAGE;

/// What is known of a task without reading it; `place` is where its entries are.
#[derive(Clone, Debug)]
pub(super) struct Known<P> {
    pub(super) context: Arc<str>,
    pub(super) caller: Option<Arc<str>>,
    pub(super) state: TaskState,
    pub(super) at_ms: u64,
    pub(super) generation: u64,
    pub(super) entries: u64,
    /// Of its entries, heads included.
    pub(super) bytes: u64,
    pub(super) place: P,
}

/// The tasks of one agent.
#[derive(Debug)]
struct Agent<P> {
    tasks: HashMap<Arc<str>, Known<P>>,
    /// The last changed first.
    order: BTreeSet<(Reverse<u64>, Arc<str>)>,
    unfinished: BTreeSet<Arc<str>>,
}

/// All tasks.
#[derive(Debug)]
pub(super) struct Index<P> {
    agents: BTreeMap<Arc<str>, Agent<P>>,
    ended: Kept,
    bytes: u64,
}

/// Tasks that have ended, and the bytes of their entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) tasks: u64,
    pub(super) bytes: u64,
}

impl<P> Default for Index<P> {
    fn default() -> Self {
        Self { agents: BTreeMap::new(), ended: Kept::default(), bytes: 0 }
    }
}

impl<P> Index<P> {
    pub(super) fn get(&self, agent: &str, task: &str) -> Option<&Known<P>> {
        self.agents.get(agent)?.tasks.get(task)
    }

    pub(super) fn head(&self, agent: &str, task: &str) -> Option<TaskHead> {
        self.get(agent, task).map(|known| head(agent, task, known))
    }

    /// Puts a task, in place of what was known of it.
    pub(super) fn put(&mut self, agent: &str, task: &str, known: Known<P>) {
        self.remove(agent, task);
        let of = match self.agents.get_mut(agent) {
            Some(of) => of,
            None => self.agents.entry(agent.into()).or_insert_with(|| Agent {
                tasks: HashMap::new(),
                order: BTreeSet::new(),
                unfinished: BTreeSet::new(),
            }),
        };
        let task: Arc<str> = task.into();
        of.order.insert((Reverse(known.at_ms), Arc::clone(&task)));
        if known.state.is_terminal() {
            self.ended.tasks += 1;
            self.ended.bytes += known.bytes;
        } else {
            of.unfinished.insert(Arc::clone(&task));
        }
        self.bytes += known.bytes;
        of.tasks.insert(task, known);
    }

    pub(super) fn remove(&mut self, agent: &str, task: &str) -> Option<Known<P>> {
        let of = self.agents.get_mut(agent)?;
        let (task, known) = of.tasks.remove_entry(task)?;
        if known.state.is_terminal() {
            self.ended.tasks -= 1;
            self.ended.bytes -= known.bytes;
        } else {
            of.unfinished.remove(&task);
        }
        self.bytes -= known.bytes;
        of.order.remove(&(Reverse(known.at_ms), task));
        Some(known)
    }

    pub(super) fn ended(&self) -> Kept {
        self.ended
    }

    /// Bytes of all tasks, those included that haven't ended.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn tasks(&self) -> usize {
        self.agents.values().map(|of| of.tasks.len()).sum()
    }

    pub(super) fn agents(&self) -> Vec<String> {
        let some = self.agents.iter().filter(|(_, of)| !of.tasks.is_empty());
        some.map(|(agent, _)| agent.to_string()).collect()
    }

    pub(super) fn unfinished_count(&self) -> usize {
        self.agents.values().map(|of| of.unfinished.len()).sum()
    }

    /// Every task, in no order.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &str, &Known<P>)> {
        self.agents.iter().flat_map(|(agent, of)| {
            of.tasks.iter().map(move |(task, known)| (&**agent, &**task, known))
        })
    }

    pub(super) fn unfinished(&self, agent: &str) -> Vec<TaskHead> {
        let Some(of) = self.agents.get(agent) else { return Vec::new() };
        let mut heads: Vec<TaskHead> = of
            .unfinished
            .iter()
            .filter_map(|task| of.tasks.get(task).map(|known| head(agent, task, known)))
            .collect();
        heads.sort_by(|a, b| (a.changed_ms, &a.task).cmp(&(b.changed_ms, &b.task)));
        heads
    }

    /// A page, the last changed first.
    pub(super) fn page(&self, agent: &str, query: &TaskQuery) -> HeadPage {
        let Some(of) = self.agents.get(agent) else { return HeadPage::default() };
        let fits = |known: &Known<P>| {
            query.caller.as_ref().is_none_or(|caller| known.caller.as_deref() == Some(caller))
                && query.context.as_ref().is_none_or(|context| **context == *known.context)
                && query.state.is_none_or(|state| state == known.state)
        };
        let fitting = |task: &Arc<str>| of.tasks.get(task).filter(|known| fits(known));
        let since = query.since_ms.unwrap_or(0);
        let recent = of.order.iter().take_while(|(changed, _)| changed.0 >= since);
        let open = query.caller.is_none() && query.context.is_none() && query.state.is_none();
        let total = if open && since == 0 {
            of.tasks.len()
        } else {
            recent.filter(|(_, task)| fitting(task).is_some()).count()
        };
        let begin = match &query.after {
            Some(TaskCursor { changed_ms, task }) => {
                Bound::Excluded((Reverse(*changed_ms), Arc::from(task.as_str())))
            }
            None => Bound::Unbounded,
        };
        let limit = query.limit.clamp(1, JOURNAL_PAGE);
        let mut rest = of
            .order
            .range((begin, Bound::Unbounded))
            .take_while(|(changed, _)| changed.0 >= since)
            .filter_map(|(_, task)| fitting(task).map(|known| head(agent, task, known)));
        let heads: Vec<TaskHead> = rest.by_ref().take(limit).collect();
        let next = rest
            .next()
            .and(heads.last())
            .map(|last| TaskCursor { changed_ms: last.changed_ms, task: last.task.clone() });
        HeadPage { heads, total, next }
    }

    /// The ended tasks that changed longest ago, as many as `most`, as long as `wanted` says so.
    pub(super) fn oldest_ended(
        &self,
        most: usize,
        mut wanted: impl FnMut(&Known<P>) -> bool,
    ) -> Vec<(String, String)> {
        let mut oldest: Vec<Aged<'_, P>> = Vec::new();
        for (agent, of) in &self.agents {
            let ended = of.order.iter().rev().filter_map(|(changed, task)| {
                let known = of.tasks.get(task)?;
                known.state.is_terminal().then_some((changed.0, agent, task, known))
            });
            oldest.extend(ended.take(most));
        }
        oldest.sort_by_key(|(at_ms, _, task, _)| (*at_ms, Arc::clone(task)));
        let wanted = oldest.into_iter().take(most).take_while(|(.., known)| wanted(known));
        wanted.map(|(_, agent, task, _)| (agent.to_string(), task.to_string())).collect()
    }
}

/// A task with its last status time, its agent and its id.
type Aged<'a, P> = (u64, &'a Arc<str>, &'a Arc<str>, &'a Known<P>);

fn head<P>(agent: &str, task: &str, known: &Known<P>) -> TaskHead {
    TaskHead {
        agent: agent.to_owned(),
        task: task.to_owned(),
        context: known.context.to_string(),
        caller: known.caller.as_deref().map(str::to_owned),
        state: known.state,
        changed_ms: known.at_ms,
        generation: known.generation,
        entries: known.entries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(state: TaskState, at_ms: u64) -> Known<()> {
        let context = if at_ms.is_multiple_of(2) { "even" } else { "odd" };
        Known {
            context: context.into(),
            caller: at_ms.is_multiple_of(3).then(|| "alice".into()),
            state,
            at_ms,
            generation: 1,
            entries: 1,
            bytes: 10,
            place: (),
        }
    }

    fn ten() -> Index<()> {
        let mut index = Index::default();
        for at in 0..10 {
            let state = if at < 4 { TaskState::Completed } else { TaskState::Working };
            index.put("a", &format!("t{at}"), known(state, at));
        }
        index
    }

    fn names(heads: &[TaskHead]) -> Vec<&str> {
        heads.iter().map(|head| head.task.as_str()).collect()
    }

    #[test]
    fn pages_join_without_gap_or_repetition_also_when_tasks_change() {
        let mut index = ten();
        let mut query = TaskQuery::first(4);
        let first = index.page("a", &query);
        assert_eq!((names(&first.heads), first.total), (vec!["t9", "t8", "t7", "t6"], 10));
        // It moves to the front, where the reader has been already.
        index.put("a", "t5", known(TaskState::Completed, 99));
        query.after = first.next;
        let second = index.page("a", &query);
        assert_eq!(names(&second.heads), ["t4", "t3", "t2", "t1"]);
        query.after = second.next;
        let third = index.page("a", &query);
        assert_eq!((names(&third.heads), third.next), (vec!["t0"], None));
    }

    #[test]
    fn filters_narrow_pages_and_totals() {
        let index = ten();
        let mut query = TaskQuery::first(10);
        query.context = Some("even".into());
        query.state = Some(TaskState::Working);
        query.since_ms = Some(6);
        let page = index.page("a", &query);
        assert_eq!((names(&page.heads), page.total, page.next), (vec!["t8", "t6"], 2, None));
        query.after = Some(TaskCursor { changed_ms: 2, task: "t2".into() });
        assert!(index.page("a", &query).heads.is_empty());
        let mut hers = TaskQuery::first(10);
        hers.caller = Some("alice".into());
        let page = index.page("a", &hers);
        assert_eq!((names(&page.heads), page.total), (vec!["t9", "t6", "t3", "t0"], 4));
        assert_eq!(index.page("b", &hers), HeadPage::default());
    }

    #[test]
    fn counts_follow_what_is_put_and_removed() {
        let mut index = ten();
        let kept = |tasks, bytes| Kept { tasks, bytes };
        assert_eq!((index.tasks(), index.ended(), index.bytes()), (10, kept(4, 40), 100));
        index.put("a", "t9", known(TaskState::Failed, 20));
        assert_eq!((index.tasks(), index.ended(), index.unfinished_count()), (10, kept(5, 50), 5));
        assert!(index.remove("a", "t9").is_some());
        assert!(index.remove("a", "t9").is_none());
        assert_eq!((index.tasks(), index.ended(), index.bytes()), (9, kept(4, 40), 90));
        assert_eq!(names(&index.unfinished("a")), ["t4", "t5", "t6", "t7", "t8"]);
    }

    #[test]
    fn the_oldest_ended_come_first_over_all_agents() {
        let mut index = ten();
        index.put("b", "old", known(TaskState::Canceled, 1));
        let oldest = index.oldest_ended(3, |_| true);
        let tasks: Vec<&str> = oldest.iter().map(|(_, task)| task.as_str()).collect();
        assert_eq!(tasks, ["t0", "old", "t1"]);
        assert_eq!(index.oldest_ended(9, |known| known.at_ms < 2).len(), 3);
    }
}
