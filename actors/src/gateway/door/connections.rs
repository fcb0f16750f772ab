//! Who has how many of a gateway's connections: nobody gets more than are left for the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neuroflow_kernel::{Clock, Moment};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::unlisted::network;
use crate::gateway::Meter;
use crate::limits::{CONNECTIONS, DESCRIPTORS_KEPT, REFUSALS_COUNTED};

/// The places for connections.
#[derive(Debug)]
pub(in crate::gateway) struct Connections {
    free: Arc<Semaphore>,
    held: Held,
    meter: Arc<dyn Meter>,
    clock: Clock,
    /// Refused since that was told last.
    refused: u64,
    refused_told: Option<Moment>,
    full_told: Option<Moment>,
    failed_told: Option<Moment>,
}

/// How many there are of each network.
type Held = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Connections {
    pub(in crate::gateway) fn new(limit: usize, meter: Arc<dyn Meter>, clock: Clock) -> Self {
        let (free, held) = (Arc::new(Semaphore::new(limit)), Held::default());
        Self {
            free,
            held,
            meter,
            clock,
            refused: 0,
            refused_told: None,
            full_told: None,
            failed_told: None,
        }
    }

    /// As many as there are at most, or as the process may open files for.
    pub(in crate::gateway) fn most() -> usize {
        let Some(files) = open_files() else { return CONNECTIONS };
        let most = files.saturating_sub(files / DESCRIPTORS_KEPT);
        if most < CONNECTIONS {
            tracing::info!(
                connections = most,
                open_files = files,
                "fewer connections than usual: the process may open so many files (LimitNOFILE=, ulimit -n)"
            );
        }
        most.min(CONNECTIONS)
    }

    /// A connection couldn't be accepted: usually there are no descriptors, until connections end.
    pub(in crate::gateway) fn failed(&mut self, error: &io::Error) {
        if is_due(&mut self.failed_told, self.clock.now()) {
            tracing::warn!(error = error as &dyn std::error::Error, "accept failed");
        }
    }

    /// A free place, once there is one: new connections wait in the listener's backlog meanwhile.
    pub(in crate::gateway) async fn free(&mut self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(place);
        }
        if is_due(&mut self.full_told, self.clock.now()) {
            let connections = locked(&self.held).values().sum::<usize>();
            tracing::warn!(connections, "all connections are taken: who comes now has to wait");
        }
        Arc::clone(&self.free).acquire_owned().await
    }

    /// The place for a connection of this address, unless that has as many as are free: so one alone gets half of
    /// them, and whoever comes then finds one.
    pub(in crate::gateway) fn hold(
        &mut self,
        free: OwnedSemaphorePermit,
        peer: IpAddr,
    ) -> Option<Place> {
        let peer = network(peer);
        let left = self.free.available_permits() + free.num_permits();
        let mut held = locked(&self.held);
        let own = held.get(&peer).copied().unwrap_or_default();
        if own < left {
            held.insert(peer, own + 1);
            return Some(Place { held: Arc::clone(&self.held), peer, _free: free });
        }
        drop(held);
        self.refuse(peer, own);
        None
    }

    fn refuse(&mut self, peer: IpAddr, own: usize) {
        self.meter.connection_refused();
        self.refused += 1;
        if is_due(&mut self.refused_told, self.clock.now()) {
            let refused = std::mem::take(&mut self.refused);
            tracing::warn!(
                %peer, connections = own, refused,
                "connections are refused: their address has as many as are free for all others"
            );
        }
    }
}

/// Files that the process may have open, if the system bounds that.
#[cfg(unix)]
fn open_files() -> Option<usize> {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    Some(usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn open_files() -> Option<usize> {
    None
}

/// Whether it's time to say something again.
fn is_due(told: &mut Option<Moment>, now: Moment) -> bool {
    let due = told.is_none_or(|told| now.since(told) >= REFUSALS_COUNTED);
    if due {
        *told = Some(now);
    }
    due
}

/// The place of a connection, free again when it's dropped.
#[derive(Debug)]
pub(in crate::gateway) struct Place {
    held: Held,
    peer: IpAddr,
    _free: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = locked(&self.held);
        let own = held.get(&self.peer).copied().unwrap_or_default();
        if own > 1 {
            held.insert(self.peer, own - 1);
        } else {
            held.remove(&self.peer);
        }
    }
}

fn locked(held: &Held) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use neuroflow_kernel::ManualClock;

    use super::*;
    use crate::gateway::Metered;

    #[derive(Debug, Default)]
    struct Refused(AtomicUsize);

    impl Meter for Refused {
        fn request(&self, _: &Metered) {}

        fn connection_refused(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn one_address_never_has_all_connections() {
        let refused = Arc::<Refused>::default();
        let clock = ManualClock::new().clock();
        let mut connections = Connections::new(16, Arc::clone(&refused) as _, clock);
        let mut open = async |peer: &str| {
            let free = connections.free().await.unwrap();
            connections.hold(free, peer.parse().unwrap())
        };
        let mut places = Vec::new();
        for _ in 0..40 {
            places.extend(open("192.0.2.1").await);
        }
        assert_eq!(places.len(), 8, "half of all");
        // One address, in both of its forms; one network.
        assert!(open("::ffff:192.0.2.1").await.is_none());
        for number in 0..40 {
            places.extend(open(&format!("2001:db8::{number}")).await);
        }
        assert_eq!(places.len(), 12, "half of what was left");
        // However many others there are, the next one finds a place.
        places.extend(open("192.0.2.2").await);
        assert_eq!(places.len(), 13);
        assert_eq!(refused.0.load(Ordering::Relaxed), 32 + 1 + 36);
        // What has ended is free again.
        places.drain(..8);
        assert!(open("192.0.2.1").await.is_some());
        drop(places);
        assert!(connections.held.lock().unwrap().is_empty());
        assert_eq!(connections.free.available_permits(), 16);
    }
}
