//! Watching actors across nodes: what a peer is told of ours, and what we are told of a peer's.
//!
//! A watch is a call whose first reply says which life is watched, and whose last one how it ended.
//! So it has what every call has: it ends with its link, and dropping it ends it on the other node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, Down, Fall, Generation, Header, MessageId, Moment, Parcel, RawParcel, RemotePort,
    RemoteTarget, Request, StreamError, WireMessage, WireRequest, reply_stream,
};

use crate::export::{Asker, Delivery, Exported, Exports, Service, Source};
use crate::identity::NodeId;
use crate::limits::{PEER_WATCHES, WATCH_DEADLINE};

/// The name under which watches are asked for.
const NAME: &str = "neuroflow.watch";

/// Whether a message is of watches, which no other message may hold up.
pub(crate) fn is_urgent(message: MessageId) -> bool {
    const WATCH: MessageId = MessageId::of("neuroflow.watch");
    const WATCHED: MessageId = MessageId::of("neuroflow.watched");
    message == WATCH || message == WATCHED
}

/// Asks to be told of an actor's end.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Watch {
    name: String,
    /// The life that is meant; 0 for the one that is there.
    generation: u32,
}

impl WireMessage for Watch {
    const NAME: &'static str = "neuroflow.watch";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 1_024;
}

impl WireRequest for Watch {
    type Reply = Watched;
}

/// Which life is watched, and later how it ended.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Watched {
    /// 0 for none.
    generation: u32,
    /// The code of the fall, or [`STANDS`].
    fall: u8,
}

impl WireMessage for Watched {
    const NAME: &'static str = "neuroflow.watched";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 64;
}

/// It hasn't ended.
const STANDS: u8 = u8::MAX;

/// Answers the watches of peers.
pub(crate) struct WatchService {
    /// Not owned: the exports own the service.
    exports: Weak<Exports>,
    /// Watches that each peer holds.
    held: Mutex<HashMap<NodeId, Arc<()>>>,
}

impl WatchService {
    pub(crate) fn new(exports: &Arc<Exports>) -> Self {
        Self { exports: Arc::downgrade(exports), held: Mutex::default() }
    }

    /// One more watch of this peer, unless it has as many as it may.
    fn hold(&self, peer: NodeId) -> Option<Arc<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = held.entry(peer).or_default();
        (Arc::strong_count(counter) <= PEER_WATCHES).then(|| Arc::clone(counter))
    }
}

impl Service for WatchService {
    fn serve(&self, name: &str, asker: &Asker<'_>) -> Option<Arc<dyn Exported>> {
        if name != NAME {
            return None;
        }
        let asked = Asked {
            exports: self.exports.upgrade()?,
            node: asker.node,
            roles: asker.roles.to_vec(),
            held: self.hold(asker.node),
        };
        Some(Arc::new(asked))
    }

