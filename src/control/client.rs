//! The other end of the control socket: what `neuroflow tree` asks.

use std::io;
use std::path::{Path, PathBuf};

use neuroflow::kernel::{Clock, Elapsed};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{ControlAnswer, ControlRequest, Fault, Outcome, Tree, VERSION};
use crate::limits::{CONTROL_ANSWER_BYTES, CONTROL_DEADLINE};
use crate::owner::own_user;

/// Why a node's tree can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ControlClientError {
    /// Nobody listens.
    #[error(
        "no node listens on {}; start one with `neuroflow serve`, or name its socket with --control-socket",
        path.display()
    )]
    NotRunning {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("the node behind {} can't be asked; if it's another user's, use sudo", path.display())]
    Connection {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error(
        "the socket {} belongs to user {user}, who is neither you nor root; name your node's with \
         --control-socket", path.display()
    )]
    Foreign { path: PathBuf, user: u32 },
    /// No answer in time.
    #[error("the node behind {} doesn't answer; try again, or look at its log", path.display())]
    TimedOut {
        path: PathBuf,
        #[source]
        source: Elapsed,
    },
    /// The answer is larger than any tree.
    #[error("the answer has more than {CONTROL_ANSWER_BYTES} bytes; is {} a node's socket?", path.display())]
    TooLarge { path: PathBuf },
    /// The answer isn't one.
    #[error("the answer can't be read; is {} the socket of a node of this version?", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The node speaks another version.
    #[error(
        "the node answers in version {found} of the protocol, this program reads {VERSION}; use the node's own binary"
    )]
    Version { found: u16 },
    /// The answer is to something else.
    #[error("the node answers something else; use the node's own binary")]
    Other,
    /// The node refuses.
    #[error("the node refuses: {}", .0.message)]
    Refused(Fault),
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u16,
}

/// Asks the node behind this socket for its tree.
pub(crate) async fn ask_tree(path: &Path, clock: &Clock) -> Result<Tree, ControlClientError> {
    match ask(path, clock, &ControlRequest::Tree {}).await? {
        Outcome::Tree(tree) => Ok(tree),
        _ => Err(ControlClientError::Other),
    }
}

/// Asks the node behind this socket; a refusal is an error.
pub(crate) async fn ask(
    path: &Path,
    clock: &Clock,
    request: &ControlRequest,
) -> Result<Outcome, ControlClientError> {
    let deadline = clock.now() + CONTROL_DEADLINE;
    let answer = clock.before(deadline, exchange(path, request)).await;
    let bytes = answer
        .map_err(|source| ControlClientError::TimedOut { path: path.to_owned(), source })??;
    let malformed = |source| ControlClientError::Malformed { path: path.to_owned(), source };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if version != VERSION {
        return Err(ControlClientError::Version { found: version });
    }
    let answer: ControlAnswer = serde_json::from_slice(&bytes).map_err(malformed)?;
    match answer.outcome {
        Outcome::Error(fault) => Err(ControlClientError::Refused(fault)),
        outcome => Ok(outcome),
    }
}

async fn exchange(path: &Path, request: &ControlRequest) -> Result<Vec<u8>, ControlClientError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlClientError::NotRunning { path, source }
            }
            _ => ControlClientError::Connection { path, source },
        }
    };
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    let (peer, own) = (stream.peer_cred().map_err(failed)?.uid(), own_user().map_err(failed)?);
    // Below /tmp somebody else may have put a socket in the place of ours.
    if peer != own && peer != 0 && own != 0 {
        return Err(ControlClientError::Foreign { path: path.to_owned(), user: peer });
    }
    let mut request = serde_json::to_vec(request)
        .map_err(|source| ControlClientError::Malformed { path: path.to_owned(), source })?;
    request.push(b'\n');
    stream.write_all(&request).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(CONTROL_ANSWER_BYTES + 1).read_to_end(&mut answer).await.map_err(failed)?;
    if u64::try_from(answer.len()).unwrap_or(u64::MAX) > CONTROL_ANSWER_BYTES {
        return Err(ControlClientError::TooLarge { path: path.to_owned() });
    }
    Ok(answer)
}
