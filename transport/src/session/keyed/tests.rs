//! A key runs once, whatever is lost or repeated, and its window keeps to its bounds.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::session::retry::{Retry, Step, Tried};

const BOUNDS: Bounds = Bounds { calls: 4, bytes: 100, time: Duration::from_mins(10) };
const NOW: Moment = Moment::ORIGIN;

#[test]
fn a_key_runs_once_and_is_known_until_its_time_is_over() {
    let mut window = KeyedWindow::new(BOUNDS);
    assert_eq!(window.arrived(&1, NOW, || "run"), Arrival::First("run"));
    assert_eq!(window.arrived(&1, NOW, || "other"), Arrival::Known("run"));
    assert!(window.ended(&1, 10, NOW).is_empty());
    let late = NOW + Duration::from_secs(599);
    assert!(window.expire(late, |_| true).is_empty());
    assert_eq!(window.arrived(&1, late, || "other"), Arrival::Known("run"));
    assert!(window.expire(NOW + BOUNDS.time, |_| true).is_empty());
    assert!(window.is_empty());
}

#[test]
fn a_full_window_takes_no_more_keys_and_drops_answers_but_not_keys() {
    let mut window = KeyedWindow::new(BOUNDS);
    for key in 0..4 {
        assert_eq!(window.arrived(&key, NOW, || key), Arrival::First(key));
    }
    assert_eq!(window.arrived(&9, NOW, || 9), Arrival::Full);
    assert!(window.ended(&0, 60, NOW).is_empty());
    assert_eq!(window.ended(&1, 60, NOW), [0]);
    assert_eq!(window.ended(&2, 101, NOW), [1, 2]);
    for key in 0..4 {
        assert_eq!(window.arrived(&key, NOW, || 7), Arrival::Known(key));
    }
    assert_eq!(window.kept_bytes, 0);
}

#[test]
fn answers_that_are_still_coming_take_room_too() {
    let mut window = KeyedWindow::new(BOUNDS);
    for key in 0..3 {
        assert_eq!(window.arrived(&key, NOW, || key), Arrival::First(key));
    }
    assert!(window.ended(&0, 40, NOW).is_empty());
    assert!(window.grew(&1, 40, NOW).is_empty());
    assert_eq!(window.grew(&2, 40, NOW), [0], "a whole one makes room");
    assert!(window.grew(&2, 20, NOW).is_empty());
    assert_eq!(window.grew(&1, 1, NOW), [1], "no other one can");
    assert_eq!(window.kept_bytes, 60);
    assert!(window.grew(&1, 40, NOW).is_empty(), "it's over");
    assert!(window.ended(&2, 60, NOW).is_empty());
    assert_eq!(window.kept_bytes, 60);
}

#[test]
fn what_is_given_up_or_has_not_run_leaves_its_room() {
    let mut window = KeyedWindow::new(BOUNDS);
    for key in 0..2 {
        assert_eq!(window.arrived(&key, NOW, || key), Arrival::First(key));
        assert!(window.grew(&key, 30, NOW).is_empty());
    }
    window.not_run(&0);
    assert_eq!(window.kept_bytes, 30);
    assert_eq!(window.expire(NOW + BOUNDS.time, |_| true), [1]);
    assert_eq!(window.kept_bytes, 0);
}

#[test]
fn what_wasnt_run_may_run_later_and_what_nobody_wants_is_given_up() {
    let mut window = KeyedWindow::new(BOUNDS);
    assert_eq!(window.arrived(&1, NOW, || 1), Arrival::First(1));
    window.not_run(&1);
    assert_eq!(window.arrived(&1, NOW, || 2), Arrival::First(2));
    let late = NOW + BOUNDS.time;
    assert!(window.expire(late, |_| false).is_empty());
    assert_eq!(window.expire(late, |_| true), [2]);
    assert!(window.is_empty());
    // Once it has ended, that can't be taken back.
    assert_eq!(window.arrived(&1, late, || 3), Arrival::First(3));
    window.ended(&1, 1, late);
    window.not_run(&1);
    assert_eq!(window.arrived(&1, late, || 4), Arrival::Known(3));
}

