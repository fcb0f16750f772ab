//! The lives of actors in the log: a failure with its cause, its message and its trace.
//!
//! Alone in its process: `tracing` remembers for the whole process who wants a line, and a test
//! without a subscriber on another thread could be the one that it asks first.

#[cfg(test)]
#[path = "flows/stage.rs"]
#[expect(dead_code, reason = "the flows use the rest")]
mod stage;

#[cfg(test)]
mod lives {
    use std::io;
    use std::sync::{Arc, Mutex};

    use neuroflow_kernel::{Header, RestartPolicy, TraceContext};
    use neuroflow_telemetry::TelemetryConfig;
    use neuroflow_telemetry::logs::{self, LogFormat};
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use crate::stage::{Order, watched, work, worker};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failure_is_logged_with_what_is_known_about_it() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = logs::layer(LogFormat::Json, move || writer.clone());
        let trace = TraceContext::root(true);
        // The subscriber is this thread's, and so is everything that the kernel runs.
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_telemetry, kernel) =
                    watched(TelemetryConfig::default(), RestartPolicy::default()).await;
                let worker = worker(&kernel).await;
                work(&worker).await;
                worker.tell(Header::new().traced(trace), Order::Fail).await.unwrap();
                work(&worker).await;
                kernel.stop().await;
            });
        });
        let bytes = buffer.0.lock().unwrap().clone();
        let lines: Vec<Value> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["target"] == "neuroflow::actor")
            .filter(|line| line["fields"]["path"] == "/worker")
            .collect();
        let said: Vec<(&str, &str)> = lines
            .iter()
            .map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap()))
            .collect();
        let expected = [
            ("DEBUG", "actor started"),
            ("ERROR", "actor failed"),
            ("DEBUG", "actor started"),
            ("WARN", "actor restarted"),
            ("DEBUG", "actor stopped"),
        ];
        assert_eq!(said, expected);
        let failed = &lines[1];
        let fields = &failed["fields"];
        assert_eq!(fields["kind"], "worker");
        assert_eq!(fields["generation"], 1);
        assert_eq!(fields["handling"], "fail");
        assert_eq!(fields["trail"], "1 work");
        let cause = format!("failed: told to fail: {}", std::fmt::Error);
        assert_eq!(fields["cause"], cause);
        let id = format!("{:032x}", u128::from_be_bytes(trace.trace_id()));
        assert_eq!(failed["trace_id"], id);
        assert!(lines[0].get("trace_id").is_none());
    }
}
