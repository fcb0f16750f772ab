//! Grants: what an address may be used for, narrowed and taken back.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::budget::Budget;
use crate::clock::Moment;
use crate::id::GrantId;
use crate::limits::MAX_GRANT_DEPTH;

/// A set of up to 32 rights. What each bit means, the actor that checks it defines.
///
/// ```
/// use neuroflow_kernel::Rights;
/// const READ: Rights = Rights::bit(0);
/// const WRITE: Rights = Rights::bit(1);
/// assert!(READ.union(WRITE).contains(READ));
/// assert!(!READ.contains(WRITE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u32);

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Every right, those of the future too.
    pub const ALL: Self = Self(u32::MAX);

    /// The right number `index`, below 32.
    ///
    /// # Panics
    /// If there is no such right; in a constant, the compiler says so.
    pub const fn bit(index: u32) -> Self {
        assert!(index < 32, "there are 32 rights");
        Self(1 << index)
    }

    /// One bit for each.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The rights of these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The rights of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a derived capability gives up. Everything left out stays as it is.
///
/// ```
/// use neuroflow_kernel::{Restriction, Rights};
/// let restriction = Restriction::new().rights(Rights::bit(0)).uses(10);
/// assert!(format!("{restriction:?}").contains("10"));
/// ```
#[derive(Clone, Default)]
pub struct Restriction {
    rights: Option<Rights>,
    expires: Option<Moment>,
    uses: Option<u64>,
    budget: Option<Budget>,
    policy: Option<Arc<dyn Any + Send + Sync>>,
}

impl Restriction {
    /// Gives up nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps only these rights, of those that are there.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// Ends at this moment, or before if the parent does.
    #[must_use]
    pub fn expires(mut self, at: Moment) -> Self {
        self.expires = Some(at);
        self
    }

    /// Allows so many messages, all derived capabilities counted.
    #[must_use]
    pub fn uses(mut self, uses: u64) -> Self {
        self.uses = Some(uses);
        self
    }

    /// Lets no message spend more than this.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Ties a policy to the capability, for the receiving actor to read: a value of this process, so no
    /// remote actor can. The policy nearest to the root wins, so that a holder can't loosen what was tied
    /// on before.
    #[must_use]
    pub fn policy<P: Any + Send + Sync>(mut self, policy: P) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    pub(crate) fn has_policy(&self) -> bool {
        self.policy.is_some()
    }
}

impl fmt::Debug for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restriction")
            .field("rights", &self.rights)
            .field("expires", &self.expires)
            .field("uses", &self.uses)
            .field("budget", &self.budget)
            .field("policy", &self.policy.is_some())
            .finish()
    }
}

/// One link in a chain of attenuations, checked for every message sent through it.
///
/// It can't be made from outside the kernel: it comes with an [`Address`](crate::Address).
///
/// ```
/// fn may_spend(grant: &neuroflow_kernel::Grant) -> Option<u64> {
///     grant.budget().remaining()
/// }
/// ```
pub struct Grant {
    id: GrantId,
    rights: Rights,
    expires: Moment,
    uses: Option<AtomicU64>,
    budget: Budget,
    policy: Option<Arc<dyn Any + Send + Sync>>,
    revoked: AtomicBool,
    parent: Option<Arc<Grant>>,
}

impl Grant {
    pub(crate) fn derive(
        parent: Option<&Arc<Self>>,
        restriction: Restriction,
    ) -> Result<Arc<Self>, AttenuateError> {
        let depth = parent.map_or(0, |parent| parent.chain().count());
        if depth >= MAX_GRANT_DEPTH {
            return Err(AttenuateError::TooDeep);
        }
        let rights = parent.map_or(Rights::ALL, |parent| parent.rights);
        let expires = parent.map_or(Moment::NEVER, |parent| parent.expires);
        let budget = parent.map_or(Budget::UNLIMITED, |parent| parent.budget);
        Ok(Arc::new(Self {
            id: GrantId::next(),
            rights: rights.intersection(restriction.rights.unwrap_or(Rights::ALL)),
            expires: expires.min(restriction.expires.unwrap_or(Moment::NEVER)),
            uses: restriction.uses.map(AtomicU64::new),
            budget: budget.min(restriction.budget.unwrap_or(Budget::UNLIMITED)),
            policy: restriction.policy,
            revoked: AtomicBool::new(false),
            parent: parent.cloned(),
        }))
    }

    /// This grant's identity.
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// What it allows.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// What one message through it may spend.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// The policy of this type nearest to the root of the chain.
    pub fn policy<P: Any + Send + Sync>(&self) -> Option<&P> {
        self.chain().filter_map(|grant| grant.policy.as_ref()?.downcast_ref()).last()
    }

