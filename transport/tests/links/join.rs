//! A node without a certificate is invited, and joins; whoever isn't gets nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use neuroflow_transport::{
    Authority, Credential, Invite, InviteError, JoinError, JoinToken, LinksConfig, join,
};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;

use crate::world::{Node, Work, World, all, now, soon, until};

async fn inviter(world: &World) -> Node {
    let authority = copy(&world.authority);
    world.node_with("a", 8, |config| config.authority(authority)).await
}

fn copy(authority: &Authority) -> Authority {
    Authority::from_pem(authority.certificate_pem(), authority.key_pem()).unwrap()
}

async fn joins(node: &Node, token: &JoinToken) -> Result<neuroflow_transport::Joined, JoinError> {
    soon(join(&token.to_string().parse().unwrap(), node.clock())).await
}

#[tokio::test]
async fn an_invited_node_is_given_a_certificate_and_has_links() {
    let world = World::new();
    let a = inviter(&world).await;
    let invitation = a.links.invite(Invite::new("c").role("worker")).unwrap();
    let joined = joins(&a, invitation.token()).await.unwrap();
    let guest = soon(invitation.accepted()).await.unwrap();
    assert_eq!((guest.name.as_str(), guest.id), ("c", joined.credential.id()));
    assert!(joined.credential.has_role("worker"));
    assert_eq!(joined.authority_pem, world.authority.certificate_pem());
    let expires = joined.credential.expires();
    assert!(expires > now() + neuroflow_transport::limits::CERTIFICATE_LIFE / 2);
    let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), joined.credential, joined.trust);
    let c = Node::start(config, 8).await;
    c.links.try_dial(a.address()).await.unwrap();
    assert_eq!(all(&c.far("agent://a/worker"), &Work::default()).await, Ok(vec![]));
}

#[tokio::test]
async fn a_token_works_once() {
    let world = World::new();
    let a = inviter(&world).await;
    let invitation = a.links.invite(Invite::new("c")).unwrap();
    joins(&a, invitation.token()).await.unwrap();
    assert!(matches!(joins(&a, invitation.token()).await, Err(JoinError::Used)));
    // A try that failed uses nothing up, and nothing else either.
    let other = a.links.invite(Invite::new("d")).unwrap();
    assert_eq!(joins(&a, other.token()).await.unwrap().credential.name().as_str(), "d");
}

#[tokio::test]
async fn a_token_ends_and_its_door_with_it() {
    let world = World::new();
    let a = inviter(&world).await;
    let brief = a.links.invite(Invite::new("c").valid(Duration::from_millis(50))).unwrap();
    assert!(soon(brief.accepted()).await.is_none());
    until(|| now() >= brief.token().expires()).await;
    assert!(matches!(joins(&a, brief.token()).await, Err(JoinError::Expired)));
    // While others are invited, the node itself says so.
    let other = a.links.invite(Invite::new("d")).unwrap();
    assert!(matches!(joins(&a, brief.token()).await, Err(JoinError::Expired)));
    assert!(joins(&a, other.token()).await.is_ok());
}

#[tokio::test]
async fn who_isnt_invited_gets_nothing() {
    let (world, foreign) = (World::new(), World::new());
    let (a, b) = (inviter(&world).await, inviter(&foreign).await);
    let theirs = b.links.invite(Invite::new("c").reach(a.address())).unwrap();
    assert_eq!(theirs.token().address(), a.address());
    // Nobody is invited there: not even TLS is had.
    assert!(matches!(joins(&a, theirs.token()).await, Err(JoinError::Unreachable { .. })));
    // Somebody is: then it's another cluster, and isn't told the secret.
    let _ours = a.links.invite(Invite::new("c")).unwrap();
    assert!(matches!(joins(&a, theirs.token()).await, Err(JoinError::OtherAuthority)));
    // A token of this cluster that another node has made: that one alone is told the secret.
    let twin = inviter(&world).await;
    let made_there = twin.links.invite(Invite::new("c").reach(a.address())).unwrap();
    let other = joins(&a, made_there.token()).await;
    assert!(matches!(other, Err(JoinError::OtherNode { address }) if address == a.address()));
    // An open door lets no stranger have a link.
    let stranger = foreign.node("stranger").await;
    assert!(stranger.links.try_dial(a.address()).await.is_err());
    assert!(joins(&a, made_there.token()).await.is_err());
    assert!(twin.links.invite(Invite::new("c")).is_ok());
}

