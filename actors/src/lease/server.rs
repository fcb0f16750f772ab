//! The keeper of one key on one node: waits for it, has the instance as its child, and lets go in time.
//!
//! It outlives its instance. One that fails gives its key back, and is tried again after a pause, here or where the
//! key is taken first: a supervisor would lose its patience, and with it all that it has beside this one.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Address, Backoff, CallError, Clock, Context, Ended, Ending, Header, Message, Moment,
    Name, Reply, Spawn, StartError,
};
use tokio::sync::{oneshot, watch};

use super::{Database, Fence, Key, SingletonError, Takes};
use crate::limits::{LEASE_BACKOFF, LEASE_RETRY, LEASE_SETTLED};

/// What the keeper is told, by its own task but for its end.
pub(super) enum Keeping {
    /// The key is this node's.
    Held(Held),
    /// It may be another's soon: the instance ends now, and then this is answered.
    Lost(Reply<()>),
    /// Nobody here needs it any more: it's given back. It comes from whoever has the keeper started.
    End,
}

impl Message for Keeping {
    fn name(&self) -> &'static str {
        match self {
            Self::Held(_) => "held",
            Self::Lost(_) => "lost",
            Self::End => "end",
        }
    }
}

/// A key that was taken.
pub(super) struct Held {
    fence: Fence,
    /// By when the instance has to be gone: each renewal puts it off, and it's closed once the key is lost.
    until: watch::Receiver<Moment>,
    /// Who is told when the instance lives no more.
    over: oneshot::Sender<Over>,
}

/// How an instance ended whose key was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Nothing of it is left.
    Gone,
    /// It was cut short, and what it had begun may take a moment to end.
    Cut,
}

type Failure = dyn std::error::Error + 'static;

/// Tells whoever asks here where the instance is.
pub(super) type Here<M> = watch::Sender<Option<(Fence, Address<M>)>>;

pub(super) struct SingletonServer<A: Actor, F> {
    database: Arc<Database>,
    takes: Takes,
    key: Key,
    term: Duration,
    make: Arc<F>,
    here: Arc<Here<A::Message>>,
    /// The key of the instance that lives.
    held: Option<Held>,
}

impl<A: Actor, F> SingletonServer<A, F> {
    pub(super) fn new(
        database: Arc<Database>,
        (takes, key, term): (Takes, Key, Duration),
        make: Arc<F>,
        here: Arc<Here<A::Message>>,
    ) -> Self {
        Self { database, takes, key, term, make, here, held: None }
    }

    fn failed(&mut self, error: Option<&Failure>, over: Over, context: &Context<Keeping>) {
        tracing::warn!(keeper = %context.path(), error, "an instance has failed, and is tried again");
        self.here.send_replace(None);
        if let Some(held) = self.held.take() {
            // If the key was lost meanwhile, that is what counts.
            let _lost = held.over.send(over).is_err();
        }
    }
}

impl<A, F> SingletonServer<A, F>
where
    A: Actor,
    F: Fn(Fence) -> A + Send + Sync + 'static,
{
    /// Starts the instance, unless its key may be lost before that is done: it does things already while it starts.
    async fn begin(
        &mut self,
        mut held: Held,
        context: &mut Context<Keeping>,
    ) -> Result<(), SingletonError> {
        let (make, clock, name) =
            (Arc::clone(&self.make), context.clock().clone(), instance_name()?);
        let fence = held.fence;
        let started = tokio::select! {
            biased;
            () = past(&mut held.until, &clock) => {
                tracing::warn!(keeper = %context.path(), "an instance took longer to start than its key is held");
                // A renewal may have come in this very moment; it's of no use any more.
                let _lost = held.over.send(Over::Cut).is_err();
                return Ok(());
            }
            started = context.spawn_made(name, move || make(fence), Spawn::default()) => started,
        };
        self.held = Some(held);
        match started {
            Ok(address) => {
                self.here.send_replace(Some((fence, address)));
            }
            Err(error) => {
                let over = match error {
                    StartError::Failed { .. } => Over::Gone,
                    _ => Over::Cut,
                };
                self.failed(Some(&error), over, context);
            }
        }
        Ok(())
    }
}

/// The name of the one child.
fn instance_name() -> Result<Name, SingletonError> {
    Ok(Name::new("instance").map_err(StartError::from)?)
}

