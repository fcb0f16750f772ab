//! The cluster as the control socket shows it: one row per member, with the link to it.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use neuroflow::kernel::Clock;
use neuroflow::transport::{
    DrainError, Invite, InviteError, LinkStatus, Links, Member, SeedStatus,
};
use serde::{Deserialize, Serialize};

use super::{Fault, FaultCode, Outcome};
use crate::limits::{DRAIN_ANSWER, DRAIN_LOOK};

/// The cluster as one node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// The node that was asked.
    pub(crate) node: String,
    pub(crate) members: Vec<MemberRow>,
    /// Its seeds.
    #[serde(default)]
    pub(crate) seeds: Vec<SeedRow>,
}

/// A seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SeedRow {
    pub(crate) name: String,
    /// Why there is no link to where it leads.
    pub(crate) failure: Option<String>,
}

/// A member, and the link to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) own: bool,
    pub(crate) draining: bool,
    pub(crate) address: String,
    pub(crate) build: String,
    /// The oldest and the newest protocol that it speaks.
    pub(crate) protocols: [u16; 2],
    pub(crate) capacity: u32,
    /// Messages that wait at its agents.
    pub(crate) load: u32,
    /// Until its certificate ends; negative once it has.
    pub(crate) certificate_expires_seconds: f64,
    pub(crate) agents: Vec<AgentRow>,
    pub(crate) link: Option<LinkRow>,
}

/// An agent that a member offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentRow {
    pub(crate) name: String,
    pub(crate) skills: Vec<String>,
}

/// The link to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkRow {
    pub(crate) state: String,
    pub(crate) protocol: Option<u16>,
    pub(crate) rtt_seconds: Option<f64>,
    pub(crate) lost_packets: u64,
    /// Lanes, and streams of large messages on their way.
    pub(crate) streams: usize,
    /// Calls that wait for their answers.
    pub(crate) open_calls: usize,
    pub(crate) reconnects: u64,
    pub(crate) sent_messages: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_messages: u64,
    pub(crate) received_bytes: u64,
    /// Bytes that the node holds for the link.
    pub(crate) buffered_bytes: usize,
    /// Bytes of archives that were copied to be sent.
    pub(crate) copied_bytes: u64,
    /// Bytes of archives that were copied out of packets.
    pub(crate) received_copied_bytes: u64,
    pub(crate) credit_waits: u64,
}

impl Cluster {
    fn of(links: &Links, now: SystemTime) -> Self {
        let status = links.status();
        let row = |member: Member| {
            let link = status.iter().find(|link| link.node == member.node);
            MemberRow::of(member, link, now)
        };
        let members = links.members().into_iter().map(row).collect();
        let seeds = links.seeds().into_iter().map(SeedRow::of).collect();
        Self { node: links.name().to_string(), members, seeds }
    }
}

impl SeedRow {
    fn of(seed: SeedStatus) -> Self {
        let failure = seed.failure.map(|failure| {
            let first: &dyn Error = failure.as_ref();
            let behind = std::iter::successors(first.source(), |error| (*error).source());
            behind.fold(first.to_string(), |said, cause| format!("{said}: {cause}"))
        });
        Self { name: seed.name, failure }
    }
}

impl MemberRow {
    fn of(member: Member, link: Option<&LinkStatus>, now: SystemTime) -> Self {
        let expires = match member.certificate_expires.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        };
        Self {
            name: member.name.to_string(),
            id: member.node.to_string(),
            state: member.state.as_str().to_owned(),
            own: member.own,
            draining: member.draining,
            address: member.address.to_string(),
            build: member.build,
            protocols: [member.oldest_protocol, member.newest_protocol],
            capacity: member.capacity,
            load: member.load,
            certificate_expires_seconds: expires,
            agents: member
                .agents
                .into_iter()
                .map(|offer| AgentRow { name: offer.name, skills: offer.skills })
                .collect(),
            link: link.map(LinkRow::of),
        }
    }
}

