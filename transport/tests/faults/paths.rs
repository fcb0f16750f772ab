//! Networks that lose, double, reorder, damage, replay or delay packets, or carry small ones only.

use std::time::Duration;

use neuroflow_transport::Credential;

use crate::hosts::{Hosts, Node};

/// Time enough for a packet that is sent again and again.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers that are waited for on each path.
const ANSWERS: u64 = 40;

fn two(hosts: &Hosts, before: &[&str]) -> (Node, Node) {
    two_as(hosts, &hosts.credential("b"), before)
}

fn two_as(hosts: &Hosts, b: &Credential, before: &[&str]) -> (Node, Node) {
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut b = hosts.node(2, b, before);
    a.dial(2);
    a.has_link_to("b");
    b.has_link_to("a");
    (a, b)
}

/// Both ask over each path, and over a clean one afterwards.
fn over_each(seed: u64, paths: &[&str]) {
    let Some(mut hosts) = Hosts::create(2, seed) else { return };
    let (mut a, mut b) = two(&hosts, &[]);
    a.ask("there", "agent://b/echo", 8, DEADLINE);
    b.ask("back", "agent://a/echo", 4, DEADLINE);
    for path in paths {
        hosts.both_ways(1, 2, path);
        a.answers("there", ANSWERS);
        b.answers("back", ANSWERS);
        let spoilt = hosts.both_ways(1, 2, "");
        assert!(spoilt > 0, "{path}");
    }
    a.is_well_with("b");
    b.is_well_with("a");
    let there = a.stop_asking("there");
    assert!(there["answered"] <= hosts.handled(2));
    let back = b.stop_asking("back");
    assert!(back["answered"] <= hosts.handled(1));
}

#[test]
fn packets_that_are_lost() {
    over_each(11, &["loss=10", "loss=100", "loss=300"]);
}

#[test]
fn packets_that_come_twice_late_damaged_or_again() {
    let all = "double=100 reorder=200 damage=50 replay=100 loss=20";
    over_each(12, &["double=300", "reorder=300", "damage=100", "replay=500", all]);
}

#[test]
fn a_long_way() {
    over_each(13, &["delay=100", "delay=200", "delay=200 loss=20"]);
}

#[test]
fn small_packets_only_from_the_start_or_all_of_a_sudden() {
    let Some(mut hosts) = Hosts::create(2, 14) else { return };
    for host in [1, 2] {
        hosts.card(host, "mtu 1280");
        hosts.cable(host, "mtu 1280");
    }
    let who = hosts.credential("b");
    let (mut a, mut b) = two_as(&hosts, &who, &[]);
    a.ask("there", "agent://b/echo", 8, DEADLINE);
    a.answers("there", ANSWERS);
    for host in [1, 2] {
        hosts.card(host, "mtu 9000");
        hosts.cable(host, "mtu 9000");
    }
    a.stop_asking("there");
    // Another connection, which finds out that the path takes larger ones.
    b.program.finish();
    a.has_lost("b");
    b = hosts.node(2, &who, &[]);
    a.is_well_with("b");
    a.ask("larger", "agent://b/echo", 8, DEADLINE);
    a.answers("larger", 10 * ANSWERS);
    // And then doesn't any more, and nobody says so.
    hosts.both_ways(1, 2, "most=1252");
    a.answers("larger", ANSWERS);
    assert!(hosts.both_ways(1, 2, "") > 0);
    a.is_well_with("b");
    b.is_well_with("a");
    a.stop_asking("larger");
    hosts.handled(2);
}

#[test]
fn clocks_that_are_far_apart() {
    let Some(hosts) = Hosts::create(2, 15) else { return };
    // Eleven days; a deadline travels as what is left of it.
    let later = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000"];
    let (mut a, mut b) = two(&hosts, &later);
    a.ask("there", "agent://b/echo", 4, DEADLINE);
    b.ask("back", "agent://a/echo", 4, DEADLINE);
    a.ask("silent", "agent://b/silent", 4, DEADLINE / 10);
    b.ask("silent", "agent://a/silent", 4, DEADLINE / 10);
    a.answers("there", ANSWERS);
    b.answers("back", ANSWERS);
    for (node, load) in [(&mut a, "there"), (&mut b, "back")] {
        let said = node.stop_asking(load);
        assert_eq!(said["answered"], said["asked"], "{said:?}");
        let said = node.stop_asking("silent");
        assert_eq!(said["DeadlineExceeded"], said["asked"], "{said:?}");
    }
    a.is_well_with("b");
    b.is_well_with("a");
}
