//! What all actors of one kernel share: clock, observer, census, post-mortems.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::event::{KindObserver, Lifecycle, Observer, PostMortem, Subject, Tracer};
use crate::id::{ActorId, Generation};
use crate::limits::POST_MORTEMS;
use crate::mailbox::{ActorState, Vitals};
use crate::name::Path;
use crate::registry::Registry;

/// Shards of the census, so that starts and ends on several workers rarely meet.
const CENSUS_SHARDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) clock: Clock,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) registry: Arc<Registry>,
    census: [Mutex<HashMap<ActorId, Arc<Vitals>>>; CENSUS_SHARDS],
    living: AtomicUsize,
    deserted: Notify,
    kinds: RwLock<HashMap<&'static str, Arc<dyn KindObserver>>>,
    post_mortems: Mutex<VecDeque<Arc<PostMortem>>>,
}

impl Core {
    pub(crate) fn new(clock: Clock, observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            observer,
            registry: Arc::new(Registry::default()),
            census: Default::default(),
            living: AtomicUsize::new(0),
            deserted: Notify::new(),
            kinds: RwLock::default(),
            post_mortems: Mutex::default(),
        })
    }

    pub(crate) fn tracer(&self) -> Tracer {
        Tracer::new(self.clock.clone(), Arc::clone(&self.observer))
    }

    pub(crate) fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        let known = self.kinds.read().unwrap_or_else(PoisonError::into_inner).get(kind).cloned();
        known.unwrap_or_else(|| {
            let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(kinds.entry(kind).or_insert_with(|| self.observer.kind(kind)))
        })
    }

    fn shard(&self, id: ActorId) -> MutexGuard<'_, HashMap<ActorId, Arc<Vitals>>> {
        // Only the low bits matter, and those every platform has.
        let index = usize::try_from(id.get() & 0xffff).unwrap_or_default() % CENSUS_SHARDS;
        self.census[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enrol(&self, vitals: &Arc<Vitals>) {
        self.living.fetch_add(1, Ordering::AcqRel);
        self.shard(vitals.id).insert(vitals.id, Arc::clone(vitals));
    }

    pub(crate) fn strike(&self, id: ActorId) {
        let mut shard = self.shard(id);
        if shard.remove(&id).is_none() {
            return;
        }
        // A burst of actors must not leave its room behind for ever.
        if shard.capacity() > 1024 && shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
        drop(shard);
        if self.living.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.deserted.notify_waiters();
        }
    }

    /// Waits until no actor lives.
    pub(crate) async fn deserted(&self) {
        let mut deserted = std::pin::pin!(self.deserted.notified());
        // Enrolled before the look, so that an end in between isn't missed.
        deserted.as_mut().enable();
        if self.count() > 0 {
            deserted.await;
        }
    }

    pub(crate) fn keep(&self, post_mortem: Arc<PostMortem>) {
        let mut kept = self.post_mortems.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(POST_MORTEMS - 1);
        kept.push_front(post_mortem);
    }

    pub(crate) fn post_mortems(&self) -> Vec<Arc<PostMortem>> {
        let kept = self.post_mortems.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.living.load(Ordering::Acquire)
    }

    pub(crate) fn tree(&self) -> Vec<ActorInfo> {
        let now = self.clock.now();
        let mut actors: Vec<ActorInfo> = Vec::new();
        for shard in &self.census {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            actors.extend(shard.values().map(|vitals| ActorInfo {
                id: vitals.id,
                path: vitals.path.clone(),
                kind: vitals.kind,
                state: vitals.state(),
                generation: vitals.generation,
                mailbox_depth: vitals.depth(),
                mailbox_capacity: vitals.capacity,
                handled: vitals.handled(),
                age: now.since(vitals.born),
            }));
        }
        actors.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
        actors
    }

    pub(crate) fn notify(&self, event: &Lifecycle<'_>) {
        self.observer.lifecycle(event);
    }
}

pub(crate) fn subject(vitals: &Vitals) -> Subject<'_> {
    Subject { id: vitals.id, path: &vitals.path, kind: vitals.kind, generation: vitals.generation }
}

/// One actor of the live tree.
///
/// ```
/// fn is_busy(actor: &neuroflow_kernel::ActorInfo) -> bool {
///     actor.mailbox_depth * 2 > actor.mailbox_capacity
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ActorInfo {
    /// Its identity.
    pub id: ActorId,
    /// Where it stands.
    pub path: Path,
    /// Its kind.
    pub kind: &'static str,
    /// What it's doing.
    pub state: ActorState,
    /// Which life; one less than this is the number of its restarts.
    pub generation: Generation,
    /// Messages that wait.
    pub mailbox_depth: usize,
    /// Messages that may wait.
    pub mailbox_capacity: usize,
    /// Messages that have left its mailbox in this life.
    pub handled: u64,
    /// How long this life lasts.
    pub age: Duration,
}

impl ActorInfo {
    /// How often it was restarted.
    pub fn restarts(&self) -> u32 {
        self.generation.get().saturating_sub(1)
    }
}
