//! Real Linux processes in cells: namespaces, private root, no capabilities, limits.
//!
//! A [`Cell`] is a description; each [`Cell::run`] makes a fresh one of it for a [`Program`]. Below it, a
//! [`Launcher`] starts a program under a [`Profile`] and hands out a [`Running`] cell, which streams
//! output and ends with a [`Report`]. A [`Level`] is a promise: what the host can't give is a
//! [`LaunchError::Unavailable`], never a weaker cell. [`examine`] finds that out beforehand.
//!
//! Nothing is ever forked from the host program. It executes itself once as a small process with
//! one thread, the zygote, which is diverted before `main` by a constructor that every program
//! linking this crate carries.

#![cfg_attr(
    not(target_os = "linux"),
    allow(
        dead_code,
        unused_imports,
        clippy::drop_non_drop,
        reason = "plans and protocol are for the launcher that needs Linux"
    )
)]

pub mod limits;

#[cfg(not(target_os = "linux"))]
mod absent;
mod account;
mod admission;
mod apart;
mod cell;
mod diagnosis;
mod doctor;
mod egress;
mod errno;
mod error;
pub mod escape;
#[cfg(all(test, target_os = "linux"))]
#[path = "../../tests/shared/eventually.rs"]
mod eventually;
mod exec;
#[cfg(all(test, target_os = "linux"))]
mod fuzzed;
#[cfg(target_os = "linux")]
mod input;
mod interpreter;
#[cfg(target_os = "linux")]
mod launcher;
mod level;
mod meter;
mod network;
#[cfg(test)]
mod noise;
mod output;
#[cfg(target_os = "linux")]
mod overlay;
mod plan;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(
    target_os = "linux",
    allow(unreachable_pub, dead_code, reason = "on Linux its tests are all that uses it")
)]
mod portable;
mod profile;
mod program;
mod report;
#[cfg(target_os = "linux")]
mod running;
#[cfg(target_os = "linux")]
mod seccomp;
mod server;
mod step;
#[cfg(all(test, target_os = "linux"))]
#[path = "../../tests/shared/untried.rs"]
mod untried;
mod zygote;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
use absent::{input, seccomp};
#[cfg(not(target_os = "linux"))]
use portable as launcher;
#[cfg(not(target_os = "linux"))]
use portable as running;

pub use account::{GroupUsage, LimitHit};
pub use cell::{Cell, RunError};
pub use diagnosis::{Controller, Reason, Remedy, Switch};
pub use doctor::{Finding, Verdict, examine};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use egress::fuzz as fuzz_egress;
pub use egress::{
    Decision, EgressReason, EgressReport, EgressVerdict, HostProblem, Outbound, OutboundError,
    OutboundStream, Outlet, OutletError, OutletStream,
};
pub use errno::Errno;
pub use error::{LaunchError, LauncherError};
pub use exec::{
    ArchivedExecEvent, ArchivedHow, ArchivedStream, EXEC, Ended, Exec, ExecEvent, ExecRefused, How,
    SERVE, SandboxCommand, Service, Stream,
};
pub use input::{InputError, SealedInput};
pub use interpreter::{Interpreter, InterpreterError};
pub use launcher::{Launcher, Warm};
pub use level::{Boundary, Layer, Level};
pub use meter::{CellMeter, Uncounted};
pub use network::{EgressLimit, EgressLimits, Network, NetworkError, Rule, RuleField, Secret};
pub use output::{Collected, Output};
#[cfg(target_os = "linux")]
pub use overlay::{
    ApplyError, Change, ChangeKind, Changes, ChangesError, Node, Overlay, Refused, RefusedReason,
};
pub use plan::ProgramError;
pub use profile::{Profile, ProfileBuilder, ProfileError, Setting};
pub use program::Program;
pub use report::{Denial, End, Report, Stage, Stages, Truncated, Usage};
pub use running::{CellInput, Running};
pub use seccomp::{CacheError, FilterError, SeccompError, SeccompProfile};
#[cfg(target_os = "linux")]
pub use seccomp::{ConditionProblem, Counted, Place, Section};
pub use server::{SandboxActor, SandboxServer};
pub use step::Step;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use zygote::protocol::fuzz as fuzz_protocol;
