//! The agents that come with a node: `echo`, `shell` and `python`.

mod echo;
mod python;
mod shell;

pub use echo::Echo;
pub use python::Python;
pub use shell::Shell;
