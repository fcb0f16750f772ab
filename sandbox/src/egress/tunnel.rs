//! Tunnels: after a look at the first record, bytes pass unseen in both directions.

use std::{io, sync::Arc};

use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

use super::{
    exchange::Exchange,
    hello::{self, Hello},
    host::Host,
    meter::Upstream,
    reason::EgressReason,
};
use crate::limits;

/// A tunnel that was promised to the client.
pub(crate) struct Tunnel {
    pub(crate) upstream: Box<dyn Upstream>,
    pub(crate) host: Host,
    pub(crate) is_opaque: bool,
}

impl Tunnel {
    /// Carries bytes until both sides have closed, or one has failed.
    pub(crate) async fn run(
        self,
        exchange: &Arc<Exchange>,
        mut client: TcpStream,
        already: Bytes,
    ) -> io::Result<()> {
        let Self { mut upstream, host, is_opaque } = self;
        let mut first = already.to_vec();
        if !is_opaque {
            exchange.awaits_hello();
            if let Err(reason) = look(&mut client, &mut first, &host).await? {
                exchange.ends(reason);
                return client.write_all(&ACCESS_DENIED).await;
            }
        }
        exchange.passes();
        let carried = async {
            upstream.write_all(&first).await?;
            upstream.flush().await?;
            let size = limits::EGRESS_BUFFER_BYTES;
            copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size).await
        };
        carried.await.map(|_bytes| ())
    }
}

/// Reads until the hello is whole, and compares its server with the tunnel's host.
async fn look(
    client: &mut TcpStream,
    first: &mut Vec<u8>,
    host: &Host,
) -> io::Result<Result<(), EgressReason>> {
    loop {
        match hello::read(first) {
            Hello::Client { server_name, encrypted } => {
                return Ok(judge(server_name.as_deref(), encrypted, host));
            }
            Hello::Foreign => return Ok(Err(EgressReason::NotTls)),
            // A whole record fits, so an incomplete one always leaves room.
            Hello::Incomplete if first.len() >= limits::EGRESS_HELLO_BYTES => {
                return Ok(Err(EgressReason::NotTls));
            }
            Hello::Incomplete => {}
        }
        let room = u64::try_from(limits::EGRESS_HELLO_BYTES - first.len()).unwrap_or(0);
        if (&mut *client).take(room).read_buf(first).await? == 0 {
            return Ok(Err(EgressReason::NotTls));
        }
    }
}

fn judge(server_name: Option<&str>, encrypted: bool, host: &Host) -> Result<(), EgressReason> {
    if encrypted {
        return Err(EgressReason::EncryptedHello);
    }
    let agrees = match (server_name.map(Host::parse), host) {
        (Some(Ok(named)), host) => named == *host,
        // No name is sent for an address.
        (None, Host::Address(_)) => true,
        _ => false,
    };
    if agrees { Ok(()) } else { Err(EgressReason::ServerName) }
}

/// The alert that TLS has for it, so that the client says more than "connection closed".
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_has_to_name_the_host() {
        let name = Host::parse("api.example.com").unwrap();
        let address = Host::parse("10.0.0.1").unwrap();
        for (server_name, encrypted, host, expected) in [
            (Some("api.example.com"), false, &name, Ok(())),
            (Some("API.example.com"), false, &name, Ok(())),
            (Some("evil.example.com"), false, &name, Err(EgressReason::ServerName)),
            (Some("a b"), false, &name, Err(EgressReason::ServerName)),
            (None, false, &name, Err(EgressReason::ServerName)),
            (Some("api.example.com"), true, &name, Err(EgressReason::EncryptedHello)),
            (None, false, &address, Ok(())),
            (Some("api.example.com"), false, &address, Err(EgressReason::ServerName)),
        ] {
            assert_eq!(judge(server_name, encrypted, host), expected, "{server_name:?} {host}");
        }
    }
}
