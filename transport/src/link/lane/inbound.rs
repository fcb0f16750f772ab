//! What arrives on a lane: a peer's messages into mailboxes, replies to their callers.
//!
//! A message whose mailbox is full waits here within the peer's credit, and those behind it for the
//! same actor wait too, so that none overtakes another. When many wait, the peer is asked to send no more to those
//! actors that most wait for, and has the credit of these back: slow actors slow their senders, and not those of others.

mod queue;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use neuroflow_kernel::{
    ActorId, Budget, Clock, DeliverError, Generation, Header, Moment, RawParcel, StreamError,
    limits::MAX_HOPS,
};

use self::queue::{Lent, Message, Queue};
use super::Room;
use crate::export::{Asker, Delivery, Exports, Found, Waiting};
use crate::frame::{FrameHeader, Kind};
use crate::identity::Subject;
use crate::keyed::Origin;
use crate::limits::{
    EARLY_CANCELS, LANE_CALLS, LANE_CREDIT_BYTES, LANE_CREDIT_MESSAGES, WAITING_BYTES,
    WAITING_MESSAGES, WATCH_PLACES,
};
use crate::link::outbox::Outbox;
use crate::link::served::{Served, refusal};
use crate::link::staged::Staged;
use crate::session::calls::Item;
use crate::session::window::{Allowance, low};
use crate::session::{Class, Violation};
use crate::watch;

/// The receiving half of a lane.
pub(super) struct Inbound {
    exports: Arc<Exports>,
    peer: Subject,
    clock: Clock,
    small: Allowance,
    large: Allowance,
    /// When this turn began, once somebody has asked: a look at the clock costs as much as a frame's
    /// header.
    now: Option<Moment>,
    /// Whom the last message was for: the next one is probably for the same.
    last: Option<Found>,
    /// Actors that have no room, and what waits for them.
    queues: HashMap<Arc<str>, Queue>,
    /// Where each request waits: a cancellation looks at no other.
    places: HashMap<u64, (Arc<str>, u64)>,
    /// Whether the peer can be asked to send nothing more to one actor.
    holds: bool,
    /// What the peer has its credit back for though it waits.
    lent: Lent,
    /// Ids that were cancelled and aren't known: a large request is overtaken by its cancellation.
    early: VecDeque<u64>,
}

impl Inbound {
    pub(super) fn new(exports: Arc<Exports>, peer: Subject, clock: Clock, holds: bool) -> Self {
        Self {
            exports,
            peer,
            clock,
            small: Allowance::new(LANE_CREDIT_MESSAGES, LANE_CREDIT_BYTES),
            large: Allowance::new(LANE_CREDIT_MESSAGES, LANE_CREDIT_BYTES),
            now: None,
            last: None,
            queues: HashMap::new(),
            places: HashMap::new(),
            holds,
            lent: Lent::default(),
            early: VecDeque::new(),
        }
    }

    /// The lane's task has work again.
    pub(super) fn begin_turn(&mut self) {
        self.now = None;
    }

    /// A request or notice of the peer.
    pub(super) fn arrived(
        &mut self,
        frame: &FrameHeader,
        name: &str,
        parcel: RawParcel,
        served: &mut Served,
        staged: &mut Staged,
    ) -> Result<(), Violation> {
        let message = Message {
            id: frame.id,
            bytes: parcel.as_bytes().len(),
            wanted: frame.kind == Kind::Request,
            generation: frame.generation,
            key: frame.key,
            nth: 0,
            lent: false,
        };
        let class = Class::of(message.bytes);
        self.allowance(class).arrived(message.bytes)?;
        if message.wanted && (served.has(message.id) || self.places.contains_key(&message.id)) {
            return Err(Violation::Number);
        }
        if class == Class::Large
            && let Some(at) = self.early.iter().position(|id| message.wanted && *id == message.id)
        {
            self.early.remove(at);
            return self.settle(message, Ok(None), served, staged);
        }
        let header = self.header(frame);
        if let Some((name, _)) = self.queues.get_key_value(name) {
            let name = Arc::clone(name);
            if let Some(queue) = self.queues.get_mut(&name) {
                let nth = queue.push(message, parcel, header);
                self.waits(&message, &name, nth);
            }
            self.hold(class, &name, staged);
            return Ok(());
        }
        if let Some(waiting) = self.deliver(message, name, parcel, header, served, staged)? {
            let name: Arc<str> = Arc::from(name);
            self.waits(&message, &name, message.nth);
            self.queues.insert(Arc::clone(&name), Queue::new(message, waiting));
            self.hold(class, &name, staged);
        }
        Ok(())
    }

    fn waits(&mut self, message: &Message, name: &Arc<str>, nth: u64) {
        if message.wanted {
            self.places.insert(message.id, (Arc::clone(name), nth));
        }
    }

