//! The instruments of one metric by their label values, with a bound on how many there are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::instrument::{Counter, Instrument, Metric, MetricError};
use crate::limits::{MAX_LABEL_BYTES, MAX_LABEL_VALUES, MAX_SERIES};

/// The label value that stands for all those beyond the bound.
///
/// ```
/// assert_eq!(neuroflow_telemetry::OTHER, "_other");
/// ```
pub const OTHER: &str = "_other";

/// All instruments of one metric. [`with`](Self::with) gives the one for some label values; keep
/// it where it's used often, because that is an atomic addition and this is a look-up.
///
/// ```
/// use neuroflow_telemetry::{Counter, Metric, Telemetry, TelemetryConfig};
/// const TASKS: Metric<Counter, 1> = Metric::counter("neuroflow_tasks_total", "Tasks.", ["agent"]);
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let tasks = telemetry.instruments().register(&TASKS)?;
/// tasks.with(["researcher"]).increment();
/// assert!(telemetry.render()?.contains("neuroflow_tasks_total{agent=\"researcher\"} 1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Family<I: Instrument, const N: usize>(Arc<Shared<I, N>>);

#[derive(Debug)]
struct Shared<I, const N: usize> {
    metric: Metric<I, N>,
    description: Desc,
    /// Counts look-ups that ended at [`OTHER`]; the count of itself has none.
    folded: Option<Counter>,
    known: RwLock<Known<I, N>>,
}

#[derive(Debug)]
struct Known<I, const N: usize> {
    series: HashMap<Vec<u8>, I>,
    values: [HashSet<Box<str>>; N],
}

impl<I: Instrument, const N: usize> Family<I, N> {
    pub(crate) fn new(metric: &Metric<I, N>, folded: Option<Counter>) -> Result<Self, MetricError> {
        let description = metric.described()?;
        let known =
            Known { series: HashMap::new(), values: std::array::from_fn(|_| HashSet::new()) };
        let known = RwLock::new(known);
        let family = Self(Arc::new(Shared { metric: *metric, description, folded, known }));
        if N == 0 {
            // Its one series exists from the start, so that a rate has a zero to start from.
            family.with([""; N]);
        }
        Ok(family)
    }

    /// The instrument for these label values, in the order of the metric's labels.
    ///
    /// A value beyond [`MAX_LABEL_VALUES`] of its label, or longer than [`MAX_LABEL_BYTES`], is
    /// taken for [`OTHER`]; beyond [`MAX_SERIES`] of the metric, all of them are.
    #[expect(clippy::missing_panics_doc, reason = "the description was checked in `new`")]
    pub fn with(&self, values: [&str; N]) -> I {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(instrument) = known.series.get(&key(&values)) {
            return instrument.clone();
        }
        let within = known.fold(values);
        if within != values
            && let Some(folded) = &self.0.folded
        {
            folded.increment();
        }
        if let Some(instrument) = known.series.get(&key(&within)) {
            return instrument.clone();
        }
        drop(known);
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have taken the last places meanwhile.
        let within = known.fold(within);
        let instrument = known.series.entry(key(&within)).or_insert_with(|| {
            let metric = &self.0.metric;
            #[expect(clippy::expect_used, reason = "any text can be a label's value")]
            I::make(metric.series(&within), metric.buckets()).expect("a description was checked")
        });
        let instrument = instrument.clone();
        for (seen, value) in known.values.iter_mut().zip(within) {
            if !seen.contains(value) {
                seen.insert(value.into());
            }
        }
        instrument
    }
}

impl<I: Instrument, const N: usize> Collector for Family<I, N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.description]
    }

    /// A family of one series each; the registry joins those of one name.
    fn collect(&self) -> Vec<MetricFamily> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.series.values().flat_map(I::families).collect()
    }
}

impl<I, const N: usize> Known<I, N> {
    /// The values, with those beyond a bound replaced.
    fn fold<'a>(&self, mut values: [&'a str; N]) -> [&'a str; N] {
        for (seen, value) in self.values.iter().zip(&mut values) {
            // One place is kept for the replacement itself.
            let full = seen.len() >= MAX_LABEL_VALUES - 1 && !seen.contains(*value);
            if full || value.len() > MAX_LABEL_BYTES {
                *value = OTHER;
            }
        }
        if self.series.len() >= MAX_SERIES - 1 && !self.series.contains_key(&key(&values)) {
            values = [OTHER; N];
        }
        values
    }
}

/// The values in one piece; no UTF-8 text contains the byte that separates them.
fn key(values: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(values.iter().map(|value| value.len() + 1).sum());
    for value in values {
        key.extend_from_slice(value.as_bytes());
        key.push(0xff);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: Metric<Counter, 2> = Metric::counter("tasks_total", "Tasks.", ["agent", "tool"]);
    const FOLDED: Metric<Counter, 0> = Metric::counter("folded_total", "Folded.", []);

    fn family() -> (Family<Counter, 2>, Counter) {
        let folded = Family::new(&FOLDED, None).unwrap().with([]);
        (Family::new(&TASKS, Some(folded.clone())).unwrap(), folded)
    }

    #[test]
    fn the_same_values_lead_to_the_same_instrument() {
        let (tasks, folded) = family();
        tasks.with(["a", "bc"]).add(2);
        tasks.with(["ab", "c"]).add(1);
        assert_eq!(tasks.with(["a", "bc"]).get(), 2);
        assert_eq!(folded.get(), 0);
    }

    #[test]
    fn values_beyond_the_bound_are_counted_together() {
        let (tasks, folded) = family();
        for n in 0..1_000 {
            tasks.with([&n.to_string(), "x"]).increment();
        }
        assert_eq!(tasks.with([OTHER, "x"]).get(), 1_000 - (MAX_LABEL_VALUES as u64 - 1));
        assert_eq!(folded.get(), tasks.with([OTHER, "x"]).get());
        // Those that were there before the bound go on.
        assert_eq!(tasks.with(["0", "x"]).get(), 1);
    }

    #[test]
    fn the_product_of_the_labels_is_bounded_too() {
        let (tasks, _) = family();
        for a in 0..60 {
            for b in 0..60 {
                tasks.with([&a.to_string(), &b.to_string()]).increment();
            }
        }
        let known = tasks.0.known.read().unwrap();
        assert_eq!(known.series.len(), MAX_SERIES);
        assert_eq!(known.series.values().map(Counter::get).sum::<u64>(), 3_600);
    }

    #[test]
    fn a_long_value_is_folded() {
        let (tasks, folded) = family();
        tasks.with([&"x".repeat(MAX_LABEL_BYTES + 1), "y"]).increment();
        assert_eq!(tasks.with([OTHER, "y"]).get(), 1);
        assert_eq!(folded.get(), 1);
    }
}
