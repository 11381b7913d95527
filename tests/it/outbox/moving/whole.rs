//! Moves from their beginning to their end.

use super::{Load, Moving, Scene, console, pause_millis, rewrite, rows};
use crate::support::{Login, Postgres, Proxy, connect};

/// Values of all of Oban's types, some of them hard to copy.
const ODD_ROWS: &str = r#"
    INSERT INTO oban_jobs (state, worker, args, meta, tags, errors, attempted_by, inserted_at, scheduled_at, completed_at,
        priority)
    SELECT (enum_range(NULL::oban_job_state))[1 + n % 7], 'odd ' || n || E' \t\\\n''"{}',
        jsonb_build_object('n', n, 'text', E'a\\b\t"ü€😀', 'deep', jsonb_build_array(1.10, null, true, n / 3.0)),
        CASE n % 3 WHEN 0 THEN NULL ELSE '{"a": [1, 2]}'::jsonb END,
        CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY['a,b', '"', '{}', NULL, E'\\', 'NULL'] END,
        CASE n % 2 WHEN 0 THEN '{}' ELSE ARRAY['{"at": "2026-01-01", "error": "x\ny"}'::jsonb] END,
        ARRAY['node', NULL, ''],
        timestamp '2026-01-01' + n * interval '1.000001 s', CASE n % 5 WHEN 0 THEN 'infinity' ELSE timestamp '1999-12-31' END,
        CASE n % 6 WHEN 0 THEN timestamp '2026-11-26 12:34:56.789012' END, n % 4
    FROM generate_series(1, 5000) AS n
"#;

#[tokio::test]
async fn under_load_each_job_is_done_once_there_and_back_and_nobody_sees_an_error() {
    let scene = Scene::start().await;
    scene.primary.query("INSERT INTO oban_jobs (worker, state) SELECT 'old ' || n, 'completed' FROM generate_series(1, 5000) AS n").await;
    let proxy = Proxy::start(&scene.before().to_toml());
    let load = Load::start(&proxy.url()).await;
    load.goes_on(30).await;

    rewrite(&proxy, &scene.after());
    let console = console(&proxy);
    let text = scene.run(&scene.after(), &["--to", "jobs", "--console", &console], 0).await;
    assert!(text.contains("the jobs are in the job database"), "{text}");
    assert!(pause_millis(&text) < 5000, "{text}");
    load.goes_on(60).await;
    assert_eq!(scene.step().await, "to jobs/moved");
    let old = "SELECT count(*) FROM oban_jobs WHERE worker LIKE 'old %'";
    assert_eq!(scene.jobs.value(old).await, "5000");
    assert_eq!(scene.primary.value(old).await, "0");
    assert_ne!(scene.jobs.value("SELECT count(*) FROM runs").await, "0", "workers run jobs there");

    rewrite(&proxy, &scene.before());
    let text = scene.run(&scene.after(), &["--back", "--console", &console], 0).await;
    assert!(text.contains("the jobs are on the primary"), "{text}");
    assert!(pause_millis(&text) < 5000, "{text}");
    load.goes_on(60).await;
    assert_eq!(scene.primary.value(old).await, "5000");
    assert_eq!(scene.jobs.value("SELECT count(*) FROM oban_jobs").await, "0");
    let errors = load.end(&scene).await;
    assert_eq!(errors, [""; 0]);
}

