//! The node whose actors capabilities are about: what it has out, and what peers present.
//!
//! Long, because all of it is one table behind one lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use neuroflow_kernel::{
    Address, Clock, Generation, Header, MessageId, Moment, Parcel, RawParcel, Request, StreamError,
    WireMessage, WireRequest,
};
use ring::rand::SecureRandom;

use super::token::{BlockKey, Chain, Grant, Presented, Token};
use super::{CapabilityError, CapabilityId, CapabilityToken, Terms, restriction};
use crate::endpoint::Links;
use crate::export::{Asker, Delivery, Exported, Service, Source};
use crate::identity::{NodeId, Trust};
use crate::limits::{CAPABILITY_DERIVED, CAPABILITY_LIFE, MAX_CAPABILITIES, PEER_CAPABILITIES};

/// What the names of presented capabilities begin with.
pub(super) const HELD: &str = "neuroflow.held.";

/// The name under which a token's messages are sent: the hash of its bytes.
pub(super) fn held_name(token: &Token) -> String {
    let bytes = token.parcel().as_raw().as_bytes();
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    HELD.to_owned() + &HEXLOWER.encode(&digest.as_ref()[..16])
}

/// All capabilities that a node has out.
pub(crate) struct Capabilities {
    node: NodeId,
    incarnation: u64,
    /// Says who was shut out: such a node's signature hands nothing on.
    trust: Trust,
    clock: Clock,
    /// What marks the ids of first blocks.
    mark: RandomState,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Out {
    issued: HashMap<CapabilityId, Issued>,
    /// Derived ones that were taken back, and when none of them can be valid any more; the first ones are just
    /// gone.
    revoked: HashMap<CapabilityId, Moment>,
    presented: HashMap<NodeId, HashMap<String, Known>>,
}

impl Out {
    /// Forgets what has ended.
    fn purge(&mut self, now: Moment) {
        self.issued.retain(|_, issued| issued.expires > now);
        if self.issued.is_empty() {
            self.revoked.clear();
        } else if self.is_full() {
            self.revoked.retain(|_, until| *until > now);
        }
    }

    fn is_full(&self) -> bool {
        self.issued.len().saturating_add(self.revoked.len()) >= MAX_CAPABILITIES
    }
}

/// A first block.
struct Issued {
    holder: NodeId,
    actor: Arc<dyn Exported>,
    expires: Moment,
    revoked: bool,
    /// What holders have derived from it, as far as it was presented: their uses are counted here.
    derived: HashMap<BlockKey, Derived>,
}

struct Derived {
    holder: NodeId,
    ids: Vec<CapabilityId>,
    /// The derived blocks that it's derived from, the first one first.
    above: Vec<BlockKey>,
    /// How many are derived from it, and from those.
    below: usize,
    expires: Moment,
    actor: Arc<dyn Exported>,
}

impl Issued {
    /// Takes a block more behind those `above` it, each of which has fewer below itself than are free: so what was
    /// handed to one holder leaves as much again for those of others.
    fn derive(
        &mut self,
        key: BlockKey,
        derived: Derived,
        revoked: &HashMap<CapabilityId, Moment>,
        now: Moment,
    ) -> Result<(), CapabilityError> {
        if !self.has_room(&derived.above) {
            self.forget(revoked, now);
        }
        if !self.has_room(&derived.above) {
            return Err(CapabilityError::TooMany);
        }
        for above in &derived.above {
            if let Some(above) = self.derived.get_mut(above) {
                above.below = above.below.saturating_add(1);
            }
        }
        self.derived.insert(key, derived);
        Ok(())
    }

    fn has_room(&self, above: &[BlockKey]) -> bool {
        let free = CAPABILITY_DERIVED.saturating_sub(self.derived.len());
        let below = above.iter().filter_map(|key| self.derived.get(key)).map(|block| block.below);
        free > 0 && below.into_iter().all(|below| below < free)
    }

