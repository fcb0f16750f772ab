//! Seeds: looked up and dialled for as long as this node runs, often while it has no link, seldom while it has some.
//!
//! A link doesn't say that there is nobody else to be found: nodes that began in two groups, or one that was built anew
//! and knows nobody, are found by their seeds alone. Whoever of the cluster answers at an address is taken.
//!
//! A host's addresses come from the system's resolver. It has no call for service records, so these, and the
//! hosts that they name, are asked for by a resolver of our own, made anew each time: name servers that have
//! changed since are heeded, and no answer is kept longer than it's of use.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData};
use neuroflow_kernel::{Address, Backoff, Header};

use super::{ClusterCommand, Shared};
use crate::limits::{
    MAX_SEED_ADDRESSES, REDIAL_MAX, REDIAL_MIN, SEED_DEADLINE, SEED_LOOK, SEED_PAUSE, SEED_ROUND,
    SEED_TRY,
};
use crate::link::{LinkError, connect};
use crate::seed::{Seed, SeedError, ServiceName, Sought};

/// Looks up and dials the `nth` seed, again and again.
pub(super) async fn follow(shared: Arc<Shared>, own: Address<ClusterCommand>, nth: usize) {
    let Some(seed) = shared.seeds.get(nth) else { return };
    let (mut failures, mut found) = (0, Vec::new());
    while !shared.leaving.load(Ordering::SeqCst) {
        let at = shared.clock.now() + SEED_DEADLINE;
        let turns = shared.clock.before(at, look_up(&shared, &seed.sought)).await;
        let outcome = match turns.unwrap_or(Err(SeedError::TimedOut)) {
            Ok(turns) => {
                found = turns.concat();
                dial(&shared, &own, &seed.sought, turns).await
            }
            Err(error) => Err(error),
        };
        failures = if outcome.is_ok() { 0 } else { u32::saturating_add(failures, 1) };
        seed.came_to(outcome);
        pause(&shared, seed, &found, failures).await;
    }
}

/// Waits until the seed is to be dialled again, which so many times on end was in vain: for a time, or until links
/// that lead to what was found are lost, or made by others.
async fn pause(shared: &Shared, seed: &Seed, found: &[SocketAddr], failures: u32) {
    let (begun, jitter) = (shared.clock.now(), Backoff::jitter());
    let mut was_met = is_met(&linked(shared), found);
    loop {
        let links = linked(shared);
        let met = is_met(&links, found);
        // What was in vain is said to be so until the next look.
        if was_met && !met || met && !was_met && failures > 0 {
            return;
        }
        was_met = met;
        let wait = wait(&seed.sought, links.is_empty(), failures, jitter);
        let left = wait.saturating_sub(shared.clock.now().since(begun));
        if left.is_zero() {
            return;
        }
        shared.clock.sleep(left.min(SEED_LOOK)).await;
    }
}

/// How long to wait after so many failures on end: an address may answer at any moment, a name server not be asked
/// as often.
fn wait(sought: &Sought, is_alone: bool, failures: u32, jitter: f64) -> Duration {
    let (first, most) = match sought {
        Sought::Address(_) => (REDIAL_MIN, REDIAL_MAX),
        Sought::Host(_) | Sought::Service(_) => (SEED_PAUSE, SEED_PAUSE),
    };
    let max = if is_alone { most } else { SEED_ROUND };
    let first = if failures == 0 { max } else { first };
    Backoff { first, max }.delay(failures.max(1), jitter)
}

/// Where links lead to.
fn linked(shared: &Shared) -> HashSet<SocketAddr> {
    let peers = shared.peers.all();
    let links = peers.iter().filter_map(|peer| peer.link());
    links.map(|link| plain(link.connection.remote_address())).collect()
}

/// Whether a link leads to one of these.
fn is_met(linked: &HashSet<SocketAddr>, found: &[SocketAddr]) -> bool {
    found.iter().any(|address| linked.contains(&plain(*address)))
}

