//! `neuroflow doctor`: what this host can give each sandbox level, what to do about the rest, and
//! whether what it gives withstands attacks.

mod attacks;

use std::io::{self, Write};

use clap::Args;
use neuroflow::Level;
use neuroflow::sandbox::escape::{Attack, Comparison, Suite, SuiteError};
use neuroflow::sandbox::{Finding, LaunchError, Launcher, LauncherError, Verdict};
use serde::Serialize;

use self::attacks::LevelAttacks;
use super::exec::level_parser;
use super::{CliError, FAILURE, Globals, SUCCESS, small_runtime};
use crate::config::{Loaded, Overrides, levels};

/// Tries what each sandbox level needs on this host, says what is missing and what helps, and
/// attacks the levels that can be had.
///
/// Every attack is made in a cell of its own and does no harm where nothing stops it. Exits with 0
/// if the configured level can be had and no attack got through it, and with 1 otherwise.
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
    /// Whether no attack got through the configured level.
    holds: bool,
    levels: Vec<LevelRow>,
    attacks: Vec<LevelAttacks>,
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
        let loaded = Loaded::from_process(globals.source, &self.settings)?;
        let configured = self.level.unwrap_or(loaded.config.sandbox.level);
        let findings = small_runtime()?.block_on(self.find())?;
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
        Ok(if diagnosis.available && diagnosis.holds { SUCCESS } else { FAILURE })
    }

    async fn find(&self) -> Result<Findings, DoctorError> {
        let launcher = Launcher::start()?;
        let mut suite = Suite::prepare(&launcher)?;
        let mut found = Vec::new();
        for level in levels().filter(|level| self.level.is_none_or(|only| only == *level)) {
            let layers = launcher.examine(level).await;
            let layers = layers.map_err(|error| DoctorError::Examine(Box::new(error)))?;
            let attacks = if layers.iter().all(Finding::is_available) {
                Some(attacks::attack(&mut suite, level, self.quick).await?)
            } else {
                None
            };
            found.push(Found { level, layers, attacks });
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
    /// None if the level can't be had.
    attacks: Option<Vec<Attack>>,
}

impl Diagnosis {
    fn new(configured: Level, findings: &Findings) -> Self {
        let mut this = Self {
            configured: configured.to_string(),
            available: false,
            holds: false,
            levels: Vec::new(),
            attacks: Vec::new(),
        };
        for Found { level, layers, attacks } in &findings.levels {
            let available = layers.iter().all(Finding::is_available);
            let attacks = attacks.as_ref().map(|attacks| LevelAttacks::new(*level, attacks));
            if *level == configured {
                this.available = available;
                this.holds = attacks.as_ref().is_some_and(|attacks| attacks.breaches == 0);
            }
            let layers = layers.iter().map(LayerRow::from).collect();
            this.levels.push(LevelRow { level: level.to_string(), available, layers });
            this.attacks.extend(attacks);
        }
        this
    }
}

impl Diagnosis {
    fn write(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        for row in &self.levels {
            let verdict = if row.available { "available" } else { "unavailable" };
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
        if self.available && self.holds {
            return writeln!(out, "\nThe configured level, {configured}, works here and holds.");
        }
        if self.available {
            return writeln!(
                out,
                "\nThe configured level, {configured}, doesn't hold here: run nothing in it that \
                 you don't trust, and report what got through (docs/SECURITY.md)."
            );
        }
        let weaker = self.levels.iter().rev().find(|row| row.available);
        let choice = weaker.map_or_else(
            || "no level works here: use another host".to_owned(),
            |row| format!("apply the remedies above, or set sandbox.level = {:?}", row.level),
        );
        writeln!(out, "\nThe configured level, {configured}, can't be had here: {choice}.")
    }
}