    /// What can't be used again needs no count of its uses.
    fn forget(&mut self, revoked: &HashMap<CapabilityId, Moment>, now: Moment) {
        let is_over = |derived: &mut Derived| {
            derived.expires <= now || derived.ids.iter().any(|id| revoked.contains_key(id))
        };
        let over: Vec<Derived> =
            self.derived.extract_if(|_, derived| is_over(derived)).map(|(_, over)| over).collect();
        for above in over.iter().flat_map(|derived| &derived.above) {
            if let Some(above) = self.derived.get_mut(above) {
                above.below = above.below.saturating_sub(1);
            }
        }
    }
}

/// What became of a token that was presented.
#[derive(Clone)]
struct Known {
    outcome: Result<Arc<dyn Exported>, StreamError>,
    /// When it can be forgotten.
    until: Moment,
}

impl Capabilities {
    pub(crate) fn new(node: NodeId, incarnation: u64, trust: Trust, clock: Clock) -> Arc<Self> {
        let mark = RandomState::new();
        Arc::new(Self { node, incarnation, trust, clock, mark, out: Mutex::default() })
    }

    /// Takes back what a node holds, and what it has handed on. What of that wasn't presented yet is refused when
    /// it is.
    pub(crate) fn shut_out(&self, node: &NodeId) {
        let mut out = self.out();
        for issued in out.issued.values_mut() {
            if issued.holder == *node {
                issued.revoked = true;
                issued.actor.revoke();
            }
            let derived = issued.derived.values().filter(|derived| derived.holder == *node);
            derived.for_each(|derived| derived.actor.revoke());
        }
    }

    /// An id for a first block. Half of it says that it's one, so that one that has ended needn't be remembered
    /// when it's taken back.
    fn first_id(&self) -> Result<CapabilityId, CapabilityError> {
        let CapabilityId(mut id) = random_id()?;
        let (random, mark) = id.split_at_mut(8);
        mark.copy_from_slice(&self.mark.hash_one(&*random).to_le_bytes());
        Ok(CapabilityId(id))
    }

