//! Definitions of job objects that could be made on one server only, or would part both servers later: they are refused, and
//! nothing is changed on either.

use super::{
    Yard,
    starters::{MADE, bare_config},
};
use crate::support::{Proxy, RawClient, error_code, error_of, short};

const CREATE: &str = "CREATE TABLE oban_jobs (n int)";

async fn start() -> (Yard, Proxy, RawClient) {
    let (yard, config) = bare_config().await;
    let proxy = Proxy::start(&config.to_toml());
    let client = RawClient::app(proxy.port()).await;
    (yard, proxy, client)
}

impl Yard {
    async fn on_both(&self, sql: &str) -> [String; 2] {
        [self.primary.value(sql).await, self.jobs.value(sql).await]
    }
}

const OBJECTS: &str = "SELECT concat(to_regclass('oban_jobs'), ' ', to_regclass('oban_jobs_id_seq'), ' ', \
    to_regtype('oban_job_state'), ' ', to_regproc('oban_jobs_notify'), ' ', to_regclass('old_jobs'))";

#[tokio::test]
async fn an_object_of_jobs_gets_no_name_that_is_none_of_jobs() {
    let (yard, config) = bare_config().await;
    let mut proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    for sql in [
        "CREATE TYPE oban_job_state AS ENUM ('available')",
        "CREATE TABLE oban_jobs (id bigserial PRIMARY KEY, state oban_job_state)",
        "CREATE FUNCTION oban_jobs_notify() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA private",
    ] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    yard.jobs.query("SET ROLE app; CREATE SCHEMA IF NOT EXISTS private").await;
    for (sql, from, to, list) in [
        (
            "ALTER TABLE oban_jobs RENAME TO old_jobs",
            "table \"oban_jobs\"",
            "\"old_jobs\"",
            "jobs.rules.tables",
        ),
        (
            "BEGIN; ALTER TABLE public.oban_jobs SET SCHEMA private; COMMIT",
            "table \"public.oban_jobs\"",
            "\"private.oban_jobs\"",
            "jobs.rules.tables",
        ),
        ("ALTER SEQUENCE oban_jobs_id_seq RENAME TO numbers", "sequence", "\"numbers\"", "jobs.rules.tables"),
        ("ALTER TYPE oban_job_state RENAME TO old_state", "type", "\"old_state\"", "jobs.rules.tables"),
        ("ALTER FUNCTION oban_jobs_notify() RENAME TO told", "function", "\"told\"", "jobs.rules.functions"),
    ] {
        let [code, message, hint] = error_of(&client.ask(sql).await).expect(sql);
        assert_eq!(code, "0A000", "{sql}");
        assert!(message.contains(from) && message.contains(to) && hint.contains(list), "{message} {hint}");
        client.ask("ROLLBACK").await;
    }
    let objects = "oban_jobs oban_jobs_id_seq oban_job_state oban_jobs_notify ";
    assert_eq!(yard.on_both(OBJECTS).await, [objects; 2]);

    proxy.reload_to(&config.set("jobs.rules", "tables", vec!["old_jobs"])).await;
    let rename = "ALTER TABLE oban_jobs RENAME TO old_jobs";
    assert_eq!(error_of(&client.ask(rename).await), None);
    assert_eq!(
        yard.on_both(OBJECTS).await,
        [" oban_jobs_id_seq oban_job_state oban_jobs_notify old_jobs"; 2]
    );
}

#[tokio::test]
async fn a_definition_in_a_pipeline_is_refused() {
    let (yard, _proxy, mut client) = start().await;
    let statement = |client: &mut RawClient, sql: &str| {
        client.parse("", sql).bind("", "", &[]).execute("", 0);
    };
    for others in [["SELECT 1", CREATE], [CREATE, "SELECT 1"], ["BEGIN", CREATE]] {
        for sql in others {
            statement(&mut client, sql);
        }
        client.sync().flush().await;
        let answer = client.read_until_ready().await;
        let [code, message, hint] = error_of(&answer).expect("it is refused");
        assert_eq!((code.as_str(), short(&answer).as_str()), ("0A000", "0A000 I"), "{others:?}");
        assert!(message.contains("several statements") && hint.contains("by itself"), "{message} {hint}");
    }
    // Its Sync comes later, or something comes before it that is under way.
    for others in [&[CREATE][..], &["SELECT 1", CREATE]] {
        for sql in others {
            statement(&mut client, sql);
            client.flush_message();
        }
        client.sync().flush().await;
        let answer = client.read_until_ready().await;
        assert_eq!(error_code(&answer).as_deref(), Some("0A000"), "{others:?}");
        assert_eq!(short(&client.ask("SELECT 1").await), "1 I");
    }
    // What is skipped is not refused once more.
    statement(&mut client, "SELECT 1 / 0");
    client.flush_message().flush().await;
    client.peek().await;
    statement(&mut client, CREATE);
    client.sync().flush().await;
    let answer = client.read_until_ready().await;
    let errors = answer.iter().filter(|message| message.tag == b'E').count();
    assert_eq!((errors, error_code(&answer).as_deref()), (1, Some("22012")));
    assert_eq!(yard.on_both(MADE).await, ["0", "0"]);

    // By itself it is made on both, also where it was prepared before.
    client.parse("made", CREATE).describe(b'S', "made").sync().flush().await;
    assert_eq!(error_of(&client.read_until_ready().await), None);
    assert_eq!(yard.on_both(MADE).await, ["0", "0"]);
    client.bind("", "made", &[]).execute("", 0).sync().flush().await;
    assert_eq!(error_of(&client.read_until_ready().await), None);
    assert_eq!(yard.on_both(MADE).await, ["1", "1"]);
}

