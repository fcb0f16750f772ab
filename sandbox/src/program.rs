//! What runs in a cell: a path or a name, its arguments, its standard input.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// A program with its arguments.
///
/// A name without a slash is looked up in the cell's `PATH`, inside the cell. Nothing is checked
/// before the launch.
///
/// ```
/// use neuroflow_sandbox::Program;
///
/// let sort = Program::new("sort").arg("--reverse").stdin("b\na\n");
/// assert_eq!(sort.path(), "sort");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: OsString,
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    directory: Option<PathBuf>,
}

impl Program {
    /// A program by path (`/bin/sh`) or by name (`sh`).
    pub fn new(path: impl Into<OsString>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), stdin: Vec::new(), directory: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    ///
    /// ```
    /// # use neuroflow_sandbox::Program;
    /// assert_eq!(Program::new("echo").args(["a", "b"]).arguments().len(), 2);
    /// ```
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// What the program reads from standard input; nothing if not called.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The directory the program starts in, as the cell sees it: `/work`, or `/` at
    /// [`crate::Level::Minimal`].
    ///
    /// ```
    /// # use neuroflow_sandbox::Program;
    /// let list = Program::new("ls").directory("/tmp");
    /// ```
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The path or name as given.
    pub fn path(&self) -> &OsStr {
        &self.path
    }

    /// The arguments after the program's own name.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    pub(crate) fn input(&self) -> &[u8] {
        &self.stdin
    }

    pub(crate) fn start_directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}
