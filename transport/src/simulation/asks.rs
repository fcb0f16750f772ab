//! The account of all asks: how each was meant, how often it was handled, and how it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use neuroflow_kernel::Moment;

use crate::session::retry::Retry;

/// How an ask has ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Answered,
    /// The callee has said that it has no room.
    Refused,
    Lost,
    Late,
    /// Not sent: no link, no credit.
    Unsent,
    /// The caller has gone.
    Dropped,
    /// A call with a key was given up.
    GivenUp,
}

impl End {
    pub(super) const ALL: [Self; 7] = [
        Self::Answered,
        Self::Refused,
        Self::Lost,
        Self::Late,
        Self::Unsent,
        Self::Dropped,
        Self::GivenUp,
    ];
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) from: usize,
    pub(super) to: usize,
    /// By the caller's clock.
    pub(super) deadline: Moment,
    pub(super) replies: u32,
    pub(super) bytes: usize,
    /// The callee never answers it.
    pub(super) silent: bool,
    /// The caller goes away by then, at home.
    pub(super) leaves: Option<Moment>,
    /// Nothing is broken any more.
    pub(super) is_in_peace: bool,
    /// Of a call with a key, all its tries.
    pub(super) retry: Option<Retry>,
    /// An answer is there, whether or not the caller has room for it.
    pub(super) has_begun: bool,
    got: u32,
    handled: u32,
    end: Option<End>,
}

#[derive(Default)]
pub(super) struct Asks(Vec<Ask>);

impl Asks {
    pub(super) fn begin(&mut self, ask: Ask) -> usize {
        self.0.push(ask);
        self.0.len() - 1
    }

    pub(super) fn get(&mut self, number: usize) -> &mut Ask {
        &mut self.0[number]
    }

    pub(super) fn see(&self, number: usize) -> &Ask {
        &self.0[number]
    }

    /// The callee runs it.
    pub(super) fn handled(&mut self, number: usize) {
        let ask = &mut self.0[number];
        ask.handled += 1;
        assert_eq!(ask.handled, 1, "ask {number} is handled twice");
    }

    pub(super) fn reply(&mut self, number: usize, nth: u32) {
        let ask = &mut self.0[number];
        assert!(ask.end.is_none(), "a reply of ask {number} after its end");
        assert_eq!(ask.got, nth, "replies of ask {number} are out of turn");
        ask.got += 1;
    }

    /// A keyed call is asked for anew, and so its answer is told from the beginning.
    pub(super) fn anew(&mut self, number: usize) {
        let ask = &mut self.0[number];
        (ask.got, ask.has_begun) = (0, false);
    }

    pub(super) fn end(&mut self, number: usize, end: End) {
        let ask = &mut self.0[number];
        assert!(ask.end.is_none(), "ask {number} has ended by {:?}, and now by {end:?}", ask.end);
        if end == End::Answered {
            assert_eq!((ask.handled, ask.got), (1, ask.replies), "ask {number}");
        }
        if matches!(end, End::Refused | End::Unsent) {
            assert_eq!(ask.handled, 0, "ask {number} is said not to have run");
        }
        if end == End::GivenUp && !ask.retry.as_ref().is_some_and(Retry::may_have_run) {
            assert_eq!(ask.handled, 0, "ask {number} is said not to have run");
        }
        ask.end = Some(end);
    }

    pub(super) fn is_open(&self, number: usize) -> bool {
        self.0[number].end.is_none()
    }

    /// The process of these callers is no more.
    pub(super) fn forget_callers(&mut self, from: usize, open: Vec<usize>) {
        for number in open {
            assert_eq!(self.0[number].from, from);
            if self.is_open(number) {
                self.end(number, End::Dropped);
            }
        }
    }

    pub(super) fn assert_all_ended(&self) {
        for (number, ask) in self.0.iter().enumerate() {
            assert!(ask.end.is_some(), "ask {number} from {} to {} has no end", ask.from, ask.to);
            assert!(
                !ask.is_in_peace || ask.end != Some(End::Lost),
                "ask {number} is lost in peace"
            );
        }
    }

    pub(super) fn ends(&self) -> BTreeMap<End, u64> {
        let mut ends = BTreeMap::new();
        for end in self.0.iter().filter_map(|ask| ask.end) {
            *ends.entry(end).or_default() += 1;
        }
        ends
    }
}

impl Ask {
    pub(super) fn new(from: usize, to: usize, now: Moment, lasts: Duration) -> Self {
        Self {
            from,
            to,
            deadline: now + lasts,
            replies: 1,
            bytes: 64,
            silent: false,
            leaves: None,
            is_in_peace: false,
            retry: None,
            has_begun: false,
            got: 0,
            handled: 0,
            end: None,
        }
    }
}
