//! Waits for the tasks that work when the node stops: behind the gateway, and before all that they need.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use neuroflow_actors::{AgentCommand, GatewayAgent, SoleCommand};
use neuroflow_kernel::{Actor, Address, ChildSpec, Context, Header, Message, Moment, NameError};

use super::sole::Sole;

/// The time in which what was begun may come to its end, once the node is told to stop. The gateway and the tasks
/// share it: both have begun before.
#[derive(Clone, Debug)]
pub(super) struct Share {
    drain: Duration,
    /// For so long the gateway still accepts.
    delay: Duration,
    until: Arc<OnceLock<Moment>>,
}

impl Share {
    pub(super) fn new(drain: Duration, delay: Duration) -> Self {
        Self { drain, delay, until: Arc::default() }
    }

    /// Once the gateway is told to stop it has this time.
    pub(super) fn of_gateway(&self) -> Duration {
        self.delay.saturating_add(self.drain)
    }

    /// The node is told to stop.
    pub(super) fn begin(&self, now: Moment) {
        self.until.get_or_init(|| now + self.of_gateway());
    }

    /// The same with a deadline for all of it, of which something is left for what stops behind the tasks.
    pub(super) fn begin_within(&self, now: Moment, deadline: Duration) {
        let left = deadline.saturating_sub(self.delay);
        let behind = (left / 3).min(BEHIND);
        let drain = self.drain.min(left.saturating_sub(behind));
        self.until.get_or_init(|| now + self.delay + drain);
    }

    /// Of a node that was stopped by its kernel it begins only now.
    fn until(&self, now: Moment) -> Moment {
        *self.until.get_or_init(|| now + self.drain)
    }
}

/// Of a deadline, what is kept for links, agents and cells, unless a third of it is less.
const BEHIND: Duration = Duration::from_secs(10);

/// Whose tasks are waited for.
#[derive(Clone, Debug)]
pub(super) struct Working {
    agents: Vec<Address<AgentCommand>>,
    soles: Vec<Address<SoleCommand>>,
}

impl Working {
    pub(super) fn of(
        agents: &[GatewayAgent],
        programs: Option<Address<AgentCommand>>,
        soles: &[Sole],
    ) -> Self {
        Self {
            agents: agents.iter().map(|agent| agent.address.clone()).chain(programs).collect(),
            soles: soles.iter().map(|sole| sole.router.clone()).collect(),
        }
    }
}

/// The actor that waits, as a child of the root.
pub(super) fn child(working: Working, share: Share) -> Result<ChildSpec, NameError> {
    // It keeps to the share by itself.
    let most = share.of_gateway().saturating_add(BEHIND);
    let make = move || Drain { working: working.clone(), share: share.clone() };
    let (spec, _nobody_sends) = ChildSpec::new("drain", make)?;
    Ok(spec.stop_within(most))
}

struct Drain {
    working: Working,
    share: Share,
}

#[derive(Debug)]
enum Nothing {}

impl Message for Nothing {
    fn name(&self) -> &'static str {
        match *self {}
    }
}

impl Actor for Drain {
    type Message = Nothing;
    type Error = Infallible;
    const KIND: &'static str = "drain";

    async fn handle(&mut self, it: Nothing, _: &mut Context<Nothing>) -> Result<(), Infallible> {
        match it {}
    }

    /// One after the other, for all have the same time; whose tasks still work then ends with them.
    async fn stopping(&mut self, context: &mut Context<Nothing>) {
        let header = Header::new().until(self.share.until(context.clock().now()));
        for sole in &self.working.soles {
            let drain = |reply| SoleCommand::Drain { reply };
            let _late = sole.call(header.clone(), drain).await.is_err();
        }
        for agent in &self.working.agents {
            let drain = |reply| AgentCommand::Drain { reply };
            let _late = agent.call(header.clone(), drain).await.is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn requests_and_tasks_have_what_the_deadline_leaves_and_no_more_than_the_node_gives() {
        let now = Moment::ORIGIN;
        let until = |share: &Share| share.until(now).since(now);
        let within = |deadline: u32, delay: u32| {
            let share = Share::new(20 * SECOND, delay * SECOND);
            share.begin_within(now, deadline * SECOND);
            until(&share)
        };
        assert_eq!(within(15, 0), 10 * SECOND);
        assert_eq!(within(15, 3), 11 * SECOND);
        assert_eq!(within(27, 0), 18 * SECOND);
        assert_eq!(within(60, 5), 25 * SECOND);
        assert_eq!(within(0, 0), Duration::ZERO);
        // It's told once.
        let share = Share::new(20 * SECOND, SECOND);
        share.begin(now);
        share.begin_within(now, SECOND);
        assert_eq!(until(&share), 21 * SECOND);
        assert_eq!(until(&Share::new(20 * SECOND, SECOND)), 20 * SECOND);
    }
}