#[tokio::test]
async fn a_definition_with_binary_values_is_refused() {
    let (yard, _proxy, mut client) = start().await;
    let schema = "CREATE SCHEMA pgboss; CREATE TABLE pgboss.queue (name text); \
        CREATE FUNCTION pgboss.create_queue(name text) RETURNS void LANGUAGE sql AS 'INSERT INTO pgboss.queue VALUES ($1)'";
    for server in [&yard.primary, &yard.jobs] {
        server.query(&format!("SET ROLE app; {schema}")).await;
    }
    let queues = "SELECT count(*) FROM pgboss.queue";
    for (format, code, count) in [(1, Some("0A000"), "0"), (0, None, "1")] {
        client.parse("", "SELECT pgboss.create_queue($1)");
        client.message(b'B', &[0, 0, 0, 1, 0, format, 0, 1, 0, 0, 0, 1, b'a', 0, 0]);
        client.execute("", 0).sync().flush().await;
        assert_eq!(error_code(&client.read_until_ready().await).as_deref(), code);
        assert_eq!(yard.on_both(queues).await, [count; 2]);
    }
}

/// Jobs are not added on both: they would be relayed.
#[tokio::test]
async fn a_text_that_defines_and_adds_jobs_is_run_in_parts() {
    let (yard, _proxy, mut client) = start().await;
    let add = "INSERT INTO oban_jobs VALUES (1)";
    let texts = [
        format!("{CREATE}; {add}; CREATE INDEX of_it ON oban_jobs (n)"),
        format!("BEGIN; {CREATE}; {add}; CREATE INDEX of_it ON oban_jobs (n); COMMIT"),
    ];
    for text in texts {
        assert_eq!(error_of(&client.ask(&text).await), None, "{text}");
        assert_eq!(yard.on_both("SELECT to_regclass('of_it')").await, ["of_it"; 2]);
        assert_eq!(yard.on_both("SELECT count(*) FROM oban_jobs").await, ["0", "1"]);
        assert_eq!(error_of(&client.ask("DROP TABLE oban_jobs").await), None);
    }
    // By one statement they would be.
    let [code, message, _] =
        error_of(&client.ask(&format!("{CREATE}; SET LOCAL work_mem = '5MB'; {add}")).await)
            .expect("an error");
    assert_eq!(code, "0A000");
    assert!(message.contains("adds jobs"), "{message}");
    assert_eq!(yard.on_both(MADE).await, ["0", "0"]);
}

/// The primary has a table of that name already, which the job database has not: what it says is told to the client.
#[tokio::test]
async fn what_only_the_primary_refuses_is_told() {
    let (yard, _proxy, mut client) = start().await;
    yard.primary.query("SET ROLE app; CREATE TABLE oban_jobs (other int)").await;
    assert_eq!(short(&client.ask("BEGIN").await), "BEGIN T");
    assert_eq!(short(&client.ask(CREATE).await), "CREATE TABLE T");
    assert_eq!(short(&client.ask("COMMIT").await), "42P07 I", "it has not been committed");
    assert_eq!(yard.on_both("SELECT to_regclass('oban_jobs') IS NULL").await, ["f", "t"]);
    assert_eq!(short(&client.ask("BEGIN").await), "BEGIN T");
    assert_eq!(short(&client.ask(CREATE).await), "CREATE TABLE T");
    assert_eq!(short(&client.ask("SELECT 1").await), "42P07 E");
    assert_eq!(short(&client.ask("SELECT 1").await), "25P02 E");
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    let alone = client.ask(CREATE).await;
    assert_eq!(error_code(&alone).as_deref(), Some("42P07"));
    assert_eq!(short(&client.ask("CREATE TABLE mine (n int)").await), "CREATE TABLE I");
}

/// Who asks for a server gets what it asks for, on that one.
#[tokio::test]
async fn a_definition_that_asks_for_the_primary_is_made_there() {
    let (yard, _proxy, mut client) = start().await;
    assert_eq!(short(&client.ask("BEGIN").await), "BEGIN T");
    let hinted = format!("/* bulkhead: route=primary */ {CREATE}");
    assert_eq!(short(&client.ask(&hinted).await), "CREATE TABLE T");
    assert_eq!(short(&client.ask("COMMIT").await), "COMMIT I");
    assert_eq!(yard.on_both("SELECT to_regclass('oban_jobs') IS NULL").await, ["f", "t"]);
}

/// A definition that is refused before it is sent is made nowhere.
#[tokio::test]
async fn a_definition_under_a_name_that_is_taken_is_made_nowhere() {
    let (yard, _proxy, mut client) = start().await;
    client.parse("taken", "SELECT 1").sync().flush().await;
    client.read_until_ready().await;
    client.parse("taken", CREATE).bind("", "taken", &[]).execute("", 0).sync().flush().await;
    assert!(error_code(&client.read_until_ready().await).is_some());
    assert_eq!(yard.on_both("SELECT to_regclass('oban_jobs') IS NULL").await, ["t", "t"]);
}
