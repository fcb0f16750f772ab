//! Runs attempts: each in a cell of its own, its control once in none.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Attack, Attempt, Class, Comparison, Control, Goal, Limits, Outcome, Reach, SuiteError, Wall,
    catalogue::{self, Entry},
    conclude::{self, Seen, conclude},
    expected,
    judge::{Judgement, judge},
    plain,
    record::Said,
    scene::{self, Scene},
};
use crate::{
    error::LaunchError,
    launcher::Launcher,
    level::{Layer, Level},
    limits,
    linux::sys::event,
    network::Network,
    profile::{Profile, ProfileBuilder},
    program::Program,
    report::Report,
    zygote::entry::PROBE_SUMMONS,
};

/// The attempts, with targets for them on this host.
///
/// Targets are files in the directory for temporary files and in the user's home, sockets on the
/// loopback device, a process and shared memory; all are made for this and go away with the suite.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_sandbox::{Launcher, Level, escape::Suite};
///
/// let launcher = Launcher::start()?;
/// let mut suite = Suite::prepare(&launcher)?;
/// for attack in suite.run(Level::Standard, |_| true, |_| ()).await? {
///     println!("{}: {:?}", attack.attempt.name, attack.judgement());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Suite {
    launcher: Launcher,
    scene: Scene,
    controls: BTreeMap<&'static str, Option<Outcome>>,
    /// What the executable takes of a process's address space.
    executable_bytes: u64,
    /// Runs so far; gives each a mark by which its processes are found.
    runs: u64,
    /// Whose terms the attacked cells have beside their level.
    terms: Option<Profile>,
}

impl Suite {
    /// Makes the targets. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// When a target can't be made, or the host's own executable isn't there any more.
    pub fn prepare(launcher: &Launcher) -> Result<Self, SuiteError> {
        let scene = Scene::set()?;
        let executable_bytes = mapped_bytes(&scene.executable);
        let launcher = launcher.clone();
        let controls = BTreeMap::new();
        Ok(Self { launcher, scene, controls, executable_bytes, runs: 0, terms: None })
    }

