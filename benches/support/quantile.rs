//! Samples and their quantiles.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a sample counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Nanoseconds: fewer are better.
    Nanoseconds,
    /// Bytes: fewer are better.
    Bytes,
    /// Operations in a second: more are better.
    PerSecond,
}

impl Unit {
    /// How many times as costly `ours` is as `theirs`; above 1 is dearer, whatever the unit.
    pub(crate) fn cost(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::Nanoseconds | Self::Bytes => ours / theirs,
            Self::PerSecond => theirs / ours,
        }
    }

    /// The value for people.
    pub(crate) fn show(self, value: f64) -> String {
        let (scales, value): (&[(f64, &str)], f64) = match self {
            Self::Nanoseconds => (&[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")], value),
            Self::Bytes => (&[(1_048_576.0, "MiB"), (1_024.0, "KiB"), (1.0, "B")], value),
            Self::PerSecond => (&[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")], value),
        };
        let fits = scales.iter().find(|(scale, _)| value.abs() >= *scale);
        let (scale, suffix) = fits.or(scales.last()).copied().unwrap_or((1.0, ""));
        let shown = value / scale;
        let digits = if shown.abs() >= 100.0 { 0 } else { 2 };
        format!("{shown:.digits$} {suffix}")
    }
}

/// The samples of one contestant, in one unit.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    unit: Unit,
    values: Vec<f64>,
}

impl Samples {
    pub(crate) fn new(unit: Unit) -> Self {
        Self { unit, values: Vec::new() }
    }

    /// One sample: `operations` took `took` together.
    pub(crate) fn took(&mut self, took: Duration, operations: usize) {
        let operations = count(operations);
        self.values.push(match self.unit {
            Unit::PerSecond => operations / took.as_secs_f64(),
            Unit::Nanoseconds | Unit::Bytes => took.as_secs_f64() * 1e9 / operations,
        });
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn unit(&self) -> Unit {
        self.unit
    }

    /// The quantiles; a figure without a sample is a mistake in the benchmark.
    pub(crate) fn quantiles(&self) -> Quantiles {
        assert!(!self.values.is_empty(), "a figure without a sample");
        assert!(self.values.iter().all(|value| value.is_finite()), "a sample isn't a number");
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        // Quantiles count from the good end: p99 is what all but the worst hundredth reach.
        if self.unit == Unit::PerSecond {
            sorted.reverse();
        }
        let at = |per_mille: usize| {
            let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
            sorted[rank - 1]
        };
        Quantiles {
            count: sorted.len(),
            best: at(0),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            worst: at(1000),
            mean: sorted.iter().sum::<f64>() / count(sorted.len()),
        }
    }
}

/// What is kept of samples. Each is the worst of the best so many.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: usize,
    pub(crate) best: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) worst: f64,
    pub(crate) mean: f64,
}

/// A count as a number to divide by.
pub(crate) fn count(number: usize) -> f64 {
    u32::try_from(number).map(f64::from).expect("fewer than 2^32 operations")
}
