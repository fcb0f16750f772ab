//! The short way: a description of a cell that runs programs.

use std::sync::{Arc, OnceLock};

use crate::{
    error::{LaunchError, LauncherError},
    launcher::Launcher,
    level::Level,
    output::Collected,
    profile::{Profile, ProfileBuilder},
    program::Program,
    running::Running,
};

/// What a cell may use, and the way to run programs in it. Every run has a fresh cell: nothing that
/// one program leaves behind is there for the next.
///
/// A launcher is started with the first run, and shared by clones.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use neuroflow_sandbox::{Cell, Level, Network, Program, Rule};
///
/// let cell = Cell::builder(Level::Strict)
///     .workdir("/home/me/project")
///     .memory(256 << 20)
///     .cpu(0.5)
///     .processes(16)
///     .wall_time(Duration::from_secs(10))
///     .network(Network::allow([Rule::host("pypi.org")]))
///     .bind_ro("/opt/tools", "/opt/tools")
///     .env("LANG", "C.UTF-8")
///     .build()?;
/// let done = cell.run(Program::new("make").arg("test")).await?;
/// println!("{:?}, {} bytes of output", done.report.end, done.stdout.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    profile: Profile,
    launcher: OnceLock<Launcher>,
}

impl Cell {
    /// Starts a description with the defaults of [`crate::limits`].
    pub fn builder(level: Level) -> ProfileBuilder<Self> {
        ProfileBuilder::new(level)
    }

    /// A cell whose programs are started by this launcher, which others use too.
    pub fn with_launcher(profile: Profile, launcher: Launcher) -> Self {
        let launcher = OnceLock::from(launcher);
        Self { shared: Arc::new(Shared { profile, launcher }) }
    }

    /// What it may use.
    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// The launcher; it is started now if no program ran before, and then this blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// When the host's own executable can't be started again, or doesn't answer.
    pub fn launcher(&self) -> Result<&Launcher, LauncherError> {
        if let Some(launcher) = self.shared.launcher.get() {
            return Ok(launcher);
        }
        let started = Launcher::start()?;
        Ok(self.shared.launcher.get_or_init(|| started))
    }

    /// Starts a program in a fresh cell, and hands out its output as it comes.
    ///
    /// # Errors
    ///
    /// As for [`Launcher::launch`].
    pub async fn start(&self, program: Program) -> Result<Running, LaunchError> {
        let launcher = if let Some(launcher) = self.shared.launcher.get() {
            launcher
        } else {
            let started = Launcher::start_async().await?;
            self.shared.launcher.get_or_init(|| started)
        };
        launcher.launch(&self.shared.profile, &program).await
    }

    /// Runs a program in a fresh cell to the end of the whole cell, and keeps its output.
    ///
    /// # Errors
    ///
    /// As for [`Launcher::launch`]. How the program ended is in the report.
    pub async fn run(&self, program: Program) -> Result<Collected, LaunchError> {
        Ok(self.start(program).await?.collect().await)
    }

    /// The same for callers without an asynchronous runtime; the calling thread waits.
    ///
    /// ```no_run
    /// use neuroflow_sandbox::{Cell, Level, Program};
    ///
    /// let cell = Cell::builder(Level::Strict).build()?;
    /// let done = cell.run_blocking(Program::new("echo").arg("hello"))?;
    /// assert_eq!(done.stdout, b"hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Cell::run`], and [`RunError::Asynchronous`] on a thread that belongs to a runtime:
    /// there, waiting would stop everybody else's work.
    pub fn run_blocking(&self, program: Program) -> Result<Collected, RunError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(RunError::Asynchronous);
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime =
            runtime.enable_all().build().map_err(|source| RunError::Runtime { source })?;
        Ok(runtime.block_on(self.run(program))?)
    }
}

impl From<Profile> for Cell {
    fn from(profile: Profile) -> Self {
        Self { shared: Arc::new(Shared { profile, launcher: OnceLock::new() }) }
    }
}

/// Why a program wasn't run by a thread that waits.
///
/// ```
/// let error = neuroflow_sandbox::RunError::Asynchronous;
/// assert!(error.to_string().contains("Cell::run"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The cell didn't start.
    #[error("the cell didn't start")]
    Launch(#[from] LaunchError),
    /// The thread belongs to a runtime.
    #[error(
        "this thread belongs to an asynchronous runtime, which waiting would stop; use Cell::run"
    )]
    Asynchronous,
    /// There is no runtime to wait with.
    #[error("the system refused what waiting needs")]
    Runtime {
        /// What it says.
        #[source]
        source: std::io::Error,
    },
}
