//! A name server that changes its mind: the first answer is an address that the rule opens, every later one
//! the host's own loopback. Other names are the system's.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::egress::{Lookup, Resolve, System};

/// The name that leads elsewhere.
pub(super) const REBOUND: &str = "rebound.escape.test";
/// Where it leads first. It stands for a public address, and is the machine's own, so that nothing is sent
/// elsewhere even if no wall holds.
pub(super) const OPEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where it leads then.
pub(super) const CLOSED: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// See the module.
#[derive(Debug)]
pub(super) struct Rebinding {
    was_asked: AtomicBool,
    system: System,
}

impl Rebinding {
    pub(super) fn new() -> Self {
        Self { was_asked: AtomicBool::new(false), system: System::for_cell() }
    }
}

impl Resolve for Rebinding {
    fn resolve(&self, name: String) -> Lookup {
        if name != REBOUND {
            return self.system.resolve(name);
        }
        let address = if self.was_asked.swap(true, Ordering::Relaxed) { CLOSED } else { OPEN };
        Box::pin(async move { Ok(vec![IpAddr::V4(address)]) })
    }
}
