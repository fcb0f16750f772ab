//! A lane as senders see it: an outbox that they write into, and the table of their calls.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use neuroflow_kernel::{Header, Moment, RawParcel, RawReplies, StreamError};

use super::Meters;
use super::large::Received;
use super::staged::Staged;
use crate::frame::{FrameHeader, Kind};
use crate::keyed::CallKey;
use crate::limits::{COPY_BYTES, FIRST_REPLY_DEADLINE, HELD_NAMES};
use crate::session::calls::{Over, Swept};
use crate::session::{Class, Hold, Session};
use crate::watch;

/// Whoever waits for replies.
type Caller = Arc<dyn RawReplies>;

/// What senders see of a lane.
pub(crate) struct Lane {
    outbox: Mutex<Outbox>,
    /// The peer takes no new requests. The outbox knows it too; this is for who only looks.
    pub(super) draining: AtomicBool,
    /// The peer has no calls here that wait, and makes no more.
    pub(super) drained: AtomicBool,
    pub(super) meters: Arc<Meters>,
}

pub(super) struct Outbox {
    pub(super) session: Session<Caller, RawParcel>,
    pub(super) staged: Staged,
    /// Whole messages from streams of their own.
    pub(super) large: VecDeque<Received>,
    /// The lane's task, if it waits.
    pub(super) task: Option<Waker>,
    pub(super) closed: bool,
    /// Actors of the peer that have no room.
    held: HashSet<String>,
}

impl Outbox {
    /// The actor of this name has no room. Of more names than an outbox holds, this isn't known.
    pub(super) fn hold(&mut self, name: &str) {
        if self.held.len() < HELD_NAMES {
            self.held.insert(name.to_owned());
        }
    }

    /// The actor of this name has room again; says whether it had none.
    pub(super) fn resume(&mut self, name: &str) -> bool {
        self.held.remove(name)
    }

    fn is_held(&self, name: &str) -> bool {
        !self.held.is_empty() && self.held.contains(name)
    }
}

/// Why a message isn't staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    Hold(Hold),
    Closed,
}

/// What a message is sent with.
pub(crate) struct Sending<'a> {
    pub(crate) name: &'a str,
    pub(crate) generation: u32,
    pub(crate) key: CallKey,
    pub(crate) lane: u8,
    pub(crate) header: &'a Header,
    pub(crate) now: Moment,
}

impl Lane {
    pub(crate) fn new(messages: u64, bytes: u64, meters: Arc<Meters>) -> Arc<Self> {
        let outbox = Outbox {
            session: Session::new(messages, bytes),
            staged: Staged::default(),
            large: VecDeque::new(),
            task: None,
            closed: false,
            held: HashSet::new(),
        };
        let (draining, drained) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { outbox: Mutex::new(outbox), draining, drained, meters })
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Nothing below unwinds half-way, so a poisoned outbox is still a valid one.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a request, or a notice if nobody wants replies. Says whether it's the only call.
    pub(crate) fn send(
        &self,
        sending: &Sending<'_>,
        parcel: RawParcel,
        replies: Caller,
    ) -> Result<bool, Unsent> {
        let header = sending.header;
        let bytes = parcel.as_bytes().len();
        let mut outbox = self.outbox();
        if outbox.closed {
            return Err(Unsent::Closed);
        }
        if outbox.is_held(sending.name) {
            drop(outbox);
            drop(replies);
            return Err(Unsent::Hold(Hold::Actor));
        }
        let urgent = watch::is_urgent(parcel.message()) && bytes <= COPY_BYTES;
        let wanted = replies.is_wanted();
        // A watch is answered when what it watches ends; whoever else waits is told by then that nobody answers.
        let bound = (wanted && !urgent).then(|| sending.now + FIRST_REPLY_DEADLINE);
        let deadline = header.deadline().or(bound);
        let (kind, id) = if wanted {
            let called = if urgent {
                outbox.session.watch(bytes, deadline, replies)
            } else {
                outbox.session.call(bytes, deadline, replies)
            };
            match called {
                Ok(id) => (Kind::Request, id),
                Err((hold, replies)) => {
                    drop(outbox);
                    drop(replies);
                    return Err(Unsent::Hold(hold));
                }
            }
        } else {
            outbox.session.notice(bytes).map_err(Unsent::Hold)?;
            (Kind::Notice, 0)
        };
        let frame = FrameHeader {
            remaining: deadline.map(|at| at.since(sending.now)),
            budget: header.remaining_budget().remaining().unwrap_or(u64::MAX),
            trace: header.trace(),
            hops: header.hops(),
            lane: sending.lane,
            key: sending.key,
            generation: sending.generation,
            ..FrameHeader::of_parcel(kind, id, &parcel)
        };
        if urgent {
            outbox.staged.push_urgent_parcel(frame, sending.name, &parcel);
        } else {
            if Class::of(bytes) == Class::Small {
                outbox.session.queued(id);
            }
            outbox.staged.push_parcel(frame, sending.name, parcel);
        }
        let first = id != 0 && outbox.session.calls.len() == 1;
        let task = outbox.task.take();
        drop(outbox);
        if let Some(task) = task {
            task.wake();
        }
        Ok(first)
    }

