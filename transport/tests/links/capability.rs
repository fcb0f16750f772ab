//! Capabilities between nodes, and everything that a node may try with one.

use std::time::Duration;

use base64::Engine as _;
use neuroflow_kernel::{
    Address, Down, Fall, Header, MessageId, RawParcel, Request, Restriction, Rights, StreamError,
    WireMessage, WireRequest,
};
use neuroflow_transport::limits::CAPABILITY_DERIVED;
use neuroflow_transport::{CapabilityError, CapabilityToken, Links, Terms};

use crate::world::{Done, LONG, Node, Other, SECRET, Work, World, all, soon, until};

const MINUTE: Duration = Duration::from_mins(1);

fn import(node: &Node, token: &CapabilityToken) -> Address<Request<Work>> {
    node.links.import(&token.to_string()).unwrap()
}

async fn ask(address: &Address<Request<Work>>) -> Result<Vec<u32>, StreamError> {
    all(address, &Work { replies: 1, ..Work::default() }).await
}

/// The same while a link may come and go, for both ends dial anew and one dial stays: asks again until
/// the link isn't what is missing.
async fn again(node: &Node, address: &Address<Request<Work>>) -> Result<Vec<u32>, StreamError> {
    let deadline = node.clock().now() + LONG;
    loop {
        assert!(node.clock().now() < deadline, "there is no link for good");
        // Others get their turn: what is refused at once waits for nothing.
        node.clock().sleep(Duration::from_millis(5)).await;
        let work = Work { replies: 1, ..Work::default() };
        let Ok(mut stream) = soon(address.ask(Header::new(), &work)).await else { continue };
        let mut numbers = Vec::new();
        let end = loop {
            match soon(stream.next()).await {
                Some(Ok(reply)) => numbers.push(reply.get().number.to_native()),
                Some(Err(why)) => break Err(why),
                None => break Ok(()),
            }
        };
        if end != Err(StreamError::Lost) {
            return end.map(|()| numbers);
        }
    }
}

#[tokio::test]
async fn a_capability_is_used_like_any_address() {
    let (a, b) = World::new().pair().await;
    assert!(b.links.withdraw("worker"));
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap();
    assert_eq!((token.holder(), token.issuer()), (a.links.id(), b.links.id()));
    let held = import(&a, &token);
    for _ in 0..3 {
        assert_eq!(ask(&held).await, Ok(vec![0]));
    }
    // A new connection is shown the capability anew.
    assert!(a.links.reconnect(b.links.id()));
    until(|| a.links.status()[0].reconnects > 0).await;
    assert_eq!(again(&a, &held).await, Ok(vec![0]));
    // The links end before the actor does.
    let (end, ()) = tokio::join!(held.down(), b.kernel.stop());
    assert_eq!(end.fall, Fall::Lost, "{end}");
}

#[tokio::test]
async fn it_has_the_rights_that_it_was_given_and_each_message_is_checked() {
    let (a, b) = World::new().pair().await;
    let terms = Terms::new(MINUTE).rights(Rights::bit(0));
    let held = import(&a, &b.links.grant(&b.worker, a.links.id(), terms).unwrap());
    let secret = Work { secret: true, ..Work::default() };
    assert_eq!(all(&held, &secret).await, Err(StreamError::Rights));
    assert_eq!(ask(&held).await, Ok(vec![0]));
    let terms = Terms::new(MINUTE).rights(SECRET);
    let token = b.links.grant(&b.worker, a.links.id(), terms).unwrap();
    assert_eq!(all(&import(&a, &token), &secret).await, Ok(vec![]));
    // What the address doesn't allow, no terms bring back.
    let narrow = b.worker.attenuate(Restriction::new().rights(Rights::bit(0))).unwrap();
    let token = b.links.grant(&narrow, a.links.id(), Terms::new(MINUTE)).unwrap();
    assert_eq!(all(&import(&a, &token), &secret).await, Err(StreamError::Rights));
}

