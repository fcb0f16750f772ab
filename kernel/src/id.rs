//! Identities: of actors, of their lives, of grants.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// One actor's identity, unique in this process and never used again.
///
/// ```
/// use neuroflow_kernel::ActorId;
/// assert_eq!(ActorId::NOBODY.to_string(), "0");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(u64);

impl ActorId {
    /// The sender of a message that comes from outside of any actor.
    pub const NOBODY: Self = Self(0);

    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number itself, for logs and metrics.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({})", self.0)
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of a supervised actor: 1 for the first, one more for each restart.
///
/// ```
/// use neuroflow_kernel::Generation;
/// assert!(Generation::FIRST < Generation::FIRST.next());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The first life.
    pub const FIRST: Self = Self(1);

    pub(crate) const UNBORN: Self = Self(0);

    /// The life after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The life of this number; there is no life 0.
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A grant's identity, carried in the header of every message sent through it.
///
/// ```
/// use neuroflow_kernel::GrantId;
/// assert_eq!(GrantId::OWNER.get(), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(u64);

impl GrantId {
    /// The full authority of whoever started the actor.
    pub const OWNER: Self = Self(0);

    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number itself, for logs and metrics.
    pub fn get(self) -> u64 {
        self.0
    }
}
