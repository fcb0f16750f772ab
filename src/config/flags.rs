//! One flag per setting, made from the table.

use std::path::PathBuf;

use clap::builder::ValueHint;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use super::SECTIONS;
use super::setting::{Preset, Setting};

/// Where the file is, as far as the command line says.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Source {
    /// The configuration file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true, help = HELP)]
    pub(crate) config: Option<PathBuf>,
}

const HELP: &str = "The configuration file [env: NEUROFLOW_CONFIG] [default: \
                    $XDG_CONFIG_HOME/neuroflow/neuroflow.toml, else /etc/neuroflow/neuroflow.toml, if \
                    there is one; none is looked for in the current directory]";

/// The settings that the command line gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) given: Vec<(&'static Setting, String)>,
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

impl Overrides {
    /// Sets a setting by its key, over what the flags say.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        if let Some(setting) = settings().find(|setting| setting.key == key) {
            self.given.push((setting, value.into()));
        }
    }
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        settings().fold(command, |command, setting| {
            let variable = setting.variable();
            let default = match setting.preset {
                Preset::Value(text) => format!(" [default: {text}]"),
                Preset::Unset(_) => String::new(),
            };
            let help = format!("{} [env: {variable}]{default}", setting.summary());
            let flag = Arg::new(setting.key)
                .long(setting.flag())
                .value_name(setting.name.to_uppercase())
                .help(first_sentence(&setting.summary(), &default))
                .long_help(help)
                .help_heading("Settings");
            command.arg(if setting.key == SOCKET { flag.alias("socket") } else { flag })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The setting that `tree` and `cluster` have called `--socket`, which scripts may go on to do.
const SOCKET: &str = "control.socket";

/// The short help: what fits on a line or two.
fn first_sentence(summary: &str, default: &str) -> String {
    let end = summary.find(". ").unwrap_or(summary.len());
    format!("{}{default}", summary[..end].trim_end_matches('.'))
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        let given = settings().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.key)?;
            Some((setting, text.clone()))
        });
        self.given = given.collect();
        Ok(())
    }
}
