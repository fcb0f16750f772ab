//! How a session with an MCP server fails.

use std::fmt;
use std::time::Duration;

use neuroflow_kernel::{CallError, Refusal, StreamError};
use neuroflow_sandbox::{ExecRefused, How};
use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;

use super::Breach;

/// Why a session with an MCP server ended. Its actor fails with it, and is restarted.
///
/// ```
/// use neuroflow_actors::{McpError, McpStep};
/// use std::time::Duration;
/// let late = McpError::TimedOut { step: McpStep::Start, after: Duration::from_secs(30) };
/// assert_eq!(late.to_string(), "the server didn't start within 30s");
/// assert_eq!(late.code(), "timed_out");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The sandbox doesn't take the request.
    #[error("the sandbox doesn't run the server")]
    Sandbox(#[from] Refusal),
    /// There was no cell.
    #[error("the server's cell didn't start")]
    Cell(#[from] ExecRefused),
    /// The cell's events broke off.
    #[error("the server's cell was interrupted")]
    Interrupted(#[from] StreamError),
    /// Its program has ended.
    #[error("the server's program ended ({}){}", end(*how), last(said))]
    Ended {
        /// How.
        how: How,
        /// The last that it has said on standard error,
        /// [`MCP_LAST_WORDS_BYTES`](crate::limits::MCP_LAST_WORDS_BYTES) at most.
        said: String,
    },
    /// It does what nobody may.
    #[error("the server broke a bound")]
    Breach(#[from] Breach),
    /// It doesn't speak the protocol, or no version of it that we do.
    #[error("the server doesn't begin a session")]
    Begin(#[source] Box<ClientInitializeError>),
    /// It doesn't say what it has.
    #[error("the server doesn't list its tools")]
    List(#[source] Box<ServiceError>),
    /// It has more tools than anybody could choose from.
    #[error("the server has more than {limit} tools or too many pages of them")]
    TooManyTools {
        /// What is allowed.
        limit: usize,
    },
    /// It took too long.
    #[error("the server didn't {step} within {after:?}")]
    TimedOut {
        /// What was awaited.
        step: McpStep,
        /// How long.
        after: Duration,
    },
    /// It doesn't take what is sent to it.
    #[error("the server didn't read a message within {after:?}")]
    Unread {
        /// How long.
        after: Duration,
    },
    /// It let a call time out, and doesn't answer whether it's there.
    #[error("the server answered nothing, not even a ping within {after:?}")]
    Silent {
        /// How long.
        after: Duration,
    },
    /// It doesn't know the session any more: it was started anew, or another one is in its place.
    #[error("the server doesn't know the session any more")]
    Expired,
    /// There is no connection to it.
    #[error("the server can't be reached")]
    Unreachable,
    /// The connection is closed.
    #[error("the server closed the connection")]
    Closed,
    /// The tool router doesn't answer.
    #[error("the tool router doesn't take the server's tools")]
    Router(#[from] CallError),
}

impl McpError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sandbox(refusal) => refusal.code(),
            Self::Cell(_) => "cell",
            Self::Interrupted(_) => "interrupted",
            Self::Ended { how, .. } => how.code(),
            Self::Breach(breach) => breach.code(),
            Self::Begin(_) => "begin",
            Self::List(_) => "list",
            Self::TooManyTools { .. } => "too_many_tools",
            Self::TimedOut { .. } => "timed_out",
            Self::Unread { .. } => "unread",
            Self::Silent { .. } => "silent",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Router(_) => "router",
        }
    }
}

/// How a program ended, with the number that says more.
fn end(how: How) -> String {
    match how {
        How::Exited(status) => format!("exit status {status}"),
        How::Signalled(signal) => format!("signal {signal}"),
        other => other.code().to_owned(),
    }
}

/// What it said, in one line that commands no terminal.
fn last(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(", and said last: {said:?}") }
}

/// What an MCP server was to do.
///
/// ```
/// assert_eq!(neuroflow_actors::McpStep::List.to_string(), "list its tools");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpStep {
    /// Start, and begin a session.
    Start,
    /// Say what it has.
    List,
}

impl fmt::Display for McpStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::List => "list its tools",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_number_and_the_last_words() {
        let told = |how, said: &str| McpError::Ended { how, said: said.to_owned() }.to_string();
        assert_eq!(told(How::Memory, ""), "the server's program ended (memory)");
        assert_eq!(
            told(How::Exited(3), "no\nmodule\x1b[2J\u{202e}"),
            "the server's program ended (exit status 3), and said last: \
             \"no\\nmodule\\u{1b}[2J\\u{202e}\""
        );
    }
}
