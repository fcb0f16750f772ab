//! Tries what a level needs, before anybody depends on it.

use crate::{
    diagnosis::{Reason, Remedy},
    error::LaunchError,
    launcher::Launcher,
    level::{Layer, Level},
};

/// What this host says to one layer.
///
/// ```
/// use neuroflow_sandbox::{Finding, Layer, Reason, Remedy, Verdict};
///
/// let verdict = Verdict::Missing { reason: Reason::AppArmor, remedy: Remedy::AnotherHost };
/// assert!(!Finding { layer: Layer::UserNamespace, verdict }.is_available());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Which layer.
    pub layer: Layer,
    /// Whether it can be had.
    pub verdict: Verdict,
}

impl Finding {
    /// Whether the layer can be had.
    pub fn is_available(&self) -> bool {
        self.verdict == Verdict::Available
    }
}

/// Whether a layer can be had.
///
/// ```
/// use neuroflow_sandbox::{Layer, Verdict};
///
/// assert_ne!(Verdict::Available, Verdict::Unknown { behind: Layer::UserNamespace });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It was tried and works.
    Available,
    /// It was tried and doesn't work, or can't be tried.
    Missing {
        /// Why.
        reason: Reason,
        /// What helps.
        remedy: Remedy,
    },
    /// It could not be tried, because another layer has to work first.
    Unknown {
        /// That layer.
        behind: Layer,
    },
}

/// Examines this host with a launcher of its own. [`Launcher::examine`] does the same with one that
/// runs.
///
/// ```no_run
/// # async fn doc() -> Result<(), neuroflow_sandbox::LaunchError> {
/// use neuroflow_sandbox::{Level, examine};
///
/// for finding in examine(Level::Standard).await? {
///     println!("{}: {:?}", finding.layer, finding.verdict);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When no zygote can be started.
pub async fn examine(level: Level) -> Result<Vec<Finding>, LaunchError> {
    let launcher = Launcher::start_async().await?;
    launcher.examine(level).await
}
