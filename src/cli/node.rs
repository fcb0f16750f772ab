//! `neuroflow node`: the identity of a node in its cluster.

pub(super) mod files;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{Args, Subcommand};
use neuroflow::transport::{Authority, AuthorityError, limits::CERTIFICATE_LIFE};

use self::files::{AUTHORITY, AUTHORITY_KEY, CERTIFICATE, FileError, KEY, read, write_new};
use super::{CliError, Globals, SUCCESS};
use crate::config::parse_duration;

/// Makes the identity of a node.
#[derive(Args, Debug)]
pub(super) struct NodeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Init(Init),
}

/// Makes a key and a certificate for a node, signed by the cluster's authority.
///
/// Writes node.pem, node-key.pem and authority.pem into a folder, which `cluster.identity` names on the
/// node. Nothing that is there is overwritten. Run it where the authority's key is, and take the folder
/// to the node.
#[derive(Args, Debug)]
struct Init {
    /// The node's name, by which others ask its agents
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder of the cluster's authority, as `neuroflow cluster init` writes it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    authority: PathBuf,
    /// The folder to write to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// A role of the node; may be given again
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long the certificate is valid, such as 720h; 90 days unless it's given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    valid: Option<Duration>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum NodeError {
    /// A file can't be read or written.
    #[error("a file of the identity can't be read or written")]
    File(#[from] FileError),
    /// The certificate can't be made.
    #[error("the certificate can't be made")]
    Authority(#[from] AuthorityError),
}

impl NodeCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let Action::Init(init) = self.action;
        let made = init.make(globals).map_err(CliError::Node)?;
        writeln!(out, "{made}")?;
        Ok(SUCCESS)
    }
}

impl Init {
    fn make(&self, globals: Globals<'_>) -> Result<String, NodeError> {
        let certificate = read(&self.authority.join(AUTHORITY))?;
        let authority =
            Authority::from_pem(&certificate, &read(&self.authority.join(AUTHORITY_KEY))?)?;
        let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        let life = self.valid.unwrap_or(CERTIFICATE_LIFE);
        let node = authority.issue(&self.name, &roles, life, globals.clock.wall())?;
        write_new(&self.dir, KEY, node.key_pem(), true)?;
        write_new(&self.dir, CERTIFICATE, node.certificate_pem(), false)?;
        write_new(&self.dir, AUTHORITY, &certificate, false)?;
        Ok(format!("{} {}", node.name(), node.id()))
    }
}
