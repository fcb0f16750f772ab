//! The file of a run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compare::Baseline;
use super::figure::Figure;
use super::machine::Run;

#[derive(Serialize)]
struct File<'a> {
    schema: u32,
    run: &'a Run,
    figures: &'a [Figure],
}

#[derive(Deserialize)]
struct Known {
    schema: u32,
    run: Run,
    figures: Vec<Figure>,
}

/// Raised when a reader of the former file would misread the new one.
const SCHEMA: u32 = 1;

pub(crate) fn write(path: &Path, run: &Run, figures: &[Figure]) -> Result<(), String> {
    let file = File { schema: SCHEMA, run, figures };
    let mut json = serde_json::to_vec_pretty(&file).map_err(|error| error.to_string())?;
    json.push(b'\n');
    std::fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn read(path: &Path) -> Result<Baseline, String> {
    let place = |error: String| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| place(error.to_string()))?;
    let known: Known = serde_json::from_slice(&bytes).map_err(|error| place(error.to_string()))?;
    if known.schema != SCHEMA {
        return Err(place(format!("has schema {}, and this is {SCHEMA}", known.schema)));
    }
    Ok(Baseline { run: known.run, figures: known.figures })
}
