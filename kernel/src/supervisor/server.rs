//! The actor behind a [`Supervisor`](super::Supervisor).

use std::sync::Arc;

use super::charges::{Charges, Place};
use super::{ChildSpec, Command, Own, SupervisorCommand, SupervisorError};
use crate::actor::{Actor, Context, Ended, Ending, StartError};
use crate::clock::Moment;
use crate::event::{Lifecycle, PostMortem};
use crate::limits::MAX_CHILDREN;
use crate::name::Path;
use crate::registry::Registry;
use crate::restart::{
    Backoff, Decision, ExitKind, Restart, RestartHistory, RestartPolicy, Strategy, decide,
};

pub(crate) struct SupervisorActor {
    policy: RestartPolicy,
    own: Own,
    /// Nobody starts it again.
    only_life: bool,
    history: RestartHistory,
    charges: Charges,
    /// When the next reminder to restart comes.
    alarm: Option<Moment>,
    /// Where the names of the children are registered, once this has started.
    home: Option<(Arc<Registry>, Path)>,
}

impl SupervisorActor {
    pub(crate) fn new(policy: RestartPolicy, own: Own) -> Self {
        Self {
            policy,
            own,
            only_life: false,
            history: RestartHistory::default(),
            charges: Charges::default(),
            alarm: None,
            home: None,
        }
    }

    /// One that isn't started again: with it ends all that is below it, for good.
    pub(crate) fn only_life(mut self) -> Self {
        self.only_life = true;
        self
    }

    async fn add(
        &mut self,
        spec: ChildSpec,
        own: bool,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), StartError> {
        if self.charges.place(&spec.name).is_some() {
            return Err(StartError::Taken { name: spec.name });
        }
        if self.charges.len() >= MAX_CHILDREN {
            return Err(StartError::TooMany { count: self.charges.len() });
        }
        let path = context.path().join(&spec.name)?;
        match spec.starter.start(context, spec.name.clone(), spec.options).await {
            Ok(id) => {
                spec.starter.register(&context.core, path);
                self.charges.add(spec, own, id);
                Ok(())
            }
            Err(error) => {
                // Nobody will try again, and of those below some may have started.
                spec.close();
                spec.withdraw(&context.core.registry, &path);
                Err(error)
            }
        }
    }

    fn forget(&mut self, place: Place) {
        let Some(charge) = self.charges.remove(place) else { return };
        charge.spec.close();
        if let Some((registry, home)) = &self.home
            && let Ok(path) = home.join(&charge.spec.name)
        {
            charge.spec.withdraw(registry, &path);
        }
    }

    async fn react(
        &mut self,
        failed: Place,
        exit: ExitKind,
        last: Option<Arc<PostMortem>>,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let Some(charge) = self.charges.get(failed) else { return Ok(()) };
        let now = context.clock().now();
        let history = std::mem::take(&mut self.history);
        let (decision, history) =
            decide(&self.policy, history, charge.spec.restart, exit, now, Backoff::jitter());
        self.history = history;
        match decision {
            Decision::Forget => {
                self.forget(failed);
                Ok(())
            }
            Decision::Restart { after } => {
                self.take_down(failed, now + after, context).await;
                self.remind(context);
                Ok(())
            }
            Decision::Escalate => {
                let child = charge.spec.name.clone();
                context.core.notify(&Lifecycle::Escalated { path: context.path() });
                let intensity = self.policy.intensity;
                Err(SupervisorError::TooManyRestarts { child, intensity, last })
            }
        }
    }

    /// Stops whom the failure takes along, the youngest first, and marks all for the restart.
    async fn take_down(
        &mut self,
        failed: Place,
        due: Moment,
        context: &mut Context<SupervisorCommand>,
    ) {
        for place in self.charges.affected(self.policy.strategy, failed).into_iter().rev() {
            if place != failed && self.charges.is_alive(place) {
                let Some(charge) = self.charges.get(place) else { continue };
                let (name, restart) = (charge.spec.name.clone(), charge.spec.restart);
                context.stop_child(&name).await;
                if restart == Restart::Temporary {
                    self.forget(place);
                    continue;
                }
            }
            self.charges.down(place, due);
        }
    }

