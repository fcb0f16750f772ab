//! Names to addresses, with a bound on the threads that wait for it.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::limits;

/// The future of a look-up.
pub(crate) type Lookup = BoxFuture<'static, io::Result<Vec<IpAddr>>>;

/// Looks names up. A proxy asks once per request and connects to nothing but the answer.
pub(crate) trait Resolve: fmt::Debug + Send + Sync {
    fn resolve(&self, name: String) -> Lookup;
}

/// The system's resolver, as the host's other programs use it.
#[derive(Debug)]
pub(crate) struct System {
    of_cell: Arc<Semaphore>,
}

/// Shared by all cells.
static LOOKUPS: Semaphore = Semaphore::const_new(limits::EGRESS_LOOKUPS);

impl System {
    pub(crate) fn for_cell() -> Self {
        Self { of_cell: Arc::new(Semaphore::new(limits::EGRESS_CELL_LOOKUPS)) }
    }
}

impl Resolve for System {
    fn resolve(&self, name: String) -> Lookup {
        let of_cell = Arc::clone(&self.of_cell);
        Box::pin(async move {
            let of_cell = of_cell.acquire_owned().await.map_err(io::Error::other)?;
            let of_all = LOOKUPS.acquire().await.map_err(io::Error::other)?;
            // A thread can't be called back. So it keeps the permits until it is through, even if
            // nobody waits for the answer any more.
            let looked_up = tokio::task::spawn_blocking(move || {
                let _permits = (of_cell, of_all);
                let addresses = (name.as_str(), 0).to_socket_addrs()?;
                Ok(addresses.map(|address| address.ip()).collect())
            });
            looked_up.await.map_err(io::Error::other)?
        })
    }
}

/// Who looks the names of an allow-list up: the system, unless an attack is to see other answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(pub(crate) Option<Arc<dyn Resolve>>);

impl Names {
    /// For one cell.
    pub(crate) fn for_cell(&self) -> Arc<dyn Resolve> {
        self.0.clone().unwrap_or_else(|| Arc::new(System::for_cell()))
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_own_name_resolves() {
        let addresses = System::for_cell().resolve("localhost".to_owned()).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty());
    }

    #[tokio::test]
    async fn a_cell_waits_for_its_own_look_ups() {
        let system = System::for_cell();
        let all = u32::try_from(limits::EGRESS_CELL_LOOKUPS).unwrap();
        let held = Arc::clone(&system.of_cell).acquire_many_owned(all).await.unwrap();
        let mut lookup = system.resolve("localhost".to_owned());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(lookup.as_mut().poll(&mut context).is_pending());
        drop(held);
        assert!(lookup.await.is_ok());
        assert_eq!(system.of_cell.available_permits(), limits::EGRESS_CELL_LOOKUPS);
    }
}
