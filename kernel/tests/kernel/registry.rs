//! Names: reachable through a scope that covers them, and through nothing else.

use neuroflow_kernel::{
    Address, CallError, Header, LookupError, Message, Name, Refusal, Strategy, Supervisor,
};

use crate::probe::{Do, World, policy, settle, soon, until};

async fn tree(world: &World) -> (Supervisor, Address<Do>) {
    let (own, _) = world.spec("own");
    let (supervisor, spec) =
        Supervisor::spec("team", policy(Strategy::OneForOne), vec![own]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let (spec, dynamic) = world.spec("dynamic");
    supervisor.start(spec).await.unwrap();
    (supervisor, dynamic)
}

fn names(world: &World) -> Vec<String> {
    world.kernel.scope().names().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_scope_covers_its_subtree_and_nothing_else() {
    let world = World::new().await;
    let outside = world.start("outside").await;
    tree(&world).await;
    let team = world.kernel.scope().within("team").unwrap();
    assert_eq!(team.path().as_str(), "/team");
    let own = team.lookup::<Do>("own").unwrap();
    assert_eq!(soon(own.call(Header::new(), |reply| Do::Echo(3, reply))).await, Ok(3));
    assert!(matches!(team.lookup::<Do>("outside"), Err(LookupError::Unknown { .. })));
    for climbing in ["..", "../outside", "/outside", "own/../../outside", ""] {
        assert!(matches!(team.lookup::<Do>(climbing), Err(LookupError::Name(_))), "{climbing}");
    }
    let all: Vec<String> = team.names().iter().map(ToString::to_string).collect();
    assert_eq!(all, ["/team", "/team/dynamic", "/team/own"]);
    assert!(world.kernel.scope().lookup::<Do>("team/own").is_ok());
    drop(outside);
}

#[tokio::test]
async fn a_name_of_another_kind_of_actor_is_refused() {
    struct Other;
    impl Message for Other {
        fn name(&self) -> &'static str {
            "other"
        }
    }
    let world = World::new().await;
    world.start("a").await;
    let scope = world.kernel.scope();
    assert!(matches!(scope.lookup::<Other>("a"), Err(LookupError::OtherMessage { .. })));
    // What commands a supervisor has no name that leads to it.
    tree(&world).await;
    assert!(matches!(scope.lookup::<Do>("team"), Err(LookupError::OtherMessage { .. })));
}

#[tokio::test]
async fn a_looked_up_address_follows_the_name() {
    let world = World::new().await;
    world.start("a").await;
    let found = world.kernel.scope().lookup::<Do>("a").unwrap();
    assert_eq!(soon(found.call(Header::new(), Do::Panic)).await, Err(CallError::Panicked));
    settle().await;
    world.pass_backoff();
    assert_eq!(soon(found.call(Header::new(), Do::Generation)).await, Ok(2));
}

#[tokio::test]
async fn a_name_ends_with_its_actor() {
    let world = World::new().await;
    let found = world.start("a").await;
    assert_eq!(names(&world), ["/a"]);
    let name = Name::new("a").unwrap();
    assert_eq!(soon(world.kernel.root().stop_child(&name)).await, Ok(true));
    assert_eq!(soon(world.kernel.root().stop_child(&name)).await, Ok(false));
    assert!(names(&world).is_empty());
    assert_eq!(found.generation(), None);
    let refused = soon(found.call(Header::new(), Do::Generation)).await;
    assert_eq!(refused, Err(CallError::Refused(Refusal::Stopped)));
}

/// Children that were started later aren't part of the supervisor's next life.
#[tokio::test]
async fn a_failed_supervisor_leaves_no_names_behind_but_those_of_its_own_children() {
    let world = World::new().await;
    let (spec, own) = world.spec("own");
    let mut once = policy(Strategy::OneForOne);
    once.intensity.restarts = 0;
    let (supervisor, spec) = Supervisor::spec("team", once, vec![spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let (spec, dynamic) = world.spec("dynamic");
    supervisor.start(spec).await.unwrap();
    assert!(soon(dynamic.call(Header::new(), Do::Panic)).await.is_err());
    until(|| names(&world) == ["/team", "/team/own"]).await;
    let refused = soon(dynamic.call(Header::new(), Do::Generation)).await;
    assert_eq!(refused, Err(CallError::Refused(Refusal::Stopped)));
    world.pass_backoff();
    assert_eq!(soon(own.call(Header::new(), Do::Generation)).await, Ok(2));
    assert_eq!(names(&world), ["/team", "/team/own"]);
}

#[tokio::test]
async fn the_names_below_a_supervisor_end_with_it() {
    let world = World::new().await;
    let (own, own_address) = world.spec("own");
    let (inner, inner_spec) =
        Supervisor::spec("inner", policy(Strategy::OneForOne), vec![own]).unwrap();
    let (_, spec) =
        Supervisor::spec("outer", policy(Strategy::OneForOne), vec![inner_spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let (spec, dynamic) = world.spec("dynamic");
    inner.start(spec).await.unwrap();
    assert_eq!(names(&world).len(), 4);
    let name = Name::new("outer").unwrap();
    assert_eq!(soon(world.kernel.root().stop_child(&name)).await, Ok(true));
    assert!(names(&world).is_empty());
    for address in [own_address, dynamic] {
        let refused = soon(address.call(Header::new(), Do::Generation)).await;
        assert_eq!(refused, Err(CallError::Refused(Refusal::Stopped)));
    }
}

#[tokio::test]
async fn a_name_can_be_given_again() {
    let world = World::new().await;
    let (spec, address) = world.spec("a");
    let root = world.kernel.root();
    root.start(spec.clone()).await.unwrap();
    let taken = root.start(spec.clone()).await.unwrap_err();
    assert!(matches!(taken, neuroflow_kernel::StartError::Taken { .. }));
    assert_eq!(soon(address.call(Header::new(), Do::Generation)).await, Ok(1));
    root.stop_child(&Name::new("a").unwrap()).await.unwrap();
    root.start(spec).await.unwrap();
    assert_eq!(soon(address.call(Header::new(), Do::Generation)).await, Ok(2));
}
