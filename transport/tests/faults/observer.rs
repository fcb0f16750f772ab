//! What a node sees of the others: who is there, who has gone and how often, and how what it watches has ended.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Context, Down, Header, Kernel, Message, Monitor, Reply, Request,
};
use neuroflow_transport::{Links, MemberState};
use tokio::task::JoinSet;

use crate::node::Work;

/// How often the members are looked at: a death that is taken back lasts longer.
const LOOK: Duration = Duration::from_millis(10);

/// How watches of each target have ended.
type Falls = Arc<Mutex<HashMap<String, BTreeMap<String, u64>>>>;

/// How often each member has gone.
type Departures = Arc<Mutex<HashMap<String, u64>>>;

pub(crate) struct Observer {
    links: Links,
    went: Departures,
    falls: Falls,
    watcher: Address<Watch>,
    _looking: JoinSet<()>,
}

/// Keeps watches, and counts how they end.
struct Watcher {
    links: Links,
    falls: Falls,
    watches: Vec<Monitor>,
}

enum Watch {
    Over(String, Reply<()>),
    Down(String, Down),
}

impl Message for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }
}

impl Actor for Watcher {
    type Message = Watch;
    type Error = Infallible;
    const KIND: &'static str = "watcher";

    async fn handle(
        &mut self,
        watch: Watch,
        context: &mut Context<Watch>,
    ) -> Result<(), Infallible> {
        let (target, fall) = match watch {
            Watch::Over(target, reply) => {
                let other: Address<Request<Work>> = self.links.resolve(&target).expect("a target");
                let of = target.clone();
                let watch = context.monitor(&other, move |down| Watch::Down(of.clone(), down));
                self.watches.push(watch.expect("few watches"));
                reply.send(()).expect("somebody waits");
                (target, "watches".to_owned())
            }
            Watch::Down(target, down) => (target, format!("{:?}", down.fall)),
        };
        let mut falls = self.falls.lock().unwrap();
        *falls.entry(target).or_default().entry(fall).or_default() += 1;
        Ok(())
    }
}

impl Observer {
    pub(crate) async fn start(kernel: &Kernel, links: Links) -> Self {
        let (falls, went) = (Falls::default(), Departures::default());
        let make = {
            let (links, falls) = (links.clone(), Arc::clone(&falls));
            move || Watcher { links: links.clone(), falls: Arc::clone(&falls), watches: Vec::new() }
        };
        let (spec, watcher) = ChildSpec::new("watcher", make).expect("a name");
        kernel.root().start(spec).await.expect("an actor");
        let mut looking = JoinSet::new();
        let clock = kernel.clock().clone();
        let (all, count) = (links.clone(), Arc::clone(&went));
        looking.spawn(async move {
            let mut there: HashMap<String, bool> = HashMap::new();
            loop {
                for member in all.members() {
                    let name = member.name.to_string();
                    let is = member.state.is_active();
                    if there.insert(name.clone(), is) == Some(true) && !is {
                        *count.lock().unwrap().entry(name).or_default() += 1;
                    }
                }
                clock.sleep(LOOK).await;
            }
        });
        Self { links, went, falls, watcher, _looking: looking }
    }

    pub(crate) fn member(&self, node: &str) -> String {
        let active = u8::from(self.state_of(node).is_some_and(MemberState::is_active));
        let went = self.went.lock().unwrap().get(node).copied().unwrap_or_default();
        format!("active={active} went={went}")
    }

    pub(crate) fn state(&self, node: &str) -> &'static str {
        self.state_of(node).map_or("unknown", MemberState::as_str)
    }

    fn state_of(&self, node: &str) -> Option<MemberState> {
        let members = self.links.members();
        members.iter().find(|member| member.name.as_str() == node).map(|member| member.state)
    }

    pub(crate) async fn watch(&self, target: &str) -> String {
        let over = |reply| Watch::Over(target.to_owned(), reply);
        self.watcher.call(Header::new(), over).await.expect("the watcher lives");
        "done".to_owned()
    }

    pub(crate) fn falls(&self, target: &str) -> String {
        let falls = self.falls.lock().unwrap();
        let counts = falls.get(target).into_iter().flatten();
        let pairs: Vec<String> = counts.map(|(fall, count)| format!("{fall}={count}")).collect();
        pairs.join(" ")
    }
}
