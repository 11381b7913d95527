//! Migrations of job objects that meet something on their way: a client that goes or cancels, a server that is lost, a
//! reload. Either both servers have all of it, or the client has been told an error; and no lock outlives it.

use std::time::{Duration, Instant};

use super::{
    LONG, Yard,
    starters::{MADE, bare_config},
};
use crate::support::{Message, Postgres, Proxy, RawClient, error_code, error_of, eventually, short};

/// What a client sends that waits for the gate, if that is closed, in the third of its parts.
const GATED: &str = "BEGIN; SELECT pg_advisory_xact_lock(7); CREATE TABLE oban_jobs (n int); \
    SELECT pg_advisory_xact_lock(99); CREATE INDEX of_it ON oban_jobs (n); COMMIT";
const INDEXED: &str = "SELECT count(*) FROM pg_class WHERE relname IN ('oban_jobs', 'of_it')";
const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";
const WAITS: &str =
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND NOT granted";
const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in %'";

/// A job database to which one client has a connection at a time.
async fn start() -> (Yard, Proxy) {
    let (yard, config) = bare_config().await;
    let proxy = Proxy::start(&config.pool("jobs", &["jobs"], 1).to_toml());
    (yard, proxy)
}

/// Whoever holds it keeps out all who pass the gate of a server.
async fn close_gate(server: &Postgres) -> RawClient {
    let mut gate = RawClient::app(server.port()).await;
    gate.ask("SELECT pg_advisory_lock(99)").await;
    gate
}

async fn open(mut gate: RawClient) {
    gate.ask("SELECT pg_advisory_unlock(99)").await;
}

async fn wait_for(server: &Postgres, sql: &str, expected: &str) {
    eventually(&format!("{sql} gives {expected}"), LONG, async || {
        (server.value(sql).await == expected).then_some(())
    })
    .await;
}

/// What each COMMIT of a server does last that has made a table there.
async fn commits_by(server: &Postgres, last: &str) {
    let sql = format!(
        "CREATE TABLE noted (n int);
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO public.noted VALUES (1); END $$;
         {};
         CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION note()",
        late("noted", last)
    );
    server.query(&sql).await;
}

/// A table of the application's, and what each COMMIT does last that has written to it.
async fn changes_by(server: &Postgres, last: &str) {
    let late = late("changed", last);
    server.query(&format!("CREATE TABLE changed (n int); GRANT ALL ON changed TO app; {late}")).await;
}

fn late(table: &str, last: &str) -> String {
    format!(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {last}; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION late()"
    )
}

/// How often it may go on, and the error's code.
fn told(answer: &[Message]) -> (usize, Option<String>) {
    (answer.iter().filter(|message| message.tag == b'Z').count(), error_code(answer))
}

async fn made(yard: &Yard) -> [String; 2] {
    [yard.primary.value(INDEXED).await, yard.jobs.value(INDEXED).await]
}

/// Nothing is left of a migration: the next client gets the one connection, and no lock is there.
async fn expect_rest(yard: &Yard, proxy: &Proxy) {
    let mut next = RawClient::app(proxy.port()).await;
    assert_eq!(error_of(&next.ask("SELECT to_regclass('oban_jobs')").await), None);
    for server in [&yard.primary, &yard.jobs] {
        wait_for(server, LOCKED, "0").await;
        wait_for(server, BUSY, "0").await;
    }
}

#[tokio::test]
async fn a_client_that_goes_between_two_parts_has_sent_all_of_them() {
    for closes in [(|client| drop(client)) as fn(RawClient), RawClient::reset] {
        let (yard, proxy) = start().await;
        let gate = close_gate(&yard.jobs).await;
        let mut client = RawClient::app(proxy.port()).await;
        client.query(GATED).await;
        wait_for(&yard.jobs, WAITS, "1").await;
        closes(client);
        open(gate).await;
        for server in [&yard.primary, &yard.jobs] {
            wait_for(server, INDEXED, "2").await;
        }
        expect_rest(&yard, &proxy).await;
    }
}

#[tokio::test]
async fn a_cancel_ends_the_part_under_way_and_drops_the_rest() {
    let (yard, proxy) = start().await;
    let _gate = close_gate(&yard.jobs).await;
    let mut client = RawClient::app(proxy.port()).await;
    client.query(GATED).await;
    wait_for(&yard.jobs, WAITS, "1").await;
    let (pid, secret) = client.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(told(&client.read_until_ready().await), (1, Some("57014".to_owned())));
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(made(&yard).await, ["0", "0"]);
    expect_rest(&yard, &proxy).await;
}

