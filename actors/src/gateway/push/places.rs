//! Places that principals share, so that nobody takes them all: for configurations, and for posts.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::PushPlace;
use crate::access::{Principal, PrincipalKind};

/// So many places, over all lives of the server.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// How many a principal has, by its id.
    by: BTreeMap<String, usize>,
    /// Whose turn it is among those of one principal that wait.
    turns: BTreeMap<String, Weak<Turn>>,
}

type Turn = tokio::sync::Mutex<()>;

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default(), freed: Notify::new() })
    }

    /// A place, for a principal that has fewer than are free: so one alone gets half of them, and whoever
    /// comes then finds one. Whom nobody knows isn't told from others.
    pub(super) fn take(self: &Arc<Self>, who: &Principal) -> Option<PushPlace> {
        let mut taken = self.taken();
        let free = self.most.saturating_sub(taken.all);
        let has = || taken.by.get(who.id()).copied().unwrap_or_default();
        let may = match who.kind() {
            PrincipalKind::Anonymous => free > 0,
            _ => has() < free,
        };
        may.then(|| self.give(&mut taken, who))
    }

    /// A place for what had one in an earlier life, as long as there are any.
    pub(super) fn take_again(self: &Arc<Self>, who: &Principal) -> Option<PushPlace> {
        let mut taken = self.taken();
        (taken.all < self.most).then(|| self.give(&mut taken, who))
    }

    /// Waits for a place. Of one principal only the first in line waits for what is free, and the others for
    /// that one: so a place that is given back wakes as many as there are principals, not as there are waiters.
    pub(super) async fn wait(self: &Arc<Self>, who: &Principal) -> PushPlace {
        let turn = self.taken().turn(who.id());
        let _first = turn.lock().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on: what is given back between the look and the wait isn't missed.
            freed.as_mut().enable();
            if let Some(place) = self.take(who) {
                return place;
            }
            freed.await;
        }
    }

    fn give(self: &Arc<Self>, taken: &mut Taken, who: &Principal) -> PushPlace {
        let who = who.id().to_owned();
        taken.all += 1;
        *taken.by.entry(who.clone()).or_default() += 1;
        PushPlace { places: Arc::clone(self), who }
    }

    pub(super) fn give_back(&self, who: &str) {
        self.taken().give_back(who);
        self.freed.notify_waiters();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn give_back(&mut self, who: &str) {
        self.all = self.all.saturating_sub(1);
        if let Some(has) = self.by.get_mut(who) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.by.remove(who);
            }
        }
    }

    fn turn(&mut self, who: &str) -> Arc<Turn> {
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        let known = self.turns.get(who).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::new(Turn::default());
            self.turns.insert(who.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn known(name: &str) -> Principal {
        Principal::token(name, [""; 0])
    }

    #[test]
    fn who_has_as_many_as_are_free_gets_no_more_until_some_are_given_back() {
        let places = Places::new(8);
        let [greedy, modest] = ["greedy", "modest"].map(known);
        let mut has: Vec<_> = std::iter::from_fn(|| places.take(&greedy)).collect();
        assert_eq!(has.len(), 4);
        let others: Vec<_> = std::iter::from_fn(|| places.take(&modest)).collect();
        assert_eq!(others.len(), 2);
        // With three given back it has one, and five are free.
        has.truncate(1);
        let again: Vec<_> = std::iter::from_fn(|| places.take(&greedy)).collect();
        assert_eq!(again.len(), 2);
        drop((has, others, again));
        assert!(places.taken().by.is_empty() && places.taken().all == 0);
        let anonymous = Principal::anonymous();
        let all: Vec<_> = std::iter::from_fn(|| places.take(&anonymous)).collect();
        assert_eq!(all.len(), 8, "whom nobody knows isn't told from others");
    }

    #[test]
    fn what_had_a_place_has_one_again_while_there_are_any() {
        let places = Places::new(3);
        let greedy = known("greedy");
        let kept: Vec<_> = std::iter::from_fn(|| places.take_again(&greedy)).collect();
        assert_eq!(kept.len(), 3);
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back_and_who_waits_no_more_takes_nothing() {
        let places = Places::new(2);
        let [greedy, modest] = ["greedy", "modest"].map(known);
        let first = places.wait(&greedy).await;
        let mut second = Box::pin(places.wait(&greedy));
        let mut third = Box::pin(places.wait(&greedy));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        let other = places.wait(&modest).await;
        drop(second);
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        // One is free, and it has none.
        let third = third.await;
        drop((third, other));
        assert_eq!(places.taken().all, 0);
    }
}
