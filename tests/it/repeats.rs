//! Reads that fail for reasons of their server's own are run once more, and nothing else is.

use std::time::Duration;

use crate::support::{
    Cluster, Postgres, Proxy, ProxyConfig, RawClient, Role, Say, error_code, eventually, values,
};

const SOON: Duration = Duration::from_secs(20);

/// A read that takes a second or more, before anything of its answer comes.
const SLOW_READ: &str = "SELECT count(*) FROM generate_series(1, 20000000) n";
const ROWS: &str = "20000000";

fn repeats(reason: &str) -> String {
    format!("bulkhead_repeats_total{{reason=\"{reason}\"}}")
}

async fn wait_until_reads_are_known(proxy: &Proxy, pool: &str) {
    let read = format!("bulkhead_requests_total{{class=\"read\",pool=\"{pool}\",reason=\"read_only\"}}");
    eventually("reads are known as such", SOON, async || {
        let mut client = RawClient::app(proxy.port()).await;
        client.ask("SELECT count(*) FROM generate_series(1, 2) n").await;
        proxy.metric(&read).await.filter(|count| *count > 0.0)
    })
    .await;
}

async fn end_active(primary: &Postgres, text: &str) {
    let which = format!("usename = 'app' AND state = 'active' AND query LIKE '%{text}%'");
    primary.wait_for_app_backends(&which, 1).await;
    primary
        .query(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {which}"))
        .await;
}

#[tokio::test]
async fn a_read_whose_connection_is_ended_is_run_once_more() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE kept (a int); ALTER TABLE kept OWNER TO app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    wait_until_reads_are_known(&proxy, "primary").await;
    let mut client = RawClient::app(proxy.port()).await;
    client.parse("slow", SLOW_READ);
    client.finish().await;
    let ways: [(&str, Say); 3] = [
        ("Query", |client| {
            client.message(b'Q', format!("{SLOW_READ}\0").as_bytes());
        }),
        ("extended", |client| {
            client.parse("", SLOW_READ).bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
        }),
        ("prepared before", |client| {
            client.bind("", "slow", &[]).execute("", 0).sync();
        }),
    ];
    for (number, (what, say)) in (1_u32..).zip(ways) {
        say(&mut client);
        client.flush().await;
        end_active(&primary, "generate_series").await;
        let answer = client.read_until_ready().await;
        assert_eq!(error_code(&answer), None, "{what}: {answer:?}");
        assert_eq!(values(&answer), [ROWS], "{what}");
        assert_eq!(proxy.metric(&repeats("connection_ended")).await, Some(f64::from(number)), "{what}");
    }
    // Once is enough.
    client.query(SLOW_READ).await;
    for _ in 0..2 {
        end_active(&primary, "generate_series").await;
    }
    assert_eq!(error_code(&client.read_until_ready().await).as_deref(), Some("57P01"));
    assert_eq!(proxy.metric(&repeats("connection_ended")).await, Some(4.0));
    // What may have had an effect, is in a transaction, or was answered in part is not repeated.
    client.query("INSERT INTO kept SELECT 1 FROM pg_sleep(60)").await;
    end_active(&primary, "INSERT").await;
    assert_eq!(error_code(&client.read_until_ready().await).as_deref(), Some("57P01"));
    client.ask("BEGIN").await;
    client.query(SLOW_READ).await;
    end_active(&primary, "generate_series").await;
    assert_eq!(error_code(&client.read_until_ready().await).as_deref(), Some("57P01"));
    client.ask("ROLLBACK").await;
    client.query(&format!("SELECT 1; {SLOW_READ}")).await;
    client.query("SELECT repeat('x', 10000) FROM generate_series(1, 10000000)").await;
    assert_eq!(values(&client.read_until_ready().await), ["1", ROWS]);
    while client.read_message().await.tag != b'D' {}
    end_active(&primary, "repeat").await;
    client.expect_no_second_answer().await;
    assert_eq!(proxy.metric(&repeats("connection_ended")).await, Some(4.0));
    assert_eq!(primary.value("SELECT count(*) FROM kept").await, "0");
}

#[tokio::test]
async fn a_read_that_a_replica_cancels_is_run_on_the_primary() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE kept AS SELECT 1 AS a; ALTER TABLE kept OWNER TO app").await;
    cluster.wait_for_replay().await;
    cluster.replica.query("ALTER SYSTEM SET max_standby_streaming_delay = '50ms'").await;
    cluster.replica.query("SELECT pg_reload_conf()").await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    wait_until_reads_are_known(&proxy, "replicas").await;
    let mut client = RawClient::app(proxy.port()).await;
    for extended in [false, true] {
        let sql = "SELECT count(*) FROM kept, generate_series(1, 20000000) n";
        if extended {
            client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync().flush().await;
        } else {
            client.query(sql).await;
        }
        cluster.replica.wait_for_app_backends("state = 'active' AND query LIKE '%kept%'", 1).await;
        cluster.primary.query("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE; COMMIT").await;
        let answer = client.read_until_ready().await;
        assert_eq!(error_code(&answer), None, "{answer:?}");
        assert_eq!(values(&answer), [ROWS]);
    }
    assert_eq!(proxy.metric(&repeats("conflict")).await, Some(2.0));
    assert!(cluster.replica.log().contains("conflict with recovery"), "the replica cancelled them");
}

/// What is kept of requests that run is within `limits.request_buffer_total`; beyond it they run, but not once more.
#[tokio::test]
async fn what_is_kept_to_be_run_once_more_is_bounded() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("limits", "request_buffer_total", "1MiB");
    let proxy = Proxy::start(&config.to_toml());
    wait_until_reads_are_known(&proxy, "primary").await;
    let kept = "bulkhead_unfinished_request_bytes";
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = RawClient::app(proxy.port()).await;
        // Of 250 kB: four of them, in steps of 64 KiB, take all that there is, and one more while it comes in.
        let text = format!(
            "SELECT count(*), {number} AS slow FROM generate_series(1, 200000000) n -- {}",
            "x".repeat(250_000)
        );
        client.query(&text).await;
        let which = format!("state = 'active' AND query LIKE '%, {number} AS slow%'");
        primary.wait_for_app_backends(&which, 1).await;
        clients.push(client);
    }
    // Three are kept; there was no room for the fourth beside itself.
    proxy.wait_for_metric(kept, 3.0 * 4.0 * 65_536.0).await;
    for (number, again) in [(3, false), (0, true)] {
        end_active(&primary, &format!(", {number} AS slow")).await;
        if again {
            proxy.wait_for_metric(&repeats("connection_ended"), 1.0).await;
            let which = format!("state = 'active' AND query LIKE '%, {number} AS slow%'");
            primary.wait_for_app_backends(&which, 1).await;
        } else {
            let code = clients[number].read_error().await.map(|[code, ..]| code);
            assert_eq!(code.as_deref(), Some("57P01"));
            assert_eq!(proxy.metric(&repeats("connection_ended")).await, Some(0.0));
        }
    }
    primary
        .query(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'",
        )
        .await;
    for client in &mut clients[..3] {
        assert_eq!(client.read_error().await.map(|[code, ..]| code).as_deref(), Some("57014"));
    }
    proxy.wait_for_metric(kept, 0.0).await;
}
