//! Timeouts that clients set: the server keeps them, and the client is told what it would be told directly.

use std::time::Duration;

use super::talk::Pair;
use crate::support::eventually;

#[tokio::test]
async fn timeouts_of_statements_and_locks_fail_as_on_the_server() {
    let mut site = Pair::start().await;
    for set in ["SET statement_timeout = '100ms'", "SET LOCAL statement_timeout = '100ms'"] {
        site.same(set, async |talk| {
            for begin in ["", "BEGIN"] {
                talk.ask(begin).await;
                talk.ask(set).await;
                talk.unit("INSERT INTO t VALUES (100)");
                talk.unit(
                    "SELECT pg_sleep(CASE current_setting('statement_timeout') WHEN '0' THEN 0 ELSE 60 END)",
                );
                talk.unit("SELECT 1").sync();
                talk.exchange(1).await;
                talk.ask(
                    "SELECT pg_sleep(CASE current_setting('statement_timeout') WHEN '0' THEN 0 ELSE 60 END)",
                )
                .await;
                talk.ask("ROLLBACK").await;
                talk.ask("SHOW statement_timeout").await;
                talk.ask("SELECT a FROM t WHERE a >= 100").await;
                talk.ask("RESET statement_timeout").await;
            }
        })
        .await;
    }
    site.same("a COPY that takes too long", async |talk| {
        talk.ask("SET statement_timeout = '100ms'").await;
        talk.client.message(b'Q', b"COPY t FROM STDIN\0");
        talk.hear_to(b'G').await;
        talk.wait_until("SELECT FROM pg_sleep(0.3)").await;
        talk.client.message(b'd', b"100\tx\n").message(b'c', b"");
        talk.exchange(1).await;
        talk.ask("SELECT count(*) FROM t").await;
    })
    .await;
    site.same("lock_timeout", async |talk| {
        talk.wait_until("BEGIN; SELECT FROM t WHERE a = 1 FOR UPDATE").await;
        talk.ask("SET lock_timeout = '100ms'").await;
        talk.ask("UPDATE t SET b = 'x' WHERE a = 1").await;
        talk.ask("BEGIN").await;
        talk.run("UPDATE t SET b = 'x' WHERE a = 1").await;
        talk.ask("COMMIT").await;
        talk.wait_until("ROLLBACK; SELECT").await;
        talk.run("UPDATE t SET b = 'x' WHERE a = 1").await;
        talk.ask("RESET lock_timeout; SHOW lock_timeout").await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn an_idle_transaction_is_ended_as_on_the_server() {
    let mut site = Pair::start().await;
    for (what, pinned) in [("plainly", false), ("with a temporary table", true)] {
        site.same(what, async |talk| {
            if pinned {
                talk.alone();
                talk.ask("CREATE TEMP TABLE mine (a int)").await;
            }
            talk.ask("SET idle_in_transaction_session_timeout = '100ms'").await;
            talk.ask("SELECT 'not in a transaction', pg_sleep(0.3)").await;
            talk.ask("BEGIN; INSERT INTO t VALUES (100)").await;
            // Told without having asked, and the connection ends.
            talk.hear_to(b'E').await;
            talk.hear_to(b'E').await;
        })
        .await;
    }
    site.same("between Flush and Sync", async |talk| {
        talk.ask("SET idle_in_transaction_session_timeout = '100ms'").await;
        talk.ask("BEGIN").await;
        talk.unit("INSERT INTO t VALUES (100)").flush_message();
        talk.hear_to(b'C').await;
        talk.wait_until("SELECT FROM pg_sleep(0.3)").await;
        talk.client.sync();
        talk.hear_to(b'Z').await;
        talk.hear_to(b'E').await;
        talk.hear_to(b'E').await;
    })
    .await;
    site.same("at startup", async |talk| {
        talk.again(&[("options", "-c idle_in_transaction_session_timeout=100ms")]).await;
        talk.ask("BEGIN; INSERT INTO t VALUES (100)").await;
        talk.hear_to(b'E').await;
        talk.hear_to(b'E').await;
    })
    .await;
    site.finish().await;
}

/// A session holds no backend while it idles, so the server has nothing to end but the backend; a pinned one does.
#[tokio::test]
async fn an_idle_session_is_ended_whether_it_is_pinned_or_not() {
    let mut site = Pair::start().await;
    let mut client = site.client().await;
    let ended = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust' AND backend_type = 'client backend' \
                 AND pid = (SELECT pid FROM last_pid)";
    site.primary.query("CREATE TABLE last_pid (pid int); ALTER TABLE last_pid OWNER TO app").await;
    client.ask("SET idle_session_timeout = '100ms'; INSERT INTO last_pid SELECT pg_backend_pid()").await;
    let goodbye = client.read_message().await;
    assert_eq!((goodbye.tag, goodbye.field(b'C').as_deref()), (b'E', Some("57P05")), "{goodbye:?}");
    assert_eq!(client.try_read_message().await, None);
    eventually("the server has ended the connection", Duration::from_secs(10), async || {
        (site.primary.value(ended).await == "0").then_some(())
    })
    .await;
    // What it has set is nobody else's.
    let mut other = site.client().await;
    other.ask("TRUNCATE last_pid; INSERT INTO last_pid SELECT pg_backend_pid()").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(other.query_value("SELECT pid = pg_backend_pid() FROM last_pid").await, "t");
    site.same("pinned", async |talk| {
        talk.alone();
        talk.ask("CREATE TEMP TABLE mine (a int)").await;
        talk.ask("SET idle_session_timeout = '100ms'").await;
        talk.hear_to(b'E').await;
        talk.hear_to(b'E').await;
    })
    .await;
    site.finish().await;
}
