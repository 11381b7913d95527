//! Jobs that sessions add in transactions of the application: they are written on the primary, with the transaction, and
//! come to the job database once it has committed, and only then.

use super::Yard;
use crate::support::{Proxy, RawClient, error_code, error_of, eventually, oban, short, values};

/// What is said with what is answered; and what there is afterwards of items and of jobs.
type Script = (&'static [(&'static str, &'static str)], (&'static str, &'static str));

const ITEM: &str = "INSERT INTO items VALUES ('a')";
const JOB: &str = "INSERT INTO oban_jobs (worker) VALUES ('J')";
/// As Oban says it, and as its Python version does, with the notification in it.
const OBAN_JOB: &str = "INSERT INTO \"public\".\"oban_jobs\" (\"worker\",\"queue\") VALUES ('J','default') ON CONFLICT DO NOTHING";
const OBAN_PY_JOB: &str = "WITH inserted AS (INSERT INTO public.oban_jobs (worker) VALUES ('J') RETURNING id, queue, state) \
     SELECT queue, CASE WHEN state = 'available' THEN pg_notify('public.oban_insert', 'x') END FROM inserted";
const NOTIFY: &str = "SELECT pg_notify('public.oban_insert', '{\"queue\":\"default\"}')";
const COUNT: &str = "SELECT count(*) FROM oban_jobs";

/// What is said with what is answered; the items and the jobs that are there in the end.
const SCRIPTS: &[Script] = &[
    (
        &[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (JOB, "INSERT 0 1 T"), ("COMMIT", "COMMIT I")],
        ("1", "1"),
    ),
    (
        &[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (JOB, "INSERT 0 1 T"), ("ROLLBACK", "ROLLBACK I")],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (OBAN_JOB, "INSERT 0 1 T"),
            (NOTIFY, " T"),
            (OBAN_PY_JOB, "default T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("1", "2"),
    ),
    // A unique job beside: its lock, the look for another one on the job database, its row.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT pg_try_advisory_xact_lock(7)", "t T"),
            (COUNT, "0 T"),
            (JOB, "INSERT 0 1 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("1", "1"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SAVEPOINT a", "SAVEPOINT T"),
            (JOB, "INSERT 0 1 T"),
            ("ROLLBACK TO a", "ROLLBACK T"),
            (JOB, "INSERT 0 1 T"),
            ("RELEASE a", "RELEASE T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("1", "1"),
    ),
    // Jobs first: what was added on their own server is carried over to the application's transaction.
    (
        &[("BEGIN", "BEGIN T"), (JOB, "INSERT 0 1 T"), (ITEM, "INSERT 0 1 T"), ("COMMIT", "COMMIT I")],
        ("1", "1"),
    ),
    (
        &[("BEGIN", "BEGIN T"), (JOB, "INSERT 0 1 T"), (ITEM, "INSERT 0 1 T"), ("ROLLBACK", "ROLLBACK I")],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SET LOCAL lock_timeout = '5s'", "SET T"),
            (COUNT, "0 T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            (NOTIFY, " T"),
            (JOB, "INSERT 0 1 T"),
            (COUNT, "2 T"),
            (ITEM, "INSERT 0 1 T"),
            (JOB, "INSERT 0 1 T"),
            ("SAVEPOINT a", "SAVEPOINT T"),
            (ITEM, "23505 E"),
            ("ROLLBACK TO a", "ROLLBACK T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("1", "3"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            (ITEM, "INSERT 0 1 T"),
            (ITEM, "23505 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    // A savepoint could not be the same there; and what was done to other jobs is not carried over.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SAVEPOINT a", "SAVEPOINT T"),
            (ITEM, "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("DELETE FROM oban_jobs", "DELETE 0 T"),
            (JOB, "INSERT 0 1 T"),
            (ITEM, "0A000 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("/* of a framework */ SAVEPOINT a", "SAVEPOINT T"),
            (ITEM, "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    // What looks like adding jobs, and does more, or something else.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (
                "INSERT INTO oban_jobs (worker) VALUES ('J') ON CONFLICT (id) DO UPDATE SET priority = 1",
                "0A000 E",
            ),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT setval('oban_jobs_id_seq', 1)", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT pg_notify('public.oban_signal', 'x')", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (&[("DO $$ BEGIN INSERT INTO oban_jobs (worker) VALUES ('J'); END $$ -- create", "DO I")], ("0", "1")),
    (
        &[(
            "ALTER TABLE oban_jobs ADD extra int; INSERT INTO oban_jobs (worker) VALUES ('J')",
            "ALTER TABLE I",
        )],
        ("0", "1"),
    ),
    // What fails at its commit adds nothing.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("INSERT INTO late (n) VALUES (1)", "INSERT 0 1 T"),
            (JOB, "INSERT 0 1 T"),
            ("COMMIT", "23503 I"),
        ],
        ("0", "0"),
    ),
    // One statement, or one text, of both.
    (&[("INSERT INTO oban_jobs (worker) SELECT name FROM items", "INSERT 0 0 I")], ("0", "0")),
    (
        &[("INSERT INTO items VALUES ('a'); INSERT INTO oban_jobs (worker) VALUES ('J')", "INSERT 0 1 I")],
        ("1", "1"),
    ),
    (
        &[(
            "INSERT INTO items VALUES ('a'); INSERT INTO oban_jobs (worker) VALUES ('J'); SELECT 1/0",
            "22012 I",
        )],
        ("0", "0"),
    ),
    // Alone it goes to the job database at once.
    (&[(JOB, "INSERT 0 1 I"), (COUNT, "1 I")], ("0", "1")),
    (&[("BEGIN", "BEGIN T"), (JOB, "INSERT 0 1 T"), (COUNT, "1 T"), ("COMMIT", "COMMIT I")], ("0", "1")),
    // Anything but adding jobs belongs to the job database, and cannot be kept with the application's rows.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("UPDATE oban_jobs SET priority = 1", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("INSERT INTO oban_jobs (worker) SELECT worker FROM oban_jobs", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("0", "0"),
    ),
];

async fn yard() -> (Yard, Proxy) {
    let yard = Yard::start().await;
    yard.primary
        .query(
            "SET ROLE app; CREATE TABLE items (name text PRIMARY KEY);
             CREATE TABLE late (m serial PRIMARY KEY, n int REFERENCES late (m) DEFERRABLE INITIALLY DEFERRED)",
        )
        .await;
    let proxy = yard.bulkhead(&yard.config().set("auth", "method", "trust")).await;
    (yard, proxy)
}

async fn rows(yard: &Yard) -> (String, String) {
    let (items, jobs) = ("SELECT count(*) FROM items", "SELECT count(*) FROM oban_jobs");
    (yard.primary.value(items).await, yard.jobs.value(jobs).await)
}

#[tokio::test]
async fn jobs_of_transactions_come_with_their_commit_and_only_then() {
    let (yard, proxy) = yard().await;
    yard.primary.query("ALTER SEQUENCE late_m_seq RESTART 100").await;
    for (script, (items, jobs)) in SCRIPTS {
        let mut client = RawClient::app(proxy.port()).await;
        for (sql, expected) in *script {
            let answer = client.ask(sql).await;
            assert_eq!(short(&answer), *expected, "{sql} of {script:?}: {:?}", error_of(&answer));
        }
        yard.wait_until_empty().await;
        eventually(&format!("the rows of {script:?}"), super::LONG, async || {
            (rows(&yard).await == ((*items).to_owned(), (*jobs).to_owned())).then_some(())
        })
        .await;
        assert!(yard.arrivals().await.values().all(|times| times.to_string() == *jobs), "{script:?}");
        yard.primary.query("TRUNCATE items, late").await;
        yard.jobs.query("TRUNCATE oban_jobs, arrivals").await;
    }
}

/// The numbers that the application is told stay.
#[tokio::test]
async fn a_job_keeps_the_number_that_its_application_was_told() {
    let (yard, proxy) = yard().await;
    let mut client = RawClient::app(proxy.port()).await;
    let mut told = Vec::new();
    for n in 0..20 {
        client.ask("BEGIN").await;
        if n % 2 == 0 {
            client.ask("INSERT INTO items VALUES (gen_random_uuid()::text)").await;
        }
        client.parse("", "INSERT INTO oban_jobs (worker, priority) VALUES ($1, 3) RETURNING id");
        client.bind("", "", &[Some(&format!("W{n}"))]).describe(b'P', "").execute("", 0).sync().flush().await;
        told.push((values(&client.read_until_ready().await).concat(), format!("W{n}")));
        if n % 3 == 0 {
            // If it is the first one, the job is carried over.
            client.ask("INSERT INTO items VALUES (gen_random_uuid()::text)").await;
        }
        client.ask("COMMIT").await;
    }
    yard.wait_until_empty().await;
    for (id, worker) in told {
        eventually("the job is there", super::LONG, async || {
            let sql = format!("SELECT worker FROM oban_jobs WHERE id = {id} UNION ALL SELECT 'none' LIMIT 1");
            (yard.jobs.value(&sql).await == worker).then_some(())
        })
        .await;
    }
}

/// While the job database is away, what users do goes on, with the jobs that it adds.
#[tokio::test]
async fn transactions_add_jobs_while_the_job_database_is_away() {
    let (yard, proxy) = yard().await;
    yard.jobs.kill();
    let mut client = RawClient::app(proxy.port()).await;
    for n in 0..10 {
        for sql in ["BEGIN", &format!("INSERT INTO items VALUES ('{n}')"), JOB, "COMMIT"] {
            let answer = client.ask(sql).await;
            assert_eq!(error_of(&answer), None, "{sql}");
        }
    }
    let [code, message, _] = error_of(&client.ask(COUNT).await).expect("the job database is away");
    assert!(code == "08006" && message.contains("jobs"), "{code} {message}");
    yard.jobs.boot();
    yard.wait_until_empty().await;
    eventually("all have come", super::LONG, async || {
        (rows(&yard).await == ("10".to_owned(), "10".to_owned())).then_some(())
    })
    .await;
}

/// Nobody is refused because the relay has not looked yet.
#[tokio::test]
async fn transactions_add_jobs_from_the_first_moment() {
    let (yard, proxy) = yard().await;
    drop(proxy);
    for n in 0..5 {
        let proxy = Proxy::start(&yard.config().to_toml());
        let mut client = RawClient::app(proxy.port()).await;
        for sql in ["BEGIN", &format!("INSERT INTO items VALUES ('{n}')"), JOB, "COMMIT"] {
            assert_eq!(error_of(&client.ask(sql).await), None, "{sql}, the {n}th time");
        }
    }
    let _proxy = yard.bulkhead(&yard.config()).await;
    yard.wait_until_empty().await;
    eventually("all have come", super::LONG, async || {
        (rows(&yard).await == ("5".to_owned(), "5".to_owned())).then_some(())
    })
    .await;
}

/// Before both sides are prepared nothing is written on the primary.
#[tokio::test]
async fn without_its_tables_nothing_is_added_on_the_primary() {
    let yard = Yard::bare();
    oban::install(&yard.primary).await;
    oban::install(&yard.jobs).await;
    yard.primary.query("SET ROLE app; CREATE TABLE items (name text PRIMARY KEY)").await;
    let proxy = Proxy::start(&yard.config().to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    for sql in ["BEGIN", ITEM] {
        client.ask(sql).await;
    }
    let [code, message, hint] = error_of(&client.ask(JOB).await).expect("it is refused");
    assert_eq!(code, "0A000", "{message}");
    assert!(hint.contains("bulkhead jobs init"), "{hint}");
    client.ask("ROLLBACK").await;
    assert_eq!(rows(&yard).await, ("0".to_owned(), "0".to_owned()));
    assert_eq!(yard.primary.value(COUNT).await, "0");
}

/// The relations whose names say that they are Oban's, on each side.
async fn defined(yard: &Yard) -> [String; 2] {
    let names = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class WHERE relname LIKE 'oban%' AND relkind = 'r'";
    [yard.primary.value(names).await, yard.jobs.value(names).await]
}

/// A library's migrations go through Bulkhead as ever, and what they make is on both servers.
#[tokio::test]
async fn job_objects_are_defined_on_both_servers() {
    let yard = Yard::bare();
    yard.primary.query("SET ROLE app; CREATE TABLE schema_migrations (version bigint PRIMARY KEY)").await;
    for server in [&yard.primary, &yard.jobs] {
        server.query("GRANT CREATE ON DATABASE app TO app").await;
    }
    let config = yard.config().set("auth", "method", "trust").set("jobs", "schemas", vec!["private"]);
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let type_ = "CREATE TYPE oban_job_state AS ENUM ('available', 'completed')";
    let table = "CREATE TABLE oban_jobs (id bigserial PRIMARY KEY, state oban_job_state NOT NULL DEFAULT 'available')";
    let peers = "CREATE UNLOGGED TABLE oban_peers (name text)";
    // Alone, in its own transaction, in the application's, and in one text.
    for (script, expected) in [
        (vec![(type_, "CREATE TYPE I"), (table, "CREATE TABLE I")], "oban_jobs"),
        (vec![("BEGIN", "BEGIN T"), (peers, "CREATE TABLE T"), ("ROLLBACK", "ROLLBACK I")], "oban_jobs"),
        (
            vec![
                ("BEGIN", "BEGIN T"),
                ("LOCK TABLE schema_migrations IN SHARE UPDATE EXCLUSIVE MODE", "LOCK TABLE T"),
                (peers, "CREATE TABLE T"),
                ("COMMENT ON TABLE oban_jobs IS '14'", "COMMENT T"),
                ("INSERT INTO schema_migrations VALUES (1)", "INSERT 0 1 T"),
                ("COMMIT", "COMMIT I"),
            ],
            "oban_jobs oban_peers",
        ),
        (
            vec![
                ("BEGIN", "BEGIN T"),
                ("DROP TABLE oban_peers", "DROP TABLE T"),
                ("INSERT INTO schema_migrations VALUES (1)", "23505 E"),
                ("COMMIT", "ROLLBACK I"),
            ],
            "oban_jobs oban_peers",
        ),
        (
            vec![("DROP TABLE oban_peers; CREATE TABLE oban_leaders (name text)", "DROP TABLE I")],
            "oban_jobs oban_leaders",
        ),
        (vec![("DROP TABLE oban_leaders; SELECT 1/0", "22012 I")], "oban_jobs oban_leaders"),
        (
            vec![
                ("BEGIN", "BEGIN T"),
                ("INSERT INTO schema_migrations VALUES (2)", "INSERT 0 1 T"),
                (
                    "DO $$ BEGIN IF to_regclass('oban_beats') IS NULL THEN CREATE TABLE oban_beats (n int); END IF; END $$",
                    "DO T",
                ),
                ("COMMIT", "COMMIT I"),
            ],
            "oban_beats oban_jobs oban_leaders",
        ),
        (vec![("DROP TABLE oban_beats, oban_leaders", "DROP TABLE I")], "oban_jobs"),
        // The schema that the library's tables are to live in (Oban's prefix).
        (
            vec![
                ("CREATE SCHEMA IF NOT EXISTS private", "CREATE SCHEMA I"),
                ("CREATE TABLE private.oban_peers (name text)", "CREATE TABLE I"),
                ("DROP TABLE private.oban_peers", "DROP TABLE I"),
                ("CREATE SCHEMA other", "CREATE SCHEMA I"),
            ],
            "oban_jobs",
        ),
    ] {
        for (sql, answer) in &script {
            let told = client.ask(sql).await;
            assert_eq!(short(&told), *answer, "{sql} of {script:?}: {:?}", error_of(&told));
        }
        assert_eq!(defined(&yard).await, [expected; 2], "{script:?}");
    }
    assert_eq!(yard.primary.value("SELECT count(*) FROM schema_migrations").await, "2");
    let schemas = "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname IN ('private', 'other')";
    assert_eq!(
        [yard.primary.value(schemas).await, yard.jobs.value(schemas).await],
        ["other private", "private"]
    );
    let comment = "SELECT obj_description('oban_jobs'::regclass)";
    assert_eq!([yard.primary.value(comment).await, yard.jobs.value(comment).await], ["14", "14"]);
    for server in [&yard.primary, &yard.jobs] {
        server.wait_for_app_backends("state LIKE 'idle in transaction%'", 0).await;
    }

    // Without the primary nothing is defined anywhere.
    yard.to_primary.refuse(true);
    yard.to_primary.cut();
    let told = client.ask(peers).await;
    assert_eq!(error_code(&told).as_deref(), Some("08006"), "{told:?}");
    assert_eq!(defined(&yard).await, ["oban_jobs"; 2]);
}
