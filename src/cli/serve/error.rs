//! Why a node doesn't serve, or doesn't go on: with what to change then.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use neuroflow::BootError;
use neuroflow::actors::{AccessError, CardKeyError, GatewayError};
use neuroflow::kernel::{Cause, StartError};
use neuroflow::transport::{AuthorityError, CertificateError};
use neuroflow_telemetry::logs::LogError;
use neuroflow_telemetry::{EnvironmentError, MetricError, TelemetryError};

use crate::cli::node::files::FileError;
use crate::cli::{FAILURE, USAGE};
use crate::control::FailureRow;

/// Why a node didn't serve, or didn't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cli) enum ServeError {
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
    /// Nobody else would take the node's certificate.
    #[error("other nodes don't take the certificate in {}; change cluster.identity, or that file", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        source: CertificateError,
    },
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
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(_)
            | Self::Environment(_)
            | Self::Nowhere
            | Self::ReadCardKey { .. }
            | Self::CardKey { .. }
            | Self::KeyFile { .. }
            | Self::Telemetry(TelemetryError::Export(_))
            | Self::IdentityFile(_)
            | Self::Certificate { .. }
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
