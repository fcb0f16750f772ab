//! The way back: one value, or a bounded stream.

mod channel;
mod error;

use std::cell::RefCell;
use std::fmt;

use tokio::sync::oneshot;

use self::channel::{Consumer, Producer, channel};
pub use self::error::{SinkError, StreamError};
use crate::address::Refusal;
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
    let (producer, consumer) = channel(STREAM_CAPACITY);
    (ReplySink { heard: Some(producer) }, ReplyStream { consumer, over: false })
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
    heard: Option<Producer<T>>,
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

    fn end(&self, code: u8) {
        if let Some(heard) = &self.heard {
            heard.end_with(code);
        }
    }

    /// Sends, waiting for room while the consumer is there. The consumer's going away ends the wait.
    ///
    /// # Errors
    /// [`SinkError::Closed`] with the value if the consumer has gone.
    pub async fn send(&self, value: T) -> Result<(), SinkError<T>> {
        match &self.heard {
            Some(heard) => heard.send(value).await.map_err(SinkError::Closed),
            None => Ok(()),
        }
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// Gives the value back and says whether the consumer is slow or gone.
    pub fn try_send(&self, value: T) -> Result<(), SinkError<T>> {
        self.try_send_all([value])
    }

    /// Sends these in order, as far as there is room now. The consumer is woken once for all of them.
    ///
    /// ```
    /// use neuroflow_kernel::reply_stream;
    /// let (sink, _stream) = reply_stream();
    /// assert!(sink.try_send_all([1, 2, 3]).is_ok());
    /// ```
    ///
    /// # Errors
    /// Gives the first back that wasn't sent, and says whether the consumer is slow or gone. Those before it
    /// were sent.
    pub fn try_send_all(&self, values: impl IntoIterator<Item = T>) -> Result<(), SinkError<T>> {
        self.heard.as_ref().map_or(Ok(()), |heard| heard.try_send(values))
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
        if let Some(heard) = &self.heard {
            heard.room().await;
        }
    }

    /// Whether the consumer has gone.
    pub fn is_closed(&self) -> bool {
        self.heard.as_ref().is_some_and(Producer::is_closed)
    }

    /// Waits until the consumer has gone. Work done for it can stop then.
    pub async fn closed(&self) {
        match &self.heard {
            Some(heard) => heard.closed().await,
            None => std::future::pending().await,
        }
    }
}

impl<T> Drop for ReplySink<T> {
    fn drop(&mut self) {
        let Some(heard) = &self.heard else { return };
        if heard.ending() != INTERRUPTED {
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
    consumer: Consumer<T>,
    over: bool,
}

impl<T> ReplyStream<T> {
    /// The next item; nothing after the end. An early end is the last item, as an error.
    pub async fn next(&mut self) -> Option<Result<T, StreamError>> {
        if let Some(item) = self.consumer.next().await {
            return Some(Ok(item));
        }
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        match self.consumer.ending() {
            FINISHED => None,
            code => Some(Err(StreamError::from_code(code).unwrap_or(StreamError::Interrupted))),
        }
    }
}

impl<T> fmt::Debug for ReplyStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyStream")
            .field("waiting", &self.consumer.waiting())
            .finish_non_exhaustive()
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
