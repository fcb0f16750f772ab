//! One sweep for all deadlines: who waits leaves a waker, a tick wakes those whose time has come.
//!
//! A timer of its own costs a call 0.8 µs, twice the call itself; an entry here costs two short
//! locks. The sweep runs only while somebody waits.
//!
//! It runs where the kernel does, whoever waits first: another runtime may have no timer, or nobody to
//! drive it, and all deadlines of the node would wait with it. A clock without a kernel has only the
//! runtimes of those who wait; when one of them ends, the others are woken and go on elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::Handle;

use crate::clock::{Inner, Moment};
use crate::limits::{DEADLINE_RESOLUTION, SWEEP_LINGER};

/// Shards, so that the workers of a runtime rarely meet at one lock.
const SHARDS: usize = 16;

#[derive(Default)]
pub(crate) struct Sweep {
    shards: [Mutex<Shard>; SHARDS],
    /// Changed under the lock of `seat` only.
    ticking: AtomicBool,
    seat: Mutex<Seat>,
}

/// Where the sweep runs.
#[derive(Default)]
struct Seat {
    /// The runtime of the kernel that started last.
    home: Option<Handle>,
    /// How often that has changed: a sweep of before isn't this one.
    moves: u64,
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

    fn seat(&self) -> MutexGuard<'_, Seat> {
        // Plain values, written one by one: a poisoned seat is still a valid one.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the sweep runs on this runtime. One that runs elsewhere may never be driven again, so
    /// nothing of it is relied on.
    pub(crate) fn settle(clock: &Arc<Inner>, home: Handle) {
        let sweep = clock.sweep();
        let mut seat = sweep.seat();
        seat.home = Some(home);
        seat.moves += 1;
        sweep.ticking.store(false, Ordering::SeqCst);
        drop(seat);
        if sweep.waiting() > 0 {
            Self::tick(clock);
        }
    }

    /// Makes sure that a task sweeps while somebody waits.
    pub(crate) fn tick(clock: &Arc<Inner>) {
        let sweep = clock.sweep();
        if sweep.ticking.load(Ordering::SeqCst) {
            return;
        }
        let (home, moves) = {
            let seat = sweep.seat();
            if sweep.ticking.swap(true, Ordering::SeqCst) {
                return;
            }
            (seat.home.clone(), seat.moves)
        };
        if home.is_some_and(|home| Sweeping::begin(clock, moves, &home)) {
            return;
        }
        // There is no kernel, or its runtime has ended: whoever waits now lends theirs.
        if !Sweeping::begin(clock, moves, &Handle::current()) {
            // That one is about to end, and whoever waits on it with it.
            sweep.park(moves);
        }
    }

    /// No task sweeps any more. Says whether that's so: another may have taken over.
    fn park(&self, moves: u64) -> bool {
        let seat = self.seat();
        if seat.moves != moves {
            return false;
        }
        self.ticking.store(false, Ordering::SeqCst);
        true
    }

    fn has_moved(&self, moves: u64) -> bool {
        self.seat().moves != moves
    }

    /// Wakes everyone who waits, so that they look after the sweep themselves.
    fn rouse(&self) {
        for index in 0..SHARDS {
            let shard = self.shard(index);
            let waiting =
                shard.entries.iter().filter(|entry| matches!(entry.state, State::Waiting));
            let wakers: Vec<Waker> = waiting.filter_map(|entry| entry.waker.clone()).collect();
            drop(shard);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// The task that sweeps. When it's dropped, whoever waits is not left behind.
struct Sweeping {
    clock: Arc<Inner>,
    moves: u64,
    stage: Arc<AtomicU8>,
}

/// The runtime may still refuse the task, by dropping it.
const OFFERED: u8 = 0;
/// The runtime has the task.
const TAKEN: u8 = 1;
/// The runtime has a timer.
const TICKING: u8 = 2;
/// Nobody has waited for a while.
const IDLE: u8 = 3;
/// The task was dropped.
const DROPPED: u8 = 4;

impl Sweeping {
    /// Spawns the task; says whether the runtime has taken it.
    fn begin(clock: &Arc<Inner>, moves: u64, runtime: &Handle) -> bool {
        let stage = Arc::new(AtomicU8::new(OFFERED));
        let sweeping = Self { clock: Arc::clone(clock), moves, stage: Arc::clone(&stage) };
        // The clock is below supervision.
        runtime.spawn(sweeping.run());
        stage.fetch_max(TAKEN, Ordering::SeqCst) != DROPPED
    }

    async fn run(self) {
        let sweep = self.clock.sweep();
        let mut idle = std::time::Duration::ZERO;
        while idle < SWEEP_LINGER && !sweep.has_moved(self.moves) {
            #[expect(clippy::disallowed_methods, reason = "this is the kernel clock")]
            let tick = tokio::time::sleep(DEADLINE_RESOLUTION);
            self.stage.fetch_max(TICKING, Ordering::SeqCst);
            tick.await;
            sweep.fire(self.clock.now());
            let waiting = sweep.waiting() > 0;
            idle = if waiting { std::time::Duration::ZERO } else { idle + DEADLINE_RESOLUTION };
        }
        self.stage.fetch_max(IDLE, Ordering::SeqCst);
    }
}

impl Drop for Sweeping {
    /// Also when a runtime that shuts down drops the task, or a waker has panicked.
    fn drop(&mut self) {
        let stage = self.stage.swap(DROPPED, Ordering::SeqCst);
        let sweep = self.clock.sweep();
        // Whoever has offered a task that wasn't taken finds another place for it.
        if stage == OFFERED || !sweep.park(self.moves) {
            return;
        }
        let panicking = std::thread::panicking();
        match stage {
            // Somebody may have come between the last look and the end.
            IDLE if sweep.waiting() == 0 => {}
            IDLE => Sweep::tick(&self.clock),
            // A waker did, which isn't woken again.
            TICKING if panicking => Sweep::tick(&self.clock),
            // There is no timer here, and there will be none.
            _ if panicking => {}
            // The runtime ends, and all that wait elsewhere see to it that the sweep goes on there.
            _ => sweep.rouse(),
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
