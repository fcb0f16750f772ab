//! The actor of one link: takes connections over, runs their tasks, and dials again when one is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use neuroflow_kernel::{Actor, Address, Backoff, Clock, Context, Header};
use tokio::sync::{Notify, Semaphore};

use super::connect::{Established, REDIAL, dial};
use super::gossip::{self, GOSSIP_SINCE};
use super::lane::{LaneParts, LaneTask};
use super::large;
use super::outbox::Lane;
use super::peer::{Link, Peer};
use super::{CloseCode, LinkCommand, LinkError};
use crate::endpoint::Shared;
use crate::frame::Kind;
use crate::limits::{GOSSIP_PLACES, GOSSIP_STREAMS, LARGE_KIB, LARGE_STREAMS, SWEEP_INTERVAL};
use crate::membership::{self, MembershipCommand};
use crate::observer::ClusterEvent;

/// Keeps one link.
pub(crate) struct LinkServer {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    /// Tries to dial since the link was lost.
    tries: u32,
}

/// How long the sweep of calls ticks on without any, so that a steady trickle needn't start it anew.
const SWEEP_LINGER: Duration = Duration::from_secs(1);

impl LinkServer {
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer, tries: 0 }
    }

    fn take(&mut self, established: Established, context: &mut Context<LinkCommand>) {
        let Established { connection, subject, incarnation, agreed, dialled, claim, .. } =
            established;
        let clock = context.clock().clone();
        let number = self.shared.next_connection();
        let lanes: Vec<Arc<Lane>> = established
            .lanes
            .iter()
            .map(|_| Lane::new(agreed.messages, agreed.bytes, Arc::clone(&self.peer.meters)))
            .collect();
        let link = Arc::new(Link {
            number,
            connection: connection.clone(),
            lanes: lanes.clone(),
            agreed,
            incarnation,
            dialled,
            since: clock.now(),
            sweeping: AtomicBool::new(false),
            sweep: Notify::new(),
            left: AtomicBool::new(false),
            large_streams: Arc::new(Semaphore::new(LARGE_STREAMS as usize)),
            gossip_streams: Arc::new(Semaphore::new(GOSSIP_STREAMS as usize)),
            gossip_places: Arc::new(Semaphore::new(GOSSIP_PLACES)),
        });
        let own = context.address();
        for (at, (lane, stream)) in lanes.iter().zip(established.lanes).enumerate() {
            let task = LaneTask::new(LaneParts {
                lane: Arc::clone(lane),
                number: u8::try_from(at).unwrap_or_default(),
                connection: connection.clone(),
                large: Arc::clone(&link.large_streams),
                send: stream.send,
                recv: stream.recv,
                decoder: stream.decoder,
                unread: stream.unread,
                exports: Arc::clone(&self.shared.exports),
                peer: subject.clone(),
                clock: clock.clone(),
                granted: Arc::clone(&self.peer.changed),
                protocol: agreed.version,
            });
            let (link, own) = (Arc::clone(&link), own.clone());
            let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
            let work = async move {
                let why = task.run().await;
                end(&link, &why);
                if peer.is_revoked() {
                    // What the lane has begun since it was shut out.
                    shared.exports.keyed.forget(&peer.id);
                }
                tell(&own, LinkCommand::Lost(number)).await;
            };
            if context.task(work).is_err() {
                CloseCode::Shutdown.close(&connection);
            }
        }
        let large =
            receive_large(Arc::clone(&link), Arc::clone(&self.shared), Arc::clone(&self.peer));
        let sweep = sweep(Arc::clone(&link), clock.clone());
        if context.task(large).is_err() || context.task(sweep).is_err() {
            CloseCode::Shutdown.close(&connection);
        }
        let address = connection.remote_address();
        let (gossip, name) = (Arc::clone(&link), subject.name.clone());
        let before = self.shared.peers.up(&self.peer, Arc::clone(&link), subject, address);
        drop(claim);
        // After the link was shown: whoever shuts the peer out looks for links after the list is there.
        if self.peer.is_revoked() || self.shared.trust.is_revoked(&self.peer.id) {
            CloseCode::Revoked.close(&connection);
            self.shared.shut_out(&self.peer.id);
        } else {
            let node = self.peer.id;
            self.shared.told.decided(ClusterEvent::Linked { node, name: &name, address });
        }
        if let Some(before) = before {
            end(&before, &LinkError::Superseded);
        }
        if number > self.shared.first_connection(self.peer.id, number) {
            self.peer.meters.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.leaving.load(Ordering::SeqCst) {
            for lane in &lanes {
                lane.stage_drain();
            }
        }
        self.tries = 0;
        if agreed.version >= GOSSIP_SINCE {
            let gossip = gossip::receive(gossip, Arc::clone(&self.shared), self.peer.id);
            // Without it the peer counts as dead in time.
            let _full = context.task(gossip).is_err();
            let linked = membership::server::linked(&self.peer);
            self.shared.membership.tell(MembershipCommand::Linked(Box::new(linked)));
        }
    }

    /// The membership hears that the link is over.
    fn over(&self, link: &Link) {
        let (node, left) = (self.peer.id, link.left.load(Ordering::SeqCst));
        self.shared.membership.tell(MembershipCommand::Unlinked { node, left });
    }

    fn redial(&mut self, context: &mut Context<LinkCommand>) {
        let leaving = self.shared.leaving.load(Ordering::SeqCst);
        if leaving || self.peer.link().is_some() || self.peer.is_revoked() {
            return;
        }
        self.tries = self.tries.saturating_add(1);
        let wait = REDIAL.delay(self.tries, Backoff::jitter());
        let (shared, peer, own) =
            (Arc::clone(&self.shared), Arc::clone(&self.peer), context.address());
        let work = async move {
            shared.clock.sleep(wait).await;
            if peer.link().is_some() {
                return;
            }
            let next = match dial(&shared, peer.address(), Some(peer.id)).await {
                Ok(established) => LinkCommand::Take(Box::new(established)),
                Err(_later) => LinkCommand::Redial,
            };
            tell(&own, next).await;
        };
        // Each try begins when the one before has ended, so there is room.
        let _full = context.task(work).is_err();
    }
}

