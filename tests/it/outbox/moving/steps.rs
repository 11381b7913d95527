//! `kill -9` of a move at each of its steps, and the run that goes on.

use std::time::Duration;

use super::{LONG, Load, Moving, Scene, console, rewrite};
use crate::support::{Login, Postgres, Proxy, Random, Signal, connect, eventually};

/// What holds a move at a step: a session with this transaction at the source, or the target.
struct Hold {
    step: &'static str,
    at_source: bool,
    sql: &'static str,
}

/// In the order of the steps, and what holds them: the target's definitions, the source's, the note of how far the copy is,
/// taking up changes, and the lock.
const TO_JOBS: [Hold; 5] = [
    Hold { step: "prepare", at_source: false, sql: "LOCK TABLE oban_jobs IN ROW EXCLUSIVE MODE" },
    Hold { step: "prepare", at_source: true, sql: "LOCK TABLE oban_jobs IN ROW EXCLUSIVE MODE" },
    Hold { step: "copy", at_source: false, sql: "SELECT FROM bulkhead_move.progress FOR UPDATE" },
    Hold { step: "follow", at_source: true, sql: "LOCK TABLE bulkhead_move.change_0 IN SHARE MODE" },
    Hold { step: "switch", at_source: true, sql: "LOCK TABLE oban_jobs IN ACCESS SHARE MODE" },
];

const BACK: [Hold; 4] = [
    Hold { step: "prepare", at_source: true, sql: "LOCK TABLE oban_jobs IN ROW EXCLUSIVE MODE" },
    Hold { step: "copy", at_source: false, sql: "SELECT FROM bulkhead_move.progress FOR UPDATE" },
    Hold { step: "follow", at_source: true, sql: "LOCK TABLE bulkhead_move.change_0 IN SHARE MODE" },
    Hold { step: "switch", at_source: true, sql: "LOCK TABLE oban_jobs IN ACCESS SHARE MODE" },
];

impl Scene {
    /// Starts a move, kills it at each of its steps, and has it go on.
    async fn kill_at_each_step(&self, arguments: &[&str], direction: &str, holds: &[Hold]) {
        let config = self.after();
        let (source, target) =
            if direction == "back" { (&self.jobs, &self.primary) } else { (&self.primary, &self.jobs) };
        for hold in holds {
            let server = if hold.at_source { source } else { target };
            let holder = connect(&server.url(Login::Admin)).await.expect("it serves");
            holder.batch_execute(&format!("BEGIN; {}", hold.sql)).await.expect("it can");
            let moving = Moving::start(&config, arguments);
            let step = format!("{direction}/{}", hold.step);
            self.wait_for_step(&step).await;
            self.waits_for_a_lock(server, "").await;
            assert!(moving.kill(), "it runs at {step}");
            assert_eq!(self.step().await, step);
            holder.batch_execute("COMMIT").await.expect("it can");
        }
        self.kill_behind_the_commit(arguments, source).await;
        let text = Moving::start(&config, arguments).end(0).await;
        assert!(text.contains("moved     the jobs are"), "{text}");
    }

    /// Waits until a move's statement waits for a lock at this server.
    pub(super) async fn waits_for_a_lock(&self, server: &Postgres, condition: &str) {
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
             AND application_name = 'bulkhead move' {condition}"
        );
        eventually("a move waits", LONG, async || (server.value(&waits).await != "0").then_some(())).await;
    }

    /// When the source has committed, and the target has not.
    async fn kill_behind_the_commit(&self, arguments: &[&str], source: &Postgres) {
        let of_primary = connect(&self.primary.url(Login::Admin)).await.expect("it serves");
        let of_source = connect(&source.url(Login::Admin)).await.expect("it serves");
        of_source.batch_execute("BEGIN; LOCK TABLE oban_jobs IN ACCESS SHARE MODE").await.expect("it can");
        // Half of it is for the lock: long enough not to be let go.
        let arguments: Vec<&str> =
            arguments.iter().map(|word| if *word == "2s" { "20s" } else { word }).collect();
        let moving = Moving::start(&self.after(), &arguments);
        self.waits_for_a_lock(source, "AND query LIKE '%LOCK TABLE%'").await;
        of_primary.batch_execute("BEGIN; SELECT FROM bulkhead_move.state FOR UPDATE").await.expect("it can");
        of_source.batch_execute("COMMIT").await.expect("it can");
        // It has committed, and would note that.
        self.waits_for_a_lock(&self.primary, "AND query LIKE '%SET step = ''open''%'").await;
        assert!(moving.kill(), "it runs");
        // Transactions of the application add others to the primary's table already, which is the outbox now.
        let old = "SELECT count(*) FROM oban_jobs WHERE worker LIKE 'old %'";
        assert_eq!(source.value(old).await, "0", "it has given them away");
        of_primary.batch_execute("COMMIT").await.expect("it can");
    }
}