/// The job database has done its part, and the primary waits.
#[tokio::test]
async fn a_cancel_reaches_a_definition_that_the_primary_is_at() {
    let (yard, proxy) = start().await;
    for server in [&yard.primary, &yard.jobs] {
        server.query("CREATE TABLE oban_jobs (n int); ALTER TABLE oban_jobs OWNER TO app").await;
    }
    let mut holder = RawClient::app(yard.primary.port()).await;
    holder.ask("BEGIN; LOCK TABLE oban_jobs").await;
    let mut client = RawClient::app(proxy.port()).await;
    client.query("BEGIN; SELECT pg_advisory_xact_lock(7); CREATE INDEX of_it ON oban_jobs (n); COMMIT").await;
    // Longer than anything else is waited for.
    let condition = "wait_event_type = 'Lock' AND now() - query_start > '6s'";
    yard.primary.wait_for_app_backends(condition, 1).await;
    let began = Instant::now();
    let (pid, secret) = client.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(told(&client.read_until_ready().await), (1, Some("57014".to_owned())));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(made(&yard).await, ["1", "1"]);
    holder.ask("ROLLBACK").await;
    expect_rest(&yard, &proxy).await;
}

/// Both orders: the COMMIT is the job database's, and the primary's.
const STYLES: [&[&str]; 2] = [
    &[
        "BEGIN",
        "SELECT to_regclass('oban_jobs')",
        "SELECT pg_advisory_xact_lock(7)",
        "CREATE TABLE oban_jobs (n int)",
    ],
    &[
        "BEGIN",
        "SELECT to_regclass('oban_jobs')",
        "SELECT pg_advisory_xact_lock(7)",
        "CREATE TABLE oban_jobs (n int)",
        "INSERT INTO changed VALUES (1)",
    ],
];

/// Between the two COMMITs locks are kept on the job database. The primary's hangs.
async fn commit(yard: &Yard, proxy: &Proxy, style: &[&str], wait_event: &str) -> RawClient {
    let mut client = RawClient::app(proxy.port()).await;
    for sql in style {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    client.query("COMMIT").await;
    yard.primary.wait_for_app_backends(&format!("wait_event = '{wait_event}'"), 1).await;
    assert_eq!([yard.jobs.value(MADE).await, yard.jobs.value(LOCKED).await], ["1", "1"]);
    client
}

#[tokio::test]
async fn a_primary_that_is_lost_behind_the_job_databases_commit_is_told() {
    // As any other, it has committed when it waits for a replica that is not there.
    for (style, wait_event, code, is_made) in [(0, "SyncRep", "08006", "1"), (1, "advisory", "08007", "0")] {
        let (yard, proxy) = start().await;
        changes_by(&yard.primary, "pg_advisory_xact_lock(99)").await;
        let gate = close_gate(&yard.primary).await;
        if wait_event == "SyncRep" {
            yard.primary.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
            yard.primary.query("SELECT pg_reload_conf()").await;
        }
        let mut client = commit(&yard, &proxy, STYLES[style], wait_event).await;
        let condition = format!("wait_event = '{wait_event}'");
        if wait_event == "SyncRep" {
            assert_eq!(yard.primary.end_app_backends(&condition).await, 1);
        } else {
            let sql = format!("SELECT pid FROM pg_stat_activity WHERE {condition}");
            let pid = yard.primary.value(&sql).await.parse().expect("a number");
            yard.primary.kill_backend(pid).await;
        }
        assert_eq!(told(&client.read_until_ready().await), (1, Some(code.to_owned())));
        assert_eq!(yard.jobs.value(LOCKED).await, "0", "the client has been told");
        assert_eq!(short(&client.ask("SELECT 1").await), "1 I");
        assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], [is_made, "1"]);
        drop(gate);
        expect_rest(&yard, &proxy).await;
    }
}

/// The lock is let go of as soon as nobody waits for the primary any more.
#[tokio::test]
async fn a_client_that_goes_behind_the_job_databases_commit_leaves_no_lock() {
    let (yard, proxy) = start().await;
    changes_by(&yard.primary, "pg_advisory_xact_lock(99)").await;
    let gate = close_gate(&yard.primary).await;
    drop(commit(&yard, &proxy, STYLES[1], "advisory").await);
    open(gate).await;
    wait_for(&yard.primary, MADE, "1").await;
    expect_rest(&yard, &proxy).await;
}

#[tokio::test]
async fn a_cancel_behind_the_job_databases_commit_leaves_no_lock() {
    let (yard, proxy) = start().await;
    changes_by(&yard.primary, "pg_advisory_xact_lock(99)").await;
    let _gate = close_gate(&yard.primary).await;
    let mut client = commit(&yard, &proxy, STYLES[1], "advisory").await;
    let (pid, secret) = client.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(told(&client.read_until_ready().await), (1, Some("57014".to_owned())));
    assert_eq!(yard.jobs.value(LOCKED).await, "0", "the client has been told");
    assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], ["0", "1"]);
    expect_rest(&yard, &proxy).await;
}

