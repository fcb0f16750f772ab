//! The registry of one node's metrics: what is registered here is in the next scrape.

use std::collections::BTreeMap;
use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::family::Family;
use crate::instrument::{Counter, Gauge, Instrument, Metric, MetricError};
use crate::limits::MAX_SERIES;
use crate::metrics;

/// The door for whoever brings further metrics: servers that don't know the telemetry count for
/// themselves, and the one file that knows both registers their numbers here.
///
/// ```
/// use neuroflow_telemetry::{Counter, Gauge, Metric, Telemetry, TelemetryConfig};
/// const WARM: Metric<Gauge, 1> = Metric::gauge("neuroflow_warm_cells", "Warm cells.", ["level"]);
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// telemetry.instruments().read_gauges(&WARM, || vec![(["strict".to_owned()], 3.0)])?;
/// assert!(telemetry.render()?.contains("neuroflow_warm_cells{level=\"strict\"} 3"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Instruments {
    registry: Registry,
    folded: Family<Counter, 1>,
}

impl Instruments {
    pub(crate) fn new() -> Result<Self, MetricError> {
        let registry = Registry::new();
        let folded = add(&registry, &metrics::FOLDED, None)?;
        Ok(Self { registry, folded })
    }

    /// Registers a metric that is written where things happen.
    ///
    /// # Errors
    /// Says what is wrong with the description, or that there is one of this name.
    pub fn register<I: Instrument, const N: usize>(
        &self,
        metric: &Metric<I, N>,
    ) -> Result<Family<I, N>, MetricError> {
        let folded = (N > 0).then(|| self.folded.with([metric.name()]));
        add(&self.registry, metric, folded)
    }

    /// Registers gauges that are read at every scrape. `read` must be quick, and mustn't register;
    /// what it gives beyond [`MAX_SERIES`] is left out.
    ///
    /// # Errors
    /// As for [`register`](Self::register).
    pub fn read_gauges<const N: usize>(
        &self,
        metric: &Metric<Gauge, N>,
        read: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) -> Result<(), MetricError> {
        let metric = *metric;
        self.collect(vec![metric.described()?], move || gauges(&metric, &read()))
    }

    /// Registers counters that are counted elsewhere and read at every scrape, like
    /// [`read_gauges`](Self::read_gauges).
    ///
    /// # Errors
    /// As for [`register`](Self::register).
    pub fn read_counters<const N: usize>(
        &self,
        metric: &Metric<Counter, N>,
        read: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) -> Result<(), MetricError> {
        let metric = *metric;
        self.collect(vec![metric.described()?], move || counters(&metric, &read()))
    }

    /// Registers several metrics that are read together.
    pub(crate) fn collect(
        &self,
        descriptions: Vec<Desc>,
        read: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) -> Result<(), MetricError> {
        let names =
            descriptions.iter().map(|it| it.fq_name.as_str()).collect::<Vec<_>>().join(", ");
        self.registry
            .register(Box::new(AtScrape { descriptions, read }))
            .map_err(|source| MetricError::Refused { name: names.into(), source })
    }

    /// Everything in the Prometheus text format.
    pub(crate) fn render(&self) -> Result<String, RenderError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruments").finish_non_exhaustive()
    }
}

