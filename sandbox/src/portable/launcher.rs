//! Starts programs at level `minimal`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Order, Refusal, host, lacking, running::Running, why};
use crate::{
    diagnosis::{Reason, Remedy},
    doctor::{Finding, Verdict},
    errno::Errno,
    error::{LaunchError, LauncherError},
    interpreter::Interpreter,
    level::{Layer, Level},
    plan::{self, Purpose},
    profile::Profile,
    program::Program,
};

/// Starts programs. On this system at [`Level::Minimal`] only, for profiles that may do without what the
/// system can't give ([`allow_degraded`](crate::ProfileBuilder::allow_degraded)): limits of memory, the
/// end of descendants that leave their process group, a bar to new privileges. Elsewhere than on a Unix
/// also without any resource limit or a session, and without the end of any descendant.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_sandbox::{Launcher, Level, Profile, Program};
///
/// let launcher = Launcher::start()?;
/// let profile = Profile::builder(Level::Minimal).allow_degraded(true).build()?;
/// let cell = launcher.launch(&profile, &Program::new("echo").arg("hello")).await?;
/// assert_eq!(cell.collect().await.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Launcher {
    /// A launcher is made by `start`, as where it has a process of its own.
    _made: (),
}

#[expect(
    clippy::unused_async,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the methods of the one for Linux are asynchronous, look at it, and can fail"
)]
impl Launcher {
    /// Makes one. There is no process behind it here.
    ///
    /// # Errors
    ///
    /// None.
    pub fn start() -> Result<Self, LauncherError> {
        Ok(Self { _made: () })
    }

    /// As [`Launcher::start`].
    ///
    /// # Errors
    ///
    /// None.
    pub async fn start_async() -> Result<Self, LauncherError> {
        Self::start()
    }

    /// As [`Launcher::start`]; there are no filters here that a directory could keep.
    ///
    /// # Errors
    ///
    /// None.
    pub fn start_with_cache(_directory: impl Into<PathBuf>) -> Result<Self, LauncherError> {
        Self::start()
    }

    /// Starts a program; returns when it is loaded and runs. Needs a tokio runtime that watches descriptors
    /// and has a timer.
    ///
    /// # Errors
    ///
    /// Any level but `minimal`, a layer that the profile may not do without, or a program that can't be
    /// executed.
    pub async fn launch(
        &self,
        profile: &Profile,
        program: &Program,
    ) -> Result<Running, LaunchError> {
        // The bounds are those of every system.
        plan::order(profile, program, Purpose::Run)?;
        let degraded = lacking(profile)?;
        tracing::warn!(level = %profile.level, ?degraded, "a cell does without layers of its level");
        let directory = plan::start_directory(profile, program);
        if let Err(source) = std::fs::read_dir(directory) {
            let source = Errno::from_raw(source.raw_os_error().unwrap_or(NOT_A_DIRECTORY));
            return Err(LaunchError::Directory { path: directory.to_owned(), source });
        }
        let unknown = |error: &std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(IO));
        let cannot = |source| LaunchError::Program { path: program.path().into(), source };
        let file = find(profile, program).ok_or_else(|| cannot(Errno::from_raw(NOT_FOUND)))?;
        let feeds = program.is_interactive()
            || program
                .sealed_input()
                .map_or(!program.piped_input().is_empty(), |input| !input.is_empty());
        let order = Order {
            file,
            name: program.path(),
            arguments: program.arguments(),
            directory: directory.to_owned(),
            variables: variables(profile),
            limits: plan::resources(profile, false),
            is_written: feeds,
        };
        let pipes = |error: &std::io::Error| LaunchError::Pipes { source: unknown(error) };
        let started = host::start(&order).map_err(|refusal| match refusal {
            Refusal::Program(error) => cannot(unknown(&error)),
            Refusal::Pipes(error) => pipes(&error),
            Refusal::NotInForce(layer) => LaunchError::Unavailable {
                layer,
                reason: Reason::NotInForce,
                remedy: Remedy::AnotherHost,
            },
        })?;
        Running::new(started, profile, program, degraded).map_err(|error| pipes(&error))
    }

    /// Says of each layer of a level whether this system gives it.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn examine(&self, level: Level) -> Result<Vec<Finding>, LaunchError> {
        let verdict = |layer: Layer| {
            if super::GIVEN.contains(&layer) {
                return Verdict::Available;
            }
            let (reason, remedy) = why(layer);
            Verdict::Missing { reason, remedy }
        };
        let layers = level.layers().iter().copied();
        Ok(layers.map(|layer| Finding { layer, verdict: verdict(layer) }).collect())
    }

    /// Refuses: cells of level `minimal` can't be made ahead, on any system.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn keep_warm(&self, profile: &Profile, _warm: Warm) -> Result<(), LaunchError> {
        lacking(profile)?;
        Err(LaunchError::NotPreparable { level: profile.level })
    }

    /// Refuses, as [`Launcher::keep_warm`] does.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn keep_interpreter_warm(
        &self,
        profile: &Profile,
        _interpreter: &Interpreter,
        warm: Warm,
    ) -> Result<(), LaunchError> {
        self.keep_warm(profile, warm)
    }

    pub(crate) async fn rehearse(&self, profile: &Profile) -> Result<(), LaunchError> {
        lacking(profile).map(drop)
    }
}

