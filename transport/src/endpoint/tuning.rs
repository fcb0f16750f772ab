//! How QUIC is set up: measured on loopback, safe elsewhere.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};

use super::congestion::PromptConfig;
use super::server::ListenError;
use crate::identity::{Presented, Trust, client_config, server_config};
use crate::join::Door;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, GOSSIP_BUFFER_BYTES, IDLE_TIMEOUT, LANES, LONE_STREAMS,
    MAX_HANDSHAKES, MAX_PACKET_BYTES, SEND_WINDOW_BYTES, SOCKET_BUFFER_BYTES, STRANGER_BYTES,
    STRANGERS_BYTES, STREAM_WINDOW_BYTES,
};

/// Packets are this large before the path is known, as every path carries them.
const FIRST_PACKET_BYTES: u16 = 1_200;

pub(super) fn endpoint() -> Result<EndpointConfig, ListenError> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MAX_PACKET_BYTES).map_err(ListenError::Setting)?;
    Ok(config)
}

/// Asks for room in the system for bursts. It gives what it allows: less costs speed alone.
pub(super) fn socket(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    let _less = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _less = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
}

pub(super) fn server(
    presented: &Arc<Presented>,
    trust: &Trust,
    door: Option<&Arc<Door>>,
) -> Result<ServerConfig, ListenError> {
    let tls = server_config(presented, trust, door)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(transport()?)
        .migration(true)
        .max_incoming(MAX_HANDSHAKES)
        .incoming_buffer_size(STRANGER_BYTES)
        .incoming_buffer_size_total(STRANGERS_BYTES);
    Ok(config)
}

pub(super) fn client(
    presented: &Arc<Presented>,
    trust: &Trust,
) -> Result<ClientConfig, ListenError> {
    let tls = client_config(presented, trust)?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport()?);
    Ok(config)
}

fn transport() -> Result<Arc<TransportConfig>, ListenError> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_PACKET_BYTES);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).map_err(ListenError::Idle)?;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(LANES)))
        .max_concurrent_uni_streams(VarInt::from_u32(LONE_STREAMS))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(IDLE_TIMEOUT / 4))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .congestion_controller_factory(Arc::new(PromptConfig::default()))
        .initial_mtu(FIRST_PACKET_BYTES)
        .min_mtu(FIRST_PACKET_BYTES)
        .mtu_discovery_config(Some(discovery))
        .initial_rtt(Duration::from_millis(50))
        .datagram_receive_buffer_size(Some(GOSSIP_BUFFER_BYTES))
        .datagram_send_buffer_size(GOSSIP_BUFFER_BYTES);
    Ok(Arc::new(config))
}
