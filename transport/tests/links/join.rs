//! A node without a certificate is invited, and joins; whoever isn't gets nothing.

use std::time::Duration;

use neuroflow_transport::{
    Authority, Invite, InviteError, JoinError, JoinToken, LinksConfig, join,
};

use crate::world::{Node, Work, World, all, now, soon, until};

async fn inviter(world: &World) -> Node {
    let authority = &world.authority;
    let authority = Authority::from_pem(authority.certificate_pem(), authority.key_pem()).unwrap();
    world.node_with("a", 8, |config| config.authority(authority)).await
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
    // A token of this cluster that nobody here has made.
    let twin = inviter(&world).await;
    let made_there = twin.links.invite(Invite::new("c").reach(a.address())).unwrap();
    assert!(matches!(joins(&a, made_there.token()).await, Err(JoinError::Unknown)));
    // An open door lets no stranger have a link.
    let stranger = foreign.node("stranger").await;
    assert!(stranger.links.try_dial(a.address()).await.is_err());
    assert!(joins(&a, made_there.token()).await.is_err());
    assert!(twin.links.invite(Invite::new("c")).is_ok());
}

#[tokio::test]
async fn who_cant_sign_invites_nobody() {
    let world = World::new();
    let b = world.node("b").await;
    assert!(matches!(b.links.invite(Invite::new("c")), Err(InviteError::NoAuthority)));
    let a = inviter(&world).await;
    assert!(matches!(a.links.invite(Invite::new("no/name")), Err(InviteError::Name(_))));
    assert!(matches!(a.links.invite(Invite::new("c").role("")), Err(InviteError::Name(_))));
    for text in ["", "nfj1.", "nfj1.AAAA", "nfc1.AAAA"] {
        assert!(matches!(text.parse::<JoinToken>(), Err(JoinError::Malformed)), "{text}");
    }
}
