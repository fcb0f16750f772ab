//! A call at work: what is known of it, and what its caller waits for.

use neuroflow_kernel::{Clock, Header, Moment, Parcel, ReplyStream, StreamError};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::callee::Callee;
use super::outcome::Outcome;
use super::progress::Progress;
use super::visit::{Hold, Stay, Visit};
use super::{McpDoor, agents, task};
use crate::agent::{TaskEvent, follow};
use crate::gateway::bytes;
use crate::limits::{AGENT_ANSWER, MCP_STILL_AT_IT};

/// A call that was asked for, and whose outcome is put together.
pub(super) struct Listening<'a> {
    pub(super) callee: Callee<'a>,
    pub(super) caller: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) events: ReplyStream<Parcel<TaskEvent>>,
    /// Whether it takes so long that its caller is given a task.
    pub(super) is_long: bool,
    clock: &'a Clock,
    context: &'a RequestContext<RoleServer>,
    header: Header,
    hold: Hold<'a>,
    stay: Stay,
    progress: Progress<'a>,
    begun: Moment,
    /// From when on it takes long, for a caller who knows tasks and may read them; others wait.
    long_at: Option<Moment>,
    /// When its caller hears that a program is still there. An agent says itself how far it is.
    tick_at: Option<Moment>,
}

/// What comes next of a call.
pub(super) enum Happened {
    /// Its caller has taken it back.
    Cancelled,
    /// Its caller may do this no more.
    Lost(ErrorData),
    /// It has told something, or it can't be heard any more.
    Told(Result<Parcel<TaskEvent>, StreamError>),
    /// It tells nothing more.
    Over,
    /// It takes long.
    Long,
    /// Nothing, and its caller is to hear that it's still there.
    Tick,
}

impl<'a> Listening<'a> {
    pub(super) async fn open(
        door: &'a McpDoor,
        callee: Callee<'a>,
        visit: &'a Visit,
        context: &'a RequestContext<RoleServer>,
        header: Header,
        events: ReplyStream<Parcel<TaskEvent>>,
    ) -> Self {
        let clock = &door.clock;
        let begun = clock.now();
        let mut progress = Progress::of(context);
        let mut tick_at = None;
        if let Callee::Program(exec) = callee {
            progress.written(0, format!("running at level {}", exec.level)).await;
            tick_at = Some(begun + MCP_STILL_AT_IT);
        }
        let knows_tasks = context.client_capabilities().is_some_and(|it| it.supports_tasks())
            && callee.is_read_by(visit);
        Self {
            callee,
            caller: visit.caller(),
            outcome: Outcome::default(),
            events,
            is_long: false,
            clock,
            context,
            header,
            hold: visit.holds(),
            stay: visit.stay(),
            progress,
            begun,
            long_at: knows_tasks.then(|| clock.now() + door.task_after),
            tick_at,
        }
    }

    /// Waits for what comes next. Whoever stops waiting misses nothing.
    pub(super) async fn next(&mut self) -> Happened {
        let long_at = self.long_at.filter(|_| !self.is_long);
        tokio::select! {
            biased;
            () = self.context.ct.cancelled() => Happened::Cancelled,
            why = self.callee.lost(&mut self.stay) => Happened::Lost(why),
            told = self.events.next() => told.map_or(Happened::Over, Happened::Told),
            () = at(self.clock, long_at) => Happened::Long,
            () = at(self.clock, self.tick_at) => Happened::Tick,
        }
    }

    /// Takes an event, and tells of it.
    pub(super) async fn heard(&mut self, event: &Parcel<TaskEvent>) -> Result<(), ErrorData> {
        self.hold.grow(bytes([event]))?;
        let Some(said) = self.outcome.fold(event) else { return Ok(()) };
        match self.callee {
            Callee::Agent(_) => self.progress.step(said).await,
            // Its report is no progress.
            Callee::Program(_) if self.outcome.has_result() => {}
            Callee::Program(_) => self.written(said).await,
        }
        Ok(())
    }

    /// Tells that it's still there.
    pub(super) async fn tick(&mut self) {
        let seconds = self.clock.now().since(self.begun).as_secs();
        self.written(format!("running for {seconds} s")).await;
    }

    async fn written(&mut self, said: String) {
        self.progress.written(self.outcome.written, said).await;
        self.tick_at = Some(self.clock.now() + MCP_STILL_AT_IT);
    }

    /// Takes the call as it is, in place of what was known of it, and what is to come of it.
    pub(super) async fn again(&mut self) -> Result<(), ErrorData> {
        let header = self.header.clone().within(self.clock, AGENT_ANSWER);
        let _place = self.callee.reads(self.clock).await?;
        let (agent, caller) = (self.callee.address(), self.caller.as_deref());
        let followed = follow(agent, header, &self.outcome.task, caller, None).await;
        let followed = followed.map_err(|error| agents::unavailable(error.code()))?;
        let (so_far, to_come) = followed.ok_or_else(task::unknown)?;
        self.hold.replace(bytes(&so_far))?;
        let outcome = Outcome::since(&so_far, Some(self.outcome.call)).ok_or_else(task::unknown)?;
        (self.outcome, self.events) = (outcome, to_come);
        Ok(())
    }
}

/// Waits for that moment; for ever without one.
async fn at(clock: &Clock, moment: Option<Moment>) {
    match moment {
        Some(moment) => clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
