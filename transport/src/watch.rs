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
use crate::limits::{PEER_WATCHES, WATCH_PAUSE};

/// The name under which watches are asked for.
const NAME: &str = "neuroflow.watch";

/// Whether this is the name under which watches are asked for.
pub(crate) fn is_service(name: &str) -> bool {
    name == NAME
}

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

/// A watch over a peer's actor, from when the peer has said that it watches.
pub(crate) struct Watcher {
    replies: neuroflow_kernel::ReplyStream<Parcel<Watched>>,
    generation: Option<Generation>,
}

impl Watcher {
    /// Begins to watch, through this port. While there is no room for a watch, here or there, it waits: that says
    /// nothing about the actor.
    pub(crate) async fn begin(
        port: Arc<dyn RemotePort>,
        target: &RemoteTarget,
    ) -> Result<Self, Down> {
        let generation = target.generation();
        let ends = |fall| Down::new(generation, fall);
        let service = target.node().map(|node| format!("agent://{node}/{NAME}"));
        let service = service.and_then(|service| service.parse::<RemoteTarget>().ok());
        let service = service.ok_or_else(|| ends(Fall::Absent))?;
        let watch = Watch {
            name: target.name().to_owned(),
            generation: generation.map_or(0, Generation::get),
        };
        let watch = Parcel::archive(&watch).map_err(|_too_large| ends(Fall::Absent))?;
        loop {
            let replies = ask(&port, &service, watch.clone()).await.map_err(ends)?;
            let mut watcher = Self { replies, generation };
            let Err(unwatched) = watcher.hear().await else { return Ok(watcher) };
            match unwatched {
                Unwatched::Down(down) => return Err(down),
                Unwatched::NoRoom => port.clock().sleep(WATCH_PAUSE).await,
            }
        }
    }

    /// The life that is there.
    pub(crate) fn life(&self) -> Option<Generation> {
        self.generation
    }

    /// Waits for the end.
    async fn down(mut self) -> Down {
        loop {
            match self.hear().await {
                Ok(()) => {}
                Err(Unwatched::Down(down)) => return down,
                // The peer has said that it watches, and what it says then is an end.
                Err(Unwatched::NoRoom) => return Down::new(self.generation, Fall::Lost),
            }
        }
    }

    /// That the actor is there, or why no more is heard of it.
    async fn hear(&mut self) -> Result<(), Unwatched> {
        let fall = match self.replies.next().await {
            Some(Ok(said)) => {
                let said = said.get();
                self.generation = Generation::new(said.generation.to_native()).or(self.generation);
                if said.fall == STANDS {
                    return Ok(());
                }
                Fall::from_code(said.fall).unwrap_or(Fall::Failed)
            }
            Some(Err(StreamError::Overloaded)) => return Err(Unwatched::NoRoom),
            Some(Err(StreamError::Unknown | StreamError::Stale)) => Fall::Absent,
            Some(Err(_)) | None => Fall::Lost,
        };
        Err(Unwatched::Down(Down::new(self.generation, fall)))
    }
}

/// Why nothing is watched.
enum Unwatched {
    Down(Down),
    /// The peer has as many watches of this node as it may, or as many calls.
    NoRoom,
}

/// Asks for a watch, as soon as there is room for it on the way.
async fn ask(
    port: &Arc<dyn RemotePort>,
    service: &RemoteTarget,
    parcel: Parcel<Watch>,
) -> Result<neuroflow_kernel::ReplyStream<Parcel<Watched>>, Fall> {
    let bytes = parcel.as_raw().as_bytes().len();
    let address = Address::<Request<Watch>>::remote(Arc::clone(port), service.clone());
    let (sink, replies) = reply_stream();
    let mut request = Request { parcel, replies: sink };
    // Tried here, for `tell` would also wait for a node that can't be reached.
    while let Err(unsent) = address.try_tell(Header::new(), request) {
        match unsent.reason {
            neuroflow_kernel::Refusal::Overloaded { .. } => {
                request = unsent.message;
                port.ready(service, bytes).await;
                tokio::task::yield_now().await;
            }
            neuroflow_kernel::Refusal::Stale { .. } => return Err(Fall::Absent),
            _ => return Err(Fall::Lost),
        }
    }
    Ok(replies)
}

/// Waits for the end of a peer's actor.
pub(crate) async fn down(port: Arc<dyn RemotePort>, target: &RemoteTarget) -> Down {
    match Watcher::begin(port, target).await {
        Ok(watcher) => watcher.down().await,
        Err(down) => down,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use neuroflow_kernel::{Clock, ManualClock, RawReplies, RemoteError};

    use super::*;

    /// A port that has no room at first, or never, on the way or at its end, and counts who tries.
    struct Full {
        clock: Clock,
        tries: AtomicUsize,
        on_the_way: bool,
    }

    impl Full {
        fn new(clock: Clock, on_the_way: bool) -> Arc<Self> {
            Arc::new(Self { clock, tries: AtomicUsize::new(0), on_the_way })
        }
    }

    impl RemotePort for Full {
        fn send(
            &self,
            target: &RemoteTarget,
            _: &Header,
            _: RawParcel,
            replies: Arc<dyn RawReplies>,
            _: Moment,
        ) -> Result<(), RemoteError> {
            let before = self.tries.fetch_add(1, Ordering::SeqCst);
            if self.on_the_way {
                return Err(RemoteError::Saturated { target: target.to_string() });
            }
            replies.fail(if before < 3 { StreamError::Overloaded } else { StreamError::Unknown });
            Ok(())
        }

        fn ready<'a>(&'a self, _: &'a RemoteTarget, _: usize) -> BoxFuture<'a, ()> {
            Box::pin(std::future::pending())
        }

        fn clock(&self) -> &Clock {
            &self.clock
        }
    }

    async fn is_pending(watch: &mut Pin<&mut impl Future<Output = Down>>) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(watch.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_watch_that_finds_no_room_says_nothing_of_the_actor() {
        let time = ManualClock::new();
        let port = Full::new(time.clock(), true);
        let target: RemoteTarget = "agent://a/echo".parse().unwrap();
        let mut watch = std::pin::pin!(down(Arc::clone(&port) as _, &target));
        assert!(is_pending(&mut watch).await);
        time.advance(std::time::Duration::from_hours(1));
        assert!(is_pending(&mut watch).await);
        assert_eq!(port.tries.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_watch_that_the_peer_has_no_room_for_is_asked_for_again() {
        let time = ManualClock::new();
        let port = Full::new(time.clock(), false);
        let target: RemoteTarget = "agent://a/echo".parse().unwrap();
        let mut watch = std::pin::pin!(down(Arc::clone(&port) as _, &target));
        for tries in 1..=3 {
            assert!(is_pending(&mut watch).await);
            assert_eq!(port.tries.load(Ordering::SeqCst), tries);
            time.advance(WATCH_PAUSE);
        }
        assert_eq!(watch.await.fall, Fall::Absent);
    }
}
