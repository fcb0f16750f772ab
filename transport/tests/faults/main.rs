//! Faults of hosts and of the network between them, on hosts made of network namespaces.
//!
//! Each test builds its hosts, joins them by virtual Ethernet and a wire that spoils packets as told,
//! runs nodes as processes on them, and breaks something while callers ask. Whatever breaks, every
//! caller has its answer or a typed error in time, nothing is delivered twice, memory stays bounded,
//! and the link heals by itself. It needs root and namespaces; without them it says so, and tests
//! nothing.
#![cfg(test)]

mod hosts;
mod load;
mod node;
mod paths;
mod wire;

mod losses;
mod twins;

/// A process on one of the hosts; the tests start it.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let role = std::env::var("FAULTS_ROLE").expect("only the other tests start this");
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
}
