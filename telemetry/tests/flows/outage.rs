//! A collector that is gone, or silent, costs spans and nothing else.

use std::net::TcpListener;
use std::time::Duration;

use neuroflow_kernel::{Clock, Kernel, RestartPolicy, SpanKind};
use neuroflow_telemetry::{ShutdownError, Telemetry, TelemetryConfig, TraceConfig};

use crate::stage::{value, watched};

const SPANS: u64 = 5_000;
const QUEUE: usize = 200;

async fn against(listener: &TcpListener) -> (Telemetry, Kernel) {
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let traces = TraceConfig::collector(endpoint).queue(QUEUE).timeout(Duration::from_mins(1));
    let config = TelemetryConfig::default().traces(traces.delay(Duration::from_millis(10)));
    watched(config, RestartPolicy::default()).await
}

/// Records spans and says how long that took.
fn record(kernel: &Kernel) -> Duration {
    let begun = kernel.clock().now();
    for _ in 0..SPANS {
        drop(kernel.tracer().root(true, "unheard", SpanKind::Internal));
    }
    kernel.clock().now().since(begun)
}

/// Spans that are accounted for: sent, dropped, or still waiting.
fn accounted(telemetry: &Telemetry, waiting: usize) -> u64 {
    let text = telemetry.render().unwrap();
    let dropped = ["queue_full", "export_failed", "shut_down"].map(|reason| {
        let name = "neuroflow_telemetry_spans_dropped_total";
        value(&text, &format!("{name}{{reason=\"{reason}\"}}"))
    });
    let sent = value(&text, "neuroflow_telemetry_spans_exported_total");
    dropped.iter().sum::<u64>() + sent + u64::try_from(waiting).unwrap()
}

#[tokio::test]
async fn a_dead_collector_slows_nobody_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (telemetry, kernel) = against(&listener).await;
    drop(listener);
    assert!(record(&kernel) < Duration::from_secs(2));
    let clock = Clock::system();
    let begun = clock.now();
    let end = telemetry.shutdown(Duration::from_secs(30)).await;
    assert!(clock.now().since(begun) < Duration::from_secs(31));
    let Err(ShutdownError::Lost { spans, endpoint }) = end else { panic!("{end:?}") };
    assert!(spans > 0);
    assert!(endpoint.starts_with("http://127.0.0.1:"));
    assert_eq!(accounted(&telemetry, 0), SPANS);
    kernel.stop().await;
}

#[tokio::test]
async fn a_silent_collector_does_not_hold_the_shutdown() {
    // It takes connections, in the system's queue, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (telemetry, kernel) = against(&listener).await;
    assert!(record(&kernel) < Duration::from_secs(2));
    let clock = Clock::system();
    let begun = clock.now();
    let end = telemetry.shutdown(Duration::from_millis(300)).await;
    let took = clock.now().since(begun);
    assert!(took < Duration::from_secs(3), "{took:?}");
    let Err(ShutdownError::TimedOut { spans, .. }) = end else { panic!("{end:?}") };
    assert!((1..=QUEUE).contains(&spans), "{spans}");
    assert_eq!(accounted(&telemetry, spans), SPANS);
    kernel.stop().await;
}
