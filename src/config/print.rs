//! The settings as a commented file: the defaults, or what is in force and where it came from.

use std::io::{self, Write};

use super::setting::{Preset, Setting};
use super::{Loaded, SECTIONS};

/// A complete file with every setting at its default; those without one are commented out.
pub(crate) fn write_default(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# The configuration of neuroflow, with every setting at its default.")?;
    writeln!(out, "# A setting is looked for in the flags, then in the environment, then here.")?;
    writeln!(out, "# Name this file with --config or NEUROFLOW_CONFIG. Unless one is named,")?;
    writeln!(
        out,
        "# ~/.config/neuroflow/neuroflow.toml is read, or /etc/neuroflow/neuroflow.toml."
    )?;
    writeln!(out, "# Nobody but root and whoever runs the command may own it or write it.")?;
    for section in SECTIONS {
        writeln!(out)?;
        comment(out, section.doc)?;
        writeln!(out, "[{}]", section.name)?;
        for setting in section.settings {
            writeln!(out)?;
            comment(out, setting.doc)?;
            writeln!(out, "# Flag --{}, variable {}.", setting.flag(), setting.variable())?;
            let (mark, text) = match setting.preset {
                Preset::Value(text) => ("", text),
                Preset::Unset(example) => ("#", example),
            };
            let literal = (setting.literal)(text).unwrap_or_default();
            writeln!(out, "{mark}{} = {literal}", setting.name)?;
        }
    }
    writeln!(out)?;
    writeln!(
        out,
        "# Agents of other nodes that the gateway offers, and MCP servers, each by a table of its own;"
    )?;
    writeln!(out, "# the guides cluster.md and mcp.md say what belongs into them.")?;
    writeln!(out, "#[proxy.billing]")?;
    writeln!(out, "#agent = \"agent://*/billing\"")?;
    writeln!(out, "#[mcp.files]")?;
    writeln!(out, "#command = \"mcp-server\"")?;
    writeln!(out, "#agents = [\"shell\"]")?;
    Ok(())
}

/// What is in force, with the origin of every value that isn't a default. Secrets are masked.
pub(crate) fn write_effective(out: &mut dyn Write, loaded: &Loaded) -> io::Result<()> {
    for (at, section) in SECTIONS.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(out, "[{}]", section.name)?;
        for setting in section.settings {
            line(out, setting, loaded)?;
        }
    }
    write_tables(out, loaded)
}

/// The same values and nothing else, for a digest: where they came from may change without them.
pub(crate) fn write_values(out: &mut dyn Write, loaded: &Loaded) -> io::Result<()> {
    for setting in SECTIONS.iter().flat_map(|section| section.settings) {
        if let Some(value) = loaded.config.toml(setting.key) {
            writeln!(out, "{} = {value}", setting.key)?;
        }
    }
    write_tables(out, loaded)
}

/// The tables `[mcp.NAME]` and `[proxy.NAME]`.
fn write_tables(out: &mut dyn Write, loaded: &Loaded) -> io::Result<()> {
    let tables = [toml::to_string(&loaded.mcp), toml::to_string(&loaded.proxies)];
    for table in tables {
        let table = table.map_err(io::Error::other)?;
        if !table.is_empty() {
            write!(out, "\n{table}")?;
        }
    }
    Ok(())
}

fn line(out: &mut dyn Write, setting: &Setting, loaded: &Loaded) -> io::Result<()> {
    let name = setting.name;
    match loaded.config.toml(setting.key) {
        Some(value) if loaded.is_set(setting.key) => {
            writeln!(out, "{name} = {value} # {}", loaded.origin(setting.key))
        }
        Some(value) => writeln!(out, "{name} = {value}"),
        None => {
            let (Preset::Value(example) | Preset::Unset(example)) = setting.preset;
            let example = (setting.literal)(example).unwrap_or_default();
            writeln!(out, "# {name} isn't set; such as {name} = {example}")
        }
    }
}

fn comment(out: &mut dyn Write, doc: &str) -> io::Result<()> {
    doc.lines().try_for_each(|line| writeln!(out, "#{line}"))
}
