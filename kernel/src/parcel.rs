//! An archive that is written once and read in place: mailbox item, wire frame, journal record.
#![expect(unsafe_code, reason = "reading an archive in place without validating it again")]

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;

use crate::limits::{ARCHIVE_ROOM, MAX_ARCHIVE_DEPTH};
use crate::message::WireMessage;

/// The identity of a message type on the wire: the FNV-1a hash of its name.
///
/// ```
/// use neuroflow_kernel::MessageId;
/// assert_ne!(MessageId::of("example.ping"), MessageId::of("example.pong"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// The id of a name. See <http://www.isthe.com/chongo/tech/comp/fnv/>.
    pub const fn of(name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }

    /// The hash.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for MessageId {
    fn from(hash: u64) -> Self {
        Self(hash)
    }
}

/// An archive whose type is only claimed: what arrives from a link or from disk.
///
/// ```
/// use neuroflow_kernel::{MessageId, RawParcel, WireMessage};
/// # #[derive(rkyv::Archive, rkyv::Serialize)] struct Ping;
/// # impl WireMessage for Ping { const NAME: &'static str = "example.ping"; const VERSION: u16 = 1; }
/// let claimed = RawParcel::new(MessageId::of("example.pong"), 1, &[]);
/// assert!(claimed.open::<Ping>().is_err());
/// ```
#[derive(Clone)]
pub struct RawParcel(Arc<Claimed>);

/// Behind one pointer: a queue has room for many parcels, and is mostly empty.
struct Claimed {
    bytes: AlignedVec,
    message: MessageId,
    version: u16,
}

impl RawParcel {
    /// Takes received bytes, copied once into an aligned buffer.
    pub fn new(message: MessageId, version: u16, bytes: &[u8]) -> Self {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        Self::from_aligned(message, version, aligned)
    }

    /// Takes a buffer that a link received into, without a copy.
    pub fn from_aligned(message: MessageId, version: u16, bytes: AlignedVec) -> Self {
        Self(Arc::new(Claimed { bytes, message, version }))
    }

    /// The bytes of the archive.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The claimed type.
    pub fn message(&self) -> MessageId {
        self.0.message
    }

    /// The claimed version.
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// Validates the archive as an `M`: once, at the boundary. An older version is upgraded.
    ///
    /// # Errors
    /// Says whether the type, the version, the size or the bytes are wrong.
    pub fn open<M: WireMessage>(self) -> Result<Parcel<M>, ParcelError> {
        if self.0.message != MessageId::of(M::NAME) {
            return Err(ParcelError::Type { expected: M::NAME, found: self.0.message });
        }
        if self.0.bytes.len() > M::SIZE_LIMIT {
            return Err(ParcelError::too_large::<M>(self.0.bytes.len()));
        }
        if self.0.version < M::VERSION {
            return Parcel::archive(&M::upgrade(&self)?);
        }
        if self.0.version > M::VERSION {
            return Err(self.other_version::<M>());
        }
        self.validate::<M>()?;
        Ok(Parcel { raw: self, message: PhantomData })
    }

    /// The archive as a `T`, validated: for [`WireMessage::upgrade`], which reads old layouts.
    ///
    /// # Errors
    /// [`ParcelError::Version`] if it's another layout than `T`'s, [`ParcelError::Invalid`] if the bytes
    /// aren't a `T`.
    pub fn read<T: WireMessage>(&self) -> Result<&T::Archived, ParcelError> {
        if self.0.version != T::VERSION {
            return Err(self.other_version::<T>());
        }
        self.validate::<T>()
    }

    fn other_version<M: WireMessage>(&self) -> ParcelError {
        ParcelError::Version { name: M::NAME, known: M::VERSION, found: self.0.version }
    }

    fn validate<M: WireMessage>(&self) -> Result<&M::Archived, ParcelError> {
        let archive = ArchiveValidator::with_max_depth(&self.0.bytes, MAX_DEPTH);
        let mut context = Validator::new(archive, SharedValidator::new());
        rkyv::api::access_with_context::<M::Archived, _, rancor::Error>(&self.0.bytes, &mut context)
            .map_err(|source| ParcelError::Invalid { name: M::NAME, source })
    }
}

impl fmt::Debug for RawParcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawParcel")
            .field("message", &self.0.message)
            .field("version", &self.0.version)
            .field("bytes", &self.0.bytes.len())
            .finish()
    }
}

