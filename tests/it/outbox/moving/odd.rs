//! Names, values, keys and constraints that are hard to carry over, and what is done to tables while rows are.

use std::time::{Duration, Instant};

use super::{LONG, Moving, Scene, rows};
use crate::support::{Login, Postgres, ProxyConfig, Role, connect, eventually};

/// 63 bytes, with all that ends a string, a name, a dollar quote or a line.
const NAME: &str = "Jöbs \"of\" it's $bulkhead$ $$ \\ % {} -- /* ; '' \n\tand it's 63 b";

/// In quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A job database with nothing, and tables of one's own as job tables.
async fn scene(sql: &str, tables: &[&str]) -> (Scene, ProxyConfig) {
    let scene = Scene { primary: Postgres::start(Role::Primary), jobs: Postgres::start(Role::Jobs) };
    scene.primary.query(&format!("SET ROLE app; {sql}")).await;
    let config = scene.after().set("jobs", "outbox", false).set("jobs.rules", "tables", tables.to_vec());
    (scene, config)
}

impl Scene {
    /// Starts a move, and has it wait for the lock, with all rows copied, while this is done on the primary.
    async fn meanwhile(&self, config: &ProxyConfig, table: &str, sql: &str) -> Moving {
        let holder = connect(&self.primary.url(Login::App)).await.expect("it serves");
        holder.batch_execute(&format!("BEGIN; SELECT FROM {table} LIMIT 1")).await.expect("it can");
        let moving = Moving::start(config, &["--to", "jobs", "--max-pause", "2s"]);
        self.wait_for_step("to jobs/switch").await;
        self.primary.query(&format!("SET ROLE app; {sql}")).await;
        holder.batch_execute("COMMIT").await.expect("it can");
        moving
    }
}

#[tokio::test]
async fn hostile_names_are_but_names() {
    assert_eq!(NAME.len(), 63);
    let (table, kind, other) = (quoted(NAME), quoted(&NAME[1..]), quoted("b.c"));
    let sql = format!(
        "CREATE SCHEMA {table}; CREATE TYPE {table}.{kind} AS ENUM ('a', 'it''s \\ \"', '$bulkhead$'); \
         CREATE TABLE {table}.{table} ({table} {table}.{kind}, \"Id\" bigserial, \"new\" text, \"old\" int, \
         PRIMARY KEY ({table}, \"Id\"), UNIQUE (\"new\")); \
         CREATE SCHEMA a; CREATE SCHEMA \"a.b\"; CREATE TABLE a.{other} (\"order\" int PRIMARY KEY); \
         CREATE TABLE \"a.b\".c (\"order\" int PRIMARY KEY); \
         INSERT INTO {table}.{table} ({table}, \"new\") SELECT '$bulkhead$', n::text FROM generate_series(1, 3000) AS n; \
         INSERT INTO a.{other} VALUES (1), (2); INSERT INTO \"a.b\".c VALUES (2), (3)"
    );
    let (scene, config) = scene(&sql, &[]).await;
    let config = config.set("jobs.rules", "schemas", vec!["J*bs*", "a", "a.b"]);
    let all = format!("{table}.{table}");
    let change = format!(
        "UPDATE {all} SET {table} = 'it''s \\ \"' WHERE \"Id\" % 2 = 0; UPDATE {all} SET \"new\" = \"new\" || 'x'; \
         DELETE FROM {all} WHERE \"Id\" % 5 = 0; DELETE FROM a.{other} WHERE \"order\" = 1; DELETE FROM \"a.b\".c WHERE \"order\" = 2"
    );
    let moving = scene.meanwhile(&config, &all, &change).await;
    moving.end(0).await;
    let of = async |server: &Postgres| {
        let mut found = Vec::new();
        for table in [&all, "a.\"b.c\"", "\"a.b\".c"] {
            found.push(rows(server, &format!("(SELECT t::text FROM {table} AS t) AS t")).await);
        }
        found
    };
    let there = of(&scene.jobs).await;
    assert_eq!(there.iter().map(Vec::len).collect::<Vec<_>>(), [2400, 1, 1]);
    let error =
        scene.primary.admin().await.batch_execute(&format!("DELETE FROM {all}")).await.expect_err("moved");
    assert!(error.as_db_error().is_some_and(|error| error.message().contains(NAME)), "{error:?}");
    scene.run(&config, &["--back"], 0).await;
    assert_eq!(of(&scene.primary).await, there);
    scene.run(&config, &["--finish"], 0).await;
}

