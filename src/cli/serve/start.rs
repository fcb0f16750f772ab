//! A node as its configuration has it: what it's made of, and what of the time to stop each part gets.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use neuroflow::actors::{
    AuditConfig, CardKey, Digest, JournalConfig, JournalPlace, McpMeter, PushOptions,
};
use neuroflow::kernel::{Clock, Observer};
use neuroflow::transport::{Authority, CertificateError, Credential, LinksConfig, Trust};
use neuroflow::{BootError, McpServer, Meter, Node, NodeBuilder, SoleAgent};
use neuroflow_telemetry::Telemetry;
use neuroflow_telemetry::server::{self, MetricsConfig};

use super::witness::Witness;
use super::{Running, ServeError, builtin};
use crate::cli::mcp::needs_sandbox;
use crate::cli::meter::{self, AccessCounts, GatewayMeter, McpMetrics, SandboxMeter};
use crate::cli::node::files;
use crate::cli::{CliError, cluster_meter};
use crate::config::{Loaded, LogPath, Seed, SocketPath, default_directory, write_values};
use crate::control::{self, NodeJournal, Slots};
use crate::limits::{CARD_KEY_BYTES, STOP_BEHIND};

/// Starts what the configuration asks for.
pub(super) async fn start(
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
    let slots = Arc::new(Slots::default());
    if let Some(path) = socket.clone() {
        let slots = Arc::clone(&slots);
        builder = builder.first_with(move |census| control::child(path, census, slots));
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
    let _once = slots.journal.set(NodeJournal::new(node.journal().clone(), place)).is_err();
    let _once = slots.audit.set(node.audit().clone()).is_err();
    if let Some(links) = node.links() {
        cluster_meter::register(telemetry.instruments(), links).map_err(ServeError::from)?;
        let _once = slots.links.set(links.clone()).is_err();
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
    let path = folder.join(files::CERTIFICATE);
    match credential.check(&trust) {
        // The links say why that is none yet.
        Ok(()) | Err(CertificateError::NotValidYet) => {}
        Err(source) => return Err(ServeError::Certificate { path, source }),
    }
    let kept = settings.revocations.as_ref().map(|file| file.path().to_owned());
    let kept = kept.unwrap_or_else(|| folder.join(files::REVOCATIONS));
    if kept.exists() {
        files::check(&kept, files::Care::Signed)?;
    }
    let mut config = LinksConfig::new(listen, credential, trust)
        .capacity(settings.capacity)
        .certificate_file(path)
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
pub(super) fn check_key(setting: &'static str, path: &Path) -> Result<(), ServeError> {
    let unfit = |source| ServeError::KeyFile { setting, source };
    files::check(path, files::Care::Secret).map_err(unfit)
}

/// The key that cards are signed with.
pub(super) fn card_key(path: &Path) -> Result<CardKey, ServeError> {
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
