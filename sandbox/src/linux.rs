//! What the zygote and the first process of a cell do, in terms of Linux.
//!
//! Everything below `child` runs between clone and exec: it allocates nothing, locks nothing, and
//! ends in `exec` or `_exit`.

pub(crate) mod child;
mod identity;
mod keeper;
mod lockdown;
pub(crate) mod payload;
mod root;
pub(crate) mod sys;

pub(crate) use identity::Identity;
pub(crate) use keeper::sweep;
pub(crate) use root::forbidden;

use crate::{errno::Errno, step::Step};

/// Which step failed, with what, and on which of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
    pub(crate) detail: u32,
}

/// Names the step of a refused system call.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for sys::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            step,
            errno,
            detail: u32::try_from(index).unwrap_or(u32::MAX),
        })
    }
}
