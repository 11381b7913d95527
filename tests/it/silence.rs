//! Packets that are dropped without a word: whoever waits for an answer to them waits for a bounded time, and whoever
//! only waits is left alone.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role, eventually};

/// `tcp_user_timeout` of these tests, and when it must have taken effect.
const LIMIT: &str = "3s";
const SOON: Duration = Duration::from_secs(12);

/// Longer than any of these tests is patient with what must not be cut.
const PATIENT: Duration = Duration::from_secs(7);

fn start(primary: &Postgres, url: String) -> Proxy {
    let config = ProxyConfig::primary_only(primary)
        .set("servers.primary", "url", url)
        .set("limits", "tcp_user_timeout", LIMIT)
        .pool("primary", &["primary"], 2);
    Proxy::start(&config.to_toml())
}

async fn wait_until_reads_are_known(proxy: &Proxy, client: &mut RawClient) {
    let proven = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
    eventually("reads are known as such", SOON, async || {
        client.ask("SELECT lower('A')").await;
        (proxy.metric(proven).await.unwrap_or(0.0) > 0.0).then_some(())
    })
    .await;
}

async fn wait_for_active(proxy: &Proxy, count: f64) {
    let sample = r#"bulkhead_pool_connections{pool="primary",server="primary",state="active"}"#;
    eventually(&format!("{count} active"), SOON, async || {
        let now = proxy.metric(sample).await?;
        ((now - count).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_statement_sent_into_nothing_is_answered() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE written (a int); GRANT INSERT ON written TO app").await;
    let relay = Relay::start(primary.port());
    let proxy = start(&primary, Login::App.url_of_hosts(&[relay.port()], ""));
    let mut client = RawClient::app(proxy.port()).await;
    // Once the catalog is known nothing is asked after a statement, so it is the statement that is sent into nothing.
    wait_until_reads_are_known(&proxy, &mut client).await;
    relay.vanish(true);
    let before = Instant::now();
    client.query("INSERT INTO written VALUES (1)").await;
    let [code, message, ..] = client.read_error().await.expect("an error");
    assert_eq!(code, "08006", "{message}");
    // Whoever notices first, the watch or the system, which has the same timeout.
    let tells = ["acknowledged nothing for 3 s", "timed out"].iter().any(|what| message.contains(what));
    assert!(tells, "{message}");
    let waited = before.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < SOON, "{waited:?}");
    relay.vanish(false);
    eventually("the server is used again", SOON, async || {
        client.query("SELECT 3").await;
        client.read_error().await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_amid_a_result_gives_its_backend_back() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary, primary.url(Login::App));
    let relay = Relay::start(proxy.port());
    let mut client = RawClient::app(relay.port()).await;
    client.query("SELECT repeat('x', 1000) FROM generate_series(1, 200000)").await;
    client.read_message().await;
    wait_for_active(&proxy, 1.0).await;
    relay.vanish(true);
    wait_for_active(&proxy, 0.0).await;
    proxy.wait_for_log("a client is disconnected").await;
}

#[tokio::test]
async fn a_copy_that_waits_for_a_lock_is_not_cut() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (n int, s text); ALTER TABLE t OWNER TO app").await;
    primary.query("CREATE UNIQUE INDEX ON t (n)").await;
    let proxy = start(&primary, primary.url(Login::App));
    let (mut holder, mut copier) = (RawClient::app(primary.port()).await, RawClient::app(proxy.port()).await);
    holder.ask("BEGIN").await;
    holder.ask("INSERT INTO t VALUES (1, 'held')").await;
    copier.query("COPY t FROM STDIN").await;
    assert_eq!(copier.read_message().await.tag, b'G');
    // The first row waits for the other transaction; the rest fills every buffer on the way.
    let mut rows = "1\tx\n".to_owned();
    for n in 2..20_000 {
        writeln!(rows, "{n}\t{}", "x".repeat(1000)).expect("text takes text");
    }
    for chunk in rows.as_bytes().chunks(64 * 1024) {
        copier.message(b'd', chunk);
    }
    copier.message(b'c', &[]);
    let copy = tokio::spawn(async move {
        copier.flush().await;
        copier.read_until_ready().await
    });
    tokio::time::sleep(PATIENT).await;
    assert!(!copy.is_finished());
    holder.ask("ROLLBACK").await;
    let answer = copy.await.expect("no panic");
    assert_eq!(RawClient::tags(&answer), "CZ", "{:?}", answer.first());
    assert_eq!(primary.value("SELECT count(*) FROM t").await, "19999");
}

#[tokio::test]
async fn a_client_that_pauses_is_not_cut() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary, primary.url(Login::App));
    let mut client = RawClient::app(proxy.port()).await;
    client.query("SELECT repeat('x', 1000) FROM generate_series(1, 30000)").await;
    client.read_message().await;
    tokio::time::sleep(PATIENT).await;
    let rest = client.read_until_ready().await;
    assert_eq!(rest.iter().filter(|message| message.tag == b'D').count(), 30_000);
}

