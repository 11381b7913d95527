//! Several starters of one library that migrate at the same moment: one does, the others are told what they are told straight
//! at a server, and what each goes on with finds both servers at the same point.

use tokio::task::JoinSet;

use super::{LONG, Yard};
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, error_code, error_of, eventually, short};

const STARTERS: usize = 6;
const ROUNDS: usize = 6;

const LOCK: &str = "SELECT pg_advisory_xact_lock(7)";
const TABLE: &str = "CREATE TABLE pgboss.job (id bigserial PRIMARY KEY)";
const VERSION: &str = "INSERT INTO pgboss.version VALUES (1)";

/// What a starter says, one after the other.
fn migration(style: usize) -> Vec<String> {
    let schema = "CREATE SCHEMA IF NOT EXISTS pgboss";
    let version = "CREATE TABLE pgboss.version (version int NOT NULL)";
    match style {
        // One text, as pg-boss does.
        0 => vec![format!(
            "BEGIN; SET LOCAL lock_timeout = '30s'; {LOCK}; {schema}; {TABLE}; {version}; {VERSION}; COMMIT"
        )],
        // The lock is one of the primary's.
        1 => ["BEGIN", LOCK, schema, TABLE, version, VERSION, "COMMIT"].map(str::to_owned).into(),
        // It is one of the job database's, where the transaction has begun.
        _ => {
            let look = "SELECT to_regclass('pgboss.job')";
            ["BEGIN", look, LOCK, schema, TABLE, version, VERSION, "COMMIT"].map(str::to_owned).into()
        }
    }
}

/// Starts once: what it was told last of its migration, and of what it goes on with.
async fn start(port: u16, number: usize, style: usize) -> [String; 2] {
    let mut client = RawClient::app(port).await;
    client.ask("SELECT to_regclass('pgboss.job')").await;
    let mut told = "done".to_owned();
    for sql in migration(style) {
        if let Some(code) = error_code(&client.ask(&sql).await) {
            told = code;
            break;
        }
    }
    if told != "done" {
        client.ask("ROLLBACK").await;
    }
    let more = client.ask(&format!("ALTER TABLE pgboss.job ADD of_{number} int")).await;
    [told, short(&more)]
}

/// All start at once; what they were told.
async fn start_all(port: u16, style: usize) -> Vec<[String; 2]> {
    let mut starters = JoinSet::new();
    for number in 0..STARTERS {
        starters.spawn(start(port, number, style));
    }
    let mut told = starters.join_all().await;
    told.sort();
    told
}

async fn columns(server: &Postgres) -> String {
    let sql = "SELECT string_agg(attrelid::regclass || '.' || attname, ' ' ORDER BY attrelid::regclass::text, attname) \
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
        WHERE attnum > 0 AND relkind = 'r' AND relnamespace = 'pgboss'::regnamespace";
    server.value(sql).await
}

/// Two servers on which `app` may make anything, and nothing there.
pub(super) async fn bare_config() -> (Yard, ProxyConfig) {
    let yard = Yard::bare();
    for server in [&yard.primary, &yard.jobs] {
        server.query("GRANT CREATE ON DATABASE app TO app").await;
    }
    let config = yard.config().set("auth", "method", "trust").set("jobs", "presets", vec!["pg_boss", "oban"]);
    (yard, config)
}

async fn bare() -> (Yard, Proxy) {
    let (yard, config) = bare_config().await;
    let proxy = Proxy::start(&config.to_toml());
    (yard, proxy)
}

#[tokio::test]
async fn starters_that_migrate_at_once_are_kept_apart_on_both_servers() {
    let (yard, proxy) = bare().await;
    for style in 0..3 {
        for round in 0..ROUNDS {
            let told = start_all(proxy.port(), style).await;
            let of = |told: &str| [told.to_owned(), "ALTER TABLE I".to_owned()];
            let expected: Vec<_> =
                std::iter::repeat_n(of("42P07"), STARTERS - 1).chain([of("done")]).collect();
            assert_eq!(told, expected, "style {style}, round {round}");
            let [primary, jobs] = [columns(&yard.primary).await, columns(&yard.jobs).await];
            assert_eq!(primary, jobs, "style {style}, round {round}");
            assert_eq!(jobs.matches(".of_").count(), STARTERS, "{jobs}");
            assert_eq!(yard.jobs.value("SELECT count(*) FROM pgboss.version").await, "1");
            let mut client = RawClient::app(proxy.port()).await;
            assert_eq!(short(&client.ask("DROP SCHEMA pgboss CASCADE").await), "DROP SCHEMA I");
        }
    }
}

/// What is answered of a text that is run statement by statement is what a server answers.
#[tokio::test]
async fn a_migration_in_one_text_is_answered_as_a_server_does() {
    let (yard, proxy) = bare().await;
    let straight = yard.jobs.port();
    let mut answers = Vec::new();
    for port in [proxy.port(), straight] {
        let mut client = RawClient::app(port).await;
        let mut told = Vec::new();
        for sql in [
            "BEGIN; CREATE SCHEMA pgboss; CREATE TABLE pgboss.job (n int); SELECT 1; COMMIT; ",
            "BEGIN; CREATE TABLE pgboss.version (n int); SELECT 1 / 0; CREATE TABLE pgboss.queue (n int); COMMIT",
            "SELECT 2",
            "ROLLBACK",
            "BEGIN; CREATE TABLE pgboss.version (n int); COMMIT -- done",
            "BEGIN; DROP TABLE pgboss.version; COMMIT",
            "BEGIN; DROP SCHEMA pgboss CASCADE; COMMIT",
        ] {
            let answer = client.ask(sql).await;
            let tags: Vec<u8> = answer.iter().map(|message| message.tag).filter(|tag| *tag != b'N').collect();
            told.push((sql, tags, short(&answer), error_code(&answer)));
        }
        answers.push(told);
    }
    assert_eq!(answers[0], answers[1]);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgboss'";
    assert_eq!([yard.primary.value(schemas).await, yard.jobs.value(schemas).await], ["0", "0"]);
}

