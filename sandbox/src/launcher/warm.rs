//! Which profiles have prepared cells.

use std::sync::{Mutex, PoisonError, atomic::Ordering};

use super::{draft::Draft, seat::Zygote};
use crate::{
    error::LaunchError,
    interpreter::Interpreter,
    level::{Layer, Level},
    limits,
    linux::sys::socket::{self, Wait},
    plan::ProgramError,
    profile::Profile,
    zygote::protocol::{Pool, Request},
};

/// How many cells are kept ready. The zygote begins with the least, goes up to the most while cells
/// are claimed faster than they are made, and comes down again.
///
/// ```
/// let warm = neuroflow_sandbox::Warm { least: 2, most: 16 };
/// assert!(warm.least <= warm.most);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// As many wait at least.
    pub least: u16,
    /// Never more than this, and never more than [`limits::MAX_POOL`].
    pub most: u16,
}

/// What a launch wants to know of a pool.
#[derive(Debug)]
pub(super) struct Found {
    /// Its number.
    pub(super) key: u16,
    /// What its cells do without.
    pub(super) degraded: Vec<Layer>,
    /// Whether the program's process is there before its order.
    pub(super) ahead: bool,
}

/// The pools of a launcher.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    profile: Profile,
    /// Whose forks run in the cells.
    interpreter: Option<Interpreter>,
    draft: Draft,
    warm: Warm,
}

impl Entry {
    fn is_of(&self, profile: &Profile, interpreter: Option<&Interpreter>) -> bool {
        self.profile == *profile && self.interpreter.as_ref() == interpreter
    }
}

impl Pools {
    pub(super) fn keep(
        &self,
        profile: &Profile,
        interpreter: Option<&Interpreter>,
        draft: Draft,
        warm: Warm,
    ) -> Result<(), LaunchError> {
        if profile.level == Level::Minimal || profile.learn {
            return Err(LaunchError::NotPreparable { level: profile.level });
        }
        let (given, most) = (draft.plan.len(), limits::INLINE_PLAN_BYTES);
        if given > most {
            return Err(ProgramError::TooLong { given, most }.into());
        }
        let warm = Warm { least: warm.least.min(warm.most), ..warm };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pools.iter_mut().find(|entry| entry.is_of(profile, interpreter)) {
            (known.draft, known.warm) = (draft, warm);
            return Ok(());
        }
        if pools.len() >= limits::MAX_POOLS {
            return Err(LaunchError::TooManyPools { most: limits::MAX_POOLS });
        }
        let interpreter = interpreter.cloned();
        pools.push(Entry { profile: profile.clone(), interpreter, draft, warm });
        Ok(())
    }

    /// The pool for a profile, with an interpreter's forks in its cells or without.
    pub(super) fn of(&self, profile: &Profile, forks: bool) -> Option<Found> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let at = pools
            .iter()
            .position(|entry| entry.interpreter.is_some() == forks && entry.profile == *profile)?;
        let Draft { degraded, ahead, .. } = &pools.get(at)?.draft;
        Some(Found { key: u16::try_from(at).ok()?, degraded: degraded.clone(), ahead: *ahead })
    }

    /// Tells a zygote of the pools that it hasn't heard of.
    pub(super) fn tell(&self, zygote: &Zygote) -> Result<(), LaunchError> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let told = zygote.told().load(Ordering::Acquire);
        for (at, entry) in pools.iter().enumerate().skip(told) {
            let key = u16::try_from(at).unwrap_or(u16::MAX);
            let pool = Pool { key, least: entry.warm.least, most: entry.warm.most };
            let plan = entry.draft.plan.as_slice();
            let header = Request::Prepare { pool, plan }.header();
            match socket::send(zygote.control(), [&header, plan], &[], Wait::No) {
                Ok(()) => {}
                // It has much before it, or hangs. Whoever comes next tells it of the rest.
                Err(errno) if errno.raw() == libc::EAGAIN => {
                    zygote.told().store(at, Ordering::Release);
                    return Ok(());
                }
                Err(source) => return Err(LaunchError::Pipes { source }),
            }
        }
        zygote.told().store(pools.len(), Ordering::Release);
        Ok(())
    }
}