    /// From this grant to the root.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |grant| grant.parent.as_deref())
    }

    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Whether a message that needs `rights` may pass now; counts as no use.
    pub(crate) fn check(&self, rights: Rights, now: impl FnOnce() -> Moment) -> Result<(), Denied> {
        if !self.rights.contains(rights) {
            return Err(Denied::Rights { needed: rights, held: self.rights });
        }
        if self.chain().any(|grant| grant.revoked.load(Ordering::Acquire)) {
            return Err(Denied::Revoked);
        }
        if self.expires != Moment::NEVER && now() >= self.expires {
            return Err(Denied::Expired);
        }
        Ok(())
    }

    /// Takes one use from every grant of the chain, or from none.
    pub(crate) fn take_use(&self) -> Result<(), Denied> {
        let counters = || self.chain().filter_map(|grant| grant.uses.as_ref());
        let take = |counter: &AtomicU64| {
            counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        };
        for (taken, counter) in counters().enumerate() {
            if take(counter).is_err() {
                self.give_back(taken);
                return Err(Denied::UsedUp);
            }
        }
        Ok(())
    }

    /// Gives the use back of a message that wasn't delivered.
    pub(crate) fn give_back_use(&self) {
        self.give_back(usize::MAX);
    }

    fn give_back(&self, counters: usize) {
        let used = self.chain().filter_map(|grant| grant.uses.as_ref());
        for counter in used.take(counters) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("id", &self.id)
            .field("rights", &self.rights)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

/// Why a capability doesn't allow a message.
///
/// ```
/// use neuroflow_kernel::Denied;
/// assert_eq!(Denied::Revoked.to_string(), "the capability was revoked");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// A right is missing.
    #[error("the message needs rights {needed:?} and the capability has {held:?}")]
    Rights {
        /// What the message needs.
        needed: Rights,
        /// What the capability has.
        held: Rights,
    },
    /// Its owner took it back, or one that it was derived from.
    #[error("the capability was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the capability has expired")]
    Expired,
    /// As many messages as it allows have passed.
    #[error("the capability is used up")]
    UsedUp,
}

/// Why a capability can't be derived.
///
/// ```
/// assert!(neuroflow_kernel::AttenuateError::TooDeep.to_string().contains("derived"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttenuateError {
    /// The chain is at its limit.
    #[error("a capability can be derived {MAX_GRANT_DEPTH} times from its owner's")]
    TooDeep,
    /// The owner's full address can't be revoked, only what was derived from it.
    #[error("only a derived capability can be revoked")]
    OwnersOwn,
    /// A remote actor would never see the policy, and do what it forbids.
    #[error("a remote actor can't read a policy; tie it to the actor's address on its own node")]
    Unreadable,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::ORIGIN;
    const A: Rights = Rights::bit(0);
    const B: Rights = Rights::bit(1);

    fn derive(parent: Option<&Arc<Grant>>, restriction: Restriction) -> Arc<Grant> {
        Grant::derive(parent, restriction).unwrap()
    }

    #[test]
    fn a_derived_grant_never_has_more_than_its_parent() {
        let parent = derive(None, Restriction::new().rights(A).budget(Budget::units(5)));
        let child = derive(
            Some(&parent),
            Restriction::new().rights(Rights::ALL).budget(Budget::UNLIMITED).expires(Moment::NEVER),
        );
        assert_eq!(child.rights(), A);
        assert_eq!(child.budget(), Budget::units(5));
        assert_eq!(child.check(B, || NOW), Err(Denied::Rights { needed: B, held: A }));
    }

    #[test]
    fn revoking_a_grant_revokes_all_below_and_none_above() {
        let root = derive(None, Restriction::new());
        let middle = derive(Some(&root), Restriction::new());
        let leaf = derive(Some(&middle), Restriction::new());
        middle.revoke();
        assert_eq!(leaf.check(A, || NOW), Err(Denied::Revoked));
        assert_eq!(root.check(A, || NOW), Ok(()));
    }

    #[test]
    fn uses_are_counted_over_the_whole_chain_and_taken_all_or_none() {
        let parent = derive(None, Restriction::new().uses(2));
        let child = derive(Some(&parent), Restriction::new().uses(5));
        assert_eq!(child.take_use(), Ok(()));
        assert_eq!(parent.take_use(), Ok(()));
        assert_eq!(child.take_use(), Err(Denied::UsedUp));
        assert_eq!(child.uses.as_ref().unwrap().load(Ordering::SeqCst), 4);
        child.give_back_use();
        assert_eq!(child.take_use(), Ok(()));
    }

    #[test]
    fn the_policy_nearest_to_the_root_wins() {
        let root = derive(None, Restriction::new().policy("strict"));
        let child = derive(Some(&root), Restriction::new().policy("loose"));
        assert_eq!(child.policy::<&str>(), Some(&"strict"));
        assert_eq!(child.policy::<u8>(), None);
    }

    #[test]
    fn a_chain_has_a_bound() {
        let mut grant = derive(None, Restriction::new());
        for _ in 1..MAX_GRANT_DEPTH {
            grant = derive(Some(&grant), Restriction::new());
        }
        assert_eq!(
            Grant::derive(Some(&grant), Restriction::new()).unwrap_err(),
            AttenuateError::TooDeep
        );
    }

    #[test]
    fn an_expiry_ends_it() {
        let at = NOW + std::time::Duration::from_secs(1);
        let grant = derive(None, Restriction::new().expires(at));
        assert_eq!(grant.check(A, || NOW), Ok(()));
        assert_eq!(grant.check(A, || at), Err(Denied::Expired));
    }
}
