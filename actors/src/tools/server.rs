//! The tool router: checks who may call what with which arguments, and runs each call in an actor
//! of its own.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Backoff, Context, Ended, Header, Intensity, Message, Name, Parcel, ReplySink, Request,
    RestartPolicy, Spawn, StartError, TraceContext,
};
use serde_json::Value;

use super::said;
use super::schema::{Schema, SchemaError};
use super::{
    AnyTool, Invoke, Offer, Outcome, Refused, ToolBounds, ToolContext, ToolGrant, ToolListing,
    ToolProgress, ToolSource, ToolsCommand, Unfit,
};
use crate::access::CallerGrant;
use crate::audit::{Audit, AuditEvent, AuditId, Digest, Verdict};
use crate::limits::{
    LIVE_TOOL_CALLS, SOURCE_RESTART_FIRST, SOURCE_RESTART_MAX, SOURCE_RESTARTS,
    SOURCE_RESTARTS_WITHIN, TOOL_DEADLINE, TOOL_PROGRESS,
};

/// A tool in the router, and whose it is.
///
/// ```
/// # use neuroflow_actors::{AnyTool, Tool, ToolContext, ToolError};
/// # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
/// # struct Noop;
/// # impl Tool for Noop {
/// #     type Arguments = Nothing; type Output = ();
/// #     fn name(&self) -> &'static str { "noop" }
/// #     fn description(&self) -> &'static str { "Does nothing." }
/// #     async fn call(&self, _: Nothing, _: ToolContext) -> Result<(), ToolError> { Ok(()) }
/// # }
/// use neuroflow_actors::ToolEntry;
/// let entry = ToolEntry { owner: None, tool: AnyTool::new(Noop) };
/// assert!(entry.owner.is_none());
/// ```
#[derive(Clone, Debug)]
pub struct ToolEntry {
    /// The agent that it belongs to; none if it's shared.
    pub owner: Option<String>,
    /// The tool.
    pub tool: AnyTool,
}

/// The tool router as an actor.
///
/// ```
/// use neuroflow_actors::ToolServer;
/// let router = ToolServer::new(Vec::new())?;
/// # let _ = router;
/// # Ok::<(), neuroflow_actors::SchemaError>(())
/// ```
#[derive(Clone)]
pub struct ToolServer {
    tools: Arc<HashMap<Place, Arc<Registered>>>,
    audit: Audit,
    /// What sources have offered, by name.
    offered: BTreeMap<String, FromSource>,
    sources: Vec<ToolSource>,
    /// What is in the audit log of each source.
    noted: BTreeMap<String, Digest>,
    calls: u64,
}

impl std::fmt::Debug for ToolServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolServer").field("tools", &self.tools.len()).finish_non_exhaustive()
    }
}

/// Whose a tool is, and its name.
type Place = (Option<String>, String);

struct Registered {
    tool: AnyTool,
    schema: Arc<Schema>,
}

/// A tool of a source.
#[derive(Clone)]
struct FromSource {
    source: String,
    /// The agents that may call it; none for all.
    agents: Option<Vec<String>>,
    tool: Arc<Registered>,
}

impl FromSource {
    fn is_for(&self, agent: &str) -> bool {
        self.agents.as_ref().is_none_or(|agents| agents.iter().any(|one| one == agent))
    }
}

impl ToolServer {
    /// A router with these tools; of two with the same owner and name the later one stays.
    ///
    /// # Errors
    /// Names the tool whose schema isn't valid.
    pub fn new(entries: Vec<ToolEntry>) -> Result<Self, SchemaError> {
        let mut tools = HashMap::new();
        for ToolEntry { owner, tool } in entries {
            let schema = Schema::compile(tool.name(), &tool.schema())?;
            let name = tool.name().to_owned();
            let schema = Arc::new(schema);
            tools.insert((owner, name), Arc::new(Registered { tool, schema }));
        }
        Ok(Self {
            tools: Arc::new(tools),
            audit: Audit::off(),
            offered: BTreeMap::new(),
            sources: Vec::new(),
            noted: BTreeMap::new(),
            calls: 0,
        })
    }

    /// The log that calls are recorded in before they begin.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// With actors below it that offer further tools.
    #[must_use]
    pub fn sources(mut self, sources: Vec<ToolSource>) -> Self {
        self.sources = sources;
        self
    }

