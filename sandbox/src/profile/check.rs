//! What a profile's values have to be.

use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path},
    time::Duration,
};

use super::{Bind, Profile, ProfileError, Setting, View};
use crate::limits;

pub(super) fn ranges(profile: &Profile) -> Result<(), ProfileError> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let rows = [
        (
            Setting::WallTime,
            milliseconds(profile.wall_time),
            1,
            milliseconds(limits::MAX_WALL_TIME),
        ),
        (Setting::Memory, profile.memory_bytes, limits::MIN_MEMORY_BYTES, limits::MAX_MEMORY_BYTES),
        (Setting::Processes, profile.processes.into(), 1, limits::MAX_PROCESSES.into()),
        (
            Setting::OpenFiles,
            profile.open_files.into(),
            limits::MIN_OPEN_FILES.into(),
            limits::MAX_OPEN_FILES.into(),
        ),
        (Setting::FileSize, profile.file_size_bytes, 0, limits::MAX_FILE_SIZE_BYTES),
        (Setting::Output, profile.output_bytes, 0, limits::MAX_OUTPUT_BYTES),
        (
            Setting::Workdir,
            profile.workdir_bytes,
            limits::MIN_WORKDIR_BYTES,
            limits::MAX_WORKDIR_BYTES,
        ),
        (
            Setting::CopyOnWrite,
            profile.overlay_bytes,
            limits::MIN_WORKDIR_BYTES,
            limits::MAX_WORKDIR_BYTES,
        ),
        (Setting::CopyOnWrite, count(overlays(profile)), 0, 1),
        (Setting::Inodes, profile.inodes, limits::MIN_INODES, limits::MAX_INODES),
        (Setting::CpuWeight, profile.cpu_weight.into(), 1, limits::MAX_CPU_WEIGHT.into()),
        (Setting::Swap, profile.swap_bytes, 0, limits::MAX_MEMORY_BYTES),
        (Setting::Environment, count(profile.variables.len()), 0, count(limits::MAX_VARIABLES)),
        (Setting::Binds, count(profile.binds.len()), 0, count(limits::MAX_BINDS)),
    ];
    let optional = [
        (
            Setting::Cpu,
            profile.cpu_milli.map(u64::from),
            limits::MIN_CPU_MILLI.into(),
            limits::MAX_CPU_MILLI.into(),
        ),
        (
            Setting::MemoryHigh,
            profile.memory_high_bytes,
            limits::MIN_MEMORY_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (
            Setting::AddressSpace,
            profile.address_space_bytes,
            limits::MIN_MEMORY_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (
            Setting::IoBandwidth,
            profile.io_bytes_per_second,
            limits::MIN_IO_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (Setting::IoOperations, profile.io_operations_per_second, 1, u32::MAX.into()),
    ];
    let given = optional.into_iter().filter_map(|(setting, given, least, most)| {
        given.map(|given| (setting, given, least, most))
    });
    for (setting, given, least, most) in rows.into_iter().chain(given) {
        if !(least..=most).contains(&given) {
            return Err(ProfileError::OutOfRange { setting, given, least, most });
        }
    }
    Ok(())
}

fn overlays(profile: &Profile) -> usize {
    profile.binds.iter().filter(|bind| bind.view == View::CopyOnWrite).count()
}

pub(super) fn variables(variables: &[(OsString, OsString)]) -> Result<(), ProfileError> {
    let malformed = |(name, value): &&(OsString, OsString)| {
        let bytes = name.as_encoded_bytes();
        bytes.is_empty() || bytes.contains(&b'=') || has_nul(name) || has_nul(value)
    };
    match variables.iter().find(malformed) {
        Some((name, _)) => Err(ProfileError::Variable { name: name.clone() }),
        None => Ok(()),
    }
}

pub(super) fn binds(binds: &[Bind]) -> Result<(), ProfileError> {
    for (index, bind) in binds.iter().enumerate() {
        if !bind.host.is_absolute() || has_nul(bind.host.as_os_str()) || is_long(&bind.host) {
            return Err(ProfileError::HostPath { path: bind.host.clone() });
        }
        if !is_plain(&bind.inside) || is_kept(&bind.inside) {
            return Err(ProfileError::InnerPath { path: bind.inside.clone() });
        }
        if binds.iter().take(index).any(|earlier| earlier.inside == bind.inside) {
            return Err(ProfileError::InnerPathTwice { path: bind.inside.clone() });
        }
    }
    Ok(())
}

/// Absolute, without `.` and `..`, of bounded depth, and not the root itself. `Path::components`
/// swallows a `.` in the middle, so the bytes are looked at.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let Some(rest) = bytes.strip_prefix(b"/") else { return false };
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
    !has_nul(path.as_os_str())
        && !is_long(path)
        && parts.len() <= limits::MAX_PATH_DEPTH
        && parts.iter().all(|part| !part.is_empty() && *part != b"." && *part != b"..")
}

/// `/proc` and `/dev` are what the promises of the level rest on.
fn is_kept(inside: &Path) -> bool {
    let first = inside.components().find(|part| matches!(part, Component::Normal(_)));
    first.is_some_and(|part| part.as_os_str() == "proc" || part.as_os_str() == "dev")
}

fn is_long(path: &Path) -> bool {
    path.as_os_str().len() >= limits::MAX_PATH_BYTES
}

fn has_nul(text: &OsStr) -> bool {
    text.as_encoded_bytes().contains(&0)
}
