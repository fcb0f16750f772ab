//! The command line: one module per command, one error type, exit codes.
//!
//! A command writes what it's asked for to standard output, and everything else to standard error.
//! Exit codes: 0 for success, 1 for failure, 2 for wrong usage or configuration; `exec` has its own.

mod audit;
mod cluster;
mod completions;
mod config;
mod doctor;
mod exec;
mod mcp;
mod node;
mod policy;
mod run;
mod serve;
mod signal;
mod tasks;
mod token;
mod tools;
mod tree;

mod cluster_meter;
mod meter;
mod telemetry;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use neuroflow::kernel::{Cause, Clock};

use crate::config::{ConfigError, Loaded, Overrides, Source};
use crate::limits::{ERROR_CHAIN, LAST_WORDS};
use crate::plain;

/// Runs AI agents the way Erlang runs processes: supervised, isolated, observable.
#[derive(Debug, Parser)]
#[command(name = "neuroflow", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    command: Command,
}

/// What every command is given.
#[derive(Clone, Copy, Debug)]
struct Globals<'a> {
    /// It began with the process.
    clock: &'a Clock,
    source: &'a Source,
}

impl Globals<'_> {
    /// The settings of a command. A file that looks like them and isn't read is told of.
    fn load(&self, flags: &Overrides) -> Result<Loaded, ConfigError> {
        if let Some(file) = self.source.left_out() {
            let file = file.display();
            say(format!(
                "neuroflow: {file} in the current directory isn't read; name it with --config {file} \
                 if it's yours\n"
            ));
        }
        Loaded::from_process(self.source, flags)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Run(run::Run),
    Mcp(mcp::Mcp),
    Tools(tools::Tools),
    Exec(exec::Exec),
    Tree(tree::TreeCommand),
    Doctor(doctor::Doctor),
    Tasks(tasks::TasksCommand),
    Audit(audit::AuditCommand),
    Token(token::TokenCommand),
    Policy(policy::PolicyCommand),
    Cluster(cluster::ClusterCommand),
    Node(node::NodeCommand),
    Config(config::ConfigCommand),
    Completions(completions::Completions),
}

/// The sections of settings that a command's help shows; it takes all of them. `serve` and `config`
/// show all.
const SHOWN_SECTIONS: [(&str, &[&str]); 8] = [
    ("mcp", &["sandbox", "agents", "mcp_server", "log"]),
    ("tools", &["sandbox", "agents", "log"]),
    ("run", &["sandbox", "agents", "log"]),
    ("exec", &["sandbox", "log"]),
    ("tree", &["control"]),
    ("cluster", &["control"]),
    ("tasks", &["journal", "control"]),
    ("doctor", &["sandbox"]),
];

fn command_line() -> clap::Command {
    SHOWN_SECTIONS.into_iter().fold(Cli::command(), |cli, (name, shown)| {
        cli.mut_subcommand(name, |command| show(command, shown))
    })
}

/// Leaves the settings of these sections in a command's help, and in that of what is below it, which takes the
/// settings of the command too.
fn show(command: clap::Command, shown: &'static [&'static str]) -> clap::Command {
    let has_below = command.has_subcommands();
    let command = command.mut_args(|arg| {
        let section = arg.get_id().as_str().split_once('.').map(|(section, _)| section.to_owned());
        match section {
            Some(section) => arg.hide(!shown.contains(&section.as_str())).global(has_below),
            None => arg,
        }
    });
    command.mut_subcommands(|below| show(below, shown))
}

/// Reads the arguments, runs the command, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let clock = Clock::system();
    let parsed = Cli::from_arg_matches(&command_line().get_matches());
    let cli = parsed.unwrap_or_else(|error| error.exit());
    let mut out = io::stdout();
    let globals = Globals { clock: &clock, source: &cli.source };
    let ended = cli.command.run(globals, &mut out);
    match ended.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::from(error.exit_code()),
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says on standard error why a command failed. If nobody reads that, the process ends all the same.
fn tell(error: &CliError) {
    let mut text = Vec::new();
    // A vector takes everything.
    let _whole = write_error(&mut text, error);
    say(text);
}

/// Says something on standard error, to whoever reads that.
fn say(text: impl Into<Vec<u8>>) {
    let text = text.into();
    let (said, heard) = sync_channel(1);
    let write = move || {
        // There is nowhere left to say that standard error is gone.
        let _unsaid = io::stderr().write_all(&text);
        let _unheard = said.send(());
    };
    if std::thread::Builder::new().spawn(write).is_ok() {
        let _unread = heard.recv_timeout(LAST_WORDS);
    }
}

