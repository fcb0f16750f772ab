//! The word to the zygote that a prepared cell is used, at a moment that costs nobody time.

use std::sync::Arc;

use super::{begin::Refusal, seat::Zygote};
use crate::{
    linux::sys::socket::{self, Wait},
    profile::Profile,
    zygote::protocol::Request,
};

/// A cell that the zygote can know to be used, and doesn't look at yet.
///
/// It is told before the cell has its order, so that it neither gives the cell up meanwhile, nor takes it
/// for one that died unused; and where it can't be told, nothing has run. But to be woken makes it work
/// beside a program that begins, and on a machine with few processors that is felt. So it is woken when
/// the host has nothing to do but to wait for the program. A cell that nobody waits for counts its wall
/// time itself.
#[derive(Debug)]
pub(crate) struct Claim {
    zygote: Option<Arc<Zygote>>,
}

impl Claim {
    /// Before the order.
    pub(super) async fn make(
        zygote: &Arc<Zygote>,
        cell: u32,
        profile: &Profile,
    ) -> Result<Self, Refusal> {
        let milliseconds = u32::try_from(profile.wall_time.as_millis()).unwrap_or(u32::MAX);
        let claimed = Request::Claimed { cell, milliseconds }.header();
        match socket::send(zygote.claims(), [&claimed, &[]], &[], Wait::No) {
            Ok(()) => Ok(Self { zygote: Some(Arc::clone(zygote)) }),
            // So many that it had better hear of them now.
            Err(errno) if errno.raw() == libc::EAGAIN => {
                super::begin::send(zygote, [&claimed, &[]], &[]).await?;
                Ok(Self { zygote: None })
            }
            Err(_gone) => Err(Refusal::NotSent),
        }
    }

    /// Has it look, once. One that has too much before it looks when the cell ends.
    pub(crate) fn wake(&mut self) {
        let Some(zygote) = self.zygote.take() else { return };
        socket::send(zygote.control(), [&Request::Heed.header(), &[]], &[], Wait::No).ok();
    }
}
