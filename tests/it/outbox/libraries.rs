//! The tables of other libraries: keys that are numbers of a serial or of an identity, UUIDs, and of two columns; columns
//! that are generated; partitions; and triggers that write elsewhere.

use super::{LONG, Yard, bulkhead};
use crate::support::eventually;

/// A table of each library, as small as its shape allows.
const TABLES: &str = "
    SET ROLE app;
    CREATE TABLE river_job (id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'available', queue text NOT NULL DEFAULT 'q',
        kind text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE good_job_batches (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), created_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE good_jobs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), queue_name text, scheduled_at timestamp,
        created_at timestamp NOT NULL DEFAULT now());
    CREATE TABLE que_jobs (priority smallint NOT NULL DEFAULT 100, id bigserial PRIMARY KEY, args jsonb);
    CREATE TABLE delayed_jobs (id bigserial PRIMARY KEY, handler text, created_at timestamp(6));
    CREATE TYPE procrastinate_job_status AS ENUM ('todo', 'doing');
    CREATE TABLE procrastinate_jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue_name varchar(128) NOT NULL,
        status procrastinate_job_status NOT NULL DEFAULT 'todo',
        is_todo boolean GENERATED ALWAYS AS (status = 'todo') STORED);
    CREATE TABLE procrastinate_events (id bigserial PRIMARY KEY,
        job_id bigint NOT NULL REFERENCES procrastinate_jobs ON DELETE CASCADE, type text NOT NULL);
    CREATE FUNCTION procrastinate_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO procrastinate_events (job_id, type) VALUES (NEW.id, 'deferred');
        RETURN NEW;
    END $$;
    CREATE TRIGGER events AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION procrastinate_trigger();
    CREATE SCHEMA pgboss;
    CREATE TABLE pgboss.queue (name text PRIMARY KEY, retry_limit integer, created_on timestamptz DEFAULT now());
    CREATE TABLE pgboss.job (id uuid NOT NULL DEFAULT gen_random_uuid(), name text NOT NULL, data jsonb,
        created_on timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (name, id)) PARTITION BY LIST (name);
    CREATE TABLE pgboss.j1 PARTITION OF pgboss.job FOR VALUES IN ('mails', 'it''s \\odd');
    RESET ROLE;
";

const PRESETS: [&str; 6] = ["river", "good_job", "que", "delayed_job", "procrastinate", "pg_boss"];

#[tokio::test]
async fn jobs_of_every_library_come() {
    let yard = Yard::bare();
    yard.primary.query(TABLES).await;
    yard.jobs.query(TABLES).await;
    let config = yard.config().set("jobs", "presets", PRESETS.to_vec());
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    for _ in 0..3 {
        yard.primary
            .query(
                "INSERT INTO river_job (kind) VALUES ('k');
                 INSERT INTO good_job_batches DEFAULT VALUES;
                 INSERT INTO good_jobs (queue_name) VALUES ('q');
                 INSERT INTO que_jobs (args) VALUES ('[1, null, \"a\\\\b\"]');
                 INSERT INTO delayed_jobs (handler) VALUES (E'--- !ruby\\n\\ta: \\\\x\\n');
                 INSERT INTO procrastinate_jobs (queue_name) VALUES ('default');
                 INSERT INTO pgboss.job (name, data) VALUES ('mails', '{}'), ('it''s \\odd', NULL);",
            )
            .await;
    }
    let tables = [
        "river_job",
        "good_job_batches",
        "good_jobs",
        "que_jobs",
        "delayed_jobs",
        "procrastinate_jobs",
        "procrastinate_events",
        "pgboss.job",
    ];
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        eventually(&format!("{table} is empty on the primary"), LONG, async || {
            (yard.primary.value(&count).await == "0").then_some(())
        })
        .await;
        let expected = if table == "pgboss.job" { "6" } else { "3" };
        assert_eq!(yard.jobs.value(&count).await, expected, "{table}");
    }
    let same =
        "SELECT count(*) FROM delayed_jobs WHERE handler = E'--- !ruby\\n\\ta: \\\\x\\n' AND id % 2 = 1";
    assert_eq!(yard.jobs.value(same).await, "3");
    assert_eq!(
        yard.jobs.value("SELECT count(*) FROM procrastinate_jobs WHERE is_todo AND id % 2 = 1").await,
        "3"
    );
    assert_eq!(
        yard.jobs
            .value("SELECT count(*) FROM pgboss.job WHERE name = E'it''s \\\\odd' AND data IS NULL")
            .await,
        "3"
    );
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
    drop(proxy);
}