    /// Calls that wait for their answers.
    pub(crate) fn open_calls(&self) -> usize {
        self.outbox().session.calls.len()
    }

    /// Whether any message of so many bytes may be sent to this actor now.
    pub(crate) fn is_ready(&self, name: &str, bytes: usize) -> Result<(), Unsent> {
        let mut outbox = self.outbox();
        if outbox.closed {
            return Err(Unsent::Closed);
        }
        if outbox.is_held(name) {
            return Err(Unsent::Hold(Hold::Actor));
        }
        let ready = if watch::is_service(name) {
            outbox.session.may_watch()
        } else {
            outbox.session.is_ready(Class::of(bytes))
        };
        ready.map_err(Unsent::Hold)
    }

    /// A large message has arrived on a stream of its own.
    pub(crate) fn received(&self, received: Received) {
        let mut outbox = self.outbox();
        if outbox.closed {
            return;
        }
        outbox.large.push_back(received);
        let task = outbox.task.take();
        drop(outbox);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Tells the peer that no new requests are taken.
    pub(crate) fn stage_drain(&self) {
        let mut outbox = self.outbox();
        outbox.staged.push_urgent(&FrameHeader::new(Kind::Drain, 0));
        let task = outbox.task.take();
        drop(outbox);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Whether nothing more comes of the peer that has to be answered: it said so, or the lane is over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.drained.load(Ordering::SeqCst) || self.outbox().closed
    }

    /// Ends calls whose caller has gone or whose time is over. Says whether any is left.
    pub(crate) fn sweep(&self, now: Moment) -> bool {
        let mut outbox = self.outbox();
        let over = outbox.session.calls.sweep(now, |caller| caller.is_closed());
        for Swept { id, queued, .. } in &over {
            let cancel = FrameHeader::new(Kind::Cancel, *id);
            if *queued {
                outbox.staged.push(&cancel);
            } else {
                outbox.staged.push_urgent(&cancel);
            }
        }
        let task = if over.is_empty() { None } else { outbox.task.take() };
        let left = outbox.session.calls.len() > 0;
        drop(outbox);
        for Swept { caller, why, .. } in over {
            if why == Over::Late {
                caller.fail(StreamError::DeadlineExceeded);
            }
        }
        if let Some(task) = task {
            task.wake();
        }
        left
    }

    /// The connection is over: whoever waits is told so.
    pub(crate) fn close(&self) {
        let mut outbox = self.outbox();
        outbox.closed = true;
        let callers: Vec<Caller> = outbox.session.calls.drain().collect();
        let staged = std::mem::take(&mut outbox.staged);
        let task = outbox.task.take();
        outbox.large.clear();
        drop(outbox);
        drop(staged);
        for caller in callers {
            caller.fail(StreamError::Lost);
        }
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use neuroflow_kernel::{DeliverError, MessageId};

    use super::*;

    /// Waits for replies, for ever.
    struct Patient;

    impl RawReplies for Patient {
        fn deliver(&self, _: RawParcel) -> Result<(), DeliverError> {
            Ok(())
        }

        fn room(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn finish(&self) {}

        fn fail(&self, _: StreamError) {}

        fn is_wanted(&self) -> bool {
            true
        }

        fn is_closed(&self) -> bool {
            false
        }

        fn closed(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn a_request_without_a_deadline_has_one_for_its_first_reply_and_a_watch_has_none() {
        let lane = Lane::new(8, 1 << 20, Arc::default());
        let header = Header::new();
        for message in ["test", "neuroflow.watch"] {
            let parcel = RawParcel::new(MessageId::of(message), 1, &[7; 8]);
            let sending = Sending {
                name: "echo",
                generation: 0,
                key: CallKey::NONE,
                lane: 0,
                header: &header,
                now: Moment::ORIGIN,
            };
            assert!(lane.send(&sending, parcel, Arc::new(Patient)).is_ok(), "{message}");
        }
        let late = Moment::ORIGIN + FIRST_REPLY_DEADLINE;
        assert!(lane.sweep(Moment::ORIGIN));
        assert_eq!(lane.open_calls(), 2);
        lane.sweep(late);
        assert_eq!(lane.open_calls(), 1);
        lane.sweep(late + FIRST_REPLY_DEADLINE * 1_000);
        assert_eq!(lane.open_calls(), 1);
    }
}
