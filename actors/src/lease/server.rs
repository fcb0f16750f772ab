//! The keeper of one key on one node: waits for it, has the instance as its child, and lets go in time.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Address, CallError, Clock, Context, Ended, Ending, Header, Message, Moment, Name, Reply,
    Spawn,
};
use tokio::sync::watch;

use super::{Database, Fence, Key, SingletonError};
use crate::limits::LEASE_RETRY;

/// What the keeper's own task tells it.
pub(super) enum Keeping {
    /// The key is this node's.
    Held(Fence),
    /// It may be another's soon: the instance ends now, and then this is answered.
    Lost(Reply<()>),
}

impl Message for Keeping {
    fn name(&self) -> &'static str {
        match self {
            Self::Held(_) => "held",
            Self::Lost(_) => "lost",
        }
    }
}

/// Tells whoever asks here where the instance is.
pub(super) type Here<M> = watch::Sender<Option<(Fence, Address<M>)>>;

pub(super) struct SingletonServer<A: Actor, F> {
    database: Arc<Database>,
    key: Key,
    term: Duration,
    make: Arc<F>,
    here: Arc<Here<A::Message>>,
}

impl<A: Actor, F: Fn(Fence) -> A> SingletonServer<A, F> {
    pub(super) fn new(
        database: Arc<Database>,
        key: Key,
        term: Duration,
        make: Arc<F>,
        here: Arc<Here<A::Message>>,
    ) -> Self {
        Self { database, key, term, make, here }
    }
}

/// The name of the one child.
fn instance() -> Result<Name, SingletonError> {
    Ok(Name::new("instance").map_err(neuroflow_kernel::StartError::from)?)
}

impl<A, F> Actor for SingletonServer<A, F>
where
    A: Actor,
    F: Fn(Fence) -> A + Send + Sync + 'static,
{
    type Message = Keeping;
    type Error = SingletonError;
    const KIND: &'static str = "singleton";

    async fn started(&mut self, context: &mut Context<Keeping>) -> Result<(), SingletonError> {
        let keeper = Keeper {
            database: Arc::clone(&self.database),
            key: self.key.clone(),
            term: self.term,
            own: context.address(),
            clock: context.clock().clone(),
        };
        context.task(keeper.run()).map_err(|_refused| SingletonError::NoRoom)
    }

    async fn handle(
        &mut self,
        keeping: Keeping,
        context: &mut Context<Keeping>,
    ) -> Result<(), SingletonError> {
        match keeping {
            Keeping::Held(fence) => {
                let actor = (self.make)(fence);
                let address = context.spawn(instance()?, actor, Spawn::default()).await?;
                self.here.send_replace(Some((fence, address)));
            }
            Keeping::Lost(gone) => {
                self.here.send_replace(None);
                // At once, wherever it waits: its time is over.
                context.kill_child(&instance()?).await;
                // The task waits for this, unless it was ended.
                let _ended = gone.send(()).is_err();
            }
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<Keeping>,
    ) -> Result<(), SingletonError> {
        match ended.ending {
            // It's done for good, here and everywhere.
            Ending::Stopped => {
                context.stop();
                Ok(())
            }
            ending => Err(SingletonError::Ended { ending }),
        }
    }

    async fn stopping(&mut self, context: &mut Context<Keeping>) {
        let held = self.here.send_replace(None);
        context.stop_children().await;
        if let Some((fence, _)) = held {
            // Without it the next holder waits until the term is over.
            let _later = self.database.give_back(&self.key, fence).await.is_err();
        }
    }
}

impl<A: Actor, F> Drop for SingletonServer<A, F> {
    /// However this life ended: its instance is or will be gone.
    fn drop(&mut self) {
        self.here.send_replace(None);
    }
}

/// The task beside it, which talks to the database.
struct Keeper {
    database: Arc<Database>,
    key: Key,
    term: Duration,
    own: Address<Keeping>,
    clock: Clock,
}

impl Keeper {
    async fn run(self) {
        loop {
            let asked = self.clock.now();
            if let Ok(Some(fence)) = self.database.take(&self.key, self.term).await {
                let until = until(asked, self.term);
                if self.clock.now() < until {
                    if self.own.tell(Header::new(), Keeping::Held(fence)).await.is_err() {
                        return;
                    }
                    self.hold(fence, until).await;
                    // Not taken again before the instance is gone, however long it takes.
                    while let Err(error) = self.own.call(Header::new(), Keeping::Lost).await {
                        if error != CallError::DeadlineExceeded {
                            // The keeper has ended, and its instance with it.
                            return;
                        }
                    }
                }
            }
            self.clock.sleep(self.term / 3).await;
        }
    }

    /// Returns when the key is lost, or may be before this node hears of it.
    async fn hold(&self, fence: Fence, mut until: Moment) {
        loop {
            self.clock.sleep(self.term / 3).await;
            loop {
                let asked = self.clock.now();
                let keep = self.database.keep(&self.key, fence, self.term);
                match self.clock.before(until, keep).await {
                    Ok(Ok(true)) => {
                        until = self::until(asked, self.term);
                        break;
                    }
                    Ok(Ok(false)) | Err(_) => return,
                    // The database may come back in time.
                    Ok(Err(_away)) => self.clock.sleep(LEASE_RETRY).await,
                }
                if self.clock.now() >= until {
                    return;
                }
            }
            if self.clock.now() >= until {
                return;
            }
        }
    }
}

/// When an instance has to be gone, if the key was asked for at this moment: a fifth of the term before the
/// database may give it away, for the clocks' different speeds and the time that it takes to end.
fn until(asked: Moment, term: Duration) -> Moment {
    asked + term * 4 / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_gone_before_the_key_can_be_taken() {
        let (asked, term) = (Moment::ORIGIN, Duration::from_secs(15));
        let until = until(asked, term);
        assert!(until < asked + term && until > asked + 2 * (term / 3), "two tries fit in");
    }
}
