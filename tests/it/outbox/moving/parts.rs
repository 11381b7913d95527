//! Tables with partitions, as pg-boss has them: one for each queue, made by a function.

use super::{LONG, Moving, Scene, console, rewrite};
use crate::support::{Login, Postgres, Proxy, ProxyConfig, Role, connect, eventually};

/// Queues and jobs as pg-boss 10 keeps them, in short.
const BOSS: &str = "
    SET ROLE app;
    CREATE SCHEMA pgboss;
    CREATE TABLE pgboss.version (version integer PRIMARY KEY);
    INSERT INTO pgboss.version VALUES (24);
    CREATE TABLE pgboss.queue (name text PRIMARY KEY, retry_limit integer, partition_name text);
    CREATE TABLE pgboss.job (id uuid NOT NULL DEFAULT gen_random_uuid(), name text NOT NULL, data jsonb,
        state text NOT NULL DEFAULT 'created', created_on timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (name, id))
        PARTITION BY LIST (name);
    CREATE INDEX job_state ON pgboss.job (state);
    CREATE FUNCTION pgboss.create_queue(queue_name text) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE part text := 'j' || encode(sha224(queue_name::bytea), 'hex');
    BEGIN
        INSERT INTO pgboss.queue VALUES (queue_name, 2, part) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN RETURN; END IF;
        EXECUTE format('CREATE TABLE pgboss.%I (LIKE pgboss.job INCLUDING DEFAULTS)', part);
        EXECUTE format('ALTER TABLE pgboss.%I ADD PRIMARY KEY (name, id)', part);
        EXECUTE format('ALTER TABLE pgboss.%I ADD CONSTRAINT q_fkey FOREIGN KEY (name) REFERENCES pgboss.queue
            DEFERRABLE INITIALLY DEFERRED', part);
        EXECUTE format('CREATE UNIQUE INDEX %I ON pgboss.%I (name, COALESCE(data->>''key'', ''''))
            WHERE data ? ''key''', part || '_i1', part);
        EXECUTE format('ALTER TABLE pgboss.%I ADD CONSTRAINT cjc CHECK (name = %L)', part, queue_name);
        EXECUTE format('ALTER TABLE pgboss.job ATTACH PARTITION pgboss.%I FOR VALUES IN (%L)', part, queue_name);
    END $$;
    SELECT pgboss.create_queue('mails'), pgboss.create_queue('it''s \"odd\" \u{fc}');
    INSERT INTO pgboss.job (name, data) SELECT CASE n % 2 WHEN 0 THEN 'mails' ELSE 'it''s \"odd\" \u{fc}' END,
        jsonb_build_object('n', n) FROM generate_series(1, 5000) AS n;
    RESET ROLE;
";

impl Scene {
    async fn of_boss() -> Self {
        let scene = Self { primary: Postgres::start(Role::Primary), jobs: Postgres::start(Role::Jobs) };
        scene.primary.query(BOSS).await;
        scene
    }
}

fn boss(config: ProxyConfig) -> ProxyConfig {
    config.set("jobs", "presets", vec!["pg_boss"])
}

/// All jobs, and the partition of each.
async fn jobs(server: &Postgres) -> Vec<Vec<Option<String>>> {
    server.query("SELECT tableoid::regclass::text, j::text FROM pgboss.job AS j ORDER BY 1, 2").await
}

#[tokio::test]
async fn partitions_are_followed_there_and_back_with_new_ones() {
    let scene = Scene::of_boss().await;
    let config = boss(scene.after()).set("jobs", "outbox", false);
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM pgboss.job LIMIT 1").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
    scene.wait_for_step("to jobs/switch").await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM pgboss.job").await, "5000");
    // By the whole table's name and by a partition's, and from one partition to the other.
    scene
        .primary
        .query(
            "UPDATE pgboss.job SET name = 'mails' WHERE (data->>'n')::int % 7 = 1; \
             UPDATE pgboss.job SET state = 'active' WHERE (data->>'n')::int % 5 = 1; \
             DELETE FROM pgboss.job WHERE (data->>'n')::int % 11 = 1; \
             INSERT INTO pgboss.job (name, data) SELECT 'mails', '{\"more\": 1}' FROM generate_series(1, 10)",
        )
        .await;
    let expected = jobs(&scene.primary).await;
    let early = connect(&scene.jobs.url(Login::App)).await.expect("it serves");
    let part = scene.jobs.value("SELECT partition_name FROM pgboss.queue WHERE name = 'mails'").await;
    for table in ["job", &part] {
        let error = early.batch_execute(&format!("DELETE FROM pgboss.{table}")).await.expect_err("not yet");
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("55000"), "{error:?}");
    }
    holder.batch_execute("COMMIT").await.expect("it can");
    moving.end(0).await;
    assert_eq!(jobs(&scene.jobs).await, expected);
    assert_eq!(jobs(&scene.primary).await.len(), 0);
    for table in ["job", &part] {
        let of_late = holder.batch_execute(&format!("DELETE FROM pgboss.{table}")).await;
        let error = of_late.expect_err("they are there");
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("55000"), "{error:?}");
    }
    let checked =
        "SELECT count(*) FROM pg_constraint WHERE conname = 'q_fkey' AND convalidated AND condeferred";
    assert_eq!(scene.jobs.value(checked).await, "2");
    // A queue that is made there comes along, and one that is deleted there is to be deleted here.
    scene
        .jobs
        .query("SET ROLE app; SELECT pgboss.create_queue('new'); INSERT INTO pgboss.job (name) VALUES ('new'), ('new')")
        .await;
    let expected = jobs(&scene.jobs).await;
    scene.jobs.query("SET ROLE app; CREATE TABLE pgboss.keyless (id int)").await;
    let text = scene.run(&config, &["--back"], 64).await;
    assert!(text.contains("pgboss.keyless has no primary key"), "{text}");
    scene.jobs.query("DROP TABLE pgboss.keyless").await;
    let text = scene.run(&config, &["--back"], 0).await;
    assert!(text.contains("made 1 tables"), "{text}");
    assert_eq!(jobs(&scene.primary).await, expected);
    assert_eq!(jobs(&scene.jobs).await.len(), 0);
    assert_eq!(scene.primary.value("SELECT count(*) FROM pgboss.queue").await, "3");
    scene
        .primary
        .query("SELECT pgboss.create_queue('another'); INSERT INTO pgboss.job (name) VALUES ('another')")
        .await;
}

