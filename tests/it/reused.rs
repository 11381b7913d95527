//! What one session has left on a connection is not taken for another's: unnamed statements of another time, and statements
//! that were let go of in vain.

use std::time::Duration;

use crate::support::{RawClient, Site, error_code, eventually, values};

const PID: &str = "SELECT pg_backend_pid()";

/// Waits until the catalog has been read: before, connections are closed rather than reset.
async fn wait_for_catalog(site: &Site) {
    let known = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
    let before = site.proxy.metric(known).await.unwrap_or(0.0);
    eventually("reads are known as such", Duration::from_secs(10), async || {
        site.client().await.ask("SELECT count(*) FROM t").await;
        site.proxy.metric(known).await.filter(|count| *count > before)
    })
    .await;
}

/// Keeps the other one of two connections busy.
async fn occupy_other(site: &Site, free: &str) -> RawClient {
    let mut first = site.client().await;
    first.ask("BEGIN").await;
    if first.query_value(PID).await != free {
        return first;
    }
    let mut second = site.client().await;
    second.ask("BEGIN").await;
    assert_ne!(second.query_value(PID).await, free);
    first.ask("COMMIT").await;
    second
}

/// A session that has parsed a text after a definition does not run what another has parsed before it, of the same text.
#[tokio::test]
async fn an_unnamed_statement_from_before_a_definition_is_parsed_anew() {
    let site = Site::with_objects("CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO app", 2).await;
    let text = "SELECT * FROM t";
    wait_for_catalog(&site).await;
    let mut former = site.client().await;
    let old = former.query_value(PID).await;
    former.parse("", text).sync().flush().await;
    former.read_until_ready().await;
    assert_eq!(former.query_value(PID).await, old, "there is only one connection yet");
    former.parse("", text).sync().flush().await;
    former.read_until_ready().await;
    // Somebody defines on the other connection.
    let mut holder = site.client().await;
    holder.ask("BEGIN").await;
    assert_eq!(holder.query_value(PID).await, old);
    let mut definer = site.client().await;
    assert_eq!(error_code(&definer.ask("ALTER TABLE t ADD COLUMN b int DEFAULT 2").await), None);
    wait_for_catalog(&site).await;
    let mut client = site.client().await;
    client.parse("", text).describe(b'S', "").sync().flush().await;
    assert_eq!(error_code(&client.read_until_ready().await), None);
    holder.ask("COMMIT").await;
    let _busy = occupy_other(&site, &old).await;
    client.bind("", "", &[]).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!(error_code(&answer), None, "{answer:?}");
    assert_eq!(values(&answer), ["1", "2"]);
    assert_eq!(client.query_value(PID).await, old, "it was the connection with the old statement");
}

/// A connection's statements are let go of for a session whose settings the server then refuses: those whose statements they
/// were go on, and so does that session's own error.
#[tokio::test]
async fn statements_that_were_let_go_of_in_vain_are_parsed_anew() {
    let site = Site::with_objects("CREATE ROLE passing; GRANT passing TO app", 1).await;
    let mut refused = site.client().await;
    assert_eq!(error_code(&refused.ask("SET ROLE passing").await), None);
    let mut client = site.client().await;
    client.parse("one", "SELECT 1").parse("two", "SELECT 2").sync().flush().await;
    client.read_until_ready().await;
    site.primary.query("DROP ROLE passing").await;
    for _ in 0..3 {
        for (name, value) in [("one", "1"), ("two", "2")] {
            client.bind("", name, &[]).execute("", 0).sync().flush().await;
            let answer = client.read_until_ready().await;
            assert_eq!((error_code(&answer), values(&answer)), (None, vec![value.to_owned()]), "{name}");
        }
        assert!(error_code(&refused.ask("DO $$ BEGIN END $$").await).is_some(), "its role is gone");
    }
}
