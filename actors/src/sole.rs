//! An agent that lives once: one instance in the whole cluster, or one per conversation of a caller.
//!
//! Every node that may run it has an actor that takes requests for it. That one finds out by the lease who
//! has the instance, and takes them there: to its own child, or to the same actor on another node. If nobody
//! has it, this node takes the key and starts it.

mod keys;
mod looks;
mod server;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use neuroflow_kernel::{Address, ChildSpec, Message, Moment, RemoteError, Reply, Request, Rights};
use ring::digest::{SHA256, digest};

use self::looks::Looks;
use self::server::{SoleServer, Way};
pub use self::watch::SoleWatch;
use crate::agent::{
    ASK, AgentCommand, AgentServer, AgentWay, AnyAgent, Ask, BoundedAsk, PROGRESS, READ, TaskOrder,
};
use crate::lease::{LeaseError, Leases, LeasesConfig, Singleton};
use crate::limits::{SOLE_IDLE, SOLE_KEPT};

/// An agent that lives once.
///
/// ```
/// use neuroflow_actors::{AnyAgent, Echo, SoleAgent};
/// let everywhere_the_same = SoleAgent::singleton(AnyAgent::new(Echo));
/// let per_conversation = SoleAgent::sharded(AnyAgent::new(Echo));
/// assert_eq!(everywhere_the_same.agent().profile().name, per_conversation.agent().profile().name);
/// ```
#[derive(Clone)]
pub struct SoleAgent {
    agent: AnyAgent,
    make: Option<Make>,
    per: Per,
    idle: Duration,
    most: usize,
}

type Make = Arc<dyn Fn(&Shard) -> AnyAgent + Send + Sync>;

/// Of what there's one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Cluster,
    Conversation,
}

impl SoleAgent {
    /// One instance in the cluster. It's started as soon as a node can have it, without being asked.
    pub fn singleton(agent: AnyAgent) -> Self {
        Self { agent, make: None, per: Per::Cluster, idle: SOLE_IDLE, most: SOLE_KEPT }
    }

    /// One instance per conversation; those of two callers are two, whatever they call them. It's started when it's
    /// asked, and ends when it has been idle for [`SOLE_IDLE`](crate::limits::SOLE_IDLE), unless
    /// [`idle`](Self::idle) says otherwise, or when others need its place.
    pub fn sharded(agent: AnyAgent) -> Self {
        Self { agent, make: None, per: Per::Conversation, idle: SOLE_IDLE, most: SOLE_KEPT }
    }

    /// What makes the instance of a conversation, so that each has a state of its own. All of them have the
    /// profile and the tools of the agent that [`sharded`](Self::sharded) was given. A state that outlives the
    /// instance is kept by caller *and* conversation, or by the key, which stands for both: clients name their
    /// conversations as they like.
    #[must_use]
    pub fn made_by(mut self, make: impl Fn(&Shard) -> AnyAgent + Send + Sync + 'static) -> Self {
        self.make = Some(Arc::new(make));
        self
    }

    /// How long the instance of a conversation is kept that nobody asks and that has no task. It's looked for
    /// once in a lease's term.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How many conversations live on one node at most, [`SOLE_KEPT`](crate::limits::SOLE_KEPT) or fewer. One more
    /// takes the place of one that has been idle for longest, of the caller that has most.
    #[must_use]
    pub fn most(mut self, most: usize) -> Self {
        self.most = most.clamp(1, SOLE_KEPT);
        self
    }

    /// The agent whose profile and tools all instances have.
    pub fn agent(&self) -> &AnyAgent {
        &self.agent
    }

    /// An instance.
    fn instance(&self, shard: &Shard) -> AnyAgent {
        match &self.make {
            Some(make) if shard.conversation.is_some() => make(shard),
            _ => self.agent.clone(),
        }
    }
}

impl fmt::Debug for SoleAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoleAgent")
            .field("agent", &self.agent)
            .field("per", &self.per)
            .finish_non_exhaustive()
    }
}

