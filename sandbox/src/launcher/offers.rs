//! Prepared cells that the zygote has offered and nobody has taken yet.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    limits,
    linux::sys::{
        event,
        socket::{self, Wait},
    },
    zygote::protocol::{RECORD, Record},
};

/// A prepared cell. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) cell: u32,
    pub(super) report: OwnedFd,
    pub(super) pidfd: OwnedFd,
    pub(super) egress: Option<OwnedFd>,
    /// Whether the zygote should hear at once that it is used.
    pub(super) is_urgent: bool,
}

/// The offers that have arrived, oldest first. Their number is bounded by the pools' sizes.
#[derive(Debug, Default)]
pub(super) struct Offers {
    waiting: VecDeque<(u16, Offer)>,
}

impl Offers {
    /// An offer of that pool. One whose first process is to say something first, as it does when an
    /// interpreter's fork has come, isn't given before that.
    pub(super) fn take(
        &mut self,
        control: BorrowedFd<'_>,
        key: u16,
        announced: bool,
    ) -> Option<Offer> {
        self.hear(control);
        // One that has died while it waited is no offer.
        let lives = |offer: &Offer| event::is_readable(offer.pidfd.as_fd(), 0) == Ok(false);
        let is_ready = |offer: &Offer| {
            !announced || event::is_readable(offer.report.as_fd(), 0).unwrap_or_default()
        };
        let mut from = 0;
        loop {
            let mut rest = self.waiting.iter().skip(from);
            from += rest.position(|(known, offer)| *known == key && is_ready(offer))?;
            let (_, offer) = self.waiting.remove(from)?;
            if lives(&offer) {
                let left = self.waiting.iter().filter(|(known, _)| *known == key).count();
                return Some(Offer { is_urgent: left <= limits::FEW_OFFERS, ..offer });
            }
        }
    }

    /// Takes what has arrived. An offer that can't be read is dropped, and the cell with it.
    fn hear(&mut self, control: BorrowedFd<'_>) {
        for _ in 0..limits::MAX_CELLS {
            let mut bytes = [0; RECORD];
            let Ok(received) = socket::receive(control, &mut bytes, Wait::No) else { return };
            if received.length == 0 {
                return;
            }
            if let Some(Record::Prepared { key, cell }) = Record::parse(&bytes)
                && let [Some(report), Some(pidfd), egress, None, None] = received.passed
            {
                let offer = Offer { cell, report, pidfd, egress, is_urgent: false };
                self.waiting.push_back((key, offer));
            }
        }
    }
}