#[tokio::test]
async fn rows_of_all_types_come_as_they_are_and_numbers_go_on() {
    let scene = Scene::start().await;
    scene.primary.query(ODD_ROWS).await;
    let before = rows(&scene.primary, "oban_jobs").await;
    let next = "SELECT nextval('oban_jobs_id_seq')";
    let given: i64 = scene.primary.value(next).await.parse().expect("a number");
    let config = scene.after().set("jobs", "outbox", false);

    let planned = scene.run(&config, &["--to", "jobs", "--dry-run"], 0).await;
    for part in
        ["CREATE TRIGGER bulkhead_move_fence", "CREATE TRIGGER bulkhead_move_note", "5000 rows", "owner"]
    {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    assert_eq!(scene.step().await, "none", "a plan changes nothing");
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(rows(&scene.jobs, "oban_jobs").await, before);
    assert_eq!(rows(&scene.primary, "bulkhead_move.kept_0").await, before, "a copy is kept");
    assert_eq!(scene.jobs.value(next).await, (given + 1).to_string());
    // The library's triggers are as they were.
    let triggers = "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger \
                    WHERE tgrelid = 'oban_jobs'::regclass AND NOT tgisinternal";
    assert_eq!(scene.jobs.value(triggers).await, "note_runO oban_notifyO");

    scene.jobs.query("DELETE FROM oban_jobs WHERE id % 3 = 0; UPDATE oban_jobs SET meta = '{\"new\": 1}' WHERE id % 5 = 0").await;
    scene.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('of the job database')").await;
    let changed = rows(&scene.jobs, "oban_jobs").await;
    assert!(changed.len() < before.len());
    scene.run(&config, &["--back"], 0).await;
    assert_eq!(rows(&scene.primary, "oban_jobs").await, changed);
    assert_eq!(scene.primary.value(next).await, (given + 3).to_string());
    assert_eq!(scene.primary.value(triggers).await, "note_runO oban_notifyO");

    let text = scene.run(&config, &["--back"], 0).await;
    assert!(text.contains("nothing is to be done"), "{text}");
    let text = scene.run(&config, &["--to", "jobs"], 0).await;
    assert!(text.contains("the jobs are in the job database"), "again: {text}");
    assert_eq!(rows(&scene.jobs, "oban_jobs").await, changed);
    scene.run(&config, &["--finish"], 0).await;
    let traces = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'bulkhead_move') + \
                  (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'bulkhead%')";
    assert_eq!(scene.primary.value(traces).await + &scene.jobs.value(traces).await, "00");
}

#[tokio::test]
async fn instances_that_were_not_told_get_errors_and_lose_and_double_nothing() {
    let scene = Scene::start().await;
    let mut proxy = Proxy::start(&scene.before().to_toml());
    let late = Proxy::start(&scene.before().to_toml());
    let load = Load::start(&proxy.url()).await;
    let of_late = connect(&late.url()).await.expect("it serves");
    load.goes_on(30).await;
    scene.run(&scene.after(), &["--to", "jobs"], 0).await;
    // What an application adds is not lost.
    of_late.batch_execute("INSERT INTO oban_jobs (worker) VALUES ('late')").await.expect("it is relayed");
    let fetch = of_late.batch_execute("UPDATE oban_jobs SET state = 'executing' WHERE worker = 'late'").await;
    let error = fetch.expect_err("the jobs are not there");
    let error = error.as_db_error().expect("the server's");
    assert_eq!(error.code().code(), "55000");
    assert_eq!(error.message(), "jobs of public.oban_jobs are in the job database now");
    assert!(error.hint().is_some_and(|hint| hint.contains("Reload Bulkhead")), "{error:?}");
    proxy.reload_to(&scene.after()).await;
    load.goes_on(60).await;
    let errors = load.end(&scene).await;
    // Those alone that were refused; by the fence, or while the outbox was not ready.
    let is_refusal = |error: &&String| {
        error.starts_with("55000") || error.starts_with("0A000") || *error == "a worker's statement failed"
    };
    let others: Vec<&String> = errors.iter().filter(|error| !is_refusal(error)).collect();
    assert_eq!(others, [""; 0]);
    let late = "SELECT count(*) FROM oban_jobs WHERE worker = 'late'";
    assert_eq!(scene.jobs.value(late).await, "1");
    let runs = scene.jobs.value("SELECT count(*) FROM runs WHERE worker = 'late'").await;
    assert_eq!(runs, "1");
}

#[tokio::test]
async fn an_instance_that_is_early_writes_nothing_there() {
    let scene = Scene::start().await;
    scene
        .primary
        .query("INSERT INTO oban_jobs (worker) SELECT 'w' || n FROM generate_series(1, 100) AS n")
        .await;
    // Held back before the switch, by a transaction that has the lock.
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM oban_jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&scene.after(), &["--to", "jobs", "--max-pause", "1s"]);
    scene.wait_for_step("to jobs/switch").await;
    let early = Proxy::start(&scene.after().to_toml());
    early.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    let client = connect(&early.url()).await.expect("it serves");
    let fetch = client.batch_execute("UPDATE oban_jobs SET state = 'executing'").await;
    let error = fetch.expect_err("the jobs are not there yet");
    let error = error.as_db_error().expect("the server's");
    assert_eq!(error.code().code(), "55000");
    assert_eq!(
        error.message(),
        "jobs of public.oban_jobs are still on the primary: they are being moved here"
    );
    // Its relay takes nothing away.
    early.wait_for_log("they are being moved here").await;
    assert_eq!(scene.primary.value("SELECT count(*) FROM oban_jobs").await, "100");
    assert_eq!(scene.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
    holder.batch_execute("COMMIT").await.expect("it can");
    moving.end(0).await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM oban_jobs").await, "100");
    client.batch_execute("UPDATE oban_jobs SET state = 'executing'").await.expect("they are there");
}