#[tokio::test]
async fn hostile_values_come_as_they_are() {
    let sql = r#"CREATE TABLE things (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, j jsonb, t text, f double precision, r real, n numeric,
            b bytea, at timestamptz, a timestamp, d date, i interval, u uuid, x xml, m money, ip inet, bits bit varying,
            ar float8[], p point, rg int8range, c "char", nm name, ts tsvector,
            twice integer GENERATED ALWAYS AS (length(t) * 2) STORED);
        INSERT INTO things (j, t, f, r, n, b, at, a, d, i, x, m, ar, p, rg, c, bits, ts) VALUES
            ('null', '', 'NaN', 'NaN', 'NaN', '', 'infinity', 'infinity', 'infinity', '1 mon -1 day 00:00:01', '<a/>', '1.5',
             '{NaN,Infinity,NULL}', '(NaN,-0)', 'empty', 'x', '', 'a:1'),
            (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            ('"\\N"', '\N', '-Infinity', '-0', 1e-1000, '\x00ff0a5c4e', '-infinity', '-infinity', '-infinity', '-1 year',
             'x', '-9', '{}', '(1e300,1)', '[,)', '', '101', ''),
            ('{"a": [null, "", 1e400]}', E'\\.', 5e-324, 1e-45, 123456789012345678901234567890.1234567890, '\x5c2e',
             '4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999', '5874897-12-31', '178000000 years', NULL, NULL,
             '[2:3]={1,2}', '(0.1,0.30000000000000004)', '[1,5)', E'\\', '0', 'b'),
            ('0.10', E'a\r\n\tb\b\f\v\x01', 1.7976931348623157e308, 3.4028235e38, 0.100, decode(repeat('ff00', 1000), 'hex'),
             '2026-03-29 02:30:00+02', '0001-01-01 BC', 'epoch', '0', NULL, NULL, '{{1,2},{3,4}}', NULL, NULL, E'\1', NULL, NULL);
        ALTER TABLE things ALTER COLUMN b SET STORAGE EXTERNAL;
        INSERT INTO things (b) SELECT decode(repeat('0a5c', 5000000), 'hex');
        INSERT INTO things (b) SELECT decode(repeat('ff00', 1500000 + n), 'hex') FROM generate_series(1, 5) AS n"#;
    let (scene, config) = scene(sql, &["things"]).await;
    let lines = "SELECT t::text FROM things AS t ORDER BY id";
    let before = scene.primary.query(lines).await;
    let moving = scene
        .meanwhile(
            &config,
            "things",
            "UPDATE things SET t = 'changed' WHERE id IN (3, 6, 7); INSERT INTO things DEFAULT VALUES",
        )
        .await;
    moving.end(0).await;
    let there = scene.jobs.query(lines).await;
    assert_eq!((before.len(), there.len()), (11, 12));
    assert!(before[1] == there[1] && before[0] == there[0] && before[4] == there[4]);
    let chunks = "SELECT count(*), max(length(b)) FROM things WHERE b IS NOT NULL";
    assert_eq!(
        scene.jobs.query(chunks).await,
        scene.primary.query(&chunks.replace("things", "bulkhead_move.kept_0")).await
    );
    assert_eq!(
        scene.jobs.query(lines).await,
        scene.primary.query(&lines.replace("things", "(TABLE bulkhead_move.kept_0)")).await
    );
    let json = "SELECT string_agg((j IS NULL)::text, ' ' ORDER BY id) FROM things WHERE id < 3";
    assert_eq!(scene.jobs.value(json).await, "false true");
    assert_eq!(scene.jobs.value("INSERT INTO things DEFAULT VALUES RETURNING id").await, "13");
    scene.run(&config, &["--back"], 0).await;
    assert_eq!(scene.primary.query(lines).await[..12], there[..]);
}

