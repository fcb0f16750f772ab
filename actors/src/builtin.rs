//! The agents that come with a node: `echo` and `shell`.

mod echo;
mod shell;

pub use echo::Echo;
pub use shell::Shell;
