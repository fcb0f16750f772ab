//! One end of a link in the simulation: what the lane's task does with frames, without sockets and actors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use super::World;
use super::asks::End;
use super::host::{Cancelled, Run};
use super::wire::{Alone, Packet};
use crate::frame::{Decoder, FrameHeader, HEADER_BYTES, Kind, padded};
use crate::keyed::CallKey;
use crate::limits::{EARLY_CANCELS, MAX_MESSAGE_BYTES, REPLY_CREDIT_BYTES, REPLY_CREDIT_MESSAGES};
use crate::session::calls::{Item, Over, Swept};
use crate::session::keyed::Arrival;
use crate::session::retry::Tried;
use crate::session::window::{Allowance, Window};
use crate::session::{Class, Session};

/// So little that it runs out.
const MESSAGES: u64 = 6;
const BYTES: u64 = 50_000;

const FINISHED: u8 = 1;
const NO_ROOM: u8 = 2;

pub(super) struct Line {
    pub(super) connection: u64,
    /// Which start of the peer this leads to.
    pub(super) life: u64,
    pub(super) dialled: bool,
    pub(super) since: Duration,
    pub(super) heard: Duration,
    pub(super) spoke: Duration,
    pub(super) session: Session<usize, u32>,
    allowances: [Allowance; 2],
    decoder: Decoder,
    out: Vec<u8>,
    alone: Vec<Vec<u8>>,
    sent: u64,
    sent_alone: u64,
    due: u64,
    early: BTreeMap<u64, Vec<u8>>,
    seen_alone: BTreeSet<u64>,
    served: BTreeMap<u64, Serving>,
    cancelled: Cancelled,
    /// Messages whose actor hasn't taken them yet.
    backlog: Vec<(Class, usize)>,
    /// Calls whose callers have no room.
    blocked: Vec<u64>,
}

/// A request that is being answered.
struct Serving {
    ask: usize,
    next: u32,
    replies: u32,
    bytes: usize,
    /// From when on; never if it's silent.
    ready: Option<Duration>,
    window: Window,
}

impl Line {
    pub(super) fn new(connection: u64, life: u64, dialled: bool, now: Duration) -> Self {
        Self {
            connection,
            life,
            dialled,
            since: now,
            heard: now,
            spoke: now,
            session: Session::new(MESSAGES, BYTES),
            allowances: [Allowance::new(MESSAGES, BYTES), Allowance::new(MESSAGES, BYTES)],
            decoder: Decoder::new(crate::limits::SMALL_MESSAGE_BYTES),
            out: Vec::new(),
            alone: Vec::new(),
            sent: 0,
            sent_alone: 0,
            due: 0,
            early: BTreeMap::new(),
            seen_alone: BTreeSet::new(),
            served: BTreeMap::new(),
            cancelled: Cancelled::new(),
            backlog: Vec::new(),
            blocked: Vec::new(),
        }
    }

    pub(super) fn next_alone(&mut self) -> u64 {
        self.sent_alone += 1;
        self.sent_alone
    }

    pub(super) fn assert_is_idle(&self) {
        assert_eq!(self.session.calls.len(), 0, "calls that wait");
        assert!(self.served.is_empty(), "requests that are answered for nobody");
        assert!(self.backlog.is_empty() && self.blocked.is_empty() && self.early.is_empty());
        assert!(self.out.is_empty() && self.alone.is_empty() && self.decoder.is_idle());
    }

    fn put(&mut self, header: &FrameHeader) {
        self.out.extend_from_slice(&header.encode());
    }

    /// A message about an ask, with a number of its own.
    fn put_message(&mut self, header: &FrameHeader, ask: usize, number: u32, bytes: usize) {
        let header = FrameHeader { archive_bytes: bytes, ..header.clone() };
        let mut frame = vec![0; HEADER_BYTES + padded(bytes)];
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        frame[HEADER_BYTES..][..8].copy_from_slice(&(ask as u64).to_le_bytes());
        frame[HEADER_BYTES + 8..][..4].copy_from_slice(&number.to_le_bytes());
        match Class::of(bytes) {
            Class::Small => self.out.append(&mut frame),
            Class::Large => self.alone.push(frame),
        }
    }
}

impl World {
    fn line(&mut self, own: usize, peer: usize) -> Option<&mut Line> {
        self.hosts[own].lines.get_mut(&peer)
    }