#[tokio::test]
async fn changes_of_all_kinds_are_followed() {
    let scene = Scene::start().await;
    // Two tables of which one refers to the other, with a unique key that goes from row to row.
    let more = "SET ROLE app; \
        CREATE TABLE oban_crons (name text, node int, slot int UNIQUE, PRIMARY KEY (node, name)); \
        CREATE TABLE oban_producers (id int PRIMARY KEY, node int, name text, double int GENERATED ALWAYS AS (id * 2) STORED, \
            CONSTRAINT of_cron FOREIGN KEY (node, name) REFERENCES oban_crons ON UPDATE CASCADE ON DELETE CASCADE); \
        RESET ROLE";
    scene.primary.query(more).await;
    scene.jobs.query(more).await;
    let config = scene.after().set("jobs", "presets", vec!["oban", "oban_pro"]).set("jobs", "outbox", false);
    scene
        .primary
        .query(
            "INSERT INTO oban_crons SELECT 'c' || n, n % 7, n FROM generate_series(1, 4500) AS n; \
             INSERT INTO oban_producers SELECT n, n % 7, 'c' || n FROM generate_series(1, 4500) AS n; \
             INSERT INTO oban_jobs (worker) SELECT 'w' || n FROM generate_series(1, 10) AS n; \
             INSERT INTO oban_peers VALUES ('a', 'node', now(), now()), ('b', 'node', now(), now())",
        )
        .await;
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM oban_jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
    scene.wait_for_step("to jobs/switch").await;
    let of_jobs = scene.jobs.value("SELECT count(*) FROM oban_producers").await;
    assert_eq!(of_jobs, "4500", "the copy is there");
    scene
        .primary
        .query(
            "UPDATE oban_crons SET slot = -1 WHERE name = 'c1'; UPDATE oban_crons SET slot = 1 WHERE name = 'c2'; \
             UPDATE oban_crons SET slot = 2 WHERE name = 'c1'; UPDATE oban_crons SET slot = slot + 5000 WHERE node = 3; \
             UPDATE oban_crons SET name = 'new', node = 9 WHERE name = 'c5'; DELETE FROM oban_crons WHERE name = 'c6'; \
             INSERT INTO oban_crons SELECT 'd' || n, n, 20000 + n FROM generate_series(1, 3000) AS n; \
             UPDATE oban_jobs SET id = id + 100 WHERE id < 3; DELETE FROM oban_jobs WHERE id = 4; \
             INSERT INTO oban_jobs (id, worker) VALUES (4, 'another')",
        )
        .await;
    scene
        .primary
        .query("TRUNCATE oban_peers; INSERT INTO oban_peers VALUES ('c', 'node', now(), now())")
        .await;
    let tables = ["oban_jobs", "oban_peers", "oban_crons", "oban_producers"];
    let mut expected = Vec::new();
    for table in tables {
        expected.push(all(&scene.primary, table).await);
    }
    holder.batch_execute("COMMIT").await.expect("it can");
    moving.end(0).await;
    for (table, expected) in tables.iter().zip(&expected) {
        assert_eq!(&all(&scene.jobs, table).await, expected, "{table}");
        assert_eq!(all(&scene.primary, table).await, [""; 0], "{table}");
    }
    let references =
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'of_cron' AND convalidated";
    let reference = scene.jobs.value(references).await;
    assert!(reference.ends_with("ON UPDATE CASCADE ON DELETE CASCADE"), "{reference}");
    scene.run(&config, &["--back"], 0).await;
    for (table, expected) in tables.iter().zip(&expected) {
        assert_eq!(&all(&scene.primary, table).await, expected, "{table}");
    }
    assert_eq!(scene.primary.value(references).await, reference);
}

async fn all(server: &Postgres, table: &str) -> Vec<String> {
    let rows = server.query(&format!("SELECT t::text FROM {table} AS t ORDER BY 1")).await;
    rows.into_iter().flatten().flatten().collect()
}
