//! `neuroflow doctor`: what this host can give each sandbox level, what to do about the rest, and
//! whether what it gives withstands attacks.

mod attacks;

use std::io::{self, Write};

use clap::Args;
use neuroflow::Level;
use neuroflow::sandbox::escape::{Attack, Comparison, Suite, SuiteError};
use neuroflow::sandbox::{Finding, LaunchError, Launcher, LauncherError, Profile, Verdict};
use serde::Serialize;

use self::attacks::LevelAttacks;
use super::exec::level_parser;
use super::{CliError, FAILURE, Globals, SUCCESS, small_runtime};
use crate::config::{ConfigError, Overrides, levels};

/// Tries what each sandbox level needs on this host, says what is missing and what helps, and
/// attacks the levels that can be had.
///
/// Every attack is made in a cell of its own and does no harm where nothing stops it. Exits with 0
/// if the configured level can be had and every attack on it was stopped by a wall that is known, and
/// with 1 otherwise: also if nobody knows what stopped an attack. One that another wall has stopped than
/// the promised one is listed. With `sandbox.allow_degraded` the configured level may do without some layers,
/// which are listed too, and is attacked without them.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List every attack, with what stopped it
    #[arg(long, short = 'v')]
    attempts: bool,
    /// Make only the attacks that take less than a second in all
    #[arg(long)]
    quick: bool,
    /// Examine and attack this level only, as if it were configured
    #[arg(long, value_parser = level_parser())]
    level: Option<Level>,
    /// Print a table of all attacks in Markdown, with the same in cells of bwrap if it's installed
    #[arg(long, conflicts_with_all = ["json", "attempts", "quick"])]
    markdown: bool,
    #[command(flatten)]
    settings: Overrides,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DoctorError {
    /// There is no launcher.
    #[error(
        "no program can be started in a cell here; cells need Linux, and this program's own file to be executable"
    )]
    Launcher(#[from] LauncherError),
    /// The launcher was lost.
    #[error("the examination was interrupted; try again")]
    Examine(#[source] Box<LaunchError>),
    /// The attacks couldn't be made.
    #[error("the attacks couldn't be made; see the reason, or try again with --quick")]
    Attack(#[from] SuiteError),
}

/// What was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    configured: String,
    available: bool,
    /// Whether every attack on the configured level was stopped, and it is known by what.
    holds: bool,
    /// What the attacks have shown of the configured level, if there were any.
    standing: Option<Standing>,
    /// Layers of the configured level that its cells do without here, by leave of the configuration.
    degraded: Vec<String>,
    levels: Vec<LevelRow>,
    attacks: Vec<LevelAttacks>,
}

/// What attacks have shown of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// Each was stopped by what has to stop it.
    Holds,
    /// Each was stopped by a wall that is known, some by another than the promised one.
    HoldsOtherwise,
    /// None is known to have got through, but what stopped some isn't known.
    Unshown,
    /// Some got through.
    Breached,
}

impl Standing {
    fn of(attacks: &LevelAttacks) -> Self {
        match (attacks.breaches, attacks.unclear, attacks.other_wall) {
            (0, 0, 0) => Self::Holds,
            (0, 0, _) => Self::HoldsOtherwise,
            (0, ..) => Self::Unshown,
            _ => Self::Breached,
        }
    }

    fn holds(self) -> bool {
        matches!(self, Self::Holds | Self::HoldsOtherwise)
    }
}

#[derive(Debug, Serialize)]
struct LevelRow {
    level: String,
    available: bool,
    layers: Vec<LayerRow>,
}

#[derive(Debug, Serialize)]
struct LayerRow {
    layer: String,
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl From<&Finding> for LayerRow {
    fn from(finding: &Finding) -> Self {
        let (reason, remedy) = match finding.verdict {
            Verdict::Available => (None, None),
            Verdict::Missing { reason, remedy } => {
                (Some(reason.to_string()), Some(remedy.to_string()))
            }
            Verdict::Unknown { behind } => {
                let first = format!("it can't be tried before the {behind} works");
                (Some(first), None)
            }
            _ => (Some("unknown".to_owned()), None),
        };
        let available = finding.is_available();
        Self { layer: finding.layer.to_string(), available, reason, remedy }
    }
}

impl Doctor {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        let configured = self.level.unwrap_or(loaded.config.sandbox.level);
        let terms = loaded.builder_at(configured).build().map_err(ConfigError::Sandbox)?;
        let findings = small_runtime()?.block_on(self.find(&terms))?;
        let diagnosis = Diagnosis::new(configured, &findings);
        if self.markdown {
            let levels: Vec<_> =
                findings.levels.into_iter().map(|found| (found.level, found.attacks)).collect();
            attacks::write_markdown(out, &levels, findings.peer.as_deref())?;
        } else if self.json {
            let json = serde_json::to_string_pretty(&diagnosis).map_err(io::Error::from)?;
            writeln!(out, "{json}")?;
        } else {
            diagnosis.write(out, self.attempts)?;
        }
        Ok(diagnosis.exit_code())
    }

