//! Attacks on whoever listens: the host's own sockets, and every address beyond. An unconnected
//! datagram socket tells whether there is a way to an address, and sends nothing.

use std::{
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixStream},
    },
    time::Duration,
};

use super::{In, Probe, Stop, Trial};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::socket,
};

const NETWORK: Wall = Wall::Layer(Layer::NetworkNamespace);
const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const NO_ROUTE: &[Sign] = &[
    Sign::Errno(libc::ENETUNREACH, NETWORK),
    Sign::Errno(libc::EADDRNOTAVAIL, NETWORK),
    Sign::Errno(libc::ECONNREFUSED, NETWORK),
];

pub(super) const ENTRIES: &[Entry] = &[
    network("host-loopback", "Connects to a server on the host's loopback.", NO_ROUTE, loopback)
        .quick(),
    network("host-loopback-6", "The same by IPv6.", NO_ROUTE, loopback_6),
    network("host-datagram", "Sends a datagram to the host's loopback.", NO_ROUTE, datagram),
    network(
        "host-abstract-socket",
        "Connects to an abstract Unix socket of the host.",
        &[Sign::Errno(libc::ECONNREFUSED, NETWORK)],
        abstract_socket,
    )
    .quick(),
    network(
        "host-path-socket",
        "Connects to a Unix socket of the host by its path.",
        &[Sign::Errno(libc::ENOENT, ROOT)],
        path_socket,
    ),
    network(
        "route-to-metadata",
        "Looks for a way to a cloud's metadata service.",
        NO_ROUTE,
        metadata,
    ),
    network("route-to-lan", "Looks for a way to neighbours of the host.", NO_ROUTE, lan),
    network("route-to-internet", "Looks for a way to a public server.", NO_ROUTE, internet),
    network("route-to-internet-6", "The same by IPv6.", NO_ROUTE, internet_6),
    network("route-to-resolver", "Looks for a way to the host's name server.", NO_ROUTE, resolver),
    network(
        "list-interfaces",
        "Looks for devices of the host's network.",
        &[Sign::Errno(libc::ENODEV, NETWORK), Sign::Errno(libc::ENOENT, PROC)],
        interfaces,
    ),
    network(
        "raise-loopback",
        "Configures a network device.",
        &[Sign::Errno(libc::EPERM, CAPABILITIES)],
        raise,
    )
    .without_control("it would configure the host's"),
    network(
        "low-port",
        "Takes a port that belongs to the system.",
        &[Sign::Errno(libc::EACCES, CAPABILITIES)],
        low_port,
    )
    .for_root(),
];

const fn network(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Network, name, about, signs, inside)
}

/// `std` makes the socket and connects it; which of the two was refused is told by a socket alone.
fn connecting<T>(result: std::io::Result<T>, family: i32) -> Result<T, Stop> {
    super::call(
        crate::linux::sys::probe::Call::Socket,
        [super::n(family), super::n(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC), super::n(0)],
    )?;
    result.within("connect")
}

fn connect(probe: &Probe, target: &'static str, family: i32) -> Trial {
    let address: SocketAddr =
        probe.target(target)?.parse().map_err(|_bad| Stop::new(target, libc::EINVAL))?;
    connecting(TcpStream::connect_timeout(&address, PATIENCE), family)?;
    Ok("connected".to_owned())
}

fn loopback(probe: &Probe) -> Trial {
    connect(probe, "tcp", libc::AF_INET)
}

fn loopback_6(probe: &Probe) -> Trial {
    connect(probe, "tcp6", libc::AF_INET6)
}

fn datagram(probe: &Probe) -> Trial {
    let address = probe.target("udp")?;
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(address)?;
        // If nobody is there, the answer to the first one is the error of the second.
        socket.send(b"x")?;
        std::thread::sleep(ANSWER);
        socket.send(b"x")
    });
    connecting(sent, libc::AF_INET)?;
    Ok("somebody is there".to_owned())
}

fn abstract_socket(probe: &Probe) -> Trial {
    let address = UnixAddress::from_abstract_name(probe.target("abstract")?).within("address")?;
    connecting(UnixStream::connect_addr(&address), libc::AF_UNIX)?;
    Ok("connected".to_owned())
}

fn path_socket(probe: &Probe) -> Trial {
    connecting(UnixStream::connect(probe.target("socket")?), libc::AF_UNIX)?;
    Ok("connected".to_owned())
}

fn route(addresses: &[&str], family: i32) -> Trial {
    let from = if family == libc::AF_INET { "0.0.0.0:0" } else { "[::]:0" };
    let mut answer = Stop::new("connect", libc::ENETUNREACH);
    for address in addresses {
        let way = UdpSocket::bind(from).and_then(|socket| socket.connect(*address));
        match connecting(way, family) {
            Ok(()) => return Ok(format!("there is a way to {address}")),
            Err(stop) => answer = stop,
        }
    }
    Err(answer)
}

fn metadata(_probe: &Probe) -> Trial {
    route(&["169.254.169.254:80"], libc::AF_INET)
}

fn lan(_probe: &Probe) -> Trial {
    route(&["10.0.0.1:80", "172.16.0.1:80", "192.168.0.1:80"], libc::AF_INET)
}

fn internet(_probe: &Probe) -> Trial {
    route(&["1.1.1.1:53"], libc::AF_INET)
}

fn internet_6(_probe: &Probe) -> Trial {
    route(&["[2606:4700:4700::1111]:53"], libc::AF_INET6)
}

fn resolver(probe: &Probe) -> Trial {
    let server = probe.target("resolver")?;
    let family = if server.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
    route(&[server], family)
}

fn interfaces(_probe: &Probe) -> Trial {
    let devices = fs::read_to_string("/proc/net/dev").within("openat")?;
    let names =
        devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let foreign: Vec<&str> = names.filter(|name| *name != "lo").take(3).collect();
    if foreign.is_empty() {
        Err(Stop::new("read", libc::ENODEV))
    } else {
        Ok(format!("sees {}", foreign.join(" ")))
    }
}

fn raise(_probe: &Probe) -> Trial {
    connecting(Ok(()), libc::AF_INET)?;
    socket::raise_loopback().within("ioctl")?;
    Ok("configured lo".to_owned())
}

fn low_port(_probe: &Probe) -> Trial {
    connecting(Ok(()), libc::AF_INET)?;
    UdpSocket::bind("0.0.0.0:7").within("bind")?;
    Ok("has port 7".to_owned())
}

/// As long as a loopback device needs to say that a port is closed.
const ANSWER: Duration = Duration::from_millis(20);
/// The host's loopback answers at once.
const PATIENCE: Duration = Duration::from_secs(2);