    /// Attacks cells that may do without the same layers as those of this profile, if this host lacks
    /// them. An attempt that only such a layer would stop isn't made ([`Outcome::Degraded`]).
    ///
    /// ```no_run
    /// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
    /// use neuroflow_sandbox::{Launcher, Level, Profile, escape::Suite};
    ///
    /// let launcher = Launcher::start()?;
    /// let profile = Profile::builder(Level::Strict).allow_degraded(true).build()?;
    /// Suite::prepare(&launcher)?.on_terms_of(&profile).hold(profile.level()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_terms_of(mut self, profile: &Profile) -> Self {
        self.terms = Some(profile.clone());
        self
    }

    /// All attempts.
    ///
    /// ```
    /// assert!(neuroflow_sandbox::escape::Suite::attempts().count() >= 70);
    /// ```
    pub fn attempts() -> impl Iterator<Item = &'static Attempt> {
        catalogue::entries().map(|entry| &entry.attempt)
    }

    /// Makes the attempts that `wanted` picks, one after the other, and tells `each` of every one
    /// as it ends.
    ///
    /// # Errors
    ///
    /// When a cell for an attempt doesn't start, for instance because the host can't give the
    /// level.
    pub async fn run(
        &mut self,
        level: Level,
        wanted: impl Fn(&Attempt) -> bool,
        mut each: impl FnMut(&Attack),
    ) -> Result<Vec<Attack>, SuiteError> {
        let mut attacks = Vec::new();
        for entry in catalogue::entries().filter(|entry| wanted(&entry.attempt)) {
            let attack = self.attack(entry, level).await?;
            each(&attack);
            attacks.push(attack);
        }
        Ok(attacks)
    }

    /// Makes the quick attempts, and refuses a level at which one gets through. What didn't get through,
    /// but wasn't stopped by what has to stop it either, is logged.
    ///
    /// # Errors
    ///
    /// [`SuiteError::Breached`] with the attempts that got through, or why there were none.
    pub async fn hold(&mut self, level: Level) -> Result<(), SuiteError> {
        let attacks = self.run(level, |attempt| attempt.quick, |_| ()).await?;
        let mut attempts = Vec::new();
        for attack in &attacks {
            let (attempt, outcome) = (attack.attempt.name, &attack.outcome);
            match attack.judgement() {
                Judgement::Breach => attempts.push(attempt),
                Judgement::OtherWall | Judgement::Unclear => tracing::warn!(
                    %level,
                    attempt,
                    ?outcome,
                    expected = ?attack.expected(),
                    "an attack wasn't stopped by what has to stop it"
                ),
                Judgement::Void if matches!(outcome, Outcome::Degraded(_)) => {
                    tracing::warn!(%level, attempt, ?outcome, "an attack wasn't made");
                }
                _ => {}
            }
        }
        if attempts.is_empty() { Ok(()) } else { Err(SuiteError::Breached { level, attempts }) }
    }

    /// Makes the attempts that need no limit in cells of `bwrap`, with the same namespaces and its
    /// own defaults otherwise; as nobody, if the host is root. `None` if it isn't installed.
    ///
    /// # Errors
    ///
    /// When it is there and can't be run.
    pub async fn compare(&mut self) -> Result<Option<Vec<Comparison>>, SuiteError> {
        let Some(peer) = plain::peer() else { return Ok(None) };
        let user = self.scene.is_root.then_some(plain::NOBODY);
        let mut comparisons = Vec::new();
        for entry in catalogue::entries() {
            let attempt = &entry.attempt;
            let outcome = if attempt.limits != Limits::Usual || attempt.goal != Goal::Reach {
                Outcome::NotTried("nothing of it would end it, or it is about our own launcher")
            } else {
                let (arguments, _) = self.arguments(attempt.name, Path::new("/tmp"));
                let wrapper = plain::bubblewrap(&peer, &self.scene.executable, PROBE);
                let leaked = scene::leak(&self.scene);
                let ran = plain::run(&self.scene.executable, arguments, wrapper, user).await;
                drop(leaked);
                let ran = ran.map_err(|source| SuiteError::Control {
                    attempt: attempt.name,
                    runner: "bwrap",
                    source,
                })?;
                let said = Said::parse(&ran.stdout);
                let seen = Seen {
                    said,
                    end: ran.end,
                    denied: Vec::new(),
                    memory_killed: false,
                    processes_refused: false,
                    left: 0,
                };
                let control = self.control(entry).await?;
                weigh(conclude(attempt, &seen), control.as_ref())
            };
            comparisons.push(Comparison { attempt, outcome });
        }
        Ok(Some(comparisons))
    }

    /// The attacker's arguments, and the one among them by which its processes are found.
    pub(super) fn arguments(&mut self, name: &str, scratch: &Path) -> (Vec<String>, String) {
        self.runs += 1;
        let mark = format!("mark={}.{}", std::process::id(), self.runs);
        let fixed = [PROBE_SUMMONS.to_owned(), name.to_owned(), mark.clone()];
        let zygote = self.launcher.zygote_pid(Level::Standard);
        let zygote = zygote.map(|pid| format!("zygote={pid}"));
        (fixed.into_iter().chain(zygote).chain(self.scene.parameters(scratch)).collect(), mark)
    }

    async fn attack(&mut self, entry: &'static Entry, level: Level) -> Result<Attack, SuiteError> {
        let attempt = &entry.attempt;
        let begun = event::now();
        let degraded = self.degraded(level).await.map_err(|source| SuiteError::Launch {
            attempt: attempt.name,
            source: Box::new(source),
        })?;
        let walls = expected::walls(attempt.name, level, &degraded);
        let (outcome, control) = if let Some(layer) = expected::lost(attempt.name, level, &degraded)
        {
            (Outcome::Degraded(layer), None)
        } else if attempt.reach == Reach::Bounded && walls.is_empty() {
            (Outcome::NotTried("nothing that this level promises would stop it"), None)
        } else {
            let control = self.control(entry).await?;
            let mut outcome = weigh(self.once(entry, level).await?, control.as_ref());
            // A machine under load cuts an attempt short; what showed nothing is made once more.
            if judge(&outcome, &walls) == Judgement::Unclear {
                outcome = weigh(self.once(entry, level).await?, control.as_ref());
            }
            (outcome, control)
        };
        let took = Duration::from_nanos(event::now().saturating_sub(begun));
        Ok(Attack { attempt, level, degraded, outcome, control, took })
    }

    async fn once(&mut self, entry: &'static Entry, level: Level) -> Result<Outcome, SuiteError> {
        match entry.around {
            Some(around) => around(self, entry, level).await,
            None => self.inside(entry, level).await,
        }
    }

    /// Layers that an attacked cell of the level does without.
    async fn degraded(&self, level: Level) -> Result<Vec<Layer>, LaunchError> {
        match &self.terms {
            Some(terms) if terms.allow_degraded => {
                self.launcher.lacks(level, terms.limits_io() && has_groups(level)).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The attempt in a cell.
    async fn inside(&mut self, entry: &Entry, level: Level) -> Result<Outcome, SuiteError> {
        let launcher = self.launcher.clone();
        self.inside_of(&launcher, entry, level).await
    }

    /// The same in a cell of this launcher.
    pub(super) async fn inside_of(
        &mut self,
        launcher: &Launcher,
        entry: &Entry,
        level: Level,
    ) -> Result<Outcome, SuiteError> {
        let attempt = &entry.attempt;
        let failed = |error| SuiteError::Launch { attempt: attempt.name, source: Box::new(error) };
        let (arguments, mark) = self.arguments(attempt.name, &self.scratch(level));
        let program = Program::new(self.probe_path(level)).args(arguments);
        let Ok(mut profile) = self.profile_for(level, attempt).build() else {
            return Ok(Outcome::NotTried("this level has no such cells"));
        };
        let mut cell = launcher.launch(&profile, &program).await;
        if matches!(cell, Err(LaunchError::Overdue)) {
            // A machine under load takes longer to load the attacker than the attack was to last. What
            // didn't run shows nothing.
            profile.wall_time = limits::PROBE_WALL_TIME;
            cell = launcher.launch(&profile, &program).await;
        }
        let cell = cell.map_err(failed)?;
        let collected = cell.collect().await;
        let left = self.left(&mark).await;
        let seen = seen(&collected.report, Said::parse(&collected.stdout), left);
        Ok(conclude(attempt, &seen))
    }

    /// The attempt without a cell, made once. `None` if there is no control.
    async fn control(&mut self, entry: &Entry) -> Result<Option<Outcome>, SuiteError> {
        let attempt = &entry.attempt;
        if matches!(attempt.control, Control::None(_)) || entry.inside.is_none() {
            return Ok(None);
        }
        if let Some(known) = self.controls.get(attempt.name) {
            return Ok(known.clone());
        }
        let scratch = self.scene.scratch();
        let (mut arguments, _) = self.arguments(attempt.name, &scratch);
        arguments.push("control=yes".to_owned());
        let leaked = scene::leak(&self.scene);
        let ran = plain::run(&self.scene.executable, arguments, Vec::new(), None).await;
        drop(leaked);
        let ran = ran.map_err(|source| SuiteError::Control {
            attempt: attempt.name,
            runner: "a control",
            source,
        })?;
        let lacks_rights = attempt.control == Control::Root && !self.scene.is_root;
        let outcome = match Said::parse(&ran.stdout) {
            Some(Said::Succeeded(what)) => Some(Outcome::Succeeded(what)),
            // That it fails says something only if root would fail as well.
            Some(Said::Failed { errno, .. }) if lacks_rights && !conclude::is_missing(errno) => {
                None
            }
            Some(Said::Failed { call, errno }) => {
                let why = format!("without a cell: {call}: {}", conclude::name(errno));
                Some(Outcome::Moot(why))
            }
            None => Some(Outcome::Moot(format!("without a cell: {:?}", ran.end))),
        };
        self.controls.insert(attempt.name, outcome.clone());
        Ok(outcome)
    }

    /// Where a probe may write.
    fn scratch(&self, level: Level) -> PathBuf {
        if level == Level::Minimal { self.scene.scratch() } else { PathBuf::from("/tmp") }
    }

    pub(super) fn probe_path(&self, level: Level) -> PathBuf {
        if level == Level::Minimal { self.scene.executable.clone() } else { PathBuf::from(PROBE) }
    }

    /// The profile of an attempt: with everything that the attempt could use, so that what stops it
    /// is what has to.
    fn profile_for(&self, level: Level, attempt: &Attempt) -> ProfileBuilder {
        let profile = self.profile(level, attempt.limits);
        if attempt.limits == Limits::Proxied {
            return profile.network(self.scene.network());
        }
        let has_sockets = level == Level::Standard || level == Level::Strict;
        if attempt.class == Class::Network && has_sockets {
            profile.network(Network::loopback())
        } else {
            profile
        }
    }

    pub(super) fn profile(&self, level: Level, limits: Limits) -> ProfileBuilder {
        let mut profile = Profile::builder(level).wall_time(match limits {
            Limits::Usual | Limits::Proxied => limits::PROBE_WALL_TIME,
            Limits::Tight => limits::PROBE_TIGHT_WALL_TIME,
            Limits::Short => limits::PROBE_SHORT_WALL_TIME,
        });
        if let Some(terms) = &self.terms {
            profile = profile.allow_degraded(terms.allow_degraded);
            // What is wanted of disks decides whether the level can be had.
            if has_groups(level) {
                if let Some(bytes) = terms.io_bytes_per_second {
                    profile = profile.io_bandwidth(bytes);
                }
                if let Some(operations) = terms.io_operations_per_second {
                    profile = profile.io_operations(operations);
                }
            }
        }
        let is_little = limits == Limits::Tight || limits == Limits::Short;
        if is_little {
            let memory = limits::PROBE_MEMORY_BYTES.saturating_add(self.executable_bytes);
            profile = profile
                .memory(memory)
                .open_files(limits::PROBE_OPEN_FILES)
                .file_size(limits::PROBE_FILE_BYTES)
                .output(limits::PROBE_OUTPUT_BYTES);
        }
        if level == Level::Minimal {
            return profile;
        }
        if is_little {
            profile = profile.processes(limits::PROBE_PROCESSES);
        }
        profile.bind_ro(&self.scene.executable, PROBE)
    }

    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    pub(super) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Processes of this host that have the mark among their arguments. One that is about to end is
    /// given time to.
    pub(super) async fn left(&self, mark: &str) -> usize {
        for _ in 0..limits::PROBE_LEFT_LOOKS {
            if processes_with(mark) == 0 {
                return 0;
            }
            pause_for(limits::PROBE_LEFT_PAUSE).await;
        }
        processes_with(mark)
    }
}

/// What fails without a cell as well shows nothing, except if the filter says that it was the
/// filter.
fn weigh(outcome: Outcome, control: Option<&Outcome>) -> Outcome {
    match (outcome, control) {
        (Outcome::Stopped(stopped), Some(Outcome::Moot(why)))
            if stopped.layer != Wall::Layer(Layer::Seccomp) =>
        {
            Outcome::Moot(why.clone())
        }
        (Outcome::Unclear(_), Some(Outcome::Moot(why))) => Outcome::Moot(why.clone()),
        (outcome, _) => outcome,
    }
}

/// What a report shows of an attempt.
fn seen(report: &Report, said: Option<Said>, left: usize) -> Seen {
    Seen {
        said,
        end: report.end,
        denied: report.denials.iter().map(|denial| denial.call.clone()).collect(),
        memory_killed: report.group.oom_kills.is_some_and(|kills| kills > 0),
        processes_refused: report.group.processes_refused.is_some_and(|refused| refused > 0),
        left,
    }
}

fn has_groups(level: Level) -> bool {
    level.layers().contains(&Layer::Cgroup)
}

fn processes_with(mark: &str) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let marked = processes.flatten().filter(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
    });
    marked.count()
}

#[expect(clippy::disallowed_methods, reason = "waits for the kernel, which no clock of ours moves")]
pub(super) async fn pause_for(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The length of all mappings of a file in this process.
fn mapped_bytes(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = maps.lines().filter(|line| path.to_str().is_some_and(|path| line.ends_with(path)));
    let lengths = own.filter_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(end)?.checked_sub(address(start)?)
    });
    lengths.sum()
}

/// Where a cell sees the attacker.
const PROBE: &str = "/probe";
