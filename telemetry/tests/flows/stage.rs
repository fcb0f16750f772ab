//! Actors for the flows: a worker that does as it's told, and a relay that passes work on.

use neuroflow_kernel::{
    Actor, Address, CallError, ChildSpec, Context, Header, Kernel, Message, Reply, RestartPolicy,
    SpanKind,
};
use neuroflow_telemetry::{Telemetry, TelemetryConfig};

/// What a worker does with a message.
#[derive(Debug)]
pub(crate) enum Order {
    Work(Reply<()>),
    Fail,
    Panic,
}

impl Message for Order {
    fn name(&self) -> &'static str {
        match self {
            Self::Work(_) => "work",
            Self::Fail => "fail",
            Self::Panic => "panic",
        }
    }
}

/// Why a worker failed.
#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
pub(crate) struct Told(#[source] pub(crate) std::fmt::Error);

pub(crate) struct Worker;

impl Actor for Worker {
    type Message = Order;
    type Error = Told;
    const KIND: &'static str = "worker";

    async fn handle(&mut self, order: Order, _: &mut Context<Order>) -> Result<(), Told> {
        match order {
            Order::Work(reply) => {
                let _gone = reply.send(());
                Ok(())
            }
            Order::Fail => Err(Told(std::fmt::Error)),
            Order::Panic => panic!("told to panic"),
        }
    }
}

/// Passes work to the next in line, each hop in a span of its own.
#[derive(Debug)]
pub(crate) struct Pass(pub(crate) Reply<()>);

impl Message for Pass {
    fn name(&self) -> &'static str {
        "pass"
    }
}

pub(crate) struct Relay {
    pub(crate) span: &'static str,
    pub(crate) next: Option<Address<Pass>>,
}

impl Actor for Relay {
    type Message = Pass;
    type Error = CallError;
    const KIND: &'static str = "relay";

    async fn handle(&mut self, pass: Pass, context: &mut Context<Pass>) -> Result<(), CallError> {
        let mut span = context.span(self.span, SpanKind::Internal);
        if let Some(next) = &self.next {
            next.call(context.onward().traced(span.context()), Pass).await?;
        } else {
            span.set("gen_ai.tool.name", "python");
            span.set("process.exit.code", 1);
            span.fail("exit_code");
        }
        drop(span);
        let _gone = pass.0.send(());
        Ok(())
    }
}

/// A kernel that is watched.
pub(crate) async fn watched(config: TelemetryConfig, policy: RestartPolicy) -> (Telemetry, Kernel) {
    let telemetry = Telemetry::new(config).unwrap();
    let builder = Kernel::builder().observer(telemetry.observer()).policy(policy);
    let kernel = builder.start().await.unwrap();
    telemetry.watch(kernel.census());
    (telemetry, kernel)
}

pub(crate) async fn worker(kernel: &Kernel) -> Address<Order> {
    let (spec, worker) = ChildSpec::new("worker", || Worker).unwrap();
    kernel.root().start(spec).await.unwrap();
    worker
}

/// Has the worker work, also while it's being restarted.
pub(crate) async fn work(worker: &Address<Order>) {
    for _ in 0..100 {
        if worker.call(Header::new(), Order::Work).await.is_ok() {
            return;
        }
        neuroflow_kernel::Clock::system().sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the worker doesn't come back");
}

/// The value of one series that counts things.
pub(crate) fn value(text: &str, series: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}