#[tokio::test]
async fn a_queue_that_is_made_while_rows_are_copied_is_noticed_before_the_switch() {
    let scene = Scene::of_boss().await;
    let config = boss(scene.after()).set("jobs", "outbox", false);
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; SELECT FROM pgboss.version").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
    scene.wait_for_step("to jobs/switch").await;
    scene
        .primary
        .query(
            "SET ROLE app; SELECT pgboss.create_queue('new'); INSERT INTO pgboss.job (name) VALUES ('new')",
        )
        .await;
    let expected = jobs(&scene.primary).await;
    holder.batch_execute("COMMIT").await.expect("it can");
    let text = moving.end(64).await;
    assert!(text.contains("is new since the move was begun; nothing was switched"), "{text}");
    assert_eq!(jobs(&scene.primary).await, expected);
    scene.primary.query("UPDATE pgboss.job SET state = 'active' WHERE name = 'new'").await;
    scene.run(&config, &["--abort"], 0).await;
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(jobs(&scene.jobs).await.len(), expected.len());
}

#[tokio::test]
async fn with_an_outbox_the_primary_keeps_its_copy_of_the_queues() {
    let scene = Scene::of_boss().await;
    let proxy = Proxy::start(&boss(scene.before()).to_toml());
    let (after, console) = (boss(scene.after()), console(&proxy));
    rewrite(&proxy, &after);
    scene.run(&after, &["--to", "jobs", "--console", &console], 0).await;
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    let client = connect(&proxy.url()).await.expect("it serves");
    let enqueue = "INSERT INTO pgboss.job (name, data) SELECT q.name, jsonb_build_object('of', q.retry_limit) \
                   FROM pgboss.queue AS q WHERE q.name = 'mails'";
    client
        .batch_execute(&format!(
            "CREATE TABLE orders (id int); BEGIN; INSERT INTO orders VALUES (1); {enqueue}; COMMIT"
        ))
        .await
        .expect("it is relayed");
    let come = "SELECT count(*) FROM pgboss.job WHERE data ? 'of'";
    eventually("the job has come", LONG, async || (scene.jobs.value(come).await == "1").then_some(())).await;
    // The copy is renewed.
    client.batch_execute("UPDATE pgboss.queue SET retry_limit = 7").await.expect("it is there");
    let limit = "SELECT DISTINCT retry_limit FROM pgboss.queue";
    eventually("the copy is renewed", LONG, async || (scene.primary.value(limit).await == "7").then_some(()))
        .await;
    let expected = jobs(&scene.jobs).await;
    assert_eq!(expected.len(), 5001);
    rewrite(&proxy, &boss(scene.before()));
    scene.run(&after, &["--back", "--console", &console], 0).await;
    assert_eq!(jobs(&scene.primary).await, expected);
    assert_eq!(scene.primary.value(limit).await, "7");
    client.batch_execute("UPDATE pgboss.job SET state = 'active'").await.expect("they are here");
    assert_eq!(scene.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
}

#[tokio::test]
async fn shapes_that_cannot_be_moved_are_refused_before_anything_is_changed() {
    let scene = Scene::of_boss().await;
    scene
        .primary
        .query(
            "SET ROLE app; ALTER TABLE pgboss.job ADD CONSTRAINT whole FOREIGN KEY (name) REFERENCES pgboss.queue; \
             CREATE TABLE pgboss.keyless (id int) PARTITION BY LIST (id); \
             CREATE TABLE pgboss.keyless_1 PARTITION OF pgboss.keyless DEFAULT; \
             CREATE TABLE pgboss.computed (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY); \
             CREATE TABLE pgboss.ruled (id int PRIMARY KEY); CREATE RULE r AS ON INSERT TO pgboss.ruled DO INSTEAD NOTHING",
        )
        .await;
    let text = scene.run(&boss(scene.after()), &["--to", "jobs"], 64).await;
    for part in [
        "pgboss.job has partitions and refers to pgboss.queue (whole)",
        "pgboss.keyless_1 has no primary key",
        "pgboss.computed has a generated column in its key",
        "pgboss.ruled has a rule (CREATE RULE)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(scene.step().await, "none");
    assert_eq!(
        scene
            .jobs
            .value("SELECT count(*) FROM pg_namespace WHERE nspname IN ('pgboss', 'bulkhead_move')")
            .await,
        "0"
    );
}
