//! The peers: the servers of the official SDKs with their stores in memory, and an agent that echoes.

pub(super) mod python;
pub(super) mod rust;
