//! Log lines on standard error, as text for people or as JSON for machines.
//!
//! Each line names the trace and span of the message that is being handled, so that a log and a
//! trace lead to one another. [`init`] installs the global subscriber and is for the binary;
//! a host program with a subscriber of its own adds [`layer`] to it.
//!
//! What is installed never waits for whoever reads standard error: a thread of its own writes, and
//! what there is no room for is dropped and counted.

mod format;
mod lines;

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub use format::{LogFormat, UnknownFormat};

use crate::instrument::MetricError;
use crate::instruments::Instruments;
use crate::limits::LOG_FLUSH;
use crate::metrics::LOG_LINES_DROPPED;
use lines::Lines;

/// What is logged, and how.
///
/// ```
/// use neuroflow_telemetry::logs::{LogConfig, LogFormat};
/// let config = LogConfig::default().format(LogFormat::Json).filter("info,neuroflow=debug");
/// assert_eq!(config, LogConfig::default().format(LogFormat::Json).filter("info,neuroflow=debug"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    format: LogFormat,
    filter: String,
    colour: Option<bool>,
}

impl LogConfig {
    /// Text or JSON; text unless it's set.
    #[must_use]
    pub fn format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// What is logged, as directives like `info,neuroflow::actor=debug`; `info` unless it's set.
    /// The libraries below the node are silent unless a directive names them.
    #[must_use]
    pub fn filter(mut self, directives: impl Into<String>) -> Self {
        self.filter = directives.into();
        self
    }

    /// Whether text has colours; unless it's set, it does on a terminal where `NO_COLOR` isn't set.
    #[must_use]
    pub fn colour(mut self, colour: bool) -> Self {
        self.colour = Some(colour);
        self
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: DEFAULT_FILTER.to_owned(), colour: None }
    }
}

/// Installs the global subscriber, once per process, on standard error.
///
/// ```
/// use neuroflow_telemetry::logs::{self, LogConfig, LogError};
/// let logs = logs::init(&LogConfig::default())?;
/// logs.refilter("debug")?;
/// assert!(matches!(logs::init(&LogConfig::default()), Err(LogError::Installed(_))));
/// # Ok::<(), LogError>(())
/// ```
///
/// # Errors
/// The filter isn't one, there is a global subscriber already, or no thread can be started.
pub fn init(config: &LogConfig) -> Result<LogGuard, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&config.filter)?);
    let queue = Lines::written_to(io::stderr()).map_err(LogError::Thread)?;
    let terminal = || std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(config.format)
        .with_ansi(config.format == LogFormat::Text && config.colour.unwrap_or_else(terminal))
        .with_writer(queue.clone());
    tracing::subscriber::set_global_default(Registry::default().with(filter).with(lines))?;
    Ok(LogGuard { handle, queue })
}

/// Whether these directives are a filter, for whoever has no log to try them with.
///
/// ```
/// use neuroflow_telemetry::logs::check_filter;
/// assert!(check_filter("info,neuroflow=debug").is_ok());
/// assert!(check_filter("agent=loudly").is_err());
/// ```
///
/// # Errors
/// Says what is wrong with them.
pub fn check_filter(directives: &str) -> Result<(), LogError> {
    filter(directives).map(drop)
}

/// Lines in this format for a subscriber of the host's own, which also does the filtering.
///
/// ```
/// use neuroflow_telemetry::logs::{self, LogFormat};
/// use tracing_subscriber::layer::SubscriberExt;
/// let lines = logs::layer(LogFormat::Json, std::io::stderr);
/// let subscriber = tracing_subscriber::registry().with(lines);
/// tracing::subscriber::with_default(subscriber, || tracing::info!(answer = 42, "hello"));
/// ```
pub fn layer<S, W>(format: LogFormat, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().event_format(format).with_ansi(false).with_writer(writer)
}

/// The installed subscriber: what is logged can be changed while the node runs. When it's dropped, at
/// the end of the process, what was logged is given [`LOG_FLUSH`] to be written.
///
/// ```
/// use neuroflow_telemetry::logs::{LogError, LogGuard};
/// fn be_quiet(logs: &LogGuard) -> Result<(), LogError> {
///     logs.refilter("warn")
/// }
/// ```
pub struct LogGuard {
    handle: reload::Handle<EnvFilter, Registry>,
    queue: Lines,
}

impl LogGuard {
    /// Logs by other directives from now on.
    ///
    /// # Errors
    /// The directives aren't valid, or the subscriber is gone.
    pub fn refilter(&self, directives: &str) -> Result<(), LogError> {
        Ok(self.handle.reload(filter(directives)?)?)
    }

    /// Counts the lines that were dropped, as [`LOG_LINES_DROPPED`].
    ///
    /// ```
    /// use neuroflow_telemetry::logs::LogGuard;
    /// use neuroflow_telemetry::{MetricError, Telemetry};
    /// fn count(logs: &LogGuard, telemetry: &Telemetry) -> Result<(), MetricError> {
    ///     logs.count(telemetry.instruments())
    /// }
    /// ```
    ///
    /// # Errors
    /// They are counted there already.
    pub fn count(&self, instruments: &Instruments) -> Result<(), MetricError> {
        let queue = self.queue.clone();
        #[expect(clippy::cast_precision_loss, reason = "a count of lines is far below 2^52")]
        instruments.read_counters(&LOG_LINES_DROPPED, move || vec![([], queue.dropped() as f64)])
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Who hasn't read by now doesn't hold the end up.
        let _unread = self.queue.flush(LOG_FLUSH);
    }
}

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGuard").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Why logging isn't as it should be.
///
/// ```
/// use neuroflow_telemetry::logs::{self, LogConfig, LogError};
/// let error = logs::init(&LogConfig::default().filter("agent=loudly")).unwrap_err();
/// assert!(matches!(error, LogError::Filter { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter isn't one.
    #[error("{directives:?} isn't a log filter, such as \"info,neuroflow::actor=debug\"")]
    Filter {
        /// The filter.
        directives: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// There is a global subscriber already.
    #[error("the process already has a log subscriber")]
    Installed(#[from] SetGlobalDefaultError),
    /// The subscriber that was installed is gone.
    #[error("the log filter can't be changed")]
    Gone(#[from] reload::Error),
    /// There is no thread to write the lines.
    #[error("the thread that writes the log can't be started")]
    Thread(#[source] io::Error),
}

/// What is logged unless the configuration says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Libraries that would report on the telemetry's own traffic, or repeat what the kernel says.
const QUIET: &str = "ractor=off,hyper=off,hyper_util=off,h2=off,tonic=off,tower=off,reqwest=off,\
                     opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off";

/// The directives, after those that silence libraries: a later one for the same target wins.
fn filter(directives: &str) -> Result<EnvFilter, LogError> {
    let all = format!("{QUIET},{directives}");
    EnvFilter::builder()
        .parse(all)
        .map_err(|source| LogError::Filter { directives: directives.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_silent_unless_they_are_named() {
        let shown = |directives| filter(directives).unwrap().to_string();
        assert!(shown("debug").contains("hyper=off"));
        let named = shown("debug,hyper=trace");
        assert!(named.contains("hyper=trace") && !named.contains("hyper=off"), "{named}");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = filter("agent=loudly").unwrap_err();
        assert!(error.to_string().contains("agent=loudly"));
    }
}
