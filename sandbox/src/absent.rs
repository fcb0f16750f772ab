//! Launcher and cell where there is no Linux: they have the same methods and can't exist.

/// Stands in for the module of that name.
pub(crate) mod running {
    use std::convert::Infallible;

    pub use crate::output::{Collected, Output};
    use crate::report::Report;

    /// A running program and everything it has started. Needs Linux.
    ///
    /// ```no_run
    /// # async fn doc(cell: neuroflow_sandbox::Running) {
    /// println!("{:?}", cell.finish().await.end);
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct Running {
        pub(super) never: Infallible,
    }

    /// The standard input of a program that runs. Needs Linux.
    ///
    /// ```no_run
    /// async fn greet(mut stdin: neuroflow_sandbox::CellInput) -> std::io::Result<()> {
    ///     stdin.write(b"hello\n").await
    /// }
    /// ```
    #[derive(Debug)]
    pub struct CellInput {
        never: Infallible,
    }

    #[expect(clippy::unused_async, reason = "the methods of the real one are asynchronous")]
    impl CellInput {
        /// Writes all of it.
        ///
        /// # Errors
        ///
        /// None, as there is no program.
        pub async fn write(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
            match self.never {}
        }
    }

    #[expect(clippy::unused_async, reason = "the methods of the real one are asynchronous")]
    impl Running {
        /// The next piece of output.
        pub async fn next(&mut self) -> Option<Output> {
            match self.never {}
        }

        /// Ends the cell.
        pub fn kill(&mut self) {
            match self.never {}
        }

        /// Waits until the program has ended.
        pub async fn exit(&mut self) -> Option<crate::report::End> {
            match self.never {}
        }

        /// The standard input of an interactive program.
        pub fn take_stdin(&mut self) -> Option<CellInput> {
            match self.never {}
        }

        /// Whether the cell was made ahead.
        pub fn is_prepared(&self) -> bool {
            match self.never {}
        }

        /// Waits until the whole cell is gone.
        pub async fn finish(self) -> Report {
            match self.never {}
        }

        /// As [`Running::finish`], but ends the cell when `deadline` completes.
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
pub(crate) mod input {
    use std::sync::Arc;

    use crate::errno::Errno;

    /// Bytes for the standard input of any number of programs. Clones share the bytes.
    ///
    /// ```
    /// let input = neuroflow_sandbox::SealedInput::new(b"hello")?;
    /// assert_eq!(input.len(), 5);
    /// # Ok::<(), neuroflow_sandbox::InputError>(())
    /// ```
    #[derive(Debug, Clone)]
    pub struct SealedInput {
        bytes: Arc<[u8]>,
    }

    /// Why bytes didn't become an input.
    ///
    /// ```
    /// let error = neuroflow_sandbox::InputError { source: neuroflow_sandbox::Errno::from_raw(12) };
    /// assert_eq!(error.to_string(), "the host has no room for the input");
    /// ```
    #[derive(Debug, thiserror::Error)]
    #[error("the host has no room for the input")]
    pub struct InputError {
        /// The kernel's answer.
        #[source]
        pub source: Errno,
    }

    impl SealedInput {
        /// Copies the bytes, once.
        ///
        /// # Errors
        ///
        /// None.
        pub fn new(bytes: &[u8]) -> Result<Self, InputError> {
            Ok(Self { bytes: bytes.into() })
        }

        /// How many bytes there are.
        pub fn len(&self) -> usize {
            self.bytes.len()
        }

        /// Whether there are none.
        pub fn is_empty(&self) -> bool {
            self.bytes.is_empty()
        }
    }

    impl PartialEq for SealedInput {
        /// The same input, not only the same bytes.
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.bytes, &other.bytes)
        }
    }

    impl Eq for SealedInput {}
}

/// Stands in for the module of that name: there are no filters, and no lists for them.
pub(crate) mod seccomp {
    use std::convert::Infallible;

    /// A list of allowed system calls. Needs Linux.
    ///
    /// ```
    /// fn is_had(profile: Option<neuroflow_sandbox::SeccompProfile>) -> bool {
    ///     profile.is_some()
    /// }
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SeccompProfile {
        pub(crate) never: Infallible,
    }

    /// What is wrong with a list.
    ///
    /// ```
    /// let error: Option<neuroflow_sandbox::SeccompError> = None;
    /// assert!(error.is_none());
    /// ```
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum SeccompError {}

