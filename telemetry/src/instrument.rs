//! Instruments and what describes them: a name, a help text, labels, and for histograms buckets.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, Opts};

/// The description of a metric: an instrument `I` with `N` labels. Usually a constant in a table.
///
/// ```
/// use neuroflow_telemetry::{Counter, Metric};
/// const TASKS: Metric<Counter, 2> =
///     Metric::counter("neuroflow_tasks_total", "Tasks that ended.", ["agent", "outcome"]);
/// assert_eq!(TASKS.name(), "neuroflow_tasks_total");
/// ```
pub struct Metric<I, const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    buckets: &'static [f64],
    instrument: PhantomData<fn() -> I>,
}

impl<const N: usize> Metric<Counter, N> {
    /// A number that only grows. Its name ends in `_total`.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        Self { name, help, labels, buckets: &[], instrument: PhantomData }
    }
}

impl<const N: usize> Metric<Gauge, N> {
    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self { name, help, labels, buckets: &[], instrument: PhantomData }
    }
}

impl<const N: usize> Metric<Histogram, N> {
    /// A distribution over `buckets`, the upper bounds in rising order.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        buckets: &'static [f64],
    ) -> Self {
        Self { name, help, labels, buckets, instrument: PhantomData }
    }
}

impl<I, const N: usize> Metric<I, N> {
    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The help text.
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// The names of the labels.
    pub const fn labels(&self) -> &[&'static str; N] {
        &self.labels
    }

    /// The upper bounds of the buckets; empty unless it's a histogram.
    pub const fn buckets(&self) -> &'static [f64] {
        self.buckets
    }

    /// One series: its labels are constant in the backend, because the backend's own sets of
    /// series find them by a hash that takes `("a", "bc")` for `("ab", "c")`.
    pub(crate) fn series<S: AsRef<str>>(&self, values: &[S; N]) -> Opts {
        let mut opts = Opts::new(self.name, self.help);
        for (label, value) in self.labels.iter().zip(values) {
            opts = opts.const_label(*label, value.as_ref());
        }
        opts
    }
}

impl<I: Instrument, const N: usize> Metric<I, N> {
    /// The description as the registry wants it, or what is wrong with it.
    pub(crate) fn described(&self) -> Result<Desc, MetricError> {
        self.check()?;
        let labels = self.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
            .map_err(|source| MetricError::Refused { name: self.name.into(), source })
    }

    fn check(&self) -> Result<(), MetricError> {
        let name = self.name;
        if !is_name(name) {
            return Err(MetricError::Name { name });
        }
        if name.ends_with("_total") != I::COUNTS {
            return Err(MetricError::Suffix { name });
        }
        if self.help.is_empty() {
            return Err(MetricError::Help { name });
        }
        let taken = |at: usize| self.labels[..at].contains(&self.labels[at]);
        for (at, &label) in self.labels.iter().enumerate() {
            if !is_name(label) || RESERVED_LABELS.contains(&label) || taken(at) {
                return Err(MetricError::Label { name, label });
            }
        }
        let rising = self.buckets.is_sorted_by(|a, b| a < b);
        let finite = self.buckets.iter().all(|bound| bound.is_finite());
        if !rising || !finite || self.buckets.is_empty() == I::HAS_BUCKETS {
            return Err(MetricError::Buckets { name });
        }
        Ok(())
    }
}

// Derived, these would ask the same of the instrument.
impl<I, const N: usize> Copy for Metric<I, N> {}

impl<I, const N: usize> Clone for Metric<I, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, const N: usize> fmt::Debug for Metric<I, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Metric");
        text.field("name", &self.name).field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// A kind of instrument: [`Counter`], [`Gauge`] or [`Histogram`].
///
/// ```
/// use neuroflow_telemetry::{Counter, Gauge, Histogram, Instrument};
/// fn is_instrument<I: Instrument>() {}
/// is_instrument::<Counter>();
/// is_instrument::<Gauge>();
/// is_instrument::<Histogram>();
/// ```
pub trait Instrument: Backend {}

impl Instrument for Counter {}
impl Instrument for Gauge {}
impl Instrument for Histogram {}

/// How an instrument is made. It can be neither named nor implemented elsewhere; what it asks for
/// is there through [`Instrument`].
///
/// ```
/// fn shown<I: neuroflow_telemetry::Instrument>(instrument: &I) -> String {
///     format!("{instrument:?}")
/// }
/// ```
#[expect(unnameable_types, reason = "it seals `Instrument` and keeps the backend out of the API")]
pub trait Backend: Clone + fmt::Debug + Send + Sync + 'static {
    #[doc(hidden)]
    const COUNTS: bool = false;
    #[doc(hidden)]
    const HAS_BUCKETS: bool = false;
    #[doc(hidden)]
    fn make(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self>;
    #[doc(hidden)]
    fn families(&self) -> Vec<MetricFamily>;
}

