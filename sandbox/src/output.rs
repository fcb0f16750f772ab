//! What a cell writes.

#[cfg(target_os = "linux")]
use crate::overlay::Overlay;
use crate::report::{Report, Truncated};

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

/// How much a cell may still write, both streams together.
#[derive(Debug)]
pub(crate) struct Quota {
    left: u64,
    truncated: Truncated,
}

impl Quota {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: bytes, truncated: Truncated::default() }
    }

    /// How many of `length` bytes may be passed on. Fewer than `length` means that the limit is
    /// reached.
    pub(crate) fn take(&mut self, source: Source, length: usize) -> usize {
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

    /// Which streams have lost something.
    pub(crate) fn truncated(&self) -> Truncated {
        self.truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_over_both_streams() {
        let mut quota = Quota::new(10);
        assert_eq!(quota.take(Source::Stdout, 6), 6);
        assert_eq!(quota.take(Source::Stderr, 4), 4);
        assert_eq!(quota.truncated(), Truncated::default());
        assert_eq!(quota.take(Source::Stderr, 1), 0);
        assert_eq!(quota.truncated(), Truncated { stdout: false, stderr: true });
    }
}
