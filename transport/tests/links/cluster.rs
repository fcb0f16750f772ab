//! A cluster of nodes that know one seed: joins, deaths, leaves, draining, placement, and who is shut out.

use std::collections::HashSet;
use std::time::Duration;

use neuroflow_kernel::{AskError, Header, Refusal, RemoteError, StreamError};
use neuroflow_transport::{
    CertificateError, Credential, DrainError, LinkState, LinksConfig, LinksError, ListFileError,
    Member, MemberState, RevocationError, Revocations,
};

use crate::world::{Node, Work, World, soon, until};

/// A node that knows one other.
async fn join(world: &World, name: &str, seed: &Node) -> Node {
    world.node_with(name, 1_024, |config| config.seed(seed.address())).await
}

async fn three(world: &World) -> (Node, Node, Node) {
    let a = world.node("a").await;
    let b = join(world, "b", &a).await;
    let c = join(world, "c", &b).await;
    for node in [&a, &b, &c] {
        knows(node, &["a", "b", "c"]).await;
    }
    (a, b, c)
}

fn active(node: &Node) -> HashSet<String> {
    let members = node.links.members();
    let active = members.iter().filter(|member| member.state.is_active());
    active.map(|member| member.name.to_string()).collect()
}

/// Until it counts exactly these as there, and has a link to each.
async fn knows(node: &Node, names: &[&str]) {
    let expected: HashSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    until(|| active(node) == expected).await;
    let own = node.links.name().to_string();
    for name in names.iter().filter(|name| **name != own) {
        node.has_link_to(name).await;
    }
}

fn member(node: &Node, name: &str) -> Option<Member> {
    node.links.members().into_iter().find(|member| member.name.as_str() == name)
}

