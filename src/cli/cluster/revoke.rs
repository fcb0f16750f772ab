//! `neuroflow cluster revoke`: shuts a node out, by a list that the cluster's authority signs.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::ValueHint;
use neuroflow::transport::{
    Authority, AuthorityError, CertificateError, NodeId, RevocationError, Revocations, Trust,
    limits::MAX_REVOKED,
};

use super::super::node::files::{AUTHORITY, AUTHORITY_KEY, FileError, REVOCATIONS, read, replace};
use super::super::{CliError, Globals, SUCCESS};

/// Shuts a node out for good: signs the next list of revoked nodes.
///
/// Writes revocations.txt beside the authority. Copy it into the identity folder of any node, or name that
/// folder: the node takes it within a second, tells all others, and each keeps it. A node that is on the list
/// loses its links and gets no new ones.
#[derive(Args, Debug)]
pub(super) struct Revoke {
    /// The node's id, as `node init` and `cluster status --json` print it
    #[arg(value_name = "ID", required = true)]
    nodes: Vec<NodeId>,
    /// The folder of the cluster's authority
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    authority: PathBuf,
    /// The folder with the identity of a node on this machine, to put the list there too
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    identity: Option<PathBuf>,
}

/// Why nobody is shut out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in super::super) enum RevokeError {
    /// A file can't be read or written.
    #[error("a file of the authority can't be read or written")]
    File(#[from] FileError),
    /// The authority can't be used.
    #[error("the authority can't be used")]
    Authority(#[from] AuthorityError),
    /// The authority's certificate can't be read.
    #[error("the authority's certificate can't be read")]
    Certificate(#[from] CertificateError),
    /// The list that is there isn't the authority's.
    #[error("the list beside the authority isn't one that it has signed")]
    List(#[from] RevocationError),
    /// As many as a list may have.
    #[error("the list has {MAX_REVOKED} nodes, and can't have more: make a new authority")]
    Full,
}

impl Revoke {
    pub(super) fn run(&self, _: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let list = self.list().map_err(|error| CliError::from(super::ClusterError::from(error)))?;
        writeln!(out, "{} {}", self.authority.join(REVOCATIONS).display(), list.serial())?;
        Ok(SUCCESS)
    }

    fn list(&self) -> Result<Revocations, RevokeError> {
        let certificate = read(&self.authority.join(AUTHORITY))?;
        let key = read(&self.authority.join(AUTHORITY_KEY))?;
        let authority = Authority::from_pem(&certificate, &key)?;
        let trust = Trust::from_pem(&certificate)?;
        let folders = [Some(&self.authority), self.identity.as_ref()];
        let paths: Vec<PathBuf> =
            folders.into_iter().flatten().map(|folder| folder.join(REVOCATIONS)).collect();
        // The node may have heard of a newer one, signed where the authority's key was then.
        let mut before = Revocations::default();
        for path in paths.iter().filter(|path| path.exists()) {
            let list = Revocations::verify(&read(path)?, &trust)?;
            if list.serial() > before.serial() {
                before = list;
            }
        }
        let list = self.nodes.iter().fold(before, |list, node| list.with(*node));
        if list.nodes().count() > MAX_REVOKED {
            return Err(RevokeError::Full);
        }
        let text = list.sign(&authority)?;
        for path in &paths {
            replace(path, &text)?;
        }
        Ok(list)
    }
}
