//! The node that has the authority: whom it has invited, and what it answers to who knocks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neuroflow_kernel::{Clock, Name};
use ring::rand::SecureRandom;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Notify;

use super::wire::{Kind, hear, say};
use super::{Invite, InviteError, JoinToken, Refused, SECRET_BYTES, hash, names};
use crate::endpoint::Links;
use crate::identity::{Authority, CertificateError, NodeId};
use crate::limits::MAX_INVITES;
use crate::observer::{ClusterEvent, Told};

/// The authority, and the invitations that are out.
pub(crate) struct Door {
    authority: Arc<Authority>,
    clock: Clock,
    invited: Mutex<Vec<Invited>>,
    changed: Notify,
    told: Arc<Told>,
}

struct Invited {
    invite: Invite,
    /// The secret's hash: who reads our memory doesn't get in.
    secret: [u8; 32],
    expires_ms: u64,
    /// Who has joined, and what it was given: that same node may ask again.
    guest: Option<(Guest, String)>,
    /// Why it was brought in vain, each reason once: who has a token that is over may bring it for ever.
    vain: Vec<&'static str>,
}

/// A node that has joined.
///
/// ```
/// fn greet(guest: &neuroflow_transport::Guest) -> String {
///     format!("{} ({})", guest.name, guest.id.short())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guest {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
}

/// An invitation that is out.
///
/// ```
/// use neuroflow_transport::{Invite, InviteError, Links};
/// async fn wait(links: &Links) -> Result<bool, InviteError> {
///     let invitation = links.invite(Invite::new("node-c"))?;
///     // invitation.token() goes to the new node.
///     Ok(invitation.accepted().await.is_some())
/// }
/// ```
#[derive(Clone)]
pub struct Invitation {
    token: JoinToken,
    door: Arc<Door>,
}

impl Invitation {
    /// What the new node needs. Whoever has it first joins.
    pub fn token(&self) -> &JoinToken {
        &self.token
    }

