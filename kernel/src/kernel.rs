//! The kernel itself: one clock, one observer, one tree.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Spawn, Start, StartError, start_actor};
use crate::address::Address;
use crate::clock::Clock;
use crate::core::{ActorInfo, Core};
use crate::event::{Observer, PostMortem, Tracer, Unobserved};
use crate::limits::STOP_DEADLINE;
use crate::mailbox::{Inbox, Mailbox, Stop};
use crate::name::Path;
use crate::registry::Scope;
use crate::restart::RestartPolicy;
use crate::slot::{Resolve, Slot};
use crate::supervisor::{Own, Supervisor, SupervisorActor, SupervisorCommand};

/// A running supervision tree. Dropping it kills all of it; [`stop`](Self::stop) is the good way.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::Kernel;
/// let kernel = Kernel::builder().start().await?;
/// assert_eq!(kernel.tree().len(), 1); // the root supervisor
/// kernel.stop().await;
/// # Ok::<(), neuroflow_kernel::StartError>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Kernel {
    core: Arc<Core>,
    root: Supervisor,
    inbox: Arc<Mailbox<SupervisorCommand>>,
}

impl Kernel {
    /// A kernel on the machine's clock, unobserved, with the default restart policy at its root.
    pub fn builder() -> KernelBuilder {
        KernelBuilder {
            clock: None,
            observer: Arc::new(Unobserved),
            policy: RestartPolicy::default(),
        }
    }

    /// The root supervisor.
    pub fn root(&self) -> &Supervisor {
        &self.root
    }

    /// The power to look up every name. Hand out narrower ones.
    pub fn scope(&self) -> Scope {
        Scope::new(Arc::clone(&self.core.registry), Path::ROOT)
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Begins spans for this kernel's observer.
    pub fn tracer(&self) -> Tracer {
        self.core.tracer()
    }

    /// Every living actor, ordered by path.
    pub fn tree(&self) -> Vec<ActorInfo> {
        self.core.tree()
    }

    /// A view of the tree that can be handed to an actor.
    pub fn census(&self) -> Census {
        Census { core: Arc::clone(&self.core) }
    }

    /// What is known about the actors that failed last, newest first.
    pub fn post_mortems(&self) -> Vec<Arc<PostMortem>> {
        self.core.post_mortems()
    }

    /// Waits until the root supervisor has ended: by [`stop`](Self::stop), or because it gave up.
    pub async fn ended(&self) {
        self.inbox.vitals.gone().await;
    }

    /// Stops everything in reverse start order, each actor within its own deadline.
    pub async fn stop(&self) {
        self.inbox.stop();
        self.ended().await;
        // What lived below a child that had to be killed ends on its own, and at once, unless it
        // never awaits.
        let clock = &self.core.clock;
        let _stuck = clock.before(clock.now() + STOP_DEADLINE, self.core.deserted()).await;
    }

    /// Like [`stop`](Self::stop), and kills what still lives after `deadline`. Says whether all
    /// stopped in time.
    pub async fn stop_within(&self, deadline: Duration) -> bool {
        let clock = &self.core.clock;
        let in_time = clock.before(clock.now() + deadline, self.stop()).await.is_ok();
        if !in_time {
            self.inbox.actor.kill();
        }
        in_time
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.inbox.actor.kill();
    }
}

/// A view of a kernel's tree, and nothing more.
///
/// ```
/// fn busiest(census: &neuroflow_kernel::Census) -> Option<String> {
///     let tree = census.tree();
///     tree.iter().max_by_key(|actor| actor.mailbox_depth).map(|actor| actor.path.to_string())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Census {
    core: Arc<Core>,
}

impl Census {
    /// Every living actor, ordered by path.
    pub fn tree(&self) -> Vec<ActorInfo> {
        self.core.tree()
    }

    /// How many actors live.
    pub fn count(&self) -> usize {
        self.core.count()
    }

    /// What is known about the actors that failed last, newest first.
    pub fn post_mortems(&self) -> Vec<Arc<PostMortem>> {
        self.core.post_mortems()
    }
}

/// What a kernel is started with.
///
/// ```
/// use neuroflow_kernel::{Kernel, ManualClock};
/// let time = ManualClock::new();
/// let builder = Kernel::builder().clock(time.clock());
/// assert!(format!("{builder:?}").contains("KernelBuilder"));
/// ```
#[derive(Debug)]
pub struct KernelBuilder {
    clock: Option<Clock>,
    observer: Arc<dyn Observer>,
    policy: RestartPolicy,
}

impl KernelBuilder {
    /// Another clock, such as a [`ManualClock`](crate::ManualClock)'s.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who watches.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The root supervisor's policy.
    #[must_use]
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Starts the root supervisor on the current tokio runtime.
    ///
    /// # Errors
    /// Says why it didn't start.
    pub async fn start(self) -> Result<Kernel, StartError> {
        let clock = self.clock.unwrap_or_else(Clock::system);
        clock.settle(tokio::runtime::Handle::current());
        let core = Core::new(clock, self.observer);
        let slot: Arc<Slot<SupervisorCommand>> = Slot::new();
        let start = Start {
            core: Arc::clone(&core),
            path: Path::ROOT,
            options: Spawn::default(),
            lineage: Arc::clone(slot.lineage()),
            make: Box::new(move || SupervisorActor::new(self.policy, Own::default())),
        };
        let inbox: Arc<Mailbox<SupervisorCommand>> = start_actor(start, None).await?;
        slot.lineage().close();
        let address = Arc::clone(&inbox) as Arc<dyn Inbox<SupervisorCommand>>;
        let root = Supervisor::of(Address::of_life(address));
        Ok(Kernel { core, root, inbox })
    }
}
