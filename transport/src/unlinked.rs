//! The port of a node that has no links: it refuses, in a typed way.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Clock, Header, Moment, RawParcel, RawReplies, RemoteError, RemotePort, RemoteTarget,
};

/// The port of a node without links: every send is refused as
/// [`Unsupported`](RemoteError::Unsupported).
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use std::sync::Arc;
/// use neuroflow_kernel::{Address, AskError, Clock, Header, Request, WireMessage, WireRequest};
/// use neuroflow_transport::Unlinked;
/// # #[derive(rkyv::Archive, rkyv::Serialize)] struct Ping;
/// # impl WireMessage for Ping { const NAME: &'static str = "example.ping"; const VERSION: u16 = 1; }
/// # impl WireRequest for Ping { type Reply = Ping; }
/// let port = Arc::new(Unlinked::new(Clock::system()));
/// let far: Address<Request<Ping>> = Address::remote(port, "agent://other/ping".parse()?);
/// let refused = far.ask(Header::new(), &Ping).await.unwrap_err();
/// assert!(matches!(refused, AskError::Refused(_)));
/// # Ok::<(), neuroflow_kernel::RemoteError>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Unlinked {
    clock: Clock,
}

impl Unlinked {
    /// On this kernel's clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

impl RemotePort for Unlinked {
    fn send(
        &self,
        target: &RemoteTarget,
        _header: &Header,
        _parcel: RawParcel,
        _replies: Arc<dyn RawReplies>,
        _now: Moment,
    ) -> Result<(), RemoteError> {
        Err(RemoteError::Unsupported { target: target.to_string() })
    }

    fn ready<'a>(&'a self, _: &'a RemoteTarget, _: usize) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}
