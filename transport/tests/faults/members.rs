//! Members that are killed, frozen or leave: the others know it once, and who watches is told once.

use std::time::Duration;

use neuroflow_transport::Credential;

use crate::hosts::{Hosts, Node, until};

const SECOND: Duration = Duration::from_secs(1);

/// What is asked and watched.
const B: &str = "agent://b/echo";

/// Three nodes that know each other, the second by this key.
fn three(hosts: &Hosts, who: &Credential) -> [Node; 3] {
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut b = hosts.node(2, who, &[]);
    let mut c = hosts.node(3, &hosts.credential("c"), &[]);
    // Hosts reach each other through doors that gossip doesn't know.
    a.dial(2);
    a.dial(3);
    b.dial(3);
    know_each_other(&mut a, &mut b, &mut c);
    [a, b, c]
}

fn know_each_other(a: &mut Node, b: &mut Node, c: &mut Node) {
    for (node, others) in [(a, ["b", "c"]), (b, ["a", "c"]), (c, ["a", "b"])] {
        for other in others {
            node.has_link_to(other);
            until(format!("{other} among the members"), || node.counts(other));
        }
    }
}

/// The first and the third have lost the second, and count each other as there.
fn have_lost_b(a: &mut Node, c: &mut Node) {
    for node in [&mut *a, &mut *c] {
        until("the fall of what is watched", || node.falls(B).contains_key("Lost"));
        until("that b is gone", || !node.counts("b"));
    }
    assert!(a.counts("c") && c.counts("a"));
}

/// Each was told once of what it watches, and nobody else was ever counted out.
fn was_once(a: &mut Node, c: &mut Node) {
    for node in [&mut *a, &mut *c] {
        let falls = node.falls(B);
        assert_eq!((falls["watches"], falls["Lost"], falls.len()), (1, 1, 2), "{falls:?}");
        assert!(node.went("b") >= 1);
    }
    // A machine that lets a node wait for its turn may make it look dead, and rightly so.
    let stalled = a.was_stalled() || c.was_stalled();
    let went = [a.went("c"), c.went("a")];
    assert!(went == [0, 0] || stalled, "{went:?}");
}

#[test]
fn a_member_that_is_killed_is_lost_once_and_comes_in_again() {
    let Some(hosts) = Hosts::create(3, 31) else { return };
    let who = hosts.credential("b");
    let [mut a, b, mut c] = three(&hosts, &who);
    a.watch(B);
    c.watch(B);
    a.ask("echo", B, 4, SECOND);
    a.answers("echo", 50);
    b.program.kill();
    have_lost_b(&mut a, &mut c);
    // What is told twice would be told by when it has come in again.
    let mut b = hosts.node(2, &who, &[]);
    know_each_other(&mut a, &mut b, &mut c);
    a.answers("echo", 50);
    a.stop_asking("echo");
    was_once(&mut a, &mut c);
    // The life that is there now is watched anew.
    c.watch(B);
    b.program.kill();
    until("the end of the second watch", || c.falls(B)["Lost"] == 2);
    until("that b is gone", || !a.counts("b"));
    assert_eq!(a.falls(B)["Lost"], 1);
    hosts.handled(2);
}

#[test]
fn a_member_that_is_frozen_is_lost_once_and_comes_in_again_when_it_is_thawed() {
    let Some(hosts) = Hosts::create(3, 32) else { return };
    let [mut a, mut b, mut c] = three(&hosts, &hosts.credential("b"));
    a.watch(B);
    c.watch(B);
    b.watch("agent://a/echo");
    a.ask("echo", B, 4, SECOND);
    a.answers("echo", 50);
    b.program.signal("STOP");
    have_lost_b(&mut a, &mut c);
    b.program.signal("CONT");
    know_each_other(&mut a, &mut b, &mut c);
    // It has lost what it watched by its own absence.
    until("the fall of what b watches", || b.falls("agent://a/echo").contains_key("Lost"));
    a.answers("echo", 50);
    a.stop_asking("echo");
    was_once(&mut a, &mut c);
    a.is_well_with("b");
    b.is_well_with("c");
    hosts.handled(2);
}

#[test]
fn a_member_that_stops_has_left_before_its_silence_could_tell() {
    let Some(hosts) = Hosts::create(3, 33) else { return };
    let [mut a, b, mut c] = three(&hosts, &hosts.credential("b"));
    a.watch(B);
    b.program.finish();
    for node in [&mut a, &mut c] {
        until("that b has left", || node.state_of("b") == "left");
    }
    until("the fall of what is watched", || a.falls(B).values().sum::<u64>() == 2);
    assert!(a.went("b") >= 1 && c.went("b") >= 1);
    hosts.handled(2);
}