impl Command {
    fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        match self {
            Self::Serve(serve) => serve.run(globals, out),
            Self::Run(run) => run.run(globals, out),
            Self::Mcp(mcp) => mcp.run(globals),
            Self::Tools(tools) => tools.run(globals, out),
            Self::Exec(exec) => Ok(exec.run(globals)?),
            Self::Tree(tree) => tree.run(globals, out),
            Self::Doctor(doctor) => doctor.run(globals, out),
            Self::Tasks(tasks) => tasks.run(globals, out),
            Self::Audit(audit) => audit.run(out),
            Self::Token(token) => token.run(globals, out),
            Self::Policy(policy) => policy.run(globals, out),
            Self::Cluster(cluster) => cluster.run(globals, out),
            Self::Node(node) => node.run(globals, out),
            Self::Config(config) => config.run(globals, out),
            Self::Completions(completions) => Ok(completions.run(out)?),
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    #[error(transparent)]
    Run(#[from] run::RunError),
    #[error(transparent)]
    Mcp(#[from] mcp::McpCommandError),
    #[error(transparent)]
    Tools(#[from] tools::ToolsError),
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    #[error(transparent)]
    Tasks(#[from] tasks::TasksError),
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    #[error(transparent)]
    Token(#[from] token::TokenError),
    #[error(transparent)]
    Policy(#[from] policy::PolicyCommandError),
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    #[error(transparent)]
    Node(#[from] node::NodeError),
    /// What the command has to say can't be written.
    #[error("standard output can't be written; redirect it to where there is room")]
    Output(#[from] io::Error),
    /// There is no runtime.
    #[error(
        "the threads of the runtime can't be started; raise the limit of processes (ulimit -u)"
    )]
    Runtime(#[source] io::Error),
}

impl CliError {
    /// Whether whoever read the output has gone, which needs no words.
    fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Exec(error) => error.is_broken_pipe(),
            _ => false,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Token(_) | Self::Policy(_) => USAGE,
            Self::Output(_) if self.is_broken_pipe() => SUCCESS,
            Self::Serve(error) => error.exit_code(),
            Self::Audit(error) => error.exit_code(),
            Self::Run(error) => error.exit_code(),
            Self::Mcp(error) => error.exit_code(),
            Self::Tools(error) => error.exit_code(),
            Self::Exec(error) => error.exit_code(),
            _ => FAILURE,
        }
    }
}

/// The command did what it's for.
const SUCCESS: u8 = 0;
/// It failed.
const FAILURE: u8 = 1;
/// It was called or configured wrongly.
const USAGE: u8 = 2;

/// A runtime of this thread alone, for commands that wait rather than work.
fn small_runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

/// The error and its causes, one per line.
fn write_error(out: &mut dyn Write, error: &CliError) -> io::Result<()> {
    // A program or an agent may have chosen what it names.
    writeln!(out, "neuroflow: {}", plain::text(&error.to_string()))?;
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    // It says "failed" only, and what failed is next.
    let telling = causes.filter(|cause| !matches!(cause.downcast_ref(), Some(Cause::Error(_))));
    let mut causes = telling.take(ERROR_CHAIN).map(|cause| plain::text(&cause.to_string()));
    causes.try_for_each(|cause| writeln!(out, "  because {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    /// The lines of a document that call this program, each whole and without the prompt.
    fn commands(document: &str) -> Vec<String> {
        let joined = document.replace("\\\n", " ");
        let mut is_shell = false;
        let mut commands = Vec::new();
        for line in joined.lines() {
            if let Some(kind) = line.strip_prefix("```") {
                is_shell = matches!(kind, "sh" | "console");
            }
            let line = line.strip_prefix("$ ").unwrap_or(line);
            if is_shell && line.starts_with("neuroflow ") {
                commands.push(line.to_owned());
            }
        }
        commands
    }

    /// The words of a line, as far as guides write any: in single quotes or none, up to a comment or a redirection.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.to_owned());
                continue;
            }
            let bare = part.split_whitespace().take_while(|word| !["#", ">"].contains(word));
            let before = words.len();
            words.extend(bare.map(str::to_owned));
            if words.len() - before < part.split_whitespace().count() {
                break;
            }
        }
        words
    }

    #[test]
    fn every_command_that_a_document_shows_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let guides = std::fs::read_dir(root.join("docs/guides")).unwrap();
        let guides = guides.map(|entry| entry.unwrap().path());
        let mut shown = 0;
        for path in guides.chain([root.join("README.md"), root.join("docs/SECURITY.md")]) {
            for line in commands(&std::fs::read_to_string(&path).unwrap()) {
                // What is in capitals stands for the reader's own.
                let node = "0".repeat(64);
                let words = words(&line).into_iter();
                let words = words.map(|word| if word == "ID" { node.clone() } else { word });
                let parsed = command_line().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{}: {line}: {}", path.display(), parsed.unwrap_err());
                shown += 1;
            }
        }
        assert!(shown > 30, "{shown} commands only");
    }
}
