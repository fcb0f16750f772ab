//! From a profile to a plan for this host: which of the level's layers it gives, with which filter.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use super::seat::Abilities;
use crate::{
    diagnosis::{Controller, Reason, Remedy},
    error::LaunchError,
    interpreter::Interpreter,
    level::{Layer, Level},
    linux::cgroup::missing,
    plan::{self, Means},
    profile::Profile,
    seccomp::{self, Cache, CacheError, Deny, Filter, FilterOptions, SeccompProfile},
};

/// A plan, and what of the profile's level it leaves out.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) plan: Vec<u8>,
    pub(super) degraded: Vec<Layer>,
    /// Whether the program's process of a prepared cell is there before its order.
    pub(super) ahead: bool,
}

impl Draft {
    /// Takes the milliseconds in which a filter is compiled, if it wasn't before.
    pub(super) fn new(
        profile: &Profile,
        abilities: Abilities,
        filters: &Filters,
        interpreter: Option<&Interpreter>,
    ) -> Result<Self, LaunchError> {
        let lacks = lacking(profile, abilities)?;
        let filter = if filters_calls(profile, &lacks) { Some(filters.of(profile)?) } else { None };
        Self::with(profile, abilities, filter.as_ref(), lacks, interpreter)
    }

    /// The same without such a wait; nothing if the filter has to be compiled.
    pub(super) fn at_hand(
        profile: &Profile,
        abilities: Abilities,
        filters: &Filters,
    ) -> Result<Option<Self>, LaunchError> {
        let lacks = lacking(profile, abilities)?;
        let filter = if filters_calls(profile, &lacks) {
            let Some(known) = filters.known(profile) else { return Ok(None) };
            Some(known)
        } else {
            None
        };
        Self::with(profile, abilities, filter.as_ref(), lacks, None).map(Some)
    }

    fn with(
        profile: &Profile,
        abilities: Abilities,
        filter: Option<&Found>,
        mut degraded: Vec<Layer>,
        interpreter: Option<&Interpreter>,
    ) -> Result<Self, LaunchError> {
        let gives =
            |layer: Layer| profile.level.layers().contains(&layer) && !degraded.contains(&layer);
        let ahead = filter.is_none_or(|(_, ahead)| *ahead);
        let modules = interpreter.map(Interpreter::joined);
        let means = Means {
            landlock: if gives(Layer::Landlock) { abilities.landlock } else { 0 },
            groups: gives(Layer::Cgroup),
            open_disks: degraded.contains(&Layer::CgroupIo),
            filter: filter.map(|(filter, _)| filter.program()),
            learn: profile.learn,
            ahead,
            interpreter: modules.as_deref(),
        };
        let plan = plan::plan(profile, &means)?;
        if profile.learn && filters_calls(profile, &degraded) {
            // Its filter only watches.
            degraded.push(Layer::Seccomp);
        }
        if !degraded.is_empty() {
            tracing::warn!(level = %profile.level, ?degraded, "a cell does without layers of its level");
        }
        Ok(Self { plan, degraded, ahead })
    }
}

/// What the cell has to do without, if it may.
fn lacking(profile: &Profile, abilities: Abilities) -> Result<Vec<Layer>, LaunchError> {
    let mut degraded = Vec::new();
    for (lacks, reason, remedy) in abilities.lacking(profile.level, profile.limits_io()) {
        if !(profile.allow_degraded && lacks.is_dispensable()) {
            // The level promises the whole of it.
            let layer = if lacks == Layer::CgroupIo { Layer::Cgroup } else { lacks };
            return Err(LaunchError::Unavailable { layer, reason, remedy });
        }
        degraded.push(lacks);
    }
    Ok(degraded)
}

fn filters_calls(profile: &Profile, lacks: &[Layer]) -> bool {
    profile.level.layers().contains(&Layer::Seccomp) && !lacks.contains(&Layer::Seccomp)
}

