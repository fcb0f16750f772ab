//! `neuroflow config`: the settings in force, or a file to start from.

use std::io::Write;

use clap::Args;

use super::{CliError, Globals, SUCCESS, serve};
use crate::config::{Overrides, write_default, write_effective};

/// Prints the settings that are in force, and where each was set; or a complete file of defaults.
#[derive(Args, Debug)]
pub(super) struct ConfigCommand {
    /// Print a complete, commented file with the defaults instead
    #[arg(long)]
    print_default: bool,
    #[command(flatten)]
    settings: Overrides,
}

impl ConfigCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        if self.print_default {
            write_default(out)?;
            return Ok(SUCCESS);
        }
        let loaded = globals.load(&self.settings)?;
        serve::check(&loaded)?;
        write_effective(out, &loaded)?;
        Ok(SUCCESS)
    }
}