/// A valid archive of an `M`, reference-counted; cloning it copies no bytes.
///
/// ```
/// use neuroflow_kernel::{Parcel, WireMessage};
/// # #[derive(rkyv::Archive, rkyv::Serialize)] struct Note { text: String }
/// # impl WireMessage for Note { const NAME: &'static str = "example.note"; const VERSION: u16 = 1; }
/// let parcel = Parcel::archive(&Note { text: "read in place".into() })?;
/// let received = parcel.as_raw().clone().open::<Note>()?;
/// assert_eq!(received.get().text, "read in place");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
pub struct Parcel<M> {
    // Invariant: `raw` holds a valid archive of an `M` at its end; it was written by `archive`
    // or checked by `open`, and nothing writes to it afterwards.
    raw: RawParcel,
    message: PhantomData<fn() -> M>,
}

impl<M: WireMessage> Parcel<M> {
    /// Archives `message`: the only time that its bytes are written.
    ///
    /// # Errors
    /// [`ParcelError::TooLarge`] past the type's limit.
    pub fn archive(message: &M) -> Result<Self, ParcelError> {
        // Most messages fit in, and so their buffer doesn't grow.
        let buffer = AlignedVec::with_capacity(ARCHIVE_ROOM);
        let bytes = rkyv::api::high::to_bytes_in::<_, rancor::Error>(message, buffer)
            .map_err(|source| ParcelError::Invalid { name: M::NAME, source })?;
        if bytes.len() > M::SIZE_LIMIT {
            return Err(ParcelError::too_large::<M>(bytes.len()));
        }
        let raw = RawParcel::from_aligned(MessageId::of(M::NAME), M::VERSION, bytes);
        Ok(Self { raw, message: PhantomData })
    }

    /// The message, read in place.
    pub fn get(&self) -> &M::Archived {
        // SAFETY: by the type's invariant the buffer holds a valid, aligned archive of `M` whose
        // root is at its end, which is where `access_unchecked` looks.
        unsafe { rkyv::access_unchecked::<M::Archived>(&self.raw.0.bytes) }
    }

    /// The untyped parcel, for a link or a journal.
    pub fn as_raw(&self) -> &RawParcel {
        &self.raw
    }
}

impl<M> Clone for Parcel<M> {
    fn clone(&self) -> Self {
        Self { raw: self.raw.clone(), message: PhantomData }
    }
}

impl<M> fmt::Debug for Parcel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parcel").field(&self.raw).finish()
    }
}

/// Why bytes aren't the message that they were taken for.
///
/// ```
/// use neuroflow_kernel::{MessageId, ParcelError, RawParcel, WireMessage};
/// # #[derive(rkyv::Archive, rkyv::Serialize)] struct Ping;
/// # impl WireMessage for Ping { const NAME: &'static str = "example.ping"; const VERSION: u16 = 1; }
/// let newer = RawParcel::new(MessageId::of(Ping::NAME), 9, &[]);
/// assert!(matches!(newer.open::<Ping>(), Err(ParcelError::Version { found: 9, .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParcelError {
    /// Another type's archive.
    #[error("expected a {expected} but the parcel says type {:#018x}", found.get())]
    Type {
        /// The type that was asked for.
        expected: &'static str,
        /// What the parcel says it is.
        found: MessageId,
    },
    /// A version that this build doesn't know.
    #[error("{name} has version {found} here, and this build knows versions up to {known}")]
    Version {
        /// The message.
        name: &'static str,
        /// The newest version that can be read.
        known: u16,
        /// The parcel's.
        found: u16,
    },
    /// More bytes than the type allows.
    #[error("{name} has {bytes} bytes and may have {limit}")]
    TooLarge {
        /// The message.
        name: &'static str,
        /// Its archive's bytes.
        bytes: usize,
        /// The type's limit in bytes.
        limit: usize,
    },
    /// Bytes that aren't a valid archive.
    #[error("not a valid archive of {name}")]
    Invalid {
        /// The message.
        name: &'static str,
        /// What `rkyv` found.
        #[source]
        source: rancor::Error,
    },
}

impl ParcelError {
    fn too_large<M: WireMessage>(bytes: usize) -> Self {
        Self::TooLarge { name: M::NAME, bytes, limit: M::SIZE_LIMIT }
    }
}

