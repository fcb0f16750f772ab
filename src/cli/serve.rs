//! `neuroflow serve`: a node with its gateway, until a signal.
//!
//! Long, because start and stop are told in order, with every way in which they fail and what to change then.

mod banner;
mod witness;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use neuroflow::actors::{
    AccessError, AuditConfig, CardKey, CardKeyError, Digest, GatewayError, JournalConfig,
    JournalPlace, McpMeter, PushOptions,
};
use neuroflow::kernel::{Cause, Clock, Observer, StartError};
use neuroflow::transport::{
    Authority, AuthorityError, CertificateError, Credential, LinksConfig, Trust,
};
use neuroflow::{
    AnyAgent, BootError, Echo, McpServer, Meter, Node, NodeBuilder, Python, Shell, SoleAgent,
};
use neuroflow_telemetry::logs::{LogError, LogGuard, check_filter};
use neuroflow_telemetry::server::{self, MetricsConfig, MetricsEndpoint};
use neuroflow_telemetry::{EnvironmentError, MetricError, Telemetry, TelemetryError};
use tracing::{info, warn};

use self::banner::Banner;
use self::witness::Witness;
use super::cluster_meter;
use super::mcp::{Uncounted, needs_sandbox};
use super::meter::{self, AccessCounts, GatewayMeter, McpMetrics, SandboxMeter};
use super::node::files::{self, FileError};
use super::signal::{Caught, Signals, end_at_the_second};
use super::{CliError, FAILURE, Globals, SUCCESS, USAGE, telemetry};
use crate::config::{
    Builtin, Loaded, LogPath, Overrides, Seed, SocketPath, default_directory, write_values,
};
use crate::control::{self, AuditSlot, FailureRow, JournalSlot, LinksSlot, NodeJournal, failures};
use crate::limits::{CARD_KEY_BYTES, STOP_BEHIND, TELEMETRY_SHUTDOWN};

/// Starts a node: agents, sandbox, gateway, metrics, control socket.
///
/// SIGINT, SIGTERM and SIGHUP drain and stop it; a second one of the former two ends it at once.
#[derive(Args, Debug)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Overrides,
}

/// Why a node didn't serve, or didn't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ServeError {
    /// The log can't be set up.
    #[error("the log can't be set up; change log.filter")]
    Log(#[from] LogError),
    /// An `OTEL_*` variable can't be understood.
    #[error("an OpenTelemetry variable can't be understood; change or unset it")]
    Environment(#[from] EnvironmentError),
    /// There is no telemetry.
    #[error("the telemetry can't be set up; check telemetry.otlp_endpoint")]
    Telemetry(#[from] TelemetryError),
    /// A file of the node's identity can't be read.
    #[error("the node's identity can't be read; change cluster.identity")]
    IdentityFile(#[from] FileError),
    /// The node's identity can't be used.
    #[error("the node's identity can't be used; make one with `neuroflow node init`")]
    Identity(#[from] CertificateError),
    /// The cluster's authority can't be used.
    #[error("the cluster's authority can't be used; change cluster.authority")]
    Authority(#[from] AuthorityError),
    /// It's another cluster's.
    #[error(
        "the authority in {} isn't the one that this node trusts; change cluster.authority", path.display()
    )]
    OtherAuthority { path: PathBuf },
    /// A metric of the gateway can't be registered.
    #[error("the gateway's metrics can't be registered")]
    Metric(#[from] MetricError),
    /// Signals can't be caught, or our own user not be found out.
    #[error("the system refused to set up signals or the control socket")]
    System(#[source] io::Error),
    /// The cards' key can't be read.
    #[error("{} can't be read; change gateway.card_key", path.display())]
    ReadCardKey {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A key isn't as a key should lie.
    #[error("{setting} can't be used; change it, or what is named below")]
    KeyFile {
        setting: &'static str,
        #[source]
        source: FileError,
    },
    /// It isn't a key for cards.
    #[error("{} can't sign cards; change gateway.card_key", path.display())]
    CardKey {
        path: PathBuf,
        #[source]
        source: CardKeyError,
    },
    /// Nobody says where tasks are kept.
    #[error(
        "there is no place for the journal: neither STATE_DIRECTORY nor HOME is set; set journal.url"
    )]
    Nowhere,
    /// The node didn't start.
    #[error("neuroflow can't serve; {}", advice(.0))]
    Boot(#[from] BootError),
    /// Something still ran when the time to stop was over.
    #[error(
        "not everything stopped within {deadline:?}, and the rest was killed{}; raise stop.deadline",
        naming(killed)
    )]
    Overdue { deadline: Duration, killed: Vec<String> },
    /// Everything stopped, but some of it not by itself.
    #[error(
        "what still ran when its part of the {deadline:?} to stop was over was killed{}; raise \
         stop.deadline",
        naming(killed)
    )]
    Killed { deadline: Duration, killed: Vec<String> },
    /// The root supervisor gave up.
    #[error(
        "the node gave up: its servers failed more often than they may{}",
        post_mortem(failures)
    )]
    GaveUp { failures: Vec<FailureRow> },
}

