//! What stands in for Linux's own parts where there is no Linux: system call lists and the escape suite,
//! which can't exist there, and inputs in memory. The launcher is [`crate::portable`].

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

        pub(crate) fn bytes(&self) -> &[u8] {
            &self.bytes
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

    use crate::{
        error::LauncherError,
        escape::{Attack, Attempt, Comparison, SuiteError},
        launcher::Launcher,
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
        /// Always: what is to be attacked isn't there.
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