/// What happens next between a caller, a network that loses and repeats, and a callee that ends and
/// begins anew.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Sends,
    Arrives { repeated: bool },
    Ends,
    AnswerArrives,
    LinkIsLost,
    NodeBeginsAnew,
    IsRefused,
    Time(u16),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Sends),
        4 => any::<bool>().prop_map(|repeated| Happens::Arrives { repeated }),
        3 => Just(Happens::Ends),
        2 => Just(Happens::AnswerArrives),
        3 => Just(Happens::LinkIsLost),
        1 => Just(Happens::NodeBeginsAnew),
        1 => Just(Happens::IsRefused),
        2 => (0_u16..5_000).prop_map(Happens::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// One call, whatever is lost, repeated or begun anew, runs once at most; what its caller is told
    /// is true.
    #[test]
    fn a_call_never_runs_twice(story in prop::collection::vec(happens(), 1..80)) {
        let deadline = NOW + Duration::from_mins(5);
        let (mut retry, mut now) = (Retry::new(deadline), NOW);
        let (mut window, mut incarnation) = (KeyedWindow::new(BOUNDS), 1_u64);
        // Requests on their way, each to the start of the node to which its link leads.
        let mut under_way: Vec<u64> = Vec::new();
        let mut waits_in: Option<u64> = None;
        let (mut runs, mut answered, mut may_send) = (0_u32, false, true);
        let mut gave_up = false;
        let mut asked_again = HashSet::new();
        for event in story {
            match event {
                Happens::Sends if may_send && waits_in.is_none() && now < deadline => {
                    if retry.is_safe_in(incarnation) {
                        under_way.push(incarnation);
                        waits_in = Some(incarnation);
                    } else {
                        (gave_up, may_send) = (true, false);
                    }
                }
                Happens::Arrives { repeated } => {
                    let Some(to) = under_way.pop() else { continue };
                    if repeated {
                        under_way.insert(0, to);
                    }
                    // A link leads to one start only; what is left of an older one never arrives.
                    if to != incarnation {
                        continue;
                    }
                    match window.arrived(&"key", now, || ()) {
                        Arrival::First(()) => runs += 1,
                        Arrival::Known(()) => { asked_again.insert(to); }
                        Arrival::Full => {}
                    }
                }
                Happens::Ends => { window.ended(&"key", 10, now); }
                Happens::AnswerArrives => {
                    let has_ended =
                        window.entries.get("key").is_some_and(|entry| entry.has_ended);
                    if waits_in == Some(incarnation) && has_ended {
                        (answered, may_send, waits_in) = (true, false, None);
                    }
                }
                Happens::LinkIsLost => {
                    if let Some(at) = waits_in.take()
                        && retry.failed(Tried::Lost, at, now, 0.5) == Step::GiveUp
                    {
                        (gave_up, may_send) = (true, false);
                    }
                }
                Happens::NodeBeginsAnew => {
                    incarnation += 1;
                    window = KeyedWindow::new(BOUNDS);
                    if let Some(at) = waits_in.take()
                        && retry.failed(Tried::Lost, at, now, 0.5) == Step::GiveUp
                    {
                        (gave_up, may_send) = (true, false);
                    }
                }
                Happens::IsRefused => {
                    // The callee says so, and only of what it hasn't run.
                    if waits_in == Some(incarnation) && window.is_empty() && under_way.is_empty() {
                        waits_in = None;
                        retry.failed(Tried::Later, incarnation, now, 0.5);
                    }
                }
                Happens::Time(millis) => {
                    now = now + Duration::from_millis(u64::from(millis));
                    window.expire(now, |()| waits_in.is_none());
                }
                Happens::Sends => {}
            }
            prop_assert!(runs <= 1, "ran {runs} times");
            prop_assert!(!answered || runs == 1, "answered without a run");
            // Whoever is told that it surely didn't run is told the truth.
            prop_assert!(!gave_up || retry.may_have_run() || runs == 0);
        }
    }
}

#[test]
fn a_window_that_is_cleared_gives_what_still_runs_and_knows_nothing() {
    let mut window = KeyedWindow::new(BOUNDS);
    for key in 0..3 {
        assert_eq!(window.arrived(&key, NOW, || key), Arrival::First(key));
    }
    assert!(window.ended(&0, 40, NOW).is_empty());
    assert!(window.grew(&1, 40, NOW).is_empty());
    let mut running = window.clear();
    running.sort_unstable();
    assert_eq!(running, [1, 2]);
    assert!(window.is_empty() && window.kept_bytes == 0);
    assert!(window.ended(&1, 40, NOW).is_empty(), "it isn't known");
    assert_eq!(window.arrived(&1, NOW, || 7), Arrival::First(7));
}
