//! Metrics after real traffic, and what Prometheus' own linter says of them.

use std::time::Duration;

use neuroflow_kernel::{Backoff, Clock, Header, RestartPolicy, Strategy};
use neuroflow_telemetry::conventions::buckets;
use neuroflow_telemetry::{Counter, Histogram, Metric, TelemetryConfig};

use crate::promtool;
use crate::stage::{Order, value, watched, work, worker};

fn quick() -> RestartPolicy {
    RestartPolicy {
        backoff: Backoff { first: Duration::from_millis(1), max: Duration::from_millis(5) },
        strategy: Strategy::OneForOne,
        ..RestartPolicy::default()
    }
}

#[tokio::test]
async fn messages_failures_and_restarts_are_counted() {
    let (telemetry, kernel) = watched(TelemetryConfig::default(), quick()).await;
    let worker = worker(&kernel).await;
    for _ in 0..64 {
        work(&worker).await;
    }
    worker.tell(Header::new(), Order::Fail).await.unwrap();
    work(&worker).await;
    worker.tell(Header::new(), Order::Panic).await.unwrap();
    work(&worker).await;

    let text = telemetry.render().unwrap();
    let of = |series: &str| value(&text, series);
    let handled = "neuroflow_actor_messages_handled_total{actor_kind=\"worker\",outcome=";
    assert!(of(&format!("{handled}\"ok\"}}")) >= 66);
    assert_eq!(of(&format!("{handled}\"failed\"}}")), 1);
    assert_eq!(of(&format!("{handled}\"panicked\"}}")), 1);
    assert_eq!(of("neuroflow_actor_started_total{actor_kind=\"worker\"}"), 3);
    assert_eq!(of("neuroflow_actor_restarts_total{actor_kind=\"worker\"}"), 2);
    let stopped = "neuroflow_actor_stopped_total{actor_kind=\"worker\",reason=";
    assert_eq!(of(&format!("{stopped}\"failed\"}}")), 2);
    assert_eq!(of(&format!("{stopped}\"stopped\"}}")), 0);
    let timed = of("neuroflow_actor_message_handle_seconds_count{actor_kind=\"worker\"}");
    assert!((4..=32).contains(&timed), "one in eight, not {timed}");
    assert_eq!(of("neuroflow_actors{actor_kind=\"worker\"}"), 1);
    assert_eq!(of("neuroflow_actors{actor_kind=\"supervisor\"}"), 1);
    assert_eq!(of("neuroflow_actor_mailbox_depth{actor_kind=\"worker\"}"), 0);
    assert_eq!(of("neuroflow_supervisor_escalations_total"), 0);

    kernel.stop().await;
    let text = telemetry.render().unwrap();
    assert_eq!(value(&text, "neuroflow_actors{actor_kind=\"worker\"}"), 0);
    assert_eq!(value(&text, &format!("{stopped}\"stopped\"}}")), 1);
}

#[tokio::test]
async fn a_supervisor_that_gives_up_is_counted() {
    let mut policy = quick();
    policy.intensity.restarts = 1;
    let (telemetry, kernel) = watched(TelemetryConfig::default(), policy).await;
    let worker = worker(&kernel).await;
    worker.tell(Header::new(), Order::Fail).await.unwrap();
    work(&worker).await;
    worker.tell(Header::new(), Order::Fail).await.unwrap();
    let clock = Clock::system();
    clock.before(clock.now() + Duration::from_secs(5), kernel.ended()).await.unwrap();
    let text = telemetry.render().unwrap();
    assert_eq!(value(&text, "neuroflow_supervisor_escalations_total"), 1);
}

#[tokio::test]
async fn prometheus_own_linter_has_nothing_to_say() {
    const TASKS: Metric<Counter, 2> =
        Metric::counter("neuroflow_tasks_total", "Tasks that ended.", ["agent", "outcome"]);
    const ANSWERS: Metric<Histogram, 1> = Metric::histogram(
        "neuroflow_answer_seconds",
        "How long answers took.",
        ["status"],
        buckets::REQUEST,
    );
    let (telemetry, kernel) = watched(TelemetryConfig::default(), quick()).await;
    work(&worker(&kernel).await).await;
    telemetry.instruments().register(&TASKS).unwrap().with(["a \"b\"\n\\", "ok"]).increment();
    let answers = telemetry.instruments().register(&ANSWERS).unwrap();
    answers.with(["200"]).record(Duration::from_secs(1));
    let text = telemetry.render().unwrap();
    kernel.stop().await;

    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    for name in names {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| text.contains(&format!("# TYPE {family} histogram")))
            .unwrap_or(name);
        assert!(text.contains(&format!("# HELP {family} ")), "{name} has no help text");
        assert!(text.contains(&format!("# TYPE {family} ")), "{name} has no type");
    }

    promtool::check(&text);
}
