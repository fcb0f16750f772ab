//! `neuroflow token`: bearer tokens for clients of the gateway.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use neuroflow::actors::{FreshToken, TokenName, TokenProblem};

use super::{CliError, Globals, SUCCESS};
use crate::config::parse_duration;

/// Makes bearer tokens for clients of the gateway.
#[derive(Args, Debug)]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    New(Fresh),
}

/// Makes a token, and prints it and the line for the file that `auth.tokens` names.
///
/// The token is shown this once: the line has its hash, from which nobody gets it back.
#[derive(Args, Debug)]
struct Fresh {
    /// Who will have it: letters, digits, ".", "_" and "-"
    #[arg(value_name = "NAME")]
    name: String,
    /// A group that its holder is in; can be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// After how long it ends, such as "720h"
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<Duration>,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("a token that ends at once is of no use".to_owned()),
        Ok(life) => Ok(life),
        Err(error) => Err(error.to_string()),
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TokenError {
    /// The name or a group isn't one, or there is no randomness.
    #[error("no token was made")]
    Problem(#[from] TokenProblem),
    /// It would end when there is no calendar.
    #[error("--expires-in is longer than any calendar; leave it out for a token that doesn't end")]
    TooLong,
}

impl TokenCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let Action::New(fresh) = self.action;
        let name = TokenName::new(fresh.name).map_err(TokenError::from)?;
        let now = globals.clock.wall();
        let end = |life| now.checked_add(life).ok_or(TokenError::TooLong);
        let expires = fresh.expires_in.map(end).transpose()?;
        let token = FreshToken::generate(&name, &fresh.group, expires);
        let token = token.map_err(|problem| match problem {
            TokenProblem::Expires => TokenError::TooLong,
            problem => problem.into(),
        })?;
        writeln!(out, "Token, shown this once:\n{}\n", token.secret())?;
        writeln!(out, "Line for the file that auth.tokens names:\n{}", token.line())?;
        Ok(SUCCESS)
    }
}
