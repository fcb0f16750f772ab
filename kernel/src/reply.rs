//! The way back: one value, or a bounded stream.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::address::Refusal;
use crate::capability::Denied;
use crate::limits::STREAM_CAPACITY;

/// The side of a call that answers it. Dropping it unanswered tells the caller so at once.
///
/// ```
/// use neuroflow_kernel::Reply;
/// fn answer(reply: Reply<u32>) {
///     // An error only says that the caller has gone.
///     let _ = reply.send(7);
/// }
/// ```
pub struct Reply<T> {
    sender: Option<oneshot::Sender<Answer<T>>>,
}

pub(crate) enum Answer<T> {
    Value(T),
    Panicked,
    Refused(Refusal),
}

/// Why replies are dropped, where it isn't the callee's own doing.
#[derive(Clone)]
pub(crate) enum Fate {
    Panicked,
    Refused(Refusal),
}

thread_local! {
    static FATE: RefCell<Option<Fate>> = const { RefCell::new(None) };
}

/// Drops `value` so that the replies inside tell their callers why.
pub(crate) fn drop_with<T>(fate: Fate, value: T) {
    /// Puts the former fate back, also when the drop unwinds.
    struct Restore(Option<Fate>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FATE.replace(self.0.take());
        }
    }
    let _restore = Restore(FATE.replace(Some(fate)));
    drop(value);
}

/// Why a reply that is dropped here and now isn't answered; nothing if the callee just let go of it.
fn fate() -> Option<Fate> {
    let fate = FATE.try_with(|fate| fate.borrow().clone()).ok().flatten();
    fate.or_else(|| std::thread::panicking().then_some(Fate::Panicked))
}

pub(crate) fn reply_pair<T>() -> (Reply<T>, oneshot::Receiver<Answer<T>>) {
    let (sender, receiver) = oneshot::channel();
    (Reply { sender: Some(sender) }, receiver)
}

impl<T> Reply<T> {
    /// Answers.
    ///
    /// # Errors
    /// Gives the value back if the caller has gone.
    pub fn send(mut self, value: T) -> Result<(), T> {
        match self.sender.take() {
            Some(sender) if sender.is_closed() => Err(value),
            // The caller may go at this very moment, as it may one later, when the value has arrived.
            Some(sender) => {
                let _gone = sender.send(Answer::Value(value));
                Ok(())
            }
            // `take` happens here and in `drop` only, and both end the reply.
            None => Err(value),
        }
    }

