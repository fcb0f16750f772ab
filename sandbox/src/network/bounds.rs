//! What a cell's proxy spends on it at most.

use std::{fmt, time::Duration};

use super::NetworkError;
use crate::limits;

/// Bounds of an allow-list; the defaults are in [`crate::limits`].
///
/// ```
/// use std::time::Duration;
/// use neuroflow_sandbox::{EgressLimits, Network, Rule};
///
/// let tight = EgressLimits::default().connections(20).cell_bytes_up(1 << 20);
/// let network = Network::allow([Rule::host("example.com")]).limits(tight);
/// assert!(network.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "bounds do nothing until `Network::limits` is called with them"]
pub struct EgressLimits {
    pub(crate) concurrent: u32,
    pub(crate) connections: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) cell_bytes_up: u64,
    pub(crate) cell_bytes_down: u64,
    pub(crate) head_bytes: u32,
    pub(crate) head_time: Duration,
    pub(crate) resolve_time: Duration,
    pub(crate) connect_time: Duration,
    pub(crate) idle_time: Duration,
    pub(crate) total_time: Duration,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            concurrent: limits::DEFAULT_EGRESS_CONCURRENT,
            connections: limits::DEFAULT_EGRESS_CONNECTIONS,
            bytes_up: limits::DEFAULT_EGRESS_UP_BYTES,
            bytes_down: limits::DEFAULT_EGRESS_DOWN_BYTES,
            cell_bytes_up: limits::DEFAULT_EGRESS_CELL_UP_BYTES,
            cell_bytes_down: limits::DEFAULT_EGRESS_CELL_DOWN_BYTES,
            head_bytes: limits::DEFAULT_EGRESS_HEAD_BYTES,
            head_time: limits::DEFAULT_EGRESS_HEAD_TIME,
            resolve_time: limits::DEFAULT_EGRESS_RESOLVE_TIME,
            connect_time: limits::DEFAULT_EGRESS_CONNECT_TIME,
            idle_time: limits::DEFAULT_EGRESS_IDLE_TIME,
            total_time: limits::DEFAULT_EGRESS_TOTAL_TIME,
        }
    }
}

impl EgressLimits {
    /// Connections at a time; further ones wait.
    pub fn concurrent(mut self, most: u32) -> Self {
        self.concurrent = most;
        self
    }

    /// Connections in the cell's life; further ones are refused.
    pub fn connections(mut self, most: u64) -> Self {
        self.connections = most;
        self
    }

    /// Bytes that leave by one connection, TLS and headers included.
    pub fn bytes_up(mut self, most: u64) -> Self {
        self.bytes_up = most;
        self
    }

    /// Bytes that come in by one connection.
    pub fn bytes_down(mut self, most: u64) -> Self {
        self.bytes_down = most;
        self
    }

    /// Bytes that leave in the cell's life.
    pub fn cell_bytes_up(mut self, most: u64) -> Self {
        self.cell_bytes_up = most;
        self
    }

    /// Bytes that come in in the cell's life.
    pub fn cell_bytes_down(mut self, most: u64) -> Self {
        self.cell_bytes_down = most;
        self
    }

    /// Size of the head of a request or response.
    pub fn head_bytes(mut self, most: u32) -> Self {
        self.head_bytes = most;
        self
    }

    /// How long a request's head may take, and the first record of a tunnel.
    pub fn head_time(mut self, longest: Duration) -> Self {
        self.head_time = longest;
        self
    }

    /// How long a name may take to resolve.
    pub fn resolve_time(mut self, longest: Duration) -> Self {
        self.resolve_time = longest;
        self
    }

    /// How long it may take to connect, with the TLS handshake and all addresses of the name.
    pub fn connect_time(mut self, longest: Duration) -> Self {
        self.connect_time = longest;
        self
    }

    /// How long a connection may pass no byte.
    pub fn idle_time(mut self, longest: Duration) -> Self {
        self.idle_time = longest;
        self
    }

    /// How long a connection may last.
    pub fn total_time(mut self, longest: Duration) -> Self {
        self.total_time = longest;
        self
    }

    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        use EgressLimit as L;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bytes = (0, limits::MAX_EGRESS_BYTES);
        let time = (1, ms(limits::MAX_EGRESS_TIME));
        let head = (limits::MIN_EGRESS_HEAD_BYTES.into(), limits::MAX_EGRESS_HEAD_BYTES.into());
        let rows = [
            (L::Concurrent, self.concurrent.into(), (1, limits::MAX_EGRESS_CONCURRENT.into())),
            (L::Connections, self.connections, (0, limits::MAX_EGRESS_CONNECTIONS)),
            (L::BytesUp, self.bytes_up, bytes),
            (L::BytesDown, self.bytes_down, bytes),
            (L::CellBytesUp, self.cell_bytes_up, bytes),
            (L::CellBytesDown, self.cell_bytes_down, bytes),
            (L::HeadBytes, self.head_bytes.into(), head),
            (L::HeadTime, ms(self.head_time), time),
            (L::ResolveTime, ms(self.resolve_time), time),
            (L::ConnectTime, ms(self.connect_time), time),
            (L::IdleTime, ms(self.idle_time), time),
            (L::TotalTime, ms(self.total_time), time),
        ];
        for (limit, given, (least, most)) in rows {
            if !(least..=most).contains(&given) {
                return Err(NetworkError::OutOfRange { limit, given, least, most });
            }
        }
        Ok(())
    }
}

/// Names a bound in errors.
///
/// ```
/// assert_eq!(neuroflow_sandbox::EgressLimit::IdleTime.to_string(), "idle time (ms)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EgressLimit {
    /// [`EgressLimits::concurrent`].
    Concurrent,
    /// [`EgressLimits::connections`].
    Connections,
    /// [`EgressLimits::bytes_up`].
    BytesUp,
    /// [`EgressLimits::bytes_down`].
    BytesDown,
    /// [`EgressLimits::cell_bytes_up`].
    CellBytesUp,
    /// [`EgressLimits::cell_bytes_down`].
    CellBytesDown,
    /// [`EgressLimits::head_bytes`].
    HeadBytes,
    /// [`EgressLimits::head_time`], in milliseconds.
    HeadTime,
    /// [`EgressLimits::resolve_time`], in milliseconds.
    ResolveTime,
    /// [`EgressLimits::connect_time`], in milliseconds.
    ConnectTime,
    /// [`EgressLimits::idle_time`], in milliseconds.
    IdleTime,
    /// [`EgressLimits::total_time`], in milliseconds.
    TotalTime,
}

impl fmt::Display for EgressLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Concurrent => "concurrent connections",
            Self::Connections => "connections",
            Self::BytesUp => "bytes up",
            Self::BytesDown => "bytes down",
            Self::CellBytesUp => "bytes up of the cell",
            Self::CellBytesDown => "bytes down of the cell",
            Self::HeadBytes => "head (bytes)",
            Self::HeadTime => "head time (ms)",
            Self::ResolveTime => "resolve time (ms)",
            Self::ConnectTime => "connect time (ms)",
            Self::IdleTime => "idle time (ms)",
            Self::TotalTime => "total time (ms)",
        })
    }
}