    async fn find(&self, terms: &Profile) -> Result<Findings, DoctorError> {
        let launcher = Launcher::start_async().await?;
        let mut suite = Suite::prepare(&launcher)?.on_terms_of(terms);
        let mut found = Vec::new();
        for level in levels().filter(|level| self.level.is_none_or(|only| only == *level)) {
            let layers = launcher.examine(level).await;
            let layers = layers.map_err(|error| DoctorError::Examine(Box::new(error)))?;
            let may_lack = level == terms.level() && terms.allows_degraded();
            let is_had = layers.iter().all(|found| found.is_available() || lacks(found, may_lack));
            let attacks = if is_had {
                Some(attacks::attack(&mut suite, level, self.quick).await?)
            } else {
                None
            };
            found.push(Found { level, layers, may_lack, attacks });
        }
        let peer = if self.markdown { suite.compare().await? } else { None };
        Ok(Findings { levels: found, peer })
    }
}

/// All that was found out.
struct Findings {
    levels: Vec<Found>,
    peer: Option<Vec<Comparison>>,
}

/// What was found out about a level.
struct Found {
    level: Level,
    layers: Vec<Finding>,
    /// Whether cells of it may do without some of its layers.
    may_lack: bool,
    /// None if the level can't be had.
    attacks: Option<Vec<Attack>>,
}

/// Whether cells do without the layer, by leave of the configuration.
fn lacks(found: &Finding, may_lack: bool) -> bool {
    may_lack && !found.is_available() && found.layer.is_dispensable()
}

impl Diagnosis {
    fn new(configured: Level, findings: &Findings) -> Self {
        let mut this = Self {
            configured: configured.to_string(),
            available: false,
            holds: false,
            standing: None,
            degraded: Vec::new(),
            levels: Vec::new(),
            attacks: Vec::new(),
        };
        for Found { level, layers, may_lack, attacks } in &findings.levels {
            let available = layers.iter().all(Finding::is_available);
            let degraded = layers.iter().filter(|found| lacks(found, *may_lack));
            let degraded: Vec<String> = degraded.map(|found| found.layer.to_string()).collect();
            let is_had = layers.iter().all(|found| found.is_available() || lacks(found, *may_lack));
            let attacks = attacks.as_ref().map(|attacks| LevelAttacks::new(*level, attacks));
            if *level == configured {
                this.available = is_had;
                if is_had {
                    this.degraded = degraded;
                }
                this.standing = attacks.as_ref().map(Standing::of);
                this.holds = this.standing.is_some_and(Standing::holds);
            }
            let layers = layers.iter().map(LayerRow::from).collect();
            this.levels.push(LevelRow { level: level.to_string(), available, layers });
            this.attacks.extend(attacks);
        }
        this
    }
}

impl Diagnosis {
    fn exit_code(&self) -> u8 {
        if self.available && self.holds { SUCCESS } else { FAILURE }
    }

    fn write(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        for row in &self.levels {
            let is_degraded = row.level == self.configured && !self.degraded.is_empty();
            let verdict = match (row.available, is_degraded) {
                (true, _) => "available",
                (false, true) => "degraded",
                (false, false) => "unavailable",
            };
            let mark = if row.level == self.configured { " (sandbox.level)" } else { "" };
            writeln!(out, "{:<9} {verdict}{mark}", row.level)?;
            for layer in row.layers.iter().filter(|layer| !layer.available) {
                let reason = layer.reason.as_deref().unwrap_or_default();
                writeln!(out, "  missing: {}: {reason}", layer.layer)?;
                if let Some(remedy) = &layer.remedy {
                    writeln!(out, "    remedy: {remedy}")?;
                }
            }
        }
        for attacks in &self.attacks {
            writeln!(out)?;
            attacks.write(out, all)?;
        }
        self.write_verdict(out)
    }