impl ServeError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(_)
            | Self::Environment(_)
            | Self::Nowhere
            | Self::ReadCardKey { .. }
            | Self::CardKey { .. }
            | Self::KeyFile { .. }
            | Self::Telemetry(TelemetryError::Export(_))
            | Self::IdentityFile(_)
            | Self::Authority(_)
            | Self::OtherAuthority { .. }
            | Self::Boot(BootError::Links(_))
            | Self::Identity(_) => USAGE,
            Self::Boot(error) if is_configuration(error) => USAGE,
            _ => FAILURE,
        }
    }
}

/// The error of a server that didn't start, if it's this one's.
fn failure<E: std::error::Error + 'static>(error: &BootError) -> Option<&E> {
    match error {
        BootError::Start(StartError::Failed { cause: Cause::Error(error), .. }) => {
            error.downcast_ref()
        }
        _ => None,
    }
}

/// Whether a file that the configuration names isn't what it should be.
fn is_configuration(error: &BootError) -> bool {
    let tls = matches!(failure(error), Some(GatewayError::Tls(_)));
    // Whether the issuer answers isn't the configuration's business.
    let issuer = matches!(failure(error), Some(AccessError::Issuer(_)));
    tls || failure::<AccessError>(error).is_some() && !issuer
}

/// Which setting to change when a server doesn't start.
fn advice(error: &BootError) -> &'static str {
    if matches!(error, BootError::Journal(_)) {
        return "change journal.url, or what is named below";
    }
    if matches!(error, BootError::Links(_)) {
        return "change cluster.identity or cluster.revocations, or what is named below";
    }
    if matches!(error, BootError::Leases(_)) {
        return "change cluster.leases, or what is named below";
    }
    let BootError::Start(StartError::Failed { path, .. }) = error else { return "try again" };
    if let Some(GatewayError::Tls(_)) = failure(error) {
        return "change tls.certificate, tls.key or tls.client_ca";
    }
    match path.to_string().as_str() {
        "/telemetry" => "change telemetry.metrics_listen, or stop who has that address",
        "/gateway" => "change gateway.listen, or stop who has that address",
        "/audit" => {
            "change audit.file or audit.key to what this user may write, or stop the node that has it"
        }
        "/cluster" => "change cluster.listen, or stop who has that address",
        "/control" => "change control.socket, or stop the node that has it",
        "/access" => "check auth.tokens, auth.issuer and policy.file",
        "/sandbox" => {
            "run `neuroflow doctor`, and apply its remedies or choose a level that it lists as \
             available with sandbox.level"
        }
        _ => "look at what is named below",
    }
}

/// The last failures, one per line.
fn post_mortem(failures: &[FailureRow]) -> String {
    let lines = failures.iter().take(SHOWN_FAILURES).map(|failure| {
        let message = failure.message.as_deref().map(|it| format!(" on message {it:?}"));
        let message = message.unwrap_or_default();
        format!(
            "\n  {} (life {}) failed{message}: {}",
            failure.path, failure.generation, failure.cause
        )
    });
    lines.collect()
}

/// What was killed, if that is known: the gateway with the requests that it still had, or others.
fn naming(killed: &[String]) -> String {
    let with_requests = |path: &String| match path.as_str() {
        "/gateway" => "/gateway with the requests that it still had".to_owned(),
        path => path.to_owned(),
    };
    let named: Vec<String> = killed.iter().map(with_requests).collect();
    if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
}

/// Failures that the last words name: those that led to the end, and little else.
const SHOWN_FAILURES: usize = 8;

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

