//! A node that has more to say than its peer has room for.

use std::convert::Infallible;

use neuroflow_kernel::{Actor, Address, ChildSpec, Context, Header, Parcel, ReplySink, Request};
use neuroflow_transport::Allowed;

use crate::world::{Done, Work, World, all, until};

/// Tells a peer more than a lane takes at once, and answers behind that.
struct Talkative(Address<Request<Work>>);

/// Together more than a lane has unwritten before it stops taking replies, and less than its peer hands
/// credit back for.
const NOTICES: u32 = 40;
const NOTICE_BYTES: usize = 30_000;

impl Actor for Talkative {
    type Message = Request<Work>;
    type Error = Infallible;
    const KIND: &'static str = "talkative";

    async fn handle(
        &mut self,
        request: Request<Work>,
        _: &mut Context<Request<Work>>,
    ) -> Result<(), Infallible> {
        for number in 0..NOTICES {
            let work = Work { number, payload: vec![7; NOTICE_BYTES], ..Work::default() };
            let parcel = Parcel::archive(&work).unwrap();
            let notice = Request { parcel, replies: ReplySink::unheard() };
            self.0.try_tell(Header::new(), notice).map_err(|unsent| unsent.reason).unwrap();
        }
        let done = Done { number: 0, payload: Vec::new() };
        request.replies.try_send(Parcel::archive(&done).unwrap()).unwrap();
        request.replies.finish();
        Ok(())
    }
}

#[tokio::test]
async fn an_answer_behind_many_messages_needs_nobody_to_wake_it() {
    let (a, b) = World::new().pair().await;
    let to_a = b.far("agent://a/worker");
    for round in 1..=8 {
        let name = format!("talkative{round}");
        let to_a = to_a.clone();
        let (spec, talkative) =
            ChildSpec::new(name.as_str(), move || Talkative(to_a.clone())).unwrap();
        b.kernel.root().start(spec).await.unwrap();
        b.links.export(&name, talkative, Allowed::Everyone).unwrap();
        let far = a.far(&format!("agent://b/{name}"));
        assert_eq!(all(&far, &Work::default()).await, Ok(vec![0]), "{name}");
        until(|| a.ledger.begun() == round * NOTICES as usize).await;
    }
}