    /// Takes what a source has now in the place of what it had.
    fn take(
        &mut self,
        source: &str,
        tools: Vec<super::Offered>,
        mut unfit: Vec<Unfit>,
    ) -> Vec<Unfit> {
        self.offered.retain(|_, offered| offered.source != source);
        for super::Offered { agents, tool, schema } in tools {
            let name = tool.name().to_owned();
            let taken = self.tools.keys().any(|(_, own)| *own == name);
            if taken || self.offered.contains_key(&name) {
                unfit.push(Unfit::Taken { tool: name });
                continue;
            }
            let tool = Arc::new(Registered { tool, schema });
            let source = source.to_owned();
            self.offered.insert(name, FromSource { source, agents, tool });
        }
        self.note_offer(source, unfit.len());
        unfit
    }

    /// What others say that their tools are goes to models as it is: that it's another now is in the log,
    /// before any of them is called.
    fn note_offer(&mut self, source: &str, refused: usize) {
        if !self.audit.is_on() {
            return;
        }
        let (mut tools, mut said) = (0, Vec::new());
        for (name, offered) in self.offered.iter().filter(|(_, it)| it.source == source) {
            let tool = &offered.tool.tool;
            let one = (name, tool.description(), tool.schema(), &offered.agents);
            // Names, texts and JSON values: there is nothing in them that can't be written.
            let _written = serde_json::to_writer(&mut said, &one).is_ok();
            tools += 1;
        }
        let digest = Digest::of(&said);
        if self.noted.insert(source.to_owned(), digest) != Some(digest) {
            let source = AuditId::new(source);
            let offered = AuditEvent::ToolsOffered { source, tools, digest, refused };
            self.audit.note(TraceContext::NONE, offered);
        }
    }

    /// What is found through a grant for whom it's used, or everything without one.
    fn list(&self, grant: Option<&ToolGrant>, caller: Bounds<'_>) -> Vec<ToolListing> {
        let listing = |tool: &Registered, origin: &str, agents: Option<Vec<String>>| ToolListing {
            name: tool.tool.name().to_owned(),
            description: tool.tool.description().to_owned(),
            schema: tool.tool.schema(),
            origin: origin.to_owned(),
            agents,
        };
        let reaches = |tool: &Arc<Registered>| {
            let found = || self.find(grant, tool.tool.name());
            let is_it = |found: Arc<Registered>| Arc::ptr_eq(&found, tool);
            grant.is_none() || found().is_some_and(is_it) && caller.permits(grant, &tool.tool)
        };
        let own =
            self.tools.iter().filter(|(_, tool)| reaches(tool)).map(|((owner, name), tool)| {
                let builtin = name == super::ExecTool::NAME;
                let origin = if owner.is_none() || builtin { "node" } else { "agent" };
                listing(tool, origin, owner.clone().map(|owner| vec![owner]))
            });
        let offered = self.offered.values().filter(|offered| reaches(&offered.tool));
        let offered =
            offered.map(|offered| listing(&offered.tool, &offered.source, offered.agents.clone()));
        let mut all: Vec<ToolListing> = own.chain(offered).collect();
        all.sort_by(|a, b| (&a.name, &a.agents).cmp(&(&b.name, &b.agents)));
        all
    }

    fn find(&self, grant: Option<&ToolGrant>, tool: &str) -> Option<Arc<Registered>> {
        let grant = grant?;
        let own = self.tools.get(&(Some(grant.owner.clone()), tool.to_owned()));
        let shared = || {
            let granted = grant.shared.iter().any(|name| name == tool);
            granted.then(|| self.tools.get(&(None, tool.to_owned()))).flatten()
        };
        let offered = || {
            let offered = self.offered.get(tool).filter(|offered| offered.is_for(&grant.owner));
            offered.map(|offered| &offered.tool)
        };
        own.or_else(shared).or_else(offered).cloned()
    }

