//! An MCP server in a cell: its standard streams as a transport.

use std::sync::Arc;

use neuroflow_kernel::{
    Address, Clock, Header, Parcel, ReplySink, ReplyStream, StreamError, reply_stream,
};
use neuroflow_sandbox::{
    ArchivedExecEvent, ArchivedStream, ExecEvent, ExecRefused, How, SandboxCommand, Service,
};
use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::McpError;
use super::lines::Lines;
use crate::limits::{MCP_LAST_WORDS_BYTES, MCP_MESSAGE_BYTES, MCP_PIPE_BYTES};

/// A server's program in its cell.
pub(super) struct McpCell {
    input: ReplySink<Vec<u8>>,
    events: ReplyStream<Parcel<ExecEvent>>,
}

type Transport = AsyncRwTransport<RoleClient, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Asks for the cell.
pub(super) async fn start(
    command: &[String],
    sandbox: &Address<SandboxCommand>,
    header: Header,
) -> Result<McpCell, McpError> {
    let (input, stream) = reply_stream();
    let command = command.to_vec();
    let serve = |events| SandboxCommand::Serve(Service { command, input: stream, events });
    let events = sandbox.stream(header, serve).await?;
    Ok(McpCell { input, events })
}

impl McpCell {
    /// The transport, and what carries its bytes until the cell ends; dropping that ends the cell.
    pub(super) fn connect(
        self,
        server: &str,
        clock: &Clock,
    ) -> (Transport, impl Future<Output = McpError> + use<>) {
        let (ours, theirs) = tokio::io::duplex(MCP_PIPE_BYTES);
        let (read, write) = tokio::io::split(theirs);
        let transport =
            AsyncRwTransport::new_client(read, write).with_max_line_length(MCP_MESSAGE_BYTES);
        (transport, carry(self, ours, Arc::from(server), clock.clone()))
    }
}

async fn carry(cell: McpCell, ours: DuplexStream, server: Arc<str>, clock: Clock) -> McpError {
    let McpCell { input, mut events } = cell;
    let (mut from_client, mut to_client) = tokio::io::split(ours);
    let up = async {
        let mut buffer = vec![0; MCP_PIPE_BYTES];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if input.send(bytes).await.is_err() {
                break;
            }
        }
        // The end of the input: the program gets a moment to end by itself.
        drop(input);
        std::future::pending::<McpError>().await
    };
    let down = async {
        let mut lines = Lines::new(clock.now());
        let mut last = LastWords::default();
        loop {
            let event = match events.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return McpError::Interrupted(error),
                None => return McpError::Interrupted(StreamError::Interrupted),
            };
            match event.get() {
                ArchivedExecEvent::Output { stream: ArchivedStream::Stdout, bytes } => {
                    let kept = match lines.take(bytes, clock.now()) {
                        Ok(kept) => kept,
                        Err(breach) => return breach.into(),
                    };
                    if to_client.write_all(&kept).await.is_err() {
                        return McpError::Closed;
                    }
                }
                ArchivedExecEvent::Output { stream: ArchivedStream::Stderr, bytes } => {
                    last.add(bytes);
                    tracing::debug!(%server, text = last.text(), "an MCP server complains");
                }
                ArchivedExecEvent::Ended(ended) => {
                    return McpError::Ended { how: How::from(&ended.how), said: last.text() };
                }
                ArchivedExecEvent::Refused(refused) => return ExecRefused::from(refused).into(),
            }
        }
    };
    tokio::select! {
        error = down => error,
        error = up => error,
    }
}

/// The end of what a program has written to standard error.
#[derive(Debug, Default)]
struct LastWords(Vec<u8>);

impl LastWords {
    fn add(&mut self, bytes: &[u8]) {
        let all = bytes.len().min(MCP_LAST_WORDS_BYTES);
        self.0.extend_from_slice(bytes.split_at(bytes.len() - all).1);
        self.0.drain(..self.0.len().saturating_sub(MCP_LAST_WORDS_BYTES));
    }

    fn text(&self) -> String {
        // The first letter may be cut.
        let text = String::from_utf8_lossy(&self.0);
        text.trim_start_matches('\u{fffd}').trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_end_of_all_pieces_and_bounded() {
        let mut last = LastWords::default();
        last.add("ü".repeat(MCP_LAST_WORDS_BYTES).as_bytes());
        last.add(b"why it failed\n");
        assert_eq!(last.0.len(), MCP_LAST_WORDS_BYTES);
        assert!(last.text().ends_with("üwhy it failed"), "{}", last.text());
        assert!(last.text().starts_with('ü'));
        last.add(b"x\n");
        assert!(last.text().ends_with("üwhy it failed\nx"));
    }
}