#[tokio::test]
async fn uses_are_counted_whatever_the_connection_and_however_often_its_shown() {
    let (a, b) = World::new().pair().await;
    let terms = Terms::new(MINUTE).uses(3);
    let token = b.links.grant(&b.worker, a.links.id(), terms).unwrap();
    assert_eq!(ask(&import(&a, &token)).await, Ok(vec![0]));
    assert_eq!(ask(&import(&a, &token)).await, Ok(vec![0]));
    assert!(a.links.reconnect(b.links.id()));
    until(|| a.links.status()[0].reconnects > 0).await;
    // One that was derived takes from its own and from what is left.
    let own = a.links.derive(&token.to_string(), a.links.id(), Terms::new(MINUTE)).unwrap();
    // An answer that was lost took its use with it.
    let mut last = again(&a, &import(&a, &own)).await;
    for _ in 0..3 {
        if last.is_err() {
            break;
        }
        last = again(&a, &import(&a, &own)).await;
    }
    assert_eq!(last, Err(StreamError::UsedUp));
    assert_eq!(ask(&import(&a, &token)).await, Err(StreamError::UsedUp));
    assert_eq!(b.ledger.begun(), 3);
}

#[tokio::test]
async fn a_holder_narrows_without_asking_and_hands_on() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let c = world.node("c").await;
    c.links.try_dial(b.address()).await.unwrap();
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE).uses(5)).unwrap();
    let terms = Terms::new(MINUTE * 2).uses(1).rights(Rights::bit(0));
    let given = a.links.derive(&token.to_string(), c.links.id(), terms).unwrap();
    assert_eq!(ask(&import(&c, &given)).await, Ok(vec![0]));
    assert_eq!(ask(&import(&c, &given)).await, Err(StreamError::UsedUp));
    let other = a.links.import::<Work>(&given.to_string()).unwrap_err();
    assert!(matches!(other, CapabilityError::OtherHolder { holder } if holder == c.links.id()));
    let not_held = c.links.derive(&token.to_string(), c.links.id(), terms).unwrap_err();
    assert!(matches!(not_held, CapabilityError::OtherHolder { .. }));
    let wider = a.links.derive(&token.to_string(), a.links.id(), Terms::new(MINUTE).uses(6));
    assert!(matches!(wider.unwrap_err(), CapabilityError::Widened));
    assert_eq!(ask(&import(&a, &token)).await, Ok(vec![0]));
}

#[tokio::test]
async fn it_ends_when_its_time_is_over_and_when_its_taken_back() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let brief = Terms::new(Duration::from_millis(300));
    let token = b.links.grant(&b.worker, a.links.id(), brief).unwrap();
    let held = import(&a, &token);
    let mut refused = ask(&held).await;
    while refused.is_ok() {
        a.clock().sleep(Duration::from_millis(20)).await;
        refused = ask(&held).await;
    }
    assert_eq!(refused, Err(StreamError::Expired));
    // Shown for the first time when it's over.
    assert_eq!(ask(&import(&a, &token)).await, Err(StreamError::Expired));

    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap();
    let derive = || a.links.derive(&token.to_string(), a.links.id(), Terms::new(MINUTE)).unwrap();
    let (first, second, unseen) = (derive(), derive(), derive());
    let (held, one, two) = (import(&a, &token), import(&a, &first), import(&a, &second));
    for address in [&held, &one, &two] {
        assert_eq!(ask(address).await, Ok(vec![0]));
    }
    b.links.revoke_capability(first.id()).unwrap();
    b.links.revoke_capability(unseen.id()).unwrap();
    assert_eq!(ask(&one).await, Err(StreamError::Revoked));
    assert_eq!(ask(&import(&a, &unseen)).await, Err(StreamError::Revoked));
    assert_eq!(ask(&two).await, Ok(vec![0]));
    b.links.revoke_capability(token.id()).unwrap();
    for address in [&held, &two, &import(&a, &token)] {
        assert_eq!(ask(address).await, Err(StreamError::Revoked));
    }
}

