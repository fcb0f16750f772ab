//! `neuroflow serve`: a node with its gateway, until a signal.

mod banner;
mod error;
mod start;
mod witness;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use neuroflow::actors::McpMeter;
use neuroflow::kernel::Clock;
use neuroflow::{AnyAgent, Echo, Node, Python, Shell};
use neuroflow_telemetry::logs::{LogGuard, check_filter};
use neuroflow_telemetry::server::MetricsEndpoint;
use neuroflow_telemetry::{Telemetry, TelemetryError};
use tracing::{info, warn};

use self::banner::Banner;
pub(super) use self::error::ServeError;
use self::start::{card_key, check_key, start};
use self::witness::Witness;
use super::mcp::Uncounted;
use super::signal::{Caught, Signals, end_at_the_second};
use super::{CliError, Globals, SUCCESS, telemetry};
use crate::config::{Builtin, Loaded, Overrides};
use crate::control::failures;
use crate::limits::{OPEN_FILES, TELEMETRY_SHUTDOWN};

/// Starts a node: agents, sandbox, gateway, metrics, control socket.
///
/// SIGINT, SIGTERM and SIGHUP drain and stop it; a second one of the former two ends it at once.
#[derive(Args, Debug)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Overrides,
}

/// What can be said of a configuration without doing anything.
pub(super) fn check(loaded: &Loaded) -> Result<(), CliError> {
    loaded.config.check_exposure(loaded)?;
    let _offered = loaded.proxies()?;
    let _servers = loaded.mcp_sources(&(Arc::new(Uncounted) as Arc<dyn McpMeter>))?;
    loaded.profile()?;
    if let Some(key) = &loaded.config.tls.key {
        check_key("tls.key", key.path())?;
    }
    if let Some(key) = &loaded.config.gateway.card_key {
        card_key(key.path())?;
    }
    check_filter(loaded.config.log.filter.as_str()).map_err(ServeError::from)?;
    let config = telemetry::telemetry(loaded).map_err(ServeError::from)?;
    config.check().map_err(TelemetryError::from).map_err(ServeError::from)?;
    Ok(())
}

impl Serve {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        check(&loaded)?;
        let log = telemetry::log(&loaded).map_err(ServeError::from)?;
        end_at_the_second().map_err(ServeError::System)?;
        open_more_files();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if loaded.config.runtime.workers > 0 {
            runtime.worker_threads(loaded.config.runtime.workers.into());
        }
        let runtime = runtime.enable_all().build().map_err(CliError::Runtime)?;
        let served = runtime.block_on(serve(&loaded, &log, globals.clock, out));
        // What still runs after the deadline, or after a second signal, is not waited for.
        runtime.shutdown_background();
        served
    }
}

/// Raises how many files the process may have open, as far as it may by itself: what a shell or a service manager sets
/// is for programs that still use `select`. Cells have limits of their own.
#[cfg(unix)]
fn open_more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let set = getrlimit(Resource::Nofile);
    let most = set.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if set.current.is_some_and(|current| current < most) {
        let raised = Rlimit { current: Some(most), maximum: set.maximum };
        // Where it can't be raised, the gateway says what it has.
        let _refused = setrlimit(Resource::Nofile, raised).is_err();
    }
}

#[cfg(not(unix))]
fn open_more_files() {}

/// The agent that a name of the configuration stands for.
pub(super) fn builtin(agent: Builtin) -> AnyAgent {
    match agent {
        Builtin::Shell => AnyAgent::new(Shell),
        Builtin::Echo => AnyAgent::new(Echo),
        Builtin::Python => AnyAgent::new(Python),
    }
}

