//! What of refusals at the door is in the audit log: every kind, and no more than anybody reads.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use neuroflow::actors::{AuditConfig, Limits};
use neuroflow::{AnyAgent, Echo, McpServer, Node};
use serde_json::{Value, json};

use crate::access::{ALL, Files, ask, config, node, token};
use crate::client::Connection;
use crate::protocol::{Binding, Peer};
use crate::support::{loopback, start};
use crate::{mcp_access, small_disk};

/// The events of an audit log of this kind, so far.
pub(crate) fn audited(log: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = lines.map(|mut line| line["record"]["event"].take());
    events.filter(|event| event["kind"] == kind).collect()
}

#[tokio::test]
async fn who_is_not_let_in_does_not_fill_the_audit_log() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let access = config(&files.write("tokens", ci.line()), &files.write("policy", ALL));
    let log = files.path().join("audit.log");
    let time = neuroflow::ManualClock::new();
    let audit = neuroflow::actors::AuditConfig::new(&log);
    let (node, to) = start(node(access).audit(audit).clock(time.clock())).await;
    for _ in 0..40 {
        assert_eq!(ask(to, "/", None).await.status, 401);
    }
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    let known = audited(&log, "authentication");
    let listed = known.iter().filter(|event| event["verdict"] == "denied").count();
    assert_eq!((known.len(), listed), (6, 5), "{known:#?}");
    // Within a minute it's told how many more there were.
    for turn in 0.. {
        if let [rest] = audited(&log, "refusals_unlisted").as_slice() {
            assert_eq!((&rest["peer"], &rest["requests"]), (&json!("127.0.0.1"), &json!(35)));
            break;
        }
        assert!(turn < 500, "nothing is told of the rest");
        time.advance(Duration::from_secs(20));
        crate::support::pause(10).await;
    }
    // And at the stop of what came after that.
    for _ in 0..7 {
        assert_eq!(ask(to, "/", Some("nf_unknown")).await.status, 401);
    }
    node.stop().await;
    let rest = audited(&log, "refusals_unlisted");
    let requests: Vec<_> = rest.iter().map(|event| event["requests"].as_u64()).collect();
    assert_eq!(requests, [Some(35), Some(2)]);
    neuroflow::actors::verify_files(&log, None, None).expect("it's a whole log");
}

#[test]
fn what_is_not_recorded_is_not_done() {
    let files = Files::fresh();
    let test = "audit::what_is_not_recorded_is_not_done";
    small_disk::run(test, files.path(), async |disk| recorded_or_refused(disk).await);
}

async fn recorded_or_refused(disk: &Path) {
    let log = disk.join("audit.log");
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let builder = builder.mcp_server(McpServer { http: true, exec: false });
    let (node, to) = start(builder.audit(AuditConfig::new(&log))).await;
    let mcp = mcp_access::Client::new(to, None);
    let call = json!({ "name": "echo", "arguments": { "message": "x" } });
    assert_eq!(ask(to, "/", None).await.status, 200);
    assert_eq!(mcp.call("tools/call", call.clone()).await["result"]["isError"], false);
    let ballast = disk.join("ballast");
    // The system gives what there is, and then no more.
    let _full = std::fs::write(&ballast, vec![1; 4 * 1024 * 1024]);
    let mut done = 2;
    loop {
        match ask(to, "/", None).await.status {
            200 => done += 1,
            status => break assert_eq!(status, 503),
        }
        assert!(done < 200, "the disk isn't full");
    }
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, None);
        let refused = peer.call("ListTasks", json!({})).await.expect_err("it isn't recorded");
        assert_eq!(refused.message, "the audit log can't record the request");
    }
    let refused = mcp.call("tools/call", call.clone()).await;
    let said = refused["error"]["message"].as_str();
    assert_eq!(said, Some("the audit log can't record the request"), "{refused}");
    std::fs::remove_file(&ballast).expect("removed");
    assert_eq!(ask(to, "/", None).await.status, 200);
    let asked = audited(&log, "authorisation");
    let asked = asked.iter().filter(|event| event["action"] == "ask").count();
    assert_eq!(asked, done + 1);
    node.stop().await;
}

#[tokio::test]
async fn every_kind_of_refusal_at_the_door_is_in_the_audit_log() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let mut access = config(&files.write("tokens", ci.line()), &files.write("policy", ALL));
    access.limits =
        Limits { per_second: NonZeroU32::new(1), burst: NonZeroU32::new(1), concurrent: None };
    let log = files.path().join("audit.log");
    let time = neuroflow::ManualClock::new();
    let audit = neuroflow::actors::AuditConfig::new(&log);
    let (node, to) = start(node(access).audit(audit).clock(time.clock())).await;
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 429);
    let mut connection = Connection::open(to).await;
    for (name, value, status) in
        [("host", "evil.example", 421), ("origin", "http://evil.example", 403)]
    {
        assert_eq!(connection.post_with("/", &[(name, value)], b"{}").await.status, status);
    }
    let jwt = ask(to, "/", Some("a.b.c")).await;
    assert_eq!(jwt.status, 401);
    node.stop().await;
    let refused = audited(&log, "request_refused");
    let seen: Vec<_> = refused
        .iter()
        .map(|event| {
            (event["reason"].as_str(), event["principal"].as_str(), event["peer"].as_str())
        })
        .collect();
    let peer = Some("127.0.0.1");
    let expected = [
        (Some("throttled"), Some("token:ci"), peer),
        (Some("host"), None, peer),
        (Some("origin"), None, peer),
    ];
    assert_eq!(seen, expected);
    let schemes: Vec<Value> =
        audited(&log, "authentication").iter().map(|event| event["scheme"].clone()).collect();
    // Who comes too often is no decision more: a log isn't filled with that.
    assert_eq!(schemes, ["bearer", "jwt"]);
}
