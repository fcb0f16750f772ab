//! A bound on what is on its way to a server. The protocol's engine answers whatever a server asks, and
//! keeps the answers until they are taken: a server that asks and doesn't read would fill the memory.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neuroflow_kernel::{Clock, Moment};
use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::Notify;

use super::pulse::Pulse;
use crate::limits::{MCP_UNSENT, MCP_UNSENT_BYTES};

/// A transport that isn't read from while much of what was sent hasn't been taken.
pub(super) struct Gate<T> {
    transport: T,
    unsent: Arc<Unsent>,
    pulse: Arc<Pulse>,
}

impl<T> Gate<T> {
    pub(super) fn new(transport: T, unsent: Arc<Unsent>, pulse: Arc<Pulse>) -> Self {
        Self { transport, unsent, pulse }
    }
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Gate<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        let place = Unsent::begin(&self.unsent, bytes(&message));
        let sending = self.transport.send(message);
        async move {
            let sent = sending.await;
            drop(place);
            sent
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        self.unsent.room().await;
        self.transport.receive().await.inspect(|_message| self.pulse.beat())
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.transport.close().await
    }
}

/// How long an answer is: it has in it what the server has asked with. Calls are ours, and have a bound.
fn bytes(message: &ClientJsonRpcMessage) -> usize {
    let is_answer =
        matches!(message, ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_));
    // What can't be written isn't sent either.
    if is_answer { serde_json::to_vec(message).map_or(0, |json| json.len()) } else { 0 }
}

/// What is on its way, of one session.
#[derive(Debug)]
pub(super) struct Unsent {
    clock: Clock,
    messages: Mutex<Messages>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Messages {
    next: u64,
    bytes: usize,
    /// Since when each is, in their order.
    since: BTreeMap<u64, Moment>,
}

impl Unsent {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, messages: Mutex::default(), changed: Notify::new() }
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        // Each change of it is whole.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(unsent: &Arc<Self>, bytes: usize) -> Sending {
        let mut messages = unsent.messages();
        let number = messages.next;
        messages.next += 1;
        messages.bytes = messages.bytes.saturating_add(bytes);
        messages.since.insert(number, unsent.clock.now());
        drop(messages);
        unsent.changed.notify_waiters();
        Sending { unsent: Arc::clone(unsent), number, bytes }
    }

    fn has_room(&self) -> bool {
        let messages = self.messages();
        messages.since.len() < MCP_UNSENT && messages.bytes < MCP_UNSENT_BYTES
    }

    /// Waits until there is room for the answer to one more message.
    async fn room(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    /// Returns once a message has been on its way for so long.
    pub(super) async fn stuck(&self, time: Duration) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let oldest = self.messages().since.values().next().copied();
            let Some(since) = oldest else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = self.clock.sleep_until(since + time) => return,
                () = changed => {}
            }
        }
    }
}

/// A message that is on its way until this is dropped.
struct Sending {
    unsent: Arc<Unsent>,
    number: u64,
    bytes: usize,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut messages = self.unsent.messages();
        messages.since.remove(&self.number);
        messages.bytes = messages.bytes.saturating_sub(self.bytes);
        drop(messages);
        self.unsent.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Future, pending};

    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

    /// A server that asks and doesn't read.
    struct Deaf;

    impl Transport<RoleClient> for Deaf {
        type Error = Infallible;

        fn send(
            &mut self,
            _: ClientJsonRpcMessage,
        ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
            pending()
        }

        async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
            let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
            serde_json::from_value(ping).ok()
        }

        async fn close(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    fn answer(id: &str) -> ClientJsonRpcMessage {
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": {} });
        serde_json::from_value(answer).expect("an answer")
    }

    fn gate(clock: Clock) -> (Gate<Deaf>, Arc<Unsent>) {
        let unsent = Arc::new(Unsent::new(clock));
        (Gate::new(Deaf, Arc::clone(&unsent), Arc::default()), unsent)
    }

    #[test]
    fn a_server_that_does_not_read_is_not_heard_while_answers_wait_for_it() {
        let (mut gate, _) = gate(Clock::system());
        let mut sending = Vec::new();
        while gate.receive().now_or_never().is_some() {
            assert!(sending.len() < MCP_UNSENT, "it's heard on and on");
            sending.push(gate.send(answer("a")));
        }
        assert_eq!(sending.len(), MCP_UNSENT);
        sending.pop();
        assert!(gate.receive().now_or_never().flatten().is_some());
    }

    #[test]
    fn what_waits_has_a_bound_in_bytes_too() {
        let (mut gate, _) = gate(Clock::system());
        let id = "x".repeat(MCP_UNSENT_BYTES / 4);
        let mut sending = Vec::new();
        while gate.receive().now_or_never().is_some() {
            assert!(sending.len() < 8, "it's heard on and on");
            sending.push(gate.send(answer(&id)));
        }
        assert_eq!(sending.len(), 4);
    }

    #[tokio::test]
    async fn a_message_that_is_not_taken_is_told_of_in_time_and_one_that_is_is_not() {
        let time = neuroflow_kernel::ManualClock::new();
        let (mut gate, unsent) = gate(time.clock());
        let after = Duration::from_secs(5);
        let first = gate.send(answer("a"));
        time.advance(Duration::from_secs(4));
        let _second = gate.send(answer("b"));
        drop(first);
        time.advance(Duration::from_secs(4));
        assert!(unsent.stuck(after).now_or_never().is_none());
        time.advance(Duration::from_secs(1));
        unsent.stuck(after).await;
    }
}
