//! The proxy that is a cell's only way out, and its report; and the same rules for the host's own
//! connections.
//!
//! What may pass is decided by functions without I/O (`decision`, `host`, `path`, `address`, `head`,
//! `hello`); `proxy` accepts on the cell's loopback, `dial` resolves a name once and connects to
//! exactly the address that was looked at, `forward` and `tunnel` carry the bytes under a `meter`.
//! A client's connection carries one request, so that nothing behind it is ever taken for another.

mod address;
mod answer;
mod decision;
mod dial;
mod exchange;
mod forward;
mod head;
mod hello;
mod host;
mod meter;
mod outbound;
mod outlet;
mod path;
mod policy;
mod proxy;
mod reason;
mod report;
mod resolver;
mod tally;
mod tls;
mod tunnel;

#[cfg(test)]
mod tests;

pub use host::HostProblem;
pub use outbound::{Outbound, OutboundError, OutboundStream};
pub use outlet::{Outlet, OutletError, OutletStream};
pub use reason::{EgressReason, EgressVerdict};
pub use report::{Decision, EgressReport};

pub(crate) use policy::Policy;
pub(crate) use proxy::Egress;
#[cfg(unix)]
pub(crate) use proxy::serve;
pub(crate) use resolver::Names;
#[cfg(target_os = "linux")]
pub(crate) use resolver::{Lookup, Resolve, System};
pub(crate) use tally::Tally;

/// Runs every reader of hostile text on the bytes; for the fuzzer.
///
/// ```text
/// cargo +nightly fuzz run egress_request
/// ```
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    if let hello::Hello::Client { server_name: Some(name), .. } = hello::read(bytes) {
        assert!(name.is_ascii());
    }
    let _scanned = head::scan(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(host) = host::Host::parse(text) {
        assert_eq!(host::Host::parse(&host.to_string()), Ok(host));
    }
    let _authority = head::authority(text);
    if path::check(text).is_ok() {
        assert!(!text.split('/').any(|segment| segment == ".."));
    }
}

/// A hello that names this host, for tests elsewhere.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn sample_hello(name: &str) -> Vec<u8> {
    hello::build::hello(&[hello::build::server_name(name)])
}
