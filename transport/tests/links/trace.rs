//! One trace across nodes: what one node does for another stands below what asked for it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Context, Header, Kernel, KindObserver, Lifecycle, Observer, Parcel,
    Request, Span, SpanKind, TraceContext, Unobserved,
};
use neuroflow_transport::{Allowed, Links, LinksConfig};

use crate::world::{Done, Work, World, all_with, soon, until};

#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<Span>>>);

impl Observer for Recorder {
    fn lifecycle(&self, _: &Lifecycle<'_>) {}

    fn kind(&self, _: &'static str) -> Arc<dyn KindObserver> {
        Arc::new(Unobserved)
    }

    fn span(&self, span: &Span) {
        self.0.lock().unwrap().push(span.clone());
    }
}

impl Recorder {
    fn one(&self) -> Span {
        let spans = self.0.lock().unwrap();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        span.clone()
    }
}

/// Works in a span, and asks the next one, if there is one, from inside it.
struct Worker(Option<Address<Request<Work>>>);

impl Actor for Worker {
    type Message = Request<Work>;
    type Error = Infallible;
    const KIND: &'static str = "worker";

    async fn handle(
        &mut self,
        request: Request<Work>,
        context: &mut Context<Request<Work>>,
    ) -> Result<(), Infallible> {
        let span = context.span("work", SpanKind::Internal);
        if let Some(next) = &self.0 {
            let onward = context.onward().traced(span.context());
            all_with(next, onward, &Work::default()).await.unwrap();
        }
        drop(span);
        let done = Parcel::archive(&Done { number: 0, payload: Vec::new() }).unwrap();
        let _gone = request.replies.send(done).await.is_err();
        request.replies.finish();
        Ok(())
    }
}

async fn node(
    world: &World,
    name: &str,
    next: impl FnOnce(&Links) -> Option<Address<Request<Work>>>,
) -> (Kernel, Links, Address<Request<Work>>, Recorder) {
    let recorder = Recorder::default();
    let kernel = Kernel::builder().observer(Arc::new(recorder.clone())).start().await.unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, world.credential(name, &[]), world.trust());
    let (links_spec, links) = config.child(kernel.clock().clone()).unwrap();
    let next = next(&links);
    let (spec, worker) = ChildSpec::new("worker", move || Worker(next.clone())).unwrap();
    kernel.root().start(spec).await.unwrap();
    links.export("worker", worker.clone(), Allowed::Everyone).unwrap();
    kernel.root().start(links_spec).await.unwrap();
    (kernel, links, worker, recorder)
}

#[tokio::test]
async fn the_spans_of_two_nodes_are_one_trace() {
    let world = World::new();
    let far = |links: &Links| Some(links.resolve("agent://b/worker").unwrap());
    let (_a, a_links, worker, here) = node(&world, "a", far).await;
    let (_b, b_links, _, there) = node(&world, "b", |_| None).await;
    soon(a_links.try_dial(b_links.local_address().unwrap())).await.unwrap();
    let root = TraceContext::root(true);
    let header = Header::new().traced(root);
    all_with(&worker, header, &Work::default()).await.unwrap();
    until(|| !there.0.lock().unwrap().is_empty() && !here.0.lock().unwrap().is_empty()).await;
    let (above, below) = (here.one(), there.one());
    assert_eq!(below.parent.to_string(), above.context.to_string());
    assert_eq!(above.parent.to_string(), root.to_string());
    assert_ne!(above.context, below.context);
    let trace = |context: &TraceContext| context.to_string()[3..35].to_owned();
    assert_eq!(trace(&below.context), trace(&root));

    // What isn't sampled isn't recorded there either.
    let quiet = Header::new().traced(TraceContext::root(false));
    all_with(&worker, quiet, &Work::default()).await.unwrap();
    assert_eq!((here.one().context, there.one().context), (above.context, below.context));
}