    /// Whether the caller has gone: it was dropped or its deadline has passed.
    pub fn is_closed(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Waits until the caller has gone. Work done for it can stop then.
    pub async fn closed(&mut self) {
        if let Some(sender) = &mut self.sender {
            sender.closed().await;
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take()
            && let Some(fate) = fate()
        {
            // An error only says that nobody waits any more.
            let _gone = sender.send(match fate {
                Fate::Panicked => Answer::Panicked,
                Fate::Refused(refusal) => Answer::Refused(refusal),
            });
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("closed", &self.is_closed()).finish()
    }
}

/// A bounded stream of replies: the producer's and the consumer's side.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::reply_stream;
/// let (sink, mut stream) = reply_stream();
/// sink.try_send(1).unwrap();
/// sink.finish();
/// assert_eq!(stream.next().await, Some(Ok(1)));
/// assert_eq!(stream.next().await, None);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn reply_stream<T>() -> (ReplySink<T>, ReplyStream<T>) {
    let (sender, receiver) = mpsc::channel(STREAM_CAPACITY);
    let ending = Arc::new(AtomicU8::new(INTERRUPTED));
    (
        ReplySink { heard: Some(Heard { sender, ending: Arc::clone(&ending) }) },
        ReplyStream { receiver, ending, over: false },
    )
}

const INTERRUPTED: u8 = 0;
const FINISHED: u8 = 1;

/// The producer's side of a stream. Dropping it without [`finish`](Self::finish) tells the consumer
/// that something is missing.
///
/// ```
/// use neuroflow_kernel::{ReplySink, SinkError};
/// fn offer(sink: &ReplySink<u32>) -> bool {
///     !matches!(sink.try_send(1), Err(SinkError::Closed(_)))
/// }
/// ```
pub struct ReplySink<T> {
    /// None if nobody ever wanted to hear.
    heard: Option<Heard<T>>,
}

/// What a sink and its stream share.
struct Heard<T> {
    sender: mpsc::Sender<T>,
    ending: Arc<AtomicU8>,
}

impl<T> ReplySink<T> {
    /// A sink whose replies nobody wants: it takes them all, and never says that the consumer has
    /// gone.
    pub fn unheard() -> Self {
        Self { heard: None }
    }

    /// Whether somebody ever wanted the replies.
    pub fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    fn sender(&self) -> Option<&mpsc::Sender<T>> {
        self.heard.as_ref().map(|heard| &heard.sender)
    }

    fn end(&self, code: u8) {
        if let Some(heard) = &self.heard {
            heard.ending.store(code, Ordering::Release);
        }
    }

    /// Sends, waiting for room while the consumer is there. The consumer's going away ends the wait.
    ///
    /// # Errors
    /// [`SinkError::Closed`] with the value if the consumer has gone.
    pub async fn send(&self, value: T) -> Result<(), SinkError<T>> {
        match self.sender() {
            Some(sender) => sender.send(value).await.map_err(|unsent| SinkError::Closed(unsent.0)),
            None => Ok(()),
        }
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// Gives the value back and says whether the consumer is slow or gone.
    pub fn try_send(&self, value: T) -> Result<(), SinkError<T>> {
        let Some(sender) = self.sender() else { return Ok(()) };
        sender.try_send(value).map_err(|unsent| match unsent {
            mpsc::error::TrySendError::Full(value) => SinkError::Full(value),
            mpsc::error::TrySendError::Closed(value) => SinkError::Closed(value),
        })
    }

    /// Ends the stream in good order.
    pub fn finish(self) {
        self.mark_finished();
    }

    /// What the stream will end with once the last sink is dropped.
    pub(crate) fn mark_finished(&self) {
        self.end(FINISHED);
    }

    /// Cuts off a consumer that doesn't keep up; it's told so after what it has already got.
    pub fn cut_off(self) {
        self.fail(StreamError::Lagged);
    }

    /// Ends the stream early, and says why.
    pub fn fail(self, why: StreamError) {
        self.mark_failed(why);
    }

    /// What the stream will end with once the last sink is dropped.
    pub(crate) fn mark_failed(&self, why: StreamError) {
        self.end(why.code());
    }

    /// Waits for room, or until the consumer has gone.
    pub(crate) async fn room(&self) {
        if let Some(sender) = self.sender() {
            let _permit = sender.reserve().await;
        }
    }

    /// Whether the consumer has gone.
    pub fn is_closed(&self) -> bool {
        self.sender().is_some_and(mpsc::Sender::is_closed)
    }

    /// Waits until the consumer has gone. Work done for it can stop then.
    pub async fn closed(&self) {
        match self.sender() {
            Some(sender) => sender.closed().await,
            None => std::future::pending().await,
        }
    }
}

impl<T> Drop for ReplySink<T> {
    fn drop(&mut self) {
        let Some(heard) = &self.heard else { return };
        if heard.ending.load(Ordering::Acquire) != INTERRUPTED {
            return;
        }
        match fate() {
            Some(Fate::Panicked) => self.mark_failed(StreamError::Panicked),
            // It waited in a mailbox, and surely wasn't handled.
            Some(Fate::Refused(refusal)) => self.mark_failed(StreamError::from(&refusal)),
            None => {}
        }
    }
}

impl<T> fmt::Debug for ReplySink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplySink").field("closed", &self.is_closed()).finish()
    }
}

/// Why an item wasn't taken; it comes back.
///
/// ```
/// use neuroflow_kernel::{SinkError, reply_stream};
/// let (sink, stream) = reply_stream();
/// drop(stream);
/// assert!(matches!(sink.try_send(5), Err(SinkError::Closed(5))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError<T> {
    /// The consumer is slower than the producer.
    #[error("the consumer doesn't keep up")]
    Full(T),
    /// The consumer has gone.
    #[error("the consumer has gone")]
    Closed(T),
}