#[tokio::test]
async fn a_job_database_that_is_lost_in_its_commit_leaves_nothing() {
    for (style, expected) in STYLES.into_iter().zip(["08007 I", "08006 E"]) {
        let (yard, proxy) = start().await;
        changes_by(&yard.primary, "1").await;
        commits_by(&yard.jobs, "pg_terminate_backend(pg_backend_pid())").await;
        let mut client = RawClient::app(proxy.port()).await;
        // A lock of the same name that is the session's own, on the primary.
        client.ask("SELECT pg_advisory_lock(7)").await;
        for sql in style {
            assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
        }
        let answer = client.ask("COMMIT").await;
        assert_eq!(short(&answer), expected, "{:?}", error_of(&answer));
        assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
        assert_eq!(made(&yard).await, ["0", "0"]);
        assert_eq!(yard.primary.value(LOCKED).await, "1", "it is the session's");
        assert_eq!(short(&client.ask("SELECT pg_advisory_unlock(7)").await), "t I");
        expect_rest(&yard, &proxy).await;
    }
}

#[tokio::test]
async fn a_commit_that_the_job_database_refuses_is_refused_by_its_error() {
    for style in STYLES {
        let (yard, proxy) = start().await;
        changes_by(&yard.primary, "1").await;
        commits_by(&yard.jobs, "1 / (SELECT count(*) - 1 FROM pg_class WHERE relname = 'oban_jobs')").await;
        let mut client = RawClient::app(proxy.port()).await;
        for sql in style {
            assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
        }
        assert_eq!(told(&client.ask("COMMIT").await), (1, Some("22012".to_owned())));
        assert_eq!(yard.jobs.value(LOCKED).await, "0", "the client has been told");
        client.ask("ROLLBACK").await;
        assert_eq!(made(&yard).await, ["0", "0"]);
        expect_rest(&yard, &proxy).await;
    }
}

/// So many locks.
fn locks(count: usize) -> String {
    format!("SELECT count(pg_advisory_xact_lock(n)) FROM generate_series(1000, {}) n", 999 + count)
}

#[tokio::test]
async fn all_locks_are_kept_or_none_is_taken_for_kept() {
    let (yard, proxy) = start().await;
    commits_by(&yard.primary, "pg_advisory_xact_lock(99)").await;
    let ours = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid >= 1000 AND objid < 7000";
    let mut client = RawClient::app(proxy.port()).await;
    let look = "SELECT to_regclass('oban_jobs')";
    for sql in ["BEGIN", look, &locks(5_001), "CREATE TABLE oban_jobs (n int)"] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    assert_eq!(told(&client.ask("COMMIT").await), (1, Some("54000".to_owned())));
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(
        [made(&yard).await, [yard.jobs.value(ours).await, String::new()]].concat(),
        ["0", "0", "0", ""]
    );

    let gate = close_gate(&yard.primary).await;
    for sql in ["BEGIN", look, &locks(5_000), "CREATE TABLE oban_jobs (n int)"] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    client.query("COMMIT").await;
    wait_for(&yard.primary, WAITS, "1").await;
    assert_eq!([yard.jobs.value(MADE).await, yard.jobs.value(ours).await], ["1", "5000"]);
    open(gate).await;
    assert_eq!(short(&client.read_until_ready().await), "COMMIT I");
    assert_eq!(yard.jobs.value(ours).await, "0", "the client has been told");
    assert_eq!(yard.primary.value(MADE).await, "1");
    expect_rest(&yard, &proxy).await;
}

#[tokio::test]
async fn a_text_that_is_under_way_ends_by_the_configuration_that_it_began_with() {
    for removes in [false, true] {
        let (yard, config) = bare_config().await;
        let mut proxy = Proxy::start(&config.to_toml());
        let gate = close_gate(&yard.jobs).await;
        let mut client = RawClient::app(proxy.port()).await;
        client.query(GATED).await;
        wait_for(&yard.jobs, WAITS, "1").await;
        let next = if removes {
            config.remove("servers.jobs").remove("pools.jobs").remove("jobs")
        } else {
            config.pool("jobs", &["jobs"], 1).pool("primary", &["primary"], 2)
        };
        proxy.reload_to(&next).await;
        open(gate).await;
        assert_eq!(told(&client.read_until_ready().await), (1, None));
        assert_eq!(made(&yard).await, ["2", "2"]);
        assert_eq!(short(&client.ask("SELECT to_regclass('oban_jobs') IS NULL").await), "f I");
        expect_rest(&yard, &proxy).await;
    }
}

