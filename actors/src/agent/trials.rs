//! In which order a node runs those of its interrupted tasks again that may be what has ended it: one after another,
//! so that the next time it's known better which one it was.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neuroflow_kernel::{Clock, Moment};
use tokio::sync::Notify;

use crate::limits::{TASK_TRIAL, TASK_TRIALS_ALONE};

/// The trials of a node's interrupted tasks; all of its agents share them.
///
/// ```
/// use neuroflow_actors::{AgentServer, AnyAgent, Echo, Journal, Trials};
/// fn server(journal: Journal, trials: &Trials) -> AgentServer {
///     AgentServer::new(AnyAgent::new(Echo), None, journal).trials(trials.clone())
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Trials(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the last run of each began that waits, and its number.
    waiting: BTreeSet<(u64, u64)>,
    /// When those were begun of which nothing is known yet.
    tried: BTreeMap<u64, Moment>,
    /// How many have been begun.
    begun: usize,
    next: u64,
    /// Whether more may come that go first.
    gathers: bool,
    /// When the last run began, in milliseconds of Unix time: each of this process has one of its own.
    last_ms: u64,
}

impl Trials {
    /// None begins before they are opened: a node's agents start one after another, and each says what it has.
    pub fn gathering() -> Self {
        let trials = Self::default();
        trials.state().gathers = true;
        trials
    }

    /// All agents have started.
    pub fn open(&self) {
        self.state().gathers = false;
        self.0.changed.notify_waiters();
    }

    /// Places for an agent's tasks, each with when its last run began: in the order in which their turns come, so that
    /// who waits for one after the other waits for none that comes behind another of its own.
    pub(super) fn places<T: Ord>(&self, mut waiting: Vec<(u64, T)>) -> Vec<(Trial, T)> {
        waiting.sort_unstable();
        let place = |(last_ms, task)| (self.place(last_ms), task);
        // The largest goes first, and of two runs that began at the same time the one with the larger number.
        let mut places: Vec<_> = waiting.into_iter().map(place).collect();
        places.reverse();
        places
    }

    /// A place for a task whose last run began then.
    fn place(&self, last_ms: u64) -> Trial {
        let mut state = self.state();
        state.next += 1;
        // Whatever the clock says now, runs of this life are later than those of lives before.
        state.last_ms = state.last_ms.max(last_ms);
        let number = state.next;
        state.waiting.insert((last_ms, number));
        drop(state);
        Trial { of: self.clone(), last_ms, number }
    }

    /// The time of a run that begins now.
    pub(super) fn next_ms(&self, now_ms: u64) -> u64 {
        let mut state = self.state();
        state.last_ms = now_ms.max(state.last_ms.saturating_add(1));
        state.last_ms
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins the trial of this one, or says when to look again.
    fn begin(&mut self, last_ms: u64, number: u64, now: Moment) -> Result<(), Option<Moment>> {
        if self.gathers {
            return Err(None);
        }
        self.tried.retain(|_, begun| now < *begun + TASK_TRIAL);
        let over = self.begun - self.tried.len();
        let room = if over < TASK_TRIALS_ALONE { 1 } else { over };
        if self.tried.len() >= room {
            return Err(self.tried.values().min().map(|begun| *begun + TASK_TRIAL));
        }
        // With the one that was begun last the node has ended most likely.
        if self.waiting.last() != Some(&(last_ms, number)) {
            return Err(None);
        }
        self.waiting.remove(&(last_ms, number));
        self.tried.insert(number, now);
        self.begun += 1;
        Ok(())
    }
}

/// A task's place among those that are tried. Dropped once it's known what comes of it, or nobody wants to know.
///
/// ```
/// fn whose(command: &neuroflow_actors::AgentCommand) -> Option<&str> {
///     match command {
///         neuroflow_actors::AgentCommand::Try { task, .. } => Some(task),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Trial {
    of: Trials,
    last_ms: u64,
    number: u64,
}

