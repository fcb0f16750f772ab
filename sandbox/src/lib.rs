//! Real Linux processes in cells: namespaces, private root, no capabilities, limits.
//!
//! A [`Launcher`] starts a [`Program`] under a [`Profile`] and hands out a [`Cell`], which streams
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
        reason = "plans and protocol are for launchers, which need Linux"
    )
)]

pub mod limits;

#[cfg(not(target_os = "linux"))]
mod absent;
#[cfg(target_os = "linux")]
mod cell;
mod diagnosis;
mod doctor;
mod errno;
mod error;
mod exec;
#[cfg(target_os = "linux")]
mod launcher;
mod level;
#[cfg(test)]
mod noise;
mod output;
mod plan;
mod profile;
mod program;
mod report;
mod server;
mod step;
mod zygote;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
use absent::{cell, launcher};

pub use cell::{Cell, Collected, Output};
pub use diagnosis::{Reason, Remedy, Switch};
pub use doctor::{Finding, Verdict, examine};
pub use errno::Errno;
pub use error::{LaunchError, LauncherError};
pub use exec::{
    ArchivedExecEvent, ArchivedHow, ArchivedStream, EXEC, Ended, Exec, ExecEvent, ExecRefused, How,
    SandboxCommand, Stream,
};
pub use launcher::Launcher;
pub use level::{Layer, Level};
pub use plan::ProgramError;
pub use profile::{Profile, ProfileBuilder, ProfileError, Setting};
pub use program::Program;
pub use report::{End, Report, Stage, Stages, Truncated, Usage};
pub use server::SandboxServer;
pub use step::Step;
