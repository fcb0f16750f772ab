//! Which prepared cells there are, and how many there should be. Pure.
//!
//! A pool starts with its least number of waiting cells. Whenever cells were claimed faster than they
//! were made, it grows, up to its most; what nobody has claimed for a while it lets go again.

use super::protocol::Pool;
use crate::limits;

impl State {
    fn lacks_cells(&self) -> bool {
        self.waiting < self.target && self.stillborn < limits::MAX_STILLBORN
    }

    fn until_refill(&self, now: u64) -> u64 {
        let peace = u64::try_from(limits::REFILL_PAUSE.as_nanos()).unwrap_or(u64::MAX);
        // Making a cell with an interpreter's fork takes longer than a short program runs.
        let is_low = if self.interpreter.is_some() {
            self.waiting == 0
        } else {
            u32::from(self.waiting) * 2 <= u32::from(self.target)
        };
        if is_low { 0 } else { self.last_claim.saturating_add(peace).saturating_sub(now) }
    }
}

/// All pools of one zygote.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: Vec<State>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    plan: Vec<u8>,
    /// The interpreter that its cells need.
    interpreter: Option<usize>,
    waiting: u16,
    target: u16,
    /// Claims since the pool was last full.
    claims: u16,
    /// When a cell was last claimed.
    last_claim: u64,
    /// Cells in a row that ended before anybody claimed them.
    stillborn: u16,
}

impl Pools {
    /// Begins or changes a pool. False if there are too many.
    pub(super) fn keep(
        &mut self,
        pool: Pool,
        plan: &[u8],
        interpreter: Option<usize>,
        now: u64,
    ) -> bool {
        let pool = Pool { most: pool.most.min(limits::MAX_POOL), ..pool };
        if let Some(known) = self.find(pool.key) {
            known.pool = pool;
            known.target = known.target.clamp(pool.least.min(pool.most), pool.most);
            known.stillborn = 0;
            return true;
        }
        if self.pools.len() >= limits::MAX_POOLS {
            return false;
        }
        self.pools.push(State {
            pool,
            plan: plan.to_vec(),
            interpreter,
            waiting: 0,
            target: pool.least.min(pool.most),
            claims: 0,
            last_claim: now,
            stillborn: 0,
        });
        true
    }

    /// The pool that needs one more cell now, and its plan. One that still has cells lets a claimed
    /// one begin in peace first; one whose interpreter isn't `ready` waits.
    pub(super) fn hungry(&self, ready: impl Fn(usize) -> bool, now: u64) -> Option<(u16, &[u8])> {
        let hungry = self
            .pools
            .iter()
            .filter(|state| state.lacks_cells() && state.until_refill(now) == 0)
            .filter(|state| state.interpreter.is_none_or(&ready))
            .min_by_key(|state| state.waiting)?;
        Some((hungry.pool.key, &hungry.plan))
    }

    /// Nanoseconds until [`hungry`](Self::hungry) has something. None if it won't by waiting. Zero too:
    /// time has gone on since it was asked.
    pub(super) fn until_hungry(&self, ready: impl Fn(usize) -> bool, now: u64) -> Option<u64> {
        let lacking = self.pools.iter().filter(|state| state.lacks_cells());
        let able = lacking.filter(|state| state.interpreter.is_none_or(&ready));
        able.map(|state| state.until_refill(now)).min()
    }

    /// The interpreter that the pool's cells need.
    pub(super) fn interpreter(&self, key: u16) -> Option<usize> {
        self.pools.iter().find(|state| state.pool.key == key)?.interpreter
    }

    /// An interpreter is new, so what became of its predecessor's cells says nothing.
    pub(super) fn forgive(&mut self, interpreter: usize) {
        for state in self.pools.iter_mut().filter(|state| state.interpreter == Some(interpreter)) {
            state.stillborn = 0;
        }
    }

    /// A cell was made for the pool.
    pub(super) fn made(&mut self, key: u16) {
        if let Some(state) = self.find(key) {
            state.waiting = state.waiting.saturating_add(1);
            if state.waiting >= state.target {
                state.claims = 0;
            }
        }
    }

    /// A cell of the pool was claimed. If the pool was drained before it could be filled again, it
    /// was too small.
    pub(super) fn claimed(&mut self, key: u16, now: u64) {
        if let Some(state) = self.find(key) {
            state.waiting = state.waiting.saturating_sub(1);
            state.claims = state.claims.saturating_add(1);
            state.last_claim = now;
            state.stillborn = 0;
            if state.claims >= state.target {
                state.target =
                    state.target.saturating_mul(2).clamp(state.pool.least, state.pool.most);
                state.claims = 0;
            }
        }
    }

    /// A cell of the pool ended before anybody claimed it.
    pub(super) fn lost(&mut self, key: u16) {
        if let Some(state) = self.find(key) {
            state.waiting = state.waiting.saturating_sub(1);
            state.stillborn = state.stillborn.saturating_add(1);
        }
    }

    /// The zygote gave a waiting cell up.
    pub(super) fn released(&mut self, key: u16) {
        if let Some(state) = self.find(key) {
            state.waiting = state.waiting.saturating_sub(1);
        }
    }

