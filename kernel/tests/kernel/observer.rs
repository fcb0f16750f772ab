//! The port for whoever watches: one start and one end of every life, every message, spans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::{
    Header, KindObserver, Lifecycle, Name, Observer, Outcome, Restriction, Span, SpanKind,
    SpanValue, Strategy, Timing, TraceContext, limits,
};

use crate::probe::{Do, Gate, Probe, SECOND, World, hangs, settle, soon, until};

type Handled = (&'static str, Outcome, Option<Timing>);

#[derive(Clone, Debug, Default)]
struct Recorder {
    events: Arc<Mutex<Vec<String>>>,
    messages: Arc<Mutex<Vec<Handled>>>,
    spans: Arc<Mutex<Vec<Span>>>,
    kinds: Arc<Mutex<Vec<&'static str>>>,
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn outcomes(&self) -> Vec<(&'static str, Outcome)> {
        let messages = std::mem::take(&mut *self.messages.lock().unwrap());
        messages.into_iter().map(|(name, outcome, _)| (name, outcome)).collect()
    }
}

impl Observer for Recorder {
    fn lifecycle(&self, event: &Lifecycle<'_>) {
        let line = match event {
            Lifecycle::Started { actor } => format!("{} started", actor.path),
            Lifecycle::Stopped { actor } => format!("{} stopped", actor.path),
            Lifecycle::Failed { actor, post_mortem } => {
                format!("{} failed: {}", actor.path, post_mortem.cause)
            }
            Lifecycle::Killed { actor } => format!("{} killed", actor.path),
            Lifecycle::Restarted { path, kind } => format!("{path} ({kind}) restarted"),
            Lifecycle::Escalated { path } => format!("{path} escalated"),
            other => format!("{other:?}"),
        };
        self.events.lock().unwrap().push(line);
    }

    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        self.kinds.lock().unwrap().push(kind);
        Arc::new(self.clone())
    }

    fn span(&self, span: &Span) {
        self.spans.lock().unwrap().push(span.clone());
    }
}

impl KindObserver for Recorder {
    fn handled(&self, message: &'static str, outcome: Outcome, timing: Option<Timing>) {
        self.messages.lock().unwrap().push((message, outcome, timing));
    }
}

#[tokio::test]
async fn every_life_has_one_start_and_one_end() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let probe = world.start("a").await;
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    world.pass_backoff();
    world.generation(&probe, 2).await;
    let forever = Gate::new();
    probe.tell(Header::new(), Do::Wait(forever.clone(), None)).await.unwrap();
    forever.arrived().await;
    let name = Name::new("a").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    world.time.advance(limits::STOP_DEADLINE);
    assert_eq!(soon(stop).await, Ok(true));
    world.start("b").await;
    soon(world.kernel.stop()).await;
    assert_eq!(
        recorder.take(),
        [
            "/ started",
            "/a started",
            "/a failed: panicked: told to panic",
            "/a started",
            "/a (probe) restarted",
            "/a killed",
            "/b started",
            "/b stopped",
            "/ stopped",
        ]
    );
}

/// Ends of all sorts, at once and in a heap: nobody is reported twice, and nobody is forgotten.
#[tokio::test]
async fn whatever_happens_the_ends_match_the_starts() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let forever = Gate::new();
    for name in ["a", "b", "c", "d", "e"] {
        let parent = world.start(name).await;
        let child = Probe::new("child", &world.log);
        let spawn = |reply| Do::Spawn(Box::new(child), neuroflow_kernel::Spawn::default(), reply);
        soon(parent.call(Header::new(), spawn)).await.unwrap().unwrap();
        let end = match name {
            "a" => Do::Stop,
            "b" => Do::KillChild(Name::new("child").unwrap(), nobodys_reply().await),
            "c" => Do::Wait(forever.clone(), None),
            "d" => continue,
            _ => Do::PanicInTask(opened()),
        };
        parent.tell(Header::new(), end).await.unwrap();
    }
    settle().await;
    world.pass_backoff();
    settle().await;
    let census = world.kernel.census();
    drop(world);
    until(|| census.count() == 0).await;
    settle().await;
    let mut lives: HashMap<String, i32> = HashMap::new();
    for line in recorder.take() {
        let (path, what) = line.split_once(' ').unwrap();
        match what.split_once(':').map_or(what, |(what, _)| what) {
            "started" => *lives.entry(path.to_owned()).or_default() += 1,
            "stopped" | "failed" | "killed" => *lives.entry(path.to_owned()).or_default() -= 1,
            _ => {}
        }
    }
    assert_eq!(lives.len(), 11);
    assert!(lives.values().all(|&open| open == 0), "{lives:?}");
}

fn opened() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