/// Waits until a moment has come that may be put off, or nobody can put it off any more.
async fn past(until: &mut watch::Receiver<Moment>, clock: &Clock) {
    loop {
        let at = *until.borrow_and_update();
        match clock.before(at, until.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
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
            takes: self.takes.clone(),
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
            Keeping::Held(held) => self.begin(held, context).await?,
            Keeping::Lost(gone) => {
                self.here.send_replace(None);
                self.held = None;
                // At once, wherever it waits: its time is over.
                context.kill_child(&instance_name()?).await;
                // The task waits for this, unless it was ended.
                let _ended = gone.send(()).is_err();
            }
            Keeping::End => context.stop(),
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
            Ending::Stopped => context.stop(),
            Ending::Failed(dead) => self.failed(Some(&dead.cause), Over::Gone, context),
            _ => self.failed(None, Over::Cut, context),
        }
        Ok(())
    }

    /// The instance gets its time to stop, but never longer than its key is held: nobody can tell this actor any more
    /// that it's lost, so it looks itself.
    async fn stopping(&mut self, context: &mut Context<Keeping>) {
        let Some((_, instance)) = self.here.send_replace(None) else { return };
        // Not dropped before the instance is gone: until then its key is kept.
        let Some(mut held) = self.held.take() else { return };
        let clock = context.clock().clone();
        let gone = async {
            context.stop_children().await;
            // One that couldn't even be killed isn't gone yet.
            instance.down().await;
        };
        tokio::select! {
            biased;
            () = past(&mut held.until, &clock) => {}
            () = gone => {
                // Without it the next holder waits until the term is over.
                let _later = self.database.give_back(&self.key, held.fence).await.is_err();
                return;
            }
        }
        tracing::warn!(keeper = %context.path(), "an instance took longer to stop than its key is held");
        // A stop that was under way and is given up has killed it.
        if let Ok(name) = instance_name() {
            context.kill_child(&name).await;
        }
        instance.down().await;
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
    takes: Takes,
    key: Key,
    term: Duration,
    own: Address<Keeping>,
    clock: Clock,
}

impl Keeper {
    async fn run(self) {
        let mut failures = Failures::default();
        loop {
            let asked = self.clock.now();
            let mut pause = self.term / 3;
            let taken = self.takes.take(&self.database, &self.key, self.term).await;
            if let Ok(Some(fence)) = taken {
                let until = until(asked, self.term);
                let began = self.clock.now();
                if began < until {
                    let (kept, seen) = watch::channel(until);
                    let (over, mut ended) = oneshot::channel();
                    let held = Held { fence, until: seen, over };
                    if self.own.tell(Header::new(), Keeping::Held(held)).await.is_err() {
                        return;
                    }
                    let over = tokio::select! {
                        biased;
                        over = &mut ended => over.ok(),
                        () = self.hold(fence, kept) => None,
                    };
                    match over {
                        Some(over) => {
                            self.let_go(fence, over).await;
                            let lived = self.clock.now().since(began);
                            pause = failures.pause(lived, Backoff::jitter());
                        }
                        None if self.lose().await => {}
                        None => return,
                    }
                }
            }
            self.clock.sleep(pause).await;
        }
    }

    /// Returns when the key is lost, or may be before this node hears of it.
    async fn hold(&self, fence: Fence, kept: watch::Sender<Moment>) {
        let mut until = *kept.borrow();
        loop {
            self.clock.sleep(self.term / 3).await;
            loop {
                let asked = self.clock.now();
                let keep = self.database.keep(&self.key, fence, self.term);
                match self.clock.before(until, keep).await {
                    Ok(Ok(true)) => {
                        until = self::until(asked, self.term);
                        kept.send_replace(until);
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

    /// The instance has ended by itself: another node may have the key.
    async fn let_go(&self, fence: Fence, over: Over) {
        match over {
            // If it can't be given back now, it's free when its term is over.
            Over::Gone => {
                let _later = self.database.give_back(&self.key, fence).await.is_err();
            }
            // What is left of it needs less than what is left of the term.
            Over::Cut => {}
        }
    }

    /// Ends the instance, whose key may be lost. Says whether the keeper lives; one that stops sees to it itself.
    async fn lose(&self) -> bool {
        // Not taken again before the instance is gone, however long it takes.
        while let Err(error) = self.own.call(Header::new(), Keeping::Lost).await {
            if error != CallError::DeadlineExceeded {
                return false;
            }
        }
        true
    }
}

/// How often in a row the instance has failed.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// The pause after another one, of an instance that began this long ago.
    fn pause(&mut self, lived: Duration, jitter: f64) -> Duration {
        self.0 = if lived < LEASE_SETTLED { self.0.saturating_add(1) } else { 1 };
        LEASE_BACKOFF.delay(self.0, jitter)
    }
}

/// When an instance has to be gone, if the key was asked for at this moment: a fifth of the term before the
/// database may give it away, for the clocks' different speeds and the time that it takes to end.
fn until(asked: Moment, term: Duration) -> Moment {
    asked + term * 4 / 5
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use neuroflow_kernel::ManualClock;

    use super::*;

    #[test]
    fn an_instance_is_gone_before_the_key_can_be_taken() {
        let (asked, term) = (Moment::ORIGIN, Duration::from_secs(15));
        let until = until(asked, term);
        assert!(until < asked + term && until > asked + 2 * (term / 3), "two tries fit in");
    }

    #[test]
    fn pauses_after_failures_grow_to_the_longest_and_an_instance_that_lived_well_begins_anew() {
        let (mut failures, at_once) = (Failures::default(), Duration::ZERO);
        let pauses: Vec<Duration> = (0..12).map(|_| failures.pause(at_once, 0.0)).collect();
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(pauses.is_sorted() && pauses[11] == LEASE_BACKOFF.max, "{pauses:?}");
        // One that failed in a start that took long hasn't lived well.
        assert_eq!(
            failures.pause(neuroflow_kernel::limits::START_DEADLINE, 0.0),
            LEASE_BACKOFF.max
        );
        assert_eq!(failures.pause(LEASE_SETTLED, 0.0), LEASE_BACKOFF.first);
        assert_eq!(failures.pause(at_once, 0.0), 2 * LEASE_BACKOFF.first);
    }

    #[test]
    fn a_moment_that_is_put_off_comes_later_and_at_once_if_nobody_can_put_it_off() {
        let (time, second) = (ManualClock::new(), Duration::from_secs(1));
        let clock = time.clock();
        let (kept, mut until) = watch::channel(clock.now() + second);
        let mut late = Box::pin(past(&mut until, &clock));
        assert!(late.as_mut().now_or_never().is_none());
        kept.send_replace(clock.now() + 2 * second);
        assert!(late.as_mut().now_or_never().is_none());
        time.advance(second);
        assert!(late.as_mut().now_or_never().is_none(), "it was put off");
        time.advance(second);
        assert!(late.as_mut().now_or_never().is_some());
        drop(late);
        kept.send_replace(clock.now() + second);
        let mut late = Box::pin(past(&mut until, &clock));
        assert!(late.as_mut().now_or_never().is_none());
        drop(kept);
        assert!(late.as_mut().now_or_never().is_some());
    }
}
