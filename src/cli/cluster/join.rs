//! `neuroflow cluster join`: brings a token, and writes the identity that is given for it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::ValueHint;
use neuroflow::transport::{JoinError, JoinToken, Joined, join};

use super::super::node::files::{AUTHORITY, CERTIFICATE, FileError, KEY, write_new};
use super::super::{CliError, Globals, SUCCESS, small_runtime};
use super::ClusterError;

/// Joins the cluster that a token of `neuroflow cluster invite` is for.
///
/// Makes this node's key, and writes node.pem, node-key.pem and authority.pem into a folder, which
/// `cluster.identity` names. Nothing that is there is overwritten.
#[derive(Args, Debug)]
pub(super) struct JoinCluster {
    /// The token, as `neuroflow cluster invite` prints it
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The folder to write to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

/// Why this node didn't join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cli) enum JoinClusterError {
    /// The token wasn't taken.
    #[error("no certificate was given for the token")]
    Join(#[from] JoinError),
    /// A file can't be written.
    #[error("a file of the identity can't be written")]
    File(#[from] FileError),
    /// There is an identity already.
    #[error("{} is there already; choose another folder, for a token works once", path.display())]
    There {
        /// The file.
        path: PathBuf,
    },
}

impl JoinCluster {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let failed = |error| CliError::Cluster(ClusterError::Join(error));
        let joined = small_runtime()?.block_on(self.join(globals)).map_err(failed)?;
        writeln!(out, "{} {}", joined.credential.name(), joined.credential.id())?;
        Ok(SUCCESS)
    }

    async fn join(&self, globals: Globals<'_>) -> Result<Joined, JoinClusterError> {
        // Before the token is used up.
        for name in [KEY, CERTIFICATE, AUTHORITY] {
            let path = self.dir.join(name);
            if path.exists() {
                return Err(JoinClusterError::There { path });
            }
        }
        let token: JoinToken = self.token.parse()?;
        let joined = join(&token, globals.clock).await?;
        write_new(&self.dir, KEY, joined.credential.key_pem(), true)?;
        write_new(&self.dir, CERTIFICATE, joined.credential.certificate_pem(), false)?;
        write_new(&self.dir, AUTHORITY, &joined.authority_pem, false)?;
        Ok(joined)
    }
}
