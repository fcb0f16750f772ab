//! The lives of actors as log lines.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use neuroflow_kernel::{InTrace, Lifecycle, PostMortem, TraceContext, TrailEntry};
use tracing::{debug, error, warn};

use crate::causes::chain;

/// Logs an event: trouble as warnings and errors, the rest for debugging.
pub(crate) fn log(event: &Lifecycle<'_>) {
    match event {
        Lifecycle::Started { actor } => debug!(
            target: TARGET,
            path = %actor.path, kind = actor.kind, generation = actor.generation.get(),
            "actor started"
        ),
        Lifecycle::Stopped { actor } => debug!(
            target: TARGET,
            path = %actor.path, kind = actor.kind, generation = actor.generation.get(),
            "actor stopped"
        ),
        Lifecycle::Failed { post_mortem, .. } => {
            let message = post_mortem.message.as_ref();
            let trace = message.map_or(TraceContext::NONE, |message| message.header.trace());
            within(trace, || failed(post_mortem));
        }
        Lifecycle::Killed { actor } => warn!(
            target: TARGET,
            path = %actor.path, kind = actor.kind, generation = actor.generation.get(),
            "actor killed: it didn't stop in time"
        ),
        Lifecycle::Restarted { path, kind } => {
            warn!(target: TARGET, %path, kind, "actor restarted");
        }
        Lifecycle::Escalated { path } => error!(
            target: TARGET,
            %path,
            "supervisor gave up: too many restarts"
        ),
        _ => {}
    }
}

fn failed(dead: &PostMortem) {
    error!(
        target: TARGET,
        path = %dead.path,
        kind = dead.kind,
        generation = dead.generation.get(),
        cause = %chain(&dead.cause),
        handling = dead.message.as_ref().map(|message| message.name),
        trail = %trail(&dead.trail),
        "actor failed"
    );
}

/// Runs `log` as if the failed message were still being handled: its line belongs to that trace.
fn within(trace: TraceContext, log: impl Fn()) {
    let mut log = std::pin::pin!(InTrace::new(
        trace,
        std::future::poll_fn(|_| {
            log();
            Poll::Ready(())
        })
    ));
    let _ready = log.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// `4 add, 5 total`: the numbers and names of the last messages.
fn trail(entries: &[TrailEntry]) -> String {
    let words: Vec<String> =
        entries.iter().map(|entry| format!("{} {}", entry.number, entry.name)).collect();
    words.join(", ")
}

/// The target of all these lines, for filters.
const TARGET: &str = "neuroflow::actor";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_names_the_last_messages() {
        let entries =
            [TrailEntry { number: 4, name: "add" }, TrailEntry { number: 5, name: "total" }];
        assert_eq!(trail(&entries), "4 add, 5 total");
        assert_eq!(trail(&[]), "");
    }
}
