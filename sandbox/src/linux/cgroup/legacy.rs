//! Our place in a hierarchy of version 1.

use std::{ffi::CString, os::fd::AsFd};

use super::{
    detect::{Bound, Subsystem},
    missing::Absence,
    stale,
    tree::{self, Hierarchy, Subtree, Version},
};
use crate::{diagnosis::Controller, linux::sys::directory};

/// Makes our group below the one that this process is in.
pub(super) fn settle(bound: &Bound, name: &CString) -> Result<Hierarchy, Absence> {
    let place = bound.place.as_ref().map_err(|absence| *absence)?;
    let (spot, home) = super::open(place, MAGIC)?;
    if spot.read_only {
        return Err(Absence::ReadOnly);
    }
    stale::sweep(home.as_fd());
    let subtree = Subtree::make(home.as_fd(), name).map_err(Absence::of)?;
    let mut holds: Vec<Controller> =
        bound.holds.iter().filter_map(|subsystem| controller(*subsystem)).collect();
    if holds.contains(&Controller::Memory) {
        let counts_swap =
            directory::may_at(subtree.as_fd(), c"memory.memsw.limit_in_bytes", libc::F_OK).is_ok();
        if counts_swap {
            holds.push(Controller::Swap);
        }
        // Groups inherit this. Where a group above has turned it off, a cell out of memory would
        // stand still instead of ending.
        let control = tree::read(subtree.as_fd(), &c"memory.oom_control".to_owned());
        if control.is_ok_and(|control| control.contains("oom_kill_disable 1")) {
            directory::write_at(subtree.as_fd(), c"memory.oom_control", b"0")
                .map_err(Absence::of)?;
        }
    }
    Ok(Hierarchy {
        version: Version::Legacy,
        holds,
        accounts_cpu: bound.holds.contains(&Subsystem::CpuAccounting),
        home,
        subtree,
    })
}

/// What a subsystem limits. Accounting limits nothing.
pub(super) fn controller(subsystem: Subsystem) -> Option<Controller> {
    match subsystem {
        Subsystem::Cpu => Some(Controller::Cpu),
        Subsystem::Memory => Some(Controller::Memory),
        Subsystem::Pids => Some(Controller::Pids),
        Subsystem::BlockIo => Some(Controller::Io),
        Subsystem::CpuAccounting => None,
    }
}

/// `CGROUP_SUPER_MAGIC`
const MAGIC: i64 = 0x0027_e0eb;