/// A lock of the job database's is held until the primary has committed, too, and no longer.
#[tokio::test]
async fn a_lock_on_the_job_database_is_kept_until_both_have_committed() {
    let (yard, proxy) = bare().await;
    yard.primary
        .query(
            "CREATE TABLE schema_migrations (version bigint PRIMARY KEY);
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(99); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON schema_migrations DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION wait();
             GRANT ALL ON schema_migrations TO app",
        )
        .await;
    let mut gate = RawClient::app(yard.primary.port()).await;
    gate.ask("SELECT pg_advisory_lock(99)").await;
    let mut client = RawClient::app(proxy.port()).await;
    for sql in [
        "BEGIN",
        "SELECT to_regclass('oban_jobs')",
        "SELECT pg_advisory_xact_lock(7), pg_advisory_xact_lock(-1, 2), pg_advisory_xact_lock_shared(-3)",
        "CREATE TABLE oban_jobs (n int)",
        "INSERT INTO schema_migrations VALUES (1)",
    ] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    let committing = tokio::spawn(async move { short(&client.ask("COMMIT").await) });
    let table = "SELECT count(*) FROM pg_class WHERE relname = 'oban_jobs'";
    eventually("the job database has committed", LONG, async || {
        (yard.jobs.value(table).await == "1").then_some(())
    })
    .await;
    let free = "SELECT concat(pg_try_advisory_xact_lock(7), pg_try_advisory_xact_lock(-1, 2), \
        pg_try_advisory_xact_lock(-3), pg_try_advisory_xact_lock_shared(-3))";
    assert_eq!(yard.jobs.value(free).await, "ffft");
    assert_eq!(yard.primary.value(table).await, "0");
    gate.ask("SELECT pg_advisory_unlock(99)").await;
    assert_eq!(committing.await.expect("it does not panic"), "COMMIT I");
    assert_eq!(yard.primary.value(table).await, "1");
    eventually("the locks are let go", LONG, async || (yard.jobs.value(free).await == "tttt").then_some(()))
        .await;
}

/// One text waits between two of its statements until the gate is opened.
const GATED: &str = "BEGIN; CREATE TABLE oban_jobs (n int); SELECT pg_advisory_xact_lock(99); \
    CREATE INDEX of_it ON oban_jobs (n); COMMIT";
/// Ends the backend of the transaction under way, and says how many there were.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE usename = 'app' AND (state = 'idle in transaction' OR wait_event = 'advisory')";
pub(super) const MADE: &str = "SELECT count(*) FROM pg_class WHERE relname = 'oban_jobs'";

/// The tags that the last answers end with, and the error's code.
fn told(answer: &[crate::support::Message]) -> (usize, Option<String>) {
    (answer.iter().filter(|message| message.tag == b'Z').count(), error_code(answer))
}

#[tokio::test]
async fn a_text_of_which_a_server_is_lost_between_two_parts_leaves_nothing_on_either() {
    let (yard, proxy) = bare().await;
    for lost in [&yard.primary, &yard.jobs] {
        let mut gate = RawClient::app(yard.jobs.port()).await;
        gate.ask("SELECT pg_advisory_lock(99)").await;
        let mut client = RawClient::app(proxy.port()).await;
        let asking = tokio::spawn(async move {
            let answer = client.ask(GATED).await;
            (told(&answer), client)
        });
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        eventually("it is between two parts", LONG, async || {
            (yard.jobs.value(waits).await == "1").then_some(())
        })
        .await;
        assert_eq!(lost.value(END).await, "1");
        gate.ask("SELECT pg_advisory_unlock(99)").await;
        let ((readies, code), mut client) = asking.await.expect("it does not panic");
        assert_eq!(readies, 1, "{code:?}");
        assert!(code.is_some(), "a text that was not committed must not be told as done");
        client.ask("ROLLBACK").await;
        assert_eq!(short(&client.ask("SELECT 1").await), "1 I");
        assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], ["0", "0"]);
    }
}

#[tokio::test]
async fn a_text_that_the_primary_refuses_a_part_of_is_refused() {
    let (yard, proxy) = bare().await;
    yard.primary.query("CREATE TABLE of_it (n int)").await;
    let mut client = RawClient::app(proxy.port()).await;
    let answer = client
        .ask("BEGIN; CREATE TABLE oban_jobs (n int); CREATE INDEX of_it ON oban_jobs (n); COMMIT")
        .await;
    assert_eq!(told(&answer), (1, Some("42P07".to_owned())));
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], ["0", "0"]);
}

/// Definitions alone are committed on the job database first: where the primary does not follow, the client is told.
#[tokio::test]
async fn a_commit_that_the_primary_does_not_follow_is_an_error() {
    let (yard, proxy) = bare().await;
    let mut client = RawClient::app(proxy.port()).await;
    for sql in ["BEGIN", "CREATE TABLE oban_jobs (n int)"] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    assert_eq!(yard.primary.value(END).await, "1");
    assert_eq!(told(&client.ask("COMMIT").await), (1, Some("08006".to_owned())));
    assert_eq!(short(&client.ask("SELECT 1").await), "1 I");
    assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], ["0", "1"]);
}
