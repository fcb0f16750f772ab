//! What `serve` prints when it's ready: where everything is, and a first request to copy.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Endpoint;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Banner {
    pub(super) gateway: SocketAddr,
    /// Whether the gateway speaks TLS.
    pub(super) is_tls: bool,
    pub(super) public_url: Option<Endpoint>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) socket: Option<PathBuf>,
    pub(super) agents: Vec<String>,
    /// From the start of the process.
    pub(super) took: Duration,
}

/// The first request: it runs a command with the shell agent, and comes back from the echo agent.
const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"uname -a; id"}]}}}"#;

impl Banner {
    /// In one piece, so that nothing of what can't be written waits for the next try.
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = Vec::new();
        self.write(&mut text)?;
        out.write_all(&text)?;
        out.flush()
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let scheme = if self.is_tls { "https" } else { "http" };
        let gateway = format!("{scheme}://{}", self.gateway);
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        writeln!(out, "neuroflow {version} is ready (pid {pid}, {:?})", rounded(self.took))?;
        writeln!(out, "  gateway     {gateway}/")?;
        if let Some(url) = &self.public_url {
            writeln!(out, "  known as    {}", url.masked())?;
        }
        writeln!(out, "  agent card  {gateway}/.well-known/agent-card.json")?;
        match self.metrics {
            Some(metrics) => writeln!(out, "  metrics     http://{metrics}/metrics")?,
            None => writeln!(out, "  metrics     off")?,
        }
        match &self.socket {
            Some(socket) => writeln!(out, "  control     {}", socket.display())?,
            None => writeln!(out, "  control     off")?,
        }
        writeln!(out, "  agents      {}", self.agents.join(", "))?;
        writeln!(out, "Try it:")?;
        writeln!(
            out,
            "  curl -s {gateway}/ -H 'Content-Type: application/json' \
             -H 'A2A-Version: 1.0' -d '{REQUEST}'"
        )
    }
}

/// To the millisecond.
fn rounded(took: Duration) -> Duration {
    Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}