impl<T> fmt::Debug for SinkError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// The consumer's side of a stream. Dropping it cancels the work behind it.
///
/// ```
/// use neuroflow_kernel::{ReplyStream, StreamError};
/// async fn sum(mut stream: ReplyStream<u32>) -> Result<u32, StreamError> {
///     let mut sum = 0;
///     while let Some(item) = stream.next().await {
///         sum += item?;
///     }
///     Ok(sum)
/// }
/// ```
pub struct ReplyStream<T> {
    receiver: mpsc::Receiver<T>,
    ending: Arc<AtomicU8>,
    over: bool,
}

impl<T> ReplyStream<T> {
    /// The next item; nothing after the end. An early end is the last item, as an error.
    pub async fn next(&mut self) -> Option<Result<T, StreamError>> {
        if let Some(item) = self.receiver.recv().await {
            return Some(Ok(item));
        }
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        match self.ending.load(Ordering::Acquire) {
            FINISHED => None,
            code => Some(Err(StreamError::from_code(code).unwrap_or(StreamError::Interrupted))),
        }
    }
}

impl<T> fmt::Debug for ReplyStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyStream").field("waiting", &self.receiver.len()).finish_non_exhaustive()
    }
}

/// Why a stream ended early.
///
/// ```
/// assert!(neuroflow_kernel::StreamError::Interrupted.to_string().contains("early"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The producer ended without finishing.
    #[error("the stream ended early")]
    Interrupted,
    /// The producer panicked.
    #[error("the producer of the stream panicked")]
    Panicked,
    /// The consumer was too slow and was cut off.
    #[error("the consumer didn't keep up and was cut off")]
    Lagged,
    /// The link to the other node broke. Whether the request was handled isn't known.
    #[error("the link to the other node was lost")]
    Lost,
    /// The deadline passed before the stream had ended.
    #[error("the deadline passed before the end of the stream")]
    DeadlineExceeded,
    /// The other node has no actor of this name that the sender may ask.
    #[error("the other node has no such actor for this sender")]
    Unknown,
    /// What was sent isn't a request that the other node's actor takes.
    #[error("the other node's actor takes other messages or versions")]
    Mismatch,
    /// The other node's actor, or the node, has no room for the request.
    #[error("the actor on the other node is overloaded")]
    Overloaded,
    /// The address names a life that is over.
    #[error("that life of the actor is over")]
    Stale,
    /// The actor has ended for good.
    #[error("the actor on the other node has stopped")]
    Stopped,
    /// The other node's capability doesn't allow the request.
    #[error("the other node denies the request")]
    Denied,
    /// The request was handled before, and its answer isn't kept any more, or was too large for that.
    #[error("the request was handled, and its answer isn't kept")]
    Forgotten,
    /// The capability lacks a right that the request needs.
    #[error("the capability doesn't have the rights that the request needs")]
    Rights,
    /// The capability was taken back, or one that it was derived from.
    #[error("the capability was revoked")]
    Revoked,
    /// The capability's time is over.
    #[error("the capability has expired")]
    Expired,
    /// As many messages as the capability allows have passed.
    #[error("the capability is used up")]
    UsedUp,
    /// The capability was changed, or not signed by whom it should be.
    #[error("the capability isn't a genuine one of the other node")]
    Forged,
    /// The capability is for another node.
    #[error("the capability is for another node than the sender's")]
    NotHolder,
    /// The capability claims more than what it was derived from.
    #[error("the capability claims more than what it was derived from")]
    Widened,
}

impl StreamError {
    /// Every reason, at the place of its code less two.
    const ALL: [Self; 18] = [
        Self::Panicked,
        Self::Lagged,
        Self::Lost,
        Self::DeadlineExceeded,
        Self::Unknown,
        Self::Mismatch,
        Self::Overloaded,
        Self::Stale,
        Self::Stopped,
        Self::Denied,
        Self::Forgotten,
        Self::Rights,
        Self::Revoked,
        Self::Expired,
        Self::UsedUp,
        Self::Forged,
        Self::NotHolder,
        Self::Widened,
    ];

