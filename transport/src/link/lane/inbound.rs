//! What arrives on a lane: a peer's messages into mailboxes, replies to their callers.
//!
//! A message whose mailbox is full waits here within the peer's credit, and those behind it for the
//! same actor wait too, so that none overtakes another. When many wait for one actor the peer is asked to send it
//! no more, and has their credit back: a slow actor slows its senders, and not those of others.

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
use crate::limits::{EARLY_CANCELS, LANE_CALLS, LANE_CREDIT_BYTES, LANE_CREDIT_MESSAGES};
use crate::link::outbox::Outbox;
use crate::link::served::{Served, refusal};
use crate::link::staged::Staged;
use crate::session::calls::Item;
use crate::session::window::{Allowance, low};
use crate::session::{Class, Violation};

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
            self.hold(&name, staged);
            return Ok(());
        }
        if let Some(waiting) = self.deliver(message, name, parcel, header, served, staged)? {
            let name: Arc<str> = Arc::from(name);
            self.waits(&message, &name, message.nth);
            self.queues.insert(name, Queue::new(message, waiting));
        }
        Ok(())
    }

    fn waits(&mut self, message: &Message, name: &Arc<str>, nth: u64) {
        if message.wanted {
            self.places.insert(message.id, (Arc::clone(name), nth));
        }
    }

    /// A message waits for this actor, and so do many: the peer is to send it no more, and has the credit of
    /// what waits back, so that it can send to others.
    fn hold(&mut self, name: &str, staged: &mut Staged) {
        let Some(queue) = self.queues.get_mut(name).filter(|_| self.holds) else { return };
        let mut lend = |message: &mut Message| self.lent.lend(message).then_some(message.bytes);
        let lent: Vec<usize> = if queue.held {
            queue.behind.back_mut().and_then(|(message, ..)| lend(message)).into_iter().collect()
        } else if queue.is_long() {
            queue.held = true;
            staged.push_urgent_named(FrameHeader::new(Kind::Hold, 0), name);
            queue.behind.iter_mut().filter_map(|(message, ..)| lend(message)).collect()
        } else {
            return;
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
            // A fair peer has as many calls at most, but may have given up some that run here.
            Some(_) if served.len() >= LANE_CALLS => Delivery::Refused(StreamError::Overloaded),
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
        if let Some((messages, bytes)) = self.allowance(class).taken(bytes) {
            staged.push_urgent(&FrameHeader {
                sequence: class as u32,
                budget: bytes,
                ..FrameHeader::new(Kind::Credit, messages)
            });
        }
    }

    /// Bytes of the messages that wait for room.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queues.values().map(|queue| queue.first.bytes.saturating_add(queue.bytes)).sum()
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
            let resumes = held && next.as_ref().is_none_or(Queue::is_short);
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