/// Asks for the answers of one key; says which node has answered.
async fn answerer<'a>(asker: &Node, key: &[u8], nodes: &[&'a Node]) -> Option<&'a str> {
    let before: Vec<usize> = nodes.iter().map(|node| node.ledger.begun()).collect();
    let address = asker.links.resolve_for::<Work>("worker", key).unwrap();
    let work = Work { replies: 1, ..Work::default() };
    let mut replies = soon(address.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    assert!(soon(replies.next()).await.is_none());
    let moved = nodes.iter().zip(before).find(|(node, before)| node.ledger.begun() > *before);
    moved.map(|(node, _)| node.links.name().as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_one_seed_finds_all_and_is_asked_by_all() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let seen = member(&c, "a").unwrap();
    assert_eq!((seen.node, seen.address), (a.links.id(), a.address()));
    assert!(seen.offers("worker") && !seen.own && seen.capacity == 100);
    assert_eq!((seen.oldest_protocol, seen.newest_protocol), (1, 3));
    a.links.describe("worker", vec!["sums".to_owned()]);
    until(|| member(&b, "a").unwrap().agents[0].skills == ["sums"]).await;
    let far = a.far("agent://c/worker");
    let work = Work { replies: 1, ..Work::default() };
    let mut replies = soon(far.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    assert_eq!(c.ledger.begun(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_may_be_a_name() {
    let world = World::new();
    let a = world.node("a").await;
    let name = format!("localhost:{}", a.address().port());
    let b = world.node_with("b", 64, |config| config.seed_name(name)).await;
    knows(&a, &["a", "b"]).await;
    knows(&b, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_leads_every_node_to_the_same_one_and_keys_are_spread() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let nodes = [&a, &b, &c];
    let mut chosen = HashSet::new();
    for key in 0..24_u32 {
        let key = key.to_le_bytes();
        let first = answerer(&a, &key, &nodes).await.unwrap();
        assert_eq!(answerer(&b, &key, &nodes).await.unwrap(), first);
        assert_eq!(answerer(&c, &key, &nodes).await.unwrap(), first);
        chosen.insert(first);
    }
    assert_eq!(chosen.len(), 3, "24 keys of three nodes");
    // Without a key as well, each address for itself.
    let work = Work { replies: 1, ..Work::default() };
    let any = a.far("agent://*/worker");
    let mut replies = soon(any.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_together_goes_to_one_node_without_a_key() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let nodes = [&a, &b, &c];
    let mut chosen = HashSet::new();
    for number in 0..24_u32 {
        let of = format!("conversation {number}");
        let expected = a.links.placement("worker", of.as_bytes())[0];
        let work = Work { replies: 1, of: Some(of), ..Work::default() };
        for asker in nodes {
            let before: Vec<usize> = nodes.iter().map(|node| node.ledger.begun()).collect();
            // Another address each time, with another key of its own.
            let mut replies =
                soon(asker.far("agent://*/worker").ask(Header::new(), &work)).await.unwrap();
            assert!(soon(replies.next()).await.unwrap().is_ok());
            let moved =
                nodes.iter().zip(before).find(|(node, before)| node.ledger.begun() > *before);
            assert_eq!(moved.unwrap().0.links.id(), expected);
        }
        chosen.insert(expected);
    }
    assert_eq!(chosen.len(), 3, "24 conversations on three nodes");
    // A key that somebody has chosen counts for more, and a life can be asked for without a node too.
    let first = a.links.placement("worker", b"key")[0];
    let before: Vec<usize> = nodes.iter().map(|node| node.ledger.begun()).collect();
    let other = (0..u32::MAX).map(|number| format!("other {number}"));
    let mut other = other.filter(|of| a.links.placement("worker", of.as_bytes())[0] != first);
    let work = Work { replies: 1, of: other.next(), ..Work::default() };
    let address = a.links.resolve_for::<Work>("worker", b"key").unwrap();
    let mut replies = soon(address.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    let moved = nodes.iter().zip(before).find(|(node, before)| node.ledger.begun() > *before);
    assert_eq!(moved.unwrap().0.links.id(), first);
    let life = soon(a.links.this_life::<Work>("agent://*/worker")).await.unwrap();
    let mut replies =
        soon(life.ask(Header::new(), &Work { replies: 1, ..Work::default() })).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_read_from_its_file_while_the_node_runs_and_kept_in_those_of_others() {
    let world = World::new();
    let folder = Folder::new();
    let keeps = |name: &str, config: LinksConfig| config.revocations(folder.file(name));
    let a = world.node_with("a", 64, |config| keeps("a", config)).await;
    let seeded = |config: LinksConfig| config.seed(a.address());
    let b = world.node_with("b", 64, |config| keeps("b", seeded(config))).await;
    let c = world.node_with("c", 64, seeded).await;
    for node in [&a, &b, &c] {
        knows(node, &["a", "b", "c"]).await;
    }
    let lists = Revocations::default().with(c.links.id());
    let list = lists.sign(&world.authority).unwrap();
    let strange = Revocations::default().with(b.links.id());
    std::fs::write(folder.file("a"), strange.sign(&World::new().authority).unwrap()).unwrap();
    until(|| a.links.gossip().list_failures > 0).await;
    assert_eq!(a.state_of("b"), Some(LinkState::Up), "nobody believes a stranger's list");
    std::fs::write(folder.file("a"), &list).unwrap();
    for node in [&a, &b] {
        until(|| node.state_of("c") == Some(LinkState::Revoked)).await;
    }
    until(|| std::fs::read_to_string(folder.file("b")).is_ok_and(|kept| kept == list)).await;
    // A node that begins anew knows it before it has heard from anybody.
    b.kernel.stop().await;
    let b = world.node_with("b", 64, |config| keeps("b", config)).await;
    let refused = soon(c.links.try_dial(b.address())).await;
    assert!(refused.is_err(), "{refused:?}");
    // An older list is replaced by the newer one.
    let newer = lists.with(c.links.id()).sign(&world.authority).unwrap();
    assert!(b.links.take_revocations(&newer).unwrap());
    until(|| std::fs::read_to_string(folder.file("b")).is_ok_and(|kept| kept == newer)).await;
    std::fs::write(folder.file("b"), &list).unwrap();
    until(|| std::fs::read_to_string(folder.file("b")).is_ok_and(|kept| kept == newer)).await;
    // One that was changed by hand is refused at the start.
    std::fs::write(folder.file("b"), newer.replace("serial 2", "serial 9")).unwrap();
    let config = LinksConfig::new(a.address(), world.credential("d", &[]), world.trust());
    let wrong = config.revocations(folder.file("b")).child(a.clock().clone()).unwrap_err();
    assert!(matches!(wrong, LinksError::Revocations(ListFileError::List { .. })), "{wrong}");
}

/// A directory of a test's own, removed with everything in it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("neuroflow-links-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind fails no test.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_offers_is_refused_by_name() {
    let world = World::new();
    let (a, _b, _c) = three(&world).await;
    let refused = a.links.resolve::<Work>("agent://*/painter").unwrap_err();
    assert!(matches!(&refused, RemoteError::Unplaced { target } if target.ends_with("painter")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_is_gone_and_its_keys_move_on() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let key = (0..u32::MAX).map(u32::to_le_bytes);
    let mut of_c = key.filter(|key| a.links.placement("worker", key)[0] == c.links.id());
    let key = of_c.next().unwrap();
    let address = a.links.resolve_for::<Work>("worker", &key).unwrap();
    let next = a.links.placement("worker", &key)[1];
    c.kernel.stop().await;
    // Left, or dead if its last words crossed a link that was just being replaced.
    knows(&a, &["a", "b"]).await;
    knows(&b, &["a", "b"]).await;
    assert_eq!(a.links.placement("worker", &key), [next, other(&a, &b, next)]);
    // The same address follows.
    let work = Work { replies: 1, ..Work::default() };
    let mut replies = soon(address.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    let serves = if next == a.links.id() { &a } else { &b };
    assert_eq!(serves.ledger.begun(), 1);
}

fn other(a: &Node, b: &Node, one: neuroflow_transport::NodeId) -> neuroflow_transport::NodeId {
    if a.links.id() == one { b.links.id() } else { a.links.id() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_gets_nothing_placed_and_is_still_asked_by_name() {
    let world = World::new();
    let a = world.authority.issue("a", &["operator"], crate::world::HOUR, crate::world::now());
    let listen = "127.0.0.1:0".parse().unwrap();
    let a = Node::start(LinksConfig::new(listen, a.unwrap(), world.trust()), 64).await;
    let b = join(&world, "b", &a).await;
    knows(&a, &["a", "b"]).await;
    knows(&b, &["a", "b"]).await;
    // Without the role it isn't heeded; its own wish is.
    assert_eq!(b.links.ask_to_drain("a", true), Err(DrainError::Role));
    a.links.ask_to_drain("b", true).unwrap();
    until(|| member(&a, "b").unwrap().draining && b.links.is_draining()).await;
    assert!(!a.links.is_draining());
    for key in 0..16_u32 {
        assert_eq!(a.links.placement("worker", &key.to_le_bytes()), [a.links.id()]);
    }
    let work = Work { replies: 1, ..Work::default() };
    let mut replies = soon(a.far("agent://b/worker").ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    a.links.set_draining(true);
    until(|| a.links.placement("worker", b"key").is_empty()).await;
    let refused = a.links.resolve_for::<Work>("worker", b"key").unwrap_err();
    assert!(matches!(refused, RemoteError::Unplaced { .. }));
    a.links.ask_to_drain("b", false).unwrap();
    until(|| a.links.placement("worker", b"key") == [b.links.id()]).await;
    assert!(a.links.ask_to_drain("nobody", true).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_placed_on_a_node_that_takes_no_more_though_it_is_still_listed() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let key = (0..u32::MAX).map(u32::to_le_bytes);
    let mut of_c = key.filter(|key| a.links.placement("worker", key)[0] == c.links.id());
    let key = of_c.next().unwrap();
    // Its links alone say so, which they do before its record comes in any case.
    c.links.drain();
    let far = a.far("agent://c/worker");
    soon(async {
        while far.notify(Header::new(), &Work::default()).await.is_ok() {
            a.clock().sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(a.links.placement("worker", &key)[0], c.links.id());
    let next = a.links.placement("worker", &key)[1];
    let serves = if next == a.links.id() { &a } else { &b };
    let nodes = [&a, &b, &c];
    assert_eq!(answerer(&a, &key, &nodes).await, Some(serves.links.name().as_str()));
    let target = "agent://*/worker".parse().unwrap();
    assert_eq!(a.links.first_placed(&target, &key), Some(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_the_authoritys_list_is_shut_out_everywhere_and_for_good() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let list = Revocations::default().with(c.links.id()).sign(&world.authority).unwrap();
    assert!(a.links.take_revocations(&list).unwrap());
    assert!(!a.links.take_revocations(&list).unwrap(), "the same again");
    for node in [&a, &b] {
        until(|| node.state_of("c") == Some(LinkState::Revoked)).await;
        until(|| member(node, "c").is_some_and(|it| it.state == MemberState::Revoked)).await;
        assert!(!node.links.placement("worker", b"key").contains(&c.links.id()));
    }
    // Who comes later is told as well, and doesn't let it in either.
    let d = join(&world, "d", &b).await;
    until(|| active(&d).len() == 3).await;
    let refused = soon(d.links.try_dial(c.address())).await;
    assert!(refused.is_err(), "{refused:?}");
    let own = world.authority.issue("e", &[], crate::world::HOUR, crate::world::now()).unwrap();
    let strange = World::new();
    let forged = Revocations::default().with(own.id()).sign(&strange.authority).unwrap();
    assert!(matches!(a.links.take_revocations(&forged), Err(RevocationError::Stranger)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weight_zero_is_never_chosen_and_a_full_mailbox_is_no_loss() {
    let world = World::new();
    let a = world.node_with("a", 1, |config| config.capacity(0)).await;
    let b = world.node_with("b", 1, |config| config.seed(a.address()).build("b-1")).await;
    knows(&a, &["a", "b"]).await;
    assert_eq!(member(&a, "b").unwrap().build, "b-1");
    assert_eq!(a.links.placement("worker", b"key"), [b.links.id()]);
    knows(&b, &["a", "b"]).await;
    // On the node itself a placed ask waits for room like any other, and times out alike.
    let address = b.links.resolve_for::<Work>("worker", b"key").unwrap();
    let wait = Work { wait: true, replies: 1, ..Work::default() };
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let address = address.clone();
        held.spawn(async move {
            let wait = Work { wait: true, replies: 1, ..Work::default() };
            let mut replies = soon(address.ask(Header::new(), &wait)).await.unwrap();
            assert!(soon(replies.next()).await.unwrap().is_ok());
            assert!(soon(replies.next()).await.is_none());
        });
    }
    until(|| b.ledger.begun() == 1).await;
    b.ledger.gate.add_permits(4);
    while let Some(answered) = held.join_next().await {
        answered.unwrap();
    }
    // Dropping the stream cancels there as well.
    b.ledger.gate.forget_permits(4);
    let replies = soon(address.ask(Header::new(), &wait)).await.unwrap();
    until(|| b.ledger.begun() == 5).await;
    drop(replies);
    until(|| b.ledger.cancelled() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_cluster_places_on_itself() {
    let world = World::new();
    let a = world.node("a").await;
    until(|| !a.links.placement("worker", b"key").is_empty()).await;
    assert_eq!(answerer(&a, b"key", &[&a]).await, Some("a"));
    a.links.withdraw("worker");
    let address = a.far("agent://*/worker");
    let refused = soon(address.ask(Header::new(), &Work::default())).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Unreachable(why))
        if matches!(*why, RemoteError::Unplaced { .. })));
}

#[tokio::test]
async fn what_is_placed_on_the_node_itself_is_delivered_once_however_much_comes_at_once() {
    const NOTICES: u32 = 4_000;
    let world = World::new();
    // All is sent before any actor has its turn: no mailbox behind the address but the worker's counts.
    let a = world.node_with("a", 16, |config| config).await;
    until(|| !a.links.placement("worker", b"key").is_empty()).await;
    let address = a.links.resolve_for::<Work>("worker", b"key").unwrap();
    for number in 0..NOTICES {
        let work = Work { number, ..Work::default() };
        soon(address.notify(Header::new(), &work)).await.unwrap();
    }
    until(|| a.ledger.begun() >= NOTICES as usize).await;
    let work = Work { number: NOTICES, replies: 1, ..Work::default() };
    let mut replies = soon(address.ask(Header::new(), &work)).await.unwrap();
    assert!(soon(replies.next()).await.unwrap().is_ok());
    assert_eq!(*a.ledger.numbers.lock().unwrap(), (0..=NOTICES).collect::<Vec<_>>());
    assert_eq!(a.links.gossip().placed_here, u64::from(NOTICES) + 1);
    // An actor that takes other messages says so, as it would on another node.
    let other = a.links.resolve_for::<crate::world::Other>("worker", b"key").unwrap();
    let mut replies = soon(other.ask(Header::new(), &crate::world::Other)).await.unwrap();
    assert!(matches!(soon(replies.next()).await, Some(Err(StreamError::Mismatch))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_list_of_revoked_nodes_reaches_every_member() {
    let world = World::new();
    let (a, b, c) = three(&world).await;
    let others = (1..neuroflow_transport::limits::MAX_REVOKED)
        .map(|nth| neuroflow_transport::NodeId::of_public_key(&nth.to_le_bytes()));
    let list = others.fold(Revocations::default(), Revocations::with).with(c.links.id());
    assert_eq!(list.nodes().count(), neuroflow_transport::limits::MAX_REVOKED);
    let list = list.sign(&world.authority).unwrap();
    assert!(list.len() > neuroflow_transport::limits::MAX_GOSSIP_BYTES);
    assert!(a.links.take_revocations(&list).unwrap());
    until(|| b.state_of("c") == Some(LinkState::Revoked)).await;
    // Who comes later hears it too, from whom it knows.
    let trust = world.trust();
    let own = world.credential("d", &[]);
    let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), own, trust.clone());
    let d = Node::start(config.seed(b.address()), 64).await;
    until(|| trust.is_revoked(&c.links.id())).await;
    assert!(soon(d.links.try_dial(c.address())).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_renewed_in_its_file_is_presented_while_calls_go_on() {
    let (world, folder) = (World::new(), Folder::new());
    let own = world.credential("a", &["worker"]);
    std::fs::write(folder.file("a"), own.certificate_pem()).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, own.clone(), world.trust());
    let a = Node::start(config.certificate_file(folder.file("a")), 64).await;
    let b = world.node("b").await;
    a.links.try_dial(b.address()).await.unwrap();
    b.has_link_to("a").await;
    let waiting = Work { wait: true, replies: 1, ..Work::default() };
    let mut call = soon(b.far("agent://a/worker").ask(Header::new(), &waiting)).await.unwrap();
    until(|| a.ledger.begun() == 1).await;

    // What isn't this node's certificate is left alone.
    let others = world.credential("a", &[]);
    std::fs::write(folder.file("a"), others.certificate_pem()).unwrap();
    until(|| a.links.gossip().certificate_failures == 1).await;
    let strange = World::new().authority;
    assert!(strange.renew(own.certificate_pem(), crate::world::HOUR, crate::world::now()).is_err());
    let life = 2 * crate::world::HOUR;
    let made = world.authority.renew(own.certificate_pem(), life, crate::world::now()).unwrap();
    let renewed = own.renewed(&made.certificate_pem).unwrap();
    assert!(renewed.has_role("worker") && renewed.id() == own.id());
    assert!(renewed.expires() > own.expires() && renewed.expires() == made.expires);
    std::fs::write(folder.file("a"), &made.certificate_pem).unwrap();
    until(|| member(&b, "a").is_some_and(|it| it.certificate_expires == renewed.expires())).await;

    // Who makes a link now sees the new one; the link that stands was made with the old one, and goes on.
    let c = world.node("c").await;
    c.links.try_dial(a.address()).await.unwrap();
    assert_eq!(c.links.status()[0].certificate_expires, renewed.expires());
    let of_a = b.links.status().into_iter().find(|link| link.node == own.id()).unwrap();
    assert_eq!((of_a.certificate_expires, of_a.reconnects), (own.expires(), 0));
    a.ledger.gate.add_permits(1);
    assert!(soon(call.next()).await.unwrap().is_ok());
    assert!(soon(call.next()).await.is_none());
    assert_eq!(a.links.gossip().certificate_failures, 1);
    assert!(a.links.renew(&others).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_that_is_not_valid_yet_is_presented_once_it_is() {
    let (world, folder) = (World::new(), Folder::new());
    let own = world.credential("a", &[]);
    std::fs::write(folder.file("a"), own.certificate_pem()).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, own.clone(), world.trust());
    let a = Node::start(config.certificate_file(folder.file("a")), 64).await;
    // A certificate is valid from five minutes before it's made, by the clock of who makes it.
    let ahead = Duration::from_secs(5 * 60 + 5);
    let (life, now) = (2 * crate::world::HOUR, crate::world::now());
    let made = world.authority.renew(own.certificate_pem(), life, now + ahead).unwrap();
    let renewed = own.renewed(&made.certificate_pem).unwrap();
    std::fs::write(folder.file("a"), &made.certificate_pem).unwrap();
    // Nobody touches the file again.
    until(|| member(&a, "a").is_some_and(|it| it.certificate_expires == renewed.expires())).await;
    assert!(a.links.gossip().certificate_failures <= 1, "each text is counted once");
}

#[tokio::test]
async fn a_node_does_not_start_with_a_certificate_that_nobody_takes() {
    let (world, elsewhere) = (World::new(), World::new());
    let clock = neuroflow_kernel::Clock::system();
    let start = |credential: Credential| {
        let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), credential, world.trust());
        match config.child(clock.clone()) {
            Ok(_) => None,
            Err(LinksError::Certificate(why)) => Some(why),
            Err(other) => panic!("{other}"),
        }
    };
    let (hour, now) = (crate::world::HOUR, crate::world::now());
    let old = world.authority.issue("a", &[], hour, now - 3 * hour).unwrap();
    assert!(matches!(start(old), Some(CertificateError::Expired)));
    assert!(matches!(start(elsewhere.credential("a", &[])), Some(CertificateError::Untrusted)));
    // Clocks are set while machines start.
    let early = world.authority.issue("a", &[], hour, now + 3 * hour).unwrap();
    assert!(matches!(early.check(&world.trust()), Err(CertificateError::NotValidYet)));
    assert!(start(early).is_none());
}
