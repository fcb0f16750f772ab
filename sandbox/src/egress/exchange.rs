//! One client's connection: what it asked for, where it stands, and its record at the end.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use neuroflow_kernel::{Clock, Moment};
use tokio::sync::Notify;

use super::{
    decision::Grant,
    host::Host,
    meter::Meter,
    policy::{Compiled, Policy},
    reason::EgressReason,
    report::Decision,
    resolver::Resolve,
    tally::Tally,
};
use crate::limits;

/// What all connections of a cell share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policy: Arc<Policy>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) clock: Clock,
}

/// One connection. Its decision is recorded when it's dropped, in whatever way that happens.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) meter: Arc<Meter>,
    /// The cell has used up its connections before this one.
    pub(crate) is_surplus: bool,
    begun: Moment,
    draft: Mutex<Draft>,
    /// Whether it came to an end of its own, and wasn't dropped on the way.
    is_over: AtomicBool,
    stage: Mutex<Stage>,
    moved: Notify,
}

/// What is known of the request so far.
#[derive(Debug, Default)]
struct Draft {
    host: String,
    port: u16,
    method: String,
    path: Option<String>,
    rule: Option<usize>,
    address: Option<IpAddr>,
    /// `None` as long as nothing was asked.
    reason: Option<EgressReason>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Waits for a head, or for the first record of a tunnel.
    Head { by: Moment },
    /// Resolves and connects; these have deadlines of their own.
    Dial,
    /// Passes bytes.
    Pass,
}

impl Exchange {
    pub(crate) fn begin(shared: Arc<Shared>) -> Arc<Self> {
        let (tally, clock) = (Arc::clone(&shared.tally), shared.clock.clone());
        let bounds = shared.policy.limits.clone();
        let begun = clock.now();
        let stage = Mutex::new(Stage::Head { by: begun + bounds.head_time });
        let is_surplus = tally.connections.take(1, bounds.connections) == 0;
        let meter = Arc::new(Meter::of(tally, clock, bounds));
        let (draft, moved) = (Mutex::default(), Notify::new());
        let is_over = AtomicBool::new(false);
        Arc::new(Self { shared, meter, is_surplus, begun, draft, is_over, stage, moved })
    }

    pub(crate) fn rule(&self, grant: Grant) -> Option<&Compiled> {
        self.shared.policy.rules.get(grant.rule)
    }

    /// Notes what was asked, as far as it's known by now.
    pub(crate) fn asked(&self, method: &str, path: Option<&str>) {
        let mut draft = self.draft();
        draft.method = cut(method, METHOD_BYTES);
        draft.path = path.map(|path| cut(path, limits::EGRESS_PATH_BYTES));
    }

    /// Notes the host as it was sent, for requests that are refused for it.
    pub(crate) fn asked_for(&self, authority: &str) {
        // What stands before `@` may be a password.
        let host = authority.rsplit('@').next().unwrap_or_default();
        self.draft().host = cut(host, HOST_BYTES);
    }

    pub(crate) fn aimed_at(&self, host: &Host, port: u16) {
        let mut draft = self.draft();
        draft.host = host.to_string();
        draft.port = port;
    }

    pub(crate) fn granted(&self, grant: Grant) {
        {
            let mut draft = self.draft();
            draft.port = grant.port;
            draft.rule = Some(grant.rule);
            draft.reason = Some(EgressReason::Allowed);
        }
        self.meter.bound_by_rule(self.rule(grant).and_then(|rule| rule.max_bytes));
        self.moves(Stage::Dial);
    }

    pub(crate) fn connected(&self, address: IpAddr) {
        self.draft().address = Some(address);
    }

    /// Bytes pass from here on.
    pub(crate) fn passes(&self) {
        self.meter.touch();
        self.moves(Stage::Pass);
    }

    /// A tunnel's first record is awaited.
    pub(crate) fn awaits_hello(&self) {
        let by = self.shared.clock.now() + self.shared.policy.limits.head_time;
        self.moves(Stage::Head { by });
    }

    /// Sets why it ended. The first reason other than "allowed" stays, and a bound that was met
    /// comes before what followed from it.
    pub(crate) fn ends(&self, reason: EgressReason) -> EgressReason {
        let mut draft = self.draft();
        let reason = self.meter.met().unwrap_or(reason);
        match draft.reason {
            Some(earlier) if earlier != EgressReason::Allowed => earlier,
            _ => *draft.reason.insert(reason),
        }
    }

    /// Returns once the connection has waited too long for something, with the reason.
    pub(crate) async fn overdue(&self) -> EgressReason {
        let clock = &self.shared.clock;
        let bounds = &self.shared.policy.limits;
        let last = self.begun + bounds.total_time;
        loop {
            let (at, reason) = match self.stage() {
                Stage::Head { by } => (by, EgressReason::HeadTime),
                Stage::Dial => (last, EgressReason::TotalTime),
                Stage::Pass => (self.meter.active() + bounds.idle_time, EgressReason::Idle),
            };
            let (at, reason) =
                if at < last { (at, reason) } else { (last, EgressReason::TotalTime) };
            if clock.now() >= at {
                return reason;
            }
            tokio::select! {
                () = clock.sleep_until(at) => {}
                () = self.moved.notified() => {}
            }
        }
    }

    /// The connection has come to an end of its own.
    pub(crate) fn is_over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn deadline(&self, after: Duration) -> Moment {
        self.shared.clock.now() + after
    }

    fn moves(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        self.moved.notify_one();
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let draft = std::mem::take(&mut *self.draft());
        let Some(reason) = draft.reason else { return };
        let reason = match self.meter.met() {
            Some(met) if reason == EgressReason::Allowed => met,
            None if reason == EgressReason::Allowed && !*self.is_over.get_mut() => {
                EgressReason::Stopped
            }
            _ => reason,
        };
        self.shared.tally.record(Decision {
            host: draft.host,
            port: draft.port,
            method: draft.method,
            path: draft.path,
            rule: draft.rule,
            address: draft.address,
            reason,
            bytes_up: self.meter.up(),
            bytes_down: self.meter.down(),
        });
    }
}

/// Longer methods are none.
const METHOD_BYTES: usize = 32;
/// A name has 253 bytes; a port comes on top.
const HOST_BYTES: usize = 260;

fn cut(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}
