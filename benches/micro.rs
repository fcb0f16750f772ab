//! The small functions that every message or request passes through, one by one.
#![expect(clippy::expect_used, reason = "what fails must not become a sample")]

use std::time::Duration;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use neuroflow::actors::{ArchivedContent, Ask, Turn};
use neuroflow::kernel::{
    ActorId, Backoff, Budget, Clock, Decision, ExitKind, Header, Intensity, Moment, Parcel,
    RawParcel, Restart, RestartHistory, RestartPolicy, TraceContext, decide,
};

fn main() {
    divan::main();
}

/// Bytes of text in the message: a word, a paragraph, a page.
const SIZES: [usize; 3] = [16, 1_024, 16_384];

fn ask(bytes: usize) -> Ask {
    Ask { context: Some("context".to_owned()), ..Ask::new(Turn::user("x".repeat(bytes))) }
}

fn parcel(bytes: usize) -> Parcel<Ask> {
    Parcel::archive(&ask(bytes)).expect("the message is within its limit")
}

#[divan::bench(args = SIZES)]
fn parcel_archive(bencher: Bencher<'_, '_>, bytes: usize) {
    let ask = ask(bytes);
    bencher.counter(BytesCount::new(bytes)).bench(|| Parcel::archive(black_box(&ask)));
}

/// What a link does with received bytes: an aligned copy, and the one validation.
#[divan::bench(args = SIZES)]
fn parcel_open(bencher: Bencher<'_, '_>, bytes: usize) {
    let parcel = parcel(bytes);
    let raw = parcel.as_raw();
    bencher.counter(BytesCount::new(bytes)).bench(|| {
        let received = RawParcel::new(raw.message(), raw.version(), black_box(raw.as_bytes()));
        received.open::<Ask>().expect("it was archived as one")
    });
}

#[divan::bench(args = SIZES)]
fn parcel_read_in_place(bencher: Bencher<'_, '_>, bytes: usize) {
    let parcel = parcel(bytes);
    bencher.bench(|| match &black_box(&parcel).get().turn.parts[0].content {
        ArchivedContent::Text(text) => text.len(),
        _ => 0,
    });
}

#[divan::bench]
fn header_forward(bencher: Bencher<'_, '_>) {
    let clock = Clock::system();
    let header = Header::new()
        .traced(TraceContext::root(true))
        .within(&clock, Duration::from_secs(5))
        .budget(Budget::units(100));
    bencher.bench(|| black_box(&header).forward(ActorId::NOBODY));
}

#[divan::bench]
fn trace_root() -> TraceContext {
    TraceContext::root(true)
}

#[divan::bench]
fn trace_child(bencher: Bencher<'_, '_>) {
    let parent = TraceContext::root(true);
    bencher.bench(|| black_box(parent).child());
}

#[divan::bench]
fn trace_to_and_from_bytes(bencher: Bencher<'_, '_>) {
    let trace = TraceContext::root(true);
    bencher.bench(|| TraceContext::from_bytes(black_box(trace).to_bytes()));
}

#[divan::bench]
fn trace_to_text(bencher: Bencher<'_, '_>) {
    let trace = TraceContext::root(true);
    bencher.bench(|| black_box(trace).to_string());
}

#[divan::bench]
fn trace_from_text(bencher: Bencher<'_, '_>) {
    let text = TraceContext::root(true).to_string();
    bencher.bench(|| black_box(&text).parse::<TraceContext>().expect("it was written as one"));
}

/// A child that fails again and again, at the edge of what its supervisor puts up with.
#[divan::bench]
fn restart_decision(bencher: Bencher<'_, '_>) {
    let intensity = Intensity { restarts: 3, within: Duration::from_secs(5) };
    let backoff = Backoff::default();
    let policy = RestartPolicy { intensity, backoff, ..RestartPolicy::default() };
    let mut now = Moment::ORIGIN;
    let mut history = RestartHistory::default();
    bencher.bench_local(|| {
        now = now + Duration::from_secs(2);
        let former = std::mem::take(&mut history);
        let (decision, next) =
            decide(&policy, former, Restart::Permanent, ExitKind::Failed, now, 0.5);
        assert!(matches!(decision, Decision::Restart { .. }), "two seconds apart is not too often");
        history = next;
        decision
    });
}

#[divan::bench]
fn clock_now(bencher: Bencher<'_, '_>) {
    let clock = Clock::system();
    bencher.bench(|| black_box(&clock).now());
}
