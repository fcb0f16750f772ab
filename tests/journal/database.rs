//! A database that restarts, cuts its clients off, is of another version, or is damaged.

use std::time::Duration;

use neuroflow::actors::limits::RETENTION_STEP;
use neuroflow::actors::{Append, AppendError, DamageKind, OpenError};
use neuroflow::{Clock, TaskState};

use crate::cluster::{Cluster, now};
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
        // Ended, going on, and ended again: it counts once.
        for (more, state) in
            [TaskState::Completed, TaskState::Working, TaskState::Failed].into_iter().enumerate()
        {
            say(&scene.journal, &task, told + more as u64, state).await.expect("appended");
        }
    }
    assert_counted(&cluster, 8);
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

/// A commit of a node that takes long, until it's cancelled.
const COMMITTING: &str = "BEGIN; LOCK TABLE neuroflow_ended IN ROW EXCLUSIVE MODE;
    SELECT pg_sleep(600); COMMIT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_counts_beside_the_commits_of_others() {
    let cluster = Cluster::start();
    let scene = Scene::open(cluster.config("gone")).await.expect("it opens");
    for task in ["a", "b"] {
        say(&scene.journal, task, 0, TaskState::Completed).await.expect("appended");
    }
    scene.stop().await;
    // What somebody else has done to the tables.
    cluster.query("DELETE FROM neuroflow_task WHERE task = 'b'").expect("deleted");
    let held = "SELECT pid FROM pg_locks WHERE relation = 'neuroflow_ended'::regclass
        AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid() LIMIT 1";
    let held = || cluster.query(held).filter(|pid| !pid.is_empty());
    let (one, two) = std::thread::scope(|threads| {
        let commit = threads.spawn(|| cluster.query(COMMITTING));
        while held().is_none() {}
        let opening = async {
            tokio::join!(Scene::open(cluster.config("one")), Scene::open(cluster.config("two")))
        };
        let opened =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opening));
        let pid = held().expect("the nodes have started beside it");
        cluster.query(&format!("SELECT pg_cancel_backend({pid})")).expect("cancelled");
        assert!(commit.join().expect("no panic").is_none(), "it was cancelled");
        opened
    });
    assert_counted(&cluster, 1);
    let (one, two) = (one.expect("it opens"), two.expect("it opens"));
    for (scene, task) in [(&one, "c"), (&two, "d")] {
        say(&scene.journal, task, 0, TaskState::Completed).await.expect("appended");
    }
    assert_counted(&cluster, 3);
    let rows = cluster.query("SELECT count(*) FROM neuroflow_ended WHERE node = 'gone'");
    assert_eq!(rows.as_deref(), Some("0"), "what a node has counted that is gone is merged");
    one.stop().await;
    two.stop().await;
}

/// Waits until the journal says this of itself, while nobody asks it for anything.
async fn says(scene: &Scene, trouble: Option<&str>) {
    for _ in 0..600 {
        if scene.condition.trouble() == trouble {
            return;
        }
        Clock::system().sleep(Duration::from_millis(100)).await;
    }
    panic!("it says {:?}, not {trouble:?}", scene.condition.trouble());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_or_takes_no_writes_is_missed_though_nobody_asks_it() {
    let mut cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    assert_eq!(scene.condition.trouble(), None);
    cluster.halt();
    says(&scene, Some("database")).await;
    cluster.resume();
    says(&scene, None).await;
    cluster.query("ALTER SYSTEM SET default_transaction_read_only = on").expect("set");
    cluster.query("SELECT pg_reload_conf()").expect("read again");
    says(&scene, Some("database")).await;
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

/// The sums that nodes keep, beside what is really there.
const COUNTS: &str = "SELECT (SELECT sum(tasks) || ' ' || sum(bytes) FROM neuroflow_ended) || ', '
    || (SELECT count(*) || ' ' || sum(bytes) FROM neuroflow_task WHERE ended)";

fn assert_counted(cluster: &Cluster, tasks: usize) {
    let counts = cluster.query(COUNTS).expect("counted");
    let (kept, there) = counts.split_once(", ").expect("two pairs");
    assert_eq!(kept, there);
    assert!(there.starts_with(&format!("{tasks} ")), "{there}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_ended_tasks_go_without_a_look_at_all() {
    const THERE: usize = 60_000;
    const KEPT: usize = 52_000;
    let cluster = Cluster::start();
    Scene::open(cluster.config("one")).await.expect("it opens").stop().await;
    let many = format!(
        "INSERT INTO neuroflow_task
         SELECT 'echo', 't' || n, 'c', NULL, 3, true, n, 1, 1, 100, 'one'
         FROM generate_series(1, {THERE}) AS n"
    );
    cluster.query(&many).expect("inserted");
    cluster.query("VACUUM ANALYZE neuroflow_task").expect("analysed");
    let mut config = cluster.config("one");
    (config.retention.age, config.retention.tasks) = (None, KEPT);
    let scene = Scene::open(config).await.expect("what is there is left as it is");
    assert_counted(&cluster, THERE);
    // What a connection has read is known when it has ended; at the start all of them are counted.
    cluster.cut_off();
    cluster.until_alone();
    cluster.query("SELECT pg_stat_reset()").expect("reset");

    // One more than a look leaves alone, and older than most.
    say(&scene.journal, "old", 0, TaskState::Completed).await.expect("appended");
    let last = THERE - KEPT;
    let gone = format!("SELECT 1 FROM neuroflow_task WHERE agent = 'echo' AND task = 't{last}'");
    let begun = now();
    while !cluster.query(&gone).expect("asked").is_empty() {
        assert!(begun.elapsed() < Duration::from_mins(1), "it isn't removed");
        wait(&scene).await;
    }
    scene.stop().await;
    cluster.until_alone();
    let read = cluster.query(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'neuroflow_task_ended'",
    );
    let read: usize = read.expect("asked").parse().expect("a number");
    let looks = (THERE + 1 - KEPT).div_ceil(RETENTION_STEP);
    // What a look has removed stays in the index until the next one has passed over it.
    assert!(read <= 2 * looks * RETENTION_STEP, "{looks} looks have read {read} rows");
    assert_counted(&cluster, KEPT);
    let oldest = cluster.query("SELECT min(at_ms) FROM neuroflow_task").expect("asked");
    assert_eq!(oldest, (last + 1).to_string(), "the oldest have gone, and nothing else");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_removed_while_it_is_read_is_not_damaged() {
    let cluster = Cluster::start();
    let scene = Scene::open(cluster.config("one")).await.expect("it opens");
    say(&scene.journal, "a", 0, TaskState::Completed).await.expect("appended");
    // Whoever reads the entries waits until the task and they are gone.
    let removal = "BEGIN; LOCK TABLE neuroflow_entry IN ACCESS EXCLUSIVE MODE;
        DO $$ BEGIN
            FOR nth IN 1..6000 LOOP
                PERFORM pg_sleep(0.01);
                EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted);
            END LOOP;
        END $$;
        DELETE FROM neuroflow_entry; DELETE FROM neuroflow_task; COMMIT";
    let locked = "SELECT count(*) FROM pg_locks
        WHERE relation = 'neuroflow_entry'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    let log = std::thread::scope(|threads| {
        let removed = threads.spawn(|| cluster.query(removal));
        while cluster.query(locked).as_deref() != Some("1") {}
        let reading = scene.journal.read("echo", "a");
        let log =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(reading));
        assert!(removed.join().expect("no panic").is_some(), "the server takes it");
        log
    });
    assert!(log.expect("read").is_none());
    scene.stop().await;
}