const MAX_DEPTH: Option<NonZeroUsize> = NonZeroUsize::new(MAX_ARCHIVE_DEPTH);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct OrderOne {
        item: String,
    }
    impl WireMessage for OrderOne {
        const NAME: &'static str = "test.order";
        const VERSION: u16 = 1;
    }

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Order {
        item: String,
        count: u32,
    }
    impl WireMessage for Order {
        const NAME: &'static str = "test.order";
        const VERSION: u16 = 2;
        const SIZE_LIMIT: usize = 256;

        fn upgrade(old: &RawParcel) -> Result<Self, ParcelError> {
            Ok(Self { item: old.read::<OrderOne>()?.item.to_string(), count: 1 })
        }
    }

    fn received(parcel: &RawParcel) -> RawParcel {
        RawParcel::new(parcel.message(), parcel.version(), parcel.as_bytes())
    }

    #[test]
    fn an_older_version_is_upgraded_and_a_newer_one_refused() {
        let old = Parcel::archive(&OrderOne { item: "tea".into() }).unwrap();
        let order = received(old.as_raw()).open::<Order>().unwrap();
        assert_eq!(order.get().item, "tea");
        assert_eq!(order.get().count, 1);

        let new = Parcel::archive(&Order { item: "tea".into(), count: 3 }).unwrap();
        let refused = received(new.as_raw()).open::<OrderOne>().unwrap_err();
        assert!(matches!(refused, ParcelError::Version { known: 1, found: 2, .. }));
        let ancient = RawParcel::new(MessageId::of("test.order"), 0, new.as_raw().as_bytes());
        assert!(matches!(ancient.open::<Order>(), Err(ParcelError::Version { found: 0, .. })));
        // The bytes of one layout may well be valid as another.
        let other = new.as_raw().read::<OrderOne>();
        assert!(matches!(other, Err(ParcelError::Version { known: 1, found: 2, .. })));
    }

    #[test]
    fn size_is_limited_on_both_sides() {
        let large = Order { item: "x".repeat(300), count: 1 };
        assert!(matches!(Parcel::archive(&large), Err(ParcelError::TooLarge { .. })));
        let claimed = RawParcel::new(MessageId::of("test.order"), 2, &[0; 300]);
        assert!(matches!(claimed.open::<Order>(), Err(ParcelError::TooLarge { .. })));
    }

    #[test]
    fn hostile_bytes_are_refused_and_never_read() {
        let good = Parcel::archive(&Order { item: "a longer text than inline".into(), count: 3 });
        let good = good.unwrap();
        let bytes = good.as_raw().as_bytes();
        // Chance may make a message of changed bytes; what validates must be readable without
        // leaving the buffer.
        let read = |bytes: &[u8]| {
            let claimed = RawParcel::new(MessageId::of(Order::NAME), 2, bytes);
            claimed.open::<Order>().map(|order| order.get().item.len()).ok()
        };
        assert_eq!(read(bytes), Some(25));
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut hostile = bytes.to_vec();
                hostile[at] ^= flip;
                assert!(read(&hostile).unwrap_or_default() <= bytes.len());
            }
            assert!(read(&bytes[..at]).unwrap_or_default() <= at, "cut at {at}");
        }
        assert_eq!(read(&[]), None);
    }

    #[derive(rkyv::Archive, rkyv::Serialize)]
    #[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rancor::Source)))]
    struct Nested {
        #[rkyv(omit_bounds)]
        inner: Option<Box<Nested>>,
    }
    impl WireMessage for Nested {
        const NAME: &'static str = "test.nested";
        const VERSION: u16 = 1;
    }

    fn nested(depth: usize) -> Nested {
        (0..depth).fold(Nested { inner: None }, |inner, _| Nested { inner: Some(Box::new(inner)) })
    }

    #[test]
    fn hostile_bytes_do_not_choose_how_deep_the_stack_grows() {
        let fair = Parcel::archive(&nested(MAX_ARCHIVE_DEPTH / 2)).unwrap();
        assert!(received(fair.as_raw()).open::<Nested>().is_ok());
        let deep = Parcel::archive(&nested(MAX_ARCHIVE_DEPTH * 2)).unwrap();
        let refused = received(deep.as_raw()).open::<Nested>();
        assert!(matches!(refused, Err(ParcelError::Invalid { .. })));

        // A chain of boxes as long as the size limit allows, which no sender could have built.
        let links = Nested::SIZE_LIMIT / 8;
        let mut chain = vec![0; 8];
        for _ in 1..links {
            chain.extend([1, 0, 0, 0]);
            chain.extend((-12_i32).to_le_bytes());
        }
        let refused = RawParcel::new(MessageId::of(Nested::NAME), 1, &chain).open::<Nested>();
        assert!(matches!(refused, Err(ParcelError::Invalid { .. })));
    }

    #[test]
    fn cloning_shares_the_bytes() {
        let parcel = Parcel::archive(&OrderOne { item: "tea".into() }).unwrap();
        let clone = parcel.clone();
        assert_eq!(parcel.as_raw().as_bytes().as_ptr(), clone.as_raw().as_bytes().as_ptr());
    }
}
