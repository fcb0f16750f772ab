//! One lane's session: what may be sent, what was asked, what was granted. No I/O and no clock.
//!
//! The shell in [`crate::link`] feeds it frames and moments and carries out what it answers. Each
//! lane of a link has one, so that a peer's credit is the sum over its lanes.

pub(crate) mod calls;
pub(crate) mod handshake;
pub(crate) mod keyed;
pub(crate) mod order;
pub(crate) mod retry;
#[cfg(any(test, fuzzing))]
pub(crate) mod script;
pub(crate) mod window;

use neuroflow_kernel::Moment;

use self::calls::Calls;
use self::window::Window;
use crate::limits::{LANE_CALLS, SMALL_MESSAGE_BYTES, WATCH_CREDIT_BYTES, WATCH_CREDIT_MESSAGES};

/// What one end of a lane may send, and who waits there for answers. `C` is whoever waits for replies, `P` a reply.
#[derive(Debug)]
pub(crate) struct Session<C, P> {
    small: Window,
    large: Window,
    pub(crate) calls: Calls<C, P>,
    draining: bool,
    /// It was said that nothing is asked any more.
    drained: bool,
    /// Requests and notices that were put into the lane's queue.
    queued: u64,
}

/// Small messages and large ones have credit of their own, so that a small one never waits for the
/// bytes of a large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Small = 0,
    Large = 1,
}

impl Class {
    /// Of an archive of so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        if bytes > SMALL_MESSAGE_BYTES { Self::Large } else { Self::Small }
    }

    /// The class of this number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Small, Self::Large].into_iter().find(|class| *class as u32 == number)
    }
}

/// Why a message can't be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The peer has granted no more.
    Credit,
    /// As many calls wait for their answers as may.
    Calls,
    /// The actor that it's for has no room.
    Actor,
    /// The peer takes no new requests.
    Draining,
}

impl<C, P> Session<C, P> {
    /// Of a lane whose peer grants `messages` and `bytes` from the start.
    pub(crate) fn new(messages: u64, bytes: u64) -> Self {
        Self {
            small: Window::new(messages, bytes).keeping(WATCH_CREDIT_MESSAGES, WATCH_CREDIT_BYTES),
            large: Window::new(messages, bytes),
            calls: Calls::new(LANE_CALLS),
            draining: false,
            drained: false,
            queued: 0,
        }
    }

    /// Enters a call and takes its credit; `caller` comes back if there is none.
    pub(crate) fn call(
        &mut self,
        bytes: usize,
        deadline: Option<Moment>,
        caller: C,
    ) -> Result<u64, (Hold, C)> {
        let class = Class::of(bytes);
        if let Err(hold) = self.may_send(class) {
            return Err((hold, caller));
        }
        let id = self.calls.insert(caller, deadline).map_err(|caller| (Hold::Calls, caller))?;
        self.window(class).sent(bytes);
        Ok(id)
    }

    /// The same of a watch, which is small, lasts, and has credit and places of its own.
    pub(crate) fn watch(
        &mut self,
        bytes: usize,
        deadline: Option<Moment>,
        caller: C,
    ) -> Result<u64, (Hold, C)> {
        if let Err(hold) = self.may_watch() {
            return Err((hold, caller));
        }
        let entered = self.calls.insert_lasting(caller, deadline);
        let id = entered.map_err(|caller| (Hold::Calls, caller))?;
        self.small.sent(bytes);
        Ok(id)
    }

    /// Takes the credit of a message without answer.
    pub(crate) fn notice(&mut self, bytes: usize) -> Result<(), Hold> {
        let class = Class::of(bytes);
        self.may_send(class)?;
        self.window(class).sent(bytes);
        Ok(())
    }

    /// The message was put into the lane's queue, where nothing of its own may overtake it; `id` is 0 of one
    /// that isn't answered.
    pub(crate) fn queued(&mut self, id: u64) {
        self.queued = self.queued.saturating_add(1);
        if let Some(call) = self.calls.get(id) {
            call.place = self.queued;
        }
    }

    /// Whether a message of this class may be sent now.
    pub(crate) fn may_send(&mut self, class: Class) -> Result<(), Hold> {
        if self.draining {
            return Err(Hold::Draining);
        }
        if self.window(class).is_open() { Ok(()) } else { Err(Hold::Credit) }
    }

    /// Whether any message of this class may be sent now, one that's answered too.
    pub(crate) fn is_ready(&mut self, class: Class) -> Result<(), Hold> {
        self.may_send(class)?;
        if self.calls.is_full() { Err(Hold::Calls) } else { Ok(()) }
    }

    /// Whether a watch may be sent now.
    pub(crate) fn may_watch(&self) -> Result<(), Hold> {
        if self.draining {
            Err(Hold::Draining)
        } else if !self.small.is_open_to_urgent() {
            Err(Hold::Credit)
        } else if self.calls.is_full_of_all() {
            Err(Hold::Calls)
        } else {
            Ok(())
        }
    }

    fn window(&mut self, class: Class) -> &mut Window {
        match class {
            Class::Small => &mut self.small,
            Class::Large => &mut self.large,
        }
    }