#[tokio::test]
async fn what_a_node_has_handed_on_ends_when_it_is_shut_out() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let c = world.node("c").await;
    c.links.try_dial(b.address()).await.unwrap();
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap();
    let derive = || a.links.derive(&token.to_string(), c.links.id(), Terms::new(MINUTE)).unwrap();
    let (seen, unseen) = (import(&c, &derive()), derive());
    assert_eq!(ask(&seen).await, Ok(vec![0]));
    let own = b.links.grant(&b.worker, c.links.id(), Terms::new(MINUTE)).unwrap();
    let own = import(&c, &own);
    assert_eq!(ask(&own).await, Ok(vec![0]));
    b.links.revoke(a.links.id());
    assert_eq!(ask(&seen).await, Err(StreamError::Revoked));
    assert_eq!(ask(&import(&c, &unseen)).await, Err(StreamError::Revoked));
    // Its key still signs.
    assert_eq!(ask(&import(&c, &derive())).await, Err(StreamError::Revoked));
    assert_eq!(ask(&own).await, Ok(vec![0]), "what it had no part in stays");
}

#[tokio::test]
async fn what_its_issuer_had_no_room_for_is_shown_again() {
    let (a, b) = World::new().pair().await;
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap();
    let derive = |from: &CapabilityToken| {
        a.links.derive(&from.to_string(), a.links.id(), Terms::new(MINUTE)).unwrap()
    };
    let (first, mut below) = (derive(&token), Vec::new());
    // Several blocks at a time, until there are as many as may be.
    let late = loop {
        let second = derive(&first);
        let last = (0..3).fold(second.clone(), |last, _| derive(&last));
        let held = import(&a, &last);
        below.push(second.id());
        match ask(&held).await {
            Ok(_) => assert!(below.len() < CAPABILITY_DERIVED),
            Err(why) => {
                assert_eq!(why, StreamError::Overloaded);
                break held;
            }
        }
    };
    b.links.revoke_capability(below[0]).unwrap();
    let at = a.clock().now() + LONG;
    while ask(&late).await == Err(StreamError::Overloaded) {
        assert!(a.clock().now() < at, "it's refused for ever");
        a.clock().sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ask(&late).await, Ok(vec![0]));
}

#[tokio::test]
async fn what_waits_in_a_mailbox_when_its_taken_back_isnt_handled() {
    let (a, b) = World::new().pair().await;
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap();
    let held = import(&a, &token);
    let waiting = Work { wait: true, ..Work::default() };
    let mut first = soon(b.worker.ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    let mut second = soon(held.ask(Header::new(), &Work::default())).await.unwrap();
    until(|| b.worker.mailbox_depth() == 1).await;
    b.links.revoke_capability(token.id()).unwrap();
    b.ledger.gate.close();
    assert!(soon(first.next()).await.is_none());
    assert_eq!(soon(second.next()).await.unwrap().unwrap_err(), StreamError::Revoked);
    assert_eq!(b.ledger.begun(), 1);
}

#[tokio::test]
async fn what_isnt_right_is_refused_before_its_sent() {
    let (a, b) = World::new().pair().await;
    let grant = |terms| b.links.grant(&b.worker, a.links.id(), terms);
    for life in [Duration::ZERO, Duration::from_hours(24 * 31)] {
        let refused = grant(Terms::new(life)).unwrap_err();
        assert!(matches!(refused, CapabilityError::Life { valid } if valid == life));
    }
    let token = grant(Terms::new(MINUTE)).unwrap().to_string();
    assert!(matches!(a.links.import::<Other>(&token), Err(CapabilityError::OtherMessage)));
    assert!(matches!(a.links.import::<Work>("x"), Err(CapabilityError::Malformed)));
    assert!(matches!(b.links.import::<Work>(&token), Err(CapabilityError::OtherHolder { .. })));
    let own = b.links.grant(&b.worker, b.links.id(), Terms::new(MINUTE)).unwrap().to_string();
    assert!(matches!(b.links.import::<Work>(&own), Err(CapabilityError::Own)));
}

/// The wire's form of a token, as an attacker without our code would write it.
#[derive(Clone, rkyv::Archive, rkyv::Serialize)]
struct Chain {
    blocks: Vec<Block>,
}

#[derive(Clone, rkyv::Archive, rkyv::Serialize)]
struct Block {
    body: Vec<u8>,
    signer: Vec<u8>,
    signature: Vec<u8>,
}

impl WireMessage for Chain {
    const NAME: &'static str = "neuroflow.capability";
    const VERSION: u16 = 1;
}

impl WireRequest for Chain {
    type Reply = Done;
}

impl Chain {
    fn read(token: &CapabilityToken) -> Self {
        let text = token.to_string();
        let code = text.strip_prefix("nfc1.").unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(code).unwrap();
        let raw = RawParcel::new(MessageId::of(Self::NAME), 1, &bytes);
        let chain = raw.open::<Self>().unwrap();
        let block = |block: &ArchivedBlock| Block {
            body: block.body.to_vec(),
            signer: block.signer.to_vec(),
            signature: block.signature.to_vec(),
        };
        Self { blocks: chain.get().blocks.iter().map(block).collect() }
    }

    /// Shows it to `b` without any check of our own, and sends a message behind it.
    async fn show(&self, links: &Links) -> Result<(), StreamError> {
        let parcel = neuroflow_kernel::Parcel::archive(self).unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, parcel.as_raw().as_bytes());
        let digits = hash.as_ref()[..16]
            .iter()
            .fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
        let name = format!("agent://b/neuroflow.held.{digits}");
        let show: Address<Request<Self>> = links.resolve(&name).unwrap();
        soon(show.notify(Header::new(), self)).await.unwrap();
        all(&links.resolve(&name).unwrap(), &Work::default()).await.map(|_| ())
    }
}

