//! Which addresses a cell may be connected to: the public ones, and what a rule names.
//!
//! IPv4 is public unless a range of IANA's special-purpose registry says otherwise. IPv6 is the
//! other way round: only `2000::/3` was ever given out, so the rest is refused unseen.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Why an address isn't public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    Loopback,
    Private,
    LinkLocal,
    /// A service that hands out a cloud machine's credentials to whoever asks from it.
    Metadata,
    Multicast,
    /// Documentation, benchmarks, protocol assignments, tunnels of IPv6, and never given out.
    Reserved,
}

/// `None` for a public address. IPv6 forms that only carry an IPv4 address are judged by that.
pub(crate) fn closed(address: IpAddr) -> Option<Closed> {
    let address = plain(address);
    if METADATA.contains(&address) {
        return Some(Closed::Metadata);
    }
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let row = V4.iter().find(|(first, length, _)| {
                bits >> (32 - length) == first.to_bits() >> (32 - length)
            });
            row.map(|(.., closed)| *closed)
        }
        IpAddr::V6(address) => {
            if let Some(inner) = nat64(address) {
                return closed(IpAddr::V4(inner));
            }
            let bits = address.to_bits();
            let row = V6.iter().find(|(first, length, _)| {
                bits >> (128 - length) == first.to_bits() >> (128 - length)
            });
            match row {
                Some((.., closed)) => Some(*closed),
                None if bits >> 125 == 1 => None,
                None => Some(Closed::Reserved),
            }
        }
    }
}

/// The one form in which an address is compared and dialled: `::ffff:a.b.c.d` is `a.b.c.d`.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The address behind a translator's well-known prefix, `64:ff9b::/96` (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let prefix = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).to_bits();
    let inner = u32::try_from(bits ^ prefix).ok()?;
    Some(Ipv4Addr::from_bits(inner))
}

/// Credentials are handed out at these. None is reached through a range; a rule has to name it.
const METADATA: [IpAddr; 11] = [
    // Amazon, Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack.
    v4(169, 254, 169, 254),
    // Amazon: containers, Kubernetes, name server.
    v4(169, 254, 170, 2),
    v4(169, 254, 170, 23),
    v4(169, 254, 169, 253),
    // Alibaba.
    v4(100, 100, 100, 200),
    // Oracle.
    v4(192, 0, 0, 192),
    // Azure; a public address.
    v4(168, 63, 129, 16),
    // Scaleway.
    v4(169, 254, 42, 42),
    // Amazon; Kubernetes on Amazon; Google.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(segments: [u16; 8]) -> IpAddr {
    let mut bits = 0;
    let mut index = 0;
    // Constant functions have no iterators.
    while index < segments.len() {
        bits = bits << 16 | segments[index] as u128;
        index += 1;
    }
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}

/// IANA's registry of special IPv4 addresses, without what is global there.
const V4: [(Ipv4Addr, u32, Closed); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8, Closed::Reserved),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Closed::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Closed::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Closed::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Closed::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Closed::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Closed::Reserved),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Closed::Reserved),
    // Relays of 6to4, withdrawn.
    (Ipv4Addr::new(192, 88, 99, 0), 24, Closed::Reserved),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Closed::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Closed::Reserved),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Closed::Reserved),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Closed::Reserved),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Closed::Multicast),
    // With the broadcast address.
    (Ipv4Addr::new(240, 0, 0, 0), 4, Closed::Reserved),
    // Relays of multicast tunnels.
    (Ipv4Addr::new(192, 52, 193, 0), 24, Closed::Reserved),
];

/// What has a name of its own, and the exceptions within `2000::/3`.
const V6: [(Ipv6Addr, u32, Closed); 9] = [
    (Ipv6Addr::LOCALHOST, 128, Closed::Loopback),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Closed::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Closed::LinkLocal),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Closed::Private),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Closed::Multicast),
    // Protocol assignments, with Teredo (2001::/32), benchmarks (2001:2::/48) and ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Closed::Reserved),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Closed::Reserved),
    // 6to4: withdrawn, and carries any IPv4 address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Closed::Reserved),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Closed::Reserved),
];

/// A range of addresses, such as `10.1.0.0/16`; a single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: IpAddr,
    length: u8,
}

impl Range {
    /// The range that holds nothing but this address.
    pub(crate) fn only(address: IpAddr) -> Self {
        let address = plain(address);
        Self { first: address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether the rule with this range may reach the closed address.
    pub(crate) fn permits(self, address: IpAddr) -> bool {
        let address = plain(address);
        if closed(address) == Some(Closed::Metadata) && self != Self::only(address) {
            return false;
        }
        self.contains(address)
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(self.length.into());
                let cut = |address: Ipv4Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
                cut(first) == cut(address)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(self.length.into());
                let cut = |address: Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
                cut(first) == cut(address)
            }
            _ => false,
        }
    }
}