impl LinkRow {
    fn of(link: &LinkStatus) -> Self {
        Self {
            state: link.state.as_str().to_owned(),
            protocol: link.protocol,
            rtt_seconds: link.rtt.map(|rtt| rtt.as_secs_f64()),
            lost_packets: link.lost_packets,
            streams: link.streams,
            open_calls: link.open_calls,
            reconnects: link.reconnects,
            sent_messages: link.sent_messages,
            sent_bytes: link.sent_bytes,
            received_messages: link.received_messages,
            received_bytes: link.received_bytes,
            buffered_bytes: link.buffered_bytes,
            copied_bytes: link.copied_bytes,
            received_copied_bytes: link.received_copied_bytes,
            credit_waits: link.credit_waits,
        }
    }
}

/// The cluster, or why there is none.
pub(super) fn status(links: Option<&Links>, now: SystemTime) -> Outcome {
    match links {
        Some(links) => Outcome::Cluster(Cluster::of(links, now)),
        None => Outcome::Error(no_cluster()),
    }
}

/// Asks a member to drain, or to stop draining, and waits until it says that it does.
pub(super) async fn drain(links: Option<&Links>, node: &str, on: bool, clock: &Clock) -> Outcome {
    let Some(links) = links else { return Outcome::Error(no_cluster()) };
    let id = match links.ask_to_drain(node, on) {
        Ok(id) => id,
        Err(error) => {
            let code = match error {
                DrainError::Unreachable { .. } => FaultCode::UnknownNode,
                _ => FaultCode::NotHeeded,
            };
            return Outcome::Error(Fault { code, message: error.to_string() });
        }
    };
    let heeds = |member: Member| member.node == id && member.draining == on;
    let heeded = async {
        while !links.members().into_iter().any(heeds) {
            clock.sleep(DRAIN_LOOK).await;
        }
    };
    match clock.before(clock.now() + DRAIN_ANSWER, heeded).await {
        Ok(()) => Outcome::Asked(Asked { id: id.to_string() }),
        Err(_elapsed) => {
            let message =
                format!("{node} was asked, and hasn't said within {DRAIN_ANSWER:?} that it does");
            Outcome::Error(Fault { code: FaultCode::NotHeeded, message })
        }
    }
}

/// Who was asked to do something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) id: String,
}

/// Who is to join, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invited {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Where the new node reaches this one, if not where it listens.
    #[serde(default)]
    pub(crate) reach: Option<SocketAddr>,
    /// How long the invitation lasts, and how long the certificate is valid.
    pub(crate) within_seconds: u64,
    pub(crate) valid_seconds: u64,
}

/// What the new node needs to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) token: String,
}

/// Lets a new node join.
pub(super) fn invite(links: Option<&Links>, invited: &Invited) -> Outcome {
    let Some(links) = links else { return Outcome::Error(no_cluster()) };
    let invite = Invite::new(&invited.node)
        .valid(Duration::from_secs(invited.within_seconds))
        .certificate_life(Duration::from_secs(invited.valid_seconds));
    let invite = invited.roles.iter().fold(invite, |invite, role| invite.role(role));
    match links.invite(invited.reach.into_iter().fold(invite, Invite::reach)) {
        Ok(invitation) => Outcome::Token(Token { token: invitation.token().to_string() }),
        Err(error) => {
            let message = match &error {
                InviteError::NoAuthority => {
                    "the node doesn't have the cluster's authority; set cluster.authority, or invite \
                     where it is with --authority and --listen"
                        .to_owned()
                }
                error => error.to_string(),
            };
            Outcome::Error(Fault { code: FaultCode::NotInvited, message })
        }
    }
}

fn no_cluster() -> Fault {
    let message = "the node has no links to others; set cluster.listen and cluster.identity";
    Fault { code: FaultCode::NoCluster, message: message.to_owned() }
}