    /// A cell could not be made for the pool: it isn't tried again before somebody asks.
    pub(super) fn failed(&mut self, key: u16) {
        if let Some(state) = self.find(key) {
            state.stillborn = limits::MAX_STILLBORN;
        }
    }

    /// A pool that has had no claim for so long that it may give one waiting cell up.
    pub(super) fn sated(&mut self, now: u64) -> Option<u16> {
        let patience = u64::try_from(limits::POOL_PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        let state = self.pools.iter_mut().find(|state| {
            state.target > state.pool.least && now.saturating_sub(state.last_claim) >= patience
        })?;
        state.target = (state.target / 2).max(state.pool.least);
        state.last_claim = now;
        (state.waiting > state.target).then_some(state.pool.key)
    }

    /// How many cells wait beyond their pool's target.
    pub(super) fn surplus(&self, key: u16) -> u16 {
        let known = self.pools.iter().find(|state| state.pool.key == key);
        known.map_or(0, |state| state.waiting.saturating_sub(state.target))
    }

    /// Nanoseconds until a pool may shrink. `None` if none can.
    pub(super) fn until_sated(&self, now: u64) -> Option<u64> {
        let patience = u64::try_from(limits::POOL_PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        let grown = self.pools.iter().filter(|state| state.target > state.pool.least);
        grown.map(|state| state.last_claim.saturating_add(patience).saturating_sub(now)).min()
    }

    fn find(&mut self, key: u16) -> Option<&mut State> {
        self.pools.iter_mut().find(|state| state.pool.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(least: u16, most: u16) -> Pools {
        let mut pools = Pools::default();
        assert!(pools.keep(Pool { key: 1, least, most }, b"plan", None, 0));
        pools
    }

    fn fill(pools: &mut Pools) -> u16 {
        let mut made = 0;
        while let Some((key, plan)) = pools.hungry(|_| true, u64::MAX) {
            assert_eq!((key, plan), (1, &b"plan"[..]));
            pools.made(1);
            made += 1;
        }
        made
    }

    #[test]
    fn it_fills_to_the_least_and_refills() {
        let mut pools = pools(2, 8);
        assert_eq!(fill(&mut pools), 2);
        pools.claimed(1, 1);
        assert_eq!(fill(&mut pools), 1);
    }

    #[test]
    fn a_claimed_cell_begins_in_peace_unless_few_are_left() {
        let mut pools = pools(4, 4);
        fill(&mut pools);
        assert_eq!(pools.until_hungry(|_| true, 0), None);
        pools.claimed(1, 100);
        assert!(pools.hungry(|_| true, 100).is_none());
        let peace = u64::try_from(limits::REFILL_PAUSE.as_nanos()).unwrap();
        assert_eq!(pools.until_hungry(|_| true, 100), Some(peace));
        assert_eq!(
            pools.until_hungry(|_| true, 101 + peace),
            Some(0),
            "it may have come meanwhile"
        );
        assert!(pools.hungry(|_| true, 100 + peace).is_some());
        pools.claimed(1, 100);
        assert!(pools.hungry(|_| true, 100).is_some(), "half of them are gone");
    }

    #[test]
    fn a_burst_makes_it_grow_and_idleness_shrink() {
        let mut pools = pools(2, 8);
        fill(&mut pools);
        for _ in 0..2 {
            pools.claimed(1, 1);
        }
        assert_eq!(fill(&mut pools), 4);
        for _ in 0..4 {
            pools.claimed(1, 2);
        }
        assert_eq!(fill(&mut pools), 8);
        for _ in 0..8 {
            pools.claimed(1, 3);
        }
        assert_eq!(fill(&mut pools), 8, "never more than its most");
        assert_eq!(pools.sated(4), None);
        let late = 4 + u64::try_from(limits::POOL_PATIENCE.as_nanos()).unwrap();
        assert_eq!(pools.until_sated(late), Some(0));
        assert_eq!(pools.sated(late), Some(1));
        assert_eq!(pools.surplus(1), 4);
    }

    #[test]
    fn cells_that_die_unclaimed_are_replaced_a_few_times() {
        let mut pools = pools(1, 1);
        for _ in 0..limits::MAX_STILLBORN {
            assert_eq!(fill(&mut pools), 1);
            pools.lost(1);
        }
        assert_eq!(fill(&mut pools), 0);
        pools.keep(Pool { key: 1, least: 1, most: 1 }, b"plan", None, 0);
        assert_eq!(fill(&mut pools), 1, "somebody asked again");
    }

    #[test]
    fn a_pool_without_its_interpreter_waits_for_nothing_else() {
        let mut pools = Pools::default();
        assert!(pools.keep(Pool { key: 1, least: 1, most: 1 }, b"", Some(3), 0));
        assert_eq!(pools.until_hungry(|_| false, 9), None);
        assert_eq!(pools.until_hungry(|at| at == 3, 9), Some(0));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut pools = Pools::default();
        let most = u16::try_from(limits::MAX_POOLS).unwrap();
        for key in 0..most {
            assert!(pools.keep(Pool { key, least: 0, most: 1 }, b"", None, 0));
        }
        assert!(!pools.keep(Pool { key: most, least: 0, most: 1 }, b"", None, 0));
    }
}
