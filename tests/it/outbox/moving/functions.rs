//! The move of a library whose functions add jobs on the primary, too: they work before it, behind it, and back home.

use super::{LONG, Scene, console, rewrite, rows};
use crate::{
    outbox::functions::{add, install_graphile, say, texts},
    support::{Postgres, Proxy, RawClient, Role, error_of, eventually},
};

const JOBS: &str = "SELECT task_identifier, coalesce(queue_name, '-'), coalesce(key, '-') FROM graphile_worker.jobs ORDER BY 1";

#[tokio::test]
async fn functions_add_jobs_before_a_move_behind_it_and_back_home() {
    let scene = Scene { primary: Postgres::start(Role::Primary), jobs: Postgres::start(Role::Jobs) };
    for server in [&scene.primary, &scene.jobs] {
        install_graphile(server).await;
    }
    // What its migrations have noted comes with the move.
    scene.jobs.query("DELETE FROM graphile_worker.migrations").await;
    scene.primary.query("SET ROLE app; CREATE TABLE items (name text)").await;
    let presets = || vec!["graphile_worker"];
    let before = scene.before().set("jobs", "presets", presets());
    let after = scene.after().set("jobs", "presets", presets());
    let proxy = Proxy::start(&before.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    for n in 0..3 {
        add(&mut client, &format!("'old {n}', queue_name => 'q', job_key => 'k {n}'")).await;
    }

    rewrite(&proxy, &after);
    let text = scene.run(&after, &["--to", "jobs", "--console", &console(&proxy)], 0).await;
    assert!(text.contains("the jobs are in the job database"), "{text}");
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    let item = "INSERT INTO items VALUES ('a')";
    say(&mut client, &["BEGIN", item]).await;
    add(&mut client, "'new', queue_name => 'q'").await;
    say(&mut client, &["COMMIT"]).await;
    eventually("the job has come", LONG, async || {
        (scene.jobs.value("SELECT count(*) FROM graphile_worker.jobs").await == "4").then_some(())
    })
    .await;
    let expected = [["new", "q", "-"], ["old 0", "q", "k 0"], ["old 1", "q", "k 1"], ["old 2", "q", "k 2"]];
    assert_eq!(texts(scene.jobs.query(JOBS).await), expected);
    // What has a key is a call that is made there.
    let keyed = "SELECT graphile_worker.add_job('old 0', queue_name => 'other', job_key => 'k 0')";
    say(&mut client, &["BEGIN", item, keyed, "COMMIT"]).await;
    let expected =
        [["new", "q", "-"], ["old 0", "other", "k 0"], ["old 1", "q", "k 1"], ["old 2", "q", "k 2"]];
    eventually("the call is made", LONG, async || {
        (texts(scene.jobs.query(JOBS).await) == expected).then_some(())
    })
    .await;
    // A worker that has been forgotten takes nothing that is on its way.
    let mut worker = RawClient::app(scene.primary.port()).await;
    say(&mut worker, &["BEGIN", "SELECT graphile_worker.add_job('on its way')"]).await;
    let claim = "UPDATE graphile_worker._private_jobs SET locked_at = now()";
    assert_eq!(error_of(&worker.ask(claim).await).map(|[code, ..]| code).as_deref(), Some("55000"));
    say(&mut worker, &["ROLLBACK"]).await;

    // Back home it is the library's own again; names that the primary has got meanwhile are not in the way.
    rewrite(&proxy, &before);
    let there = rows(&scene.jobs, "graphile_worker._private_tasks").await;
    let text = scene.run(&after, &["--back", "--console", &console(&proxy)], 0).await;
    assert!(text.contains("the jobs are on the primary"), "{text}");
    assert_eq!(texts(scene.primary.query(JOBS).await), expected);
    assert_eq!(rows(&scene.primary, "graphile_worker._private_tasks").await, there);
    say(&mut client, &["BEGIN", item]).await;
    add(&mut client, "'old 0', '{\"again\": true}', job_key => 'k 0'").await;
    say(&mut client, &["COMMIT", claim]).await;
    assert_eq!(
        texts(scene.primary.query(JOBS).await),
        [["new", "q", "-"], ["old 0", "-", "k 0"], ["old 1", "q", "k 1"], ["old 2", "q", "k 2"]]
    );
}
