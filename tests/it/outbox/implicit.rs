//! Definitions in one text without BEGIN: one transaction on both servers, of which its client sees nothing.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    LONG, Yard,
    starters::{MADE, bare_config},
};
use crate::support::{Message, Proxy, RawClient, error_code, error_of, eventually, short};

const STARTERS: usize = 6;
const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";

async fn start() -> (Yard, Proxy) {
    let (yard, config) = bare_config().await;
    let proxy = Proxy::start(&config.pool("jobs", &["jobs"], 8).to_toml());
    (yard, proxy)
}

async fn made(yard: &Yard) -> [String; 2] {
    [yard.primary.value(MADE).await, yard.jobs.value(MADE).await]
}

async fn expect_rest(yard: &Yard) {
    for server in [&yard.primary, &yard.jobs] {
        server.wait_for_app_backends("state LIKE 'idle in %'", 0).await;
        assert_eq!(server.value(LOCKED).await, "0");
    }
}

/// What a client is told: tags without notices, and the error's code.
fn told(answer: &[Message]) -> (Vec<u8>, String, Option<String>) {
    let tags = answer.iter().map(|message| message.tag).filter(|tag| *tag != b'N').collect();
    (tags, short(answer), error_code(answer))
}

#[tokio::test]
async fn a_text_without_begin_is_answered_as_a_server_does() {
    let (yard, proxy) = start().await;
    let mut answers = Vec::new();
    for port in [proxy.port(), yard.jobs.port()] {
        let mut client = RawClient::app(port).await;
        let mut all = Vec::new();
        for sql in [
            "SELECT pg_advisory_xact_lock(7); CREATE TABLE oban_jobs (n int); CREATE INDEX of_it ON oban_jobs (n); SELECT 1",
            "SELECT 2",
            "CREATE TABLE oban_peers (n int); SELECT 1 / 0; CREATE TABLE oban_leaders (n int)",
            "SELECT to_regclass('oban_peers') IS NULL",
            "CREATE TABLE oban_peers (n int); CREATE TABLE oban_jobs (n int)",
            "SELECT to_regclass('oban_peers') IS NULL",
            "DROP TABLE oban_jobs; SELECT 3;",
            "SELECT to_regclass('oban_jobs') IS NULL",
        ] {
            all.push((sql, told(&client.ask(sql).await)));
        }
        answers.push(all);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(made(&yard).await, ["0", "0"]);
    expect_rest(&yard).await;
}

#[tokio::test]
async fn what_one_server_refuses_is_on_neither() {
    let (yard, proxy) = start().await;
    let text = "CREATE TABLE oban_jobs (n int); CREATE INDEX of_it ON oban_jobs (n)";
    for server in [&yard.primary, &yard.jobs] {
        server.query("CREATE TABLE of_it (n int)").await;
        let mut client = RawClient::app(proxy.port()).await;
        assert_eq!(short(&client.ask(text).await), "42P07 I");
        assert_eq!(made(&yard).await, ["0", "0"]);
        server.query("DROP TABLE of_it").await;
        expect_rest(&yard).await;
    }
    // Behind its answers, at the COMMIT.
    for (server, code) in [(&yard.jobs, "22012"), (&yard.primary, "08006")] {
        server
            .query(
                "CREATE TABLE late (n int); CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM 1 / 0; RETURN NULL; END $$;
                 CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION late();
                 CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
                     $$ BEGIN INSERT INTO public.late VALUES (1); END $$;
                 CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION note()",
            )
            .await;
        let mut client = RawClient::app(proxy.port()).await;
        let answer = client.ask(text).await;
        assert_eq!(short(&answer), format!("{code} I"), "{:?}", error_of(&answer));
        server.query("DROP EVENT TRIGGER note").await;
        // Should the primary alone not follow, that is told.
        assert_eq!(made(&yard).await, ["0".to_owned(), u8::from(code == "08006").to_string()]);
        expect_rest(&yard).await;
    }
}

#[tokio::test]
async fn starters_without_begin_are_kept_apart_on_both_servers() {
    let (yard, proxy) = start().await;
    let port = proxy.port();
    for round in 0..4 {
        let mut starters = JoinSet::new();
        for _ in 0..STARTERS {
            starters.spawn(async move {
                let mut client = RawClient::app(port).await;
                let text = "SELECT pg_advisory_xact_lock(7); CREATE TABLE oban_jobs (n int)";
                let told = short(&client.ask(text).await);
                // Whoever is told that it is there finds it.
                [told, short(&client.ask("COMMENT ON TABLE oban_jobs IS 'x'").await)]
            });
        }
        let mut told = starters.join_all().await;
        told.sort_by_key(|[first, _]| first.starts_with(' '));
        let of = |told: &str| [told.to_owned(), "COMMENT I".to_owned()];
        let expected: Vec<_> = std::iter::repeat_n(of("42P07 I"), STARTERS - 1).chain([of(" I")]).collect();
        assert_eq!(told, expected, "round {round}");
        let mut client = RawClient::app(port).await;
        assert_eq!(short(&client.ask("DROP TABLE oban_jobs").await), "DROP TABLE I");
    }
    expect_rest(&yard).await;
}

#[tokio::test]
async fn a_client_that_cancels_or_goes_leaves_all_or_nothing() {
    let (yard, proxy) = start().await;
    let text = "CREATE TABLE oban_jobs (n int); SELECT pg_advisory_xact_lock(99); CREATE INDEX of_it ON oban_jobs (n)";
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND NOT granted";
    for goes in [false, true] {
        let mut gate = RawClient::app(yard.jobs.port()).await;
        gate.ask("SELECT pg_advisory_lock(99)").await;
        let mut client = RawClient::app(proxy.port()).await;
        client.query(text).await;
        eventually("it waits", LONG, async || (yard.jobs.value(waits).await == "1").then_some(())).await;
        if goes {
            drop(client);
            gate.ask("SELECT pg_advisory_unlock(99)").await;
            eventually("it is done", Duration::from_secs(10), async || {
                (made(&yard).await == ["1", "1"]).then_some(())
            })
            .await;
        } else {
            let (pid, secret) = client.key().clone();
            RawClient::cancel(proxy.port(), pid, &secret).await;
            assert_eq!(short(&client.read_until_ready().await), "57014 I");
            assert_eq!(made(&yard).await, ["0", "0"]);
            assert_eq!(short(&client.ask("SELECT 1").await), "1 I");
        }
        drop(gate);
        expect_rest(&yard).await;
    }
}
