//! Two nodes with the same key: whoever was met last is the one, until there is only one left.

use std::time::Duration;

use crate::hosts::Hosts;

#[test]
fn two_nodes_with_the_same_key() {
    let Some(hosts) = Hosts::create(3, 21) else { return };
    let twins = hosts.credential("b");
    let mut a = hosts.node(1, &hosts.credential("a"), &[]);
    let mut one = hosts.node(2, &twins, &[]);
    a.dial(2);
    a.has_link_to("b");
    one.has_link_to("a");
    a.ask("echo", "agent://b/echo", 8, Duration::from_secs(1));
    a.answers("echo", 100);
    let mut other = hosts.node(3, &twins, &[]);
    other.dial(1);
    other.has_link_to("a");
    a.answers("echo", 500);
    // They take the link from each other, and no call is handled by both.
    one.program.kill();
    other.is_well_with("a");
    a.is_well_with("b");
    let said = a.stop_asking("echo");
    let (first, second) = (hosts.handled(2), hosts.handled(3));
    assert!(second > 0 && first + second >= said["answered"], "{first} {second}");
    assert_eq!(hosts.handled_by_both(2, 3), 0);
}