#[tokio::test]
async fn the_other_node_believes_nothing_that_isnt_signed_and_shown_by_its_holder() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let thief = world.node("thief").await;
    thief.links.try_dial(b.address()).await.unwrap();
    let token = b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE).uses(9)).unwrap();
    let own = b.links.grant(&b.worker, thief.links.id(), Terms::new(MINUTE)).unwrap();
    let chain = Chain::read(&token);
    assert_eq!(chain.show(&a.links).await, Ok(()));
    // Stolen: as it is, and with a block of the thief's own on top.
    assert_eq!(chain.show(&thief.links).await, Err(StreamError::NotHolder));
    let derived = thief.links.derive(&own.to_string(), thief.links.id(), Terms::new(MINUTE));
    let mut mixed = chain.clone();
    mixed.blocks.push(Chain::read(&derived.unwrap()).blocks.pop().unwrap());
    assert_eq!(mixed.show(&thief.links).await, Err(StreamError::Forged));
    // Changed: the holder's id, rights or count in the body, the key, the signature.
    for at in [0, 20, 60, 100, 105] {
        let mut changed = chain.clone();
        changed.blocks[0].body[at] ^= 1;
        let refused = changed.show(&a.links).await;
        assert!(matches!(refused, Err(StreamError::Forged)), "byte {at}: {refused:?}");
    }
    let mut changed = chain.clone();
    changed.blocks[0].signer = Chain::read(&own).blocks[0].signer.clone();
    changed.blocks[0].signature = Chain::read(&own).blocks[0].signature.clone();
    assert_eq!(changed.show(&a.links).await, Err(StreamError::Forged));
    changed.blocks.clear();
    assert_eq!(changed.show(&a.links).await, Err(StreamError::Forged));
    // Under a name that isn't its own, it's not even looked at.
    let wrong = "agent://b/neuroflow.held.00";
    soon(a.links.resolve::<Chain>(wrong).unwrap().notify(Header::new(), &chain)).await.unwrap();
    assert_eq!(ask(&a.far(wrong)).await, Err(StreamError::Unknown));
    assert_eq!(b.ledger.begun(), 1);
}

#[tokio::test]
async fn a_node_that_began_anew_knows_no_capability_of_before() {
    let world = World::new();
    let a = world.node("a").await;
    let credential = world.credential("b", &[]);
    let b = world.node_as(&credential).await;
    a.links.dial(b.address()).await;
    a.has_link_to("b").await;
    let held = import(&a, &b.links.grant(&b.worker, a.links.id(), Terms::new(MINUTE)).unwrap());
    assert_eq!(ask(&held).await, Ok(vec![0]));
    b.kernel.stop().await;
    a.has_lost("b").await;
    // Another port: the old one may be somebody else's by now.
    let b = world.node_as(&credential).await;
    b.links.dial(a.address()).await;
    a.has_link_to("b").await;
    assert_eq!(ask(&held).await, Err(StreamError::Stale));
    assert_eq!(soon(held.down()).await, Down::new(None, Fall::Absent));
}
