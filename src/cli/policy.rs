//! `neuroflow policy`: checks policies, and tries them.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::ValueHint;
use clap::{Args, Subcommand};
use neuroflow::actors::{AccessError, Action, CedarPolicies, Principal, Rules, Target};

use super::{CliError, FAILURE, Globals, SUCCESS};
use crate::config::{Overrides, level};

/// Checks and tries the policies that say what clients may do.
#[derive(Args, Debug)]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Explain(Box<Explain>),
    Schema(Schema),
}

/// Checks a file of policies against the schema.
#[derive(Args, Debug)]
struct Check {
    /// The file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// Says whether a principal may do something, and which policies decide that.
///
/// Exit code 0 says that it may, 1 that it may not.
#[derive(Args, Debug)]
struct Explain {
    /// Who: "anonymous", "token:NAME", "user:SUBJECT@ISSUER" or "certificate:NAME"
    #[arg(long, value_name = "WHO")]
    principal: String,
    /// A group that it's in; can be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// What: `ask`, `read`, `cancel`, `supervise`, `describe`, `call_tool` or `run_level`
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// To what: "agent:NAME", "skill:AGENT/ID", "tool:NAME", "tool:AGENT/NAME" or "level:NAME"
    #[arg(long, value_name = "WHAT")]
    resource: String,
    /// The file, if it isn't the one that policy.file names
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: Overrides,
}

/// Prints the schema that policies are checked against.
#[derive(Args, Debug)]
struct Schema {}

/// Why policies can't be checked or tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PolicyCommandError {
    /// The policies aren't valid.
    #[error("the policies can't be used; correct what is named below")]
    Policies(#[from] AccessError),
    /// No file.
    #[error("there is no file of policies; name one with --file or set policy.file")]
    NoFile,
    /// An argument isn't what it should be.
    #[error("{argument} is {found:?}; it should be {expected}")]
    Argument { argument: &'static str, found: String, expected: &'static str },
}

impl PolicyCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        match self.command {
            Command::Check(check) => {
                let policies =
                    CedarPolicies::load(&check.file).map_err(PolicyCommandError::from)?;
                let count = policies.len();
                writeln!(out, "{}: {count} policies, all valid", check.file.display())?;
                Ok(SUCCESS)
            }
            Command::Schema(Schema {}) => {
                out.write_all(CedarPolicies::schema().as_bytes())?;
                Ok(SUCCESS)
            }
            Command::Explain(explain) => explain.run(globals, out),
        }
    }
}

impl Explain {
    fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let (principal, action, target) = (self.principal()?, self.action()?, self.target()?);
        let file = if let Some(file) = &self.file {
            file.clone()
        } else {
            let loaded = globals.load(&self.settings)?;
            let set = loaded.config.policy.file.as_ref().map(|file| file.path().to_owned());
            set.ok_or(PolicyCommandError::NoFile)?
        };
        let policies = CedarPolicies::load(&file).map_err(PolicyCommandError::from)?;
        // As a gateway decides it.
        let rules: &dyn Rules = &policies;
        let ruling = rules.ruling(&principal, action, &target);
        let word = if ruling.allowed { "allowed" } else { "denied" };
        writeln!(out, "{word}: {} {} {target}", principal.id(), action.name())?;
        if ruling.policies.is_empty() {
            writeln!(out, "  no policy permits it")?;
        }
        let by = if ruling.allowed { "permitted" } else { "forbidden" };
        ruling.policies.iter().try_for_each(|policy| writeln!(out, "  {by} by {policy}"))?;
        ruling.errors.iter().try_for_each(|error| writeln!(out, "  not counted: {error}"))?;
        if let Target::Skill { agent, .. } = target
            && !ruling.allowed
            && !ruling.is_forbidden()
            && rules.ruling(&principal, action, &Target::Agent(agent)).allowed
        {
            writeln!(out, "  unless {agent:?} doesn't list it: then it's as asking the agent")?;
        }
        Ok(if ruling.allowed { SUCCESS } else { FAILURE })
    }

    fn principal(&self) -> Result<Principal, PolicyCommandError> {
        let groups = &self.group;
        let read = match self.principal.split_once(':') {
            None if self.principal == "anonymous" => Some(Principal::anonymous()),
            Some(("token", name)) if !name.is_empty() => Some(Principal::token(name, groups)),
            Some(("certificate", name)) if !name.is_empty() => {
                Some(Principal::certificate(name, "", groups))
            }
            Some(("user", name)) => name
                .rsplit_once('@')
                .filter(|(subject, issuer)| !subject.is_empty() && !issuer.is_empty())
                .map(|(subject, issuer)| Principal::user(subject, issuer, groups)),
            _ => None,
        };
        read.ok_or_else(|| PolicyCommandError::Argument {
            argument: "--principal",
            found: self.principal.clone(),
            expected: "anonymous, token:NAME, user:SUBJECT@ISSUER or certificate:NAME",
        })
    }

    fn action(&self) -> Result<Action, PolicyCommandError> {
        Action::from_name(&self.action).ok_or_else(|| PolicyCommandError::Argument {
            argument: "--action",
            found: self.action.clone(),
            expected: "ask, read, cancel, supervise, describe, call_tool or run_level",
        })
    }

    fn target(&self) -> Result<Target<'_>, PolicyCommandError> {
        let read = match self.resource.split_once(':') {
            Some(("agent", name)) if !name.is_empty() => Some(Target::Agent(name)),
            Some(("skill", name)) => {
                name.split_once('/').map(|(agent, skill)| Target::Skill { agent, skill })
            }
            Some(("tool", name)) if !name.is_empty() => Some(match name.split_once('/') {
                Some((agent, tool)) => Target::Tool { agent: Some(agent), tool },
                None => Target::Tool { agent: None, tool: name },
            }),
            Some(("level", name)) => level(name).map(Target::Level),
            _ => None,
        };
        read.ok_or_else(|| PolicyCommandError::Argument {
            argument: "--resource",
            found: self.resource.clone(),
            expected: "agent:NAME, skill:AGENT/ID, tool:NAME, tool:AGENT/NAME or level:NAME",
        })
    }
}
