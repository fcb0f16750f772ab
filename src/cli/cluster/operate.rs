//! `neuroflow cluster status` and `drain`: what a running node says of its cluster, and asks of others.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use super::super::{CliError, Globals, SUCCESS, small_runtime};
use crate::config::{Overrides, SocketPath};
use crate::control::{
    Cluster, ControlAnswer, ControlClientError, ControlRequest, MemberRow, Outcome, SeedRow,
    VERSION, ask, default_path,
};
use crate::plain;

/// Prints the cluster as a running node sees it: every member with its state and the link to it.
#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    socket: NodeSocket,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lets nothing more be placed on a node. What runs there goes on, and who names the node is served.
///
/// A node heeds its own socket, and other nodes if their certificate has the role `operator`. Ends once the node has
/// said that it does, or says that it doesn't.
#[derive(Args, Debug)]
pub(super) struct Drain {
    /// The node's name or id
    #[arg(value_name = "NODE")]
    node: String,
    /// Let agents be placed on it again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    socket: NodeSocket,
}

/// Where the running node is asked.
#[derive(Args, Debug)]
pub(super) struct NodeSocket {
    #[command(flatten)]
    settings: Overrides,
}

/// Why a node can't be asked about its cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in super::super) enum OperateError {
    /// Our own user can't be found out.
    #[error("the system refused to say who you are; name the socket with --control-socket")]
    System(#[source] io::Error),
    /// The node has no socket.
    #[error("control.socket is off, so the node has none; name one with --control-socket")]
    Off,
    /// The node doesn't answer, or refuses.
    #[error(transparent)]
    Ask(#[from] ControlClientError),
    /// The answer is to something else.
    #[error("the node answers something else; use the node's own binary")]
    Other,
}

impl NodeSocket {
    pub(super) fn ask(
        &self,
        globals: Globals<'_>,
        request: &ControlRequest,
    ) -> Result<Outcome, CliError> {
        let configured = globals.load(&self.settings)?.config.control.socket;
        let failed = |error: OperateError| CliError::from(super::ClusterError::from(error));
        let socket = match configured {
            Some(SocketPath::At(socket)) => socket,
            Some(SocketPath::Off) => return Err(failed(OperateError::Off)),
            None => default_path().map_err(OperateError::System).map_err(failed)?,
        };
        let asked = small_runtime()?.block_on(ask(&socket, globals.clock, request));
        asked.map_err(OperateError::from).map_err(failed)
    }
}

impl Status {
    pub(super) fn run(&self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let outcome = self.socket.ask(globals, &ControlRequest::Cluster {})?;
        let Outcome::Cluster(cluster) = &outcome else {
            return Err(super::ClusterError::from(OperateError::Other).into());
        };
        if self.json {
            let answer = ControlAnswer { version: VERSION, outcome };
            writeln!(out, "{}", serde_json::to_string_pretty(&answer).map_err(io::Error::from)?)?;
        } else {
            draw(cluster, out)?;
        }
        Ok(SUCCESS)
    }
}

impl Drain {
    pub(super) fn run(&self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let request = ControlRequest::Drain { node: self.node.clone(), on: !self.undo };
        match self.socket.ask(globals, &request)? {
            Outcome::Asked(asked) => {
                let state = if self.undo { "takes work" } else { "draining" };
                writeln!(out, "{} {} {state}", self.node, asked.id)?;
            }
            _ => return Err(super::ClusterError::from(OperateError::Other).into()),
        }
        Ok(SUCCESS)
    }
}

const HEADS: [&str; 11] = [
    "NODE",
    "STATE",
    "ADDRESS",
    "RTT",
    "LOST",
    "STREAMS",
    "CALLS",
    "PROTOCOL",
    "BUILD",
    "CERTIFICATE",
    "AGENTS",
];

fn draw(cluster: &Cluster, out: &mut dyn Write) -> io::Result<()> {
    // Other nodes have chosen most of it.
    let plain = |member: &MemberRow| cells(member).map(plain::name);
    let rows: Vec<[String; 11]> = cluster.members.iter().map(plain).collect();
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: &[String; 11]| -> io::Result<()> {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    line(&HEADS.map(str::to_owned))?;
    rows.iter().try_for_each(&mut line)?;
    let failed = |seed: &SeedRow| {
        let (name, failure) = (plain::name(&seed.name), plain::name(seed.failure.as_ref()?));
        Some(format!("seed {name}: {failure}"))
    };
    cluster.seeds.iter().filter_map(failed).try_for_each(|said| writeln!(out, "{said}"))
}

fn cells(member: &MemberRow) -> [String; 11] {
    let none = || "-".to_owned();
    let link = member.link.as_ref();
    let [oldest, newest] = member.protocols;
    let name = if member.own { format!("{} (asked)", member.name) } else { member.name.clone() };
    let state =
        if member.draining { format!("{}, draining", member.state) } else { member.state.clone() };
    let rtt = link.and_then(|link| link.rtt_seconds);
    let agents: Vec<&str> = member.agents.iter().map(|agent| agent.name.as_str()).collect();
    [
        name,
        state,
        member.address.clone(),
        rtt.map_or_else(none, |rtt| format!("{:.2?}", Duration::from_secs_f64(rtt.max(0.0)))),
        link.map_or_else(none, |link| link.lost_packets.to_string()),
        link.map_or_else(none, |link| link.streams.to_string()),
        link.map_or_else(none, |link| link.open_calls.to_string()),
        link.and_then(|link| link.protocol).map_or_else(
            || format!("{oldest}-{newest}"),
            |spoken| format!("{spoken} of {oldest}-{newest}"),
        ),
        member.build.clone(),
        days(member.certificate_expires_seconds),
        if agents.is_empty() { none() } else { agents.join(", ") },
    ]
}

fn days(seconds: f64) -> String {
    const DAY: f64 = 86_400.0;
    const HOUR: f64 = 3_600.0;
    match seconds {
        left if left <= 0.0 => "expired".to_owned(),
        left if left < 2.0 * DAY => format!("{:.0} h", left / HOUR),
        left => format!("{:.0} d", left / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::LinkRow;

    fn member(name: &str, link: Option<LinkRow>) -> MemberRow {
        MemberRow {
            name: name.to_owned(),
            id: String::new(),
            state: "alive".to_owned(),
            own: link.is_none(),
            draining: link.is_some(),
            address: "127.0.0.1:7946".to_owned(),
            build: "0.1.0".to_owned(),
            protocols: [1, 3],
            capacity: 100,
            load: 0,
            certificate_expires_seconds: 7_200.0,
            agents: Vec::new(),
            link,
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_thing_and_says_why_a_seed_is_of_no_use() {
        let link = LinkRow {
            state: "up".to_owned(),
            protocol: Some(2),
            rtt_seconds: Some(0.000_25),
            lost_packets: 7,
            streams: 3,
            open_calls: 12,
            reconnects: 0,
            sent_messages: 0,
            sent_bytes: 0,
            received_messages: 0,
            received_bytes: 0,
            buffered_bytes: 0,
            copied_bytes: 0,
            received_copied_bytes: 0,
            credit_waits: 0,
        };
        let cluster = Cluster {
            node: "a".to_owned(),
            members: vec![member("a", None), member("b", Some(link))],
            seeds: vec![SeedRow { name: "nodes:7946".to_owned(), failure: Some("no".to_owned()) }],
        };
        let mut out = Vec::new();
        draw(&cluster, &mut out).unwrap();
        let expected = "\
NODE       STATE            ADDRESS         RTT       LOST  STREAMS  CALLS  PROTOCOL  BUILD  CERTIFICATE  AGENTS
a (asked)  alive            127.0.0.1:7946  -         -     -        -      1-3       0.1.0  2 h          -
b          alive, draining  127.0.0.1:7946  250.00µs  7     3        12     2 of 1-3  0.1.0  2 h          -
seed nodes:7946: no
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_row_says_how_long_a_certificate_lasts() {
        assert_eq!(days(-5.0), "expired");
        assert_eq!(days(7_200.0), "2 h");
        assert_eq!(days(90.0 * 86_400.0), "90 d");
    }
}