    /// Why a list became no filter.
    ///
    /// ```
    /// let error: Option<neuroflow_sandbox::FilterError> = None;
    /// assert!(error.is_none());
    /// ```
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum FilterError {}

    /// Why a directory can't keep filters.
    ///
    /// ```
    /// let error: Option<neuroflow_sandbox::CacheError> = None;
    /// assert!(error.is_none());
    /// ```
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum CacheError {}
}

/// Stands in for the module of that name.
pub(crate) mod escape {
    use std::convert::Infallible;

    use super::launcher::Launcher;
    use crate::{
        error::LauncherError,
        escape::{Attack, Attempt, Comparison, SuiteError},
        level::Level,
        profile::Profile,
    };

    /// The attempts, with targets for them on this host. Needs Linux.
    ///
    /// ```no_run
    /// assert_eq!(neuroflow_sandbox::escape::Suite::attempts().count(), 0);
    /// ```
    #[derive(Debug)]
    pub struct Suite {
        never: Infallible,
    }

    #[expect(clippy::unused_async, reason = "the methods of the real one are asynchronous")]
    impl Suite {
        /// Refuses.
        ///
        /// # Errors
        ///
        /// Always, as there is no launcher.
        pub fn prepare(_launcher: &Launcher) -> Result<Self, SuiteError> {
            Err(LauncherError::NotLinux.into())
        }

        /// Attacks on terms of a profile.
        #[must_use]
        pub fn on_terms_of(self, _profile: &Profile) -> Self {
            match self.never {}
        }

        /// There are none.
        pub fn attempts() -> impl Iterator<Item = &'static Attempt> {
            std::iter::empty()
        }

        /// Makes attempts.
        ///
        /// # Errors
        ///
        /// None, as there is no suite.
        pub async fn run(
            &mut self,
            _level: Level,
            _wanted: impl Fn(&Attempt) -> bool,
            _each: impl FnMut(&Attack),
        ) -> Result<Vec<Attack>, SuiteError> {
            match self.never {}
        }

        /// Makes the quick attempts.
        ///
        /// # Errors
        ///
        /// None, as there is no suite.
        pub async fn hold(&mut self, _level: Level) -> Result<(), SuiteError> {
            match self.never {}
        }

        /// Makes the attempts in a peer's cells.
        ///
        /// # Errors
        ///
        /// None, as there is no suite.
        pub async fn compare(&mut self) -> Result<Option<Vec<Comparison>>, SuiteError> {
            match self.never {}
        }
    }
}

/// Stands in for the module of that name.
pub(crate) mod launcher {
    use std::convert::Infallible;

    use super::running::Running;
    use crate::{
        doctor::Finding,
        error::{LaunchError, LauncherError},
        interpreter::Interpreter,
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
        ) -> Result<Running, LaunchError> {
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

        /// As [`Launcher::start`].
        ///
        /// # Errors
        ///
        /// [`LauncherError::NotLinux`].
        pub async fn start_async() -> Result<Self, LauncherError> {
            Self::start()
        }

        /// Keeps cells ready.
        ///
        /// # Errors
        ///
        /// None, as there is no launcher.
        pub fn keep_warm(&self, _profile: &Profile, _warm: Warm) -> Result<(), LaunchError> {
            match self.never {}
        }

        /// Keeps forks of an interpreter ready.
        ///
        /// # Errors
        ///
        /// None, as there is no launcher.
        pub fn keep_interpreter_warm(
            &self,
            _profile: &Profile,
            _interpreter: &Interpreter,
            _warm: Warm,
        ) -> Result<(), LaunchError> {
            match self.never {}
        }

        pub(crate) async fn rehearse(&self, _profile: &Profile) -> Result<(), LaunchError> {
            match self.never {}
        }
    }

    /// Does work that there is none of.
    pub(crate) async fn apart<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, LauncherError> + Send + 'static,
    ) -> Result<T, LauncherError> {
        std::future::ready(work()).await
    }

    /// How many cells are kept ready.
    ///
    /// ```
    /// let warm = neuroflow_sandbox::Warm { least: 2, most: 16 };
    /// assert!(warm.least <= warm.most);
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Warm {
        /// As many wait at least.
        pub least: u16,
        /// Never more than this.
        pub most: u16,
    }
}
