//! Sees which servers are killed while the node stops, so that its end can say so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use neuroflow::kernel::{KindObserver, Lifecycle, Observer, Span};

/// Watches for another observer, and remembers.
#[derive(Debug)]
pub(super) struct Witness {
    inner: Arc<dyn Observer>,
    stopping: AtomicBool,
    killed: Mutex<Vec<String>>,
}

impl Witness {
    pub(super) fn before(inner: Arc<dyn Observer>) -> Self {
        Self { inner, stopping: AtomicBool::new(false), killed: Mutex::default() }
    }

    /// From now on what is killed hasn't stopped in time.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The servers that were.
    pub(super) fn killed(&self) -> Vec<String> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Witness {
    fn lifecycle(&self, event: &Lifecycle<'_>) {
        if let Lifecycle::Killed { actor } = event
            && self.stopping.load(Ordering::Acquire)
        {
            let path = actor.path.as_str();
            // What is below a server, such as a task, is killed in the ordinary course of its stop.
            if path.rfind('/') == Some(0) && path.len() > 1 {
                let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
                killed.push(path.to_owned());
            }
        }
        self.inner.lifecycle(event);
    }

    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        self.inner.kind(kind)
    }

    fn span(&self, span: &Span) {
        self.inner.span(span);
    }
}