    fn forget(&self, node: &NodeId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

/// The watches as one peer may ask for them.
struct Asked {
    exports: Arc<Exports>,
    node: NodeId,
    roles: Vec<String>,
    held: Option<Arc<()>>,
}

impl Exported for Asked {
    fn deliver(&self, _: Header, parcel: RawParcel, wanted: bool, _: Moment) -> Delivery {
        let Ok(watch) = parcel.open::<Watch>() else {
            return Delivery::Refused(StreamError::Mismatch);
        };
        let Some(held) = self.held.clone() else {
            return Delivery::Refused(StreamError::Overloaded);
        };
        if !wanted {
            return Delivery::Taken(None);
        }
        let watch = watch.get();
        let asker = Asker { node: self.node, roles: &self.roles };
        let found = self.exports.find(&watch.name, &asker);
        let life = Generation::new(watch.generation.to_native());
        let found = found.and_then(|actor| actor.in_life(life.or_else(|| actor.generation())?));
        let (life, down) = match found {
            Some(actor) => (actor.generation(), actor.down()),
            None => (life, Box::pin(std::future::ready(Down::new(life, Fall::Absent))) as _),
        };
        Delivery::Taken(Some(Box::new(Watching {
            first: Some(say(life, STANDS)),
            down,
            _held: held,
        })))
    }

    fn generation(&self) -> Option<Generation> {
        None
    }
}

/// One watch of a peer.
struct Watching {
    /// Which life is watched, until that was said.
    first: Option<Result<RawParcel, StreamError>>,
    down: BoxFuture<'static, Down>,
    /// Counts as one of the peer's.
    _held: Arc<()>,
}

impl Source for Watching {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawParcel, StreamError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        self.down.as_mut().poll(cx).map(|down| {
            self.down = Box::pin(std::future::pending());
            Some(say(down.generation, down.fall.code()))
        })
    }
}

fn say(generation: Option<Generation>, fall: u8) -> Result<RawParcel, StreamError> {
    let generation = generation.map_or(0, Generation::get);
    let said = Parcel::archive(&Watched { generation, fall });
    said.map(|said| said.as_raw().clone()).map_err(|_too_large| StreamError::Mismatch)
}

/// A watch over a peer's actor.
pub(crate) struct Watcher {
    replies: neuroflow_kernel::ReplyStream<Parcel<Watched>>,
    generation: Option<Generation>,
}

impl Watcher {
    /// Asks for a watch, through this port.
    pub(crate) async fn begin(
        port: Arc<dyn RemotePort>,
        target: &RemoteTarget,
    ) -> Result<Self, Fall> {
        let service = format!("agent://{}/{NAME}", target.node().ok_or(Fall::Absent)?);
        let service: RemoteTarget = service.parse().map_err(|_no_target| Fall::Absent)?;
        let generation = target.generation();
        let watch = Watch {
            name: target.name().to_owned(),
            generation: generation.map_or(0, Generation::get),
        };
        let parcel = Parcel::archive(&watch).map_err(|_too_large| Fall::Absent)?;
        let bytes = parcel.as_raw().as_bytes().len();
        let address = Address::<Request<Watch>>::remote(Arc::clone(&port), service.clone());
        let (sink, replies) = reply_stream();
        let mut request = Request { parcel, replies: sink };
        let clock = port.clock().clone();
        let at = clock.now() + WATCH_DEADLINE;
        // Tried here, for `tell` would also wait for a node that can't be reached.
        while let Err(unsent) = address.try_tell(Header::new(), request) {
            match unsent.reason {
                neuroflow_kernel::Refusal::Overloaded { .. } => {
                    request = unsent.message;
                    if clock.before(at, port.ready(&service, bytes)).await.is_err() {
                        return Err(Fall::Lost);
                    }
                    tokio::task::yield_now().await;
                }
                neuroflow_kernel::Refusal::Stale { .. } => return Err(Fall::Absent),
                _ => return Err(Fall::Lost),
            }
        }
        Ok(Self { replies, generation })
    }

    /// The life that is there, or how it ended.
    pub(crate) async fn life(&mut self) -> Result<Generation, Down> {
        match self.next().await {
            Ok(()) => self.generation.ok_or(Down::new(None, Fall::Absent)),
            Err(down) => Err(down),
        }
    }

    /// Waits for the end.
    async fn down(mut self) -> Down {
        loop {
            if let Err(down) = self.next().await {
                return down;
            }
        }
    }

    async fn next(&mut self) -> Result<(), Down> {
        let fall = match self.replies.next().await {
            Some(Ok(said)) => {
                let said = said.get();
                self.generation = Generation::new(said.generation.to_native()).or(self.generation);
                if said.fall == STANDS {
                    return Ok(());
                }
                Fall::from_code(said.fall).unwrap_or(Fall::Failed)
            }
            Some(Err(StreamError::Unknown | StreamError::Stale)) => Fall::Absent,
            Some(Err(_)) | None => Fall::Lost,
        };
        Err(Down::new(self.generation, fall))
    }
}

/// Waits for the end of a peer's actor.
pub(crate) async fn down(port: Arc<dyn RemotePort>, target: &RemoteTarget) -> Down {
    match Watcher::begin(port, target).await {
        Ok(watcher) => watcher.down().await,
        Err(fall) => Down::new(target.generation(), fall),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use neuroflow_kernel::{Clock, ManualClock, RawReplies, RemoteError};

    use super::*;

    /// A port that never has room, and counts who tries.
    struct Full(Clock, AtomicUsize);

    impl RemotePort for Full {
        fn send(
            &self,
            target: &RemoteTarget,
            _: &Header,
            _: RawParcel,
            _: Arc<dyn RawReplies>,
            _: Moment,
        ) -> Result<(), RemoteError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Err(RemoteError::Saturated { target: target.to_string() })
        }

        fn ready<'a>(&'a self, _: &'a RemoteTarget, _: usize) -> BoxFuture<'a, ()> {
            Box::pin(std::future::pending())
        }

        fn clock(&self) -> &Clock {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_watch_that_finds_no_room_is_given_up() {
        let time = ManualClock::new();
        let port = Arc::new(Full(time.clock(), AtomicUsize::new(0)));
        let target: RemoteTarget = "agent://a/echo".parse().unwrap();
        let mut watch = std::pin::pin!(down(Arc::clone(&port) as _, &target));
        let first = std::future::poll_fn(|cx| Poll::Ready(watch.as_mut().poll(cx).is_pending()));
        assert!(first.await);
        time.advance(WATCH_DEADLINE);
        assert_eq!(watch.await.fall, Fall::Lost);
        assert_eq!(port.1.load(Ordering::SeqCst), 1);
    }
}
