//! The port for whoever watches: lifecycle, messages and spans, as they happen.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::MAX_SPAN_ATTRIBUTES;
use crate::name::Path;
use crate::parcel::RawParcel;
use crate::trace::TraceContext;

/// Watches a kernel. It must not block: it's called from the actors' own loops.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_kernel::{KindObserver, Lifecycle, Observer, Span, Unobserved};
/// #[derive(Debug)]
/// struct Printer;
/// impl Observer for Printer {
///     fn lifecycle(&self, event: &Lifecycle<'_>) {
///         println!("{event:?}");
///     }
///     fn kind(&self, _kind: &'static str) -> Arc<dyn KindObserver> {
///         Arc::new(Unobserved)
///     }
///     fn span(&self, _span: &Span) {}
/// }
/// ```
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// An actor began, ended, failed or was restarted.
    fn lifecycle(&self, event: &Lifecycle<'_>);

    /// The observer of the messages of all actors of one kind. Asked once per kind.
    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver>;

    /// A sampled span has ended.
    fn span(&self, span: &Span);
}

/// Watches the messages of one kind of actor.
///
/// ```
/// use neuroflow_kernel::{KindObserver, Outcome, Unobserved};
/// Unobserved.handled("echo", Outcome::Ok, None);
/// ```
pub trait KindObserver: Send + Sync + fmt::Debug + 'static {
    /// A message has left an actor's hands. `timing` is there for one message in
    /// [`TIMING_SAMPLE`](crate::limits::TIMING_SAMPLE).
    fn handled(&self, message: &'static str, outcome: Outcome, timing: Option<Timing>);
}

/// An observer that looks away.
///
/// ```
/// use neuroflow_kernel::{Observer, Unobserved};
/// let _observer: Box<dyn Observer> = Box::new(Unobserved);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn lifecycle(&self, _event: &Lifecycle<'_>) {}

    fn kind(&self, _kind: &'static str) -> Arc<dyn KindObserver> {
        Arc::new(Self)
    }

    fn span(&self, _span: &Span) {}
}

impl KindObserver for Unobserved {
    fn handled(&self, _message: &'static str, _outcome: Outcome, _timing: Option<Timing>) {}
}

/// How the handling of a message ended.
///
/// ```
/// assert_eq!(neuroflow_kernel::Outcome::Expired.as_str(), "expired");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled.
    Ok,
    /// The handler returned an error; the actor has failed.
    Failed,
    /// The handler panicked; the actor has failed.
    Panicked,
    /// Its deadline had passed while it waited: dropped unhandled.
    Expired,
    /// Its capability was revoked or ran out while it waited: dropped unhandled.
    Denied,
}

impl Outcome {
    /// Every outcome, for whoever makes a counter of each.
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::Failed, Self::Panicked, Self::Expired, Self::Denied];

    /// The outcome in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Expired => "expired",
            Self::Denied => "denied",
        }
    }
}

/// How long one message waited and was handled.
///
/// ```
/// use std::time::Duration;
/// let timing = neuroflow_kernel::Timing { waited: Duration::ZERO, handled: Duration::ZERO };
/// assert_eq!(timing.waited, timing.handled);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// In the mailbox.
    pub waited: Duration,
    /// In the handler.
    pub handled: Duration,
}

/// Who an event is about.
///
/// ```
/// fn label(actor: &neuroflow_kernel::Subject<'_>) -> String {
///     format!("{} ({})", actor.path, actor.kind)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its identity.
    pub id: ActorId,
    /// Where it stands.
    pub path: &'a Path,
    /// Its kind.
    pub kind: &'static str,
    /// Which life.
    pub generation: Generation,
}

/// What happened to an actor.
///
/// ```
/// use neuroflow_kernel::Lifecycle;
/// fn is_trouble(event: &Lifecycle<'_>) -> bool {
///     matches!(event, Lifecycle::Failed { .. } | Lifecycle::Escalated { .. })
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Lifecycle<'a> {
    /// It takes messages.
    Started {
        /// The actor.
        actor: Subject<'a>,
    },
    /// It ended in good order.
    Stopped {
        /// The actor.
        actor: Subject<'a>,
    },
    /// It failed.
    Failed {
        /// The actor.
        actor: Subject<'a>,
        /// What is known about the end.
        post_mortem: &'a PostMortem,
    },
    /// It was killed: at its stop deadline, by its parent, or with it.
    Killed {
        /// The actor.
        actor: Subject<'a>,
    },
    /// Its supervisor has started it again.
    Restarted {
        /// Where it stands.
        path: &'a Path,
        /// Its kind.
        kind: &'static str,
    },
    /// A supervisor has seen too many restarts and fails itself.
    Escalated {
        /// The supervisor.
        path: &'a Path,
    },
}

/// Why an actor failed.
///
/// ```
/// use neuroflow_kernel::Cause;
/// assert_eq!(Cause::Panic { message: "boom".into() }.to_string(), "panicked: boom");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A handler or background task panicked.
    #[error("panicked: {message}")]
    Panic {
        /// What the panic said.
        message: String,
    },
    /// An actor that it's linked to has ended.
    #[error("linked to an actor of which {down}")]
    Linked {
        /// How that one ended.
        down: crate::monitor::Down,
    },
    /// A handler or hook returned an error.
    #[error("failed")]
    Error(#[source] Arc<dyn Error + Send + Sync>),
}