impl Actor for LinkServer {
    type Message = LinkCommand;
    type Error = Infallible;
    const KIND: &'static str = "link";

    async fn handle(
        &mut self,
        command: LinkCommand,
        context: &mut Context<LinkCommand>,
    ) -> Result<(), Infallible> {
        // It may have been forgotten, and met again.
        let Some(peer) = self.shared.peers.get(&self.peer.id) else {
            context.stop();
            return Ok(());
        };
        self.peer = peer;
        match command {
            LinkCommand::Take(established) => self.take(*established, context),
            LinkCommand::Lost(number) => {
                let link = self.peer.link();
                if self.peer.down(number, context.clock().now()) {
                    if let Some(link) = link {
                        self.over(&link);
                    }
                    // Also when the peer has left: a node that is begun anew may know nobody.
                    self.redial(context);
                }
            }
            LinkCommand::Redial => self.redial(context),
        }
        if self.peer.is_revoked() {
            context.stop();
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<LinkCommand>) {
        if let Some(link) = self.peer.link() {
            self.peer.down(link.number, self.shared.clock.now());
            CloseCode::Shutdown.close(&link.connection);
            link.lanes.iter().for_each(|lane| lane.close());
        }
    }
}

impl Drop for LinkServer {
    /// However this life ended: nobody serves its connection any more.
    fn drop(&mut self) {
        if let Some(link) = self.peer.link() {
            self.peer.down(link.number, self.shared.clock.now());
            end(&link, &LinkError::Superseded);
        }
    }
}

/// Ends a connection as the reason demands; callers are told at once.
fn end(link: &Link, why: &LinkError) {
    // After our own close nothing tells what the peer's was.
    if CloseCode::Leaving.was_said(&link.connection) {
        link.left.store(true, Ordering::SeqCst);
    }
    let code = match why {
        LinkError::Frame(_) | LinkError::Violation(_) => CloseCode::Violation,
        LinkError::Superseded => CloseCode::Superseded,
        _ => CloseCode::Shutdown,
    };
    code.close(&link.connection);
    link.lanes.iter().for_each(|lane| lane.close());
    // The sweeper ends with the lanes.
    link.sweep.notify_one();
}

async fn tell(own: &Address<LinkCommand>, command: LinkCommand) {
    // An error says that the link's actor has ended, and its connection with it.
    let _ended = own.tell(Header::new(), command).await.is_err();
}

/// Reads the streams of large messages.
async fn receive_large(link: Arc<Link>, shared: Arc<Shared>, from: Arc<Peer>) {
    let room = Semaphore::new(LARGE_KIB as usize);
    let lanes = u8::try_from(link.lanes.len()).unwrap_or(u8::MAX);
    let mut reading = FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = link.connection.accept_uni() => match stream {
                Ok(stream) => reading.push(large::receive(stream, lanes, &room, &from.meters)),
                Err(_over) => return,
            },
            Some(received) = reading.next() => match received {
                Ok(received) if received.header.kind == Kind::Gossip => {
                    let bytes = received.parcel.as_bytes();
                    if let Err(why) = gossip::arrived(&link, &shared, from.id, bytes) {
                        return end(&link, &why.into());
                    }
                }
                Ok(received) => {
                    if let Some(lane) = link.lanes.get(usize::from(received.header.lane)) {
                        lane.received(received);
                    }
                }
                // The peer took it back.
                Err(LinkError::Read(quinn::ReadError::Reset(_))) => {}
                Err(why) => return end(&link, &why),
            },
        }
    }
}

/// Looks for calls that are over, while there are calls.
async fn sweep(link: Arc<Link>, clock: Clock) {
    let mut idle = Duration::ZERO;
    while link.connection.close_reason().is_none() {
        if idle >= SWEEP_LINGER {
            link.sweeping.store(false, Ordering::SeqCst);
            let busy = link.lanes.iter().any(|lane| lane.sweep(clock.now()));
            if !busy {
                tokio::select! {
                    () = link.sweep.notified() => {}
                    _over = link.connection.closed() => return,
                }
            }
            link.sweeping.store(true, Ordering::SeqCst);
            idle = Duration::ZERO;
        }
        clock.sleep(SWEEP_INTERVAL).await;
        let now = clock.now();
        let mut busy = false;
        for lane in &link.lanes {
            busy |= lane.sweep(now);
        }
        idle = if busy { Duration::ZERO } else { idle + SWEEP_INTERVAL };
    }
}
