//! Instances that are paused, by whom, and who has them go on.

use super::{Moving, Scene, console, rewrite};
use crate::support::{Login, Proxy, connect};

/// Whether the instance's pool of jobs is paused, as its console tells.
async fn is_paused(proxy: &Proxy) -> bool {
    let client = connect(&console(proxy)).await.expect("it serves");
    let rows = client.simple_query("SHOW DATABASES").await.expect("it tells");
    rows.iter().any(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            row.get("name") == Some("jobs") && row.get("paused") == Some("1")
        }
        _ => false,
    })
}

#[tokio::test]
async fn what_an_operator_has_paused_stays_so() {
    let scene = Scene::start().await;
    scene.primary.query("INSERT INTO oban_jobs (worker) VALUES ('w')").await;
    let (theirs, ours) = (Proxy::start(&scene.before().to_toml()), Proxy::start(&scene.before().to_toml()));
    let operator = connect(&console(&theirs)).await.expect("it serves");
    operator.simple_query("PAUSE jobs").await.expect("it can");
    rewrite(&theirs, &scene.after());
    rewrite(&ours, &scene.after());
    let (of_theirs, of_ours) = (console(&theirs), console(&ours));
    scene.run(&scene.after(), &["--to", "jobs", "--console", &of_theirs, "--console", &of_ours], 0).await;
    assert!(is_paused(&theirs).await && !is_paused(&ours).await);
    assert_eq!(scene.primary.value("SELECT paused FROM bulkhead_move.state").await, "{}");
    operator.simple_query("RESUME jobs").await.expect("it is paused");
    let client = connect(&theirs.url()).await.expect("it serves");
    client.batch_execute("UPDATE oban_jobs SET state = 'executing'").await.expect("they are there");
}

#[tokio::test]
async fn what_a_killed_move_has_paused_goes_on_with_the_next_run() {
    let scene = Scene::start().await;
    scene.primary.query("INSERT INTO oban_jobs (worker) VALUES ('w')").await;
    let (theirs, ours) = (Proxy::start(&scene.before().to_toml()), Proxy::start(&scene.before().to_toml()));
    let operator = connect(&console(&theirs)).await.expect("it serves");
    operator.simple_query("PAUSE jobs").await.expect("it can");
    let (of_theirs, of_ours) = (console(&theirs), console(&ours));
    let arguments = ["--max-pause", "4s", "--console", &of_theirs, "--console", &of_ours];
    for end in ["--abort", "--to"] {
        let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
        holder.batch_execute("BEGIN; SELECT FROM oban_jobs LIMIT 1").await.expect("it can");
        let moving = Moving::start(&scene.after(), &[["--to", "jobs"].as_slice(), &arguments].concat());
        scene.wait_for_step("to jobs/switch").await;
        scene.waits_for_a_lock(&scene.primary, "AND query LIKE '%LOCK TABLE%'").await;
        assert!(is_paused(&ours).await, "it holds job statements");
        assert!(moving.kill(), "it runs");
        holder.batch_execute("COMMIT").await.expect("it can");
        assert!(is_paused(&ours).await, "nobody has told it to go on");
        let (code, text) = super::super::bulkhead(&scene.after(), &["jobs", "status"]);
        let place = format!("127.0.0.1:{}", ours.port());
        assert!(code == Some(0) && text.contains(&format!("paused by the move: {place}")), "{text}");
        if end == "--abort" {
            // Told no consoles, it tells of them.
            let text = scene.run(&scene.after(), &["--abort"], 0).await;
            assert!(text.contains(&format!("the move has paused the instance at {place}")), "{text}");
            let by_hand = connect(&of_ours).await.expect("it serves");
            by_hand.simple_query("RESUME jobs").await.expect("it is paused");
        } else {
            rewrite(&ours, &scene.after());
            scene.run(&scene.after(), &[["--to", "jobs"].as_slice(), &arguments].concat(), 0).await;
        }
        assert!(!is_paused(&ours).await && is_paused(&theirs).await);
    }
    assert_eq!(scene.jobs.value("SELECT count(*) FROM oban_jobs").await, "1");
}