/// What is known about a failed actor: for the log, the tree, and whoever has to understand it.
///
/// ```
/// fn line(dead: &neuroflow_kernel::PostMortem) -> String {
///     format!("{} generation {}: {}", dead.path, dead.generation, dead.cause)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostMortem {
    /// Its identity.
    pub id: ActorId,
    /// Where it stood.
    pub path: Path,
    /// Its kind.
    pub kind: &'static str,
    /// Which life.
    pub generation: Generation,
    /// Why.
    pub cause: Cause,
    /// The message that it was handling.
    pub message: Option<FailedMessage>,
    /// The last messages before that, oldest first.
    pub trail: Vec<TrailEntry>,
    /// When, in civil time.
    pub at: SystemTime,
}

/// The message that an actor failed on.
///
/// ```
/// fn size(message: &neuroflow_kernel::FailedMessage) -> usize {
///     message.archive.as_ref().map_or(0, |archive| archive.as_bytes().len())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedMessage {
    /// Its kind.
    pub name: &'static str,
    /// What came with it.
    pub header: Header,
    /// Its archive, if it has one of a size worth keeping.
    pub archive: Option<RawParcel>,
}

/// One message that an actor has handled.
///
/// ```
/// let entry = neuroflow_kernel::TrailEntry { number: 1, name: "add" };
/// assert_eq!(entry.name, "add");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailEntry {
    /// Its number in this life, from 1.
    pub number: u64,
    /// Its kind.
    pub name: &'static str,
}

/// What a span is, as OpenTelemetry has it.
///
/// ```
/// assert_ne!(neuroflow_kernel::SpanKind::Server, neuroflow_kernel::SpanKind::Internal);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Serves a request from outside.
    Server,
    /// Asks something outside.
    Client,
    /// Neither.
    Internal,
}

/// An attribute's value.
///
/// ```
/// use neuroflow_kernel::SpanValue;
/// assert_eq!(SpanValue::from(3), SpanValue::Integer(3));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum SpanValue {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
}

impl From<&'static str> for SpanValue {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for SpanValue {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for SpanValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for SpanValue {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// One step of a traced request, with the ids that its messages carry.
///
/// ```
/// use neuroflow_kernel::{Span, SpanKind};
/// fn is_root(span: &Span) -> bool {
///     span.parent.is_none() && span.kind == SpanKind::Server
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Span {
    /// This span.
    pub context: TraceContext,
    /// The span that it's part of; none for the root.
    pub parent: TraceContext,
    /// Whether the parent is in another process.
    pub remote_parent: bool,
    /// A name of low cardinality.
    pub name: Cow<'static, str>,
    /// What it is.
    pub kind: SpanKind,
    /// When it began, in civil time.
    pub started: SystemTime,
    /// When it ended, in civil time.
    pub ended: SystemTime,
    /// Attributes by their OpenTelemetry names.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// The kind of error, if it failed: `error.type`.
    pub error: Option<Cow<'static, str>>,
}

/// A span that runs. Nothing is recorded unless its trace is sampled.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_kernel::{Clock, SpanGuard, SpanKind, TraceContext, Tracer, Unobserved};
/// let tracer = Tracer::new(Clock::system(), Arc::new(Unobserved));
/// let mut span = tracer.span(TraceContext::NONE, "work", SpanKind::Internal);
/// span.set("size", 3);
/// assert!(span.context().is_none());
/// ```
#[derive(Debug)]
pub struct SpanGuard {
    context: TraceContext,
    running: Option<Box<(Span, Tracer)>>,
}

impl SpanGuard {
    /// The context to send on: this span's, so that what comes below is its child.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds an attribute, up to the limit.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        if let Some(running) = &mut self.running
            && running.0.attributes.len() < MAX_SPAN_ATTRIBUTES
        {
            running.0.attributes.push((name, value.into()));
        }
    }

    /// Gives it another name, once it's known what was asked.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(running) = &mut self.running {
            running.0.name = name.into();
        }
    }

    /// Marks it as failed with the kind of error.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(running) = &mut self.running {
            running.0.error = Some(error.into());
        }
    }

    /// Says that the parent is in another process.
    pub fn remote_parent(&mut self) {
        if let Some(running) = &mut self.running {
            running.0.remote_parent = true;
        }
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let (mut span, tracer) = *running;
            span.ended = tracer.clock.wall();
            tracer.observer.span(&span);
        }
    }
}

/// Begins spans and hands them to the observer when they end.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_kernel::{Clock, SpanKind, TraceContext, Tracer, Unobserved};
/// let tracer = Tracer::new(Clock::system(), Arc::new(Unobserved));
/// let parent = TraceContext::root(true);
/// let span = tracer.span(parent, "work", SpanKind::Internal);
/// assert_eq!(span.context().trace_id(), parent.trace_id());
/// ```
#[derive(Clone, Debug)]
pub struct Tracer {
    clock: Clock,
    observer: Arc<dyn Observer>,
}

impl Tracer {
    /// Spans on this clock, for this observer.
    pub fn new(clock: Clock, observer: Arc<dyn Observer>) -> Self {
        Self { clock, observer }
    }

    /// Begins a span below `parent`.
    pub fn span(
        &self,
        parent: TraceContext,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> SpanGuard {
        self.begin(parent.child(), parent, name, kind)
    }

    /// Begins the first span of a new trace.
    pub fn root(
        &self,
        sampled: bool,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> SpanGuard {
        self.begin(TraceContext::root(sampled), TraceContext::NONE, name, kind)
    }

    fn begin(
        &self,
        context: TraceContext,
        parent: TraceContext,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> SpanGuard {
        let running = context.is_sampled().then(|| {
            let started = self.clock.wall();
            let span = Span {
                context,
                parent,
                remote_parent: false,
                name: name.into(),
                kind,
                started,
                ended: started,
                attributes: Vec::new(),
                error: None,
            };
            Box::new((span, self.clone()))
        });
        SpanGuard { context, running }
    }
}