    /// Waits until a node has joined; nothing if the time is over before.
    pub async fn accepted(&self) -> Option<Guest> {
        let clock = &self.door.clock;
        let left = self.token.expires_ms.saturating_sub(clock.unix_ms());
        let until = clock.now() + Duration::from_millis(left);
        let joined = async {
            loop {
                let mut changed = std::pin::pin!(self.door.changed.notified());
                // Enrolled before the look, so that a change in between isn't missed.
                changed.as_mut().enable();
                if let Some(guest) = self.door.guest(&hash(&self.token.secret)) {
                    return guest;
                }
                changed.await;
            }
        };
        clock.before(until, joined).await.ok()
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Door {
    pub(crate) fn new(authority: Arc<Authority>, clock: Clock, told: Arc<Told>) -> Arc<Self> {
        let (invited, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { authority, clock, invited, changed, told })
    }

    fn invited(&self) -> MutexGuard<'_, Vec<Invited>> {
        self.invited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody is invited: only then a stranger gets through TLS.
    pub(crate) fn is_open(&self) -> bool {
        let now = self.clock.unix_ms();
        self.invited().iter().any(|invited| invited.expires_ms > now)
    }

    fn guest(&self, secret: &[u8; 32]) -> Option<Guest> {
        let invited = self.invited();
        let found = invited.iter().find(|invited| invited.secret == *secret)?;
        found.guest.as_ref().map(|(guest, _)| guest.clone())
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, CertificateError> {
        Ok(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes())?)
    }

    fn invite(self: &Arc<Self>, invite: Invite, links: &Links) -> Result<Invitation, InviteError> {
        names(&invite)?;
        let listens = links.local_address().ok_or(InviteError::NotListening)?;
        let address = invite.reach.or(links.shared.advertise).unwrap_or(listens);
        if address.ip().is_unspecified() {
            return Err(InviteError::Nowhere { address });
        }
        let authority = hash(&self.certificate()?);
        let mut secret = [0; SECRET_BYTES];
        let random = ring::rand::SystemRandom::new().fill(&mut secret);
        random.map_err(|_none| InviteError::Random)?;
        let valid = u64::try_from(invite.valid.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.unix_ms();
        let expires_ms = now.saturating_add(valid);
        let mut invited = self.invited();
        if invited.len() >= MAX_INVITES {
            // Those that are over are kept for as long as there is room, to be told apart.
            invited.retain(|invited| invited.expires_ms > now);
        }
        if invited.len() >= MAX_INVITES {
            return Err(InviteError::TooMany);
        }
        let secret_hash = hash(&secret);
        let (guest, vain) = (None, Vec::new());
        invited.push(Invited { invite, secret: secret_hash, expires_ms, guest, vain });
        let token = JoinToken { secret, authority, inviter: links.id(), address, expires_ms };
        Ok(Invitation { token, door: Arc::clone(self) })
    }

    /// The certificate for a request, in PEM. What fails changes nothing.
    fn sign(&self, secret: &[u8], request: &[u8]) -> Result<String, Refused> {
        // Hashes are compared, so the time that it takes tells nothing of the secret.
        let secret = hash(secret);
        let mut invited = self.invited();
        let found = invited.iter_mut().find(|invited| invited.secret == secret);
        let found = found.ok_or(Refused::Unknown)?;
        let signed = self.sign_for(found, request);
        match &signed {
            Ok((_, true)) => self.changed.notify_waiters(),
            Ok((_, false)) => {}
            Err(refused) if found.vain.contains(&refused.reason()) => {}
            Err(refused) => {
                let reason = refused.reason();
                found.vain.push(reason);
                let name = &found.invite.node;
                self.told.decided(ClusterEvent::JoinRefused { name, reason });
            }
        }
        signed.map(|(certificate, _)| certificate)
    }

    /// The certificate for a request that brings the token of this invitation, and whether it's a new one.
    fn sign_for(&self, found: &mut Invited, request: &[u8]) -> Result<(String, bool), Refused> {
        if found.expires_ms <= self.clock.unix_ms() {
            return Err(Refused::Expired);
        }
        let Invite { node, roles, certificate_life, .. } = &found.invite;
        let texts: Vec<&str> = roles.iter().map(String::as_str).collect();
        let now = self.clock.wall();
        let signed = self.authority.sign(request, node, &texts, *certificate_life, now)?;
        if let Some((guest, given)) = &found.guest {
            let is_same = guest.id == signed.id;
            return if is_same { Ok((given.clone(), false)) } else { Err(Refused::Used) };
        }
        // Before the certificate leaves.
        self.told.decided(ClusterEvent::Joined { node: signed.id, name: &signed.name, roles });
        let guest = Guest { id: signed.id, name: signed.name };
        found.guest = Some((guest, signed.certificate_pem.clone()));
        Ok((signed.certificate_pem, true))
    }
}

/// Answers one node that wants to join.
pub(crate) async fn serve(door: &Door, connection: &quinn::Connection) -> Option<()> {
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    hear(&mut recv, &[Kind::Hello]).await?;
    say(&mut send, Kind::Authority, door.authority.certificate_pem().as_bytes()).await?;
    let (_, request) = hear(&mut recv, &[Kind::Request]).await?;
    let (secret, request) = request.split_at_checked(SECRET_BYTES)?;
    match door.sign(secret, request) {
        Ok(certificate) => say(&mut send, Kind::Certificate, certificate.as_bytes()).await?,
        Err(refused) => say(&mut send, Kind::Refused, &[refused.code()]).await?,
    }
    send.finish().ok()?;
    // Until the other end has it, and says so by closing.
    let _closed = connection.closed().await;
    Some(())
}

impl Links {
    /// Invites a node: whoever brings the token first is given a certificate of this cluster, over this
    /// node's link port. Needs [`LinksConfig::authority`](crate::LinksConfig::authority). An invitation
    /// ends with this process.
    ///
    /// # Errors
    /// Says that this node can't sign or doesn't listen, or what is wrong with the names.
    pub fn invite(&self, invite: Invite) -> Result<Invitation, InviteError> {
        let door = self.shared.door.as_ref().ok_or(InviteError::NoAuthority)?;
        door.invite(invite, self)
    }
}
