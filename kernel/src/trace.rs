//! W3C trace context in 26 bytes, and the context of the message being handled.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Where a message belongs in a distributed trace.
///
/// Layout of the binary form: version (0), 16 bytes trace id, 8 bytes span id, flags; the same
/// fields as <https://www.w3.org/TR/trace-context/>. An all-zero trace id means that there is none.
///
/// ```
/// use neuroflow_kernel::TraceContext;
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = text.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), text);
/// assert_eq!(TraceContext::from_bytes(context.to_bytes()), context);
/// # Ok::<(), neuroflow_kernel::TraceError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// No trace.
    pub const NONE: Self = Self { trace: [0; 16], span: [0; 8], flags: 0 };
    /// Bytes of the binary form.
    pub const BYTES: usize = 26;

    const SAMPLED: u8 = 1;
    const RANDOM: u8 = 2;

    /// A new trace with a random id.
    pub fn root(sampled: bool) -> Self {
        let mut trace = [0; 16];
        let (high, low) = trace.split_at_mut(8);
        high.copy_from_slice(&random_id());
        low.copy_from_slice(&random_id());
        Self { trace, span: random_id(), flags: Self::RANDOM | u8::from(sampled) }
    }

    /// A new span in the same trace; of no trace there is no child.
    #[must_use]
    pub fn child(&self) -> Self {
        if self.is_none() {
            return Self::NONE;
        }
        Self { span: random_id(), ..*self }
    }

    /// Whether there is no trace.
    pub fn is_none(&self) -> bool {
        self.trace == [0; 16]
    }

    /// Whether somebody records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0 && !self.is_none()
    }

    /// The trace's 16 bytes.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// The span's 8 bytes.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// The flags: bit 0 sampled, bit 1 random trace id.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The binary form.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[1..17].copy_from_slice(&self.trace);
        bytes[17..25].copy_from_slice(&self.span);
        bytes[25] = self.flags;
        bytes
    }

    /// Reads the binary form. Unknown versions and zero ids are no trace; unknown flags are dropped.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let mut context = Self::NONE;
        context.trace.copy_from_slice(&bytes[1..17]);
        context.span.copy_from_slice(&bytes[17..25]);
        context.flags = bytes[25] & (Self::SAMPLED | Self::RANDOM);
        if bytes[0] != 0 || context.is_none() || context.span == [0; 8] {
            return Self::NONE;
        }
        context
    }
}

/// 64 random bits: `RandomState` is seeded by the operating system once per thread and counted up,
/// and `SipHash` of it is as unpredictable as trace ids need. Ids are names, never secrets.
fn random_id() -> [u8; 8] {
    loop {
        let id = RandomState::new().build_hasher().finish();
        if id != 0 {
            return id.to_be_bytes();
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace),
            u64::from_be_bytes(self.span),
            self.flags
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut parts = text.split('-');
        let (Some(version), Some(trace), Some(span), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TraceError::Shape);
        };
        let version = hex(version, 2).ok_or(TraceError::Shape)?;
        // A later version may append fields; version 0 may not.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(TraceError::Version);
        }
        let trace = hex(trace, 32).ok_or(TraceError::Shape)?;
        let span = hex(span, 16).ok_or(TraceError::Shape)?;
        let flags = hex(flags, 2).ok_or(TraceError::Shape)?;
        if trace == 0 || span == 0 {
            return Err(TraceError::ZeroId);
        }
        let low = |value: u128| value.to_be_bytes();
        let mut context = Self { trace: low(trace), ..Self::NONE };
        context.span.copy_from_slice(&low(span)[8..]);
        context.flags = low(flags)[15] & (Self::SAMPLED | Self::RANDOM);
        Ok(context)
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == digits && text.bytes().all(lower))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// Why a text isn't a `traceparent`.
///
/// ```
/// use neuroflow_kernel::{TraceContext, TraceError};
/// let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
/// assert_eq!(zero.parse::<TraceContext>().unwrap_err(), TraceError::ZeroId);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Not four fields of lower-case hexadecimal digits with the right lengths.
    #[error("a traceparent is 2, 32, 16 and 2 lower-case hexadecimal digits joined by '-'")]
    Shape,
    /// Version 255, or version 0 with more than four fields.
    #[error("the version of the traceparent isn't valid")]
    Version,
    /// A trace or span id of zeros.
    #[error("the ids of a traceparent can't be zero")]
    ZeroId,
}

thread_local! {
    static CURRENT: Cell<TraceContext> = const { Cell::new(TraceContext::NONE) };
}

/// The trace context of the message that this thread is handling right now, for log lines.
///
/// ```
/// assert!(neuroflow_kernel::current_trace().is_none());
/// ```
pub fn current_trace() -> TraceContext {
    CURRENT.get()
}

/// A future during whose polls [`current_trace`] answers `trace`.
///
/// ```
/// use neuroflow_kernel::{InTrace, TraceContext};
/// let _future = InTrace::new(TraceContext::NONE, std::future::ready(1));
/// ```
#[derive(Debug)]
pub struct InTrace<F> {
    trace: TraceContext,
    future: F,
}

impl<F: Future + Unpin> InTrace<F> {
    /// Wraps `future`.
    ///
    /// ```
    /// use neuroflow_kernel::{InTrace, TraceContext, current_trace};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let trace = TraceContext::root(true);
    /// let seen = runtime.block_on(InTrace::new(trace, Box::pin(async { current_trace() })));
    /// assert_eq!(seen, trace);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(trace: TraceContext, future: F) -> Self {
        Self { trace, future }
    }
}

impl<F: Future + Unpin> Future for InTrace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts the former context back, also when the poll unwinds.
        struct Restore(TraceContext);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self.trace));
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn refuses_what_the_recommendation_refuses() {
        let cases = [
            ("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceError::Shape),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceError::Version),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", TraceError::Version),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", TraceError::ZeroId),
            ("00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01", TraceError::Shape),
            ("", TraceError::Shape),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<TraceContext>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_child_stays_in_its_trace() {
        let parent: TraceContext = GOOD.parse().unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span_id(), parent.span_id());
        assert!(child.is_sampled());
        assert!(TraceContext::NONE.child().is_none());
    }

    #[test]
    fn unknown_flags_are_dropped_and_unknown_versions_are_no_trace() {
        let mut bytes = GOOD.parse::<TraceContext>().unwrap().to_bytes();
        bytes[25] = 0xff;
        assert_eq!(TraceContext::from_bytes(bytes).flags(), 3);
        bytes[0] = 1;
        assert!(TraceContext::from_bytes(bytes).is_none());
    }

    #[test]
    fn root_ids_differ() {
        assert_ne!(TraceContext::root(true).trace_id(), TraceContext::root(true).trace_id());
    }
}
