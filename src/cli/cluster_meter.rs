//! Links, gossip and placement as metrics, read at every scrape: the transport counts, this file names.

use std::time::UNIX_EPOCH;

use neuroflow::transport::{LinkStatus, Links, Member};
use neuroflow_telemetry::{Counter, Gauge, Instruments, Metric, MetricError};

/// A number of each link, by the peer's name.
type OfLink<I> = (Metric<I, 1>, fn(&LinkStatus) -> Option<f64>);

const GAUGES: [OfLink<Gauge>; 5] = [
    (
        Metric::gauge("neuroflow_link_up", "Whether there is a link to the peer.", ["peer"]),
        |link| Some(f64::from(u8::from(link.rtt.is_some()))),
    ),
    (
        Metric::gauge(
            "neuroflow_link_rtt_seconds",
            "Time of a round trip to the peer; of no peer without a link.",
            ["peer"],
        ),
        |link| link.rtt.map(|rtt| rtt.as_secs_f64()),
    ),
    (
        Metric::gauge(
            "neuroflow_link_streams",
            "Open streams of the link: its lanes, and one per large message on its way.",
            ["peer"],
        ),
        |link| some(u64::try_from(link.streams).unwrap_or(u64::MAX)),
    ),
    (
        Metric::gauge(
            "neuroflow_link_buffered_bytes",
            "Bytes held for the link: not taken by a mailbox yet, still coming, or not written yet.",
            ["peer"],
        ),
        |link| some(u64::try_from(link.buffered_bytes).unwrap_or(u64::MAX)),
    ),
    (
        Metric::gauge(
            "neuroflow_link_open_calls",
            "Calls to the peer that wait for their answers.",
            ["peer"],
        ),
        |link| some(u64::try_from(link.open_calls).unwrap_or(u64::MAX)),
    ),
];

const COUNTERS: [OfLink<Counter>; 9] = [
    (counter("neuroflow_link_sent_messages_total", "Messages and replies sent."), |link| {
        some(link.sent_messages)
    }),
    (counter("neuroflow_link_sent_bytes_total", "Bytes of frames sent."), |link| {
        some(link.sent_bytes)
    }),
    (counter("neuroflow_link_received_messages_total", "Messages and replies received."), |link| {
        some(link.received_messages)
    }),
    (counter("neuroflow_link_received_bytes_total", "Bytes of archives received."), |link| {
        some(link.received_bytes)
    }),
    (
        counter("neuroflow_link_copied_bytes_total", "Bytes of archives copied to be sent."),
        |link| some(link.copied_bytes),
    ),
    (
        counter(
            "neuroflow_link_received_copied_bytes_total",
            "Bytes of archives copied out of packets.",
        ),
        |link| some(link.received_copied_bytes),
    ),
    (counter("neuroflow_link_credit_waits_total", "Sends that found no credit."), |link| {
        some(link.credit_waits)
    }),
    (counter("neuroflow_link_reconnects_total", "Connections made after the first."), |link| {
        some(link.reconnects)
    }),
    (
        counter(
            "neuroflow_link_lost_packets_total",
            "Packets of the present connection that were lost, and whose content was sent again.",
        ),
        |link| some(link.lost_packets),
    ),
];

const fn counter(name: &'static str, help: &'static str) -> Metric<Counter, 1> {
    Metric::counter(name, help, ["peer"])
}

/// A number of the node.
type Count = (Metric<Counter, 0>, fn(&Links) -> u64);

const COUNTS: [Count; 3] = [
    (
        Metric::counter("neuroflow_gossip_sent_bytes_total", "Bytes of messages to members.", []),
        |links| links.gossip().sent_bytes,
    ),
    (
        Metric::counter(
            "neuroflow_revocation_file_failures_total",
            "Looks at the file of revoked nodes at which it couldn't be read or written, or wasn't a list.",
            [],
        ),
        |links| links.gossip().list_failures,
    ),
    (
        Metric::counter(
            "neuroflow_certificate_file_failures_total",
            "Changes of the file of the node's certificate after which it had none that can be presented.",
            [],
        ),
        |links| links.gossip().certificate_failures,
    ),
];

