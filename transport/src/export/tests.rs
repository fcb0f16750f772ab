//! What is found by a name, and what a name takes.

use std::convert::Infallible;

use futures_util::FutureExt;
use neuroflow_kernel::{Actor, ChildSpec, Kernel};

use super::*;

/// A kind of messages for each number.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Ping<const KIND: usize>;

const KINDS: [&str; MAX_KINDS_BESIDE + 1] = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];

impl<const KIND: usize> WireMessage for Ping<KIND> {
    const NAME: &'static str = KINDS[KIND];
    const VERSION: u16 = 1;
}

impl<const KIND: usize> WireRequest for Ping<KIND> {
    type Reply = Self;
}

struct Deaf<const KIND: usize = 0>;

impl<const KIND: usize> Actor for Deaf<KIND> {
    type Message = Request<Ping<KIND>>;
    type Error = Infallible;
    const KIND: &'static str = "deaf";

    async fn handle(
        &mut self,
        _: Request<Ping<KIND>>,
        _: &mut neuroflow_kernel::Context<Request<Ping<KIND>>>,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

fn beside<const KIND: usize>(exports: &Exports) -> Result<(), ExportError> {
    let (_, address) = ChildSpec::new("deaf", || Deaf::<KIND>).unwrap();
    exports.insert_beside("a", address)
}

#[tokio::test]
async fn what_was_found_is_found_again_until_an_offer_changes() {
    let kernel = Kernel::builder().start().await.unwrap();
    let (spec, address) = ChildSpec::new("deaf", || Deaf::<0>).unwrap();
    kernel.root().start(spec).await.unwrap();
    let exports = Exports::default();
    let worker = Asker { node: NodeId::from([7; 32]), roles: &["worker".to_owned()] };
    let mut last = None;
    let mut find = |name| exports.find_again(name, &worker, &mut last);
    let offer = |name, allowed| exports.insert(name, address.clone(), allowed, None).unwrap();
    assert!(find("a").is_none());
    offer("a", Allowed::Role("worker".into()));
    let first = find("a").unwrap();
    assert!(Arc::ptr_eq(&first, &find("a").unwrap()));
    offer("b", Allowed::Everyone);
    assert!(Arc::ptr_eq(&first, &find("a").unwrap()));
    assert!(!Arc::ptr_eq(&first, &find("b").unwrap()));
    // Another one under the same name; nobody any more; one that isn't for this node.
    offer("a", Allowed::Everyone);
    let second = find("a").unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(exports.remove("a") && find("a").is_none());
    offer("a", Allowed::Nodes(Vec::new()));
    assert!(find("a").is_none() && find("b").is_some());
    kernel.stop().await;
}

/// Who is given fewer rights, or one life, watches what those watch who have all.
#[tokio::test]
async fn what_passes_on_is_watched_behind_it_however_it_was_narrowed() {
    let kernel = Kernel::builder().start().await.unwrap();
    let (spec, address) = ChildSpec::new("deaf", || Deaf::<0>).unwrap();
    kernel.root().start(spec).await.unwrap();
    let exports = Exports::default();
    let behind: Behind = Arc::new(|| Box::pin(std::future::ready(Down::new(None, Fall::Lost))));
    exports.insert("a", address.clone(), Allowed::Everyone, Some(behind)).unwrap();
    exports.insert_beside("a", address.clone()).unwrap();
    exports.insert_beside("a", address).unwrap();
    let all = exports.owned("a").unwrap();
    let life = all.generation().unwrap();
    for one in [all.narrow(Restriction::new()).unwrap(), all.in_life(life).unwrap(), all] {
        assert_eq!(one.down().now_or_never().map(|down| down.fall), Some(Fall::Lost));
    }
    let export = exports.names.read().unwrap().get("a").cloned().unwrap();
    assert_eq!((export.beside.len(), export.typed.len()), (1, 1), "one of a kind");
    kernel.stop().await;
}

#[test]
fn a_name_takes_so_many_kinds_and_no_more_and_each_of_them_again() {
    let exports = Exports::default();
    let unknown = Err(ExportError::Unknown { name: "a".into() });
    assert_eq!(beside::<1>(&exports), unknown, "nothing to stand beside");
    let (_, first) = ChildSpec::new("deaf", || Deaf::<0>).unwrap();
    exports.insert("a", first, Allowed::Everyone, None).unwrap();
    let offers: [fn(&Exports) -> _; MAX_KINDS_BESIDE] = [
        beside::<0>,
        beside::<1>,
        beside::<2>,
        beside::<3>,
        beside::<4>,
        beside::<5>,
        beside::<6>,
        beside::<7>,
    ];
    for offer in offers {
        assert_eq!(offer(&exports), Ok(()));
    }
    let actor = exports.owned("a").unwrap();
    let refused = Err(ExportError::TooManyKinds { name: "a".into() });
    assert_eq!(beside::<8>(&exports), refused);
    assert!(Arc::ptr_eq(&actor, &exports.owned("a").unwrap()), "nothing is changed");
    assert_eq!(beside::<7>(&exports), Ok(()), "in the place of the one that is there");
}
