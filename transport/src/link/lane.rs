//! A lane: one stream that small messages share, and the task that moves both ways.
//!
//! A lone message leaves as soon as the task runs; while it writes or waits for its turn others
//! gather in the outbox and leave together. Replies are staged by the task itself, without a lock.
//!
//! Long, because every step of a lane's turn is one of the same task's.

mod inbound;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use neuroflow_kernel::{Clock, RawParcel};
use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;

use self::inbound::{Inbound, hand_over};
use super::large::{self, Received};
use super::outbox::Lane;
use super::served::{FINISHED, Given, Served};
use super::staged::{Large, Staged};
use super::{LinkError, Meters};
use crate::frame::{Decoder, FrameError, FrameHeader, Kind};
use crate::limits::{
    COPY_BYTES, LANE_FRAMES, LANE_HIGH_WATER_BYTES, LANE_LIMIT_BYTES, LANE_TURNS, READ_CHUNK_BYTES,
    SMALL_MESSAGE_BYTES,
};
use crate::session::calls::{Call, Item};
use crate::session::order::Order;
use crate::session::{Class, Violation};
use crate::watch;

/// The first protocol in which a drain is answered, and actors without room are named.
pub(crate) const DRAINED_SINCE: u16 = 3;

/// A caller that has no room for a reply: ready when it has, with the call's id.
type Room = BoxFuture<'static, u64>;

/// A large message on its way out.
type LargeSend = BoxFuture<'static, Result<(), LinkError>>;

/// The task of a lane.
pub(crate) struct LaneTask {
    lane: Arc<Lane>,
    connection: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
    unread: Bytes,
    /// Of the frame that is looked at; its place is used again.
    name: String,
    inbound: Inbound,
    served: Served,
    given: Vec<Given>,
    staged: Staged,
    order: Order<Bytes>,
    writing: VecDeque<Bytes>,
    unwritten: usize,
    rooms: FuturesUnordered<Room>,
    large: FuturesUnordered<LargeSend>,
    /// Room for those, of all lanes of the link.
    streams: Arc<Semaphore>,
    number: u8,
    granted: Arc<tokio::sync::Notify>,
    /// Whether the peer speaks the protocol of [`DRAINED_SINCE`].
    is_recent: bool,
    /// Bytes that it was last said to hold.
    holds: usize,
    /// Frames that have arrived since others had their turn.
    frames: usize,
}

/// What a lane's task is made of.
pub(crate) struct LaneParts {
    pub(crate) lane: Arc<Lane>,
    pub(crate) number: u8,
    pub(crate) connection: quinn::Connection,
    /// Room for large messages.
    pub(crate) large: Arc<Semaphore>,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) decoder: Decoder,
    pub(crate) unread: Bytes,
    pub(crate) exports: Arc<crate::export::Exports>,
    pub(crate) peer: crate::identity::Subject,
    pub(crate) clock: Clock,
    /// Whom to tell that there is credit again.
    pub(crate) granted: Arc<tokio::sync::Notify>,
    /// What both speak.
    pub(crate) protocol: u16,
}

impl LaneTask {
    pub(crate) fn new(parts: LaneParts) -> Self {
        let is_recent = parts.protocol >= DRAINED_SINCE;
        Self {
            inbound: Inbound::new(parts.exports, parts.peer, parts.clock, is_recent),
            lane: parts.lane,
            connection: parts.connection,
            send: parts.send,
            recv: parts.recv,
            decoder: parts.decoder,
            unread: parts.unread,
            name: String::new(),
            served: Served::default(),
            given: Vec::new(),
            staged: Staged::default(),
            order: Order::new(),
            writing: VecDeque::new(),
            unwritten: 0,
            rooms: FuturesUnordered::new(),
            large: FuturesUnordered::new(),
            streams: parts.large,
            number: parts.number,
            granted: parts.granted,
            is_recent,
            holds: 0,
            frames: 0,
        }
    }