async fn serve(
    loaded: &Loaded,
    log: &LogGuard,
    clock: &Clock,
    out: &mut dyn Write,
) -> Result<u8, CliError> {
    // First of all, so that a signal during the start is one too.
    let mut signals = Signals::catch().map_err(ServeError::System)?;
    let config = telemetry::telemetry(loaded).map_err(ServeError::from)?;
    let telemetry = Telemetry::new(config).map_err(ServeError::from)?;
    log.count(telemetry.instruments()).map_err(ServeError::from)?;
    let witness = Arc::new(Witness::before(telemetry.observer()));
    let begun = tokio::select! {
        begun = start(loaded, clock, &telemetry, &witness) => begun,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    let served = match begun {
        Ok(running) => {
            let banner = running.banner(loaded, clock).await;
            if let Err(error) = banner.print(out) {
                // Nobody has to read it.
                warn!(
                    error = &error as &dyn std::error::Error,
                    "where everything is can't be printed"
                );
            }
            info!(gateway = %banner.gateway, pid = std::process::id(), "ready");
            let stop = loaded.config.stop.deadline;
            let ended = until_end(&running.node, &witness, stop, &mut signals).await;
            ended.map_err(CliError::from)
        }
        Err(error) => Err(error),
    };
    let served = match served {
        Ok(End::AtOnce(caught)) => Ok(End::AtOnce(caught)),
        served => match send_spans(&telemetry, &mut signals).await {
            Some(caught) => served.map(|_stopped| End::AtOnce(caught)),
            None => served,
        },
    };
    served.map(|end| match end {
        End::Stopped => SUCCESS,
        End::AtOnce(caught) => caught.exit_code(),
    })
}

/// Sends the last spans. A signal ends the process at once; they are lost then.
async fn send_spans(telemetry: &Telemetry, signals: &mut Signals) -> Option<Caught> {
    let shut = tokio::select! {
        shut = telemetry.shutdown(TELEMETRY_SHUTDOWN) => shut,
        caught = signals.next() => {
            warn!(signal = caught.name(), "ending at once; the last spans may be lost");
            return Some(caught);
        }
    };
    if let Err(error) = shut {
        warn!(error = &error as &dyn std::error::Error, "the last spans may be lost");
    }
    None
}

/// A node that serves.
struct Running {
    node: Node,
    metrics: Option<MetricsEndpoint>,
    socket: Option<PathBuf>,
}

impl Running {
    async fn banner(&self, loaded: &Loaded, clock: &Clock) -> Banner {
        let metrics = match &self.metrics {
            Some(endpoint) => endpoint.address().await.ok(),
            None => None,
        };
        let listen = loaded.config.gateway.listen;
        Banner {
            gateway: self.node.gateway().unwrap_or(listen),
            is_tls: loaded.config.tls.certificate.is_some(),
            public_url: loaded.config.gateway.public_url.clone(),
            metrics,
            socket: self.socket.clone(),
            agents: self.node.agents().map(str::to_owned).collect(),
            took: clock.now().since(neuroflow::kernel::Moment::ORIGIN),
        }
    }
}

/// How serving ended.
#[derive(Debug)]
enum End {
    /// A signal, and everything stopped.
    Stopped,
    /// A second signal.
    AtOnce(Caught),
}

async fn until_end(
    node: &Node,
    witness: &Witness,
    deadline: Duration,
    signals: &mut Signals,
) -> Result<End, ServeError> {
    let caught = tokio::select! {
        () = node.ended() => {
            let census = node.census();
            let failures = failures(&census, node.kernel().clock().wall());
            return Err(ServeError::GaveUp { failures });
        }
        caught = signals.next() => caught,
    };
    stop(node, witness, caught, deadline, signals).await
}

/// Drains and stops, for as long as the deadline and the operator's patience last.
async fn stop(
    node: &Node,
    witness: &Witness,
    caught: Caught,
    deadline: Duration,
    signals: &mut Signals,
) -> Result<End, ServeError> {
    info!(signal = caught.name(), ?deadline, "stopping");
    witness.stopping();
    let in_time = tokio::select! {
        in_time = node.stop_within(deadline) => in_time,
        caught = signals.next() => {
            warn!(signal = caught.name(), "ending at once");
            return Ok(End::AtOnce(caught));
        }
    };
    let killed = witness.killed();
    if !in_time {
        return Err(ServeError::Overdue { deadline, killed });
    }
    if !killed.is_empty() {
        return Err(ServeError::Killed { deadline, killed });
    }
    info!("stopped");
    Ok(End::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow::kernel::{Actor, ChildSpec, Context, Message, Observer, Unobserved};

    #[derive(Debug)]
    enum Nothing {}

    impl Message for Nothing {
        fn name(&self) -> &'static str {
            match *self {}
        }
    }

    /// Fails as soon as it lives, or doesn't want to stop.
    #[derive(Clone, Copy)]
    enum Bad {
        Fragile,
        Stubborn,
    }

    impl Actor for Bad {
        type Message = Nothing;
        type Error = std::convert::Infallible;
        const KIND: &'static str = "bad";

        async fn started(&mut self, context: &mut Context<Nothing>) -> Result<(), Self::Error> {
            if matches!(self, Self::Fragile) {
                let _running = context.task(async { panic!("too fragile") }).is_ok();
            }
            Ok(())
        }

        async fn handle(
            &mut self,
            nothing: Nothing,
            _: &mut Context<Nothing>,
        ) -> Result<(), Self::Error> {
            match nothing {}
        }

        async fn stopping(&mut self, _: &mut Context<Nothing>) {
            std::future::pending::<()>().await;
        }
    }

    async fn node_with(bad: Bad, stop_within: Duration) -> (Node, Arc<Witness>) {
        let (spec, _nobody) = ChildSpec::new("bad", move || bad).unwrap();
        let witness = Arc::new(Witness::before(Arc::new(Unobserved)));
        let builder = Node::builder().observer(Arc::clone(&witness) as Arc<dyn Observer>);
        (builder.first(spec.stop_within(stop_within)).start().await.unwrap(), witness)
    }

    #[tokio::test]
    async fn a_node_that_gives_up_says_what_failed() {
        let mut signals = Signals::catch().unwrap();
        let (node, witness) = node_with(Bad::Fragile, Duration::from_hours(1)).await;
        let ended = until_end(&node, &witness, Duration::from_secs(1), &mut signals).await;
        let message = ended.unwrap_err().to_string();
        assert!(message.contains("/bad (life") && message.contains("too fragile"), "{message}");
    }

    #[tokio::test]
    async fn a_node_that_does_not_stop_is_killed_and_reported() {
        let mut signals = Signals::catch().unwrap();
        let (node, witness) = node_with(Bad::Stubborn, Duration::from_hours(1)).await;
        let deadline = Duration::from_millis(50);
        let ended = stop(&node, &witness, Caught::Terminate, deadline, &mut signals).await;
        assert!(matches!(ended, Err(ServeError::Overdue { .. })), "{ended:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_killed_in_time_is_named() {
        let mut signals = Signals::catch().unwrap();
        let (node, witness) = node_with(Bad::Stubborn, Duration::from_millis(50)).await;
        let deadline = Duration::from_mins(1);
        let ended = stop(&node, &witness, Caught::Terminate, deadline, &mut signals).await;
        let message = ended.unwrap_err().to_string();
        assert!(message.contains("killed: /bad; raise stop.deadline"), "{message}");
    }
}