    /// Whether this may be the id of a first block: it's that of no derived one which is taken.
    fn is_first(&self, CapabilityId(id): &CapabilityId) -> bool {
        let (random, mark) = id.split_at(8);
        mark == self.mark.hash_one(random).to_le_bytes()
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment that a time of the wall stands for.
    fn moment(&self, at_ms: u64) -> Moment {
        self.clock.now() + Duration::from_millis(at_ms.saturating_sub(self.clock.unix_ms()))
    }

    fn issue(
        &self,
        id: CapabilityId,
        holder: NodeId,
        expires: Moment,
        actor: Arc<dyn Exported>,
    ) -> Result<(), CapabilityError> {
        let now = self.clock.now();
        let mut out = self.out();
        out.purge(now);
        if out.is_full() {
            return Err(CapabilityError::TooMany);
        }
        let issued = Issued { holder, actor, expires, revoked: false, derived: HashMap::new() };
        out.issued.insert(id, issued);
        Ok(())
    }

    fn revoke(&self, id: CapabilityId) -> Result<(), CapabilityError> {
        let mut out = self.out();
        if let Some(issued) = out.issued.get_mut(&id) {
            issued.revoked = true;
            issued.actor.revoke();
            return Ok(());
        }
        if self.is_first(&id) {
            // It has ended, and so has what was derived from it.
            return Ok(());
        }
        out.purge(self.clock.now());
        // What it's derived from, if that still is valid, is among these.
        let Some(until) = out.issued.values().map(|issued| issued.expires).max() else {
            return Ok(());
        };
        if out.is_full() {
            return Err(CapabilityError::TooMany);
        }
        out.revoked.insert(id, until);
        let derived = out.issued.values().flat_map(|issued| issued.derived.values());
        for derived in derived.filter(|derived| derived.ids.last() == Some(&id)) {
            derived.actor.revoke();
        }
        Ok(())
    }

    /// Looks at what a peer presents under a name.
    fn present(&self, peer: NodeId, name: &str, parcel: Parcel<Chain>) {
        let token = Token::from_parcel(parcel);
        let now = self.clock.now();
        let known = match token {
            // Under a wrong name it would take the place of another.
            Ok(token) if held_name(&token) != name => return,
            Ok(token) => {
                let outcome = self.admit(peer, &token).map_err(|error| error.to_stream_error());
                let until = match &outcome {
                    Ok(_) => self.moment(token.last().expires_ms),
                    Err(_) => now,
                };
                // A little longer than it's valid, so that its holder is told that it expired.
                Known { outcome, until: until + REMEMBERED }
            }
            Err(error) => {
                let outcome = Err(error.to_stream_error());
                Known { outcome, until: now + REMEMBERED }
            }
        };
        let mut out = self.out();
        let presented = out.presented.entry(peer).or_default();
        if presented.len() >= PEER_CAPABILITIES {
            presented.retain(|_, known| known.until > now);
        }
        if presented.len() < PEER_CAPABILITIES || presented.contains_key(name) {
            presented.insert(name.to_owned(), known);
        }
    }

    fn admit(&self, peer: NodeId, token: &Token) -> Result<Arc<dyn Exported>, CapabilityError> {
        let now_ms = self.clock.unix_ms();
        let blocks = token.verify(self.node, self.incarnation, peer, now_ms)?;
        if blocks.iter().skip(1).any(|(_, grant)| self.is_first(&grant.id)) {
            return Err(CapabilityError::Forged);
        }
        if blocks.iter().any(|(_, grant)| self.trust.is_revoked(&grant.holder)) {
            return Err(CapabilityError::Revoked);
        }
        let mut out = self.out();
        let Out { issued, revoked, .. } = &mut *out;
        if blocks.iter().any(|(_, grant)| revoked.contains_key(&grant.id)) {
            return Err(CapabilityError::Revoked);
        }
        // What is gone was out, for the signature says so: it has expired.
        let first = token.first().id;
        let issued = issued.get_mut(&first).ok_or(CapabilityError::Expired)?;
        if issued.revoked {
            return Err(CapabilityError::Revoked);
        }
        let mut actor = Arc::clone(&issued.actor);
        let (mut ids, mut above) = (Vec::new(), Vec::new());
        for (key, grant) in blocks.into_iter().skip(1) {
            ids.push(grant.id);
            if let Some(derived) = issued.derived.get(&key) {
                actor = Arc::clone(&derived.actor);
            } else {
                let expires = self.moment(grant.expires_ms);
                actor = actor.narrow(restriction(grant.rights, grant.uses, expires))?;
                let (ids, above, actor) = (ids.clone(), above.clone(), Arc::clone(&actor));
                let derived =
                    Derived { holder: grant.holder, ids, above, below: 0, expires, actor };
                issued.derive(key, derived, revoked, self.clock.now())?;
            }
            above.push(key);
        }
        Ok(actor)
    }

    fn find(&self, peer: NodeId, name: &str) -> Result<Arc<dyn Exported>, StreamError> {
        let out = self.out();
        let Some(presented) = out.presented.get(&peer) else { return Err(StreamError::Unknown) };
        match presented.get(name) {
            Some(known) => known.outcome.clone(),
            None if presented.len() >= PEER_CAPABILITIES => Err(StreamError::Overloaded),
            None => Err(StreamError::Unknown),
        }
    }
}

/// How long a token's outcome is known after it ended.
const REMEMBERED: Duration = Duration::from_mins(1);

impl Service for Arc<Capabilities> {
    fn serve(&self, name: &str, asker: &Asker<'_>) -> Option<Arc<dyn Exported>> {
        name.starts_with(HELD).then(|| {
            let held =
                Held { capabilities: Arc::clone(self), peer: asker.node, name: name.to_owned() };
            Arc::new(held) as Arc<dyn Exported>
        })
    }

