//! What the zygote and the first process of a cell do, in terms of Linux.
//!
//! Everything below `child` runs between clone and exec: it locks nothing, and ends in `exec` or
//! `_exit`. The program's own process (`payload`, `ahead`) shares memory with the first one meanwhile,
//! which stands still.

mod ahead;
pub(crate) mod build;
pub(crate) mod cgroup;
pub(crate) mod child;
mod identity;
pub(crate) mod joint;
mod keeper;
mod landlock;
mod later;
mod lockdown;
mod mounted;
mod namespace;
pub(crate) mod nest;
pub(crate) mod overlay;
pub(crate) mod payload;
mod root;
pub(crate) mod seedling;
pub(crate) mod sys;
pub(crate) mod target;
mod template;
mod warden;

pub(crate) use identity::{Identity, is_root_outside};
pub(crate) use keeper::{end_below, sweep};
pub(crate) use namespace::Namespaces;
pub(crate) use root::{Prepared, forbidden};
pub(crate) use template::{Layout, Point, Templates};

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