    async fn begin(&mut self, request: Request<Invoke>, context: &mut Context<ToolsCommand>) {
        let (grant, caller) = bounds(context);
        let name = &request.parcel.get().tool;
        let found = self.find(grant, name).filter(|found| caller.permits(grant, &found.tool));
        let Some(tool) = found else {
            self.audit.note(context.header().trace(), used(grant, name, Verdict::Denied));
            let tool = name.to_string();
            return refuse(request.replies, Refused::Unknown { tool });
        };
        if context.child_count() >= LIVE_TOOL_CALLS {
            return refuse(request.replies, Refused::Busy);
        }
        let used = |verdict| used(grant, name, verdict);
        let (allowed, denied) = (used(Verdict::Allowed), used(Verdict::Denied));
        self.calls += 1;
        let Ok(name) = Name::new(format!("{}-{}", tool.tool.name(), self.calls)) else {
            return refuse(request.replies, Refused::Busy);
        };
        let header = context.onward();
        // Nothing of the request may stand in the way of a call's only message: an actor that never
        // gets it never ends, and holds its place.
        let own = Header::new().traced(header.trace()).forward(context.id());
        let audit = self.audit.clone();
        let Request { parcel: invoke, replies } = request;
        let call = Call { tool, invoke, replies, header, audit, allowed, denied };
        // A call is cancelled by its caller's going away; it needs no time to stop.
        let options = Spawn::default().mailbox(1).stop_within(CALL_KILL);
        let call = match context.spawn(name.clone(), CallActor, options).await {
            Ok(actor) => match actor.try_tell(own, call) {
                Ok(()) => return,
                Err(unsent) => unsent.message,
            },
            Err(_stopping) => call,
        };
        context.kill_child(&name).await;
        refuse(call.replies, Refused::Busy);
    }
}

/// What is said of the principal that the work is for: by this node's rules, and by another node.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    rules: Option<&'a CallerGrant>,
    elsewhere: Option<&'a ToolBounds>,
}

/// What the message that is handled was sent through: whose tools, and for whom.
fn bounds(context: &Context<ToolsCommand>) -> (Option<&ToolGrant>, Bounds<'_>) {
    let grant = context.grant();
    let rules = grant.and_then(|grant| grant.policy());
    let elsewhere = grant.and_then(|grant| grant.policy());
    (grant.and_then(|grant| grant.policy()), Bounds { rules, elsewhere })
}

impl Bounds<'_> {
    /// Whether it may have this tool called, and programs run at its level.
    fn permits(self, grant: Option<&ToolGrant>, tool: &AnyTool) -> bool {
        let agent = grant.map(|grant| grant.owner.as_str());
        let by_rules = self.rules.is_none_or(|caller| {
            caller.permits_tool(agent, tool.name())
                && tool.level().is_none_or(|level| caller.permits_level(level))
        });
        by_rules && self.elsewhere.is_none_or(|bounds| bounds.permits(tool.name(), tool.level()))
    }
}

/// A use of a capability, for the audit log. What tools there are is no secret, what a model asks for
/// may be anything.
fn used(grant: Option<&ToolGrant>, tool: &str, verdict: Verdict) -> AuditEvent {
    let holder = AuditId::new(grant.map_or("-", |grant| &grant.owner));
    AuditEvent::CapabilityUse { holder, capability: "tool", target: AuditId::new(tool), verdict }
}

/// What the supervisors of the sources are below.
const SOURCES: &str = "mcp";

/// Sources are others' programs: they fail as they like, and the node waits for them patiently.
const SOURCE_POLICY: RestartPolicy = RestartPolicy {
    strategy: neuroflow_kernel::Strategy::OneForOne,
    intensity: Intensity { restarts: SOURCE_RESTARTS, within: SOURCE_RESTARTS_WITHIN },
    backoff: Backoff { first: SOURCE_RESTART_FIRST, max: SOURCE_RESTART_MAX },
};

/// Time that a call gets when the router stops.
const CALL_KILL: Duration = Duration::from_millis(500);

/// Sends the only reply of a call that doesn't begin: there is room for it.
fn refuse(replies: ReplySink<Parcel<Outcome>>, refused: Refused) {
    if let Ok(parcel) = Parcel::archive(&Outcome::Refused(refused))
        && replies.try_send(parcel).is_ok()
    {
        replies.finish();
    }
}

/// Tells how far a call has come, unless whoever is told hasn't read what was said before.
fn tell(replies: &ReplySink<Parcel<Outcome>>, progress: ToolProgress) {
    if let Ok(parcel) = Parcel::archive(&Outcome::Progress(progress)) {
        let _unheard = replies.try_send(parcel).is_err();
    }
}