    fn forget(&self, node: &NodeId) {
        self.out().presented.remove(node);
    }
}

/// One peer's capability, presented or about to be.
struct Held {
    capabilities: Arc<Capabilities>,
    peer: NodeId,
    name: String,
}

impl Held {
    fn found(&self) -> Result<Arc<dyn Exported>, StreamError> {
        self.capabilities.find(self.peer, &self.name)
    }
}

impl Exported for Held {
    fn deliver(&self, header: Header, parcel: RawParcel, wanted: bool, now: Moment) -> Delivery {
        if parcel.message() == MessageId::of(Chain::NAME) {
            let Ok(chain) = parcel.open::<Chain>() else {
                return Delivery::Refused(StreamError::Forged);
            };
            self.capabilities.present(self.peer, &self.name, chain);
            let seen = wanted.then(|| Box::new(Seen(false)) as Box<dyn Source>);
            return Delivery::Taken(seen);
        }
        match self.found() {
            Ok(actor) => actor.deliver(header, parcel, wanted, now),
            Err(why) => Delivery::Refused(why),
        }
    }

    fn generation(&self) -> Option<Generation> {
        self.found().ok()?.generation()
    }

    fn in_life(&self, life: Generation) -> Option<Arc<dyn Exported>> {
        self.found().ok()?.in_life(life)
    }
}

/// Says once that a token was looked at.
struct Seen(bool);

impl Source for Seen {
    fn poll_next(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<RawParcel, StreamError>>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Ready(None);
        }
        let seen = Parcel::archive(&Presented).map(|seen| seen.as_raw().clone());
        std::task::Poll::Ready(Some(seen.map_err(|_too_large| StreamError::Mismatch)))
    }
}

impl Links {
    /// Makes a capability to an actor of this node for another node: a text that is of use to nobody
    /// else. What it allows is what `address` allows, within `terms`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use neuroflow_kernel::{Address, Request, WireRequest};
    /// use neuroflow_transport::{CapabilityError, Links, NodeId, Terms};
    /// fn once<W: WireRequest>(
    ///     links: &Links,
    ///     actor: &Address<Request<W>>,
    ///     to: NodeId,
    /// ) -> Result<String, CapabilityError> {
    ///     let terms = Terms::new(Duration::from_secs(600)).uses(1);
    ///     Ok(links.grant(actor, to, terms)?.to_string())
    /// }
    /// ```
    ///
    /// # Errors
    /// Says what is wrong with the terms, or that this node has too many out.
    pub fn grant<W: WireRequest>(
        &self,
        address: &Address<Request<W>>,
        to: NodeId,
        terms: Terms,
    ) -> Result<CapabilityToken, CapabilityError> {
        let capabilities = &self.shared.capabilities;
        let expires_ms = self.expiry(terms)?;
        let expires = capabilities.moment(expires_ms);
        let narrowed = address.attenuate(restriction(terms.rights, terms.uses, expires))?;
        let grant = Grant {
            id: capabilities.first_id()?,
            issuer: self.id(),
            incarnation: capabilities.incarnation,
            message: MessageId::of(W::NAME),
            holder: to,
            rights: terms.rights,
            expires_ms,
            uses: terms.uses,
        };
        let id = grant.id;
        let token = Token::issue(&self.shared.signer, grant)?;
        capabilities.issue(id, to, expires, crate::export::exported(narrowed))?;
        token.to_text().parse()
    }

    /// Takes a capability of this node back: one that it made, and all that were derived from it, or
    /// one that was derived, and what was derived from that.
    ///
    /// # Errors
    /// [`CapabilityError::TooMany`] if no more can be remembered.
    pub fn revoke_capability(&self, id: CapabilityId) -> Result<(), CapabilityError> {
        self.shared.capabilities.revoke(id)
    }

    /// When terms end.
    pub(super) fn expiry(&self, terms: Terms) -> Result<u64, CapabilityError> {
        if terms.valid.is_zero() || terms.valid > CAPABILITY_LIFE {
            return Err(CapabilityError::Life { valid: terms.valid });
        }
        let valid = u64::try_from(terms.valid.as_millis()).unwrap_or(u64::MAX);
        Ok(self.shared.clock.unix_ms().saturating_add(valid))
    }
}

pub(super) fn random_id() -> Result<CapabilityId, CapabilityError> {
    let mut id = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut id).map_err(|_none| CapabilityError::Random)?;
    Ok(CapabilityId(id))
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::ManualClock;

