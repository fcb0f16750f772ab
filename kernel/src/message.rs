//! What can be sent: messages between actors, and those that may also leave the process.

use std::fmt;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use crate::capability::Rights;
use crate::parcel::{Parcel, ParcelError, RawParcel};
use crate::reply::ReplySink;

/// What lies in a mailbox: usually an enum of an actor's commands.
///
/// ```
/// use neuroflow_kernel::{Message, Reply};
/// enum Counter {
///     Add(u64),
///     Total(Reply<u64>),
/// }
/// impl Message for Counter {
///     fn name(&self) -> &'static str {
///         match self {
///             Self::Add(_) => "add",
///             Self::Total(_) => "total",
///         }
///     }
/// }
/// assert_eq!(Counter::Add(1).name(), "add");
/// ```
pub trait Message: Send + 'static {
    /// The kind of message, for metrics, spans and post-mortems: a few fixed names.
    fn name(&self) -> &'static str;

    /// The rights that a sender needs for this message.
    fn required_rights(&self) -> Rights {
        Rights::NONE
    }

    /// The archive inside, if there is one: a post-mortem keeps it.
    fn archive(&self) -> Option<RawParcel> {
        None
    }
}

/// Wrap for `rkyv`'s bounds: everything that `#[derive(rkyv::Archive, rkyv::Serialize)]` gives a
/// type of owned data.
///
/// ```
/// fn is_archivable<T: neuroflow_kernel::Archivable>() {}
/// is_archivable::<String>();
/// ```
pub trait Archivable:
    rkyv::Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Send + Sync>
    + for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
    + Send
    + Sync
    + 'static
{
}

impl<T> Archivable for T where
    T: rkyv::Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Send + Sync>
        + for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
        + Send
        + Sync
        + 'static
{
}

/// A message that may cross a boundary: to another node, or to disk.
///
/// **The evolution rule.** A version's archived layout never changes. A change of any field is a
/// new version: keep the old type under a name of its own, raise [`VERSION`](Self::VERSION), and
/// let [`upgrade`](Self::upgrade) turn the old one into the new. A version that isn't known is
/// refused, never guessed.
///
/// ```
/// use neuroflow_kernel::{Parcel, WireMessage};
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Greeting { text: String }
/// impl WireMessage for Greeting {
///     const NAME: &'static str = "example.greeting";
///     const VERSION: u16 = 1;
/// }
/// let parcel = Parcel::archive(&Greeting { text: "hello".into() })?;
/// assert_eq!(parcel.get().text, "hello");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
pub trait WireMessage: Archivable {
    /// The name on the wire: dotted, lower case, and never given to another type.
    const NAME: &'static str;
    /// The layout's version, from 1.
    const VERSION: u16;
    /// Bytes that an archive may have.
    const SIZE_LIMIT: usize = crate::limits::MESSAGE_BYTES;

    /// Reads an archive of an older version.
    ///
    /// # Errors
    /// [`ParcelError::Version`] unless the implementation knows the version.
    fn upgrade(old: &RawParcel) -> Result<Self, ParcelError>
    where
        Self: Sized,
    {
        Err(ParcelError::Version { name: Self::NAME, known: Self::VERSION, found: old.version() })
    }
}

/// A wire message that is answered with a stream of another.
///
/// ```
/// use neuroflow_kernel::{WireMessage, WireRequest};
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Ping;
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Pong;
/// impl WireMessage for Ping { const NAME: &'static str = "example.ping"; const VERSION: u16 = 1; }
/// impl WireMessage for Pong { const NAME: &'static str = "example.pong"; const VERSION: u16 = 1; }
/// impl WireRequest for Ping { type Reply = Pong; }
/// ```
pub trait WireRequest: WireMessage {
    /// What comes back.
    type Reply: WireMessage;

    /// The rights that its sender needs, which may depend on what it says.
    fn rights(_request: &Self::Archived) -> Rights {
        Rights::NONE
    }

    /// What it belongs to, if what belongs together is to be handled in one place: a link that may choose
    /// the node takes the same one for the same text.
    fn affinity(_request: &Self::Archived) -> Option<&str> {
        None
    }
}

/// A wire request in a mailbox: the archive and the side that takes the replies.
///
/// An `Address<Request<W>>` may lead to an actor of this process or, through a
/// [`RemotePort`](crate::RemotePort), to one on another node.
///
/// ```
/// use neuroflow_kernel::{Message, Parcel, Request, WireMessage, WireRequest, reply_stream};
/// # #[derive(rkyv::Archive, rkyv::Serialize)] struct Ping;
/// # impl WireMessage for Ping { const NAME: &'static str = "example.ping"; const VERSION: u16 = 1; }
/// # impl WireRequest for Ping { type Reply = Ping; }
/// let (replies, _stream) = reply_stream();
/// let request = Request { parcel: Parcel::archive(&Ping)?, replies };
/// assert_eq!(request.name(), "example.ping");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
pub struct Request<W: WireRequest> {
    /// What is asked.
    pub parcel: Parcel<W>,
    /// Where the answers go.
    pub replies: ReplySink<Parcel<W::Reply>>,
}

impl<W: WireRequest> Message for Request<W> {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn required_rights(&self) -> Rights {
        W::rights(self.parcel.get())
    }

    fn archive(&self) -> Option<RawParcel> {
        Some(self.parcel.as_raw().clone())
    }
}

impl<W: WireRequest> fmt::Debug for Request<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("parcel", &self.parcel).finish_non_exhaustive()
    }
}
