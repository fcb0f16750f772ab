//! What travels with every message: trace, deadline, sender, budget, hops.

use neuroflow_kernel::{Budget, CallError, Header, Refusal, TraceContext, current_trace, limits};

use crate::probe::{Do, Gate, Probe, SECOND, World, hangs, settle, soon};

#[tokio::test]
async fn what_an_actor_sends_onward_carries_what_came_with_its_message() {
    let world = World::new().await;
    let first = world.start("first").await;
    let second = world.start("second").await;
    let trace = TraceContext::root(true);
    let sent = world.within(9 * SECOND).traced(trace).budget(Budget::units(4));
    let deadline = sent.deadline();
    let seen = soon(first.call(sent, |reply| Do::Relay(second, reply))).await.unwrap().unwrap();
    assert_eq!(seen.trace(), trace);
    assert_eq!(seen.deadline(), deadline);
    assert_eq!(seen.remaining_budget(), Budget::units(4));
    assert_eq!(Some(seen.sender()), first.id());
    assert_eq!(seen.hops(), 1);
    assert_eq!(TraceContext::BYTES, 26);
    assert_eq!(TraceContext::from_bytes(trace.to_bytes()), trace);
}

#[tokio::test]
async fn the_deadline_of_the_first_call_ends_the_last() {
    let world = World::new().await;
    let first = world.start("first").await;
    let second = world.start("second").await;
    let gate = Gate::new();
    second.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let header = world.within(SECOND);
    let mut call = Box::pin(first.call(header, |reply| Do::Relay(second.clone(), reply)));
    assert!(hangs(&mut call).await);
    world.time.advance(SECOND);
    assert_eq!(soon(call).await.unwrap_err(), CallError::DeadlineExceeded);
    gate.open();
    settle().await;
    // The first isn't stuck with the second's answer.
    assert_eq!(soon(first.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
}

#[tokio::test]
async fn a_loop_of_actors_ends() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let mut header = Header::new();
    for _ in 0..limits::MAX_HOPS {
        header = header.forward(neuroflow_kernel::ActorId::NOBODY);
    }
    assert!(soon(probe.call(header.clone(), |reply| Do::Echo(1, reply))).await.is_ok());
    let header = header.forward(neuroflow_kernel::ActorId::NOBODY);
    let refused = soon(probe.call(header, |reply| Do::Echo(1, reply))).await;
    let hops = limits::MAX_HOPS + 1;
    assert_eq!(refused, Err(CallError::Refused(Refusal::TooManyHops { hops })));
}

/// The probe's hooks check that no header of a past message is left for them.
#[tokio::test]
async fn a_hook_has_no_header_of_the_last_message() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let probe = Probe::new("child", &world.log);
    let spawn = |reply| Do::Spawn(Box::new(probe), neuroflow_kernel::Spawn::default(), reply);
    let child = soon(parent.call(world.within(SECOND), spawn)).await.unwrap().unwrap();
    child.tell(world.within(SECOND), Do::Stop).await.unwrap();
    settle().await;
    assert!(world.log.has("child dropped"));
    assert!(world.log.has("parent saw that child stopped"));
    assert!(world.kernel.post_mortems().is_empty());
}

#[tokio::test]
async fn the_trace_is_the_threads_own_only_while_its_message_is_handled() {
    use std::convert::Infallible;
    struct Ask(neuroflow_kernel::Reply<TraceContext>);
    impl neuroflow_kernel::Message for Ask {
        fn name(&self) -> &'static str {
            "ask"
        }
    }
    struct Tracing;
    impl neuroflow_kernel::Actor for Tracing {
        type Message = Ask;
        type Error = Infallible;
        const KIND: &'static str = "tracing";
        async fn handle(
            &mut self,
            Ask(reply): Ask,
            _: &mut neuroflow_kernel::Context<Ask>,
        ) -> Result<(), Infallible> {
            tokio::task::yield_now().await;
            assert!(reply.send(current_trace()).is_ok());
            Ok(())
        }
    }
    let world = World::new().await;
    let (spec, actor) = neuroflow_kernel::ChildSpec::new("tracing", || Tracing).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let trace = TraceContext::root(true);
    assert_eq!(soon(actor.call(Header::new().traced(trace), Ask)).await, Ok(trace));
    assert_eq!(soon(actor.call(Header::new(), Ask)).await, Ok(TraceContext::NONE));
    assert!(current_trace().is_none());
}