    use super::*;
    use crate::capability::Signer;
    use crate::identity::Authority;

    struct Nobody;

    impl Exported for Nobody {
        fn deliver(&self, _: Header, _: RawParcel, _: bool, _: Moment) -> Delivery {
            Delivery::Refused(StreamError::Unknown)
        }

        fn generation(&self) -> Option<Generation> {
            None
        }
    }

    const NOW: Moment = Moment::ORIGIN;
    const LATER: Duration = Duration::from_mins(1);

    fn issued() -> Issued {
        let (actor, expires) = (Arc::new(Nobody), NOW + 2 * LATER);
        let holder = NodeId::of_public_key(b"holder");
        Issued { holder, actor, expires, revoked: false, derived: HashMap::new() }
    }

    /// Derives as many as are taken.
    fn fill(
        issued: &mut Issued,
        above: &[u32],
        from: u32,
        revoked: &HashMap<CapabilityId, Moment>,
    ) -> usize {
        let many = from..from + 5_000;
        many.take_while(|nth| derive(issued, above, *nth, revoked).is_ok()).count()
    }

    fn derive(
        issued: &mut Issued,
        above: &[u32],
        nth: u32,
        revoked: &HashMap<CapabilityId, Moment>,
    ) -> Result<(), CapabilityError> {
        let id = |nth: u32| CapabilityId(u128::from(nth).to_le_bytes());
        let ids = above.iter().copied().chain([nth]).map(id).collect();
        let above = above.iter().copied().map(BlockKey::numbered).collect();
        let (holder, expires) = (NodeId::of_public_key(b"holder"), NOW + LATER);
        let derived = Derived { holder, ids, above, below: 0, expires, actor: Arc::new(Nobody) };
        issued.derive(BlockKey::numbered(nth), derived, revoked, NOW)
    }

    #[test]
    fn who_derives_much_leaves_room_for_the_next_one() {
        let (mut issued, mut revoked) = (issued(), HashMap::new());
        for (nth, from) in [(1, 10_000), (2, 20_000), (3, 30_000)] {
            let free = CAPABILITY_DERIVED - issued.derived.len();
            derive(&mut issued, &[], nth, &revoked).unwrap();
            let direct = fill(&mut issued, &[nth], from, &revoked);
            // Through others of its own it gets no more.
            assert_eq!(fill(&mut issued, &[nth, from], from + 5_000, &revoked), 0);
            assert!(direct >= free / 2 - 1, "{direct} of {free}");
            assert!(CAPABILITY_DERIVED - issued.derived.len() >= free / 2 - 1);
        }
        // What was taken back makes room for others.
        revoked.insert(CapabilityId(1_u128.to_le_bytes()), NOW + LATER);
        assert!(matches!(derive(&mut issued, &[2], 29_999, &revoked), Ok(())));
        assert!(!issued.derived.contains_key(&BlockKey::numbered(10_000)));
        // So does what is over.
        issued.forget(&revoked, NOW + LATER);
        assert!(issued.derived.is_empty());
    }

    fn authority() -> Authority {
        let now = std::time::SystemTime::UNIX_EPOCH + CAPABILITY_LIFE;
        Authority::create("test", now).unwrap()
    }

    fn trust(authority: &Authority) -> Trust {
        Trust::from_pem(authority.certificate_pem()).unwrap()
    }

    /// One that has these out, and its time.
    fn capabilities() -> (Arc<Capabilities>, ManualClock) {
        let time = ManualClock::new();
        let node = NodeId::of_public_key(b"node");
        (Capabilities::new(node, 1, trust(&authority()), time.clock()), time)
    }