/// What an agent that lives once needs of its node.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{AgentServer, Journal, Leases, LeasesConfig, SoleParts};
/// use neuroflow_kernel::RemoteError;
/// fn alone(leases: Leases, config: LeasesConfig, journal: Journal) -> SoleParts {
///     SoleParts {
///         leases: (leases, config),
///         node: "a".to_owned(),
///         far: Arc::new(|node, _name| Err(RemoteError::Unreachable { target: node.to_owned() })),
///         server: Arc::new(move |agent, shard| {
///             let (conversation, caller) = (shard.conversation.clone(), shard.caller.clone());
///             AgentServer::new(agent, None, journal.clone()).conversation(conversation, caller)
///         }),
///     }
/// }
/// ```
pub struct SoleParts {
    /// The leases, and how long one lasts. While no key is [taken](Leases::taken_while), requests for which there's
    /// no instance go to another node.
    pub leases: (Leases, LeasesConfig),
    /// This node, as the leases know it.
    pub node: String,
    /// The way to the agent of this name on the node that the leases name.
    pub far: Far,
    /// What makes the actor of an instance.
    pub server: MakeServer,
}

/// The way to an agent on another node: the node, or `*` for wherever the agent is placed, and its name.
pub type Far = Arc<dyn Fn(&str, &str) -> Result<AgentWay, RemoteError> + Send + Sync>;

/// What makes the actor of an instance.
pub type MakeServer = Arc<dyn Fn(AnyAgent, &Shard) -> AgentServer + Send + Sync>;

impl fmt::Debug for SoleParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoleParts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What lies in the mailbox of the actor that takes requests for an agent that lives once.
///
/// ```
/// use neuroflow_actors::SoleCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &SoleCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum SoleCommand {
    /// Ask the agent, wherever it lives. Needs [`ASK`].
    Ask(Request<Ask>),
    /// The same by another node, whose rules bound what may be used for it. Needs [`ASK`].
    BoundedAsk(Request<BoundedAsk>),
    /// Follow or cancel a task of the agent, wherever it lives. Needs [`READ`](crate::READ) or [`CANCEL`](crate::CANCEL).
    Order(Request<TaskOrder>),
    /// Nobody has this key: this node is to try. It comes from the actor's own tasks.
    Keep {
        /// The key.
        shard: Shard,
        /// Where the key is, once this node has it; nothing if there is no room.
        reply: Reply<Option<Singleton<AgentCommand>>>,
    },
    /// What is idle may end. It comes from the actor itself.
    Sweep,
    /// The node stops: an instance ends as soon as it has no task but such as wait for their clients, and its key is
    /// given back, for another node that offers the agent to have it. It comes from the node.
    Leave,
    /// Tell once no task of the instances here works, as [`AgentCommand::Drain`] has it. Needs [`READ`](crate::READ).
    Drain {
        /// The answer.
        reply: Reply<()>,
    },
    /// The instances of these keys have no task. It comes from the actor's own task.
    Idle {
        /// The keys.
        keys: Vec<String>,
        /// Since when they have been asked.
        since: Moment,
    },
    /// What was kept for a key has ended, or never began. It comes from the actor's own task.
    Gone {
        /// The key.
        key: String,
        /// Which of those that were kept for it.
        life: u64,
    },
}

impl Message for SoleCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Ask(_) => "ask",
            Self::BoundedAsk(_) => "bounded_ask",
            Self::Order(_) => "order",
            Self::Keep { .. } => "keep",
            Self::Sweep => "sweep",
            Self::Leave => "leave",
            Self::Drain { .. } => "drain",
            Self::Idle { .. } => "idle",
            Self::Gone { .. } => "gone",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Ask(_) | Self::BoundedAsk(_) => ASK,
            Self::Order(request) => request.required_rights(),
            Self::Drain { .. } => READ,
            Self::Keep { .. }
            | Self::Sweep
            | Self::Leave
            | Self::Idle { .. }
            | Self::Gone { .. } => PROGRESS,
        }
    }
}