    fn write_verdict(&self, out: &mut dyn Write) -> io::Result<()> {
        let configured = &self.configured;
        let known = self.standing.filter(|_| self.available);
        if let Some(standing) = known {
            let verdict = match standing {
                Standing::Holds => "works here and holds.",
                Standing::HoldsOtherwise => {
                    "works here and holds, but not by the promised walls alone: report what \
                     another wall had to stop (docs/SECURITY.md)."
                }
                Standing::Unshown => {
                    "isn't shown to hold here: nothing got through, but nobody knows what stopped \
                     the unclear attacks. Make them once more when the machine has less to do, and \
                     report what stays unclear (docs/SECURITY.md)."
                }
                Standing::Breached => {
                    "doesn't hold here: run nothing in it that you don't trust, and report what got \
                     through (docs/SECURITY.md)."
                }
            };
            writeln!(out, "\nThe configured level, {configured}, {verdict}")?;
            if !self.degraded.is_empty() {
                let without = self.degraded.join(", ");
                writeln!(out, "As sandbox.allow_degraded says, its cells do without {without}.")?;
            }
            return Ok(());
        }
        let weaker = self.levels.iter().rev().find(|row| row.available);
        let choice = weaker.map_or_else(
            || "no level works here: use another host".to_owned(),
            |row| format!("apply the remedies above, or set sandbox.level = {:?}", row.level),
        );
        writeln!(out, "\nThe configured level, {configured}, can't be had here: {choice}.")
    }
}

#[cfg(test)]
mod tests {
    use neuroflow::sandbox::escape::{Outcome, Stopped, Wall};
    use neuroflow::sandbox::{Layer, Reason, Remedy};

    use super::*;

    /// What doctor says and exits with when an attack on reading a host's file ended so.
    fn said(outcome: Outcome) -> (u8, String) {
        let attempt = Suite::attempts().find(|attempt| attempt.name == "read-host-file");
        let attack = Attack::new(attempt.expect("it is tried"), Level::Strict, outcome);
        let layers = vec![Finding { layer: Layer::PrivateRoot, verdict: Verdict::Available }];
        let attacks = Some(vec![attack]);
        let found = Found { level: Level::Strict, layers, may_lack: false, attacks };
        let findings = Findings { levels: vec![found], peer: None };
        let diagnosis = Diagnosis::new(Level::Strict, &findings);
        let mut text = Vec::new();
        diagnosis.write(&mut text, false).expect("text");
        (diagnosis.exit_code(), String::from_utf8(text).expect("text"))
    }

    fn by(layer: Wall) -> Outcome {
        Outcome::Stopped(Stopped { layer, evidence: "openat: ENOENT".to_owned() })
    }

    #[test]
    fn what_may_be_missing_is_no_failure_and_is_named() {
        let said = |layer, may_lack| {
            let verdict = Verdict::Missing {
                reason: Reason::CgroupNotDelegated,
                remedy: Remedy::DelegateCgroup,
            };
            let layers = vec![Finding { layer, verdict }];
            let found = Found { level: Level::Strict, layers, may_lack, attacks: Some(Vec::new()) };
            let findings = Findings { levels: vec![found], peer: None };
            let diagnosis = Diagnosis::new(Level::Strict, &findings);
            let mut text = Vec::new();
            diagnosis.write(&mut text, false).expect("text");
            (diagnosis.exit_code(), String::from_utf8(text).expect("text"))
        };
        let (code, text) = said(Layer::Cgroup, true);
        assert_eq!(code, SUCCESS, "{text}");
        assert!(text.contains("do without cgroup limits") && text.contains("missing"), "{text}");
        assert!(text.starts_with("strict    degraded (sandbox.level)\n"), "{text}");
        for (layer, may_lack) in [(Layer::Cgroup, false), (Layer::PidNamespace, true)] {
            let (code, text) = said(layer, may_lack);
            assert_eq!(code, FAILURE, "{text}");
            assert!(text.contains("can't be had") && !text.contains("do without"), "{text}");
        }
    }

    #[test]
    fn only_what_is_shown_holds() {
        let (code, text) = said(by(Wall::Layer(Layer::PrivateRoot)));
        assert!(code == SUCCESS && text.ends_with("strict, works here and holds.\n"), "{text}");
        let (code, text) = said(by(Wall::FirstProcess));
        assert_eq!(code, SUCCESS, "{text}");
        assert!(text.contains("1 stopped by another wall") && text.contains("read-host-file"));
        assert!(text.contains("not by the promised walls alone"), "{text}");
        let (code, text) = said(Outcome::Unclear("it said nothing".to_owned()));
        assert_eq!(code, FAILURE, "{text}");
        assert!(text.contains("1 unclear") && text.contains("isn't shown to hold"), "{text}");
        let (code, text) = said(Outcome::Succeeded("read it".to_owned()));
        assert_eq!(code, FAILURE, "{text}");
        assert!(text.contains("1 got through") && text.contains("doesn't hold"), "{text}");
    }
}
