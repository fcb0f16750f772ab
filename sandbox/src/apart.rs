//! Work that blocks, on a thread of the runtime's that is there for that.

use crate::error::LauncherError;

/// Does the work there, and waits for it without a thread.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LauncherError> + Send + 'static,
) -> Result<T, LauncherError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopping) => Err(LauncherError::Spawn { source: std::io::Error::other(stopping) }),
    }
}