/// The address as it's written: a socket for both families has those of IPv4 in another form.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Dials all addresses of a turn at once that no link leads to, and those of the next turn if there is a link to none
/// of them then.
async fn dial(
    shared: &Shared,
    own: &Address<ClusterCommand>,
    sought: &Sought,
    turns: Vec<Vec<SocketAddr>>,
) -> Result<(), SeedError> {
    let (mut addresses, mut last) = (0, None);
    for turn in turns {
        addresses += turn.len();
        let linked = linked(shared);
        let mut is_linked = is_met(&linked, &turn);
        let unmet = turn.into_iter().filter(|address| !linked.contains(&plain(*address)));
        let dials = unmet.map(|address| connect::dial(shared, address, None));
        let mut dials: FuturesUnordered<_> = dials.collect();
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(established) => {
                    is_linked = true;
                    let arrived = ClusterCommand::Arrived(Box::new(established));
                    // An error says that the actor has ended, and this task is about to.
                    let _ended = own.tell(Header::new(), arrived).await.is_err();
                }
                // The peer's own dial stands, or is about to; or it's linked by another of its addresses.
                Err(LinkError::Linked | LinkError::Superseded) => is_linked = true,
                // The same seeds may be given to all nodes. Whose address it is may be another's next time.
                Err(LinkError::Oneself) if matches!(sought, Sought::Address(_)) => is_linked = true,
                // A name may stand for this node too, and says nothing of others by that.
                Err(error) => last = Some(error),
            }
        }
        if is_linked {
            return Ok(());
        }
    }
    match last {
        Some(source) => Err(SeedError::Unanswered { addresses, source }),
        None => Ok(()),
    }
}

/// The addresses of a seed, in turns.
async fn look_up(shared: &Shared, sought: &Sought) -> Result<Vec<Vec<SocketAddr>>, SeedError> {
    match sought {
        Sought::Address(address) => Ok(vec![vec![*address]]),
        Sought::Host(host) => {
            let found = tokio::net::lookup_host(host).await.map_err(SeedError::Host)?;
            Ok(vec![found.take(MAX_SEED_ADDRESSES).collect()])
        }
        Sought::Service(service) => {
            let resolver = resolver(&shared.name_servers).map_err(SeedError::Servers)?;
            of_service(&resolver, service).await
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let server = |server: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let at = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, at.into())
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = options.timeout.min(SEED_TRY);
    options.cache_size = 0;
    options.positive_max_ttl = Some(Duration::ZERO);
    options.negative_max_ttl = Some(Duration::ZERO);
    builder.build()
}

async fn of_service(
    resolver: &TokioResolver,
    service: &ServiceName,
) -> Result<Vec<Vec<SocketAddr>>, SeedError> {
    let answer = resolver.srv_lookup(service.as_str()).await.map_err(|error| {
        if error.is_no_records_found() { SeedError::Absent } else { SeedError::Service(error) }
    })?;
    let records = answer.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(record) => Some(record),
        _ => None,
    });
    let mut turns = Vec::new();
    let mut room = MAX_SEED_ADDRESSES;
    for hosts in in_turns(records)? {
        let found = hosts.into_iter().map(async |(host, port)| {
            let found = resolver.lookup_ip(host).await;
            // A host without an address is like a node that isn't there yet.
            let found = found.map(|found| found.iter().collect::<Vec<_>>()).unwrap_or_default();
            found.into_iter().map(move |ip| SocketAddr::new(ip, port)).collect::<Vec<_>>()
        });
        let mut turn: Vec<SocketAddr> = join_all(found).await.concat();
        turn.truncate(room);
        room -= turn.len();
        if !turn.is_empty() {
            turns.push(turn);
        }
    }
    if turns.is_empty() { Err(SeedError::Hosts) } else { Ok(turns) }
}