/// One instance: its key among the leases, its conversation, and whose that is.
///
/// ```
/// fn is_singleton(shard: &neuroflow_actors::Shard) -> bool {
///     shard.conversation.is_none()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// The key.
    pub key: String,
    /// The conversation, if there is an instance for each.
    pub conversation: Option<String>,
    /// Who has it, as far as it's known who asks.
    pub caller: Option<String>,
}

impl Shard {
    /// The only instance.
    fn only(agent: &str) -> Self {
        Self { key: format!("agent/{agent}"), conversation: None, caller: None }
    }

    /// That of a conversation. The key has a hash, for clients may name theirs as they like.
    fn of(agent: &str, caller: Option<&str>, conversation: &str) -> Self {
        let whose = caller.map(|caller| format!("{}:{caller}:", caller.len())).unwrap_or_default();
        let hash = digest(&SHA256, [&whose, conversation].concat().as_bytes());
        let hash = HEXLOWER.encode(&hash.as_ref()[..SHARD_BYTES]);
        Self {
            key: format!("agent/{agent}/{hash}"),
            conversation: Some(conversation.to_owned()),
            caller: caller.map(str::to_owned),
        }
    }
}

/// Bytes of a conversation's hash that are in its key: two don't meet by chance.
const SHARD_BYTES: usize = 16;

/// The actor that takes requests for an agent that lives once, as a child, its address, and if there's one
/// instance in the cluster, what watches that.
///
/// ```
/// use neuroflow_actors::{AnyAgent, Echo, LeaseError, SoleAgent, SoleParts, sole_child};
/// fn spec(parts: SoleParts) -> Result<neuroflow_kernel::ChildSpec, LeaseError> {
///     Ok(sole_child(SoleAgent::singleton(AnyAgent::new(Echo)), parts)?.0)
/// }
/// ```
///
/// # Errors
/// Says that there are no leases, or what is wrong with the term or the agent's name.
pub fn sole_child(
    agent: SoleAgent,
    parts: SoleParts,
) -> Result<(ChildSpec, Address<SoleCommand>, Option<SoleWatch>), LeaseError> {
    let name = agent.agent.profile().name;
    let (leases, config) = parts.leases;
    // What is wrong with all keys is said now, not when somebody asks.
    let longest = match agent.per {
        Per::Cluster => Shard::only(&name),
        Per::Conversation => Shard::of(&name, None, ""),
    };
    leases.allow(&longest.key, config.lasts())?;
    let way = Arc::new(Way {
        name: name.clone(),
        looks: Looks::at(leases.clone()),
        leases,
        term: config.lasts(),
        node: parts.node,
        far: parts.far,
    });
    let server = parts.server;
    let (per, watched) = (agent.per, Arc::clone(&way));
    let make = move || SoleServer::new(agent.clone(), Arc::clone(&way), Arc::clone(&server));
    let (spec, address) = ChildSpec::new(&name, make)?;
    let watch = (per == Per::Cluster).then(|| SoleWatch::new(watched, address.clone()));
    Ok((spec, address, watch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_has_one_key_whatever_it_is_called() {
        let of = |agent, conversation| Shard::of(agent, None, conversation);
        let one = of("echo", "a conversation / with any text");
        assert_eq!(one, of("echo", "a conversation / with any text"));
        assert_ne!(one.key, of("echo", "another").key);
        assert_ne!(one.key, of("shell", "a conversation / with any text").key);
        assert_eq!(one.key.len(), "agent/echo/".len() + 2 * SHARD_BYTES);
        assert!(neuroflow_kernel::Name::new(one.key.replace('/', ".")).is_ok());
        assert_eq!(Shard::only("echo").key, "agent/echo");
    }

    #[test]
    fn what_two_callers_call_alike_is_two_conversations() {
        let of = |caller: Option<&str>, conversation| Shard::of("echo", caller, conversation).key;
        let keys = [
            of(None, "planning"),
            of(Some("alice"), "planning"),
            of(Some("bob"), "planning"),
            of(Some("bob"), "3:bob:planning"),
            of(None, "5:alice:planning\0"),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
