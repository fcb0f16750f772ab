//! The tree and the failures as the socket's JSON has them.

use std::error::Error;
use std::time::SystemTime;

use neuroflow::kernel::{ActorInfo, Cause, Census, PostMortem};
use serde::{Deserialize, Serialize};

use crate::limits::{CONTROL_ACTORS, ERROR_CHAIN};

/// A node's live tree and its last failures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tree {
    pub(crate) node: NodeRow,
    /// Ordered by path.
    pub(crate) actors: Vec<ActorRow>,
    /// Actors that were left out because there are too many.
    pub(crate) actors_omitted: usize,
    /// Newest first.
    pub(crate) post_mortems: Vec<FailureRow>,
}

/// The node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) version: String,
    pub(crate) pid: u32,
}

/// One actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ActorRow {
    pub(crate) path: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) mailbox: Mailbox,
    /// Messages that have left its mailbox in this life.
    pub(crate) handled: u64,
    pub(crate) restarts: u32,
    /// Of this life.
    pub(crate) age_seconds: f64,
}

/// How full a mailbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mailbox {
    pub(crate) depth: usize,
    pub(crate) capacity: usize,
}

/// One failure of an actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FailureRow {
    pub(crate) path: String,
    pub(crate) kind: String,
    pub(crate) generation: u32,
    /// Why, with the causes behind it.
    pub(crate) cause: String,
    /// The kind of message that it failed on.
    pub(crate) message: Option<String>,
    /// The kinds of messages before that, oldest first.
    pub(crate) trail: Vec<String>,
    pub(crate) seconds_ago: f64,
}

impl Tree {
    pub(super) fn of(census: &Census, now: SystemTime) -> Self {
        let tree = census.tree();
        let actors_omitted = tree.len().saturating_sub(CONTROL_ACTORS);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            node: NodeRow { version, pid: std::process::id() },
            actors: tree.iter().take(CONTROL_ACTORS).map(ActorRow::from).collect(),
            actors_omitted,
            post_mortems: failures(census, now),
        }
    }
}

impl From<&ActorInfo> for ActorRow {
    fn from(actor: &ActorInfo) -> Self {
        let mailbox = Mailbox { depth: actor.mailbox_depth, capacity: actor.mailbox_capacity };
        Self {
            path: actor.path.to_string(),
            kind: actor.kind.to_owned(),
            state: actor.state.as_str().to_owned(),
            mailbox,
            handled: actor.handled,
            restarts: actor.restarts(),
            age_seconds: actor.age.as_secs_f64(),
        }
    }
}

/// What is known about the actors that failed last, newest first.
pub(crate) fn failures(census: &Census, now: SystemTime) -> Vec<FailureRow> {
    census.post_mortems().iter().map(|dead| FailureRow::of(dead, now)).collect()
}

impl FailureRow {
    fn of(dead: &PostMortem, now: SystemTime) -> Self {
        Self {
            path: dead.path.to_string(),
            kind: dead.kind.to_owned(),
            generation: dead.generation.get(),
            cause: cause(&dead.cause),
            message: dead.message.as_ref().map(|message| message.name.to_owned()),
            trail: dead.trail.iter().map(|entry| entry.name.to_owned()).collect(),
            // A clock that was set back in between says nothing about the time.
            seconds_ago: now.duration_since(dead.at).unwrap_or_default().as_secs_f64(),
        }
    }
}

/// The cause and what is behind it, in one line.
fn cause(cause: &Cause) -> String {
    let first: &dyn Error = match cause {
        Cause::Error(error) => error.as_ref(),
        other => other,
    };
    let mut text = first.to_string();
    let behind = std::iter::successors(first.source(), |error| (*error).source());
    for error in behind.take(ERROR_CHAIN) {
        text.push_str(": ");
        text.push_str(&error.to_string());
    }
    text
}
