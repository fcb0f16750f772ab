//! `neuroflow tools`: starts what the configuration names, and lists the tools that agents would have.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use neuroflow::BootError;
use neuroflow::actors::{McpMeter, ToolListing};
use neuroflow::kernel::{CallError, Clock};
use neuroflow_telemetry::logs::LogError;

use super::{CliError, FAILURE, Globals, SUCCESS, USAGE, mcp, small_runtime, telemetry};
use crate::config::{Loaded, Overrides};
use crate::limits::{RUN_STOP, TOOLS_PAUSE, TOOLS_WAIT};
use crate::plain;

/// Lists the tools of the node's agents, and where they come from.
///
/// The MCP servers of the configuration are started for that, each as a node would start it, and
/// stopped again. Exits with 1 if one of them doesn't say what it has; the log says why.
#[derive(Args, Debug)]
pub(super) struct Tools {
    /// Prints JSON, with the schemas of the arguments
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Overrides,
}

/// Why there is no list, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ToolsError {
    /// The log can't be set up.
    #[error("the log can't be set up; change log.filter")]
    Log(#[from] LogError),
    /// The node didn't start.
    #[error("the node didn't start; `neuroflow doctor` says what this host can give")]
    Boot(#[from] BootError),
    /// The router doesn't answer.
    #[error("the tool router doesn't say what there is; try again")]
    Router(#[from] CallError),
    /// A server is missing.
    #[error("these MCP servers didn't say what they have: {}", servers.join(", "))]
    Missing { servers: Vec<String> },
}

impl ToolsError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(_) => USAGE,
            _ => FAILURE,
        }
    }
}

impl Tools {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        let _log = telemetry::quiet_log(&loaded).map_err(ToolsError::from)?;
        let runtime = small_runtime()?;
        let listed = runtime.block_on(list(&loaded, globals.clock));
        runtime.shutdown_background();
        let (tools, missing) = listed?;
        if self.json {
            write_json(&tools, out)?;
        } else {
            write_table(&tools, out)?;
        }
        if missing.is_empty() {
            return Ok(SUCCESS);
        }
        out.flush()?;
        Err(ToolsError::Missing { servers: missing }.into())
    }
}

/// The tools, and the servers that are missing.
async fn list(loaded: &Loaded, clock: &Clock) -> Result<(Vec<ToolListing>, Vec<String>), CliError> {
    let heard = Arc::new(Heard::default());
    let meter = Arc::clone(&heard) as Arc<dyn McpMeter>;
    let node = mcp::node(loaded, clock, &meter)?;
    let node = node.start().await.map_err(ToolsError::from)?;
    let deadline = clock.now() + TOOLS_WAIT;
    let mut missing = heard.missing(loaded);
    while !missing.is_empty() && heard.has_failed().is_none() && clock.now() < deadline {
        clock.sleep(TOOLS_PAUSE).await;
        missing = heard.missing(loaded);
    }
    let tools = node.tools().await.map_err(ToolsError::from);
    node.stop_within(RUN_STOP).await;
    Ok((tools?, missing))
}

/// Which servers have said what they have.
#[derive(Debug, Default)]
struct Heard(Mutex<BTreeMap<String, bool>>);

impl Heard {
    fn missing(&self, loaded: &Loaded) -> Vec<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let up = |name: &&str| heard.get(*name) == Some(&true);
        loaded.mcp.names().filter(|name| !up(name)).map(str::to_owned).collect()
    }

    /// A server that has broken off before it had said anything.
    fn has_failed(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find(|(_, is_up)| !**is_up).map(|(name, _)| name.clone())
    }
}

impl McpMeter for Heard {
    fn session(&self, server: &str, is_up: bool) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(server.to_owned(), is_up);
    }

    fn called(&self, _: &str, _: &'static str, _: Duration) {}
}

fn write_table(tools: &[ToolListing], out: &mut dyn Write) -> std::io::Result<()> {
    let row = |tool: &ToolListing| {
        let agents = tool.agents.as_ref().map_or_else(|| "*".to_owned(), |all| all.join(","));
        [agents, tool.name.clone(), tool.origin.clone(), first_line(&tool.description)]
    };
    let head = ["AGENTS", "TOOL", "ORIGIN", "DESCRIPTION"].map(str::to_owned);
    draw(std::iter::once(head).chain(tools.iter().map(row)), out)
}

/// Rows of a table. Servers of others have chosen what is in them.
fn draw(rows: impl Iterator<Item = [String; 4]>, out: &mut dyn Write) -> std::io::Result<()> {
    let rows: Vec<[String; 4]> = rows.map(|row| row.map(plain::name)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    for [agents, tool, origin, description] in &rows {
        let [a, b, c] = widths;
        writeln!(out, "{agents:a$}  {tool:b$}  {origin:c$}  {description}")?;
    }
    Ok(())
}

/// The beginning of a description, in whole words if it has some.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    let Some((end, _)) = line.char_indices().nth(DESCRIPTION_CHARACTERS) else {
        return line.to_owned();
    };
    let kept = line[..end].rsplit_once(' ').map_or(&line[..end], |(words, _cut)| words);
    format!("{} …", kept.trim_end())
}

/// Characters of a description in the table; the JSON has all of it.
const DESCRIPTION_CHARACTERS: usize = 80;

fn write_json(tools: &[ToolListing], out: &mut dyn Write) -> std::io::Result<()> {
    let tools = tools.iter().map(|tool| {
        serde_json::json!({
            "name": tool.name, "agents": tool.agents, "origin": tool.origin,
            "description": tool.description, "schema": tool.schema,
        })
    });
    writeln!(out, "{}", tools.collect::<serde_json::Value>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_description_ends_with_a_word_and_says_that_it_goes_on() {
        assert_eq!(first_line("Reads a file.\nAnd more."), "Reads a file.");
        let whole = "x".repeat(DESCRIPTION_CHARACTERS);
        assert_eq!(first_line(&whole), whole);
        assert_eq!(first_line(&format!("Reads {whole}")), "Reads …");
        assert_eq!(first_line(&format!("{whole}x")), format!("{whole} …"));
    }

    #[test]
    fn what_a_server_says_of_its_tools_forges_no_line() {
        let row = ["*", "look\nexec", "mcp/files\x1b[1A", "Looks\x1b[2K\u{202e}."];
        let mut out = Vec::new();
        draw(std::iter::once(row.map(str::to_owned)), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "*  look\\nexec  mcp/files\\u{1b}[1A  Looks\\u{1b}[2K\\u{202e}.\n");
    }
}
