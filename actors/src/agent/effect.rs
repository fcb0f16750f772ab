//! Things that an agent does once: their results are journaled before anybody sees them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use neuroflow_kernel::{CallError, Clock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AgentCommand, AgentError, TaskContext, call};
use crate::journal::AppendError;
use crate::limits::{EFFECT_BYTES, EFFECT_SETTLED, JOURNAL_DEADLINE, JOURNAL_NAME_BYTES};

/// The effects of one run of a task, by key.
#[derive(Clone, Default)]
pub(super) struct Effects(Arc<Mutex<HashMap<String, Place>>>);

/// Where one effect is done: by one at a time, whoever else comes waits for what that comes to.
type Place = Arc<tokio::sync::Mutex<Effect>>;

/// How far this run has come with an effect.
#[derive(Default)]
enum Effect {
    /// Not done, as far as is known.
    #[default]
    Open,
    /// Done, so it isn't done again whatever becomes of whoever did it; its result is on its way to the
    /// journal, once.
    Done { json: String, way: Way },
    /// Done, with a result that can't be kept.
    Unfit(Unfit),
    /// The journal has its result.
    Kept { json: String },
}

/// Why a result is nothing that the journal could keep.
enum Unfit {
    TooLarge {
        bytes: usize,
    },
    /// What is wrong with it as JSON.
    Json(String),
}

impl Unfit {
    fn of(&self, key: &str) -> EffectError {
        let key = key.to_owned();
        match self {
            Self::TooLarge { bytes } => {
                EffectError::TooLarge { key, bytes: *bytes, limit: EFFECT_BYTES }
            }
            Self::Json(problem) => {
                EffectError::Json { key, source: serde::ser::Error::custom(problem) }
            }
        }
    }
}

/// A result as the journal would have it.
fn written(result: &impl Serialize) -> Result<String, Unfit> {
    let json = serde_json::to_string(result).map_err(|error| Unfit::Json(error.to_string()))?;
    match json.len() {
        0..=EFFECT_BYTES => Ok(json),
        bytes => Err(Unfit::TooLarge { bytes }),
    }
}

/// A result on its way to the journal: whoever waits next goes on where the last one has stopped.
type Way = Shared<BoxFuture<'static, Result<(), Unkept>>>;

/// Why a result isn't known to be in the journal.
#[derive(Clone, Debug)]
enum Unkept {
    Server(CallError),
    Journal(AppendError),
}

impl Unkept {
    /// Whether the journal can't have heard of it.
    fn is_unsent(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_retryable())
    }

    fn of(self, key: &str) -> EffectError {
        let key = key.to_owned();
        match self {
            Self::Server(source) => EffectError::Server { key, source },
            Self::Journal(source) => EffectError::Journal { key, source },
        }
    }
}

impl Effects {
    /// Those of an earlier run, which the journal has.
    pub(super) fn of(kept: HashMap<String, String>) -> Self {
        let place = |json| Arc::new(tokio::sync::Mutex::new(Effect::Kept { json }));
        Self(Arc::new(Mutex::new(kept.into_iter().map(|(key, json)| (key, place(json))).collect())))
    }

    fn place(&self, key: &str) -> Place {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(key.to_owned()).or_default())
    }

    /// Does `work` unless it was done, and sends its result on the way that `keep` makes, unless it's there or
    /// may be.
    async fn once<T, F>(
        &self,
        key: &str,
        clock: &Clock,
        work: F,
        keep: impl Fn(String) -> Way,
    ) -> Result<T, AgentError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, AgentError>>,
    {
        let json = |source| EffectError::Json { key: key.to_owned(), source };
        let place = self.place(key);
        let mut effect = place.lock().await;
        let mut made = None;
        if matches!(*effect, Effect::Open) {
            let result = work.await?;
            *effect = match written(&result) {
                Ok(json) => Effect::Done { way: keep(json.clone()), json },
                Err(unfit) => Effect::Unfit(unfit),
            };
            made = Some(result);
        }
        if let Effect::Unfit(unfit) = &*effect {
            return Err(unfit.of(key).into());
        }
        if let Effect::Done { json, way } = &mut *effect {
            if way.peek().is_some_and(|sent| sent.as_ref().is_err_and(Unkept::is_unsent)) {
                *way = keep(json.clone());
            }
            let until = clock.now() + JOURNAL_DEADLINE;
            let late = || Unkept::Server(CallError::DeadlineExceeded);
            let sent =
                clock.before(until, way.clone()).await.unwrap_or_else(|_elapsed| Err(late()));
            sent.map_err(|unkept| unkept.of(key))?;
            let json = std::mem::take(json);
            *effect = Effect::Kept { json };
        }
        match (made, &*effect) {
            (None, Effect::Kept { json: kept }) => Ok(serde_json::from_str(kept).map_err(json)?),
            (Some(result), _) => Ok(result),
            // Whatever isn't kept has ended above.
            (None, _) => Err(Unkept::Server(CallError::Unanswered).of(key).into()),
        }
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").finish_non_exhaustive()
    }
}

