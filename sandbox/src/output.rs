//! What a cell writes.

use std::task::Poll;

#[cfg(target_os = "linux")]
use crate::overlay::Overlay;
use crate::{
    limits,
    report::{Report, Truncated},
};

/// A piece of output, in the order in which it was read. Never empty.
///
/// ```
/// use neuroflow_sandbox::Output;
///
/// assert_ne!(Output::Stdout(b"a".to_vec()), Output::Stderr(b"a".to_vec()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes from standard output.
    Stdout(Vec<u8>),
    /// Bytes from standard error.
    Stderr(Vec<u8>),
}

/// Everything a cell wrote, and how it ended. As long as the profile's output limit allows, and no
/// longer.
///
/// ```no_run
/// # async fn doc(cell: neuroflow_sandbox::Running) {
/// let collected = cell.collect().await;
/// assert!(collected.report.is_success());
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub report: Report,
    /// What it wrote to the directory that it saw copy-on-write, if it had one.
    #[cfg(target_os = "linux")]
    pub overlay: Option<Overlay>,
}

/// One of a cell's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    /// A piece of this stream; `None` if there is nothing in it.
    pub(crate) fn piece(self, bytes: &[u8]) -> Option<Output> {
        match self {
            _ if bytes.is_empty() => None,
            Self::Stdout => Some(Output::Stdout(bytes.to_vec())),
            Self::Stderr => Some(Output::Stderr(bytes.to_vec())),
        }
    }
}

/// A cell's two output streams, as far as its output may go.
#[derive(Debug)]
pub(crate) struct Streams<S> {
    stdout: Option<S>,
    stderr: Option<S>,
    quota: Quota,
    buffer: Box<[u8]>,
    /// Which stream is asked first, so that a loud one doesn't silence the other.
    stderr_first: bool,
}

/// What streams had to give.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Piece(Output),
    /// The last that there is: the limit is reached, and what comes after it is lost.
    Cut(Option<Output>),
    /// Both are closed.
    Closed,
}

impl<S> Streams<S> {
    pub(crate) fn new(stdout: S, stderr: S, bytes: u64) -> Self {
        Self {
            stdout: Some(stdout),
            stderr: Some(stderr),
            quota: Quota::new(bytes),
            buffer: vec![0; limits::CHUNK_BYTES].into_boxed_slice(),
            stderr_first: false,
        }
    }

    /// Looks at each of them once with `read`, which says how many bytes it has put into the buffer, and
    /// none when the stream is closed.
    pub(crate) fn poll(
        &mut self,
        mut read: impl FnMut(&mut S, &mut [u8]) -> Poll<usize>,
    ) -> Poll<Given> {
        let sources = if self.stderr_first {
            [Source::Stderr, Source::Stdout]
        } else {
            [Source::Stdout, Source::Stderr]
        };
        self.stderr_first = !self.stderr_first;
        for source in sources {
            let slot = match source {
                Source::Stdout => &mut self.stdout,
                Source::Stderr => &mut self.stderr,
            };
            let Some(stream) = slot else { continue };
            let Poll::Ready(length) = read(stream, &mut self.buffer) else { continue };
            if length == 0 {
                *slot = None;
                continue;
            }
            let taken = self.quota.take(source, length);
            let piece = source.piece(self.buffer.get(..taken).unwrap_or_default());
            if taken < length {
                // A closed pipe also ends writers that nobody could reach.
                self.close();
                return Poll::Ready(Given::Cut(piece));
            }
            if let Some(piece) = piece {
                return Poll::Ready(Given::Piece(piece));
            }
        }
        if self.stdout.is_none() && self.stderr.is_none() {
            return Poll::Ready(Given::Closed);
        }
        Poll::Pending
    }

    /// Reads no more.
    pub(crate) fn close(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }

    /// Which streams have lost something.
    pub(crate) fn truncated(&self) -> Truncated {
        self.quota.truncated
    }
}

/// How much a cell may still write, both streams together.
#[derive(Debug)]
struct Quota {
    left: u64,
    truncated: Truncated,
}

impl Quota {
    fn new(bytes: u64) -> Self {
        Self { left: bytes, truncated: Truncated::default() }
    }

    /// How many of `length` bytes may be passed on. Fewer than `length` means that the limit is
    /// reached.
    fn take(&mut self, source: Source, length: usize) -> usize {
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(length);
        self.left = self.left.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX));
        if allowed < length {
            match source {
                Source::Stdout => self.truncated.stdout = true,
                Source::Stderr => self.truncated.stderr = true,
            }
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of so many pieces of one byte value, and then its end.
    type Pieces = (u8, usize);

    fn streams(stdout: Pieces, stderr: Pieces, bytes: u64) -> Streams<Pieces> {
        Streams::new(stdout, stderr, bytes)
    }

    fn read((byte, left): &mut Pieces, buffer: &mut [u8]) -> Poll<usize> {
        if *left == 0 {
            return Poll::Ready(0);
        }
        *left -= 1;
        buffer[..4].fill(*byte);
        Poll::Ready(4)
    }

    #[test]
    fn output_is_counted_over_both_streams_and_cut_at_the_limit() {
        let mut streams = streams((b'o', 9), (b'e', 9), 10);
        let (out, err) = (Output::Stdout(b"oooo".to_vec()), Output::Stderr(b"eeee".to_vec()));
        assert_eq!(streams.poll(read), Poll::Ready(Given::Piece(out)));
        assert_eq!(streams.poll(read), Poll::Ready(Given::Piece(err)));
        assert_eq!(streams.truncated(), Truncated::default());
        let last = Some(Output::Stdout(b"oo".to_vec()));
        assert_eq!(streams.poll(read), Poll::Ready(Given::Cut(last)));
        assert_eq!(streams.truncated(), Truncated { stdout: true, stderr: false });
        assert_eq!(streams.poll(read), Poll::Ready(Given::Closed));
    }

    #[test]
    fn a_limit_of_whole_pieces_is_cut_without_one() {
        let mut streams = streams((b'o', 2), (b'e', 0), 4);
        assert!(matches!(streams.poll(read), Poll::Ready(Given::Piece(_))));
        assert_eq!(streams.poll(read), Poll::Ready(Given::Cut(None)));
    }

    #[test]
    fn a_stream_that_is_closed_or_waits_leaves_the_turn_to_the_other() {
        let mut streams = streams((b'o', 0), (b'e', 1), 10);
        let err = Output::Stderr(b"eeee".to_vec());
        assert_eq!(streams.poll(read), Poll::Ready(Given::Piece(err)));
        assert_eq!(streams.poll(|_, _| Poll::Pending), Poll::Pending);
        assert_eq!(streams.poll(read), Poll::Ready(Given::Closed));
    }
}
