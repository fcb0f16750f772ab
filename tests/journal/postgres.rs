//! The built node on a PostgreSQL server, from the outside: killed, started anew, and looked at.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, now};
use crate::killable::{Killable, call, neuroflow};

/// A port that nobody listens on.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Takes each notification, until one says that the task has ended; gives what they said.
pub(crate) fn receive(at: SocketAddr) -> Vec<Value> {
    let listener = TcpListener::bind(at).expect("the port is still free");
    listener.set_nonblocking(true).expect("a socket");
    let (mut told, begun) = (Vec::new(), now());
    loop {
        assert!(begun.elapsed() < Duration::from_mins(2), "the webhook is told {told:?}");
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut bytes = Vec::new();
        let body = loop {
            let mut more = [0; 4_096];
            let Ok(read @ 1..) = stream.read(&mut more) else { break None };
            bytes.extend_from_slice(&more[..read]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str::<Value>(body)
            {
                break Some(body);
            }
        };
        // Who was killed in the middle tells it again.
        let Some(body) = body else { continue };
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let over = body["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED";
        told.push(body);
        if over {
            return told;
        }
    }
}

#[test]
fn a_killed_node_has_its_tasks_and_tells_its_webhooks_when_it_is_back() {
    let cluster = Cluster::start();
    let node = Killable::start_at(&cluster.url(), "off");
    let hook = free_port();
    let params = json!({
        "message": {
            "messageId": "1", "contextId": "c-1", "role": "ROLE_USER",
            "parts": [{ "text": "hello" }],
        },
        "configuration": { "taskPushNotificationConfig": { "url": format!("http://{hook}/") } },
    });
    let answer = call(node.gateway, "SendMessage", &params).expect("an answer");
    let task = answer["result"]["task"].clone();
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{answer}");
    let id = task["id"].as_str().expect("an id");
    // A message that the server couldn't keep isn't taken, and nothing is lost for it.
    let mut poisoned = params.clone();
    poisoned["message"]["contextId"] = json!("a\0b");
    let refused = call(node.gateway, "SendMessage", &poisoned).expect("an answer");
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    node.kill();

    let node = Killable::start_at(&cluster.url(), "off");
    let told = receive(hook);
    assert!(told.iter().all(|update| !update.to_string().contains("a\\u0000b")), "{told:?}");
    let found = call(node.gateway, "GetTask", &json!({ "id": id })).expect("an answer");
    assert_eq!(found["result"], task);
    let listed = call(node.gateway, "ListTasks", &json!({})).expect("an answer");
    assert_eq!(listed["result"]["totalSize"], 1, "{listed}");

    // Beside the node and after it, without what the node keeps for itself.
    let look = |action: &[&str]| {
        let mut tasks = neuroflow(&["tasks", "--journal-url", &cluster.url()]);
        let output = tasks.args(action).output().expect("the built binary");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let actions: [&[&str]; 3] = [&["list"], &["show", id], &["export"]];
    let beside = actions.map(look);
    for said in &beside {
        assert!(said.contains(id) && !said.contains("/push"), "{said}");
    }
    node.kill();
    assert_eq!(actions.map(look), beside);
}

#[test]
fn looking_at_tasks_takes_no_more_than_the_right_to_read_them_and_makes_nothing() {
    let cluster = Cluster::start();
    let node = Killable::start_at(&cluster.url(), "off");
    let message = json!({ "message": {
        "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "hello" }],
    } });
    let answer = call(node.gateway, "SendMessage", &message).expect("an answer");
    let id = answer["result"]["task"]["id"].as_str().expect("an id");
    let look = |url: &str, action: &[&str]| {
        let mut tasks = neuroflow(&["tasks", "--journal-url", url]);
        tasks.args(action).output().expect("the built binary")
    };
    cluster.query("CREATE ROLE reader LOGIN").expect("a role");
    cluster.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader").expect("granted");
    let whose = "SELECT string_agg(node, ' ') FROM neuroflow_ended";
    let before = cluster.query(whose);
    let actions: [&[&str]; 3] = [&["list"], &["show", id], &["export"]];
    for action in actions {
        let output = look(&cluster.url_of("reader", "postgres"), action);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(id), "{output:?}");
    }
    assert_eq!(cluster.query(whose), before, "it isn't counted for whoever looks");
    node.kill();

    cluster.query("CREATE DATABASE other").expect("another database");
    for action in actions {
        let output = look(&cluster.url_of("postgres", "other"), action);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("there is no journal"), "{output:?}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'neuroflow%'";
    assert_eq!(cluster.query_in("other", tables).as_deref(), Some("0"));
}

/// Longer than a client is kept waiting for whether its message is taken, and than the database needs in order to say so.
const HELD: Duration = Duration::from_secs(8);

#[test]
fn a_message_that_nobody_heard_of_in_time_is_not_worked_on() {
    let cluster = Cluster::start();
    let node = Killable::start_at(&cluster.url(), "off");
    let params = |text: &str| {
        json!({ "message": {
            "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": text }],
        } })
    };
    let before = call(node.gateway, "SendMessage", &params("before")).expect("an answer");
    assert_eq!(before["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED", "{before}");
    let late = std::thread::scope(|scope| {
        let hold = format!(
            "BEGIN; LOCK TABLE neuroflow_entry IN ACCESS EXCLUSIVE MODE;
             SELECT pg_sleep({}); COMMIT",
            HELD.as_secs()
        );
        let held = scope.spawn({
            let cluster = &cluster;
            move || cluster.query(&hold).expect("the table is locked")
        });
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
                     AND granted AND relation = 'neuroflow_entry'::regclass";
        let begun = now();
        while cluster.query(locks).as_deref() != Some("1") {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody holds the table");
        }
        let late = call(node.gateway, "SendMessage", &params("late")).expect("an answer");
        held.join().expect("it ends");
        late
    });
    // That isn't what clients take for a reason to send it again.
    assert_eq!(late["error"]["code"], -32603, "{late}");
    assert_eq!(late["error"]["data"][0]["reason"], "DEADLINE_EXCEEDED", "{late}");
    let begun = now();
    loop {
        let found = call(node.gateway, "ListTasks", &json!({ "historyLength": 5 }));
        let found = found.expect("an answer")["result"]["tasks"].clone();
        let tasks = found.as_array().expect("tasks");
        if let [late, _before] = &tasks[..]
            && late["status"]["state"] == "TASK_STATE_CANCELED"
        {
            // It was asked, and has said nothing.
            assert_eq!(late["history"].as_array().map(Vec::len), Some(1), "{late}");
            assert_eq!(late["history"][0]["parts"][0]["text"], "late");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{found}");
    }
    node.kill();
}
