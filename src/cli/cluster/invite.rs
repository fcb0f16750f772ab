//! `neuroflow cluster invite`: lets one new node join, and signs its certificate.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::ValueHint;
use neuroflow::kernel::{Kernel, StartError};
use neuroflow::transport::limits::{CERTIFICATE_LIFE, INVITE_LIFE};
use neuroflow::transport::{
    Authority, AuthorityError, CertificateError, Guest, Invitation, Invite, InviteError,
    LinksConfig, LinksError, Trust,
};

use super::super::node::files::{AUTHORITY, AUTHORITY_KEY, FileError, read};
use super::super::{CliError, Globals, SUCCESS, small_runtime};
use super::ClusterError;
use super::operate::{NodeSocket, OperateError};
use crate::config::parse_duration;
use crate::control::{ControlRequest, Invited, Outcome, Token};

/// Invites one node: prints a token for `neuroflow cluster join`, which is a secret until it's used.
///
/// Asks the running node on this machine, which has to have the cluster's authority (`cluster.authority`). Or
/// run it where the authority's key is, with --authority and --listen: then it opens a port of its own for as
/// long as the invitation lasts, waits for the node that brings the token, and ends. That node's key never
/// leaves it.
#[derive(Args, Debug)]
pub(super) struct InviteNode {
    /// The new node's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder of the cluster's authority, as `neuroflow cluster init` writes it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "listen")]
    authority: Option<PathBuf>,
    /// Where to listen, without a running node: a UDP port
    #[arg(long, value_name = "ADDRESS", requires = "authority")]
    listen: Option<SocketAddr>,
    /// Where the new node reaches that, if it's another address
    #[arg(long, value_name = "ADDRESS")]
    reach: Option<SocketAddr>,
    /// A role of the node; may be given again
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long the invitation lasts; 10 minutes unless it's given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    within: Option<Duration>,
    /// How long the certificate is valid, such as 720h; 90 days unless it's given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    valid: Option<Duration>,
    #[command(flatten)]
    socket: NodeSocket,
}

/// Why nobody was invited, or nobody came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cli) enum InviteNodeError {
    /// A file can't be read.
    #[error("a file of the authority can't be read")]
    File(#[from] FileError),
    /// The authority can't be used.
    #[error("the authority can't be used")]
    Authority(#[from] AuthorityError),
    /// Its certificate can't be read.
    #[error("the authority's certificate can't be read")]
    Certificate(#[from] CertificateError),
    /// There is no way to listen.
    #[error("there can be no links")]
    Links(#[from] LinksError),
    /// It can't listen.
    #[error("no port can be opened; choose another with --listen")]
    Listen(#[from] StartError),
    /// The invitation can't be made.
    #[error("the invitation can't be made")]
    Invite(#[from] InviteError),
    /// Nobody came.
    #[error("nobody has joined within {within:?}; invite again, with --within if it takes longer")]
    Nobody {
        /// How long it lasted.
        within: Duration,
    },
}

impl InviteNode {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let (Some(authority), Some(listen)) = (&self.authority, self.listen) else {
            return self.ask(globals, out);
        };
        let failed = |error| CliError::Cluster(ClusterError::Invite(error));
        small_runtime()?.block_on(async {
            let opened = self.open(authority, listen, globals).await;
            let (kernel, invitation) = opened.map_err(failed)?;
            writeln!(out, "{}", invitation.token())?;
            out.flush()?;
            let guest = invitation.accepted().await;
            // Stopping waits for the last answer to get out.
            kernel.stop().await;
            let within = self.within();
            let Guest { id, name, .. } =
                guest.ok_or(InviteNodeError::Nobody { within }).map_err(failed)?;
            writeln!(out, "{name} {id}")?;
            Ok(SUCCESS)
        })
    }

    fn within(&self) -> Duration {
        self.within.unwrap_or(INVITE_LIFE)
    }

    /// Lets the running node invite.
    fn ask(&self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let request = ControlRequest::Invite(Invited {
            node: self.name.clone(),
            roles: self.roles.clone(),
            reach: self.reach,
            within_seconds: self.within().as_secs(),
            valid_seconds: self.valid.unwrap_or(CERTIFICATE_LIFE).as_secs(),
        });
        match self.socket.ask(globals, &request)? {
            Outcome::Token(Token { token }) => writeln!(out, "{token}")?,
            _ => return Err(ClusterError::from(OperateError::Other).into()),
        }
        Ok(SUCCESS)
    }

    async fn open(
        &self,
        folder: &Path,
        listen: SocketAddr,
        globals: Globals<'_>,
    ) -> Result<(Kernel, Invitation), InviteNodeError> {
        let certificate = read(&folder.join(AUTHORITY))?;
        let key = read(&folder.join(AUTHORITY_KEY))?;
        let authority = Authority::from_pem(&certificate, &key)?;
        // The certificate that it shows is of nobody's but this invitation, and ends with it.
        let own = authority.issue("invitation", &[], self.within(), globals.clock.wall())?;
        let config = LinksConfig::new(listen, own, Trust::from_pem(&certificate)?);
        let kernel = Kernel::builder().clock(globals.clock.clone()).start().await?;
        let (spec, links) = config.authority(authority).child(kernel.clock().clone())?;
        kernel.root().start(spec).await?;
        let life = self.valid.unwrap_or(CERTIFICATE_LIFE);
        let invite = Invite::new(&self.name).valid(self.within()).certificate_life(life);
        let invite = self.roles.iter().fold(invite, |invite, role| invite.role(role));
        let invite = self.reach.into_iter().fold(invite, Invite::reach);
        let invitation = links.invite(invite)?;
        Ok((kernel, invitation))
    }
}