/// A number that only grows.
///
/// ```
/// use neuroflow_telemetry::{Counter, Metric, Telemetry, TelemetryConfig};
/// const TASKS: Metric<Counter, 0> = Metric::counter("neuroflow_tasks_total", "Tasks.", []);
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let tasks = telemetry.instruments().register(&TASKS)?.with([]);
/// tasks.add(2);
/// tasks.increment();
/// assert_eq!(tasks.get(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counter(prometheus::IntCounter);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.inc_by(amount);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.inc();
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Backend for Counter {
    const COUNTS: bool = true;

    fn make(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
        prometheus::IntCounter::with_opts(opts).map(Self)
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

/// A number that goes up and down.
///
/// ```
/// use neuroflow_telemetry::{Gauge, Metric, Telemetry, TelemetryConfig};
/// const CELLS: Metric<Gauge, 1> = Metric::gauge("neuroflow_cells", "Cells.", ["level"]);
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let strict = telemetry.instruments().register(&CELLS)?.with(["strict"]);
/// strict.add(2.0);
/// strict.add(-1.0);
/// assert_eq!(strict.get(), 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gauge(prometheus::Gauge);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: f64) {
        self.0.add(amount);
    }

    /// Its value.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

impl Backend for Gauge {
    fn make(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
        prometheus::Gauge::with_opts(opts).map(Self)
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

/// A distribution.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_telemetry::{Histogram, Metric, Telemetry, TelemetryConfig, conventions::buckets};
/// const CALLS: Metric<Histogram, 1> = Metric::histogram(
///     "gen_ai_execute_tool_duration_seconds",
///     "Duration of tool calls.",
///     ["gen_ai_tool_name"],
///     buckets::REQUEST,
/// );
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let python = telemetry.instruments().register(&CALLS)?.with(["python"]);
/// python.record(Duration::from_millis(120));
/// assert_eq!(python.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Histogram(prometheus::Histogram);

impl Histogram {
    /// Adds an observation.
    pub fn observe(&self, value: f64) {
        // One NaN would make the sum NaN for ever.
        if !value.is_nan() {
            self.0.observe(value);
        }
    }

    /// Adds a duration in seconds.
    pub fn record(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    /// How many observations it has seen.
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

impl Backend for Histogram {
    const HAS_BUCKETS: bool = true;

    fn make(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self> {
        let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
        prometheus::Histogram::with_opts(opts).map(Self)
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

/// Why a metric wasn't registered.
///
/// ```
/// use neuroflow_telemetry::{Gauge, Metric, MetricError, Telemetry, TelemetryConfig};
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let wrong: Metric<Gauge, 0> = Metric::gauge("neuroflow_cells_total", "Cells.", []);
/// let refused = telemetry.instruments().register(&wrong);
/// assert!(matches!(refused, Err(MetricError::Suffix { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Its name isn't lower-case words joined by `_`.
    #[error("{name:?} isn't a metric name: lower-case words joined by '_'")]
    Name {
        /// The name.
        name: &'static str,
    },
    /// A counter's name ends in `_total`, and no other's does.
    #[error("the name of {name} doesn't fit: a counter ends in '_total', and nothing else does")]
    Suffix {
        /// The name.
        name: &'static str,
    },
    /// It has no help text.
    #[error("{name} has no help text")]
    Help {
        /// The name.
        name: &'static str,
    },
    /// A label's name isn't lower-case words joined by `_`, is reserved, or is there twice.
    #[error("{label:?} can't be a label of {name}")]
    Label {
        /// The metric's name.
        name: &'static str,
        /// The label.
        label: &'static str,
    },
    /// A histogram has no buckets, or they don't rise.
    #[error("the buckets of {name} don't rise, or there are none")]
    Buckets {
        /// The name.
        name: &'static str,
    },
    /// There is already a metric of this name.
    #[error("{name} can't be registered")]
    Refused {
        /// The name.
        name: Cow<'static, str>,
        /// Why.
        #[source]
        source: prometheus::Error,
    },
}

/// Labels that Prometheus itself sets.
const RESERVED_LABELS: &[&str] = &["le", "quantile", "job", "instance"];

fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !word.is_empty() && word.bytes().all(plain)
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('_').all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["up", "neuroflow_actors", "http_server_request_duration_seconds", "a2a_x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Up", "_a", "a_", "a__b", "a-b", "2a", "a.b", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn descriptions_are_checked() {
        let label = |labels| Metric::<Gauge, 2>::gauge("cells", "Cells.", labels).check();
        assert!(label(["level", "node"]).is_ok());
        assert!(matches!(label(["level", "level"]), Err(MetricError::Label { .. })));
        assert!(matches!(label(["level", "le"]), Err(MetricError::Label { .. })));
        let help = Metric::<Gauge, 0>::gauge("cells", "", []).check();
        assert!(matches!(help, Err(MetricError::Help { .. })));
        let counter = Metric::<Counter, 0>::counter("cells", "Cells.", []).check();
        assert!(matches!(counter, Err(MetricError::Suffix { .. })));
        for buckets in [&[][..], &[1.0, 1.0], &[2.0, 1.0], &[f64::NAN], &[f64::INFINITY]] {
            let histogram = Metric::<Histogram, 0>::histogram("waits", "Waits.", [], buckets);
            assert!(matches!(histogram.check(), Err(MetricError::Buckets { .. })), "{buckets:?}");
        }
    }
}
