//! What is refused, and what is let go without harm.

use std::time::{Duration, Instant};

use super::{Moving, Scene, rows};
use crate::support::{Login, RawClient, connect};

#[tokio::test]
async fn a_row_that_differs_is_found_and_nothing_is_switched() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker) SELECT 'w' || n FROM generate_series(1, 100) AS n")
        .await;
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM oban_jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&scene.after(), &["--to", "jobs", "--max-pause", "2s"]);
    scene.wait_for_step("to jobs/switch").await;
    // One letter, past the fence.
    scene
        .jobs
        .query(
            "SET application_name = 'bulkhead move'; UPDATE oban_jobs SET worker = 'W7' WHERE worker = 'w7'",
        )
        .await;
    holder.batch_execute("COMMIT").await.expect("it can");
    let text = moving.end(64).await;
    assert!(
        text.contains(
            "public.oban_jobs differs: 100 rows at the source, 100 at the target, and not the same ones"
        ),
        "{text}"
    );
    let written = scene.primary.query("UPDATE oban_jobs SET state = 'completed' RETURNING id").await;
    assert_eq!(written.len(), 100, "the jobs are where they were");

    let text = scene.run(&scene.after(), &["--abort"], 0).await;
    assert!(text.contains("the jobs are where they were"), "{text}");
    assert_eq!(scene.jobs.value("SELECT count(*) FROM oban_jobs").await, "0");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'bulkhead%'";
    assert_eq!(scene.primary.value(triggers).await + &scene.jobs.value(triggers).await, "00");
    scene.run(&scene.after(), &["--to", "jobs"], 0).await;
    assert_eq!(rows(&scene.jobs, "oban_jobs").await.len(), 100);
}

#[tokio::test]
async fn a_transaction_that_stays_open_has_the_move_give_up_and_keeps_nobody_waiting() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker) SELECT 'w' || n FROM generate_series(1, 100) AS n")
        .await;
    let config = scene.after();
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM oban_jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "800ms"]);
    let user = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    let mut longest = Duration::ZERO;
    let mut child = tokio::spawn(moving.end(64));
    loop {
        let begun = Instant::now();
        user.batch_execute("UPDATE oban_jobs SET attempt = attempt + 1 WHERE id = 1").await.expect("it can");
        longest = longest.max(begun.elapsed());
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(1), &mut child).await {
            let text = ended.expect("it gives up");
            assert!(text.contains("within 400 ms: process"), "{text}");
            assert!(text.contains("holds a lock, in a transaction of"), "{text}");
            assert!(text.contains("was tried 5 times"), "{text}");
            break;
        }
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let (code, text) = super::super::bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains("move         to the job database: follow"), "{text}");
    assert!(text.contains("in the way: no lock on"), "{text}");
    holder.batch_execute("COMMIT").await.expect("it can");
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM oban_jobs").await, "100");
    let (code, text) = super::super::bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains("to the job database: moved"), "{text}");
    assert!(text.contains("nobody could write for"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_moved_is_named() {
    let scene = Scene::start().await;
    let config = scene.after();
    let text = scene.run(&config, &["--back"], 64).await;
    assert!(text.contains("nothing was moved"), "{text}");
    let text = scene.run(&config, &["--to", "jobs", "--max-pause", "1m"], 64).await;
    assert!(text.contains("--max-pause is to be between 100ms and 20s"), "{text}");
    let keyless = "SET ROLE app; CREATE TABLE oban_producers (name text); RESET ROLE";
    scene.primary.query(keyless).await;
    scene.jobs.query(keyless).await;
    let text = scene.run(&config, &["--to", "jobs"], 64).await;
    assert!(text.contains("public.oban_producers has no primary key"), "{text}");
    for server in [&scene.primary, &scene.jobs] {
        server.query("ALTER TABLE oban_producers ADD PRIMARY KEY (name)").await;
    }
    scene
        .primary
        .query("SET ROLE app; CREATE TABLE audits (job bigint REFERENCES oban_jobs); RESET ROLE")
        .await;
    let text = scene.run(&config, &["--to", "jobs"], 64).await;
    assert!(text.contains("public.audits refers to public.oban_jobs"), "{text}");
    scene.primary.query("DROP TABLE audits; ALTER TABLE oban_jobs ADD COLUMN more text").await;
    let text = scene.run(&config, &["--to", "jobs"], 64).await;
    assert!(text.contains("public.oban_jobs: column more: text on the primary only"), "{text}");
    scene
        .jobs
        .query("ALTER TABLE oban_jobs ADD COLUMN more text; INSERT INTO oban_jobs (worker) VALUES ('there')")
        .await;
    let text = scene.run(&config, &["--to", "jobs"], 64).await;
    assert!(text.contains("public.oban_jobs has rows in the job database already"), "{text}");
    assert_eq!(scene.step().await, "none", "nothing was begun");
    scene.jobs.query("DELETE FROM oban_jobs").await;
    scene.run(&config, &["--to", "jobs"], 0).await;
    let text = scene.run(&config, &["--abort"], 64).await;
    assert!(text.contains("the switch has happened"), "{text}");
}

/// The lock of a move is one that anybody may take.
#[tokio::test]
async fn whoever_else_has_the_lock_of_a_move_is_named() {
    let scene = Scene::start().await;
    let mut holder = RawClient::app(scene.jobs.port()).await;
    holder.ask("SET application_name = ''; SELECT pg_advisory_lock(7094695996560859493)").await;
    let text = scene.run(&scene.after(), &["--to", "jobs"], 64).await;
    let process = holder.query_value("SELECT pg_backend_pid()").await;
    for part in [
        format!(
            "of server \"jobs\", which is a move's, is held by process {process} (application \"\", user \"app\")"
        ),
        "end that process".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    // One of a move's own.
    holder.ask("SET application_name = 'bulkhead move'").await;
    let text = scene.run(&scene.after(), &["--to", "jobs"], 64).await;
    let part =
        format!("another `bulkhead jobs move` is at work at server \"jobs\": process {process} there, from ");
    assert!(text.contains(&part), "{part}: {text}");
}
