//! Gives all privileges up, and looks whether they are gone.

use super::{
    At, Failure,
    sys::{Result, credentials},
};
use crate::step::Step;

/// For a cell with its own user ids. The bounding set comes first, while there still is a right to
/// change it.
pub(super) fn drop_all(capabilities: u64) -> std::result::Result<(), Failure> {
    credentials::forbid_privileges().at(Step::ForbidPrivileges)?;
    for capability in 0..capabilities {
        credentials::drop_from_bounding_set(capability)
            .at_index(Step::EmptyBoundingSet, index(capability))?;
    }
    credentials::lock_secure_bits().at(Step::LockSecureBits)?;
    credentials::clear_ambient_set().at(Step::DropCapabilities)?;
    credentials::drop_capabilities().at(Step::DropCapabilities)?;
    verify_capabilities(capabilities).at(Step::VerifyCapabilities)?;
    verify_privileges().at(Step::VerifyPrivileges)
}

/// For a cell without them.
pub(super) fn forbid_privileges() -> std::result::Result<(), Failure> {
    credentials::forbid_privileges().at(Step::ForbidPrivileges)?;
    verify_privileges().at(Step::VerifyPrivileges)
}

fn verify_capabilities(capabilities: u64) -> Result<()> {
    // What isn't both permitted and inheritable can't be ambient, so that set needs no look of its
    // own.
    let mut empty = credentials::has_no_capabilities()? && credentials::secure_bits_locked()?;
    for capability in 0..capabilities {
        empty &= !credentials::in_bounding_set(capability)?;
    }
    if empty { Ok(()) } else { Err(credentials::NOT_AS_SET) }
}

fn verify_privileges() -> Result<()> {
    if credentials::privileges_forbidden()? { Ok(()) } else { Err(credentials::NOT_AS_SET) }
}

fn index(capability: u64) -> usize {
    usize::try_from(capability).unwrap_or(usize::MAX)
}
