//! `neuroflow doctor`: what this host can give each sandbox level, and what to do about the rest.

use std::io::{self, Write};

use clap::Args;
use neuroflow::Level;
use neuroflow::sandbox::{Finding, LaunchError, Launcher, LauncherError, Verdict};
use serde::Serialize;

use super::{CliError, FAILURE, Globals, SUCCESS, small_runtime};
use crate::config::{Loaded, Overrides, levels};

/// Tries what each sandbox level needs on this host, and says what is missing and what helps.
///
/// Exits with 0 if the configured level can be had, and with 1 if it can't.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    Examine(#[from] LaunchError),
}

/// What was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    configured: String,
    available: bool,
    levels: Vec<LevelRow>,
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
        let configured = loaded.config.sandbox.level;
        let diagnosis = small_runtime()?.block_on(diagnose(configured))?;
        if self.json {
            let json = serde_json::to_string_pretty(&diagnosis).map_err(io::Error::from)?;
            writeln!(out, "{json}")?;
        } else {
            diagnosis.write(out)?;
        }
        Ok(if diagnosis.available { SUCCESS } else { FAILURE })
    }
}

async fn diagnose(configured: Level) -> Result<Diagnosis, DoctorError> {
    let launcher = Launcher::start()?;
    let mut rows = Vec::new();
    let mut available = false;
    for level in levels() {
        let findings = launcher.examine(level).await?;
        let complete = findings.iter().all(Finding::is_available);
        available |= complete && level == configured;
        let layers = findings.iter().map(LayerRow::from).collect();
        rows.push(LevelRow { level: level.to_string(), available: complete, layers });
    }
    Ok(Diagnosis { configured: configured.to_string(), available, levels: rows })
}

impl Diagnosis {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
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
        if self.available {
            return writeln!(out, "\nThe configured level, {}, works here.", self.configured);
        }
        let weaker = self.levels.iter().rev().find(|row| row.available);
        let choice = weaker.map_or_else(
            || "no level works here: use another host".to_owned(),
            |row| format!("apply the remedies above, or set sandbox.level = {:?}", row.level),
        );
        writeln!(out, "\nThe configured level, {}, can't be had here: {choice}.", self.configured)
    }
}