/// Why a result isn't kept or given back.
///
/// ```
/// use neuroflow_actors::EffectError;
/// fn key(error: &EffectError) -> Option<&str> {
///     match error {
///         EffectError::Json { key, .. } => Some(key),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EffectError {
    /// The result is more than the journal keeps of one effect. What was done is done, and isn't done again in
    /// this run.
    #[error("the result of effect {key:?} has {bytes} bytes as JSON; {limit} are allowed")]
    TooLarge {
        /// The effect.
        key: String,
        /// What it has.
        bytes: usize,
        /// What it may have: [`EFFECT_BYTES`].
        limit: usize,
    },
    /// The key is longer than those that the journal has. Nothing was done.
    #[error("the key of an effect has {bytes} bytes; {JOURNAL_NAME_BYTES} are allowed")]
    LongKey {
        /// What it has.
        bytes: usize,
    },
    /// It isn't JSON, or the journaled one isn't of this type. If it was done just now, it isn't done again in this
    /// run.
    #[error("the result of effect {key:?} can't be written or read as JSON")]
    Json {
        /// The effect.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The journal doesn't keep it.
    #[error("the journal doesn't keep the result of effect {key:?}")]
    Journal {
        /// The effect.
        key: String,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// The agent's own actor doesn't answer.
    #[error("the agent doesn't keep the result of effect {key:?}")]
    Server {
        /// The effect.
        key: String,
        /// What became of the call.
        #[source]
        source: CallError,
    },
}

impl TaskContext {
    /// Does something that must not be done twice. Its result is journaled before it's given back;
    /// when the task is run again after a crash, the journaled result is given back and `work` isn't
    /// run. A key stands for one effect of the task: a second one of the same key gets the first
    /// one's result, also if it's asked for meanwhile, or after the first one was dropped when `work`
    /// was done. So `work` can't ask for an effect of its own key.
    ///
    /// What was begun and not journaled when the node crashed is begun again: hand the key on to
    /// whoever does it, if they know such keys. An error isn't kept.
    ///
    /// A key has [`JOURNAL_NAME_BYTES`] at most, and a result [`EFFECT_BYTES`] as JSON. One that has more, or can't be
    /// written as JSON, is an error, now and when the key is asked for again: `work` was done, and isn't
    /// run a second time but by another run of the task. So of what may be large keep what it's found by.
    ///
    /// ```
    /// use neuroflow_actors::{AgentError, Answer, Incoming, TaskContext};
    /// async fn pay(order: String) -> Result<u64, AgentError> {
    ///     Ok(order.len() as u64)
    /// }
    /// async fn run(ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
    ///     let receipt: u64 = context.effect("pay", pay(ask.text())).await?;
    ///     Ok(Answer::text(format!("Paid: receipt {receipt}")))
    /// }
    /// ```
    ///
    /// # Errors
    /// The error of `work`, why its result can't be kept, or that the task has ended.
    pub async fn effect<T, F>(&self, key: &str, work: F) -> Result<T, AgentError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, AgentError>>,
    {
        if key.len() > JOURNAL_NAME_BYTES {
            return Err(EffectError::LongKey { bytes: key.len() }.into());
        }
        let keep = |json| {
            let header = self.header.clone().within(&self.clock, EFFECT_SETTLED);
            let (task, key) = (self.task.clone(), key.to_owned());
            let server = self.server.clone();
            let send = async move {
                let keep = |reply| AgentCommand::Keep { task, key, json, reply };
                server.call(header, keep).await.map_err(Unkept::Server)?.map_err(Unkept::Journal)
            };
            (Box::pin(send) as BoxFuture<'static, _>).shared()
        };
        // In a box, or each effect around it would be as large again.
        let work = Box::pin(call::within(key, work));
        let once = self.effects.once(key, &self.clock, work, keep);
        self.while_it_lasts(once).await.unwrap_or(Err(AgentError::TaskEnded))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use neuroflow_kernel::{ManualClock, Refusal};
    use tokio::sync::Semaphore;

    use super::*;

    /// Does things once, and counts what is done and what the journal is sent.
    struct Scene {
        effects: Effects,
        time: ManualClock,
        clock: Clock,
        done: AtomicUsize,
        sent: Arc<AtomicUsize>,
        /// Opens for each result that the journal takes.
        journal: Arc<Semaphore>,
        unreachable: bool,
    }

    impl Scene {
        fn new() -> Self {
            let time = ManualClock::new();
            let clock = time.clock();
            let (done, sent) = (AtomicUsize::new(0), Arc::default());
            let journal = Arc::new(Semaphore::new(0));
            let effects = Effects::default();
            Self { effects, time, clock, done, sent, journal, unreachable: false }
        }

        fn pay(&self) -> Pin<Box<dyn Future<Output = Result<usize, AgentError>> + '_>> {
            let work = async {
                tokio::task::yield_now().await;
                Ok(self.done.fetch_add(1, Ordering::SeqCst) + 1)
            };
            let (sent, journal, unreachable) = (&self.sent, &self.journal, self.unreachable);
            let keep = move |_json| {
                let (sent, journal) = (Arc::clone(sent), Arc::clone(journal));
                let send = async move {
                    if unreachable {
                        return Err(Unkept::Server(Refusal::Restarting.into()));
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                    if let Ok(taken) = journal.acquire().await {
                        taken.forget();
                    }
                    Ok(())
                };
                (Box::pin(send) as BoxFuture<'static, _>).shared()
            };
            Box::pin(self.effects.once("pay", &self.clock, work, keep))
        }

        fn done_and_sent(&self) -> (usize, usize) {
            (self.done.load(Ordering::SeqCst), self.sent.load(Ordering::SeqCst))
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn two_at_a_time_of_one_key_are_one_effect() {
        let scene = Scene::new();
        scene.journal.add_permits(1);
        let (one, other) = tokio::join!(scene.pay(), scene.pay());
        assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
        assert_eq!(scene.done_and_sent(), (1, 1));
    }

    #[tokio::test]
    async fn what_was_done_is_not_done_again_by_who_comes_after_one_that_was_dropped() {
        let scene = Scene::new();
        let mut first = scene.pay();
        while scene.done_and_sent() == (0, 0) {
            assert!(poll(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        drop(first);
        scene.journal.add_permits(1);
        assert_eq!(scene.pay().await.unwrap(), 1);
        assert_eq!(scene.pay().await.unwrap(), 1);
        assert_eq!(scene.done_and_sent(), (1, 1));
    }

    #[tokio::test]
    async fn a_journal_that_takes_long_has_one_result_of_one_effect() {
        let scene = Scene::new();
        let mut first = scene.pay();
        while scene.done_and_sent().1 == 0 {
            assert!(poll(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        scene.time.advance(JOURNAL_DEADLINE);
        assert!(first.await.is_err());
        scene.journal.add_permits(1);
        assert_eq!(scene.pay().await.unwrap(), 1);
        assert_eq!(scene.done_and_sent(), (1, 1));
    }

    #[tokio::test]
    async fn a_result_that_was_not_taken_is_sent_again_and_the_work_is_not() {
        let mut scene = Scene::new();
        scene.unreachable = true;
        assert!(scene.pay().await.is_err());
        scene.unreachable = false;
        scene.journal.add_permits(1);
        assert_eq!(scene.pay().await.unwrap(), 1);
        assert_eq!(scene.done_and_sent(), (1, 1));
    }

    #[tokio::test]
    async fn a_result_that_cannot_be_kept_is_told_as_such_and_not_made_again() {
        let scene = Scene::new();
        let done = AtomicUsize::new(0);
        // With its quotation marks it has as many bytes as may be, and one more.
        for (length, fits) in [(EFFECT_BYTES - 2, true), (EFFECT_BYTES - 1, false)] {
            let key = length.to_string();
            let make = || async {
                done.fetch_add(1, Ordering::SeqCst);
                Ok("x".repeat(length))
            };
            for _ in 0..2 {
                let keep = |_json| (Box::pin(async { Ok(()) }) as BoxFuture<'static, _>).shared();
                match scene.effects.once(&key, &scene.clock, make(), keep).await {
                    Ok(made) => assert!(fits && made.len() == length),
                    Err(AgentError::Effect(EffectError::TooLarge { bytes, limit, .. })) => {
                        assert!(!fits && bytes == limit + 1 && limit == EFFECT_BYTES);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        assert_eq!(done.load(Ordering::SeqCst), 2, "each was made once");
        // Keys of JSON objects are texts.
        for _ in 0..2 {
            let make = async {
                done.fetch_add(1, Ordering::SeqCst);
                Ok(HashMap::from([((1, 2), 3)]))
            };
            let keep = |_json| panic!("there is nothing to keep");
            let made: Result<HashMap<(u8, u8), u8>, _> =
                scene.effects.once("map", &scene.clock, make, keep).await;
            let error = made.expect_err("no JSON");
            let AgentError::Effect(EffectError::Json { source, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(source.to_string(), "key must be a string");
        }
        assert_eq!(done.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn the_largest_result_fits_an_entry_of_the_journal() {
        let json = "x".repeat(EFFECT_BYTES);
        let entry = crate::agent::live::effect("k".repeat(JOURNAL_NAME_BYTES), json);
        let bytes = entry.expect("it can be archived").parcel.as_bytes().len();
        assert!(bytes <= crate::limits::JOURNAL_RECORD_BYTES, "{bytes}");
    }

    #[tokio::test]
    async fn work_that_fails_or_is_given_up_is_begun_again() {
        let scene = Scene::new();
        let mut first = scene.pay();
        assert!(poll(&mut first).is_pending());
        drop(first);
        scene.journal.add_permits(1);
        assert_eq!(scene.pay().await.unwrap(), 1);
        let earlier = Effects::of([("pay".to_owned(), "7".to_owned())].into());
        let scene = Scene { effects: earlier, ..Scene::new() };
        assert_eq!(scene.pay().await.unwrap(), 7);
        assert_eq!(scene.done_and_sent(), (0, 0));
    }
}
