//! SWIM as `foca` speaks it, in our bytes: who a packet is about, how it's laid out, and what of it is believed.
//!
//! The layout is fixed, so that a packet can be read before `foca` gets it: what it says of nodes that
//! have not proved themselves to us by TLS is taken out, and leads to a dial at most.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Incarnation, Member, Message, State};

use crate::identity::NodeId;

/// One start of a node as SWIM knows it. Where it listens is said along, and is no part of who it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    /// Grows with each start, and when a node that was declared dead objects.
    pub(crate) start: u64,
    pub(crate) address: SocketAddr,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.start == other.start
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { start: self.start.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.start > adversary.start
    }
}

/// Bytes of an identity.
const IDENTITY_BYTES: usize = 32 + 8 + 18;

/// Bytes of what is said of a member.
const MEMBER_BYTES: usize = IDENTITY_BYTES + 3;

/// The layout isn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet isn't laid out as one")]
pub(crate) struct Malformed;

/// The layout.
#[derive(Debug)]
pub(crate) struct Layout;

impl Codec<Identity> for Layout {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        let other = match &header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                Some(origin)
            }
            _ => None,
        };
        if buf.remaining_mut() < HEADER_BYTES.saturating_add(other.map_or(0, |_| IDENTITY_BYTES)) {
            return Err(Malformed);
        }
        put_identity(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_identity(&header.dst, &mut buf);
        let (kind, number) = match header.message {
            Message::Ping(number) => (1, number),
            Message::Ack(number) => (2, number),
            Message::PingReq { probe_number, .. } => (3, probe_number),
            Message::IndirectPing { probe_number, .. } => (4, probe_number),
            Message::IndirectAck { probe_number, .. } => (5, probe_number),
            Message::ForwardedAck { probe_number, .. } => (6, probe_number),
            Message::Announce => (7, 0),
            Message::Feed => (8, 0),
            Message::Gossip => (9, 0),
            Message::Broadcast => (10, 0),
            Message::TurnUndead => (11, 0),
        };
        buf.put_u8(kind);
        buf.put_u8(number);
        if let Some(other) = other {
            put_identity(other, &mut buf);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, Malformed> {
        let src = identity(&mut buf)?;
        let src_incarnation = number(&mut buf)?;
        let dst = identity(&mut buf)?;
        let [kind, probe_number] = number(&mut buf)?.to_be_bytes();
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq { target: identity(&mut buf)?, probe_number },
            4 => Message::IndirectPing { origin: identity(&mut buf)?, probe_number },
            5 => Message::IndirectAck { target: identity(&mut buf)?, probe_number },
            6 => Message::ForwardedAck { origin: identity(&mut buf)?, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            11 => Message::TurnUndead,
            // We send no broadcasts of foca's.
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(Malformed);
        }
        put_identity(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, Malformed> {
        let id = identity(&mut buf)?;
        let incarnation: Incarnation = number(&mut buf)?;
        let state = match buf.try_get_u8().map_err(|_short| Malformed)? {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// Bytes of a header that names nobody else.
const HEADER_BYTES: usize = IDENTITY_BYTES + 2 + IDENTITY_BYTES + 2;

fn put_identity(identity: &Identity, buf: &mut impl BufMut) {
    buf.put_slice(identity.node.as_bytes());
    buf.put_u64(identity.start);
    let ip = match identity.address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    buf.put_slice(&ip.octets());
    buf.put_u16(identity.address.port());
}

fn identity(buf: &mut impl Buf) -> Result<Identity, Malformed> {
    let (mut node, mut ip) = ([0; 32], [0; 16]);
    buf.try_copy_to_slice(&mut node).map_err(|_short| Malformed)?;
    let start = buf.try_get_u64().map_err(|_short| Malformed)?;
    buf.try_copy_to_slice(&mut ip).map_err(|_short| Malformed)?;
    let port = number(buf)?;
    let ip = Ipv6Addr::from(ip).to_canonical();
    Ok(Identity { node: NodeId::from(node), start, address: SocketAddr::new(ip, port) })
}

fn number(buf: &mut impl Buf) -> Result<u16, Malformed> {
    buf.try_get_u16().map_err(|_short| Malformed)
}

/// An address that nobody listens at, for a node that hasn't said where it does.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A packet of which only what may be believed is left.
#[derive(Debug)]
pub(crate) struct Believed {
    /// Which start of the sender sends it.
    pub(crate) start: u64,
    /// The packet, without the rest.
    pub(crate) packet: Vec<u8>,
    /// Nodes that live, as the sender says, and of which we know nothing or something older.
    pub(crate) heard: Vec<Identity>,
    /// What the sender thinks of us is about a later start than ours.
    pub(crate) later_self: Option<u64>,
}

/// Reads a packet that came over the link to `from`. `known` says which start of a node has proved
/// itself to us.
///
/// A member speaks for itself alone: another's name as sender is an error. Of others it may say that a
/// start that we know is suspected or dead, which that node can object to.
pub(crate) fn believe(
    from: NodeId,
    own: &Identity,
    bytes: &[u8],
    known: impl Fn(&NodeId) -> Option<u64>,
) -> Result<Believed, Malformed> {
    let mut rest = bytes;
    let header = Layout.decode_header(&mut rest)?;
    if header.src.node != from || from == own.node {
        return Err(Malformed);
    }
    let mut packet = Vec::with_capacity(bytes.len());
    Layout.encode_header(&header, &mut packet)?;
    let start = header.src.start;
    let mut believed = Believed { start, packet, heard: Vec::new(), later_self: None };
    if header.dst.node == own.node && header.dst.start > own.start {
        believed.later_self = Some(header.dst.start);
    }
    if rest.is_empty() {
        return Ok(believed);
    }
    let count = number(&mut rest)?;
    let mut kept: u16 = 0;
    let mut members = Vec::new();
    for _ in 0..count {
        let member = Layout.decode_member(&mut rest)?;
        let id = *member.id();
        if id.node == own.node {
            if id.start > own.start {
                believed.later_self = believed.later_self.max(Some(id.start));
                continue;
            }
        } else if known(&id.node).is_none_or(|start| start < id.start) {
            if member.state() != State::Down {
                believed.heard.push(id);
            }
            continue;
        }
        Layout.encode_member(&member, &mut members)?;
        kept = kept.saturating_add(1);
    }
    if !rest.is_empty() {
        return Err(Malformed);
    }
    believed.packet.put_u16(kept);
    believed.packet.extend_from_slice(&members);
    Ok(believed)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that fails says so")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8, start: u64) -> Identity {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), u16::from(number));
        Identity { node: NodeId::from([number; 32]), start, address }
    }

    fn packet(src: Identity, dst: Identity, members: &[Member<Identity>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = Header { src, src_incarnation: 3, dst, message: Message::Ping(7) };
        Layout.encode_header(&header, &mut bytes).unwrap();
        bytes.put_u16(u16::try_from(members.len()).unwrap());
        for member in members {
            Layout.encode_member(member, &mut bytes).unwrap();
        }
        bytes
    }

    fn members(bytes: &[u8]) -> Vec<Member<Identity>> {
        let mut rest = bytes;
        Layout.decode_header(&mut rest).unwrap();
        let count = rest.get_u16();
        (0..count).map(|_| Layout.decode_member(&mut rest).unwrap()).collect()
    }

    #[test]
    fn what_is_said_of_strangers_leads_to_a_dial_and_nothing_else() {
        let (own, sender) = (node(1, 10), node(2, 10));
        let said = [
            Member::alive(node(3, 5)),
            Member::down(node(4, 5)),
            Member::alive(node(5, 9)),
            Member::new(node(6, 5), 1, State::Suspect),
        ];
        let known = |id: &NodeId| {
            [(5, 8), (6, 5)]
                .iter()
                .find_map(|(number, start)| (*id == NodeId::from([*number; 32])).then_some(*start))
        };
        let believed = believe(sender.node, &own, &packet(sender, own, &said), known).unwrap();
        assert_eq!(believed.heard, [node(3, 5), node(5, 9)], "unknown, and a later start");
        assert_eq!(members(&believed.packet), [said[3].clone()]);
        assert_eq!(believed.heard[0].address, node(3, 0).address);
    }

    #[test]
    fn a_member_speaks_for_itself_alone() {
        let (own, sender, other) = (node(1, 10), node(2, 10), node(3, 10));
        let known = |_: &NodeId| Some(10);
        let forged = packet(other, own, &[]);
        assert_eq!(believe(sender.node, &own, &forged, known).unwrap_err(), Malformed);
        let ours = packet(own, own, &[]);
        assert_eq!(believe(own.node, &own, &ours, known).unwrap_err(), Malformed);
        let later = packet(sender, own, &[Member::alive(node(1, 99))]);
        let believed = believe(sender.node, &own, &later, known).unwrap();
        assert_eq!(believed.later_self, Some(99));
        assert!(members(&believed.packet).is_empty());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read_in_bounds(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let _read = believe(NodeId::from([2; 32]), &node(1, 1), &bytes, |_| None);
        }

        #[test]
        fn what_is_left_of_a_cut_packet_is_refused(cut in 0..300_usize) {
            let (own, sender) = (node(1, 10), node(2, 10));
            let said = [Member::alive(node(3, 5)), Member::alive(node(4, 5))];
            let whole = packet(sender, own, &said);
            prop_assume!(cut < whole.len() && cut != HEADER_BYTES);
            prop_assert!(believe(sender.node, &own, &whole[..cut], |_| Some(5)).is_err());
        }
    }
}
