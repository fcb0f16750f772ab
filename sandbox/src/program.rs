//! What runs in a cell: a path or a name, its arguments, its standard input.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::input::SealedInput;

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
    sealed: Option<SealedInput>,
    directory: Option<PathBuf>,
    interpreted: bool,
    interactive: bool,
}

impl Program {
    /// A program by path (`/bin/sh`) or by name (`sh`).
    pub fn new(path: impl Into<OsString>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            stdin: Vec::new(),
            sealed: None,
            directory: None,
            interpreted: false,
            interactive: false,
        }
    }

    /// Python text, as `python3 -I -B -c` runs it: apart from the environment and the user's own
    /// packages, and without leaving compiled files behind. It runs in a fork of a warm interpreter
    /// where one is kept for the profile (`Launcher::keep_interpreter_warm`), and in a new one
    /// otherwise.
    ///
    /// ```
    /// use neuroflow_sandbox::Program;
    ///
    /// let sum = Program::python("import sys; print(sum(map(int, sys.argv[1:])))").args(["1", "2"]);
    /// assert_eq!(sum.path(), "python3");
    /// ```
    pub fn python(text: impl Into<OsString>) -> Self {
        let program = Self::new("python3").args(["-I", "-B", "-c"]).arg(text);
        Self { interpreted: true, ..program }
    }

    /// A Python file of the cell, otherwise as [`Program::python`].
    ///
    /// ```
    /// use neuroflow_sandbox::Program;
    ///
    /// let script = Program::python_script("/work/report.py").arg("--short");
    /// ```
    pub fn python_script(path: impl Into<OsString>) -> Self {
        let program = Self::new("python3").args(["-I", "-B"]).arg(path);
        Self { interpreted: true, ..program }
    }

    /// The program of a command line. What has the form that [`Program::python`] and
    /// [`Program::python_script`] make is such a program.
    pub(crate) fn of_command<'a>(program: &str, arguments: impl Iterator<Item = &'a str>) -> Self {
        let mut made = Self::new(program).args(arguments);
        let given: Vec<&str> = made.arguments.iter().filter_map(|part| part.to_str()).collect();
        made.interpreted = program == "python3"
            && match given.as_slice() {
                ["-I", "-B", "-c", _, ..] => true,
                ["-I", "-B", script, ..] => !script.starts_with('-'),
                _ => false,
            };
        made
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

    /// What the program reads from standard input, as a file that is handed over without a copy;
    /// takes the place of [`Program::stdin`].
    ///
    /// ```
    /// # use neuroflow_sandbox::{Program, SealedInput};
    /// let input = SealedInput::new(b"a large data set")?;
    /// let (first, second) = (Program::new("wc").input(&input), Program::new("sort").input(&input));
    /// # Ok::<(), neuroflow_sandbox::InputError>(())
    /// ```
    #[must_use]
    pub fn input(mut self, input: &SealedInput) -> Self {
        self.sealed = Some(input.clone());
        self
    }

    /// Leaves standard input open: it's written while the program runs, through
    /// [`Running::take_stdin`](crate::Running::take_stdin). Takes the place of [`Program::stdin`].
    ///
    /// ```
    /// use neuroflow_sandbox::Program;
    ///
    /// let server = Program::new("cat").interactive();
    /// assert_eq!(server.path(), "cat");
    /// ```
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
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

    pub(crate) fn is_interpreted(&self) -> bool {
        self.interpreted
    }

    pub(crate) fn is_interactive(&self) -> bool {
        self.interactive
    }

    pub(crate) fn piped_input(&self) -> &[u8] {
        &self.stdin
    }

    pub(crate) fn sealed_input(&self) -> Option<&SealedInput> {
        self.sealed.as_ref()
    }

    pub(crate) fn start_directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_python(command: &[&str]) -> bool {
        let (program, arguments) = command.split_first().unwrap();
        Program::of_command(program, arguments.iter().copied()).is_interpreted()
    }

    #[test]
    fn command_lines_of_python_programs_are_known() {
        let text = Program::python("print(1)");
        assert_eq!(
            text,
            Program::of_command("python3", ["-I", "-B", "-c", "print(1)"].into_iter())
        );
        let script = Program::python_script("/work/x.py").arg("-v");
        assert_eq!(
            script,
            Program::of_command("python3", ["-I", "-B", "/work/x.py", "-v"].into_iter())
        );
        // With other flags an interpreter behaves otherwise than its fork.
        for other in [
            &["python3", "-c", "print(1)"][..],
            &["python3", "-I", "-B", "-c"],
            &["python3", "-I", "-B", "-m", "http.server"],
            &["python3", "-I", "-B"],
            &["/usr/bin/python3", "-I", "-B", "-c", "print(1)"],
            &["sh", "-I", "-B", "-c", "print(1)"],
        ] {
            assert!(!is_python(other), "{other:?}");
        }
    }
}
