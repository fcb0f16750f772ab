//! `neuroflow completions`: a script for a shell.

use std::io::{self, Write};

use clap::Args;
use clap_complete::Shell;

use super::{SUCCESS, command_line};

/// Prints a completion script for a shell.
///
/// For bash, for example: `neuroflow completions bash > ~/.local/share/bash-completion/completions/neuroflow`
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, out: &mut dyn Write) -> io::Result<u8> {
        // The generator panics where it can't write, so it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command_line(), "neuroflow", &mut script);
        out.write_all(&script)?;
        Ok(SUCCESS)
    }
}