    /// The number that stands for it between nodes: 0 for an early end without a reason, 2 and up
    /// for the others. 1 is the end in good order, which is no error.
    pub fn code(self) -> u8 {
        let place = Self::ALL.iter().position(|error| *error == self);
        place.and_then(|place| u8::try_from(place).ok()).map_or(INTERRUPTED, |place| place + 2)
    }

    /// The reason that a number stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            INTERRUPTED => Some(Self::Interrupted),
            code => Self::ALL.get(usize::from(code.checked_sub(2)?)).copied(),
        }
    }

    /// Whether the request may have been handled: it's only surely not where it was refused.
    pub fn may_have_run(self) -> bool {
        match self {
            Self::Interrupted
            | Self::Panicked
            | Self::Lagged
            | Self::Lost
            | Self::DeadlineExceeded
            | Self::Forgotten => true,
            Self::Unknown
            | Self::Mismatch
            | Self::Overloaded
            | Self::Stale
            | Self::Stopped
            | Self::Denied
            | Self::Rights
            | Self::Revoked
            | Self::Expired
            | Self::UsedUp
            | Self::Forged
            | Self::NotHolder
            | Self::Widened => false,
        }
    }

    /// Whether the request was surely not handled and may be taken a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded)
    }
}

/// What a refusal is to whoever waits for replies.
impl From<&Refusal> for StreamError {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Overloaded { .. } | Refusal::Restarting => Self::Overloaded,
            Refusal::Stale { .. } => Self::Stale,
            Refusal::Stopped => Self::Stopped,
            Refusal::Expired => Self::DeadlineExceeded,
            Refusal::Unreachable(_) => Self::Lost,
            Refusal::Denied(Denied::Rights { .. }) => Self::Rights,
            Refusal::Denied(Denied::Revoked) => Self::Revoked,
            Refusal::Denied(Denied::Expired) => Self::Expired,
            Refusal::Denied(Denied::UsedUp) => Self::UsedUp,
            Refusal::TooManyHops { .. } => Self::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unfinished_stream_says_so_once() {
        let (sink, mut stream) = reply_stream::<u8>();
        sink.send(1).await.unwrap();
        drop(sink);
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(stream.next().await, Some(Err(StreamError::Interrupted)));
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_consumer_is_told_that_it_was_cut_off() {
        let (sink, mut stream) = reply_stream::<usize>();
        for item in 0..STREAM_CAPACITY {
            sink.try_send(item).unwrap();
        }
        assert!(matches!(sink.try_send(99), Err(SinkError::Full(99))));
        sink.cut_off();
        for item in 0..STREAM_CAPACITY {
            assert_eq!(stream.next().await, Some(Ok(item)));
        }
        assert_eq!(stream.next().await, Some(Err(StreamError::Lagged)));
    }

    #[tokio::test]
    async fn every_reason_has_a_number_of_its_own_and_reaches_the_consumer() {
        for code in 0..=u8::MAX {
            let Some(error) = StreamError::from_code(code) else { continue };
            assert_eq!(error.code(), code);
            let (sink, mut stream) = reply_stream::<u8>();
            sink.fail(error);
            assert_eq!(stream.next().await, Some(Err(error)));
        }
        assert_eq!(StreamError::from_code(FINISHED), None);
    }

    #[tokio::test]
    async fn a_sink_that_nobody_hears_takes_all_and_stays_open() {
        let sink = ReplySink::unheard();
        for item in 0..STREAM_CAPACITY * 2 {
            sink.try_send(item).unwrap();
        }
        sink.room().await;
        assert!(!sink.is_closed() && !sink.is_heard());
    }

    #[tokio::test]
    async fn the_producer_learns_that_nobody_listens() {
        let (sink, stream) = reply_stream::<u8>();
        drop(stream);
        sink.closed().await;
        assert!(matches!(sink.send(1).await, Err(SinkError::Closed(1))));
    }
}
