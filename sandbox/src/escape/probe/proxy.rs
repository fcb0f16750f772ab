//! Attacks on the way out: a cell with an allow-list has a proxy, and no other way.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::{In, Probe, Stop, Trial};
use crate::{
    escape::{
        Class, Goal, Limits, Sign, Wall,
        catalogue::{Entry, entry},
    },
    limits,
};

/// The proxy has said no (403), or that this is no request (400).
const REFUSED: &[Sign] = &[
    Sign::Call("proxy", libc::EACCES, Wall::Egress),
    Sign::Call("proxy", libc::EBADMSG, Wall::Egress),
];

pub(super) const ENTRIES: &[Entry] = &[
    proxy(
        "proxy-to-address",
        "Has the proxy connect to the host's loopback by its address.",
        address,
    ),
    proxy("proxy-to-metadata", "Has the proxy connect to a cloud's metadata service.", metadata),
    proxy(
        "proxy-to-inner-name",
        "Has the proxy connect to an allowed name that leads to the host's loopback.",
        inner_name,
    ),
    proxy(
        "proxy-other-port",
        "Has the proxy connect to an allowed name at another port.",
        other_port,
    ),
    proxy("proxy-other-path", "Asks an allowed server for a path that isn't allowed.", other_path),
    proxy(
        "proxy-dotted-path",
        "Asks for a path that isn't allowed by way of one that is.",
        dotted_path,
    ),
    proxy("proxy-smuggled-request", "Hides a request in the body of an allowed one.", smuggled)
        .around(crate::escape::races::smuggled_request),
    proxy(
        "proxy-rebound-name",
        "Has the proxy look up an allowed name that leads to the host's loopback the second time.",
        rebound,
    )
    .around(crate::escape::races::rebound_name),
];

const fn proxy(name: &'static str, about: &'static str, inside: super::Try) -> Entry {
    entry(Class::Network, name, about, REFUSED, inside)
        .bounded(Limits::Proxied, Goal::Reach)
        .without_control("without a cell there is no proxy")
}

/// Sends a request and looks at the first line of the answer. No answer is a request that was
/// passed on: the server behind it never answers.
fn ask(request: &str, patience: Duration) -> Trial {
    let mut stream = TcpStream::connect(("127.0.0.1", limits::EGRESS_PORT)).within("connect")?;
    stream.set_read_timeout(Some(patience)).within("setsockopt")?;
    stream.write_all(request.as_bytes()).within("write")?;
    let mut head = [0; 64];
    let length = match stream.read(&mut head) {
        Ok(length) => length,
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
            return Ok("it was passed on".to_owned());
        }
        Err(error) => return Err(error).within("read"),
    };
    let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
    match head.split(' ').nth(1) {
        Some("403") => Err(Stop::new("proxy", libc::EACCES)),
        Some("400") => Err(Stop::new("proxy", libc::EBADMSG)),
        // It tried, and the server couldn't be reached.
        Some("502" | "504") => Err(Stop::new("proxy", libc::ECONNREFUSED)),
        // The connection was closed without a word.
        None => Err(Stop::new("proxy", libc::ECONNRESET)),
        Some(_) => Ok(format!("was answered {head:?}")),
    }
}

fn connect(target: &str) -> Trial {
    ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"), PATIENCE)
}

fn get(probe: &Probe, path: &str, patience: Duration) -> Trial {
    let server = probe.target("behind")?;
    ask(&format!("GET http://{server}{path} HTTP/1.1\r\nHost: {server}\r\n\r\n"), patience)
}

fn address(probe: &Probe) -> Trial {
    connect(probe.target("tcp")?)
}

fn metadata(_probe: &Probe) -> Trial {
    connect("169.254.169.254:80")
}

fn inner_name(probe: &Probe) -> Trial {
    let port = probe.target("tcp")?.rsplit(':').next().unwrap_or_default();
    connect(&format!("localhost:{port}"))
}

fn other_port(_probe: &Probe) -> Trial {
    connect("localhost:1")
}

fn other_path(probe: &Probe) -> Trial {
    // A proxy that refuses everything would prove nothing.
    if let Err(Stop { errno, .. }) = get(probe, "/open", SILENCE) {
        return Err(Stop { call: "the allowed request", errno });
    }
    get(probe, "/closed", PATIENCE)
}

fn dotted_path(probe: &Probe) -> Trial {
    get(probe, "/open/../closed", PATIENCE)
}

fn rebound(probe: &Probe) -> Trial {
    let target = probe.target("rebound")?;
    // What the name was checked for is what is connected to, and not what it leads to by then.
    if let Err(Stop { errno, .. }) = connect(target) {
        return Err(Stop { call: "the allowed request", errno });
    }
    connect(target)
}

fn smuggled(probe: &Probe) -> Trial {
    let server = probe.target("behind")?;
    let request = format!(
        "POST http://{server}/open HTTP/1.1\r\nHost: {server}\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /closed HTTP/1.1\r\nHost: {server}\r\n\r\n"
    );
    ask(&request, SILENCE)
}

/// Longer than the proxy needs to refuse, on a machine with far too much to do: who gives up sooner
/// takes a slow refusal for a request that was passed on.
const PATIENCE: Duration = Duration::from_secs(6);
/// Where no answer is the right one, or the server behind says what came of it.
const SILENCE: Duration = Duration::from_millis(700);