    /// Sees to it that a reminder comes when the next child is due. At most as many are under way
    /// as each was due before all that came earlier.
    fn remind(&mut self, context: &mut Context<SupervisorCommand>) {
        let Some(due) = self.charges.next_due() else { return };
        if self.alarm.is_none_or(|alarm| due < alarm) {
            self.alarm = Some(due);
            context.remind(due, SupervisorCommand(Command::Restart));
        }
    }

    /// Starts, in order, everyone whose wait is over.
    async fn restart_due(
        &mut self,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let now = context.clock().now();
        for place in self.charges.due(now) {
            // Reacting to a failure on the way may have changed that.
            let Some(charge) = self.charges.get(place) else { continue };
            if !self.charges.is_due(place, now) {
                continue;
            }
            let spec = charge.spec.clone();
            match spec.starter.start(context, spec.name.clone(), spec.options).await {
                Ok(id) => {
                    self.charges.alive(place, id);
                    let Ok(path) = context.path().join(&spec.name) else { continue };
                    let kind = spec.starter.kind();
                    context.core.notify(&Lifecycle::Restarted { path: &path, kind });
                }
                Err(_failed_again) => {
                    // The kernel's post-mortems have the cause.
                    self.react(place, ExitKind::Failed, None, context).await?;
                    if self.policy.strategy != Strategy::OneForOne {
                        // Those after it wait with it.
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Actor for SupervisorActor {
    type Message = SupervisorCommand;
    type Error = SupervisorError;
    const KIND: &'static str = "supervisor";

    async fn started(
        &mut self,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        self.home = Some((Arc::clone(&context.core.registry), context.path().clone()));
        for spec in self.own.all() {
            let child = spec.name.clone();
            if let Err(source) = self.add(spec, true, context).await {
                return Err(SupervisorError::Child { child, source });
            }
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SupervisorCommand,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        match command.0 {
            Command::Start { spec, own, reply } => {
                let kept = own.then(|| ChildSpec::clone(&spec));
                let started = self.add(*spec, own, context).await;
                if let (Ok(()), Some(spec)) = (&started, kept) {
                    self.own.add(spec);
                }
                // If the asker has gone, the child stays: it was asked for.
                let _gone = reply.send(started);
            }
            Command::Stop { name, reply } => {
                let place = self.charges.place(&name);
                if let Some(place) = place {
                    // Closed first, so that whoever waits in its mailbox is told the truth.
                    self.close(place);
                    if self.charges.get(place).is_some_and(|charge| charge.own) {
                        self.own.remove(&name);
                    }
                    context.stop_child(&name).await;
                    self.forget(place);
                }
                let _gone = reply.send(place.is_some());
            }
            Command::Restart => {
                self.alarm = None;
                self.restart_due(context).await?;
                self.remind(context);
            }
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<SupervisorCommand>,
    ) -> Result<(), SupervisorError> {
        let Some(place) = self.charges.place_of_life(&ended.name, ended.id) else { return Ok(()) };
        let last = match &ended.ending {
            Ending::Failed(post_mortem) => Some(Arc::clone(post_mortem)),
            Ending::Stopped | Ending::Killed => None,
        };
        self.react(place, ended.ending.exit_kind(), last, context).await
    }

    async fn stopping(&mut self, context: &mut Context<SupervisorCommand>) {
        // The names lead to the children for as long as those live.
        self.close_lost();
        context.stop_children().await;
    }
}

impl SupervisorActor {
    fn close(&self, place: Place) {
        if let Some(charge) = self.charges.get(place) {
            charge.spec.close();
        }
    }

    /// The children that no later life of this starts: the next one starts its own only. Of an only life
    /// those of its own too, whether it has come to start them or not.
    fn lost(&self) -> impl Iterator<Item = ChildSpec> {
        let charges = self.charges.iter().filter(|charge| !charge.own);
        let own = if self.only_life { self.own.all() } else { Vec::new() };
        charges.map(|charge| charge.spec.clone()).chain(own)
    }

    fn close_lost(&self) {
        self.lost().for_each(|spec| spec.close());
    }
}

impl Drop for SupervisorActor {
    /// However it ended: the names that no later life knows lead nowhere from now on.
    fn drop(&mut self) {
        self.close_lost();
        let Some((registry, home)) = &self.home else { return };
        for spec in self.lost() {
            if let Ok(path) = home.join(&spec.name) {
                spec.withdraw(registry, &path);
            }
        }
    }
}