#[tokio::test]
async fn killed_at_each_step_it_goes_on_and_each_job_is_done_once() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker, state) SELECT 'old ' || n, 'completed' FROM generate_series(1, 9000) AS n")
        .await;
    let proxy = Proxy::start(&scene.before().to_toml());
    let load = Load::start(&proxy.url()).await;
    load.goes_on(20).await;
    let console = console(&proxy);
    rewrite(&proxy, &scene.after());
    scene
        .kill_at_each_step(&["--to", "jobs", "--max-pause", "2s", "--console", &console], "to jobs", &TO_JOBS)
        .await;
    load.goes_on(30).await;
    rewrite(&proxy, &scene.before());
    scene.kill_at_each_step(&["--back", "--max-pause", "2s", "--console", &console], "back", &BACK).await;
    load.goes_on(30).await;
    load.end(&scene).await;
    let old = "SELECT count(*) FROM oban_jobs WHERE worker LIKE 'old %'";
    assert_eq!(scene.primary.value(old).await, "9000");
}

#[tokio::test]
async fn killed_again_and_again_at_any_moment_each_job_is_done_once() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker, state) SELECT 'old ' || n, 'completed' FROM generate_series(1, 9000) AS n")
        .await;
    let proxy = Proxy::start(&scene.before().to_toml());
    let load = Load::start(&proxy.url()).await;
    load.goes_on(20).await;
    let console = console(&proxy);
    let mut random = Random::new(7);
    let mut killed = 0;
    for (arguments, config, end) in [
        (["--to", "jobs"].as_slice(), scene.after(), "to jobs/moved"),
        (["--back"].as_slice(), scene.before(), "back/moved"),
    ] {
        rewrite(&proxy, &config);
        let arguments = [arguments, &["--max-pause", "2s", "--console", &console]].concat();
        // How long it lives grows, or it would never come to its end.
        for round in 1.. {
            let moving = Moving::start(&scene.after(), &arguments);
            tokio::time::sleep(Duration::from_millis(random.below(50 * round))).await;
            killed += usize::from(moving.kill());
            if scene.step().await == end {
                break;
            }
        }
        scene.run(&scene.after(), &arguments, 0).await;
        // It may have been killed before it told the instance.
        proxy.signal(Signal::HUP);
        resume(&proxy).await;
        load.goes_on(30).await;
    }
    assert!(killed > 5, "{killed} times are too few to tell");
    load.end(&scene).await;
    let old = "SELECT count(*) FROM oban_jobs WHERE worker LIKE 'old %'";
    assert_eq!(scene.primary.value(old).await, "9000");
}

/// Whatever a move has left paused.
async fn resume(proxy: &Proxy) {
    let console = connect(&console(proxy)).await.expect("it serves");
    console.simple_query("RESUME jobs").await.ok();
}

#[tokio::test]
async fn servers_that_are_killed_meanwhile_lose_and_double_nothing() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker, state) SELECT 'old ' || n, 'completed' FROM generate_series(1, 9000) AS n")
        .await;
    let proxy = Proxy::start(&scene.before().to_toml());
    let load = Load::start(&proxy.url()).await;
    load.goes_on(20).await;
    let console = console(&proxy);
    let mut random = Random::new(11);
    for (arguments, config) in
        [(["--to", "jobs"].as_slice(), scene.after()), (["--back"].as_slice(), scene.before())]
    {
        rewrite(&proxy, &config);
        let arguments = [arguments, &["--max-pause", "2s", "--console", &console]].concat();
        let moving = Moving::start(&scene.after(), &arguments);
        for server in [&scene.jobs, &scene.primary, &scene.jobs, &scene.primary] {
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            server.kill();
            server.boot();
        }
        moving.end_somehow().await;
        scene.run(&scene.after(), &arguments, 0).await;
        proxy.signal(Signal::HUP);
        resume(&proxy).await;
        load.goes_on(30).await;
    }
    load.end(&scene).await;
    let old = "SELECT count(*) FROM oban_jobs WHERE worker LIKE 'old %'";
    assert_eq!(scene.primary.value(old).await, "9000");
}
