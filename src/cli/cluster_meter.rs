//! Links, gossip and placement as metrics, read at every scrape: the transport counts, this file names.

use neuroflow::transport::{LinkStatus, Links};
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

const GOSSIP: Metric<Counter, 1> = Metric::counter(
    "neuroflow_gossip_messages_total",
    "Messages between members: sent, received, and refused of those.",
    ["event"],
);

const GOSSIP_BYTES: Metric<Counter, 0> =
    Metric::counter("neuroflow_gossip_sent_bytes_total", "Bytes of messages to members.", []);

const LIST_FAILURES: Metric<Counter, 0> = Metric::counter(
    "neuroflow_revocation_file_failures_total",
    "Looks at the file of revoked nodes at which it couldn't be read or written, or wasn't a list.",
    [],
);

const HANDSHAKES: Metric<Gauge, 0> = Metric::gauge(
    "neuroflow_link_handshakes",
    "Handshakes of who knocks at the port that go on.",
    [],
);

const STRANGERS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_link_strangers_total",
    "Those who knocked at the port and didn't become a peer: failed, retried or ignored.",
    ["outcome"],
);

const CERTIFICATE_FAILURES: Metric<Counter, 0> = Metric::counter(
    "neuroflow_certificate_file_failures_total",
    "Changes of the file of the node's certificate after which it had none that can be presented.",
    [],
);

const PLACEMENTS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_placements_total",
    "Messages to agent://*/name, by outcome: placed here, placed on another node, or nowhere.",
    ["outcome"],
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
    let of = links.clone();
    instruments.read_gauges(&MEMBERS, move || {
        let mut counts =
            ["alive", "suspect", "dead", "left", "revoked"].map(|state| (state, 0_u32));
        for member in of.members() {
            let state = member.state.as_str();
            counts.iter_mut().filter(|(name, _)| *name == state).for_each(|(_, count)| *count += 1);
        }
        counts.map(|(state, count)| ([state.to_owned()], f64::from(count))).to_vec()
    })?;
    let of = links.clone();
    instruments.read_gauges(&EXPIRY, move || {
        let expiry = |member: neuroflow::transport::Member| {
            let since = member.certificate_expires.duration_since(std::time::UNIX_EPOCH);
            ([member.name.to_string()], since.map_or(0.0, |since| since.as_secs_f64()))
        };
        of.members().into_iter().map(expiry).collect()
    })?;
    let of = links.clone();
    instruments.read_counters(&GOSSIP, move || {
        let gossip = of.gossip();
        let events =
            [("sent", gossip.sent), ("received", gossip.received), ("refused", gossip.refused)];
        events.map(|(event, count)| ([event.to_owned()], number(count))).to_vec()
    })?;
    let of = links.clone();
    instruments.read_counters(&GOSSIP_BYTES, move || vec![([], number(of.gossip().sent_bytes))])?;
    let of = links.clone();
    instruments
        .read_counters(&LIST_FAILURES, move || vec![([], number(of.gossip().list_failures))])?;
    let of = links.clone();
    instruments.read_counters(&CERTIFICATE_FAILURES, move || {
        vec![([], number(of.gossip().certificate_failures))]
    })?;
    let of = links.clone();
    instruments.read_gauges(&HANDSHAKES, move || {
        let handshakes = u32::try_from(of.strangers().handshakes).unwrap_or(u32::MAX);
        vec![([], f64::from(handshakes))]
    })?;
    let of = links.clone();
    instruments.read_counters(&STRANGERS, move || {
        let strangers = of.strangers();
        let outcomes = [
            ("failed", strangers.failed),
            ("retried", strangers.retried),
            ("ignored", strangers.ignored),
        ];
        outcomes.map(|(outcome, count)| ([outcome.to_owned()], number(count))).to_vec()
    })?;
    let of = links.clone();
    instruments.read_counters(&PLACEMENTS, move || {
        let gossip = of.gossip();
        let outcomes = [
            ("here", gossip.placed_here),
            ("elsewhere", gossip.placed_elsewhere),
            ("nowhere", gossip.unplaced),
        ];
        outcomes.map(|(outcome, count)| ([outcome.to_owned()], number(count))).to_vec()
    })
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
