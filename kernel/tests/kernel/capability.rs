//! Authority: granted, narrowed, taken back, checked for every message.

use neuroflow_kernel::{
    AttenuateError, Budget, CallError, Denied, Header, Refusal, Restriction, Rights,
};

use crate::probe::{Do, Gate, SECOND, SECRET, World, hangs, settle, soon};

#[tokio::test]
async fn a_right_that_was_given_up_is_refused_and_the_message_comes_back() {
    let world = World::new().await;
    let owner = world.start("a").await;
    let narrow = owner.attenuate(Restriction::new().rights(Rights::bit(0))).unwrap();
    let refused = soon(narrow.call(Header::new(), |reply| Do::Secret(1, reply))).await;
    let denied = Denied::Rights { needed: SECRET, held: Rights::bit(0) };
    assert_eq!(refused, Err(CallError::Refused(Refusal::Denied(denied))));
    assert_eq!(soon(narrow.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
    assert_eq!(soon(owner.call(Header::new(), |reply| Do::Secret(1, reply))).await, Ok(1));
    // What was given up doesn't come back by deriving again.
    let wide = narrow.attenuate(Restriction::new().rights(Rights::ALL)).unwrap();
    assert!(soon(wide.call(Header::new(), |reply| Do::Secret(1, reply))).await.is_err());
}

#[tokio::test]
async fn revoking_ends_it_and_what_was_derived_from_it_wherever_the_copies_are() {
    let world = World::new().await;
    let owner = world.start("a").await;
    let lent = owner.attenuate(Restriction::new()).unwrap();
    let lent_on = lent.attenuate(Restriction::new()).unwrap();
    let copy = lent_on.clone();
    lent.revoke().unwrap();
    for address in [&lent, &lent_on, &copy] {
        let refused = address.try_tell(Header::new(), Do::Note("x")).unwrap_err();
        assert_eq!(refused.reason, Refusal::Denied(Denied::Revoked));
        assert!(matches!(refused.message, Do::Note("x")));
    }
    owner.try_tell(Header::new(), Do::Note("x")).unwrap();
    assert_eq!(owner.revoke(), Err(AttenuateError::OwnersOwn));
}

#[tokio::test]
async fn a_message_whose_capability_is_revoked_while_it_waits_is_not_handled() {
    let world = World::new().await;
    let owner = world.start("a").await;
    let gate = Gate::new();
    owner.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let lent = owner.attenuate(Restriction::new()).unwrap();
    lent.tell(Header::new(), Do::Note("revoked")).await.unwrap();
    let mut call = Box::pin(lent.call(Header::new(), |reply| Do::Echo(1, reply)));
    assert!(hangs(&mut call).await);
    lent.revoke().unwrap();
    gate.open();
    let denied = CallError::Refused(Refusal::Denied(Denied::Revoked));
    assert_eq!(soon(call).await, Err(denied));
    settle().await;
    assert!(!world.log.has("a revoked"));
    assert_eq!(owner.mailbox_depth(), 0);
}

#[tokio::test]
async fn an_expired_capability_is_refused_also_while_the_message_waits() {
    let world = World::new().await;
    let owner = world.start("a").await;
    let at = world.kernel.clock().now() + SECOND;
    let lent = owner.attenuate(Restriction::new().expires(at)).unwrap();
    let gate = Gate::new();
    owner.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    lent.tell(Header::new(), Do::Note("expired")).await.unwrap();
    world.time.advance(SECOND);
    let refused = lent.try_tell(Header::new(), Do::Note("x")).unwrap_err();
    assert_eq!(refused.reason, Refusal::Denied(Denied::Expired));
    gate.open();
    settle().await;
    assert!(!world.log.has("a expired"));
}

#[tokio::test]
async fn uses_are_counted_and_only_messages_that_were_taken_count() {
    let world = World::new().await;
    let (spec, owner) = world.spec("a");
    world.kernel.root().start(spec.mailbox(1)).await.unwrap();
    let lent = owner.attenuate(Restriction::new().uses(2)).unwrap();
    let gate = Gate::new();
    owner.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    lent.try_tell(Header::new(), Do::Note("first")).unwrap();
    // Refused, given up at the deadline, and cancelled: none of them is a use.
    assert!(lent.try_tell(Header::new(), Do::Note("refused")).is_err());
    let mut late = Box::pin(lent.tell(world.within(SECOND), Do::Note("late")));
    assert!(hangs(&mut late).await);
    world.time.advance(SECOND);
    assert!(soon(late).await.is_err());
    let mut cancelled = Box::pin(lent.tell(Header::new(), Do::Note("cancelled")));
    assert!(hangs(&mut cancelled).await);
    drop(cancelled);
    gate.open();
    settle().await;
    lent.try_tell(Header::new(), Do::Note("second")).unwrap();
    let refused = lent.try_tell(Header::new(), Do::Note("third")).unwrap_err();
    assert_eq!(refused.reason, Refusal::Denied(Denied::UsedUp));
}

#[tokio::test]
async fn the_receiver_sees_the_grant_and_a_budget_of_at_most_its_own() {
    let world = World::new().await;
    let owner = world.start("a").await;
    let lent = owner.attenuate(Restriction::new().budget(Budget::units(5))).unwrap();
    let header = soon(lent.call(Header::new().budget(Budget::units(9)), Do::Header)).await.unwrap();
    assert_eq!(header.remaining_budget(), Budget::units(5));
    assert_ne!(header.grant(), neuroflow_kernel::GrantId::OWNER);
    let header = soon(lent.call(Header::new().budget(Budget::units(2)), Do::Header)).await.unwrap();
    assert_eq!(header.remaining_budget(), Budget::units(2));
}

/// A message that becomes another needs the rights of what it becomes.
#[tokio::test]
async fn a_mapped_message_does_not_pass_round_the_rights() {
    struct Harmless(neuroflow_kernel::Reply<u64>);
    impl neuroflow_kernel::Message for Harmless {
        fn name(&self) -> &'static str {
            "harmless"
        }
    }
    let world = World::new().await;
    let owner = world.start("a").await;
    let narrow = owner.attenuate(Restriction::new().rights(Rights::NONE)).unwrap();
    let mapped = narrow.accepting(|Harmless(reply)| Do::Secret(1, reply)).unwrap();
    let refused = soon(mapped.call(Header::new(), Harmless)).await;
    assert!(matches!(refused, Err(CallError::Refused(Refusal::Denied(Denied::Rights { .. })))));
    let mapped = owner.accepting(|Harmless(reply)| Do::Secret(1, reply)).unwrap();
    assert_eq!(soon(mapped.call(Header::new(), Harmless)).await, Ok(1));
}