async fn start(
    loaded: &Loaded,
    clock: &Clock,
    telemetry: &Telemetry,
    witness: &Arc<Witness>,
) -> Result<Running, CliError> {
    let config = &loaded.config;
    let mut builder = Node::builder()
        .clock(clock.clone())
        .observer(Arc::clone(witness) as Arc<dyn Observer>)
        .drain_within(drain(loaded));
    let mut metrics = None;
    if let Some(address) = config.telemetry.metrics_listen.address() {
        let endpoint = MetricsConfig::default().address(address);
        let (spec, endpoint) = server::child(telemetry, &endpoint)
            .map_err(BootError::from)
            .map_err(ServeError::from)?;
        builder = builder.first(spec);
        metrics = Some(endpoint);
    }
    let socket = match &config.control.socket {
        Some(SocketPath::Off) => None,
        Some(SocketPath::At(path)) => Some(path.clone()),
        None => Some(control::default_path().map_err(ServeError::System)?),
    };
    let (slot, tasks) = (LinksSlot::default(), JournalSlot::default());
    let audited = AuditSlot::default();
    if let Some(path) = socket.clone() {
        let (slot, tasks, audited) = (Arc::clone(&slot), Arc::clone(&tasks), Arc::clone(&audited));
        builder =
            builder.first_with(move |census| control::child(path, census, slot, tasks, audited));
    }
    if let Some(audit) = audit(loaded) {
        builder = builder.audit(audit);
    }
    let journal = journal(loaded)?;
    let place = control::name(&journal.place);
    builder = builder.journal(journal);
    if needs_sandbox(loaded) || sole(loaded).any(|agent| !agent.agent().shared_tools().is_empty()) {
        let meter = SandboxMeter::new(telemetry.instruments()).map_err(ServeError::from)?;
        builder = builder.sandbox(loaded.sandbox()?.meter(Arc::new(meter)));
    }
    for agent in &config.agents.enabled {
        builder = builder.agent(builtin(*agent));
    }
    let meter = McpMetrics::new(telemetry.instruments()).map_err(ServeError::from)?;
    let meter: Arc<dyn McpMeter> = Arc::new(meter);
    builder = loaded.mcp_sources(&meter)?.into_iter().fold(builder, NodeBuilder::mcp);
    builder = builder
        .mcp_server(McpServer { http: config.mcp_server.http, exec: config.mcp_server.exec });
    let counted = AccessCounts::new(telemetry.instruments()).map_err(ServeError::from)?;
    if let Some(access) = loaded.access(Arc::new(counted)) {
        builder = builder.access(access);
    }
    let mut gateway = loaded.gateway();
    if let Some(key) = &config.gateway.card_key {
        gateway.card_key = Some(card_key(key.path())?);
    }
    if let Some(links) = links(loaded)? {
        builder = builder.cluster(links);
    }
    builder = loaded.proxies()?.into_iter().fold(builder, NodeBuilder::proxy);
    if let Some(leases) = loaded.leases() {
        builder = builder.leases(leases);
    }
    builder = sole(loaded).fold(builder, NodeBuilder::sole);
    let meter = GatewayMeter::new(telemetry.instruments()).map_err(ServeError::from)?;
    let sampler = telemetry.sampler();
    let meter: Arc<dyn Meter> = Arc::new(meter);
    if config.gateway.push_notifications {
        let mut push = PushOptions::default();
        push.allow_private = config.gateway.push_allow_private;
        builder = builder.push_notifications(push);
    }
    let builder = builder.gateway_with(gateway).meter(meter, Arc::new(move || sampler.sample()));
    let node = builder.start().await.map_err(ServeError::from)?;
    telemetry.watch(node.census());
    meter::conditions(telemetry.instruments(), &node).map_err(ServeError::from)?;
    let _once = tasks.set(NodeJournal::new(node.journal().clone(), place)).is_err();
    let _once = audited.set(node.audit().clone()).is_err();
    if let Some(links) = node.links() {
        cluster_meter::register(telemetry.instruments(), links).map_err(ServeError::from)?;
        let _once = slot.set(links.clone()).is_err();
    }
    Ok(Running { node, metrics, socket })
}

/// The agents of which there's one in the cluster, or one per conversation.
fn sole(loaded: &Loaded) -> impl Iterator<Item = SoleAgent> {
    let cluster = &loaded.config.cluster;
    let singletons = cluster.singletons.iter().flatten();
    let sharded = cluster.sharded.iter().flatten();
    let singletons = singletons.map(|agent| SoleAgent::singleton(builtin(*agent)));
    singletons.chain(sharded.map(|agent| SoleAgent::sharded(builtin(*agent))))
}

