//! Gives all privileges up, and looks whether they are gone.

use super::{
    At, Failure,
    sys::{Result, credentials},
};
use crate::step::Step;

/// Takes away what could bring a capability back, and looks whether it is gone. Neither comes back, so
/// this may be done long before the rest; it comes first, while there still is a right to it.
pub(super) fn empty_bounding_set(capabilities: u64) -> std::result::Result<(), Failure> {
    credentials::forbid_privileges().at(Step::ForbidPrivileges)?;
    for capability in 0..capabilities {
        credentials::drop_from_bounding_set(capability)
            .at_index(Step::EmptyBoundingSet, index(capability))?;
    }
    verify_bounding_set(capabilities).at(Step::VerifyCapabilities)
}

/// For a cell with its own user ids whose bounding set is empty.
pub(super) fn drop_all() -> std::result::Result<(), Failure> {
    credentials::lock_secure_bits().at(Step::LockSecureBits)?;
    credentials::clear_ambient_set().at(Step::DropCapabilities)?;
    credentials::drop_capabilities().at(Step::DropCapabilities)?;
    verify_capabilities().at(Step::VerifyCapabilities)?;
    verify_privileges().at(Step::VerifyPrivileges)
}

/// For a cell without them.
pub(super) fn forbid_privileges() -> std::result::Result<(), Failure> {
    credentials::forbid_privileges().at(Step::ForbidPrivileges)?;
    verify_privileges().at(Step::VerifyPrivileges)
}

fn verify_capabilities() -> Result<()> {
    // What isn't both permitted and inheritable can't be ambient, so that set needs no look of its
    // own.
    if credentials::has_no_capabilities()? && credentials::secure_bits_locked()? {
        Ok(())
    } else {
        Err(credentials::NOT_AS_SET)
    }
}

fn verify_bounding_set(capabilities: u64) -> Result<()> {
    let mut empty = true;
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
