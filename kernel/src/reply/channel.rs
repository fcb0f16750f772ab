//! The way from a sink to its stream: bounded, with one producer and one consumer.
//!
//! It's the kernel's own because several items that are there at once are put in at once, and call the consumer
//! once. One after another, the first would have it run on another thread and be called again for each of the
//! others, which takes longer than all of the rest of a short answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::{INTERRUPTED, SinkError};

/// A producer and its consumer, with room for so many items between them.
pub(super) fn channel<T>(room: usize) -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared {
        room: Semaphore::new(room),
        queue: Mutex::new(Queue { items: VecDeque::new(), is_over: false, consumer: None }),
        ending: AtomicU8::new(INTERRUPTED),
        gone: Notify::new(),
    });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

struct Shared<T> {
    /// Places that are free; closed when the consumer has gone.
    room: Semaphore,
    queue: Mutex<Queue<T>>,
    /// How it ends, said before it's over.
    ending: AtomicU8,
    /// Tells that the consumer has gone.
    gone: Notify,
}

struct Queue<T> {
    items: VecDeque<T>,
    /// The producer has gone.
    is_over: bool,
    /// Who waits for an item, or for the end.
    consumer: Option<Waker>,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // No code of others runs under this lock, so a poisoned queue is still a valid one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and calls the consumer once.
    fn change(&self, change: impl FnOnce(&mut Queue<T>)) {
        let consumer = {
            let mut queue = self.queue();
            change(&mut queue);
            queue.consumer.take()
        };
        // Not under the lock: a waker is code of others.
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}

pub(super) struct Producer<T>(Arc<Shared<T>>);

impl<T> Producer<T> {
    /// Puts an item in, waiting for room. The consumer's going away ends the wait, and gives the item back.
    pub(super) async fn send(&self, item: T) -> Result<(), T> {
        match self.0.room.acquire().await {
            Ok(place) => place.forget(),
            Err(_closed) => return Err(item),
        }
        self.0.change(|queue| queue.items.push_back(item));
        Ok(())
    }

    /// Puts in what there is room for, in order, and says what the first that wasn't put in met.
    pub(super) fn try_send(&self, items: impl IntoIterator<Item = T>) -> Result<(), SinkError<T>> {
        let mut admitted = Admitted { shared: &self.0, items: VecDeque::new() };
        for item in items {
            match self.0.room.try_acquire() {
                Ok(place) => place.forget(),
                Err(TryAcquireError::NoPermits) => return Err(SinkError::Full(item)),
                Err(TryAcquireError::Closed) => return Err(SinkError::Closed(item)),
            }
            admitted.items.push_back(item);
        }
        Ok(())
    }

    /// Waits for room, or until the consumer has gone.
    pub(super) async fn room(&self) {
        // Given back at once.
        let _place = self.0.room.acquire().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.room.is_closed()
    }

    /// Waits until the consumer has gone.
    pub(super) async fn closed(&self) {
        let mut gone = std::pin::pin!(self.0.gone.notified());
        // Enrolled before the look, so that a going away in between isn't missed.
        gone.as_mut().enable();
        if !self.is_closed() {
            gone.await;
        }
    }

    /// How it ends, by a number.
    pub(super) fn ending(&self) -> u8 {
        self.0.ending.load(Ordering::Acquire)
    }

    pub(super) fn end_with(&self, ending: u8) {
        self.0.ending.store(ending, Ordering::Release);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.0.change(|queue| queue.is_over = true);
    }
}

/// Items that have their places; they are put in whatever becomes of those behind them.
struct Admitted<'a, T> {
    shared: &'a Shared<T>,
    items: VecDeque<T>,
}

impl<T> Drop for Admitted<'_, T> {
    fn drop(&mut self) {
        if !self.items.is_empty() {
            self.shared.change(|queue| queue.items.append(&mut self.items));
        }
    }
}

pub(super) struct Consumer<T>(Arc<Shared<T>>);

impl<T> Consumer<T> {
    /// The next item; nothing once the producer has gone and all is taken.
    pub(super) async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // A queue that is never empty must not keep this thread for itself.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let mut queue = self.0.queue();
        let item = queue.items.pop_front();
        if item.is_none() && !queue.is_over {
            let known = queue.consumer.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
            // Who was known before is dropped outside the lock.
            let _former = if known { None } else { queue.consumer.replace(cx.waker().clone()) };
            drop(queue);
            return Poll::Pending;
        }
        drop(queue);
        budget.made_progress();
        if item.is_some() {
            self.0.room.add_permits(1);
        }
        Poll::Ready(item)
    }

    /// Items that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.queue().items.len()
    }

    /// How it has ended, by a number.
    pub(super) fn ending(&self) -> u8 {
        self.0.ending.load(Ordering::Acquire)
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // What comes after that isn't admitted; what was admitted before and comes now goes with the producer.
        self.0.room.close();
        let (items, consumer) = {
            let mut queue = self.0.queue();
            (std::mem::take(&mut queue.items), queue.consumer.take())
        };
        drop((items, consumer));
        self.0.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use futures_util::FutureExt;

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_put_in_at_once_calls_the_consumer_once() {
        let (producer, mut consumer) = channel(8);
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(Arc::clone(&calls));
        let mut cx = Context::from_waker(&waker);
        assert!(consumer.poll_next(&mut cx).is_pending());
        assert!(producer.try_send([1, 2, 3]).is_ok());
        assert_eq!(calls.0.load(Ordering::Relaxed), 1);
        for item in [1, 2, 3] {
            assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(item)));
        }
        assert!(consumer.poll_next(&mut cx).is_pending());
        drop(producer);
        assert_eq!(calls.0.load(Ordering::Relaxed), 2);
        assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(None));
    }

    #[test]
    fn what_there_is_no_room_for_comes_back_and_the_rest_is_there() {
        let (producer, mut consumer) = channel(2);
        assert!(matches!(producer.try_send([1, 2, 3, 4]), Err(SinkError::Full(3))));
        assert_eq!(consumer.waiting(), 2);
        assert_eq!(consumer.next().now_or_never(), Some(Some(1)));
        assert!(producer.try_send([5]).is_ok());
        assert!(producer.send(6).now_or_never().is_none(), "there is no room");
        assert_eq!(consumer.next().now_or_never(), Some(Some(2)));
        assert_eq!(consumer.next().now_or_never(), Some(Some(5)));
        assert_eq!(producer.send(6).now_or_never(), Some(Ok(())));
    }

    #[test]
    fn items_that_nobody_will_take_are_dropped_with_the_consumer() {
        let (producer, consumer) = channel(2);
        let item = Arc::new(());
        assert!(producer.try_send([Arc::clone(&item)]).is_ok());
        assert!(producer.closed().now_or_never().is_none() && !producer.is_closed());
        drop(consumer);
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(producer.closed().now_or_never().is_some() && producer.is_closed());
        assert!(matches!(producer.try_send([item]), Err(SinkError::Closed(_))));
        assert_eq!(producer.send(Arc::new(())).now_or_never(), Some(Err(Arc::new(()))));
    }

    #[tokio::test]
    async fn who_waits_for_room_has_it_or_hears_of_the_end() {
        let (producer, mut consumer) = channel(1);
        assert!(producer.try_send([1]).is_ok());
        let (sent, taken) = tokio::join!(producer.send(2), consumer.next());
        assert_eq!((sent, taken), (Ok(()), Some(1)));
        let ((), ()) = tokio::join!(producer.room(), async { drop(consumer) });
        assert_eq!(producer.send(3).await, Err(3));
    }
}