/// The links to other nodes, if there are to be any.
fn links(loaded: &Loaded) -> Result<Option<LinksConfig>, ServeError> {
    let settings = &loaded.config.cluster;
    // Either is refused without the other.
    let both = settings.listen.address().zip(settings.identity.as_ref());
    let Some((listen, identity)) = both else { return Ok(None) };
    let folder = identity.path();
    let file = |name: &str| files::read(&folder.join(name));
    let credential = Credential::from_pem(&file(files::CERTIFICATE)?, &file(files::KEY)?)?;
    let trusted = file(files::AUTHORITY)?;
    let trust = Trust::from_pem(&trusted)?;
    let kept = settings.revocations.as_ref().map(|file| file.path().to_owned());
    let kept = kept.unwrap_or_else(|| folder.join(files::REVOCATIONS));
    if kept.exists() {
        files::check(&kept, files::Care::Signed)?;
    }
    let mut config = LinksConfig::new(listen, credential, trust)
        .capacity(settings.capacity)
        .certificate_file(folder.join(files::CERTIFICATE))
        .leave_within(behind(loaded) / 2)
        .revocations(kept);
    if let Some(address) = settings.advertise {
        config = config.advertise(address);
    }
    if let Some(folder) = &settings.authority {
        let path = folder.path().to_owned();
        let certificate = files::read(&path.join(files::AUTHORITY))?;
        if !trusted.contains(certificate.trim()) {
            return Err(ServeError::OtherAuthority { path });
        }
        let key = files::read(&path.join(files::AUTHORITY_KEY))?;
        config = config.authority(Authority::from_pem(&certificate, &key)?);
    }
    Ok(Some(settings.seeds.iter().fold(config, |config, seed| match seed {
        Seed::Address(address) => config.seed(*address),
        Seed::Name(name) => config.seed_name(name),
        Seed::Service(service) => config.seed_service(service.clone()),
    })))
}

/// Whether a key is as a key should lie.
fn check_key(setting: &'static str, path: &Path) -> Result<(), ServeError> {
    let unfit = |source| ServeError::KeyFile { setting, source };
    files::check(path, files::Care::Secret).map_err(unfit)
}

/// The key that cards are signed with.
fn card_key(path: &Path) -> Result<CardKey, ServeError> {
    check_key("gateway.card_key", path)?;
    let unreadable = |source| ServeError::ReadCardKey { path: path.to_owned(), source };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(CARD_KEY_BYTES).read_to_end(&mut pem).map_err(unreadable)?;
    let wrong = |source| ServeError::CardKey { path: path.to_owned(), source };
    CardKey::from_pem(&pem).map_err(wrong)
}

/// The log of decisions, if there is to be one.
fn audit(loaded: &Loaded) -> Option<AuditConfig> {
    let settings = &loaded.config.audit;
    let LogPath::At(file) = &settings.file else { return None };
    let mut audit = AuditConfig::new(file);
    if let Some(key) = &settings.key {
        key.path().clone_into(&mut audit.key);
    }
    audit.sync = settings.sync;
    audit.required = settings.required;
    env!("CARGO_PKG_VERSION").clone_into(&mut audit.version);
    let mut effective = Vec::new();
    // A vector takes everything.
    audit.config = write_values(&mut effective, loaded).is_ok().then(|| Digest::of(&effective));
    Some(audit)
}

/// Where tasks are kept.
fn journal(loaded: &Loaded) -> Result<JournalConfig, ServeError> {
    let settings = &loaded.config.journal;
    let place = match &settings.url {
        Some(url) => url.place().clone(),
        None => JournalPlace::Directory(default_directory().ok_or(ServeError::Nowhere)?),
    };
    let mut journal = JournalConfig::new(place);
    if !matches!(journal.place, JournalPlace::Memory) {
        journal.retention.age = Some(settings.retain_age);
        journal.retention.tasks = usize::try_from(settings.retain_tasks).unwrap_or(usize::MAX);
        journal.retention.bytes = settings.retain_bytes.bytes();
    }
    journal.sync = settings.sync;
    settings.node.clone_into(&mut journal.node);
    Ok(journal)
}

/// Of the time to stop, what is left once the gateway doesn't accept any more.
fn left(loaded: &Loaded) -> Duration {
    let config = &loaded.config;
    config.stop.deadline.saturating_sub(config.gateway.drain_delay)
}

/// Of that, what is for everything behind the gateway; half of it is for what other nodes have asked.
fn behind(loaded: &Loaded) -> Duration {
    (left(loaded) / 3).min(STOP_BEHIND)
}

/// The rest is for requests that were begun.
fn drain(loaded: &Loaded) -> Duration {
    left(loaded).saturating_sub(behind(loaded))
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
    use neuroflow::kernel::{Actor, ChildSpec, Context, Message, Unobserved};

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
