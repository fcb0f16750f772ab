//! Launcher and cell where there is no Linux: they have the same methods and can't exist.

/// Stands in for the module of that name.
pub(crate) mod cell {
    use std::convert::Infallible;

    pub use crate::output::{Collected, Output};
    use crate::report::Report;

    /// A running program and everything it has started. Needs Linux.
    ///
    /// ```no_run
    /// # async fn doc(cell: neuroflow_sandbox::Cell) {
    /// println!("{:?}", cell.finish().await.end);
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct Cell {
        pub(super) never: Infallible,
    }

    #[expect(clippy::unused_async, reason = "the methods of the real one are asynchronous")]
    impl Cell {
        /// The next piece of output.
        pub async fn next(&mut self) -> Option<Output> {
            match self.never {}
        }

        /// Ends the cell.
        pub fn kill(&mut self) {
            match self.never {}
        }

        /// Waits until the whole cell is gone.
        pub async fn finish(self) -> Report {
            match self.never {}
        }

        /// As [`Cell::finish`], but ends the cell when `deadline` completes.
        pub async fn finish_by(self, _deadline: impl Future<Output = ()>) -> Report {
            match self.never {}
        }

        /// Waits until the whole cell is gone and keeps its output.
        pub async fn collect(self) -> Collected {
            match self.never {}
        }
    }
}

/// Stands in for the module of that name.
pub(crate) mod launcher {
    use std::convert::Infallible;

    use super::cell::Cell;
    use crate::{
        doctor::Finding,
        error::{LaunchError, LauncherError},
        level::Level,
        profile::Profile,
        program::Program,
    };

    /// Starts programs in cells. Needs Linux.
    ///
    /// ```no_run
    /// # use neuroflow_sandbox::{Launcher, LauncherError};
    /// assert!(matches!(Launcher::start(), Err(LauncherError::NotLinux)));
    /// ```
    #[derive(Debug, Clone)]
    pub struct Launcher {
        never: Infallible,
    }

    #[expect(clippy::unused_async, reason = "the methods of the real one are asynchronous")]
    impl Launcher {
        /// Refuses.
        ///
        /// # Errors
        ///
        /// Always [`LauncherError::NotLinux`].
        pub fn start() -> Result<Self, LauncherError> {
            Err(LauncherError::NotLinux)
        }

        /// Starts a program in a cell.
        ///
        /// # Errors
        ///
        /// None, as there is no launcher.
        pub async fn launch(
            &self,
            _profile: &Profile,
            _program: &Program,
        ) -> Result<Cell, LaunchError> {
            match self.never {}
        }

        /// Tries on this host what a level needs.
        ///
        /// # Errors
        ///
        /// None, as there is no launcher.
        pub async fn examine(&self, _level: Level) -> Result<Vec<Finding>, LaunchError> {
            match self.never {}
        }
    }
}
