//! Why a controller can't be had, and what to tell the operator.

use crate::{
    diagnosis::{Controller, Reason, Remedy},
    errno::Errno,
};

/// A controller that no group of ours has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) controller: Controller,
    pub(crate) absence: Absence,
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// No hierarchy with it is mounted.
    NotMounted,
    /// It is mounted, but shows a part of the tree that our own group isn't in.
    OutOfSight,
    /// The kernel doesn't have it; or the group above ours keeps it, where no more can be seen.
    NotOffered,
    /// The kernel has it, and a group above ours keeps it.
    NotHandedDown,
    /// Our own group belongs to somebody else.
    NotDelegated,
    ReadOnly,
    /// Other programs are in our own group.
    Busy,
    Refused(Errno),
}

impl Absence {
    /// What a refused attempt to make or divide a group says.
    pub(super) fn of(errno: Errno) -> Self {
        match errno.raw() {
            libc::EACCES | libc::EPERM => Self::NotDelegated,
            libc::EROFS => Self::ReadOnly,
            libc::EBUSY => Self::Busy,
            libc::ENOENT => Self::NotOffered,
            _ => Self::Refused(errno),
        }
    }
}

impl Missing {
    pub(crate) fn reason(&self) -> Reason {
        match self.absence {
            Absence::NotMounted | Absence::NotOffered | Absence::NotHandedDown => {
                Reason::CgroupControllerMissing(self.controller)
            }
            Absence::OutOfSight | Absence::NotDelegated => Reason::CgroupNotDelegated,
            Absence::ReadOnly => Reason::CgroupReadOnly,
            Absence::Busy => Reason::CgroupBusy,
            Absence::Refused(errno) => Reason::Refused(errno),
        }
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match self.absence {
            Absence::NotMounted | Absence::OutOfSight | Absence::ReadOnly => Remedy::MountCgroup,
            Absence::NotOffered => Remedy::EnableController(self.controller),
            Absence::NotDelegated | Absence::NotHandedDown => Remedy::DelegateCgroup,
            Absence::Busy => Remedy::OwnCgroup,
            Absence::Refused(_) => Remedy::LoosenContainer,
        }
    }
}

/// What is missing as one number: four bits for each controller, and an error number above them.
pub(crate) fn encode(missing: &[Missing]) -> u64 {
    let mut word = 0;
    for Missing { controller, absence } in missing {
        let (code, errno) = match absence {
            Absence::NotMounted => (1, 0),
            Absence::OutOfSight => (2, 0),
            Absence::NotOffered => (3, 0),
            Absence::NotDelegated => (4, 0),
            Absence::ReadOnly => (5, 0),
            Absence::Busy => (6, 0),
            Absence::NotHandedDown => (8, 0),
            Absence::Refused(errno) => (REFUSED, u64::from(errno.raw().unsigned_abs())),
        };
        word |= code << shift(*controller) | errno << ERRNO_AT;
    }
    word
}

/// Reads the number of [`encode`]. Bits that nobody sets say that something was refused.
pub(crate) fn decode(word: u64) -> Vec<Missing> {
    let errno = i32::try_from(word >> ERRNO_AT).unwrap_or(libc::EIO);
    let missing = |controller: Controller| {
        let absence = match word >> shift(controller) & 0xF {
            0 => return None,
            1 => Absence::NotMounted,
            2 => Absence::OutOfSight,
            3 => Absence::NotOffered,
            4 => Absence::NotDelegated,
            5 => Absence::ReadOnly,
            6 => Absence::Busy,
            8 => Absence::NotHandedDown,
            _ => Absence::Refused(Errno::from_raw(errno)),
        };
        Some(Missing { controller, absence })
    };
    Controller::ALL.into_iter().filter_map(missing).collect()
}

fn shift(controller: Controller) -> u32 {
    match controller {
        Controller::Cpu => 0,
        Controller::Memory => 4,
        Controller::Swap => 8,
        Controller::Pids => 12,
        Controller::Io => 16,
    }
}

const REFUSED: u64 = 7;
const ERRNO_AT: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_goes_over_the_wire() {
        let absences = [Absence::NotMounted, Absence::OutOfSight, Absence::Busy];
        let refused = Absence::Refused(Errno::from_raw(libc::EIO));
        let all: Vec<Missing> = Controller::ALL
            .into_iter()
            .zip(absences.into_iter().chain([refused, Absence::NotDelegated]))
            .map(|(controller, absence)| Missing { controller, absence })
            .collect();
        assert_eq!(decode(encode(&all)), all);
        assert_eq!(decode(0), []);
    }

    fn told(absence: Absence) -> (Reason, Remedy) {
        let missing = Missing { controller: Controller::Pids, absence };
        (missing.reason(), missing.remedy())
    }

    #[test]
    fn every_absence_has_a_reason_and_a_remedy() {
        let pids = Reason::CgroupControllerMissing(Controller::Pids);
        assert_eq!(told(Absence::NotMounted), (pids, Remedy::MountCgroup));
        let remedy = Remedy::EnableController(Controller::Pids);
        assert_eq!(told(Absence::NotOffered), (pids, remedy));
        assert_eq!(told(Absence::NotHandedDown), (pids, Remedy::DelegateCgroup));
        let delegate = (Reason::CgroupNotDelegated, Remedy::DelegateCgroup);
        assert_eq!(told(Absence::of(Errno::from_raw(libc::EACCES))), delegate);
        let mount = (Reason::CgroupReadOnly, Remedy::MountCgroup);
        assert_eq!(told(Absence::of(Errno::from_raw(libc::EROFS))), mount);
        let own = (Reason::CgroupBusy, Remedy::OwnCgroup);
        assert_eq!(told(Absence::of(Errno::from_raw(libc::EBUSY))), own);
        let refused = Errno::from_raw(libc::EOPNOTSUPP);
        let loosen = (Reason::Refused(refused), Remedy::LoosenContainer);
        assert_eq!(told(Absence::of(refused)), loosen);
        assert_eq!(told(Absence::OutOfSight).1, Remedy::MountCgroup);
    }
}