/// Numbers of the node, by what came of what is counted.
type Outcomes = (Metric<Counter, 1>, fn(&Links) -> [(&'static str, u64); 3]);

const OUTCOMES: [Outcomes; 3] = [
    (
        Metric::counter(
            "neuroflow_gossip_messages_total",
            "Messages between members: sent, received, and refused of those.",
            ["event"],
        ),
        |links| {
            let gossip = links.gossip();
            [("sent", gossip.sent), ("received", gossip.received), ("refused", gossip.refused)]
        },
    ),
    (
        Metric::counter(
            "neuroflow_link_strangers_total",
            "Those who knocked at the port and didn't become a peer: failed, retried or ignored.",
            ["outcome"],
        ),
        |links| {
            let it = links.strangers();
            [("failed", it.failed), ("retried", it.retried), ("ignored", it.ignored)]
        },
    ),
    (
        Metric::counter(
            "neuroflow_placements_total",
            "Messages to agent://*/name, by outcome: placed here, placed on another node, or nowhere.",
            ["outcome"],
        ),
        |links| {
            let gossip = links.gossip();
            [
                ("here", gossip.placed_here),
                ("elsewhere", gossip.placed_elsewhere),
                ("nowhere", gossip.unplaced),
            ]
        },
    ),
];

const MEMBERS: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_cluster_members",
    "Members of the cluster that this node knows, itself included, by state.",
    ["state"],
);

const EXPIRY: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_node_certificate_expiry_seconds",
    "When the certificate of a node ends, in seconds since 1970.",
    ["node"],
);

const HANDSHAKES: Metric<Gauge, 0> = Metric::gauge(
    "neuroflow_link_handshakes",
    "Handshakes of who knocks at the port that go on.",
    [],
);

/// Registers the numbers of a node's links.
pub(super) fn register(instruments: &Instruments, links: &Links) -> Result<(), MetricError> {
    for (metric, read) in GAUGES {
        let links = links.clone();
        instruments.read_gauges(&metric, move || of_links(&links, read))?;
    }
    for (metric, read) in COUNTERS {
        let links = links.clone();
        instruments.read_counters(&metric, move || of_links(&links, read))?;
    }
    for (metric, read) in COUNTS {
        let links = links.clone();
        instruments.read_counters(&metric, move || vec![([], number(read(&links)))])?;
    }
    for (metric, read) in OUTCOMES {
        let links = links.clone();
        instruments.read_counters(&metric, move || {
            read(&links).map(|(outcome, count)| ([outcome.to_owned()], number(count))).to_vec()
        })?;
    }
    let of = links.clone();
    instruments.read_gauges(&MEMBERS, move || members(&of))?;
    let of = links.clone();
    instruments.read_gauges(&EXPIRY, move || expiries(&of))?;
    let of = links.clone();
    instruments.read_gauges(&HANDSHAKES, move || {
        let handshakes = u32::try_from(of.strangers().handshakes).unwrap_or(u32::MAX);
        vec![([], f64::from(handshakes))]
    })
}

fn members(links: &Links) -> Vec<([String; 1], f64)> {
    let mut counts = ["alive", "suspect", "dead", "left", "revoked"].map(|state| (state, 0_u32));
    for member in links.members() {
        let state = member.state.as_str();
        counts.iter_mut().filter(|(name, _)| *name == state).for_each(|(_, count)| *count += 1);
    }
    counts.map(|(state, count)| ([state.to_owned()], f64::from(count))).to_vec()
}

fn expiries(links: &Links) -> Vec<([String; 1], f64)> {
    let expiry = |member: Member| {
        let since = member.certificate_expires.duration_since(UNIX_EPOCH);
        ([member.name.to_string()], since.map_or(0.0, |since| since.as_secs_f64()))
    };
    links.members().into_iter().map(expiry).collect()
}

fn of_links(links: &Links, read: fn(&LinkStatus) -> Option<f64>) -> Vec<([String; 1], f64)> {
    let status = links.status();
    let read = |link: &LinkStatus| Some(([link.name.to_string()], read(link)?));
    status.iter().filter_map(read).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "each number of a link may be missing")]
fn some(count: u64) -> Option<f64> {
    Some(number(count))
}

#[expect(clippy::cast_precision_loss, reason = "a scrape's numbers are floats")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}