/// The text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRange;

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(first) = address.parse::<IpAddr>() else { return Err(NoRange) };
        // A mapped address has two readings of its length.
        if first != plain(first) {
            return Err(NoRange);
        }
        let Some(length) = length else { return Ok(Self::only(first)) };
        let most = if first.is_ipv4() { 32 } else { 128 };
        match length.parse::<u8>() {
            Ok(length) if length > 0 && length <= most => Ok(Self { first, length }),
            _ => Err(NoRange),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Option<Closed> {
        closed(text.parse().unwrap())
    }

    #[test]
    fn every_range_is_closed_from_its_first_to_its_last_address_and_not_beyond() {
        use Closed::{LinkLocal, Loopback, Multicast, Private, Reserved};
        // The address before, the first, the last, the address after.
        let rows: [(&str, &str, &str, &str, Closed); 22] = [
            ("-", "0.0.0.0", "0.255.255.255", "1.0.0.0", Reserved),
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", Private),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", Private),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", Loopback),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", LinkLocal),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", Private),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", Reserved),
            ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", Reserved),
            ("192.52.192.255", "192.52.193.0", "192.52.193.255", "192.52.194.0", Reserved),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", Reserved),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", Private),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", Reserved),
            ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0", Reserved),
            ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0", Reserved),
            ("223.255.255.255", "224.0.0.0", "239.255.255.255", "-", Multicast),
            ("-", "240.0.0.0", "255.255.255.255", "-", Reserved),
            (
                "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001::",
                "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:200::",
                Reserved,
            ),
            (
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
                Reserved,
            ),
            (
                "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2002::",
                "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2003::",
                Reserved,
            ),
            (
                "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff::",
                "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff:1000::",
                Reserved,
            ),
            ("-", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", Private),
            ("-", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", Multicast),
        ];
        for (before, first, last, after, closed) in rows {
            assert_eq!(judge(first), Some(closed), "{first}");
            assert_eq!(judge(last), Some(closed), "{last}");
            for outside in [before, after].into_iter().filter(|text| *text != "-") {
                assert_eq!(judge(outside), None, "{outside}");
            }
        }
    }

    #[test]
    fn ipv6_outside_of_what_was_given_out_is_closed() {
        for (text, closed) in [
            ("::", Closed::Reserved),
            ("::1", Closed::Loopback),
            ("::2", Closed::Reserved),
            ("::8.8.8.8", Closed::Reserved),
            ("100::1", Closed::Reserved),
            ("1fff:ffff::", Closed::Reserved),
            ("4000::", Closed::Reserved),
            ("5f00::1", Closed::Reserved),
            ("64:ff9b:1::808:808", Closed::Reserved),
            ("fe80::1", Closed::LinkLocal),
            ("febf::1", Closed::LinkLocal),
            ("fec0::1", Closed::Private),
            ("feff::1", Closed::Private),
        ] {
            assert_eq!(judge(text), Some(closed), "{text}");
        }
        for text in ["2000::", "2606:4700::1111", "3ffe::1", "3fff:ffff::"] {
            assert_eq!(judge(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_in_another_address_is_judged_by_the_inner_one() {
        assert_eq!(judge("::ffff:8.8.8.8"), None);
        assert_eq!(judge("::ffff:127.0.0.1"), Some(Closed::Loopback));
        assert_eq!(judge("::ffff:169.254.169.254"), Some(Closed::Metadata));
        assert_eq!(judge("64:ff9b::8.8.8.8"), None);
        assert_eq!(judge("64:ff9b::10.0.0.1"), Some(Closed::Private));
        assert_eq!(judge("64:ff9b::169.254.169.254"), Some(Closed::Metadata));
        assert_eq!(judge("64:ff9b:0:0:0:1:808:808"), Some(Closed::Reserved));
        assert_eq!(judge("2002:7f00:1::"), Some(Closed::Reserved));
        assert_eq!(judge("2001:0:53aa:64c:0:0:80ff:fffe"), Some(Closed::Reserved));
    }

    #[test]
    fn a_metadata_address_is_permitted_by_its_own_name_only() {
        for text in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(closed(address), Some(Closed::Metadata), "{text}");
            assert!(Range::only(address).permits(address));
            let wide = if address.is_ipv4() { "128.0.0.0/1" } else { "fc00::/7" };
            assert!(!wide.parse::<Range>().unwrap().permits(address), "{text}");
        }
        let range: Range = "169.254.0.0/16".parse().unwrap();
        assert!(range.permits("169.254.1.1".parse().unwrap()));
        assert!(!range.permits("169.254.169.254".parse().unwrap()));
    }

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3/16", "10.1.0.1", "10.0.255.255"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("192.168.0.0/31", "192.168.0.1", "192.168.0.2"),
        ] {
            let range: Range = range.parse().unwrap();
            assert!(range.contains(plain(inside.parse().unwrap())), "{range} {inside}");
            assert!(!range.contains(plain(outside.parse().unwrap())), "{range} {outside}");
        }
        for text in [
            "",
            "10",
            "10.0.0.0/0",
            "10.0.0.0/33",
            "::/129",
            "::/0",
            "10.0.0.0/",
            "/8",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8/8",
            "fe80::1%lo/64",
            "10.0.0.0/-1",
        ] {
            assert_eq!(text.parse::<Range>(), Err(NoRange), "{text}");
        }
    }
}