    /// One more message waits for this actor. Once so many wait on this lane that others could find no credit, the peer
    /// is to send no more to those actors that most wait for, until half of that is lent, and has the credit of what
    /// waits for them back. So all are looked at once for many messages.
    fn hold(&mut self, class: Class, name: &Arc<str>, staged: &mut Staged) {
        if !self.holds {
            return;
        }
        if self.queues.get(name).is_some_and(|queue| queue.held) {
            // It was under way.
            self.lend(name, true, staged);
            return;
        }
        if !self.allowance(class).has_waiting(WAITING_MESSAGES, WAITING_BYTES) {
            return;
        }
        let mut longest: Vec<(u64, Arc<str>)> = if self.lent.has_room() {
            self.queues.iter().map(|(name, queue)| (queue.weight(), Arc::clone(name))).collect()
        } else {
            vec![(0, Arc::clone(name))]
        };
        longest.sort_unstable_by(|a, b| b.cmp(a));
        for (_, name) in longest {
            if !self.allowance(class).has_waiting(WAITING_MESSAGES / 2, WAITING_BYTES / 2) {
                return;
            }
            if let Some(queue) = self.queues.get_mut(&name).filter(|queue| !queue.held) {
                queue.held = true;
                staged.push_urgent_named(FrameHeader::new(Kind::Hold, 0), &name);
            }
            self.lend(&name, false, staged);
        }
    }

    /// The peer has the credit of what waits for this actor back, or of the last of it.
    fn lend(&mut self, name: &str, last: bool, staged: &mut Staged) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let mut lend = |message: &mut Message| self.lent.lend(message).then_some(message.bytes);
        let lent: Vec<usize> = if last {
            queue.behind.back_mut().and_then(|(message, ..)| lend(message)).into_iter().collect()
        } else {
            queue.messages().filter_map(lend).collect()
        };
        for bytes in lent {
            self.give_back(bytes, staged);
        }
    }

    /// When this turn began, or when somebody first asked in it.
    fn now(&mut self) -> Moment {
        *self.now.get_or_insert_with(|| self.clock.now())
    }

    fn allowance(&mut self, class: Class) -> &mut Allowance {
        match class {
            Class::Small => &mut self.small,
            Class::Large => &mut self.large,
        }
    }

    /// The header that the actor sees.
    fn header(&mut self, frame: &FrameHeader) -> Header {
        let mut header = Header::new().traced(frame.trace);
        if frame.budget != u64::MAX {
            header = header.budget(Budget::units(frame.budget));
        }
        if let Some(remaining) = frame.remaining {
            header = header.until(self.now() + remaining);
        }
        for _ in 0..frame.hops.min(MAX_HOPS.saturating_add(1)) {
            header = header.forward(ActorId::NOBODY);
        }
        header
    }

    /// Puts a message into its mailbox; gives what to wait for if that is full.
    fn deliver(
        &mut self,
        message: Message,
        name: &str,
        parcel: RawParcel,
        header: Header,
        served: &mut Served,
        staged: &mut Staged,
    ) -> Result<Option<Waiting>, Violation> {
        let now = self.now();
        let asker = Asker { node: self.peer.id, roles: &self.peer.roles };
        let delivery = match self.exports.find_again(name, &asker, &mut self.last) {
            None => Delivery::Refused(StreamError::Unknown),
            Some(_) if is_full(name, served.len()) => Delivery::Refused(StreamError::Overloaded),
            Some(actor) => {
                // Looked up with its life, so that a restart in between can't slip in.
                let life = Generation::new(message.generation);
                match life.map(|life| actor.in_life(life)) {
                    found if !message.key.is_none() => {
                        let (node, key) = (self.peer.id, message.key);
                        let origin = Origin { node, actor: name, key };
                        let actor = || found.unwrap_or(Some(actor));
                        self.exports.keyed.deliver(origin, actor, header, parcel, &self.clock)
                    }
                    None => actor.deliver(header, parcel, message.wanted, now),
                    Some(Some(life)) => life.deliver(header, parcel, message.wanted, now),
                    Some(None) => Delivery::Refused(StreamError::Stale),
                }
            }
        };
        let result = match delivery {
            Delivery::Taken(source) => Ok(source),
            Delivery::Refused(why) => Err(why),
            Delivery::Waiting(waiting) => return Ok(Some(waiting)),
        };
        self.settle(message, result, served, staged)?;
        Ok(None)
    }

    /// A message has left the lane: into its mailbox, or refused.
    fn settle(
        &mut self,
        message: Message,
        result: Result<Option<Box<dyn crate::export::Source>>, StreamError>,
        served: &mut Served,
        staged: &mut Staged,
    ) -> Result<(), Violation> {
        if message.wanted && !self.places.is_empty() {
            self.places.remove(&message.id);
        }
        match result {
            Ok(Some(source)) if message.wanted => served.add(message.id, source)?,
            Ok(_nobody_listens) => {}
            Err(why) if message.wanted => {
                let end = refusal(message.id, why);
                let code = end.end.unwrap_or_default();
                staged.push(&FrameHeader { code, ..FrameHeader::new(Kind::End, end.id) });
            }
            Err(_nobody_asks) => {}
        }
        if message.lent {
            self.lent.returned(message);
        } else {
            self.give_back(message.bytes, staged);
        }
        Ok(())
    }

    /// The peer has its credit for a message of so many bytes back.
    fn give_back(&mut self, bytes: usize, staged: &mut Staged) {
        let class = Class::of(bytes);
        if let Some((messages, bytes)) = self.allowance(class).taken_beside(bytes) {
            staged.push_urgent(&FrameHeader {
                sequence: class as u32,
                budget: bytes,
                ..FrameHeader::new(Kind::Credit, messages)
            });
        }
    }

    /// Bytes of the messages that wait for room.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queues.values().map(Queue::all_bytes).sum()
    }

    /// Looks whether there is room where there was none; says whether something went on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        served: &mut Served,
        staged: &mut Staged,
    ) -> Result<bool, Violation> {
        if self.queues.is_empty() {
            return Ok(false);
        }
        let mut settled = Vec::new();
        for (name, queue) in &mut self.queues {
            if let Poll::Ready(result) = queue.waiting.as_mut().poll(cx) {
                settled.push((Arc::clone(name), queue.first, result));
            }
        }
        let went_on = !settled.is_empty();
        for (name, first, result) in settled {
            self.settle(first, result, served, staged)?;
            let Some(Queue { mut behind, mut bytes, held, .. }) = self.queues.remove(&name) else {
                continue;
            };
            let mut next = None;
            while let Some((message, parcel, header)) = behind.pop_front() {
                bytes = bytes.saturating_sub(message.bytes);
                let waiting = self.deliver(message, &name, parcel, header, served, staged)?;
                if let Some(waiting) = waiting {
                    let behind = std::mem::take(&mut behind);
                    next = Some(Queue { behind, bytes, ..Queue::new(message, waiting) });
                    break;
                }
            }
            let others = self.queues.len();
            let resumes = held && next.as_ref().is_none_or(|next| next.is_short(others));
            if resumes {
                staged.push_urgent_named(FrameHeader::new(Kind::Resume, 0), &name);
            }
            if let Some(next) = next {
                self.queues.insert(name, Queue { held: held && !resumes, ..next });
            }
        }
        Ok(went_on)
    }

    /// The caller of a message that still waits has gone: it's dropped when its turn comes.
    pub(super) fn cancel(&mut self, id: u64) {
        if let Some((name, nth)) = self.places.remove(&id) {
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.cancel(nth);
            }
            return;
        }
        if self.early.len() >= EARLY_CANCELS {
            self.early.pop_front();
        }
        self.early.push_back(id);
    }
}

