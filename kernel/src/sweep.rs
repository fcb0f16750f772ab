//! One sweep for all deadlines: who waits leaves a waker, a tick wakes those whose time has come.
//!
//! A timer of its own costs a call 0.8 µs, twice the call itself; an entry here costs two short
//! locks. The sweep runs only while somebody waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::clock::{Inner, Moment};
use crate::limits::{DEADLINE_RESOLUTION, SWEEP_LINGER};

/// Shards, so that the workers of a runtime rarely meet at one lock.
const SHARDS: usize = 16;

#[derive(Default)]
pub(crate) struct Sweep {
    shards: [Mutex<Shard>; SHARDS],
    ticking: AtomicBool,
}

#[derive(Default)]
struct Shard {
    entries: Vec<Entry>,
    free: Vec<usize>,
}

struct Entry {
    at: Moment,
    state: State,
    /// Kept when the entry is freed, until the next sweep: a task that calls again finds its own
    /// waker here, and neither clones nor drops one.
    waker: Option<Waker>,
}

enum State {
    Free,
    Waiting,
    Fired,
}

/// Where one waiter's entry stands.
pub(crate) struct Ticket {
    shard: usize,
    index: usize,
}

impl Sweep {
    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        // A poisoned shard is still a valid one: nothing below can unwind half-way.
        self.shards[index % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, at: Moment, waker: &Waker) -> Ticket {
        let shard = home_shard();
        let mut entries = self.shard(shard);
        let index = entries.free.pop().unwrap_or_else(|| {
            entries.entries.push(Entry { at, state: State::Free, waker: None });
            entries.entries.len() - 1
        });
        let entry = &mut entries.entries[index];
        (entry.at, entry.state) = (at, State::Waiting);
        remember(&mut entry.waker, waker);
        Ticket { shard, index }
    }

    pub(crate) fn poll(&self, ticket: &Ticket, waker: &Waker) -> Poll<()> {
        let entry = &mut self.shard(ticket.shard).entries[ticket.index];
        match entry.state {
            State::Waiting => {
                remember(&mut entry.waker, waker);
                Poll::Pending
            }
            State::Fired | State::Free => Poll::Ready(()),
        }
    }

    pub(crate) fn remove(&self, ticket: &Ticket) {
        let mut shard = self.shard(ticket.shard);
        shard.entries[ticket.index].state = State::Free;
        shard.free.push(ticket.index);
    }

    /// Wakes everyone whose moment is not after `now`, and forgets the wakers of those who have
    /// gone.
    pub(crate) fn fire(&self, now: Moment) {
        let (mut due, mut gone) = (Vec::new(), Vec::new());
        for index in 0..SHARDS {
            let mut shard = self.shard(index);
            for entry in &mut shard.entries {
                match entry.state {
                    State::Waiting if entry.at <= now => {
                        entry.state = State::Fired;
                        due.extend(entry.waker.take());
                    }
                    State::Free => gone.extend(entry.waker.take()),
                    State::Waiting | State::Fired => {}
                }
            }
            if shard.free.len() == shard.entries.len() {
                shard.entries.clear();
                shard.free.clear();
            }
            drop(shard);
            due.drain(..).for_each(Waker::wake);
            // Not under the lock: a waker may be the last that holds a task, and all in it.
            gone.clear();
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        (0..SHARDS)
            .map(|index| {
                let shard = self.shard(index);
                shard.entries.len() - shard.free.len()
            })
            .sum()
    }

    #[cfg(test)]
    pub(crate) fn is_parked(&self) -> bool {
        !self.ticking.load(Ordering::SeqCst)
    }

    /// Makes sure that a task sweeps while somebody waits.
    pub(crate) fn tick(clock: &Arc<Inner>) {
        let sweep = clock.sweep();
        if sweep.ticking.load(Ordering::SeqCst) || sweep.ticking.swap(true, Ordering::SeqCst) {
            return;
        }
        let parked = Parked { clock: Arc::clone(clock), at_leisure: false };
        #[expect(clippy::disallowed_methods, reason = "the clock is below supervision")]
        tokio::spawn(async move {
            let clock = Arc::clone(&parked.clock);
            let mut idle = std::time::Duration::ZERO;
            while idle < SWEEP_LINGER {
                #[expect(clippy::disallowed_methods, reason = "this is the kernel clock")]
                tokio::time::sleep(DEADLINE_RESOLUTION).await;
                clock.sweep().fire(clock.now());
                let waiting = clock.sweep().waiting() > 0;
                idle = if waiting { std::time::Duration::ZERO } else { idle + DEADLINE_RESOLUTION };
            }
            parked.end_at_leisure();
        });
    }
}

/// Marks the sweep as parked when its task ends, also when a runtime that shuts down drops the task.
struct Parked {
    clock: Arc<Inner>,
    at_leisure: bool,
}

impl Parked {
    fn end_at_leisure(mut self) {
        self.at_leisure = true;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let sweep = self.clock.sweep();
        sweep.ticking.store(false, Ordering::SeqCst);
        // Somebody may have come between the last look and the store.
        if self.at_leisure && sweep.waiting() > 0 {
            Sweep::tick(&self.clock);
        }
    }
}

/// Keeps `waker`, without a clone if it's the one that is there.
fn remember(kept: &mut Option<Waker>, waker: &Waker) {
    match kept {
        Some(kept) => kept.clone_from(waker),
        None => *kept = Some(waker.clone()),
    }
}

/// The shard of this thread.
fn home_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HOME: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    HOME.with(|home| home % SHARDS)
}
