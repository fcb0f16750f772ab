//! Nodes that are killed, frozen, restarted, or behind a network that is down.

use std::time::Duration;

use crate::hosts::{Hosts, for_a_while, until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_that_is_killed_in_mid_call() {
    if crate::plays_a_role() {
        return;
    }
    let Some(hosts) = Hosts::create(2, 1) else { return };
    let (ours, theirs) = (hosts.credential("a"), hosts.credential("b"));
    let (mut a, mut b) = (hosts.node(1, &ours, &[]), hosts.node(2, &theirs, &[]));
    a.dial(2);
    a.has_link_to("b");
    b.has_link_to("a");
    a.ask("echo", "agent://b/echo", 8, 2 * SECOND);
    a.ask("short", "agent://b/silent", 4, 2 * SECOND);
    a.ask("long", "agent://b/silent", 4, 100 * SECOND);
    a.answers("echo", 100);
    b.program.kill();
    a.has_lost("b");
    until("an error for those with time", || a.so_far("long").contains_key("Lost"));
    let mut b = hosts.node(2, &theirs, &[]);
    a.is_well_with("b");
    a.answers("echo", 100);
    let echo = a.stop_asking("echo");
    assert!(hosts.handled(2) >= echo["answered"]);
    // Those who still wait for the silent one are told when it goes for good.
    b.is_well_with("a");
    b.program.finish();
    let short = a.stop_asking("short");
    assert!(short["DeadlineExceeded"] > 0, "{short:?}");
    assert!(a.stop_asking("long")["Lost"] >= 4);
}

#[test]
fn a_node_that_is_frozen_and_thawed() {
    let Some(hosts) = Hosts::create(2, 2) else { return };
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut b = hosts.node(2, &hosts.credential("b"), &[]);
    a.dial(2);
    a.has_link_to("b");
    b.has_link_to("a");
    a.ask("echo", "agent://b/echo", 8, SECOND);
    a.answers("echo", 100);
    // For less than it takes to be given up, so that the link stays.
    b.program.signal("STOP");
    for_a_while(SECOND);
    b.program.signal("CONT");
    a.answers("echo", 100);
    // And for longer.
    b.program.signal("STOP");
    a.has_lost("b");
    until("refusals", || a.so_far("echo").contains_key("refused"));
    b.program.signal("CONT");
    a.is_well_with("b");
    a.answers("echo", 100);
    a.stop_asking("echo");
    b.is_well_with("a");
    hosts.handled(2);
}

#[test]
fn a_partition_both_ways_and_one_way() {
    let Some(mut hosts) = Hosts::create(2, 3) else { return };
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut b = hosts.node(2, &hosts.credential("b"), &[]);
    a.dial(2);
    a.has_link_to("b");
    b.has_link_to("a");
    a.ask("there", "agent://b/echo", 4, SECOND);
    b.ask("back", "agent://a/echo", 4, SECOND);
    let nothing = "loss=1000";
    a.answers("there", 50);
    for (to_b, to_a) in [(nothing, nothing), (nothing, ""), ("", nothing)] {
        hosts.path(1, 2, to_b);
        hosts.path(2, 1, to_a);
        a.has_lost("b");
        b.has_lost("a");
        hosts.both_ways(1, 2, "");
        a.is_well_with("b");
        b.is_well_with("a");
        a.answers("there", 50);
        b.answers("back", 50);
    }
    a.stop_asking("there");
    b.stop_asking("back");
    hosts.handled(1);
    hosts.handled(2);
}

#[test]
fn a_card_and_a_cable_that_come_and_go() {
    let Some(hosts) = Hosts::create(2, 4) else { return };
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut b = hosts.node(2, &hosts.credential("b"), &[]);
    a.dial(2);
    a.has_link_to("b");
    a.ask("there", "agent://b/echo", 4, SECOND);
    b.has_link_to("a");
    b.ask("back", "agent://a/echo", 4, SECOND);
    a.answers("there", 50);
    for _ in 0..5 {
        for state in ["down", "up"] {
            hosts.card(1, state);
            for_a_while(SECOND / 5);
            hosts.cable(2, state);
            for_a_while(SECOND / 5);
        }
    }
    a.answers("there", 50);
    b.answers("back", 50);
    hosts.card(2, "down");
    a.has_lost("b");
    b.has_lost("a");
    hosts.card(2, "up");
    a.is_well_with("b");
    b.is_well_with("a");
    a.stop_asking("there");
    b.stop_asking("back");
    hosts.handled(1);
    hosts.handled(2);
}

#[test]
fn nodes_that_are_restarted_one_after_another_under_load() {
    let Some(hosts) = Hosts::create(3, 5) else { return };
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let names = ["b", "c"].map(|name| hosts.credential(name));
    let mut nodes = [2, 3].map(|host| Some(hosts.node(host, &names[host - 2], &[])));
    for (at, who) in names.iter().enumerate() {
        let name = who.name().as_str();
        a.dial(at + 2);
        a.has_link_to(name);
        a.ask(name, &format!("agent://{name}/echo"), 4, SECOND);
        a.answers(name, 50);
    }
    for round in 0..4 {
        let (at, other) = (round % 2, (round + 1) % 2);
        let name = names[at].name().as_str();
        nodes[at].take().expect("it runs").program.finish();
        // The others go on meanwhile.
        a.answers(names[other].name().as_str(), 50);
        nodes[at] = Some(hosts.node(at + 2, &names[at], &[]));
        a.is_well_with(name);
        a.answers(name, 50);
    }
    for (at, who) in names.iter().enumerate() {
        let said = a.stop_asking(who.name().as_str());
        assert!(hosts.handled(at + 2) >= said["answered"]);
        assert!(
            !said.contains_key("Lost"),
            "a node that stops in good order loses nothing: {said:?}"
        );
    }
    assert_eq!((a.reconnects("b"), a.reconnects("c")), (2, 2));
}