#[tokio::test]
async fn an_invitation_ends_with_the_life_of_its_node() {
    let world = World::new();
    let who = world.credential("a", &[]);
    let start = async || {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = LinksConfig::new(listen, who.clone(), world.trust());
        Node::start(config.authority(copy(&world.authority)), 8).await
    };
    let (before, after) = (start().await, start().await);
    let made = before.links.invite(Invite::new("c").reach(after.address())).unwrap();
    let _other = after.links.invite(Invite::new("d")).unwrap();
    assert!(matches!(joins(&after, made.token()).await, Err(JoinError::Unknown)));
}

/// Somebody with this identity where a token leads to: sends the authority's certificate, as who has invited does,
/// and keeps whatever it's told after that.
fn impostor(who: &Credential, authority_pem: &str) -> (SocketAddr, JoinSet<Vec<u8>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(who.certificate_pem().as_bytes());
    let key = PrivateKeyDer::from_pem_slice(who.key_pem().as_bytes()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
        .unwrap();
    tls.alpn_protocols = vec![b"neuroflow-join/1".to_vec()];
    let tls = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    let config = quinn::ServerConfig::with_crypto(tls);
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let length = u32::try_from(authority_pem.len()).unwrap().to_le_bytes();
    let says = [&[1][..], &length, authority_pem.as_bytes()].concat();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        recv.read_exact(&mut [0; 5]).await.unwrap();
        send.write_all(&says).await.unwrap();
        let mut told = Vec::new();
        while let Ok(Some(chunk)) = recv.read_chunk(1_024, true).await {
            told.extend_from_slice(&chunk.bytes);
        }
        told
    });
    (address, serving)
}

/// The same token, for another address.
fn elsewhere(token: &JoinToken, address: SocketAddr) -> JoinToken {
    let text = token.to_string();
    let (prefix, code) = text.split_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(code).unwrap();
    bytes.truncate(bytes.len() - token.address().to_string().len());
    bytes.extend_from_slice(address.to_string().as_bytes());
    format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(bytes)).parse().unwrap()
}

#[tokio::test]
async fn another_member_where_a_token_leads_to_is_not_told_its_secret() {
    let world = World::new();
    let a = inviter(&world).await;
    let thief = world.credential("thief", &[]);
    a.links.revoke(thief.id());
    let (address, mut told) = impostor(&thief, world.authority.certificate_pem());
    let invite = Invite::new("admin").role("operator").reach(address);
    let invitation = a.links.invite(invite).unwrap();
    let refused = joins(&a, invitation.token()).await;
    assert!(matches!(refused, Err(JoinError::OtherNode { address: at }) if at == address));
    assert_eq!(soon(told.join_next()).await.unwrap().unwrap(), [], "nothing after the greeting");
    let joined = joins(&a, &elsewhere(invitation.token(), a.address())).await.unwrap();
    assert!(joined.credential.has_role("operator"));
    assert_eq!(soon(invitation.accepted()).await.unwrap().id, joined.credential.id());
}

#[tokio::test]
async fn a_token_leads_to_where_its_node_is_reached() {
    let world = World::new();
    let start = async |advertise: Option<SocketAddr>| {
        let listen = "0.0.0.0:0".parse().unwrap();
        let config = LinksConfig::new(listen, world.credential("a", &[]), world.trust());
        let config = config.authority(copy(&world.authority));
        Node::start(advertise.into_iter().fold(config, LinksConfig::advertise), 8).await
    };
    let public: SocketAddr = "192.0.2.7:7946".parse().unwrap();
    let a = start(Some(public)).await;
    assert_eq!(a.links.invite(Invite::new("c")).unwrap().token().address(), public);
    let other: SocketAddr = "192.0.2.8:7946".parse().unwrap();
    let invite = Invite::new("d").reach(other);
    assert_eq!(a.links.invite(invite).unwrap().token().address(), other);
    // Without either nobody knows which of the machine's addresses is meant.
    let b = start(None).await;
    let refused = b.links.invite(Invite::new("c")).unwrap_err();
    assert!(matches!(refused, InviteError::Nowhere { address } if address == b.address()));
    assert!(refused.to_string().contains("--reach"), "{refused}");
}

#[tokio::test]
async fn who_cant_sign_invites_nobody() {
    let world = World::new();
    let b = world.node("b").await;
    assert!(matches!(b.links.invite(Invite::new("c")), Err(InviteError::NoAuthority)));
    let a = inviter(&world).await;
    assert!(matches!(a.links.invite(Invite::new("no/name")), Err(InviteError::Name(_))));
    assert!(matches!(a.links.invite(Invite::new("c").role("")), Err(InviteError::Name(_))));
    for text in ["", "nfj2.", "nfj2.AAAA", "nfc1.AAAA"] {
        assert!(matches!(text.parse::<JoinToken>(), Err(JoinError::Malformed)), "{text}");
    }
    assert!(matches!("nfj1.AAAA".parse::<JoinToken>(), Err(JoinError::OldToken)));
}