/// Why the metrics couldn't be rendered.
///
/// ```
/// fn explain(error: &neuroflow_telemetry::RenderError) -> String {
///     error.to_string()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// A metric can't be encoded.
    #[error("the metrics can't be encoded")]
    Encode(#[from] prometheus::Error),
    /// The text isn't UTF-8.
    #[error("the metrics aren't UTF-8")]
    Text(#[from] std::string::FromUtf8Error),
}

fn add<I: Instrument, const N: usize>(
    registry: &Registry,
    metric: &Metric<I, N>,
    folded: Option<Counter>,
) -> Result<Family<I, N>, MetricError> {
    let family = Family::new(metric, folded)?;
    registry
        .register(Box::new(family.clone()))
        .map_err(|source| MetricError::Refused { name: metric.name().into(), source })?;
    Ok(family)
}

/// Gauges with these values; of two with the same labels, the later. The description was checked
/// when it was registered, so that what can't be built here can only be left out.
pub(crate) fn gauges<const N: usize, S: AsRef<str> + Ord>(
    metric: &Metric<Gauge, N>,
    values: &[([S; N], f64)],
) -> Vec<MetricFamily> {
    let gauge = |(labels, value): (&[S; N], f64)| {
        let gauge = prometheus::Gauge::with_opts(metric.series(labels)).ok()?;
        gauge.set(value);
        Some(gauge.collect())
    };
    by_labels(values).into_iter().filter_map(gauge).flatten().collect()
}

/// Counters with these values, like [`gauges`].
pub(crate) fn counters<const N: usize, S: AsRef<str> + Ord>(
    metric: &Metric<Counter, N>,
    values: &[([S; N], f64)],
) -> Vec<MetricFamily> {
    let counter = |(labels, value): (&[S; N], f64)| {
        let counter = prometheus::Counter::with_opts(metric.series(labels)).ok()?;
        // A counter that is less than nothing is a mistake of whoever counts.
        counter.inc_by(value.max(0.0));
        Some(counter.collect())
    };
    by_labels(values).into_iter().filter_map(counter).flatten().collect()
}

/// Each set of labels once, and as many as one metric may have.
fn by_labels<const N: usize, S: Ord>(values: &[([S; N], f64)]) -> BTreeMap<&[S; N], f64> {
    values.iter().take(MAX_SERIES).map(|(labels, value)| (labels, *value)).collect()
}

/// Metrics that exist during a scrape only.
struct AtScrape<F> {
    descriptions: Vec<Desc>,
    read: F,
}

impl<F: Fn() -> Vec<MetricFamily> + Send + Sync> Collector for AtScrape<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.read)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::Histogram;

    const CELLS: Metric<Gauge, 1> = Metric::gauge("cells", "Cells.", ["level"]);

    #[test]
    fn a_name_is_registered_once() {
        let instruments = Instruments::new().unwrap();
        instruments.register(&CELLS).unwrap();
        let again = instruments.register(&CELLS);
        assert!(matches!(again, Err(MetricError::Refused { .. })));
        let read = instruments.read_gauges(&CELLS, Vec::new);
        assert!(matches!(read, Err(MetricError::Refused { .. })));
    }

    #[test]
    fn what_is_read_at_scrape_is_what_it_is_at_that_moment() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        const TASKS: Metric<Counter, 0> = Metric::counter("tasks_total", "Tasks.", []);
        let instruments = Instruments::new().unwrap();
        let read = || vec![([], f64::from(COUNT.load(Ordering::Relaxed)))];
        instruments.read_counters(&TASKS, read).unwrap();
        COUNT.store(2, Ordering::Relaxed);
        assert!(instruments.render().unwrap().contains("tasks_total 2\n"));
        COUNT.store(5, Ordering::Relaxed);
        assert!(instruments.render().unwrap().contains("tasks_total 5\n"));
    }

    #[test]
    fn the_same_labels_twice_are_one_series() {
        let instruments = Instruments::new().unwrap();
        let twice = || vec![(["a".to_owned()], 1.0), (["a".to_owned()], 2.0)];
        instruments.read_gauges(&CELLS, twice).unwrap();
        let text = instruments.render().unwrap();
        assert_eq!(text.matches("cells{").count(), 1, "{text}");
    }

    #[test]
    fn a_nan_does_not_spoil_a_histogram() {
        const WAITS: Metric<Histogram, 0> = Metric::histogram("waits", "Waits.", [], &[1.0]);
        let instruments = Instruments::new().unwrap();
        let waits = instruments.register(&WAITS).unwrap().with([]);
        waits.observe(f64::NAN);
        waits.observe(0.5);
        assert!(instruments.render().unwrap().contains("waits_sum 0.5\n"));
    }
}