impl Trial {
    /// Returns when the task may be run.
    pub(super) async fn turn(&self, clock: &Clock) {
        let shared = &self.of.0;
        loop {
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            let begun = self.of.state().begin(self.last_ms, self.number, clock.now());
            match begun {
                Ok(()) => {
                    shared.changed.notify_waiters();
                    return;
                }
                Err(None) => changed.await,
                Err(Some(later)) => tokio::select! {
                    () = changed => {}
                    () = clock.sleep_until(later) => {}
                },
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.waiting.remove(&(self.last_ms, self.number));
        state.tried.remove(&self.number);
        drop(state);
        self.of.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use neuroflow_kernel::ManualClock;

    use super::*;

    /// Whether each may begin now.
    fn turns(trials: &[&Trial], clock: &Clock) -> Vec<bool> {
        trials.iter().map(|trial| trial.turn(clock).now_or_never().is_some()).collect()
    }

    #[test]
    fn the_one_that_was_begun_last_goes_first_and_the_others_after_what_comes_of_it() {
        let time = ManualClock::new();
        let clock = time.clock();
        let trials = Trials::gathering();
        let [old, late, early] = [5, 7, 1].map(|last_ms| trials.place(last_ms));
        // Others may still come.
        assert_eq!(turns(&[&late, &old], &clock), [false, false]);
        trials.open();
        assert_eq!(turns(&[&old, &early, &late], &clock), [false, false, true]);
        assert_eq!(turns(&[&old], &clock), [false]);
        drop(late);
        assert_eq!(turns(&[&early, &old], &clock), [false, true]);
        time.advance(TASK_TRIAL);
        assert_eq!(turns(&[&early], &clock), [true]);
    }

    #[test]
    fn who_gives_up_keeps_nobody_waiting_and_after_some_alone_many_go_at_once() {
        let time = ManualClock::new();
        let clock = time.clock();
        let trials = Trials::default();
        drop(trials.place(1_000));
        let all: Vec<Trial> = (0..100).map(|at| trials.place(at)).collect();
        let mut rows = Vec::new();
        let mut left: Vec<&Trial> = all.iter().rev().collect();
        while !left.is_empty() {
            time.advance(TASK_TRIAL);
            let before = left.len();
            while let Some(first) = left.first()
                && turns(&[first], &clock) == [true]
            {
                left.remove(0);
            }
            rows.push(before - left.len());
        }
        assert_eq!(rows[..TASK_TRIALS_ALONE], [1; TASK_TRIALS_ALONE]);
        assert!(rows.len() < TASK_TRIALS_ALONE + 5, "{rows:?}");
    }

    #[test]
    fn each_run_has_a_time_of_its_own_later_than_those_of_lives_before() {
        let trials = Trials::default();
        assert_eq!([5, 5, 9, 3].map(|now| trials.next_ms(now)), [5, 6, 9, 10]);
        drop(trials.places(vec![(20, "a"), (15, "b")]));
        assert_eq!([11, 30].map(|now| trials.next_ms(now)), [21, 30]);
    }

    /// The tasks of two agents in the order in which they are tried, as far as any are.
    fn tried(one: &[(u64, u32)], other: &[(u64, u32)]) -> Vec<u32> {
        let (trials, clock) = (Trials::default(), ManualClock::new().clock());
        let ran = Arc::new(Mutex::new(Vec::new()));
        let run = |waiting: &[(u64, u32)]| {
            let (places, clock, ran) =
                (trials.places(waiting.to_vec()), clock.clone(), ran.clone());
            async move {
                for (trial, task) in places {
                    trial.turn(&clock).await;
                    ran.lock().expect("nobody panics").push(task);
                }
            }
        };
        let mut all = pin!(futures_util::future::join(run(one), run(other)));
        // Each look brings one at least, unless they wait for each other.
        for _ in 0..=one.len() + other.len() {
            if all.as_mut().now_or_never().is_some() {
                break;
            }
        }
        ran.lock().expect("nobody panics").clone()
    }

    #[test]
    fn runs_that_began_at_the_same_time_do_not_wait_for_each_other() {
        assert_eq!(tried(&[(5, 1), (5, 2), (1, 3)], &[(3, 4)]), [2, 1, 4, 3]);
        assert_eq!(tried(&[(5, 1)], &[(5, 2)]), [2, 1]);
    }

    #[test]
    fn whatever_the_times_are_all_are_tried_the_latest_first() {
        // Up to three tasks for each of two agents, and three times: each row one way to give them.
        let mut rows: Vec<Vec<u64>> = vec![vec![]];
        for at in 0..40 {
            if let Some(row) = rows.get(at).filter(|row| row.len() < 3).cloned() {
                rows.extend((0..3).map(|time| [row.as_slice(), &[time]].concat()));
            }
        }
        assert_eq!(rows.len(), 40);
        for one in &rows {
            for other in &rows {
                let of = |row: &[u64], from: u32| row.iter().copied().zip(from..).collect();
                let (mine, theirs): (Vec<_>, Vec<_>) = (of(one, 0), of(other, 10));
                let order = tried(&mine, &theirs);
                let time = |task: &u32| mine.iter().chain(&theirs).find(|it| it.1 == *task);
                let times: Vec<u64> = order.iter().filter_map(time).map(|it| it.0).collect();
                assert_eq!(times.len(), one.len() + other.len(), "{one:?} {other:?}: {order:?}");
                assert!(times.is_sorted_by(|a, b| a >= b), "{one:?} {other:?}: {order:?}");
            }
        }
    }
}