impl Abilities {
    /// What of the level the host can't give, and why; limits of disks count if they are wanted.
    pub(crate) fn lacking(
        &self,
        level: Level,
        io: bool,
    ) -> impl Iterator<Item = (Layer, Reason, Remedy)> {
        level.layers().iter().filter_map(move |layer| {
            let (lacks, why) = match (layer, self.lacks(*layer)) {
                // The other limits don't go with those of disks.
                (Layer::Cgroup, None) if io => (Layer::CgroupIo, self.lacks(Layer::CgroupIo)),
                (layer, why) => (*layer, why),
            };
            why.map(|(reason, remedy)| (lacks, reason, remedy))
        })
    }

    /// Why the host can't give a layer, as far as that is known before a cell is tried.
    pub(crate) fn lacks(&self, layer: Layer) -> Option<(Reason, Remedy)> {
        let unsupported = Reason::NoKernelSupport(crate::errno::Errno::from_raw(libc::ENOSYS));
        match layer {
            Layer::ProcessTree if !self.mortal => {
                let reason = Reason::Refused(crate::errno::Errno::from_raw(libc::EPERM));
                Some((reason, Remedy::LeaveKill))
            }
            Layer::Seccomp if !self.filters => Some((unsupported, Remedy::NewerKernel)),
            Layer::Landlock if self.landlock == 0 => Some((unsupported, Remedy::NewerKernel)),
            // Swap isn't asked for: where nobody counts it, there mostly is none.
            Layer::Cgroup => {
                self.lacks_one_of(&[Controller::Cpu, Controller::Memory, Controller::Pids])
            }
            Layer::CgroupIo => self.lacks_one_of(&[Controller::Io]),
            Layer::OwnIdentity if !self.own_ids => {
                Some((Reason::NoIdRange, Remedy::ChooseLevel(Level::Strict)))
            }
            _ => None,
        }
    }

    fn lacks_one_of(&self, needed: &[Controller]) -> Option<(Reason, Remedy)> {
        let missing = missing::decode(self.missing_controllers);
        let first = missing.iter().find(|missing| needed.contains(&missing.controller))?;
        Some((first.reason(), first.remedy()))
    }
}

/// The filters of a launcher.
#[derive(Debug, Default)]
pub(super) struct Filters {
    cache: Cache,
    /// The lists of the levels, once they are read.
    builtin: Mutex<Vec<(Level, SeccompProfile)>>,
    learning: OnceLock<Filter>,
    /// Held while a filter is made, so that of many who want a new one at once, one makes it.
    making: Mutex<()>,
}

/// A filter, and whether it leaves room for a program's process that is made ahead.
type Found = (Filter, bool);

impl Filters {
    /// Filters that are also kept in a directory, for the next launcher.
    pub(super) fn in_directory(path: PathBuf) -> Result<Self, CacheError> {
        Ok(Self { cache: Cache::in_directory(path)?, ..Self::default() })
    }

    /// The profile's filter, if it was made before.
    fn known(&self, profile: &Profile) -> Option<Found> {
        if profile.learn {
            return Some((self.learning.get()?.clone(), false));
        }
        let list = match &profile.seccomp {
            Some(own) => SeccompProfile::clone(own),
            None => self.builtin(profile.level)?,
        };
        Some((self.cache.kept(&list, options(profile))?, list.has_room_ahead()))
    }

    /// The profile's filter; made now if it wasn't before.
    fn of(&self, profile: &Profile) -> Result<Found, LaunchError> {
        if let Some(known) = self.known(profile) {
            return Ok(known);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known(profile) {
            return Ok(known);
        }
        if profile.learn {
            let filter = seccomp::compile::learning()?;
            return Ok((self.learning.get_or_init(|| filter).clone(), false));
        }
        let list = match &profile.seccomp {
            Some(own) => SeccompProfile::clone(own),
            None => match self.builtin(profile.level) {
                Some(known) => known,
                None => self.read_builtin(profile.level)?,
            },
        };
        Ok((self.cache.filter(&list, options(profile))?, list.has_room_ahead()))
    }

    fn builtin(&self, level: Level) -> Option<SeccompProfile> {
        let known = self.builtin.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(other, _)| *other == level).map(|(_, list)| list.clone())
    }