#[tokio::test]
async fn a_text_that_does_not_fit_into_the_buffers_is_not_begun() {
    let (yard, config) = bare_config().await;
    let config =
        config.set("limits", "request_buffer", "128KiB").set("limits", "request_buffer_total", "128KiB");
    let proxy = Proxy::start(&config.to_toml());
    let mut text = "BEGIN; CREATE TABLE oban_jobs (n int)".to_owned();
    while text.len() < 126 * 1024 {
        text += "; SELECT 1";
    }
    let mut client = RawClient::app(proxy.port()).await;
    client.query(&(text + "; COMMIT")).await;
    let last = client.read_message().await;
    assert_eq!((last.tag, last.field(b'C').unwrap_or_default().as_str()), (b'E', "53200"), "{last:?}");
    assert_eq!(client.try_read_message().await, None);
    assert_eq!(made(&yard).await, ["0", "0"]);
    expect_rest(&yard, &proxy).await;
}

/// Behind one the pipeline goes on, and may fail, before the primary could follow.
#[tokio::test]
async fn a_commit_without_its_sync_is_refused() {
    let (yard, proxy) = start().await;
    let mut client = RawClient::app(proxy.port()).await;
    for (end, code, made) in [
        (
            (|client| client.flush_message()) as fn(&mut RawClient) -> &mut RawClient,
            Some("0A000"),
            ["0", "0"],
        ),
        (RawClient::sync, None, ["1", "1"]),
    ] {
        for sql in STYLES[0] {
            assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
        }
        end(client.parse("", "COMMIT").bind("", "", &[]).execute("", 0)).flush().await;
        client.peek().await;
        if code.is_some() {
            client.parse("", "SELECT 1").bind("", "", &[]).execute("", 0).sync().flush().await;
        }
        assert_eq!(told(&client.read_until_ready().await), (1, code.map(str::to_owned)));
        client.ask("ROLLBACK").await;
        assert_eq!([yard.primary.value(MADE).await, yard.jobs.value(MADE).await], made);
    }
    expect_rest(&yard, &proxy).await;
}

/// As many as a library begins with, and more.
const STATEMENTS: usize = 5_000;

#[tokio::test]
async fn a_text_of_thousands_of_statements_is_run_on_both_servers() {
    let (yard, proxy) = start().await;
    let comments: Vec<String> =
        (0..STATEMENTS).map(|number| format!("COMMENT ON COLUMN oban_jobs.n IS '{number}'")).collect();
    let text = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(7); CREATE TABLE oban_jobs (n int); {}; COMMIT",
        comments.join("; ")
    );
    assert!(text.len() > 200_000, "{}", text.len());
    let mut client = RawClient::app(proxy.port()).await;
    let answer = client.ask(&text).await;
    assert_eq!(told(&answer), (1, None));
    let commands = answer.iter().filter(|message| message.tag == b'C').count();
    assert_eq!(commands, STATEMENTS + 4);
    let last = "SELECT col_description('oban_jobs'::regclass, 1)";
    assert_eq!([yard.primary.value(last).await, yard.jobs.value(last).await], ["4999", "4999"]);
    expect_rest(&yard, &proxy).await;
}

const SCHEMAS: &str = "SELECT string_agg(concat(nspname, ' of ', nspowner::regrole), ', ' ORDER BY nspname) \
    FROM pg_namespace WHERE nspname IN ('pgboss', 'boss')";

#[tokio::test]
async fn a_schema_of_jobs_is_renamed_on_both_servers_or_not_at_all() {
    let (yard, config) = bare_config().await;
    for server in [&yard.primary, &yard.jobs] {
        server.query("CREATE ROLE keeper; GRANT keeper TO app; GRANT CREATE ON DATABASE app TO keeper").await;
    }
    let mut proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let both = async || [yard.primary.value(SCHEMAS).await, yard.jobs.value(SCHEMAS).await];
    assert_eq!(error_of(&client.ask("CREATE SCHEMA pgboss").await), None);
    let rename = "ALTER SCHEMA pgboss RENAME TO boss";
    let [code, message, hint] = error_of(&client.ask(rename).await).expect("it is refused");
    assert_eq!(code, "0A000");
    assert!(message.contains("\"pgboss\"") && message.contains("\"boss\""), "{message}");
    assert!(hint.contains("jobs.schemas"), "{hint}");
    assert_eq!(both().await, ["pgboss of app"; 2]);
    proxy.reload_to(&config.set("jobs", "schemas", vec!["boss"])).await;
    for sql in [rename, "ALTER SCHEMA boss OWNER TO keeper"] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    assert_eq!(both().await, ["boss of keeper"; 2]);
    expect_rest(&yard, &proxy).await;
}
