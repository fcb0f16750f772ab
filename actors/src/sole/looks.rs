//! Who holds a key: asked once for all who want to know it at a time, however many those are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::lease::{Holder, LeaseError, Leases};

/// What is said of a key.
type Said = Result<Option<Holder>, Arc<LeaseError>>;

type Look = BoxFuture<'static, Said>;

/// The questions that are under way.
pub(super) struct Looks {
    leases: Leases,
    under_way: Mutex<HashMap<String, WeakShared<Look>>>,
}

impl Looks {
    pub(super) fn at(leases: Leases) -> Self {
        Self { leases, under_way: Mutex::default() }
    }

    /// Who holds it, as the database says now, or to whoever asks already.
    pub(super) async fn holder(&self, key: &str) -> Said {
        let leases = &self.leases;
        let look = self.join(key, |key| {
            let leases = leases.clone();
            async move { leases.holder(&key).await.map_err(Arc::new) }.boxed()
        });
        look.await
    }

    fn join(&self, key: &str, ask: impl FnOnce(String) -> Look) -> Shared<Look> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that is there already may be an old one.
        let asked = under_way.get(key).and_then(WeakShared::upgrade);
        if let Some(look) = asked.filter(|look| look.peek().is_none()) {
            return look;
        }
        // Those that are over make room before the table would grow.
        if under_way.len() == under_way.capacity() {
            under_way.retain(|_, look| look.upgrade().is_some_and(|look| look.peek().is_none()));
        }
        let look = ask(key.to_owned()).shared();
        under_way.extend(look.downgrade().map(|look| (key.to_owned(), look)));
        look
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_a_time_ask_once_and_who_asks_later_asks_anew() {
        let looks = Looks::at(Leases::unconfigured());
        let (answer, answered) = oneshot::channel::<()>();
        let first = looks.join("a", |_| {
            let asked = async move {
                let _said = answered.await;
                Ok(None)
            };
            asked.boxed()
        });
        let others = (0..9).map(|_| looks.join("a", |_| unreachable!("it's asked already")));
        let all: Vec<_> = std::iter::once(first).chain(others).collect();
        let other_key = looks.join("b", |_| async { Ok(None) }.boxed());
        assert!(other_key.await.is_ok());
        answer.send(()).unwrap();
        assert!(join_all(all.clone()).await.iter().all(Result::is_ok));
        // It has an answer, which isn't given to who asks now.
        assert!(matches!(*looks.holder("a").await.unwrap_err(), LeaseError::Unconfigured));
        drop(all);
        for number in 0..1_000 {
            looks.holder(&number.to_string()).await.unwrap_err();
        }
        let kept = looks.under_way.lock().unwrap().len();
        assert!(kept < 100, "{kept} keys are remembered of which nobody asks");
    }
}