/// Sends the last reply of a call, behind what was told of its progress, once there is room. An outcome
/// that is too large is a failure of the tool.
async fn answer(replies: ReplySink<Parcel<Outcome>>, outcome: &Outcome) {
    let parcel = Parcel::archive(outcome).or_else(|error| {
        let refused = Refused::Failed { code: "too_large".to_owned(), message: error.to_string() };
        Parcel::archive(&Outcome::Refused(refused))
    });
    if let Ok(parcel) = parcel
        && replies.send(parcel).await.is_ok()
    {
        replies.finish();
    }
}

impl Actor for ToolServer {
    type Message = ToolsCommand;
    type Error = StartError;
    const KIND: &'static str = "tools";

    async fn started(&mut self, context: &mut Context<ToolsCommand>) -> Result<(), StartError> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let spec = |source: &ToolSource| source.spec(context.address(), SOURCE_POLICY);
        let specs = self.sources.iter().map(spec);
        let specs = specs.collect::<Result<Vec<_>, _>>()?;
        context.supervise(Name::new(SOURCES)?, SOURCE_POLICY, specs).await?;
        Ok(())
    }

    async fn handle(
        &mut self,
        command: ToolsCommand,
        context: &mut Context<ToolsCommand>,
    ) -> Result<(), StartError> {
        match command {
            ToolsCommand::Invoke(request) => self.begin(request, context).await,
            ToolsCommand::List { reply } => {
                let (grant, caller) = bounds(context);
                let _gone = reply.send(self.list(grant, caller));
            }
            ToolsCommand::Offer(Offer { source, tools, unfit, reply }) => {
                let _gone = reply.send(self.take(&source, tools, unfit));
            }
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        _context: &mut Context<ToolsCommand>,
    ) -> Result<(), StartError> {
        // The caller of a call has been told by the end of the reply stream.
        if ended.name.as_str() == SOURCES {
            tracing::error!(ending = ?ended.ending, "the sources of tools have been given up");
        }
        Ok(())
    }
}

/// One call, with everything that it needs.
struct Call {
    tool: Arc<Registered>,
    invoke: Parcel<Invoke>,
    replies: ReplySink<Parcel<Outcome>>,
    /// What the request came with. Not the message's own, by which it would be refused.
    header: Header,
    audit: Audit,
    /// What is recorded of it if its arguments fit, and if they don't.
    allowed: AuditEvent,
    denied: AuditEvent,
}

/// The arguments, if they fit the tool's schema. Where somebody else wrote that, a check may take a second,
/// so it has a thread of its own, and the call doesn't wait for it longer than for its tool.
async fn checked(tool: &Arc<Registered>, invoke: Parcel<Invoke>) -> Result<Value, Refused> {
    let schema = Arc::clone(&tool.schema);
    let check = move || {
        let unreadable = |error: serde_json::Error| Refused::Argument {
            field: String::new(),
            problem: error.to_string(),
        };
        let arguments = serde_json::from_str(&invoke.get().arguments).map_err(unreadable)?;
        match schema.check(&arguments) {
            Ok(()) => Ok(arguments),
            Err(problem) => {
                Err(Refused::Argument { field: problem.field, problem: problem.message })
            }
        }
    };
    if !tool.schema.is_foreign() {
        return check();
    }
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|panicked| {
        let (code, message) = ("unchecked".to_owned(), panicked.to_string());
        Err(Refused::Failed { code, message })
    })
}

impl Message for Call {
    fn name(&self) -> &'static str {
        "call"
    }
}

impl Call {
    /// Has the tool work on it, and answers it. A caller who has gone ends it.
    async fn run(self, context: &Context<Self>) {
        let Self { tool, invoke, replies, header, audit, allowed, denied } = self;
        let clock = context.clock().clone();
        let header = header.forward(context.id()).within(&clock, TOOL_DEADLINE);
        let deadline = header.deadline().unwrap_or_else(|| clock.now() + TOOL_DEADLINE);
        if clock.now() >= deadline {
            return refuse(replies, Refused::TimedOut);
        }
        let arguments = clock.before(deadline, checked(&tool, invoke)).await;
        let arguments = match arguments.unwrap_or(Err(Refused::TimedOut)) {
            Ok(arguments) => arguments,
            Err(refused) => {
                audit.note(header.trace(), denied);
                return refuse(replies, refused);
            }
        };
        if let Err(error) = audit.decide(header.clone(), allowed).await {
            let (code, message) = ("unrecorded".to_owned(), error.to_string());
            return refuse(replies, Refused::Failed { code, message });
        }
        let ((told, mut progress), tracer) = (said::way(), context.tracer());
        let tool_context = ToolContext { header, clock: clock.clone(), tracer, told };
        let work = clock.before(deadline, tool.tool.call(arguments, tool_context));
        let mut work = std::pin::pin!(work);
        let mut next = clock.now();
        let outcome = loop {
            let heard = async {
                // A tool that has nothing more to tell goes on.
                if progress.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                clock.sleep_until(next).await;
            };
            tokio::select! {
                biased;
                done = &mut work => break match done {
                    Ok(Ok(json)) => Outcome::Done { json },
                    Ok(Err(error)) => Outcome::Refused(Refused::Failed {
                        code: error.code().to_owned(),
                        message: error.message,
                    }),
                    Err(_elapsed) => Outcome::Refused(Refused::TimedOut),
                },
                () = replies.closed() => return,
                () = heard => {}
            }
            next = clock.now() + TOOL_PROGRESS;
            tell(&replies, progress.borrow_and_update().clone());
        };
        answer(replies, &outcome).await;
    }
}