#[tokio::test]
async fn a_host_that_vanished_costs_only_the_first_connection() {
    let primary = Postgres::start(Role::Primary);
    let relay = Relay::start(primary.port());
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.primary", "url", Login::App.url_of_hosts(&[relay.port(), primary.port()], ""))
        .set("limits", "tcp_user_timeout", LIMIT)
        .set("pools.primary", "connect_timeout", "15s")
        .set("pools.primary", "wait_timeout", "15s")
        .pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.to_toml());
    let mut clients = vec![RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    clients[0].ask("SELECT 1").await;
    relay.vanish(true);
    // Its connection is found out, and the other host is looked for within what waiters wait: a read is run there. What is
    // asked in the very moment may still be answered by the one that vanishes.
    let before = Instant::now();
    loop {
        let asked = Instant::now();
        assert_eq!(clients[0].query_value("SELECT 2").await, "2");
        if asked.elapsed() > Duration::from_secs(1) {
            break;
        }
        assert!(before.elapsed() < Duration::from_secs(5), "it does not vanish");
    }
    assert_eq!(clients[0].query_value("SELECT inet_server_port()").await, primary.port().to_string());
    assert!(before.elapsed() < Duration::from_secs(17), "{:?}", before.elapsed());
    // From now on there is nothing to look for, and who has begun before goes over.
    let before = Instant::now();
    for client in &mut clients {
        client.ask("BEGIN").await;
        assert_eq!(client.query_value("SELECT 1").await, "1");
    }
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
}

/// A session that notifies waits for the connection that listens, which is given up as any other: not only when a server
/// that is well would have answered.
#[tokio::test]
async fn a_notify_waits_no_longer_for_who_listens_than_for_its_own_connection() {
    const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
    let primary = Postgres::start(Role::Primary);
    let relay = Relay::start(primary.port());
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.primary", "url", Login::App.url_of_hosts(&[relay.port()], ""))
        .set("limits", "tcp_user_timeout", "1s")
        .pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    // Nor before a NOTIFY.
    wait_until_reads_are_known(&proxy, &mut client).await;
    client.ask("LISTEN c").await;
    let answer = client.ask("NOTIFY c").await;
    assert!(answer.iter().any(|message| message.tag == b'A'), "{answer:?}");
    relay.vanish(true);
    let before = Instant::now();
    client.query("NOTIFY c").await;
    let told = client.try_read_message().await.expect("it is told");
    // Whichever of the two connections is given up first.
    let code = told.field(b'C').unwrap_or_default();
    assert!(["57P01", "08006"].contains(&code.as_str()), "{told:?}");
    let waited = before.elapsed();
    assert!(waited < ANSWER_TIMEOUT, "{waited:?}");
    proxy.wait_for_log("the connection that listens for clients was lost").await;
}