/// Whether a request finds no place among so many. A fair peer has as many calls at most, but may have given up some that
/// run here.
fn is_full(name: &str, calls: usize) -> bool {
    calls >= LANE_CALLS && (calls >= LANE_CALLS + WATCH_PLACES || !watch::is_service(name))
}

/// Gives a caller what is its turn, as far as it has room.
pub(super) fn hand_over(
    mut outbox: MutexGuard<'_, Outbox>,
    id: u64,
    mut item: Item<RawParcel>,
    rooms: &mut FuturesUnordered<Room>,
    staged: &mut Staged,
) {
    loop {
        let Some(call) = outbox.session.calls.get(id) else { return };
        let caller = Arc::clone(&call.caller);
        let delivered = match &item.reply {
            Some(reply) => caller.deliver(reply.clone()),
            None => Ok(()),
        };
        match delivered {
            Ok(()) => {}
            Err(DeliverError::Full) => {
                call.put_back(item);
                rooms.push(Box::pin(async move {
                    caller.room().await;
                    id
                }));
                return;
            }
            Err(error) => {
                let own = outbox.session.calls.remove(id);
                drop(outbox);
                drop(own);
                if matches!(error, DeliverError::Invalid(_)) {
                    caller.fail(StreamError::Mismatch);
                }
                if item.end.is_none() {
                    staged.push_urgent(&FrameHeader::new(Kind::Cancel, id));
                }
                return;
            }
        }
        if let Some(code) = item.end {
            let own = outbox.session.calls.remove(id);
            drop(outbox);
            match code {
                super::FINISHED => caller.finish(),
                code => {
                    caller.fail(StreamError::from_code(code).unwrap_or(StreamError::Lost));
                }
            }
            drop(own);
            return;
        }
        let grant = call.taken(item.bytes);
        let next = call.next();
        if let Some((messages, bytes)) = grant {
            staged.push_urgent(&FrameHeader {
                sequence: low(messages),
                budget: bytes,
                ..FrameHeader::new(Kind::ReplyCredit, id)
            });
        }
        match next {
            Some(next) => item = next,
            None => return,
        }
    }
}