    /// Runs until the connection ends; says why.
    pub(crate) async fn run(mut self) -> LinkError {
        let why = poll_fn(|cx| self.poll(cx)).await;
        self.lane.close();
        why
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkError> {
        self.served.register(cx.waker());
        self.frames = 0;
        for _ in 0..LANE_TURNS {
            if self.frames >= LANE_FRAMES {
                break;
            }
            let turned = self.turn(cx);
            self.account();
            match turned {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(why) => return Poll::Ready(why),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Says how much this lane holds.
    fn account(&mut self) {
        let now = self.unwritten + self.staged.bytes() + self.inbound.waiting_bytes();
        self.lane.meters.holds(self.holds, now);
        self.holds = now;
    }

    /// One turn; says whether there may be more to do.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        self.inbound.begin_turn();
        let mut more = self.read(cx)?;
        more |= self.look_into_outbox(cx)?;
        more |= self.inbound.poll(cx, &mut self.served, &mut self.staged)?;
        let was_full = self.is_full();
        if !was_full {
            more |= self.answer();
        }
        while let Poll::Ready(Some(id)) = self.rooms.poll_next_unpin(cx) {
            more = true;
            self.resume(id);
        }
        while let Poll::Ready(Some(sent)) = self.large.poll_next_unpin(cx) {
            more = true;
            sent?;
        }
        more |= self.write(cx)?;
        // Whoever has a reply has rung already, and doesn't again.
        Ok(more || was_full && !self.is_full())
    }

    /// Whether the peer is so far behind with reading that replies stay with their sources.
    fn is_full(&self) -> bool {
        self.unwritten + self.staged.bytes() > LANE_HIGH_WATER_BYTES
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        let mut read = 0;
        while read < READ_CHUNK_BYTES {
            if self.unread.is_empty() {
                let chunk = pin!(self.recv.read_chunk(READ_CHUNK_BYTES, true)).poll(cx);
                match chunk {
                    Poll::Ready(Ok(Some(chunk))) => self.unread = chunk.bytes,
                    Poll::Ready(Ok(None)) if self.decoder.is_idle() => {
                        return Err(quinn::ConnectionError::LocallyClosed.into());
                    }
                    Poll::Ready(Ok(None)) => return Err(FrameError::Truncated.into()),
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    Poll::Pending => return Ok(false),
                }
            }
            let bytes = std::mem::take(&mut self.unread);
            read += bytes.len();
            let mut input = &bytes[..];
            while let Some(frame) = self.decoder.next(&mut input)? {
                let (header, parcel) = frame.into_parcel();
                let mut name = std::mem::take(&mut self.name);
                name.clear();
                if header.kind.is_for_an_actor() {
                    name.push_str(self.decoder.name()?);
                }
                self.arrived(&header, &name, parcel)?;
                self.name = name;
            }
            copied(&self.lane.meters, self.decoder.take_copied());
        }
        Ok(true)
    }

    fn look_into_outbox(&mut self, cx: &Context<'_>) -> Result<bool, LinkError> {
        let mut outbox = self.lane.outbox();
        if outbox.closed {
            return Err(quinn::ConnectionError::LocallyClosed.into());
        }
        let (received, large) =
            (std::mem::take(&mut outbox.large), std::mem::take(&mut outbox.staged.large));
        outbox.session.calls.left = self.order.requests();
        self.unwritten += outbox.staged.take(&mut self.order, true, &self.lane.meters);
        let is_sent = self.large.is_empty() && large.is_empty();
        if self.is_recent && is_sent && outbox.session.take_drained() {
            // Behind all that was sent on this lane.
            self.staged.push(&FrameHeader::new(Kind::Drained, 0));
        }
        match &mut outbox.task {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        let is_room = outbox.session.calls.take_freed();
        drop(outbox);
        if is_room {
            self.granted.notify_waiters();
        }
        let more = !received.is_empty() || !large.is_empty();
        for message in large {
            self.send_large(message);
        }
        for Received { header, name, parcel, .. } in received {
            copied(&self.lane.meters, parcel.as_bytes().len());
            self.arrived(&header, &name, parcel)?;
        }
        Ok(more)
    }

    /// Takes replies from their sources.
    fn answer(&mut self) -> bool {
        let more = self.served.poll(&mut self.given, ANSWERS_PER_TURN);
        for given in self.given.drain(..) {
            stage(&mut self.staged, given, self.number);
        }
        more
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        for message in std::mem::take(&mut self.staged.large) {
            self.send_large(message);
            cx.waker().wake_by_ref();
        }
        self.unwritten += self.staged.take(&mut self.order, false, &self.lane.meters);
        if self.unwritten > LANE_LIMIT_BYTES {
            return Err(Violation::Unread.into());
        }
        loop {
            if self.writing.is_empty() {
                self.order.next(&mut self.writing);
                if self.writing.is_empty() {
                    return Ok(false);
                }
            }
            let chunks = self.writing.make_contiguous();
            let written = pin!(self.send.write_chunks(chunks)).poll(cx);
            match written {
                Poll::Ready(Ok(written)) => {
                    self.unwritten = self.unwritten.saturating_sub(written.bytes);
                    self.writing.drain(..written.chunks);
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(false),
            }
        }
    }

    fn send_large(&self, message: Large) {
        let (connection, meters) = (self.connection.clone(), Arc::clone(&self.lane.meters));
        let sending = large::send(connection, message, Arc::clone(&self.streams), meters);
        self.large.push(Box::pin(sending));
    }

    fn arrived(
        &mut self,
        header: &FrameHeader,
        name: &str,
        parcel: RawParcel,
    ) -> Result<(), LinkError> {
        self.frames = self.frames.saturating_add(1);
        let meters = &self.lane.meters;
        match header.kind {
            Kind::Request | Kind::Notice => {
                count(meters, &parcel);
                self.inbound.arrived(header, name, parcel, &mut self.served, &mut self.staged)?;
            }
            Kind::Reply => {
                count(meters, &parcel);
                let end = header.last.then_some(FINISHED);
                self.reply(header.id, header.sequence, Some(parcel), end)?;
            }
            Kind::End => self.reply(header.id, header.sequence, None, Some(header.code))?,
            Kind::Cancel => {
                if !self.served.cancel(header.id) {
                    self.inbound.cancel(header.id);
                }
            }
            Kind::Credit => {
                let class = Class::from_number(header.sequence).ok_or(FrameError::Reserved)?;
                if self.lane.outbox().session.granted(class, header.id, header.budget) {
                    self.granted.notify_waiters();
                }
            }
            Kind::ReplyCredit => {
                self.served.granted(header.id, header.sequence, header.budget);
            }
            Kind::Drain => {
                self.lane.draining.store(true, Ordering::Relaxed);
                self.lane.outbox().session.drain();
            }
            Kind::Drained if self.is_recent => {
                self.lane.drained.store(true, Ordering::SeqCst);
                self.granted.notify_waiters();
            }
            Kind::Hold if self.is_recent => self.lane.outbox().hold(name),
            Kind::Resume if self.is_recent => {
                if self.lane.outbox().resume(name) {
                    self.granted.notify_waiters();
                }
            }
            Kind::Drained | Kind::Hold | Kind::Resume | Kind::Hello | Kind::Lane | Kind::Gossip => {
                return Err(FrameError::Misplaced { kind: header.kind as u8 }.into());
            }
        }
        Ok(())
    }

    /// A reply, or the end, of a call of ours.
    fn reply(
        &mut self,
        id: u64,
        sequence: u32,
        reply: Option<RawParcel>,
        end: Option<u8>,
    ) -> Result<(), LinkError> {
        let bytes = reply.as_ref().map_or(0, |reply| reply.as_bytes().len());
        let item = Item { reply, bytes, end };
        let mut outbox = self.lane.outbox();
        // A call that was cancelled may still be answered.
        let Some(call) = outbox.session.calls.get(id) else { return Ok(()) };
        let Some(item) = call.arrived(sequence, item)? else { return Ok(()) };
        hand_over(outbox, id, item, &mut self.rooms, &mut self.staged);
        Ok(())
    }

    /// A caller has room again.
    fn resume(&mut self, id: u64) {
        let mut outbox = self.lane.outbox();
        if let Some(item) = outbox.session.calls.get(id).and_then(Call::next) {
            hand_over(outbox, id, item, &mut self.rooms, &mut self.staged);
        }
    }
}

impl Drop for LaneTask {
    fn drop(&mut self) {
        self.lane.meters.holds(self.holds, 0);
    }
}

/// Replies that are staged before the lane reads again.
const ANSWERS_PER_TURN: usize = 512;

fn count(meters: &Meters, parcel: &RawParcel) {
    meters.received_messages.fetch_add(1, Ordering::Relaxed);
    meters.received_bytes.fetch_add(parcel.as_bytes().len() as u64, Ordering::Relaxed);
}

/// Archives were copied out of packets.
fn copied(meters: &Meters, bytes: usize) {
    if bytes > 0 {
        meters.received_copied_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn stage(staged: &mut Staged, given: Given, lane: u8) {
    let Given { id, sequence, reply, end } = given;
    if let Some(parcel) = reply {
        let header = FrameHeader {
            sequence,
            lane,
            last: end.is_some(),
            ..FrameHeader::of_parcel(Kind::Reply, id, &parcel)
        };
        if watch::is_urgent(parcel.message()) && parcel.as_bytes().len() <= COPY_BYTES {
            staged.push_urgent_parcel(header, "", &parcel);
        } else {
            staged.push_parcel(header, "", parcel);
        }
    } else {
        let code = end.unwrap_or_default();
        staged.push(&FrameHeader { sequence, code, ..FrameHeader::new(Kind::End, id) });
    }
}

/// A decoder for what may come on a lane.
pub(crate) fn lane_decoder() -> Decoder {
    Decoder::new(SMALL_MESSAGE_BYTES)
}