struct CallActor;

impl Actor for CallActor {
    type Message = Call;
    type Error = Infallible;
    const KIND: &'static str = "tool_call";

    async fn handle(&mut self, call: Call, context: &mut Context<Call>) -> Result<(), Infallible> {
        call.run(context).await;
        context.stop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use neuroflow_kernel::limits::MAX_HOPS;
    use neuroflow_kernel::{ActorId, ChildSpec, Header, Kernel, Restriction};

    use super::*;
    use crate::audit::{AuditConfig, audit_child};
    use crate::tools::{Tool, ToolError, invoke};

    struct Flag(Arc<AtomicBool>);

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    impl Tool for Flag {
        type Arguments = Nothing;
        type Output = bool;

        fn name(&self) -> &'static str {
            "flag"
        }

        fn description(&self) -> &'static str {
            "Raises a flag."
        }

        async fn call(&self, _: Nothing, _: ToolContext) -> Result<bool, ToolError> {
            Ok(self.0.swap(true, Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn a_call_that_cannot_be_recorded_is_not_made_where_that_is_required() {
        for required in [true, false] {
            let raised = Arc::new(AtomicBool::new(false));
            let entry = ToolEntry { owner: None, tool: AnyTool::new(Flag(Arc::clone(&raised))) };
            let mut config = AuditConfig::new("/nowhere/audit.log");
            config.required = required;
            // A log whose actor doesn't run.
            let (_log, audit) = audit_child(config).unwrap();
            let router = ToolServer::new(vec![entry]).unwrap().audit(audit);
            let kernel = Kernel::builder().start().await.unwrap();
            let (spec, tools) = ChildSpec::new("tools", move || router.clone()).unwrap();
            kernel.root().start(spec).await.unwrap();
            let grant = ToolGrant { owner: "agent".to_owned(), shared: vec!["flag".to_owned()] };
            let tools = tools.attenuate(Restriction::new().policy(grant)).unwrap();
            let called = invoke(&tools, Header::new(), "flag", serde_json::json!({})).await;
            let refused = called.err().map(|error| format!("{error:?}")).unwrap_or_default();
            assert_eq!(refused.contains("unrecorded"), required, "{refused}");
            assert_eq!(raised.load(Ordering::SeqCst), !required);
            kernel.stop().await;
        }
    }

    /// Its call's own actor is one hop further, and there it may not be refused: nobody would hear of it.
    #[tokio::test]
    async fn a_call_that_has_come_as_far_as_it_may_is_made() {
        let raised = Arc::new(AtomicBool::new(false));
        let entry = ToolEntry { owner: None, tool: AnyTool::new(Flag(Arc::clone(&raised))) };
        let router = ToolServer::new(vec![entry]).unwrap();
        let kernel = Kernel::builder().start().await.unwrap();
        let (spec, tools) = ChildSpec::new("tools", move || router.clone()).unwrap();
        kernel.root().start(spec).await.unwrap();
        let grant = ToolGrant { owner: "agent".to_owned(), shared: vec!["flag".to_owned()] };
        let tools = tools.attenuate(Restriction::new().policy(grant)).unwrap();
        let far = (0..MAX_HOPS).fold(Header::new(), |header, _| header.forward(ActorId::NOBODY));
        invoke(&tools, far, "flag", serde_json::json!({})).await.unwrap();
        assert!(raised.load(Ordering::SeqCst));
        kernel.stop().await;
    }
}
