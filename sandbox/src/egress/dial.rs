//! From a host to a connection: one look-up, a look at every address, and no other address.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use neuroflow_kernel::{Clock, Moment};
use tokio::net::TcpStream;

use super::{
    address::{self, Closed},
    decision::Grant,
    exchange::Exchange,
    host::Host,
    meter::{Metered, Upstream},
    reason::EgressReason,
};
use crate::limits;

/// Connects to the host that a rule has allowed.
pub(crate) async fn dial(
    exchange: &Exchange,
    host: &Host,
    grant: Grant,
) -> Result<Box<dyn Upstream>, EgressReason> {
    let rule = exchange.rule(grant).ok_or(EgressReason::Host)?;
    let found = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolve(exchange, name).await?,
    };
    let open = reachable(|address| rule.permits(address), &found)?;

    let clock = &exchange.shared.clock;
    let deadline = exchange.deadline(exchange.shared.policy.limits.connect_time);
    let (stream, address) = connect(clock, &open, grant.port, deadline).await?;
    exchange.connected(address);
    // A tunnel's small records wait for nothing; where it can't be set they are only later.
    let _slower = stream.set_nodelay(true);
    let stream: Box<dyn Upstream> = Box::new(Metered::of(stream, Arc::clone(&exchange.meter)));
    let Some(connector) = &rule.upstream else { return Ok(stream) };
    match clock.before(deadline, connector.connect(host, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(target: "neuroflow::egress", %host, %error, "no TLS with the host");
            Err(EgressReason::UpstreamTls)
        }
        Err(_elapsed) => Err(EgressReason::ConnectTime),
    }
}

async fn resolve(exchange: &Exchange, name: &str) -> Result<Vec<IpAddr>, EgressReason> {
    let by = exchange.deadline(exchange.shared.policy.limits.resolve_time);
    let lookup = exchange.shared.resolver.resolve(name.to_owned());
    match exchange.shared.clock.before(by, lookup).await {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_none)) => Err(EgressReason::Unresolved),
        Ok(Err(error)) => {
            tracing::debug!(target: "neuroflow::egress", host = name, %error, "name not resolved");
            Err(EgressReason::Unresolved)
        }
        Err(_elapsed) => Err(EgressReason::ResolveTime),
    }
}

/// The addresses that may be connected to, in their order, each once. Closed ones beside them are
/// passed over: what is never dialled does no harm, and names with both kinds are common.
pub(super) fn reachable(
    permits: impl Fn(IpAddr) -> bool,
    found: &[IpAddr],
) -> Result<Vec<IpAddr>, EgressReason> {
    let mut open = Vec::new();
    let mut refused = EgressReason::Unresolved;
    for address in found.iter().copied().map(address::plain) {
        match address::closed(address) {
            Some(closed) if !permits(address) => refused = reason(closed),
            _ if open.contains(&address) || open.len() >= limits::EGRESS_ADDRESSES => {}
            _ => open.push(address),
        }
    }
    if open.is_empty() { Err(refused) } else { Ok(open) }
}

fn reason(closed: Closed) -> EgressReason {
    match closed {
        Closed::Loopback => EgressReason::AddressLoopback,
        Closed::Private => EgressReason::AddressPrivate,
        Closed::LinkLocal => EgressReason::AddressLinkLocal,
        Closed::Metadata => EgressReason::AddressMetadata,
        Closed::Multicast => EgressReason::AddressMulticast,
        Closed::Reserved => EgressReason::AddressReserved,
    }
}

/// Tries one address after the other; each gets its share of what time is left.
pub(super) async fn connect(
    clock: &Clock,
    open: &[IpAddr],
    port: u16,
    deadline: Moment,
) -> Result<(TcpStream, IpAddr), EgressReason> {
    let mut failed = EgressReason::ConnectTime;
    for (index, address) in open.iter().enumerate() {
        // So that a check that fails to hold fails its test, and sends nothing into a real network.
        #[cfg(test)]
        assert!(address.is_loopback(), "a test would have dialled {address}");
        let rest = u32::try_from(open.len() - index).unwrap_or(u32::MAX);
        let now = clock.now();
        let share = deadline.since(now) / rest;
        let attempt = TcpStream::connect(SocketAddr::new(*address, port));
        match clock.before(now + share, attempt).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => {
                tracing::debug!(target: "neuroflow::egress", %address, port, %error, "no connection");
                failed = EgressReason::Unreachable;
            }
            Err(_elapsed) => failed = EgressReason::ConnectTime,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::Policy,
        network::{EgressLimits, Rule},
    };

    fn check(rule: Rule, found: &[&str]) -> Result<Vec<String>, EgressReason> {
        let policy = Policy::compile(&[rule], &EgressLimits::default()).unwrap();
        let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let open = reachable(|address| policy.rules[0].permits(address), &found)?;
        Ok(open.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn closed_addresses_are_passed_over_and_the_order_stays() {
        let rule = || Rule::host("a.example");
        let mixed = ["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1", "8.8.8.8", "::ffff:8.8.8.8"];
        assert_eq!(check(rule(), &mixed).unwrap(), ["8.8.8.8", "2606:4700::1"]);
        for (address, reason) in [
            ("127.0.0.1", EgressReason::AddressLoopback),
            ("::1", EgressReason::AddressLoopback),
            ("::ffff:127.0.0.1", EgressReason::AddressLoopback),
            ("192.168.1.1", EgressReason::AddressPrivate),
            ("fd00::1", EgressReason::AddressPrivate),
            ("100.64.0.1", EgressReason::AddressPrivate),
            ("169.254.1.1", EgressReason::AddressLinkLocal),
            ("fe80::1", EgressReason::AddressLinkLocal),
            ("169.254.169.254", EgressReason::AddressMetadata),
            ("fd00:ec2::254", EgressReason::AddressMetadata),
            ("224.0.0.1", EgressReason::AddressMulticast),
            ("0.0.0.0", EgressReason::AddressReserved),
            ("64:ff9b::7f00:1", EgressReason::AddressLoopback),
            ("2002:7f00:1::", EgressReason::AddressReserved),
        ] {
            assert_eq!(check(rule(), &[address]), Err(reason), "{address}");
        }
        assert_eq!(check(rule(), &[]), Err(EgressReason::Unresolved));
    }

    #[test]
    fn a_rule_opens_what_it_names_and_nothing_else() {
        let rule = || Rule::host("a.example").allow_private("10.1.0.0/16");
        assert_eq!(check(rule(), &["10.0.0.1", "10.1.0.1"]).unwrap(), ["10.1.0.1"]);
        assert_eq!(check(rule(), &["127.0.0.1"]), Err(EgressReason::AddressLoopback));
        assert_eq!(check(Rule::host("10.0.0.1"), &["10.0.0.1"]).unwrap(), ["10.0.0.1"]);
        assert_eq!(check(Rule::host("10.0.0.1"), &["10.0.0.2"]), Err(EgressReason::AddressPrivate));
        let wide = Rule::host("a.example").allow_private("169.254.0.0/16");
        assert_eq!(check(wide, &["169.254.169.254"]), Err(EgressReason::AddressMetadata));
        let exact = Rule::host("a.example").allow_private("169.254.169.254");
        assert_eq!(check(exact, &["169.254.169.254"]).unwrap(), ["169.254.169.254"]);
    }

    #[test]
    fn a_name_with_many_addresses_is_tried_at_a_few() {
        let many: Vec<String> = (1..=20).map(|last| format!("8.8.8.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(check(Rule::host("a.example"), &many).unwrap().len(), limits::EGRESS_ADDRESSES);
    }
}