    /// The peer takes no new requests.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether the peer takes no new requests and has answered all that it had, so that it's to be told so;
    /// true once.
    pub(crate) fn take_drained(&mut self) -> bool {
        let is_over = self.draining && !self.drained && self.calls.awaited() == 0;
        self.drained |= is_over;
        is_over
    }

    /// The peer grants more; says whether that opened the window to somebody.
    pub(crate) fn granted(&mut self, class: Class, messages: u64, bytes: u64) -> bool {
        let window = self.window(class);
        let before = (window.is_open(), window.is_open_to_urgent());
        window.grant(messages, bytes);
        before != (window.is_open(), window.is_open_to_urgent())
    }
}

/// What a peer that keeps to the protocol never does. It loses its link.
///
/// ```
/// assert!(neuroflow_transport::Violation::Credit.to_string().contains("granted"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It sends more than it was granted.
    #[error("the peer sends more than it was granted")]
    Credit,
    /// It sends a reply twice, or one after the end.
    #[error("the peer sends a reply twice or after the last one")]
    Sequence,
    /// It uses the number of a request that still runs.
    #[error("the peer uses the number of a request that still runs")]
    Number,
    /// It makes us answer and doesn't read the answers.
    #[error("the peer doesn't read what it asked for")]
    Unread,
    /// It names a lane that isn't there.
    #[error("the peer names a lane that there isn't")]
    Lane,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::window::Allowance;
    use super::*;
    use crate::limits::{LANE_CREDIT_BYTES, LANE_CREDIT_MESSAGES};

    #[test]
    fn a_call_without_credit_comes_back_and_goes_through_after_a_grant() {
        let mut session: Session<&str, ()> = Session::new(1, 100);
        assert!(session.call(500, None, "first").is_ok());
        assert_eq!(session.call(1, None, "second").unwrap_err(), (Hold::Credit, "second"));
        assert_eq!(session.notice(1), Err(Hold::Credit));
        assert!(!session.granted(Class::Small, 1, 1_000), "no message more");
        assert!(session.notice(SMALL_MESSAGE_BYTES + 1).is_ok(), "of another class");
        assert_eq!(session.notice(SMALL_MESSAGE_BYTES + 1), Err(Hold::Credit));
        assert!(session.granted(Class::Large, 2, 1_000_000));
        assert!(session.granted(Class::Small, 2, 1_000));
        assert!(session.call(1, None, "second").is_ok());
        session.drain();
        assert_eq!(session.notice(1), Err(Hold::Draining));
    }

    #[test]
    fn a_peer_that_drains_is_told_once_when_nothing_of_it_is_waited_for() {
        let mut session: Session<&str, ()> = Session::new(9, 100);
        let call = session.call(1, None, "call").unwrap();
        session.watch(1, None, "watch").unwrap();
        assert!(!session.take_drained(), "nobody drains");
        session.drain();
        assert!(!session.take_drained(), "a call waits");
        session.calls.remove(call);
        assert!(session.take_drained() && !session.take_drained());
    }

    #[test]
    fn a_watch_finds_credit_where_others_have_used_all() {
        let mut session: Session<&str, ()> = Session::new(LANE_CREDIT_MESSAGES, LANE_CREDIT_BYTES);
        while session.notice(1).is_ok() {}
        assert_eq!(session.call(1, None, "call").unwrap_err().0, Hold::Credit);
        for _ in 0..WATCH_CREDIT_MESSAGES {
            assert!(session.watch(1, None, "watch").is_ok());
        }
        assert_eq!(session.watch(1, None, "watch"), Err((Hold::Credit, "watch")));
        assert!(session.granted(Class::Small, LANE_CREDIT_MESSAGES + 1, 0), "to a watch");
        assert_eq!(session.notice(1), Err(Hold::Credit));
        assert!(session.watch(1, None, "watch").is_ok());
        session.drain();
        assert_eq!(session.may_watch(), Err(Hold::Draining));
    }

    proptest! {
        /// Two ends that keep to the rules never meet a violation, and never stop for ever.
        #[test]
        fn credit_is_never_exceeded_and_always_comes_back(
            sizes in prop::collection::vec(SMALL_MESSAGE_BYTES + 1..12_000_000, 1..60),
            lag in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut sender: Session<(), ()> = Session::new(LANE_CREDIT_MESSAGES, LANE_CREDIT_BYTES);
            let mut receiver = Allowance::new(LANE_CREDIT_MESSAGES, LANE_CREDIT_BYTES);
            let mut inside = std::collections::VecDeque::new();
            for (size, lag) in sizes.iter().zip(&lag) {
                while sender.notice(*size).is_err() {
                    let taken = inside.pop_front();
                    prop_assert!(taken.is_some(), "closed although all was taken");
                    if let Some((messages, bytes)) = receiver.taken(taken.unwrap_or_default()) {
                        sender.granted(Class::Large, messages, bytes);
                    }
                }
                prop_assert_eq!(receiver.arrived(*size), Ok(()));
                inside.push_back(*size);
                if *lag && let Some((messages, bytes)) = receiver.taken(inside.pop_front().unwrap()) {
                    sender.granted(Class::Large, messages, bytes);
                }
            }
        }
    }
}
