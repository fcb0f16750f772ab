//! The requests of a peer that are being answered: where their replies come from, and who woke.
//!
//! A task or a boxed future per request would cost more than the request; so one lane polls them
//! all, and each place has a waker of its own that says which one to look at.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use neuroflow_kernel::{RawParcel, StreamError};

use crate::export::Source;
use crate::limits::{REPLY_CREDIT_BYTES, REPLY_CREDIT_MESSAGES};
use crate::session::Violation;
use crate::session::window::Window;

#[derive(Default)]
pub(super) struct Served {
    places: Vec<Place>,
    free: Vec<usize>,
    by_id: HashMap<u64, usize>,
    ready: Arc<Ready>,
    /// Places that were woken and not looked at yet, each once: while the peer doesn't read nobody looks.
    due: Vec<usize>,
}

struct Place {
    answering: Option<Answering>,
    is_due: bool,
    waker: Waker,
    bell: Arc<Bell>,
}

struct Answering {
    id: u64,
    source: Box<dyn Source>,
    sequence: u32,
    window: Window,
}

/// What a request's source gave.
pub(super) struct Given {
    pub(super) id: u64,
    pub(super) sequence: u32,
    pub(super) reply: Option<RawParcel>,
    /// The code of the end.
    pub(super) end: Option<u8>,
}

/// The code of an end in good order.
pub(super) const FINISHED: u8 = 1;

#[derive(Default)]
struct Ready {
    places: Mutex<Vec<usize>>,
    lane: Mutex<Option<Waker>>,
}

struct Bell {
    place: usize,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.places.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
        let lane = self.ready.lane.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lane) = lane {
            lane.wake();
        }
    }
}

