//! Faults of hosts and of the network between them, on hosts made of network namespaces.
//!
//! Each test builds its hosts, joins them by virtual Ethernet and a wire that spoils packets as told,
//! runs nodes as processes on them, and breaks something while callers ask. Whatever breaks, every
//! caller has its answer or a typed error in time, nothing is delivered twice, memory stays bounded,
//! and the link heals by itself. It needs root and namespaces; without them it says so, and tests
//! nothing.
#![cfg(test)]

#[path = "../../../tests/shared/eventually.rs"]
mod eventually;
mod hosts;
mod load;
mod node;
mod observer;
mod paths;
#[path = "../../../tests/shared/untried.rs"]
mod untried;
mod wire;

mod losses;
mod members;
mod twins;

/// The test that each process on the hosts is told to run: it plays its role instead.
const STAGE: &str = "losses::a_node_that_is_killed_in_mid_call";

/// Plays the role of this process, if the tests have started it for one.
fn plays_a_role() -> bool {
    let Ok(role) = std::env::var("FAULTS_ROLE") else { return false };
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    match role.as_str() {
        "wire" => threads.block_on(wire::run()),
        "node" => threads.block_on(node::run()),
        other => panic!("{other} isn't a role"),
    }
    true
}