    fn grant(capabilities: &Capabilities, life: Duration) -> CapabilityId {
        let id = capabilities.first_id().unwrap();
        let (holder, until) = (NodeId::of_public_key(b"holder"), capabilities.clock.now() + life);
        capabilities.issue(id, holder, until, Arc::new(Nobody)).unwrap();
        id
    }

    #[test]
    fn what_is_taken_back_after_its_end_takes_no_room() {
        let (capabilities, time) = capabilities();
        let lasting = grant(&capabilities, CAPABILITY_LIFE);
        let second = Duration::from_secs(1);
        for _ in 0..MAX_CAPABILITIES + 5_000 {
            let first = grant(&capabilities, second);
            time.advance(second * 2);
            grant(&capabilities, second);
            capabilities.revoke(first).unwrap();
        }
        assert!(capabilities.out().revoked.is_empty());
        assert!(capabilities.is_first(&lasting) && !capabilities.is_first(&random_id().unwrap()));
        capabilities.revoke(lasting).unwrap();
        assert!(capabilities.out().issued[&lasting].revoked);
    }

    #[test]
    fn what_a_peer_has_presented_goes_with_it() {
        let (capabilities, _) = capabilities();
        let peers = [NodeId::of_public_key(b"one"), NodeId::of_public_key(b"other")];
        for peer in peers {
            let known = Known { outcome: Err(StreamError::Expired), until: NOW };
            let of_peer = HashMap::from([("name".to_owned(), known)]);
            capabilities.out().presented.insert(peer, of_peer);
        }
        Service::forget(&capabilities, &peers[0]);
        let find = |peer| capabilities.find(peer, "name").err();
        assert_eq!(find(peers[0]), Some(StreamError::Unknown));
        assert_eq!(find(peers[1]), Some(StreamError::Expired));
    }

    #[test]
    fn a_derived_one_has_no_id_of_a_first_one() {
        let now = std::time::SystemTime::UNIX_EPOCH + CAPABILITY_LIFE;
        let authority = authority();
        let node = |name| authority.issue(name, &[], CAPABILITY_LIFE, now).unwrap();
        let (issuer, holder) = (node("issuer"), node("holder"));
        let capabilities =
            Capabilities::new(issuer.id(), 1, trust(&authority), ManualClock::new().clock());
        let grant = Grant {
            id: grant(&capabilities, LATER),
            issuer: issuer.id(),
            incarnation: 1,
            message: MessageId::of("test"),
            holder: holder.id(),
            rights: neuroflow_kernel::Rights::bit(0),
            expires_ms: capabilities.clock.unix_ms() + 1_000,
            uses: None,
        };
        let signer = |credential| Signer::new(credential).unwrap();
        let derived = |id| {
            let token = Token::issue(&signer(&issuer), grant.clone()).unwrap();
            let token = token.derive(&signer(&holder), Grant { id, ..grant.clone() }).unwrap();
            capabilities.admit(holder.id(), &token).err().unwrap()
        };
        let refused = derived(capabilities.first_id().unwrap());
        assert!(matches!(refused, CapabilityError::Forged), "{refused}");
        let refused = derived(random_id().unwrap());
        // Whoever is behind it here can't be narrowed.
        assert!(matches!(refused, CapabilityError::Attenuate(_)), "{refused}");
    }

    #[test]
    fn a_derived_one_that_is_taken_back_is_known_until_nothing_can_be_derived_from() {
        let (capabilities, time) = capabilities();
        let revoke = || capabilities.revoke(random_id().unwrap());
        revoke().unwrap();
        assert!(capabilities.out().revoked.is_empty(), "nothing is out");
        grant(&capabilities, LATER * 2);
        for _ in 1..MAX_CAPABILITIES {
            revoke().unwrap();
        }
        assert!(matches!(revoke(), Err(CapabilityError::TooMany)));
        time.advance(LATER);
        assert!(matches!(revoke(), Err(CapabilityError::TooMany)));
        time.advance(LATER);
        grant(&capabilities, LATER);
        assert!(capabilities.out().revoked.is_empty());
        assert!(revoke().is_ok());
    }
}
