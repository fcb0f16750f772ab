//! The port for whoever counts cells. The sandbox doesn't know the telemetry.

use std::{fmt, time::Duration};

use crate::{
    exec::How,
    level::{Layer, Level},
    profile::Profile,
    report::Report,
};

/// Counts what happens to cells. It must not block: it's called from the cells' own actors.
///
/// ```
/// use neuroflow_sandbox::{CellMeter, How, Report, Uncounted};
///
/// #[derive(Debug)]
/// struct Printer;
///
/// impl CellMeter for Printer {
///     fn ended(&self, how: How, report: &Report) {
///         println!("{}: {}", how.code(), report.level);
///     }
/// }
/// let _meters: [Box<dyn CellMeter>; 2] = [Box::new(Printer), Box::new(Uncounted)];
/// ```
pub trait CellMeter: Send + Sync + fmt::Debug + 'static {
    /// A program runs; it took so long from the request.
    fn started(&self, _level: Level, _prepared: bool, _took: Duration) {}

    /// The program of this command line runs in the cell of this actor, under this profile.
    fn began(&self, _cell: &str, _profile: &Profile, _command: &[&str]) {}

    /// The cell of this actor is gone. There is no report if it was ended because whoever asked for
    /// it has gone, or because the sandbox stopped.
    fn gone(&self, _cell: &str, _profile: &Profile, _end: Option<(How, &Report)>) {}

    /// A cell has ended. Denials, usage and layers that were missing are in the report.
    fn ended(&self, _how: How, _report: &Report) {}

    /// There was no cell, for the reason with this code.
    fn refused(&self, _code: &str) {}

    /// So many cells run, and so many requests wait.
    fn load(&self, _running: usize, _waiting: usize) {}

    /// A cell does without a layer of its level.
    fn degraded(&self, _level: Level, _layer: Layer) {}
}

/// Counts nothing.
///
/// ```
/// use neuroflow_sandbox::{CellMeter, Uncounted};
/// Uncounted.load(1, 0);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Uncounted;

impl CellMeter for Uncounted {}
