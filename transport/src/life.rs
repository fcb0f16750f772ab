//! One life of an actor on another node: an address that a restart of either makes stale.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, Clock, Down, Fall, Generation, Header, Moment, RawParcel, RawReplies, RemoteError,
    RemotePort, RemoteTarget, Request, WireRequest,
};

use crate::endpoint::Links;
use crate::watch::{self, Watcher};

/// Links to one start of one node: what was begun there later doesn't know our addresses.
struct Incarnation {
    links: Links,
    number: u64,
}

impl RemotePort for Incarnation {
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let Some((peer, link)) = self.links.link(target) else {
            return Err(RemoteError::Unreachable { target: target.to_string() });
        };
        if link.incarnation != self.number {
            let generation = target.generation().unwrap_or(Generation::FIRST);
            return Err(RemoteError::Stale { target: target.to_string(), generation });
        }
        Links::send_on((&peer, &link), target, header, parcel, replies, now)
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()> {
        self.links.ready(target, bytes)
    }

    fn down<'a>(&'a self, target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        let own = Self { links: self.links.clone(), number: self.number };
        Box::pin(watch::down(Arc::new(own), target))
    }

    fn clock(&self) -> &Clock {
        self.links.clock()
    }
}

impl Links {
    /// The address of the life that an actor of another node is in now; with `agent://*/<name>`, of a node
    /// that the placement chooses now. Once that life is over, of
    /// the actor or of its node, it answers [`Refusal::Stale`](neuroflow_kernel::Refusal::Stale) or
    /// [`StreamError::Stale`](neuroflow_kernel::StreamError::Stale).
    ///
    /// ```
    /// use neuroflow_kernel::{Address, Request, WireRequest};
    /// use neuroflow_transport::{LifeError, Links};
    /// async fn this_one<W: WireRequest>(links: &Links) -> Result<Address<Request<W>>, LifeError> {
    ///     links.this_life("agent://node-b/echo").await
    /// }
    /// ```
    ///
    /// # Errors
    /// Says that the text names no actor of a node, that there is none now, or that its node can't
    /// be reached.
    pub async fn this_life<W: WireRequest>(
        &self,
        target: &str,
    ) -> Result<Address<Request<W>>, LifeError> {
        let target = self.settled(target.parse()?)?;
        let unreachable = || RemoteError::Unreachable { target: target.to_string() };
        if target.node().is_some_and(|node| self.shared.is_own(node)) {
            let own = self.address::<W>(target.clone())?;
            return own.this_life().map_err(|_none| LifeError::Absent { target });
        }
        let (_, link) = self.link(&target).ok_or_else(unreachable)?;
        let port = Arc::new(Incarnation { links: self.clone(), number: link.incarnation });
        let asked = async {
            let watcher = Watcher::begin(Arc::clone(&port) as _, &target).await;
            watcher.map_err(|down| down.fall)?.life().ok_or(Fall::Absent)
        };
        let deadline = self.clock().now() + neuroflow_kernel::limits::CALL_DEADLINE;
        let life = self.clock().before(deadline, asked).await.unwrap_or(Err(Fall::Lost));
        match life {
            Ok(life) => Ok(Address::remote(port, target.in_life(life))),
            Err(Fall::Lost) => Err(unreachable().into()),
            Err(_ended) => Err(LifeError::Absent { target }),
        }
    }
}

impl Links {
    /// A target on one node: the placement's choice of this moment, if it names none.
    fn settled(&self, target: RemoteTarget) -> Result<RemoteTarget, RemoteError> {
        if target.node().is_some() {
            return Ok(target);
        }
        // Another key each time, so that many are spread.
        let key = self.shared.clock.now().since(Moment::ORIGIN).as_nanos();
        let placed = self.first_placed(&target, &key.to_le_bytes());
        let node = placed.ok_or_else(|| RemoteError::Unplaced { target: target.to_string() })?;
        Ok(target.on_node(&node.to_string()))
    }
}

/// Why there is no address of one life.
///
/// ```
/// use neuroflow_transport::LifeError;
/// let absent = LifeError::Absent { target: "agent://b/echo".parse()? };
/// assert!(absent.to_string().contains("agent://b/echo"));
/// # Ok::<(), neuroflow_kernel::RemoteError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LifeError {
    /// No such target, or no way to it.
    #[error("the node can't be asked which life its actor is in")]
    Remote(#[from] RemoteError),
    /// It has stopped, is being restarted, or isn't offered to this node.
    #[error("there is no life of {target} now")]
    Absent {
        /// Who was asked for.
        target: RemoteTarget,
    },
}