    fn read_builtin(&self, level: Level) -> Result<SeccompProfile, LaunchError> {
        let list = SeccompProfile::builtin(level)?;
        let mut known = self.builtin.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((level, list.clone()));
        Ok(list)
    }
}

fn options(profile: &Profile) -> FilterOptions {
    FilterOptions { inet: profile.has_loopback() || profile.has_egress(), deny: Deny::Notify }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        linux::cgroup::missing::{Absence, Missing},
        plan::{GroupLimits, INHERIT, Plan},
        profile::ProfileBuilder,
    };

    fn without(controllers: &[Controller]) -> Abilities {
        let missing = |controller: &Controller| Missing {
            controller: *controller,
            absence: Absence::NotOffered,
        };
        let missing: Vec<Missing> = controllers.iter().map(missing).collect();
        let missing_controllers = missing::encode(&missing);
        Abilities { landlock: 3, filters: true, missing_controllers, own_ids: true, mortal: true }
    }

    fn strict() -> ProfileBuilder {
        Profile::builder(Level::Strict).memory(64 << 20)
    }

    fn draft(profile: ProfileBuilder, abilities: Abilities) -> Result<Draft, LaunchError> {
        Draft::new(&profile.build().unwrap(), abilities, &Filters::default(), None)
    }

    /// The limits of the cell as a whole, if there are any.
    fn groups(draft: &Draft) -> Option<GroupLimits> {
        let plan = Plan::parse(&draft.plan).unwrap();
        plan.groups.then_some(plan.group_limits)
    }

    #[test]
    fn without_limits_of_disks_the_others_are_in_force() {
        let wanted = strict().io_bandwidth(1 << 20).io_operations(100);
        let degrading = wanted.clone().allow_degraded(true);
        let given = draft(degrading.clone(), without(&[Controller::Io])).unwrap();
        assert_eq!(given.degraded, [Layer::CgroupIo]);
        let limits = groups(&given).unwrap();
        assert_eq!(
            (limits.io_bytes_per_second, limits.io_operations_per_second),
            (INHERIT, INHERIT)
        );
        assert_eq!((limits.memory_bytes, limits.processes), (64 << 20, 65));
        let whole = groups(&draft(wanted.clone(), without(&[])).unwrap()).unwrap();
        assert_eq!((whole.io_bytes_per_second, whole.io_operations_per_second), (1 << 20, 100));
        // As before, where the profile may not do without them.
        let refused = draft(wanted, without(&[Controller::Io])).unwrap_err();
        let (reason, remedy) = (
            Reason::CgroupControllerMissing(Controller::Io),
            Remedy::EnableController(Controller::Io),
        );
        let expected = LaunchError::Unavailable { layer: Layer::Cgroup, reason, remedy };
        assert_eq!(format!("{refused:?}"), format!("{expected:?}"));
        // Where more is missing, all of it is.
        let given = draft(degrading, without(&[Controller::Memory, Controller::Io])).unwrap();
        assert_eq!((&given.degraded[..], groups(&given)), (&[Layer::Cgroup][..], None));
        // Who wants no such limits misses none.
        assert!(draft(strict(), without(&[Controller::Io])).unwrap().degraded.is_empty());
    }

    #[test]
    fn nobody_does_without_an_end_of_the_process_tree() {
        let abilities = Abilities { mortal: false, ..without(&[]) };
        for level in [Level::Minimal, Level::Standard, Level::Strict] {
            let refused = draft(Profile::builder(level).allow_degraded(true), abilities);
            let Err(LaunchError::Unavailable { layer, remedy, .. }) = refused else { panic!() };
            assert_eq!((layer, remedy), (Layer::ProcessTree, Remedy::LeaveKill), "{level}");
        }
    }

    #[test]
    fn a_filter_that_only_watches_is_no_layer() {
        let learns = draft(strict().learn(true), without(&[])).unwrap();
        assert_eq!(learns.degraded, [Layer::Seccomp]);
        assert!(Plan::parse(&learns.plan).unwrap().learn);
    }
}
