//! Cancels in every phase: they stop what runs, and hit nobody afterwards.

use std::time::Duration;

use super::talk::{Pair, Talk};
use crate::support::{RawClient, eventually};

const ROWS: &str = "SELECT repeat('x', 9000) FROM generate_series(1, 2)";

/// A statement behind the rows runs.
const SLEEPS: &str = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

async fn after(talk: &mut Talk<'_>) {
    talk.ask("SELECT a FROM t WHERE a >= 100").await;
    talk.ask("ROLLBACK").await;
    talk.run("SELECT 'next'").await;
}

#[tokio::test]
async fn a_cancel_does_what_it_does_on_the_server() {
    let mut site = Pair::start().await;
    for transaction in ["", "BEGIN", "BEGIN; INSERT INTO t VALUES (100)"] {
        let what = |what: &str| format!("{what}, in {transaction:?}");
        // Idle in front of the first statement, between statements, and after the last one: nothing is hit.
        site.same(&what("idle"), async |talk| {
            talk.cancel().await;
            talk.ask(transaction).await;
            talk.cancel().await;
            talk.ask("SELECT 1").await;
            talk.cancel().await;
            after(talk).await;
        })
        .await;
        site.same(&what("a query that runs"), async |talk| {
            talk.ask(transaction).await;
            // The server sends a row when the next one fills its buffer.
            let sql = format!("INSERT INTO t VALUES (101); {ROWS}; SELECT pg_sleep(60)\0");
            talk.client.message(b'Q', sql.as_bytes());
            talk.hear_to(b'D').await;
            talk.wait_until(SLEEPS).await;
            talk.cancel().await;
            talk.exchange(1).await;
            after(talk).await;
        })
        .await;
        site.same(&what("a pipeline that runs"), async |talk| {
            talk.ask(transaction).await;
            talk.unit("INSERT INTO t VALUES (101)");
            talk.unit(ROWS);
            talk.unit("SELECT pg_sleep(60)");
            talk.unit("INSERT INTO t VALUES (102)").sync();
            talk.unit("SELECT 'after its Sync'").sync();
            talk.hear_to(b'D').await;
            talk.wait_until(SLEEPS).await;
            talk.cancel().await;
            talk.exchange(2).await;
            after(talk).await;
        })
        .await;
        site.same(&what("between Flush and Sync"), async |talk| {
            talk.ask(transaction).await;
            talk.unit("INSERT INTO t VALUES (101)").flush_message();
            talk.hear_to(b'C').await;
            talk.cancel().await;
            talk.unit("SELECT 'in the same request'").sync();
            talk.exchange(1).await;
            after(talk).await;
        })
        .await;
        site.same(&what("with a portal half read"), async |talk| {
            talk.ask(transaction).await;
            talk.client.parse("", "SELECT a FROM t").bind("p", "", &[]).execute("p", 2).flush_message();
            talk.hear_to(b's').await;
            talk.cancel().await;
            talk.client.execute("p", 2).sync();
            talk.exchange(1).await;
            after(talk).await;
        })
        .await;
    }
    site.same("idle and pinned", async |talk| {
        talk.alone();
        talk.ask("CREATE TEMP TABLE mine AS SELECT 1 AS a; SELECT pg_advisory_lock(1)").await;
        talk.cancel().await;
        talk.ask("SELECT a FROM mine").await;
        talk.cancel().await;
        talk.ask("SELECT pg_advisory_unlock(1); DROP TABLE mine").await;
    })
    .await;
    site.finish().await;
}

/// The backend that a session had is another's, which a cancel of the first one must not hit, wherever it stands.
#[tokio::test]
async fn a_cancel_never_hits_the_session_that_has_the_backend_now() {
    let site = Pair::start().await;
    let port = site.proxy.port();
    let (mut first, mut second) = (site.client().await, site.client().await);
    let (pid, secret) = first.key().clone();
    for round in 0..5 {
        first.ask("BEGIN; INSERT INTO t VALUES (100); ROLLBACK").await;
        second.query("SELECT 'long', pg_sleep(0.3)").await;
        RawClient::cancel(port, pid, &secret).await;
        RawClient::cancel(port, pid, &secret).await;
        assert_eq!(second.read_error().await, None, "round {round}: another session's statement");
        second.query("COPY t FROM STDIN").await;
        assert_eq!(second.read_message().await.tag, b'G');
        RawClient::cancel(port, pid, &secret).await;
        second.message(b'd', b"100\tx\n").message(b'c', b"").flush().await;
        assert_eq!(second.read_error().await, None, "round {round}: another session's COPY");
        second.ask("BEGIN; DELETE FROM t WHERE a = 100").await;
        RawClient::cancel(port, pid, &secret).await;
        second.query("COMMIT").await;
        assert_eq!(second.read_error().await, None, "round {round}: another session's transaction");
        // A pipeline in which the first one's backend changes hands between two requests.
        first.query("SELECT pg_sleep(60)").await;
        eventually_running(&site, "pg_sleep(60)").await;
        second.query("SELECT 'waits'").await;
        RawClient::cancel(port, pid, &secret).await;
        assert_eq!(first.read_error().await.expect("it is cancelled")[0], "57014");
        RawClient::cancel(port, pid, &secret).await;
        assert_eq!(second.read_error().await, None, "round {round}: who waited for the backend");
    }
    site.finish().await;
}

async fn eventually_running(site: &Pair, text: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust' AND state = 'active' AND query LIKE '%{text}%'"
    );
    eventually(&format!("{text} runs"), Duration::from_secs(10), async || {
        (site.primary.value(&sql).await == "1").then_some(())
    })
    .await;
}
