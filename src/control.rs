//! The contract of the control socket: one JSON request per connection, one versioned JSON answer.
//!
//! It's for the operator of the node: a Unix socket that nobody but the node's own user and root
//! may use, which the kernel of the operating system says on every connection.

mod client;
mod cluster;
mod place;
mod row;
mod server;
mod tasks;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use neuroflow::actors::Audit;
use neuroflow::kernel::{Census, ChildSpec, Message, NameError};
use neuroflow::transport::Links;
use serde::{Deserialize, Serialize};

pub(crate) use client::{ControlClientError, ask, ask_tree};
#[cfg(test)]
pub(crate) use cluster::LinkRow;
pub(crate) use cluster::{Asked, Cluster, Invited, MemberRow, SeedRow, Token};
pub(crate) use place::default_path;
pub(crate) use row::{ActorRow, FailureRow, Tree, failures};

pub(crate) use tasks::{
    LogPart, NodeJournal, Place, TaskPage, TasksAsked, TasksFound, Wanted, name, page, part, query,
};

use crate::limits::SOCKET_PATH_BYTES;
use server::ControlServer;

/// The version of the answers.
pub(crate) const VERSION: u16 = 1;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ControlRequest {
    /// The live tree, and the last failures.
    Tree {},
    /// The members of the cluster.
    Cluster {},
    /// A node is to drain, or to stop draining.
    Drain { node: String, on: bool },
    /// A new node of this name may join.
    Invite(Invited),
    /// What the node's journal has of its tasks.
    Tasks(TasksAsked),
}

/// An answer: the version, and what was asked for or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ControlAnswer {
    pub(crate) version: u16,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

impl From<Tree> for ControlAnswer {
    fn from(tree: Tree) -> Self {
        Self { version: VERSION, outcome: Outcome::Tree(tree) }
    }
}

/// What an answer has beside its version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Tree(Tree),
    Cluster(Cluster),
    Asked(Asked),
    Token(Token),
    Tasks(TasksFound),
    Error(Fault),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) code: FaultCode,
    pub(crate) message: String,
}

/// Stable words for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultCode {
    /// The request isn't one.
    MalformedRequest,
    /// The request is too long.
    RequestTooLarge,
    /// The node has no links to others.
    NoCluster,
    /// There is no link to a node of this name.
    UnknownNode,
    /// The other node isn't asked to do this, or doesn't do it.
    NotHeeded,
    /// The node can't invite others, or not this one.
    NotInvited,
    /// The node has no journal yet.
    NoJournal,
    /// The node's journal is another one.
    OtherJournal,
    /// The journal can't be read.
    Unreadable,
    /// The peer is neither the node's user nor root.
    Denied,
    /// It isn't done because it can't be recorded.
    Unrecorded,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// What lies in the control actor's mailbox: nothing, for its work comes from the socket.
#[derive(Debug)]
pub(crate) enum ControlCommand {}

impl Message for ControlCommand {
    fn name(&self) -> &'static str {
        match *self {}
    }
}

/// What there is to ask of a node once it has started; the socket is there before that.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Its links, if it has any.
    pub(crate) links: OnceLock<Links>,
    pub(crate) journal: OnceLock<NodeJournal>,
    pub(crate) audit: OnceLock<Audit>,
}

/// The control actor as a child named `control`.
pub(crate) fn child(
    socket: PathBuf,
    census: Census,
    slots: Arc<Slots>,
) -> Result<ChildSpec, NameError> {
    let factory = move || ControlServer::new(socket.clone(), census.clone(), Arc::clone(&slots));
    let (spec, _nobody_sends) = ChildSpec::new("control", factory)?;
    Ok(spec)
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ControlError {
    /// Another node has it.
    #[error(
        "another node is running with the control socket {}; stop that one, or give this one \
         another with control.socket", path.display()
    )]
    Live { path: PathBuf },
    /// Something that isn't a socket is in its place.
    #[error("{} is there and isn't a socket; remove it, or choose another path with control.socket", path.display())]
    NotASocket { path: PathBuf },
    /// The path is longer than a socket's may be.
    #[error(
        "the path {} is too long for a socket, which has {SOCKET_PATH_BYTES} bytes; choose a \
         shorter one with control.socket", path.display()
    )]
    TooLong { path: PathBuf },
    /// Others could replace what is in the directory.
    #[error(
        "the directory {} is not private: it belongs to user {owner} and has mode {mode:o}; choose \
         another with control.socket", path.display()
    )]
    Directory { path: PathBuf, owner: u32, mode: u32 },
    /// The system refused a step.
    #[error("can't {step} {}; choose another path with control.socket", path.display())]
    System {
        step: Step,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The actor has all the tasks that it may have.
    #[error("the control actor can't listen: it has no room for a task")]
    NoRoom,
}

impl ControlError {
    fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, path: path.to_owned(), source }
    }
}

/// A step to the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Identify,
    MakeDirectory,
    Inspect,
    Lock,
    Remove,
    Bind,
    Protect,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identify => "find out the user of",
            Self::MakeDirectory => "make the directory",
            Self::Inspect => "look at",
            Self::Lock => "lock",
            Self::Remove => "remove the stale socket",
            Self::Bind => "listen on",
            Self::Protect => "set the mode of",
        })
    }
}
