//! Names to addresses, with a bound on the threads that wait for it.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, LazyLock},
};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    /// Shared by all cells.
    all: Arc<Places>,
    own: Arc<Places>,
}

/// Places for look-ups. A cell's first has another sort than those that it makes beside it, so that the
/// cells which make many leave one to everybody else.
#[derive(Debug)]
struct Places {
    first: Arc<Semaphore>,
    further: Arc<Semaphore>,
}

/// A place of one sort: among those of its cell, and among those of all.
#[derive(Debug)]
struct Place {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

static PLACES: LazyLock<Arc<Places>> =
    LazyLock::new(|| Arc::new(Places::new(limits::EGRESS_LOOKUPS, limits::EGRESS_FURTHER_LOOKUPS)));

impl Places {
    fn new(first: usize, further: usize) -> Self {
        Self { first: Arc::new(Semaphore::new(first)), further: Arc::new(Semaphore::new(further)) }
    }
}

impl System {
    pub(crate) fn for_cell() -> Self {
        Self::among(&PLACES)
    }

    fn among(all: &Arc<Places>) -> Self {
        let own = Places::new(1, limits::EGRESS_CELL_FURTHER_LOOKUPS);
        Self { all: Arc::clone(all), own: Arc::new(own) }
    }

    /// Waits for a place of either sort.
    fn place(&self) -> impl Future<Output = io::Result<Place>> + Send + use<> {
        let (all, own) = (Arc::clone(&self.all), Arc::clone(&self.own));
        async move {
            tokio::select! {
                biased;
                place = take(&own.first, &all.first) => place,
                place = take(&own.further, &all.further) => place,
            }
        }
    }
}

async fn take(own: &Arc<Semaphore>, of_all: &Arc<Semaphore>) -> io::Result<Place> {
    let own = Arc::clone(own).acquire_owned().await.map_err(io::Error::other)?;
    let of_all = Arc::clone(of_all).acquire_owned().await.map_err(io::Error::other)?;
    Ok(Place { _own: own, _of_all: of_all })
}

impl Resolve for System {
    fn resolve(&self, name: String) -> Lookup {
        let place = self.place();
        Box::pin(async move {
            let place = place.await?;
            // A thread can't be called back. So it keeps its place until it is through, even if nobody
            // waits for the answer any more.
            let looked_up = tokio::task::spawn_blocking(move || {
                let _place = place;
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
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_hosts_own_name_resolves() {
        let addresses = System::for_cell().resolve("localhost".to_owned()).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty());
    }

    /// What there is now, without waiting. More are asked for than a task may take without a pause.
    fn now(system: &System) -> Option<Place> {
        tokio::task::unconstrained(system.place()).now_or_never().map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_cell_waits_for_its_own_look_ups() {
        let most = 1 + limits::EGRESS_CELL_FURTHER_LOOKUPS;
        let system = System::among(&Arc::new(Places::new(most, most)));
        let mut held: Vec<Place> = std::iter::from_fn(|| now(&system)).collect();
        assert_eq!(held.len(), most);
        let mut lookup = system.resolve("localhost".to_owned());
        assert!((&mut lookup).now_or_never().is_none());
        held.pop();
        assert!(lookup.await.is_ok());
        drop(held);
        let held: Vec<Place> = std::iter::from_fn(|| now(&system)).collect();
        assert_eq!(held.len(), most, "each is given back");
    }

    #[tokio::test]
    async fn cells_whose_look_ups_hang_leave_one_to_the_next() {
        let all = Arc::new(Places::new(limits::EGRESS_LOOKUPS, limits::EGRESS_FURTHER_LOOKUPS));
        let mut hang = Vec::new();
        for _ in 1..limits::EGRESS_LOOKUPS {
            let cell = System::among(&all);
            hang.extend(std::iter::from_fn(|| now(&cell)));
        }
        assert_eq!(hang.len(), limits::EGRESS_LOOKUPS - 1 + limits::EGRESS_FURTHER_LOOKUPS);
        let next = System::among(&all);
        assert!(next.resolve("localhost".to_owned()).await.is_ok());
        // It has no second one beside it, and waits for that.
        let first = now(&next).unwrap();
        assert!(now(&next).is_none());
        drop((first, hang));
        assert_eq!(all.first.available_permits(), limits::EGRESS_LOOKUPS);
    }
}
