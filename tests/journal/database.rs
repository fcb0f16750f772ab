//! A database that restarts, cuts its clients off, is of another version, or is damaged.

use std::time::Duration;

use neuroflow::TaskState;
use neuroflow::actors::{Append, AppendError, DamageKind, OpenError};

use crate::cluster::Cluster;
use crate::scene::{Scene, event, head, say, texts};

/// One writer per task, each appending until told to stop; gives how many entries each was told of.
async fn write_while(scene: &Scene, disturb: impl Future<Output = ()>) -> Vec<(String, u64)> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (journal, stopped) = (scene.journal.clone(), stopped.clone());
        writers.spawn(async move {
            let task = format!("t{number}");
            let mut told = 0;
            while !*stopped.borrow() {
                say(&journal, &task, told, TaskState::Working).await.expect("appended, if later");
                told += 1;
            }
            (task, told)
        });
    }
    disturb.await;
    stop.send(true).expect("the writers listen");
    let mut all = Vec::new();
    while let Some(one) = writers.join_next().await {
        all.push(one.expect("no writer panics"));
    }
    all
}

async fn wait(scene: &Scene) {
    scene.kernel.clock().sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_and_a_cut_in_the_middle_lose_and_double_nothing() {
    let mut cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    let told = write_while(&scene, async {
        for _ in 0..3 {
            wait(&scene).await;
            cluster.cut_off();
        }
        wait(&scene).await;
        cluster.halt();
        wait(&scene).await;
        cluster.resume();
        wait(&scene).await;
    })
    .await;
    for (task, told) in told {
        assert!(told > 0, "{task} wasn't written");
        let expected: Vec<String> = (1..=told).map(|number| number.to_string()).collect();
        assert_eq!(texts(&scene.journal, &task).await, expected, "{task}");
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stays_away_is_a_typed_error() {
    let mut cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    say(&scene.journal, "a", 0, TaskState::Working).await.expect("appended");
    cluster.halt();
    let refused = say(&scene.journal, "a", 1, TaskState::Working).await.expect_err("refused");
    assert!(
        matches!(refused, AppendError::Database { .. } | AppendError::TimedOut { .. }),
        "{refused:?}"
    );
    cluster.resume();
    // Nobody may know how that ended; whoever reads knows.
    let known = texts(&scene.journal, "a").await.len() as u64;
    say(&scene.journal, "a", known, TaskState::Completed).await.expect("appended");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_are_refused_and_left_as_they_are() {
    let cluster = Cluster::start();
    Scene::open(cluster.config("one")).await.expect("it opens").stop().await;
    cluster.query("UPDATE neuroflow_journal SET version = 7").expect("updated");
    cluster.query("DROP TABLE neuroflow_entry").expect("dropped");
    let refused = Scene::open(cluster.config("one")).await.err().expect("refused");
    assert!(matches!(refused, OpenError::UnknownFormat { found: 7, known: 1, .. }), "{refused}");
    let made = cluster.query("SELECT to_regclass('neuroflow_entry') IS NULL").expect("asked");
    assert_eq!(made, "t", "nothing was made in tables that aren't ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_costs_nobody_elses_task_anything() {
    let cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    let holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'";
    let before = cluster.query(holder).expect("asked");
    let append = |number: u64| {
        let task = format!("t{number:02}");
        let entries = vec![event(&task, 1, "hello")];
        Append { head: head(&task, TaskState::Working, 0), entries }
    };
    let mut appends: Vec<Append> = (0..40).map(append).collect();
    // No text of the server's may have that in it.
    appends[17].head.context = "a\0b".to_owned();
    appends[30].entries[0].key = "a\0b".to_owned();
    // What follows it in the same task goes with it, and what is another's doesn't.
    let mut follows = appends[17].clone();
    (follows.head.entries, follows.entries) = (1, vec![event("t17", 2, "hello")]);
    appends.push(follows);
    let mut follows = append(3);
    (follows.head.entries, follows.entries) = (1, vec![event("t03", 2, "hello")]);
    appends.push(follows);
    let answers = scene.journal.append_all(appends).await;
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Ok(()) => assert!(![17, 30, 40].contains(&at), "{at} is taken"),
            Err(AppendError::Database { unknown: false, .. }) => {
                assert!([17, 30, 40].contains(&at), "{at} is refused");
            }
            Err(other) => panic!("{at}: {other}"),
        }
    }
    assert_eq!(texts(&scene.journal, "t03").await, ["1", "2"]);
    assert!(scene.journal.read("echo", "t17").await.expect("read").is_none());
    say(&scene.journal, "t17", 0, TaskState::Working).await.expect("it's as if it had never been");
    assert_eq!(cluster.query(holder).expect("asked"), before, "by the same connection");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_ended_tasks_are_found_without_a_look_at_all() {
    let cluster = Cluster::start();
    Scene::open(cluster.config("one")).await.expect("it opens").stop().await;
    let many = "INSERT INTO neuroflow_task
                SELECT 'echo', 't' || n, 'c', NULL, 3, true, n, 1, 1, 100, 'one'
                FROM generate_series(1, 20000) AS n";
    cluster.query(many).expect("inserted");
    cluster.query("VACUUM ANALYZE neuroflow_task").expect("analysed");
    let plan = "EXPLAIN SELECT agent, task, at_ms, bytes FROM neuroflow_task WHERE ended
                ORDER BY at_ms, task LIMIT 2048";
    let plan = cluster.query(plan).expect("explained");
    assert!(plan.contains("neuroflow_task_ended") && !plan.contains("Sort"), "{plan}");
    let scene = Scene::open(cluster.config("one")).await.expect("what is there is left as it is");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_row_is_found_and_costs_that_entry() {
    let cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    for after in 0..3 {
        say(&scene.journal, "a", after, TaskState::Working).await.expect("appended");
    }
    let flip = "UPDATE neuroflow_entry SET body = set_byte(body, 3, get_byte(body, 3) # 1)
                WHERE task = 'a' AND number = 2";
    cluster.query(flip).expect("updated");
    cluster.query("DELETE FROM neuroflow_entry WHERE task = 'a' AND number = 3").expect("deleted");
    let log = scene.journal.read("echo", "a").await.expect("read").expect("there");
    let damage: Vec<_> = log.damage.iter().map(|damage| (damage.kind, damage.number)).collect();
    assert_eq!(damage, [(DamageKind::Content, Some(2)), (DamageKind::Missing, Some(3))]);
    assert_eq!(log.entries.len(), 1);
    scene.stop().await;
}
