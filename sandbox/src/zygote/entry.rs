//! The fork in the road before `main`: an ordinary start, the zygote's, or a probe's.
//!
//! The C library calls what stands in `.init_array` with the arguments of `main`, before `main`.
//! That is the one place that every program that links this crate passes, whatever its `main` does.

#![expect(unsafe_code, reason = "a constructor, and the C strings it is called with")]

use std::ffi::{CStr, c_char, c_int};

use crate::{
    escape,
    linux::sys::{credentials, probe::Alone, process, socket},
};

/// What a zygote is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cells of level minimal, which see the host as the host program does.
    Minimal,
    /// Cells with namespaces.
    Cells,
}

impl Kind {
    /// First argument of a process that is to become such a zygote. The host's own arguments can't
    /// be this by accident.
    pub(crate) const fn summons(self) -> &'static str {
        match self {
            Self::Minimal => "neuroflow-zygote-7c1f4b6e-minimal",
            Self::Cells => "neuroflow-zygote-7c1f4b6e-cells",
        }
    }
}

/// First argument of a process that is to attack its surroundings, for the escape suite.
pub(crate) const PROBE_SUMMONS: &str = "neuroflow-probe-7c1f4b6e";

/// The descriptor of the control socket in the zygote: standard input, which needs no arrangement
/// to get there.
pub(crate) const CONTROL: c_int = 0;

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Kept by the linker because [`is_linked`] reads it.
#[used]
// SAFETY: the section holds pointers to functions of this type; `divert` has it, and needs nothing
// that the program's start hasn't done by then: the C library is ready, and Rust's needs no
// preparation.
#[unsafe(link_section = ".init_array")]
static ENTRY: Constructor = divert;

/// Whether the constructor is part of the program. Always true; asking is what makes it so.
pub(crate) fn is_linked() -> bool {
    // SAFETY: reads an initialised static.
    let entry = unsafe { std::ptr::read_volatile(&raw const ENTRY) };
    std::ptr::fn_addr_eq(entry, divert as Constructor)
}

extern "C" fn divert(
    count: c_int,
    arguments: *const *const c_char,
    _environment: *const *const c_char,
) {
    if count < 2 || arguments.is_null() {
        return;
    }
    // SAFETY: `count` is 2 or more, so the list has an element with this index.
    let second = unsafe { arguments.add(1) };
    // SAFETY: the element is inside the list.
    let second = unsafe { second.read() };
    if second.is_null() {
        return;
    }
    // SAFETY: the elements before the last one are NUL-terminated strings that live as long as the
    // process.
    let second = unsafe { CStr::from_ptr(second) };
    if second.to_bytes() == PROBE_SUMMONS.as_bytes() {
        if credentials::is_set_user_id() {
            process::exit(REFUSED);
        }
        // SAFETY: before `main` there is one thread, and a probe keeps its promise.
        escape::probe::run(unsafe { Alone::promise() });
    }
    if count != 2 {
        return;
    }
    let kinds = [Kind::Minimal, Kind::Cells];
    let Some(kind) = kinds.into_iter().find(|kind| second.to_bytes() == kind.summons().as_bytes())
    else {
        return;
    };
    // Whoever starts a set-user-id program with our summons must not get a process that does their
    // bidding.
    if credentials::is_set_user_id() || !socket::is_ours(CONTROL) {
        process::exit(REFUSED);
    }
    super::process::run(kind);
}

const REFUSED: c_int = 126;