/// The hosts of service records: those of one priority are one turn. Of too many, the heaviest are taken;
/// else weights don't matter, since all of a turn are dialled.
fn in_turns<'a>(
    records: impl Iterator<Item = &'a SRV>,
) -> Result<Vec<Vec<(Name, u16)>>, SeedError> {
    let mut records: Vec<&SRV> = records.filter(|record| record.port != 0).collect();
    if records.iter().any(|record| record.target.is_root()) {
        records.retain(|record| !record.target.is_root());
        if records.is_empty() {
            return Err(SeedError::Withheld);
        }
    }
    records.sort_by_key(|record| (record.priority, std::cmp::Reverse(record.weight)));
    records.truncate(MAX_SEED_ADDRESSES);
    let mut turns: BTreeMap<u16, Vec<(Name, u16)>> = BTreeMap::new();
    for record in records {
        let mut host = record.target.clone();
        // Not to be looked for below the domains that the system searches.
        host.set_fqdn(true);
        turns.entry(record.priority).or_default().push((host, record.port));
    }
    if turns.is_empty() { Err(SeedError::Absent) } else { Ok(turns.into_values().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
        SRV::new(priority, weight, port, Name::from_ascii(target).unwrap())
    }

    fn turns(records: &[SRV]) -> Vec<Vec<(String, u16)>> {
        let turns = in_turns(records.iter()).unwrap().into_iter();
        let shown = |(host, port): (Name, u16)| (host.to_string(), port);
        turns.map(|turn| turn.into_iter().map(shown).collect()).collect()
    }

    #[test]
    fn a_node_without_links_looks_often_and_one_with_some_seldom_in_the_end() {
        let fixed = Sought::Address(SocketAddr::from(([127, 0, 0, 1], 1)));
        let named = Sought::Host("nodes:1".to_owned());
        let wait = |sought, is_alone, failures| wait(sought, is_alone, failures, 0.0);
        assert_eq!(wait(&fixed, true, 1), REDIAL_MIN);
        assert_eq!(wait(&fixed, true, 99), REDIAL_MAX);
        assert_eq!(wait(&fixed, true, 0), REDIAL_MAX);
        assert_eq!(wait(&fixed, false, 1), REDIAL_MIN);
        assert_eq!(wait(&named, false, 1), SEED_PAUSE);
        for failures in [1, 2, 99, 0] {
            assert_eq!(wait(&named, true, failures), SEED_PAUSE);
        }
        for sought in [&fixed, &named] {
            assert_eq!(wait(sought, false, 99), SEED_ROUND);
            assert_eq!(wait(sought, false, 0), SEED_ROUND);
        }
    }

    #[test]
    fn an_address_of_the_older_family_is_the_same_in_either_form() {
        let links = HashSet::from([plain("[::ffff:192.0.2.7]:7".parse().unwrap())]);
        assert!(is_met(&links, &["192.0.2.7:7".parse().unwrap()]));
        assert!(!is_met(&links, &["192.0.2.7:8".parse().unwrap()]));
        assert!(!is_met(&links, &[]));
    }

    #[test]
    fn hosts_come_by_priority_and_of_one_priority_at_once() {
        let records = [
            record(20, 9, 1, "spare.example."),
            record(10, 1, 2, "a.example."),
            record(10, 5, 3, "b.example"),
            record(10, 5, 0, "no.port.example."),
        ];
        let expected = [
            vec![("b.example.".to_owned(), 3), ("a.example.".to_owned(), 2)],
            vec![("spare.example.".to_owned(), 1)],
        ];
        assert_eq!(turns(&records), expected);
    }

    #[test]
    fn a_service_that_isnt_offered_and_one_that_isnt_there_are_told_apart() {
        let withheld = [record(0, 0, 1, ".")];
        assert!(matches!(in_turns(withheld.iter()), Err(SeedError::Withheld)));
        assert!(matches!(in_turns([].iter()), Err(SeedError::Absent)));
        let both = [record(0, 0, 1, "."), record(1, 0, 1, "a.example.")];
        assert_eq!(turns(&both), [[("a.example.".to_owned(), 1)]]);
    }

    #[test]
    fn of_too_many_the_first_and_heaviest_are_taken() {
        let records: Vec<SRV> =
            (0..200).map(|n| record(n / 100, n, 7, &format!("n{n}.example."))).collect();
        let taken = turns(&records);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].len(), MAX_SEED_ADDRESSES);
        assert_eq!(taken[0][0].0, "n99.example.");
    }
}
