//! `neuroflow cluster`: the authority that makes nodes a cluster.

mod invite;
mod join;
mod operate;
mod revoke;

use std::io::Write;
use std::path::PathBuf;

use clap::builder::ValueHint;
use clap::{Args, Subcommand};
use neuroflow::transport::{Authority, AuthorityError};

use super::node::files::{AUTHORITY, AUTHORITY_KEY, FileError, write_new};
use super::{CliError, Globals, SUCCESS};

/// Makes a cluster.
#[derive(Args, Debug)]
pub(super) struct ClusterCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Init(Init),
    Invite(invite::InviteNode),
    Join(join::JoinCluster),
    Status(operate::Status),
    Drain(operate::Drain),
    Revoke(revoke::Revoke),
}

/// Makes the authority of a new cluster: the certificate that its nodes trust, and the key that signs
/// theirs.
///
/// Who has authority-key.pem can add nodes. No node needs it: keep it elsewhere.
#[derive(Args, Debug)]
struct Init {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder to write authority.pem and authority-key.pem to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ClusterError {
    /// A file can't be written.
    #[error("a file of the authority can't be written")]
    File(#[from] FileError),
    /// The authority can't be made.
    #[error("the authority can't be made")]
    Authority(#[from] AuthorityError),
    /// Nobody was invited, or nobody came.
    #[error(transparent)]
    Invite(#[from] invite::InviteNodeError),
    /// This node didn't join.
    #[error(transparent)]
    Join(#[from] join::JoinClusterError),
    /// Nobody is shut out.
    #[error(transparent)]
    Revoke(#[from] revoke::RevokeError),
    /// The node can't be asked.
    #[error(transparent)]
    Operate(#[from] operate::OperateError),
}

impl ClusterCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let init = match self.action {
            Action::Init(init) => init,
            Action::Invite(invite) => return invite.run(globals, out),
            Action::Join(join) => return join.run(globals, out),
            Action::Status(status) => return status.run(globals, out),
            Action::Drain(drain) => return drain.run(globals, out),
            Action::Revoke(revoke) => return revoke.run(globals, out),
        };
        init.make(globals).map_err(CliError::Cluster)?;
        writeln!(out, "{}", init.dir.join(AUTHORITY).display())?;
        Ok(SUCCESS)
    }
}

impl Init {
    fn make(&self, globals: Globals<'_>) -> Result<(), ClusterError> {
        let authority = Authority::create(&self.name, globals.clock.wall())?;
        write_new(&self.dir, AUTHORITY_KEY, authority.key_pem(), true)?;
        write_new(&self.dir, AUTHORITY, authority.certificate_pem(), false)?;
        Ok(())
    }
}
