//! The agents that come with a node: `echo`, `shell` and `python`, and `Proxy` for those of others.

mod echo;
mod proxy;
mod python;
mod shell;

pub use echo::Echo;
pub use proxy::{Proxy, ProxyPlace, ProxyRoute};
pub use python::Python;
pub use shell::Shell;
