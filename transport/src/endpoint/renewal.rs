//! The file of the node's certificate while the node runs: looked at again and again, and presented once it's another.

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Shared;
use crate::identity::CertificateError;
use crate::limits::{CERTIFICATE_PAUSE, MAX_PEM_BYTES};
use crate::membership::MembershipCommand;
use crate::observer::ClusterEvent;

/// Presents what the file has, if that is another certificate of this node.
pub(super) async fn follow(shared: Arc<Shared>) {
    let Some(file) = shared.certificate_file.clone() else { return };
    // What was looked at last, so that what can't be used is counted once.
    let mut seen = Seen::default();
    // Time alone keeps it from being used, by a clock that may be set, too.
    let mut is_untimely = false;
    loop {
        let path = file.clone();
        // A disk may take its time.
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let text = read.map_or_else(|_panicked| None, Result::ok);
        let is_other = seen.is_other(text.as_deref());
        if is_other || is_untimely {
            let presented = text.as_deref().map(|text| present(&shared, text));
            is_untimely = matches!(
                presented,
                Some(Err(CertificateError::NotValidYet | CertificateError::Expired))
            );
            if is_other && !matches!(presented, Some(Ok(()))) {
                shared.gossip_meters.certificate_failures.fetch_add(1, Ordering::Relaxed);
                shared.told.decided(ClusterEvent::RenewalRefused { node: shared.id });
            }
        }
        shared.clock.sleep(CERTIFICATE_PAUSE).await;
    }
}

fn present(shared: &Shared, text: &str) -> Result<(), CertificateError> {
    shared.renew(&shared.credential().renewed(text)?)
}

/// What a file had when it was looked at last.
#[derive(Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    Unreadable,
    Text(String),
}

impl Seen {
    /// Whether it has something else now.
    fn is_other(&mut self, text: Option<&str>) -> bool {
        let now = text.map_or(Self::Unreadable, |text| Self::Text(text.to_owned()));
        let is_other = *self != now;
        *self = now;
        is_other
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_PEM_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

impl Shared {
    /// Presents another certificate of this node from now on, and says so to the members.
    pub(super) fn renew(&self, credential: &crate::Credential) -> Result<(), CertificateError> {
        if credential.id() != self.id {
            return Err(CertificateError::OtherKey);
        }
        if *credential.name() != self.name {
            return Err(CertificateError::OtherName { name: credential.name().clone() });
        }
        credential.check(&self.trust)?;
        self.presented.replace(credential)?;
        let mut presented = self.credential.write().unwrap_or_else(PoisonError::into_inner);
        presented.clone_from(credential);
        drop(presented);
        self.told.decided(ClusterEvent::Renewed { node: self.id });
        self.membership.tell(MembershipCommand::Describe);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_file_is_seen_once() {
        let mut seen = Seen::default();
        let looks = [Some("a"), Some("a"), None, None, Some("a"), Some("b")];
        assert_eq!(looks.map(|text| seen.is_other(text)), [true, false, true, false, true, true]);
    }
}
