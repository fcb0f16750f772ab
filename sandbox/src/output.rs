//! What a cell writes.

#[cfg(target_os = "linux")]
use crate::overlay::Overlay;
use crate::report::Report;

/// A piece of output, in the order in which it was read. Never empty.
///
/// ```
/// use neuroflow_sandbox::Output;
///
/// assert_ne!(Output::Stdout(b"a".to_vec()), Output::Stderr(b"a".to_vec()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes from standard output.
    Stdout(Vec<u8>),
    /// Bytes from standard error.
    Stderr(Vec<u8>),
}

/// Everything a cell wrote, and how it ended. As long as the profile's output limit allows, and no
/// longer.
///
/// ```no_run
/// # async fn doc(cell: neuroflow_sandbox::Running) {
/// let collected = cell.collect().await;
/// assert!(collected.report.is_success());
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub report: Report,
    /// What it wrote to the directory that it saw copy-on-write, if it had one.
    #[cfg(target_os = "linux")]
    pub overlay: Option<Overlay>,
}