#[tokio::test]
async fn the_primary_knows_the_queues_that_an_enqueue_joins() {
    let yard = Yard::bare();
    yard.primary.query(TABLES).await;
    yard.jobs.query(TABLES).await;
    let before = yard.primary.query("SELECT relname FROM pg_class ORDER BY 1").await;
    let config = yard.config().set("jobs", "presets", vec!["pg_boss"]);
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    // A queue, and a partition for it, made in the job database as pg-boss does it.
    yard.jobs
        .query(
            "INSERT INTO pgboss.queue (name, retry_limit) VALUES ('new', 5);
             CREATE TABLE pgboss.j2 PARTITION OF pgboss.job FOR VALUES IN ('new')",
        )
        .await;
    let limit = "SELECT retry_limit FROM pgboss.queue WHERE name = 'new'";
    eventually("the queue is known", LONG, async || (yard.primary.value(limit).await == "5").then_some(()))
        .await;
    yard.jobs.query("UPDATE pgboss.queue SET retry_limit = 6").await;
    eventually("its change is known", LONG, async || (yard.primary.value(limit).await == "6").then_some(()))
        .await;
    yard.primary
        .query("INSERT INTO pgboss.job (name, data) SELECT q.name, '{}' FROM pgboss.queue AS q WHERE q.name = 'new'")
        .await;
    let arrived = "SELECT count(*) FROM pgboss.j2";
    eventually("the job has come", LONG, async || (yard.jobs.value(arrived).await == "1").then_some(()))
        .await;
    // It comes before it is gone.
    let left = "SELECT count(*) FROM pgboss.job";
    eventually("the job is gone", LONG, async || (yard.primary.value(left).await == "0").then_some(())).await;
    drop(proxy);
    let (code, text) = bulkhead(&config, &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(yard.primary.query("SELECT relname FROM pg_class ORDER BY 1").await, before);
}

/// pg-boss adds a queue, and then a foreign key to the table of queues, which is a stronger lock. Whoever copied queues there
/// meanwhile would wait for the queue, and be waited for.
#[tokio::test]
async fn a_queue_that_is_being_made_on_both_servers_is_copied_later() {
    let yard = Yard::bare();
    yard.primary.query(TABLES).await;
    yard.jobs.query(TABLES).await;
    let config = yard.config().set("jobs", "presets", vec!["pg_boss"]);
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    let maker = yard.primary.admin().await;
    let add = "INSERT INTO pgboss.queue (name, retry_limit) VALUES ('new', 5)";
    maker.batch_execute(&format!("BEGIN; {add}")).await.expect("it can");
    yard.jobs.query(&format!("{add}; UPDATE pgboss.queue SET retry_limit = 6")).await;
    eventually("the copy is put off", LONG, async || {
        yard.primary.log().contains("could not obtain lock on relation \"pgboss.queue\"").then_some(())
    })
    .await;
    // Jobs do not wait for that.
    yard.primary.query("INSERT INTO pgboss.job (name) VALUES ('mails')").await;
    let arrived = "SELECT count(*) FROM pgboss.j1";
    eventually("the job has come", LONG, async || (yard.jobs.value(arrived).await == "1").then_some(()))
        .await;
    maker
        .batch_execute("LOCK TABLE pgboss.queue IN SHARE ROW EXCLUSIVE MODE; COMMIT")
        .await
        .expect("nobody is in the way");
    let limit = "SELECT retry_limit FROM pgboss.queue WHERE name = 'new'";
    eventually("the copy is made", LONG, async || (yard.primary.value(limit).await == "6").then_some(()))
        .await;
    assert!(!proxy.log().contains("jobs wait on the primary"), "{}", proxy.log());
}

#[tokio::test]
async fn a_row_with_a_key_of_two_columns_can_be_set_aside() {
    let yard = Yard::bare();
    yard.primary.query(TABLES).await;
    yard.jobs.query(TABLES).await;
    yard.jobs.query("ALTER TABLE pgboss.job ADD CHECK (data IS NOT NULL)").await;
    let config = yard.config().set("jobs", "presets", vec!["pg_boss"]);
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    yard.primary
        .query("INSERT INTO pgboss.job (name, data) VALUES ('mails', '{}'), ('it''s \\odd', NULL), ('mails', '1')")
        .await;
    let proxy = yard.bulkhead(&config).await;
    eventually("all are gone", LONG, async || {
        (yard.primary.value("SELECT count(*) FROM pgboss.job").await == "0").then_some(())
    })
    .await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM pgboss.job").await, "2");
    assert_eq!(yard.primary.value("SELECT row->>'name' FROM bulkhead.refused").await, "it's \\odd");
    drop(proxy);
}
