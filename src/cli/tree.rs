//! `neuroflow tree`: the live tree of a running node.

mod draw;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use neuroflow::kernel::Clock;

use super::signal::Signals;
use super::{CliError, Globals, SUCCESS, small_runtime};
use crate::config::{Overrides, SocketPath};
use crate::control::{ControlAnswer, ControlClientError, Tree, ask_tree, default_path};
use crate::limits::WATCH_PAUSE;

/// Prints the live tree of a running node: every actor with its state and mailbox.
#[derive(Args, Debug)]
pub(super) struct TreeCommand {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print it anew every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    settings: Overrides,
}

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TreeError {
    /// Our own user can't be found out, or signals not be caught.
    #[error(
        "the system refused to say who you are, or to set up signals; name the socket with --control-socket"
    )]
    System(#[source] io::Error),
    /// The node has no socket.
    #[error("control.socket is off, so the node has none; name one with --control-socket")]
    Off,
    /// The node doesn't answer.
    #[error(transparent)]
    Ask(#[from] ControlClientError),
}

/// Moves to the upper left corner and clears what is below, so that a tree that shrinks leaves
/// nothing behind.
const CLEAR: &str = "\x1b[H\x1b[J";

impl TreeCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let configured = globals.load(&self.settings)?.config.control.socket;
        small_runtime()?.block_on(async {
            let socket = match configured {
                Some(SocketPath::At(socket)) => socket,
                Some(SocketPath::Off) => return Err(TreeError::Off.into()),
                None => default_path().map_err(TreeError::System)?,
            };
            if self.watch {
                return self.watch(&socket, globals.clock, out).await;
            }
            let tree = ask_tree(&socket, globals.clock).await.map_err(TreeError::from)?;
            self.write(tree, out)?;
            Ok(SUCCESS)
        })
    }

    async fn watch(
        &self,
        socket: &Path,
        clock: &Clock,
        out: &mut dyn Write,
    ) -> Result<u8, CliError> {
        let mut signals = Signals::catch().map_err(TreeError::System)?;
        let clear = io::stdout().is_terminal() && !self.json;
        loop {
            let tree = ask_tree(socket, clock).await.map_err(TreeError::from)?;
            if clear {
                out.write_all(CLEAR.as_bytes())?;
            }
            self.write(tree, out)?;
            out.flush()?;
            tokio::select! {
                _caught = signals.next() => return Ok(SUCCESS),
                () = clock.sleep(WATCH_PAUSE) => {}
            }
        }
    }

    /// As text, or as the socket's own JSON.
    fn write(&self, tree: Tree, out: &mut dyn Write) -> io::Result<()> {
        if !self.json {
            return draw::draw(&tree, out);
        }
        let answer = ControlAnswer::from(tree);
        let json = if self.watch {
            serde_json::to_string(&answer)?
        } else {
            serde_json::to_string_pretty(&answer)?
        };
        writeln!(out, "{json}")
    }
}
