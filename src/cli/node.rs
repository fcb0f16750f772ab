//! `neuroflow node`: the identity of a node in its cluster.

pub(super) mod files;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{Args, Subcommand};
use neuroflow::transport::{
    Authority, AuthorityError, CertificateError, NodeId, RevocationError, Revocations, Trust,
    limits::CERTIFICATE_LIFE,
};

use self::files::{
    AUTHORITY, AUTHORITY_KEY, CERTIFICATE, FileError, KEY, REVOCATIONS, read, replace, write_new,
};
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
    Renew(Renew),
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

/// Gives a node another certificate before its own ends: of the same key, and so the same id, name and roles.
///
/// Replaces node.pem in a folder, which needn't have the node's key: take node.pem to where the authority's key
/// is, and back. The node that runs looks at its own every second, and presents the new one from then on.
#[derive(Args, Debug)]
struct Renew {
    /// The folder with the node's node.pem
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// The folder of the cluster's authority, as `neuroflow cluster init` writes it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    authority: PathBuf,
    /// How long the new certificate is valid from now on, such as 720h; 90 days unless it's given
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
    /// The authority's certificate can't be read.
    #[error("the authority's certificate can't be read")]
    Certificate(#[from] CertificateError),
    /// The list beside the authority isn't its own.
    #[error("the list of revoked nodes beside the authority isn't one that it has signed")]
    List(#[from] RevocationError),
    /// The node was shut out.
    #[error("the node {id} was shut out; make another with `neuroflow node init`")]
    Revoked { id: NodeId },
}

impl NodeCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let made = match self.action {
            Action::Init(init) => init.make(globals),
            Action::Renew(renew) => renew.make(globals),
        };
        let made = made.map_err(CliError::Node)?;
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

impl Renew {
    fn make(&self, globals: Globals<'_>) -> Result<String, NodeError> {
        let certificate = read(&self.authority.join(AUTHORITY))?;
        let authority =
            Authority::from_pem(&certificate, &read(&self.authority.join(AUTHORITY_KEY))?)?;
        let own = self.dir.join(CERTIFICATE);
        let before = read(&own)?;
        let life = self.valid.unwrap_or(CERTIFICATE_LIFE);
        let renewed = authority.renew(&before, life, globals.clock.wall())?;
        let list = self.authority.join(REVOCATIONS);
        if list.exists() {
            let list = Revocations::verify(&read(&list)?, &Trust::from_pem(&certificate)?)?;
            if list.nodes().any(|id| id == renewed.id) {
                return Err(NodeError::Revoked { id: renewed.id });
            }
        }
        replace(&own, &renewed.certificate_pem)?;
        Ok(format!("{} {}", renewed.name, renewed.id))
    }
}