#[tokio::test]
async fn another_encoding_is_right_or_refused() {
    let scene = Scene { primary: Postgres::start(Role::Primary), jobs: Postgres::start(Role::Jobs) };
    scene
        .primary
        .query("CREATE DATABASE latin OWNER app TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        .await;
    scene
        .primary
        .query("CREATE DATABASE ascii OWNER app TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        .await;
    let sql = "SET client_encoding = 'UTF8'; SET ROLE app; \
               CREATE TABLE \"jöbs\" (\"schlüssel\" text PRIMARY KEY, \"wért\" text); \
               INSERT INTO \"jöbs\" SELECT 'ä' || n, 'é\\ñ\u{a0}' FROM generate_series(1, 3000) AS n";
    let of = |database: &str| {
        scene
            .after()
            .set("servers.primary", "url", Login::App.url(scene.primary.port(), database))
            .set("jobs", "outbox", false)
            .set("jobs.rules", "tables", vec!["j*bs"])
    };
    for database in ["latin", "ascii"] {
        scene.primary.admin_of(database).await.batch_execute(sql).await.expect("it can");
    }
    let text = scene.run(&of("ascii"), &["--to", "jobs"], 64).await;
    assert!(text.contains("the primary's encoding is SQL_ASCII, and the job database's UTF8"), "{text}");
    scene.run(&of("latin"), &["--to", "jobs"], 0).await;
    let there = "SELECT count(*) FROM \"jöbs\" WHERE \"wért\" = 'é\\ñ\u{a0}' AND \"schlüssel\" LIKE 'ä%'";
    assert_eq!(scene.jobs.value(there).await, "3000");
    // What the primary cannot keep has it stay there.
    scene.jobs.query("UPDATE \"jöbs\" SET \"wért\" = '€ 😀' WHERE \"schlüssel\" = 'ä7'").await;
    let text = scene.run(&of("latin"), &["--back"], 64).await;
    assert!(text.contains("LATIN1"), "{text}");
    scene.jobs.query("UPDATE \"jöbs\" SET \"wért\" = 'ß' WHERE \"schlüssel\" = 'ä7'").await;
    scene.run(&of("latin"), &["--back"], 0).await;
    let latin = scene.primary.admin_of("latin").await;
    let count =
        latin.query_one("SELECT count(*) FROM \"jöbs\" WHERE \"wért\" = 'ß'", &[]).await.expect("it tells");
    assert_eq!(count.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn keys_and_constraints_of_all_kinds_are_followed() {
    // A key that is looked at when the transaction ends, one with a collation, numbers that are nobody's, and two tables
    // that refer to each other.
    let sql = "CREATE TABLE job_late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, of text); \
        CREATE SEQUENCE numbers; CREATE SEQUENCE others; \
        CREATE TABLE job_named (name text COLLATE \"POSIX\", part int, number bigint DEFAULT nextval('numbers'), \
            PRIMARY KEY (name, part)); \
        CREATE TABLE job_apart (id int PRIMARY KEY, at int4range, EXCLUDE USING gist (at WITH &&) DEFERRABLE INITIALLY DEFERRED); \
        ALTER TABLE job_late ADD CONSTRAINT apart FOREIGN KEY (id) REFERENCES job_apart DEFERRABLE INITIALLY DEFERRED; \
        CREATE TABLE job_unique (at text, id text NOT NULL, part int NOT NULL, UNIQUE (at)); \
        CREATE UNIQUE INDEX job_unique_partial ON job_unique (id) WHERE part < 0; \
        CREATE UNIQUE INDEX job_unique_key ON job_unique (part, id) INCLUDE (at); \
        INSERT INTO job_unique SELECT CASE WHEN n % 2 = 0 THEN n END, n % 50, n / 50 FROM generate_series(1, 5000) AS n; \
        CREATE DOMAIN job_key AS int NOT NULL CHECK (VALUE > 0); CREATE TABLE job_real (x float8, k job_key, PRIMARY KEY (x, k)); \
        INSERT INTO job_real SELECT n, n FROM generate_series(1, 5000) AS n; \
        CREATE TABLE job_pairs (id int PRIMARY KEY, other int REFERENCES job_pairs DEFERRABLE INITIALLY DEFERRED); \
        INSERT INTO job_pairs SELECT n, 5001 - n FROM generate_series(1, 5000) AS n; \
        BEGIN; INSERT INTO job_late SELECT n, 'of ' || n FROM generate_series(1, 5000) AS n; \
        INSERT INTO job_apart SELECT n, int4range(n, n + 1) FROM generate_series(1, 5000) AS n; COMMIT; \
        INSERT INTO job_named SELECT 'a' || n, n % 3 FROM generate_series(1, 5000) AS n; SELECT nextval('others')";
    let (scene, config) = scene(sql, &["job_*"]).await;
    scene.jobs.query("SET ROLE app; CREATE SEQUENCE others").await;
    let change = "UPDATE job_named SET name = 'b' || name WHERE part = 2; DELETE FROM job_named WHERE part = 1; \
        INSERT INTO job_named (name, part) SELECT 'a' || n, 1 FROM generate_series(1, 10) AS n; \
        UPDATE job_apart SET at = int4range(5002 - id, 5003 - id); UPDATE job_late SET of = 'x' WHERE id % 2 = 0; \
        BEGIN; UPDATE job_apart SET id = id + 9000; UPDATE job_late SET id = id + 9000; COMMIT; \
        UPDATE job_pairs SET other = id WHERE id % 3 = 0; TRUNCATE job_real; INSERT INTO job_real VALUES (1, 1), (2, 2); \
        UPDATE job_unique SET id = 'b' || id WHERE part = 3; UPDATE job_unique SET at = 'x' || at WHERE part = 4; \
        DELETE FROM job_unique WHERE part = 5; UPDATE job_unique SET part = part + 1000 WHERE id = '7'; \
        SET extra_float_digits = -15; UPDATE job_real SET x = x + 1e-10";
    let moving = scene.meanwhile(&config, "job_late", change).await;
    let of = async |server: &Postgres, tables: [&str; 6]| {
        let mut found = Vec::new();
        for table in tables {
            found.push(rows(server, &format!("(SELECT t::text FROM {table} AS t) AS t")).await);
        }
        found
    };
    let names = ["job_apart", "job_late", "job_named", "job_pairs", "job_real", "job_unique"];
    moving.end(0).await;
    let expected = of(
        &scene.primary,
        [
            "bulkhead_move.kept_0",
            "bulkhead_move.kept_1",
            "bulkhead_move.kept_2",
            "bulkhead_move.kept_3",
            "bulkhead_move.kept_4",
            "bulkhead_move.kept_5",
        ],
    )
    .await;
    assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [5000, 5000, 3343, 5000, 2, 4950]);
    let there = of(&scene.jobs, names).await;
    assert!(there == expected, "rows differ");
    let number = scene.jobs.value("INSERT INTO job_named VALUES ('c', 1) RETURNING number").await;
    assert_eq!(number, "5011");
    assert_eq!(scene.jobs.value("SELECT nextval('others')").await, "1", "the application's own");
    let valid = "SELECT string_agg(conname || convalidated, ' ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(scene.jobs.value(valid).await, "aparttrue job_pairs_other_fkeytrue");
    scene.run(&config, &["--back"], 0).await;
    let back = of(&scene.primary, names).await;
    assert!(back[..2] == expected[..2] && back[3..] == expected[3..], "rows differ");
    assert_eq!(scene.primary.value(valid).await, "aparttrue job_pairs_other_fkeytrue");
}

#[tokio::test]
async fn a_column_that_is_added_meanwhile_is_noticed_before_the_switch() {
    for (there_too, direction) in [(false, "to jobs"), (true, "to jobs"), (true, "back")] {
        let (scene, config) = scene(
            "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 3000)",
            &["jobs"],
        )
        .await;
        let add = "ALTER TABLE jobs ADD COLUMN more text; UPDATE jobs SET more = 'kept' WHERE id = 7";
        if direction == "back" {
            // Of a migration that was run there alone.
            scene.run(&config, &["--to", "jobs"], 0).await;
            scene.jobs.query(add).await;
            let text = scene.run(&config, &["--back"], 64).await;
            assert!(text.contains("public.jobs: column more: text in the job database only"), "{text}");
            scene.primary.query("ALTER TABLE jobs ADD COLUMN more text").await;
            scene.run(&config, &["--back"], 0).await;
            assert_eq!(scene.primary.value("SELECT more FROM jobs WHERE id = 7").await, "kept");
            continue;
        }
        let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
        holder.batch_execute("BEGIN; LOCK TABLE jobs IN ROW EXCLUSIVE MODE").await.expect("it can");
        let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
        scene.wait_for_step("to jobs/prepare").await;
        holder.batch_execute("COMMIT; BEGIN; LOCK TABLE jobs IN ACCESS SHARE MODE").await.expect("it can");
        scene.wait_for_step("to jobs/switch").await;
        holder.batch_execute(add).await.expect("it can");
        if there_too {
            scene.jobs.query("ALTER TABLE jobs ADD COLUMN more text").await;
        }
        holder.batch_execute("COMMIT").await.expect("it can");
        let text = moving.end(64).await;
        assert!(
            text.contains("public.jobs has other columns since the move was begun; nothing was switched"),
            "{text}"
        );
        scene.primary.query("UPDATE jobs SET more = more").await;
        // Also when it is run again, and both sides have it.
        if there_too {
            let text = scene.run(&config, &["--to", "jobs"], 64).await;
            assert!(
                text.contains("public.jobs: column more: text: added since the move was begun"),
                "{text}"
            );
        }
        scene.run(&config, &["--abort"], 0).await;
        scene.run(&config, &["--to", "jobs"], 0).await;
        assert_eq!(scene.jobs.value("SELECT more FROM jobs WHERE id = 7").await, "kept");
    }
}

#[tokio::test]
async fn an_index_that_is_added_meanwhile_is_noticed_before_the_switch() {
    let sql =
        "CREATE TABLE jobs (id int PRIMARY KEY, part int); INSERT INTO jobs SELECT generate_series(1, 30)";
    let (scene, config) = scene(sql, &["jobs"]).await;
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; LOCK TABLE jobs IN ACCESS SHARE MODE").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
    scene.wait_for_step("to jobs/switch").await;
    holder.batch_execute("CREATE INDEX jobs_part ON jobs (part); COMMIT").await.expect("it can");
    let text = moving.end(64).await;
    assert!(text.contains("public.jobs: index jobs_part: CREATE INDEX"), "{text}");
    assert!(text.contains("since the move was begun; nothing was switched"), "{text}");
    scene.run(&config, &["--abort"], 0).await;
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(
        scene.jobs.value("SELECT count(*) FROM pg_index WHERE indrelid = 'jobs'::regclass").await,
        "2"
    );
}

#[tokio::test]
async fn tables_without_a_log_that_a_crash_empties_are_copied_anew() {
    let sql =
        "CREATE UNLOGGED TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 3000)";
    let (scene, config) = scene(sql, &["jobs"]).await;
    for (is_source, rows) in [(false, "3000"), (true, "5")] {
        let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
        holder.batch_execute("BEGIN; SELECT FROM jobs LIMIT 1").await.expect("it can");
        let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "2s"]);
        scene.wait_for_step("to jobs/switch").await;
        assert!(moving.kill(), "it runs");
        let server = if is_source { &scene.primary } else { &scene.jobs };
        server.kill();
        server.boot();
        holder.batch_execute("COMMIT").await.ok();
        assert_eq!(server.value("SELECT count(*) FROM jobs").await, "0", "a crash empties it");
        if is_source {
            scene.primary.query("INSERT INTO jobs SELECT generate_series(1, 5)").await;
        }
        scene.run(&config, &["--to", "jobs"], 0).await;
        assert_eq!(scene.jobs.value("SELECT count(*) FROM jobs").await, rows);
        scene.run(&config, &["--back"], 0).await;
        assert_eq!(scene.primary.value("SELECT count(*) FROM jobs").await, rows);
        scene.run(&config, &["--finish"], 0).await;
    }
}

#[tokio::test]
async fn a_target_that_is_full_keeps_the_move_from_going_on_and_nothing_else() {
    let (scene, config) = scene(
        "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 3000)",
        &["jobs"],
    )
    .await;
    // From the 2,001st row on, in a second chunk.
    let full = "SET ROLE app; CREATE TABLE jobs (id int PRIMARY KEY); \
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id > 2000 THEN \
        RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$; \
        CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION full_disk(); \
        ALTER TABLE jobs ENABLE ALWAYS TRIGGER full_disk";
    scene.jobs.query(full).await;
    let moving = Moving::start(&config, &["--to", "jobs"]);
    scene.wait_for_step("to jobs/copy").await;
    scene
        .primary
        .query("UPDATE jobs SET id = id + 10000 WHERE id = 1; UPDATE jobs SET id = 1 WHERE id = 10001")
        .await;
    let text = moving.end(64).await;
    assert!(text.contains("could not extend file"), "{text}");
    assert_eq!(scene.step().await, "to jobs/copy");
    assert_eq!(scene.primary.value("SELECT count(*) FROM jobs").await, "3000");
    scene.jobs.query("DROP TRIGGER full_disk ON jobs").await;
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM jobs").await, "3000");
}

#[tokio::test]
async fn a_second_move_beside_one_does_nothing() {
    let sql = "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 10)";
    let (scene, config) = scene(sql, &["jobs"]).await;
    let holder = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    holder.batch_execute("BEGIN; LOCK TABLE jobs IN ROW EXCLUSIVE MODE").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs"]);
    scene.waits_for_a_lock(&scene.primary, "").await;
    let others =
        [["--to", "jobs"].as_slice(), &["--abort"]].map(|arguments| Moving::start(&config, arguments));
    for other in others {
        let text = other.end(64).await;
        assert!(text.contains("another `bulkhead jobs move` is at work"), "{text}");
    }
    holder.batch_execute("COMMIT").await.expect("it can");
    moving.end(0).await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM jobs").await, "10");
}

#[tokio::test]
async fn somebody_who_reads_at_the_target_makes_no_pause_longer() {
    let sql = "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 10)";
    let (scene, config) = scene(sql, &["jobs"]).await;
    let writer = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    writer.batch_execute("BEGIN; SELECT FROM jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "1s"]);
    scene.wait_for_step("to jobs/switch").await;
    let reader = connect(&scene.jobs.url(Login::App)).await.expect("it serves");
    reader.batch_execute("BEGIN; SELECT FROM jobs LIMIT 1").await.expect("it can");
    writer.batch_execute("COMMIT").await.expect("it can");
    let mut moving = tokio::spawn(moving.end(64));
    let mut longest = Duration::ZERO;
    let text = loop {
        let begun = Instant::now();
        writer.batch_execute("UPDATE jobs SET id = id WHERE id = 1").await.expect("the jobs are here");
        longest = longest.max(begun.elapsed());
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(1), &mut moving).await {
            break ended.expect("it gives up");
        }
    };
    assert!(text.contains("server \"jobs\" cannot take writes in time: process"), "{text}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    reader.batch_execute("COMMIT").await.expect("it can");
    scene.run(&config, &["--to", "jobs"], 0).await;
    assert_eq!(scene.jobs.value("SELECT count(*) FROM jobs").await, "10");
}

#[tokio::test]
async fn a_target_that_is_gone_in_the_pause_lets_everybody_go_on() {
    let (scene, config) = scene(
        "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs SELECT generate_series(1, 3000)",
        &["jobs"],
    )
    .await;
    let of_primary = connect(&scene.primary.url(Login::App)).await.expect("it serves");
    of_primary.batch_execute("BEGIN; SELECT FROM jobs LIMIT 1").await.expect("it can");
    let moving = Moving::start(&config, &["--to", "jobs", "--max-pause", "20s"]);
    scene.waits_for_a_lock(&scene.primary, "AND query LIKE '%LOCK TABLE%'").await;
    // Comparing both sides waits there, in the pause.
    let of_jobs = connect(&scene.jobs.url(Login::App)).await.expect("it serves");
    of_jobs.batch_execute("BEGIN; LOCK TABLE jobs").await.expect("it can");
    of_primary.batch_execute("COMMIT").await.expect("it can");
    scene.waits_for_a_lock(&scene.jobs, "").await;
    let writer =
        tokio::spawn(async move { of_primary.batch_execute("INSERT INTO jobs VALUES (5000)").await });
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'";
    eventually("the writer waits", LONG, async || (scene.primary.value(waits).await == "1").then_some(()))
        .await;
    scene.jobs.kill();
    writer.await.expect("it does not panic").expect("it goes on");
    scene.jobs.boot();
    let text = moving.end(0).await;
    assert!(text.contains("the jobs are in the job database"), "{text}");
    assert_eq!(scene.jobs.value("SELECT count(*) FROM jobs").await, "3001");
    assert_eq!(scene.primary.value("SELECT count(*) FROM jobs").await, "0");
}
