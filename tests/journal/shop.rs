//! A host program whose agent goes on after a kill and does things in the world, and the book in which
//! the world writes down what was done to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neuroflow::actors::PushOptions;
use neuroflow::{AgentBuilder, AgentError, Answer, AnyAgent, Echo, Node};

use crate::killable::{ANNOUNCED, Killable};
use crate::scene::config;

/// Says to this program, started once more, that it's the shop, and where.
const ROLE: &str = "NEUROFLOW_TEST_SHOP";

/// What a task does in the world, in this order.
pub(crate) const DEEDS: [&str; 3] = ["reserve", "charge", "ship"];

/// A node with the agents `echo` and `shop`, in a process of its own.
pub(crate) fn open(folder: &Path) -> Killable {
    Killable::role("shop::role_shop", ROLE, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_shop() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let mut push = PushOptions::default();
    push.allow_private = true;
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(shop(Book::of(&folder)));
    let node = node.journal(config(&folder.join("journal"))).push_notifications(push);
    let node = node.gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    writeln!(std::io::stdout(), "{ANNOUNCED}{gateway}/").expect("somebody reads it");
    std::future::pending::<()>().await;
}

/// Says what it will do, does it, and leaves a moment in which it may be killed.
fn shop(book: Book) -> AnyAgent {
    let shop = AgentBuilder::new("shop", "Takes orders.").profile(|profile| {
        profile.resumable = true;
    });
    shop.on_ask(move |_, context| {
        let book = book.clone();
        async move {
            let mut receipts = Vec::new();
            for deed in DEEDS {
                context.say(deed).await?;
                let done = async { book.done(context.task(), deed) };
                let receipt: String = context.effect(deed, done).await?;
                receipts.push(receipt);
                context.clock().sleep(Duration::from_millis(4)).await;
            }
            Ok(Answer::text(receipts.join(" ")))
        }
    })
}

/// What was done, a line for each time.
#[derive(Clone)]
pub(crate) struct Book(PathBuf);

/// The times that something was done.
#[derive(Default)]
pub(crate) struct Times {
    /// What each time came to, in order.
    pub(crate) receipts: Vec<String>,
    /// Which processes did it.
    pub(crate) by: Vec<u32>,
}

impl Book {
    pub(crate) fn of(folder: &Path) -> Self {
        Self(folder.join("book"))
    }

    /// Does it once more: every time has a receipt of its own.
    fn done(&self, task: &str, deed: &str) -> Result<String, AgentError> {
        let receipt = format!("{:016x}", RandomState::new().build_hasher().finish());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0);
        let line = format!("{task} {deed} {receipt} {}\n", std::process::id());
        // In one piece: the system has it whole or not at all.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(AgentError::failed)?;
        Ok(receipt)
    }

    /// All that was done, by task and deed.
    pub(crate) fn read(&self) -> HashMap<(String, String), Times> {
        let text = std::fs::read_to_string(&self.0).expect("the book is there");
        let mut all: HashMap<_, Times> = HashMap::new();
        for line in text.lines() {
            let [task, deed, receipt, by] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not a line of the book: {line:?}")
            };
            let times = all.entry((task.to_owned(), deed.to_owned())).or_default();
            times.receipts.push(receipt.to_owned());
            times.by.push(by.parse().expect("a process"));
        }
        all
    }
}