impl Served {
    /// Says whom to wake when a source has something.
    pub(super) fn register(&self, lane: &Waker) {
        let mut slot = self.ready.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|known| known.will_wake(lane)) {
            *slot = Some(lane.clone());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn add(&mut self, id: u64, source: Box<dyn Source>) -> Result<(), Violation> {
        if self.has(id) {
            return Err(Violation::Number);
        }
        let window = Window::new(REPLY_CREDIT_MESSAGES, REPLY_CREDIT_BYTES);
        let answering = Answering { id, source, sequence: 0, window };
        let index = self.free.pop().unwrap_or_else(|| {
            let ready = Arc::clone(&self.ready);
            let bell =
                Arc::new(Bell { place: self.places.len(), rung: AtomicBool::new(false), ready });
            let waker = Waker::from(Arc::clone(&bell));
            self.places.push(Place { answering: None, is_due: false, waker, bell });
            self.places.len() - 1
        });
        self.places[index].answering = Some(answering);
        self.by_id.insert(id, index);
        // A first look, which leaves the waker with the source.
        due(&mut self.due, &mut self.places, index);
        Ok(())
    }

    /// The caller has gone: dropping the source tells the actor. Says whether there was such a call.
    pub(super) fn cancel(&mut self, id: u64) -> bool {
        let Some(index) = self.by_id.remove(&id) else { return false };
        if let Some(answering) = &mut self.places[index].answering {
            answering.source.cancelled();
        }
        self.clear(index);
        true
    }

    fn clear(&mut self, index: usize) {
        self.places[index].answering = None;
        self.free.push(index);
        if self.by_id.is_empty() && self.places.len() > IDLE_PLACES {
            // A burst doesn't leave its table behind. An old bell makes us look at another's source
            // at worst, which has nothing.
            self.ready.places.lock().unwrap_or_else(PoisonError::into_inner).clear();
            *self = Self { ready: Arc::clone(&self.ready), ..Self::default() };
        }
    }

    /// The caller takes more replies; of their count the low half is said.
    pub(super) fn granted(&mut self, id: u64, messages: u32, bytes: u64) {
        if let Some(index) = self.by_id.get(&id)
            && let Some(answering) = &mut self.places[*index].answering
        {
            answering.window.grant_low(messages, bytes);
            due(&mut self.due, &mut self.places, *index);
        }
    }

    /// Looks at the sources that have rung, up to `room` of them that give something; says whether
    /// there is more to look at.
    pub(super) fn poll(&mut self, given: &mut Vec<Given>, room: usize) -> bool {
        {
            let mut rung = self.ready.places.lock().unwrap_or_else(PoisonError::into_inner);
            for index in rung.drain(..) {
                due(&mut self.due, &mut self.places, index);
            }
        }
        let mut looked = 0;
        while looked < room
            && let Some(index) = self.due.pop()
        {
            looked += 1;
            self.look(index, given);
        }
        !self.due.is_empty()
    }

    fn look(&mut self, index: usize, given: &mut Vec<Given>) {
        let Some(place) = self.places.get_mut(index) else { return };
        place.is_due = false;
        place.bell.rung.store(false, Ordering::Release);
        let Some(answering) = &mut place.answering else { return };
        let mut cx = Context::from_waker(&place.waker);
        let id = answering.id;
        let mut held: Option<RawParcel> = None;
        let ended = loop {
            // What was taken from the source goes out with the end, if that comes right behind it.
            if held.is_none() && !answering.window.is_open() {
                break None;
            }
            match answering.source.poll_next(&mut cx) {
                Poll::Ready(Some(Ok(reply))) => {
                    if let Some(before) = held.take() {
                        given.push(answering.give(Some(before), None));
                    }
                    answering.window.sent(reply.as_bytes().len());
                    held = Some(reply);
                    if !answering.window.is_open() {
                        break None;
                    }
                }
                Poll::Ready(Some(Err(error))) => break Some(error.code()),
                Poll::Ready(None) => break Some(FINISHED),
                Poll::Pending => break None,
            }
        };
        match (held, ended) {
            (None, None) => {}
            (held, Some(FINISHED)) => given.push(answering.give(held, Some(FINISHED))),
            (held, Some(code)) => {
                if held.is_some() {
                    given.push(answering.give(held, None));
                }
                given.push(answering.give(None, Some(code)));
            }
            (held, None) => given.push(answering.give(held, None)),
        }
        if ended.is_some() {
            self.by_id.remove(&id);
            self.clear(index);
        }
    }
}

fn due(due: &mut Vec<usize>, places: &mut [Place], index: usize) {
    if let Some(place) = places.get_mut(index)
        && !std::mem::replace(&mut place.is_due, true)
    {
        due.push(index);
    }
}

/// Places that an idle table keeps.
const IDLE_PLACES: usize = 256;

impl Answering {
    fn give(&mut self, reply: Option<RawParcel>, end: Option<u8>) -> Given {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        Given { id: self.id, sequence, reply, end }
    }
}

/// What an end that came without any reply says.
pub(super) fn refusal(id: u64, why: StreamError) -> Given {
    Given { id, sequence: 0, reply: None, end: Some(why.code()) }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;

    use neuroflow_kernel::MessageId;

    use super::*;

    type Script = VecDeque<Poll<Option<Result<RawParcel, StreamError>>>>;

    struct Scripted(Script, Arc<Mutex<Option<Waker>>>);

    impl Source for Scripted {
        fn poll_next(
            &mut self,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<RawParcel, StreamError>>> {
            *self.1.lock().unwrap() = Some(cx.waker().clone());
            self.0.pop_front().unwrap_or(Poll::Pending)
        }
    }

    fn reply() -> Poll<Option<Result<RawParcel, StreamError>>> {
        Poll::Ready(Some(Ok(RawParcel::new(MessageId::of("test"), 1, &[1]))))
    }

    /// Sequence, whether there is a reply, and the code of the end.
    type Seen = Vec<(u32, bool, Option<u8>)>;

    fn run(script: Script) -> (Served, Arc<Mutex<Option<Waker>>>, Seen) {
        let (mut served, waker) = (Served::default(), Arc::default());
        served.add(7, Box::new(Scripted(script, Arc::clone(&waker)))).unwrap();
        let seen = look(&mut served);
        (served, waker, seen)
    }

    fn look(served: &mut Served) -> Seen {
        let mut given = Vec::new();
        assert!(!served.poll(&mut given, 10));
        given.iter().map(|given| (given.sequence, given.reply.is_some(), given.end)).collect()
    }

    #[test]
    fn the_end_travels_with_the_last_reply() {
        let (served, _, seen) = run([reply(), reply(), Poll::Ready(None)].into());
        assert_eq!(seen, [(0, true, None), (1, true, Some(FINISHED))]);
        assert_eq!(served.len(), 0);
        let lost = Poll::Ready(Some(Err(StreamError::Panicked)));
        let (_, _, seen) = run([reply(), lost].into());
        assert_eq!(seen, [(0, true, None), (1, false, Some(StreamError::Panicked.code()))]);
    }

    #[test]
    fn a_source_is_looked_at_when_it_rings_and_not_before() {
        let (mut served, waker, seen) = run([reply(), Poll::Pending, reply()].into());
        assert_eq!(seen.len(), 1);
        assert!(look(&mut served).is_empty());
        waker.lock().unwrap().take().unwrap().wake();
        assert_eq!(look(&mut served), [(1, true, None)]);
        assert!(served.cancel(7) && !served.cancel(7));
        assert_eq!(served.len(), 0);
        waker.lock().unwrap().take().unwrap().wake();
        assert!(look(&mut served).is_empty());
    }

    #[test]
    fn no_more_replies_leave_than_the_caller_has_granted() {
        let many = usize::try_from(REPLY_CREDIT_MESSAGES).unwrap();
        let (mut served, _, seen) = run(std::iter::repeat_with(reply).take(many + 5).collect());
        assert_eq!(seen.len(), many);
        served.granted(7, u32::try_from(many + 2).unwrap(), REPLY_CREDIT_BYTES);
        assert_eq!(look(&mut served).len(), 2);
        assert!(matches!(
            served.add(7, Box::new(Scripted(Script::new(), Arc::default()))),
            Err(Violation::Number)
        ));
    }

    #[test]
    fn what_a_peer_sends_while_nobody_looks_takes_no_more_room() {
        let mut served = Served::default();
        let source = || Box::new(Scripted(Script::new(), Arc::default()));
        for nth in 0..1_000 {
            served.add(nth, source()).unwrap();
            for _ in 0..10 {
                served.granted(nth, u32::try_from(nth).unwrap() + 100, REPLY_CREDIT_BYTES);
            }
            served.cancel(nth);
        }
        served.add(7, source()).unwrap();
        assert_eq!((served.due.len(), served.places.len()), (1, 1));
        assert!(look(&mut served).is_empty() && served.due.is_empty());
    }

    #[test]
    fn ringing_wakes_the_lane_once() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (served, waker, _) = run(Script::new());
        served.register(&Waker::from(Arc::clone(&count)));
        let bell = waker.lock().unwrap().take().unwrap();
        bell.wake_by_ref();
        bell.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