    /// Sends what is ready to be sent.
    fn flush(&mut self, own: usize, peer: usize) {
        let Some(line) = self.line(own, peer) else { return };
        let (connection, from) = (line.connection, own);
        let (bytes, alone) = (std::mem::take(&mut line.out), std::mem::take(&mut line.alone));
        // Pieces end anywhere.
        let at = if bytes.is_empty() { 0 } else { self.random.random_range(0..bytes.len()) };
        let pieces = [&bytes[..at], &bytes[at..]].map(<[u8]>::to_vec);
        for bytes in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            let Some(line) = self.line(own, peer) else { return };
            let number = line.sent;
            line.sent += 1;
            self.send(own, peer, Packet::Piece { connection, from, number, bytes }, 0);
        }
        for bytes in alone {
            let Some(line) = self.line(own, peer) else { return };
            let (number, kind) = (line.next_alone(), Alone::Message);
            self.send(own, peer, Packet::Alone { connection, from, number, kind, bytes }, 0);
        }
    }

    /// Sends a request, if it may be.
    pub(super) fn request(&mut self, own: usize, number: usize) {
        let ask = self.asks.see(number);
        let (peer, bytes, deadline) = (ask.to, ask.bytes, ask.deadline);
        let Some(line) = self.hosts[own].lines.get_mut(&peer) else {
            return self.tried(own, number, Tried::Later, 0, End::Unsent);
        };
        let key = match &ask.retry {
            None => CallKey::NONE,
            Some(retry) if retry.is_safe_in(line.life) => CallKey::of(&number.to_string()),
            Some(_) => return self.end(own, number, End::GivenUp),
        };
        match line.session.call(bytes, Some(deadline), number) {
            Ok(id) => {
                let header = FrameHeader { key, ..FrameHeader::new(Kind::Request, id) };
                line.put_message(&header, number, 0, bytes);
                self.flush(own, peer);
            }
            Err((_, caller)) => self.tried(own, caller, Tried::Later, 0, End::Unsent),
        }
    }

    pub(super) fn on_link(&mut self, own: usize, peer: usize, packet: Packet) {
        let Some(line) = self.line(own, peer) else { return };
        match packet {
            Packet::Piece { number, bytes, .. } => {
                if number < line.due {
                    return;
                }
                line.early.insert(number, bytes);
                while let Some(line) = self.line(own, peer)
                    && let Some(bytes) = line.early.remove(&line.due)
                {
                    line.due += 1;
                    let mut input = bytes.as_slice();
                    let mut frames = Vec::new();
                    while let Some(frame) = line.decoder.next(&mut input).unwrap() {
                        frames.push((frame.header, frame.archive.to_vec()));
                    }
                    for (header, body) in frames {
                        self.frame(own, peer, &header, &body);
                    }
                }
                self.flush(own, peer);
            }
            Packet::Alone { number, kind, bytes, .. } => {
                if !line.seen_alone.insert(number) {
                    return;
                }
                if kind == Alone::Gossip {
                    return self.hears_gossip(own, peer, &bytes);
                }
                let mut input = bytes.as_slice();
                let frame = Decoder::new(MAX_MESSAGE_BYTES).next(&mut input).unwrap().unwrap();
                self.frame(own, peer, &frame.header, &frame.archive);
                self.flush(own, peer);
            }
            Packet::Gossip { bytes, .. } => self.hears_gossip(own, peer, &bytes),
            _ => {}
        }
    }

    fn frame(&mut self, own: usize, peer: usize, header: &FrameHeader, body: &[u8]) {
        let now = self.now;
        let Some(line) = self.line(own, peer) else { return };
        let id = header.id;
        match header.kind {
            Kind::Request => self.requested(own, peer, header, body),
            Kind::Reply | Kind::End => {
                let reply = body.get(8..12).map(|nth| u32::from_le_bytes(nth.try_into().unwrap()));
                let code = if header.kind == Kind::End { header.code } else { FINISHED };
                let end = (header.last || header.kind == Kind::End).then_some(code);
                let item = Item { reply, bytes: body.len(), end };
                let Some(call) = line.session.calls.get(id) else { return };
                let number = call.caller;
                let item = call.arrived(header.sequence, item).expect("a fair peer");
                if let Some(item) = item {
                    self.asks.get(number).has_begun = true;
                    self.hand_over(own, peer, id, item);
                }
            }
            Kind::Cancel => {
                if line.served.remove(&id).is_none() {
                    line.cancelled.push_back(id);
                    if line.cancelled.len() > EARLY_CANCELS {
                        line.cancelled.pop_front();
                    }
                }
                let connection = line.connection;
                for run in self.hosts[own].runs.values_mut() {
                    run.waiters.retain(|waiter| *waiter != (peer, connection, id));
                }
            }
            Kind::Credit => {
                let class = Class::from_number(header.sequence).unwrap();
                line.session.granted(class, id, header.budget);
            }
            Kind::ReplyCredit => {
                if let Some(serving) = line.served.get_mut(&id) {
                    serving.window.grant(u64::from(header.sequence), header.budget);
                    serving.answer_at(now);
                }
            }
            other => panic!("{other:?} isn't sent"),
        }
    }

    fn requested(&mut self, own: usize, peer: usize, header: &FrameHeader, body: &[u8]) {
        let (now, now_here) = (self.now, self.hosts[own].clock(self.now));
        let number = usize::try_from(u64::from_le_bytes(body[..8].try_into().unwrap())).unwrap();
        let full = self.falls(0.03);
        let works = self.up_to(400);
        let ask = self.asks.see(number);
        let (replies, bytes, silent) = (ask.replies, ask.bytes, ask.silent);
        let host = &mut self.hosts[own];
        let Some(line) = host.lines.get_mut(&peer) else { return };
        let id = header.id;
        let class = Class::of(body.len());
        line.allowances[class as usize].arrived(body.len()).expect("within its credit");
        assert!(!line.served.contains_key(&id), "a number that is used twice");
        line.backlog.push((class, body.len()));
        let cancelled = line.cancelled.iter().position(|cancelled| *cancelled == id);
        if class == Class::Large
            && let Some(at) = cancelled
        {
            line.cancelled.remove(at);
            return;
        }
        let serving = Serving {
            ask: number,
            next: 0,
            replies,
            bytes,
            ready: (!silent).then_some(now + works),
            window: Window::new(REPLY_CREDIT_MESSAGES, REPLY_CREDIT_BYTES),
        };
        let keyed = !header.key.is_none();
        if full && !(keyed && host.runs.contains_key(&number)) {
            return line.put(&FrameHeader { code: NO_ROOM, ..FrameHeader::new(Kind::End, id) });
        }
        if !keyed {
            line.served.insert(id, serving);
            return self.asks.handled(number);
        }
        let waiter = (peer, line.connection, id);
        match host.keyed.arrived(&number, now_here, || ()) {
            Arrival::First(()) => {
                let run = Run { is_done: false, waiters: vec![waiter], ready: now + works };
                host.runs.insert(number, run);
                self.asks.handled(number);
            }
            Arrival::Known(()) => {
                let run = host.runs.get_mut(&number).expect("what is known runs or has run");
                if run.is_done {
                    line.served.insert(id, Serving { ready: Some(now), ..serving });
                } else {
                    run.waiters.push(waiter);
                }
            }
            Arrival::Full => panic!("few calls have keys"),
        }
    }

    /// Calls with a key that have come to their end are answered to whoever waits.
    pub(super) fn finish_runs(&mut self, own: usize) {
        let (now, now_here) = (self.now, self.hosts[own].clock(self.now));
        let host = &mut self.hosts[own];
        for (number, run) in
            host.runs.iter_mut().filter(|(_, run)| !run.is_done && run.ready <= now)
        {
            run.is_done = true;
            host.keyed.ended(number, 64, now_here);
            for (peer, connection, id) in std::mem::take(&mut run.waiters) {
                let line = host.lines.get_mut(&peer);
                let Some(line) = line.filter(|line| line.connection == connection) else {
                    continue;
                };
                let ask = self.asks.see(*number);
                let serving = Serving {
                    ask: *number,
                    next: 0,
                    replies: ask.replies,
                    bytes: ask.bytes,
                    ready: Some(now),
                    window: Window::new(REPLY_CREDIT_MESSAGES, REPLY_CREDIT_BYTES),
                };
                line.served.insert(id, serving);
            }
        }
    }

    /// Gives a caller what is its turn, as far as it has room.
    fn hand_over(&mut self, own: usize, peer: usize, id: u64, mut item: Item<u32>) {
        let now_here = self.hosts[own].clock(self.now);
        loop {
            let full = self.falls(0.1);
            let Some(line) = self.hosts[own].lines.get_mut(&peer) else { return };
            let life = line.life;
            let Some(call) = line.session.calls.get(id) else { return };
            let number = call.caller;
            if self.asks.see(number).leaves.is_some_and(|at| at <= now_here) {
                line.session.calls.remove(id);
                if item.end.is_none() {
                    line.put(&FrameHeader::new(Kind::Cancel, id));
                }
                return self.end(own, number, End::Dropped);
            }
            if full {
                call.put_back(item);
                line.blocked.push(id);
                return;
            }
            if let Some(nth) = item.reply {
                self.asks.reply(number, nth);
            }
            if let Some(code) = item.end {
                line.session.calls.remove(id);
                return match code {
                    FINISHED => self.end(own, number, End::Answered),
                    _ => self.tried(own, number, Tried::Later, life, End::Refused),
                };
            }
            let grant = call.taken(item.bytes);
            let next = call.next();
            if let Some((messages, budget)) = grant {
                let sequence = u32::try_from(messages).unwrap();
                let header = FrameHeader::new(Kind::ReplyCredit, id);
                line.put(&FrameHeader { budget, sequence, ..header });
            }
            match next {
                Some(next) => item = next,
                None => return,
            }
        }
    }

    /// What a lane does again and again: room, deadlines, answers.
    pub(super) fn look_after(&mut self, own: usize, peer: usize) {
        let (now, now_here) = (self.now, self.hosts[own].clock(self.now));
        let Some(line) = self.hosts[own].lines.get_mut(&peer) else { return };
        for id in std::mem::take(&mut line.blocked) {
            let Some(line) = self.line(own, peer) else { return };
            if let Some(item) =
                line.session.calls.get(id).and_then(crate::session::calls::Call::next)
            {
                self.hand_over(own, peer, id, item);
            }
        }
        let asks = &self.asks;
        let Some(line) = self.hosts[own].lines.get_mut(&peer) else { return };
        let gone = |number: &usize| asks.see(*number).leaves.is_some_and(|at| at <= now_here);
        let over = line.session.calls.sweep(now_here, gone);
        let life = line.life;
        for Swept { id, .. } in &over {
            line.put(&FrameHeader::new(Kind::Cancel, *id));
        }
        for Swept { caller, why, .. } in over {
            match why {
                Over::Gone => self.end(own, caller, End::Dropped),
                Over::Late => self.tried(own, caller, Tried::Lost, life, End::Late),
            }
        }
        let taken = self.random.random_range(0..=3_usize);
        let Some(line) = self.hosts[own].lines.get_mut(&peer) else { return };
        for (class, bytes) in
            line.backlog.drain(..taken.min(line.backlog.len())).collect::<Vec<_>>()
        {
            if let Some((messages, budget)) = line.allowances[class as usize].taken(bytes) {
                let header = FrameHeader::new(Kind::Credit, messages);
                line.put(&FrameHeader { sequence: class as u32, budget, ..header });
            }
        }
        let ready: Vec<u64> = line
            .served
            .iter()
            .filter(|(_, serving)| serving.ready.is_some_and(|ready| ready <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            let Some(mut serving) = line.served.remove(&id) else { continue };
            if !serving.answer(id, line) {
                line.served.insert(id, serving);
            }
        }
        self.flush(own, peer);
    }
}

impl Serving {
    /// There is credit again.
    fn answer_at(&mut self, now: Duration) {
        self.ready = self.ready.map(|ready| ready.min(now));
    }

    /// Answers as far as there is credit; says whether that was all.
    fn answer(&mut self, id: u64, line: &mut Line) -> bool {
        while self.next < self.replies {
            if !self.window.is_open() {
                return false;
            }
            self.window.sent(self.bytes);
            let nth = self.next;
            self.next += 1;
            // Every other one says with its last reply that it's the last.
            let last = self.next == self.replies && self.ask.is_multiple_of(2);
            let header = FrameHeader { sequence: nth, last, ..FrameHeader::new(Kind::Reply, id) };
            line.put_message(&header, self.ask, nth, self.bytes);
            if last {
                return true;
            }
        }
        let header = FrameHeader::new(Kind::End, id);
        line.put(&FrameHeader { sequence: self.next, code: FINISHED, ..header });
        true
    }
}
