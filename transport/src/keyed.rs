//! Calls with a key: however often one is sent, it runs once, and its answer is told again.

mod call;
mod error;
mod execution;
pub(crate) mod pinned;
mod unheard;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use data_encoding::HEXLOWER;
use neuroflow_kernel::{Clock, Header, Moment, RawParcel, StreamError};
use ring::rand::SecureRandom;

pub use self::error::KeyedError;
use self::execution::{Execution, Joined, Run};
use self::unheard::Unheard;
use crate::export::{Delivery, Exported, Source};
use crate::identity::NodeId;
use crate::limits::{KEYED_BYTES, KEYED_CALLS, KEYED_TIME};
use crate::session::keyed::{Arrival, Bounds, KeyedWindow};

/// What makes two sendings of a call the same call. Another call needs another key.
///
/// ```
/// use neuroflow_transport::CallKey;
/// assert_eq!(CallKey::of("order 17"), CallKey::of("order 17"));
/// assert_ne!(CallKey::of("order 17"), CallKey::of("order 18"));
/// assert_eq!(CallKey::of("order 17").to_string().len(), 32);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey([u8; 16]);

impl CallKey {
    /// No key, as a frame says it.
    pub(crate) const NONE: Self = Self([0; 16]);

    /// The key of a text that names what is to be done once: an order's number, a task's id.
    pub fn of(text: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let mut key = [0; 16];
        key.iter_mut().zip(digest.as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
        Self::from_bytes(key)
    }

    /// A key that no other call has; nothing if the system gives no random numbers.
    pub fn random() -> Option<Self> {
        let mut key = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut key).ok()?;
        Some(Self::from_bytes(key))
    }

    pub(crate) fn from_bytes(mut key: [u8; 16]) -> Self {
        if key == [0; 16] {
            key[15] = 1;
        }
        Self(key)
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallKey({self})")
    }
}

/// One call of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    actor: String,
    key: CallKey,
}

/// The keyed calls that peers have made here.
#[derive(Default)]
pub(crate) struct Keyed {
    windows: Mutex<HashMap<NodeId, Arc<PeerCalls>>>,
    unheard: Arc<Unheard>,
}

/// Those of one peer.
struct PeerCalls {
    window: Mutex<KeyedWindow<Call, Arc<Execution>>>,
    /// Not owned: what is in there holds this.
    unheard: Weak<Unheard>,
}

/// Whose call it is.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) node: NodeId,
    pub(crate) actor: &'a str,
    pub(crate) key: CallKey,
}

impl Keyed {
    /// Joins the call if it's known, and begins it otherwise. Until its actor's mailbox has it, all that join it
    /// wait, as any message does; if they all go before that, it wasn't run.
    pub(crate) fn deliver(
        &self,
        origin: Origin<'_>,
        actor: impl FnOnce() -> Option<Arc<dyn Exported>>,
        header: Header,
        parcel: RawParcel,
        clock: &Clock,
    ) -> Delivery {
        let calls = self.of(origin.node);
        let call = Call { actor: origin.actor.to_owned(), key: origin.key };
        let now = clock.now();
        let join = |execution| {
            let (calls, call, clock) = (Arc::clone(&calls), call.clone(), clock.clone());
            Joined::new(Run { execution, calls, call, clock })
        };
        let joined = match calls.arrived(&call, now) {
            Arrival::Known(execution) => join(execution),
            Arrival::Full => return Delivery::Refused(StreamError::Overloaded),
            Arrival::First(execution) => {
                let joined = join(Arc::clone(&execution));
                let delivery = match actor() {
                    Some(actor) => actor.deliver(header, parcel, true, now),
                    None => Delivery::Refused(StreamError::Stale),
                };
                match delivery {
                    Delivery::Taken(Some(source)) => execution.runs(source),
                    Delivery::Waiting(waiting) => execution.waits(waiting),
                    // Nothing to join: what can't answer is over when it's taken.
                    Delivery::Taken(None) => {
                        execution.ends(StreamError::Interrupted);
                        calls.ended(&call, Some(StreamError::Interrupted), 0, now);
                    }
                    Delivery::Refused(why) => {
                        calls.window().not_run(&call);
                        execution.ends(why);
                        return Delivery::Refused(why);
                    }
                }
                joined
            }
        };
        if joined.has_begun() {
            return Delivery::Taken(Some(Box::new(joined)));
        }
        Delivery::Waiting(Box::pin(async move {
            joined.begun().await;
            Ok(Some(Box::new(joined) as Box<dyn Source>))
        }))
    }

    fn of(&self, node: NodeId) -> Arc<PeerCalls> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let bounds = Bounds { calls: KEYED_CALLS, bytes: KEYED_BYTES, time: KEYED_TIME };
            let window = Mutex::new(KeyedWindow::new(bounds));
            Arc::new(PeerCalls { window, unheard: Arc::downgrade(&self.unheard) })
        };
        Arc::clone(windows.entry(node).or_insert_with(make))
    }

    /// Forgets what is past its time.
    pub(crate) fn expire(&self, now: Moment) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|_, calls| {
            calls.expire(now);
            !calls.window().is_empty() || Arc::strong_count(calls) > 1
        });
    }

    /// This node is shut out: what it has asked for ends, and nothing is known of it any more.
    pub(crate) fn forget(&self, node: &NodeId) {
        let calls = self.windows.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        let running = calls.map(|calls| calls.window().clear());
        // Not under the locks: dropping a source is code of others.
        for execution in running.into_iter().flatten() {
            execution.ends(StreamError::Interrupted);
        }
    }

    /// Brings runs that nobody listens to to their ends; never ends itself.
    pub(crate) async fn drive(&self) -> Infallible {
        std::future::poll_fn(|cx| self.unheard.poll(cx)).await
    }
}

impl PeerCalls {
    fn window(&self) -> std::sync::MutexGuard<'_, KeyedWindow<Call, Arc<Execution>>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who gets an execution has joined it.
    fn arrived(&self, call: &Call, now: Moment) -> Arrival<Arc<Execution>> {
        let mut window = self.window();
        window.forget(now);
        let arrival = window.arrived(call, now, Execution::new);
        if let Arrival::First(execution) | Arrival::Known(execution) = &arrival {
            execution.joins();
        }
        arrival
    }

    fn expire(&self, now: Moment) {
        let left = self.window().expire(now, |execution| execution.listening() == 0);
        // Not under the lock: dropping a source is code of others.
        for execution in left {
            execution.ends(StreamError::Interrupted);
        }
    }

    /// The call has ended.
    fn ended(&self, call: &Call, ending: Option<StreamError>, bytes: usize, now: Moment) {
        if ending.is_some_and(|why| !why.may_have_run()) {
            self.window().not_run(call);
            return;
        }
        let dropped = self.window().ended(call, bytes, now);
        for execution in dropped {
            execution.forget();
        }
    }

    /// So much more of its answer has come.
    fn grew(&self, call: &Call, bytes: usize, now: Moment) {
        let dropped = self.window().grew(call, bytes, now);
        for execution in dropped {
            execution.forget();
        }
    }
}
