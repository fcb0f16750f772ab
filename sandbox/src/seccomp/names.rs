//! Names and numbers of system calls: what libseccomp knows, and a table for what is newer.

use std::borrow::Cow;

use libseccomp::{ScmpArch, ScmpSyscall};

use crate::limits;

/// What a name means on this architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Number(u32),
    /// Other architectures have the call, and this one does without.
    Elsewhere,
    Unknown,
}

/// Looks a name up.
pub(crate) fn meaning(name: &str) -> Meaning {
    if let Some((_, number)) = NEWER.iter().find(|(known, _)| *known == name) {
        return Meaning::Number(*number);
    }
    if let Some(number) = numbered(name) {
        return Meaning::Number(number);
    }
    match ScmpSyscall::from_name(name) {
        Ok(call) => {
            u32::try_from(call.as_raw_syscall()).map_or(Meaning::Elsewhere, Meaning::Number)
        }
        Err(_) => Meaning::Unknown,
    }
}

/// The name of a call, or `syscall_<number>` for one that nobody here has heard of.
pub(crate) fn name(number: u32) -> Cow<'static, str> {
    if let Some((name, _)) = NEWER.iter().find(|(_, known)| *known == number) {
        return Cow::Borrowed(name);
    }
    let known = i32::try_from(number)
        .ok()
        .and_then(|raw| ScmpSyscall::from(raw).get_name_by_arch(ScmpArch::native()).ok());
    known.map_or_else(|| Cow::Owned(format!("syscall_{number}")), Cow::Owned)
}

/// The closest name of a call, if one is close enough to be meant.
pub(crate) fn near(name_given: &str) -> Option<String> {
    let shortened: String = name_given.chars().take(LONGEST).collect();
    let (distance, name) = (0..limits::MAX_SYSTEM_CALL)
        .map(|number| name(number).into_owned())
        .map(|known| (strsim::damerau_levenshtein(&shortened, &known), known))
        .min()?;
    (distance <= 2).then_some(name)
}

/// What [`name`] gives a call without a name means that call again.
fn numbered(text: &str) -> Option<u32> {
    let number = text.strip_prefix("syscall_")?.parse().ok()?;
    (number < limits::MAX_SYSTEM_CALL && name(number) == text).then_some(number)
}

/// Letters of the longest name there is, roughly.
const LONGEST: usize = 32;

/// Calls with the same number everywhere that older versions of libseccomp don't know.
const NEWER: [(&str, u32); 24] = [
    ("process_mrelease", 448),
    ("futex_waitv", 449),
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
    ("rseq_slice_yield", 471),
];