/// How many cells are kept ready.
///
/// ```
/// let warm = neuroflow_sandbox::Warm { least: 2, most: 16 };
/// assert!(warm.least <= warm.most);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// As many wait at least.
    pub least: u16,
    /// Never more than this.
    pub most: u16,
}

/// The first of the program's places where there is a file. A place may be given without the ending that
/// executables have on some systems.
fn find(profile: &Profile, program: &Program) -> Option<PathBuf> {
    let with_ending = |place: &Path| {
        let mut name = place.as_os_str().to_owned();
        name.push(std::env::consts::EXE_SUFFIX);
        PathBuf::from(name)
    };
    let start = plan::start_directory(profile, program);
    let places = candidates(profile, program).into_iter().map(|place| start.join(place));
    places.flat_map(|place| [with_ending(&place), place]).find(|place| place.is_file())
}

#[cfg(not(windows))]
fn candidates(profile: &Profile, program: &Program) -> Vec<PathBuf> {
    plan::candidates(profile, program)
}

#[cfg(not(windows))]
fn variables(profile: &Profile) -> Vec<(OsString, OsString)> {
    let owned = |(name, value): (&std::ffi::OsStr, std::borrow::Cow<'_, std::ffi::OsStr>)| {
        (name.to_owned(), value.into_owned())
    };
    plan::environment(profile).into_iter().map(owned).collect()
}

/// The program's path, or, where the profile names no `PATH`, the system's own directories.
#[cfg(windows)]
fn candidates(profile: &Profile, program: &Program) -> Vec<PathBuf> {
    let path = program.path();
    let is_path = path.as_encoded_bytes().iter().any(|byte| [b'/', b'\\'].contains(byte));
    let is_named = profile.variables.iter().any(|(name, _)| name == "PATH");
    if is_path {
        vec![path.into()]
    } else if is_named {
        plan::candidates(profile, program)
    } else {
        system_directories().into_iter().map(|directory| directory.join(path)).collect()
    }
}

/// As everywhere, with the system's own directories for `PATH`, and where the system is, without which
/// its libraries aren't found.
#[cfg(windows)]
fn variables(profile: &Profile) -> Vec<(OsString, OsString)> {
    let named = |wanted: &str| profile.variables.iter().any(|(name, _)| name == wanted);
    let mut all: Vec<(OsString, OsString)> = plan::environment(profile)
        .into_iter()
        .filter(|(name, _)| *name != "PATH" || named("PATH"))
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect();
    if let Some(root) = std::env::var_os("SystemRoot").filter(|_| !named("SystemRoot")) {
        all.push(("SystemRoot".into(), root));
    }
    if let (false, Ok(path)) = (named("PATH"), std::env::join_paths(system_directories())) {
        all.push(("PATH".into(), path));
    }
    all
}

#[cfg(windows)]
fn system_directories() -> Vec<PathBuf> {
    let root = std::env::var_os("SystemRoot").map_or_else(PathBuf::new, PathBuf::from);
    vec![root.join("System32"), root]
}

/// `ENOENT`, and `ERROR_FILE_NOT_FOUND`.
const NOT_FOUND: i32 = 2;
/// `EIO`, and for Windows, where it means something near, `ERROR_ACCESS_DENIED`.
const IO: i32 = 5;
/// `ENOTDIR`; `ERROR_DIRECTORY`.
const NOT_A_DIRECTORY: i32 = if cfg!(windows) { 267 } else { 20 };