/// A reply whose caller isn't there.
async fn nobodys_reply() -> neuroflow_kernel::Reply<bool> {
    struct Catch(neuroflow_kernel::Reply<bool>);
    impl neuroflow_kernel::Message for Catch {
        fn name(&self) -> &'static str {
            "catch"
        }
    }
    struct Catcher(Arc<Mutex<Option<neuroflow_kernel::Reply<bool>>>>);
    impl neuroflow_kernel::Actor for Catcher {
        type Message = Catch;
        type Error = std::convert::Infallible;
        const KIND: &'static str = "catcher";
        async fn handle(
            &mut self,
            Catch(reply): Catch,
            _: &mut neuroflow_kernel::Context<Catch>,
        ) -> Result<(), Self::Error> {
            *self.0.lock().unwrap() = Some(reply);
            Ok(())
        }
    }
    let caught = Arc::new(Mutex::new(None));
    let kernel = neuroflow_kernel::Kernel::builder().start().await.unwrap();
    let inside = Arc::clone(&caught);
    let make = move || Catcher(Arc::clone(&inside));
    let (spec, address) = neuroflow_kernel::ChildSpec::new("catcher", make).unwrap();
    kernel.root().start(spec).await.unwrap();
    let mut call = Box::pin(address.call(Header::new(), Catch));
    assert!(hangs(&mut call).await);
    let reply = caught.lock().unwrap().take();
    reply.unwrap()
}

#[tokio::test]
async fn an_escalation_is_reported() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let mut strict = crate::probe::policy(Strategy::OneForOne);
    strict.intensity.restarts = 0;
    let (spec, probe) = world.spec("a");
    let (_, spec) = neuroflow_kernel::Supervisor::spec("strict", strict, vec![spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    let events = recorder.take();
    let at = |line: &str| events.iter().position(|event| event == line);
    assert!(at("/strict/a failed: panicked: told to panic") < at("/strict escalated"));
    assert!(at("/strict escalated") < at("/strict failed: failed"));
}

#[tokio::test]
async fn every_message_is_counted_with_its_outcome_and_some_are_timed() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let owner = world.start("a").await;
    let gate = Gate::new();
    owner.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let lent = owner.attenuate(Restriction::new()).unwrap();
    lent.tell(Header::new(), Do::Note("denied")).await.unwrap();
    owner.tell(world.within(SECOND), Do::Note("expired")).await.unwrap();
    owner.tell(Header::new(), Do::Note("ok")).await.unwrap();
    lent.revoke().unwrap();
    world.time.advance(SECOND);
    gate.open();
    settle().await;
    {
        let messages = recorder.messages.lock().unwrap();
        let waited = messages.iter().find(|(name, ..)| *name == "wait").unwrap().2.unwrap();
        assert_eq!((waited.waited, waited.handled), (Duration::ZERO, SECOND));
    }
    assert!(soon(owner.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    let of_probe: Vec<_> =
        recorder.outcomes().into_iter().filter(|(name, _)| *name != "start").collect();
    assert_eq!(
        of_probe,
        [
            ("wait", Outcome::Ok),
            ("note", Outcome::Denied),
            ("note", Outcome::Expired),
            ("note", Outcome::Ok),
            ("panic", Outcome::Panicked),
        ]
    );
    world.pass_backoff();
    world.generation(&owner, 2).await;
    assert!(soon(owner.call(Header::new(), Do::Fail)).await.is_err());
    settle().await;
    assert!(recorder.outcomes().contains(&("fail", Outcome::Failed)));
    // One observer per kind, not per actor.
    assert_eq!(*recorder.kinds.lock().unwrap(), ["supervisor", "probe"]);
}

#[tokio::test]
async fn one_message_in_a_few_is_timed() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let probe = world.start("a").await;
    let count = limits::TIMING_SAMPLE * 4;
    for _ in 0..count {
        probe.tell(Header::new(), Do::Note("x")).await.unwrap();
    }
    settle().await;
    let messages = recorder.messages.lock().unwrap();
    let notes = messages.iter().filter(|(name, ..)| *name == "note");
    assert_eq!(notes.filter(|(.., timing)| timing.is_some()).count(), 4);
}

#[tokio::test]
async fn a_sampled_span_is_recorded_with_its_place_in_the_trace() {
    let recorder = Recorder::default();
    let world = World::observed(Arc::new(recorder.clone())).await;
    let tracer = world.kernel.tracer();
    let mut root = tracer.root(true, "request", SpanKind::Server);
    root.set("size", 3);
    world.time.advance(SECOND);
    {
        let mut child = tracer.span(root.context(), "work", SpanKind::Internal);
        child.fail("timeout");
        child.remote_parent();
    }
    let trace = root.context();
    drop(root);
    drop(tracer.root(false, "unsampled", SpanKind::Server));
    drop(tracer.span(TraceContext::NONE, "untraced", SpanKind::Internal));
    let spans = recorder.spans.lock().unwrap();
    let [child, root] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((child.parent, child.context.trace_id()), (trace, trace.trace_id()));
    assert_eq!((child.error.as_deref(), child.remote_parent), (Some("timeout"), true));
    assert!(root.parent.is_none());
    assert_eq!(root.attributes, [("size", SpanValue::Integer(3))]);
    assert_eq!(root.ended.duration_since(root.started).unwrap(), SECOND);
}
