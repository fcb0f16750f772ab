//! An interpreter that is kept running, so that its programs start without its own start.

use crate::limits;

/// What a warm interpreter imports before anybody needs it.
///
/// Kept by `Launcher::keep_interpreter_warm`, it runs no program itself: each program runs in a fork
/// that has moved into a prepared cell and is locked up there like every program of that cell. All
/// forks of one interpreter share its address-space layout, its secret of string hashes, and the
/// state of its modules from before the fork.
///
/// ```
/// use neuroflow_sandbox::Interpreter;
///
/// let python = Interpreter::python().preload(["decimal", "statistics"])?;
/// assert!(python.modules().any(|name| name == "json"));
/// # Ok::<(), neuroflow_sandbox::InterpreterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    modules: Vec<String>,
}

impl Interpreter {
    /// The cell's `python3` with the usual part of its standard library.
    pub fn python() -> Self {
        Self { modules: STANDARD.map(str::to_owned).to_vec() }
    }

    /// The cell's `python3` as it starts.
    pub fn bare_python() -> Self {
        Self { modules: Vec::new() }
    }

    /// Adds modules to those that are imported ahead. One that can't be imported is passed over:
    /// a program that needs it hears so from its own import.
    ///
    /// # Errors
    ///
    /// A name that isn't a module's, or too many.
    pub fn preload<I: IntoIterator<Item: Into<String>>>(
        mut self,
        modules: I,
    ) -> Result<Self, InterpreterError> {
        for name in modules {
            let name = name.into();
            if !is_module(&name) {
                return Err(InterpreterError::Module { name });
            }
            if !self.modules.contains(&name) {
                self.modules.push(name);
            }
        }
        let (given, most) = (self.modules.len(), limits::MAX_PRELOADED);
        if given > most { Err(InterpreterError::TooMany { given, most }) } else { Ok(self) }
    }

    /// What is imported ahead.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(String::as_str)
    }

    /// The names with a space between them, as a plan has them.
    pub(crate) fn joined(&self) -> String {
        self.modules.join(" ")
    }
}

/// Why an interpreter can't be described like that.
///
/// ```
/// use neuroflow_sandbox::{Interpreter, InterpreterError};
///
/// let refused = Interpreter::python().preload(["os; import sys"]).unwrap_err();
/// assert!(matches!(refused, InterpreterError::Module { .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterpreterError {
    /// The name can't be a module's.
    #[error("{name:?} is not the name of a module: letters, digits, underscores and dots")]
    Module {
        /// The name.
        name: String,
    },
    /// There are too many modules.
    #[error("{given} modules to import ahead, allowed are {most}")]
    TooMany {
        /// How many there are.
        given: usize,
        /// The bound.
        most: usize,
    },
}

fn is_module(name: &str) -> bool {
    let is_part = |part: &str| {
        let first = part.chars().next().is_some_and(|first| !first.is_ascii_digit());
        first && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    name.len() <= limits::MAX_MODULE_NAME && name.split('.').all(is_part)
}

/// What programs of agents import most; together some 100 ms of a cold start.
const STANDARD: [&str; 34] = [
    "abc",
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "html",
    "itertools",
    "json",
    "math",
    "pathlib",
    "random",
    "re",
    "shutil",
    "statistics",
    "subprocess",
    "tempfile",
    "textwrap",
    "traceback",
    "typing",
    "urllib.request",
    "uuid",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["json", "urllib.request", "_thread", "a1"] {
            assert!(is_module(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "1a", "a b", "a\0", "-c", "a;b", "ä"] {
            assert!(!is_module(name), "{name:?}");
        }
        assert!(!is_module(&"a".repeat(limits::MAX_MODULE_NAME + 1)));
        assert!(STANDARD.iter().all(|name| is_module(name)));
    }

    #[test]
    fn they_are_few_and_each_once() {
        let twice = Interpreter::bare_python().preload(["json", "re", "json"]).unwrap();
        assert_eq!(twice.joined(), "json re");
        let many = (0..=limits::MAX_PRELOADED).map(|number| format!("m{number}"));
        let refused = Interpreter::bare_python().preload(many).unwrap_err();
        assert!(matches!(refused, InterpreterError::TooMany { .. }));
    }
}
