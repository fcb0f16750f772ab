//! The server of the official Python SDK, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Serves until it's dropped.
pub(in crate::gateway) struct Python {
    process: Child,
    address: SocketAddr,
}

impl Python {
    /// None, and said aloud, where `tools/setup bench` hasn't installed it.
    pub(in crate::gateway) fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let interpreter = root.join("target/tools/a2a/bin/python");
        if !interpreter.exists() {
            println!("the official Python SDK isn't measured: run tools/setup bench first");
            return None;
        }
        let mut command = Command::new(interpreter);
        command.arg(root.join("benches/gateway/official/server.py"));
        // It ends with its input, and so with this process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("Python starts");
        let said = process.stdout.take().expect("it was asked for");
        let mut port = String::new();
        BufReader::new(said).read_line(&mut port).expect("the server says its port");
        let port = port.trim().parse().expect("a port is a number");
        Some(Self { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    pub(in crate::gateway) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("a child can be waited for");
    }
}
