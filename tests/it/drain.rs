//! The program's start and end: what keeps it from starting, and what a signal lets clients finish.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use crate::support::{
    Postgres, Proxy, ProxyConfig, RawClient, Role, Signal, eventually, free_port, http_get,
};

const SOON: Duration = Duration::from_secs(10);

fn ended(proxy: &Proxy) -> ExitStatus {
    proxy.wait(SOON)
}

#[test]
fn a_bad_configuration_is_refused_with_all_that_is_wrong() {
    let text = "[listen]\naddress = \"{listen}\"\nhttp = \"{http}\"\nspeed = 9\n\n\
                [servers.primary]\nurl = \"postgres://app:secret@127.0.0.1:1/app\"\n\n\
                [pools.primary]\nservers = [\"elsewhere\"]\nwait_timeout = \"soon\"\n";
    let proxy = Proxy::spawn(text, &[]);
    assert_eq!(ended(&proxy).code(), Some(64));
    let log = proxy.log();
    for expected in ["speed", "wait_timeout", ":4", ":11"] {
        assert!(log.contains(expected), "{expected} is missing: {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    let taken = taken.local_addr().expect("it is bound");
    for (key, section) in [("listen.address", "address"), ("listen.http", "http")] {
        let mut lines = [format!("address = \"127.0.0.1:{}\"", free_port()), "http = \"off\"".to_owned()];
        lines[usize::from(section == "http")] = format!("{section} = \"{taken}\"");
        let text = format!(
            "[listen]\n{}\n[servers.primary]\nurl = \"postgres://app:secret@127.0.0.1:1/app\"\n",
            lines.join("\n")
        );
        let proxy = Proxy::spawn(&text, &[]);
        assert_eq!(ended(&proxy).code(), Some(69), "{}", proxy.log());
        let log = proxy.log();
        assert!(log.contains(&taken.to_string()) && log.contains(key), "{key}: {log}");
    }
}

#[tokio::test]
async fn sigterm_lets_transactions_finish() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (id int); ALTER TABLE t OWNER TO app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let (mut idle, mut busy, mut running) = (
        RawClient::app(proxy.port()).await,
        RawClient::app(proxy.port()).await,
        RawClient::app(proxy.port()).await,
    );
    idle.query_value("SELECT 1").await;
    busy.ask("BEGIN").await;
    busy.ask("INSERT INTO t VALUES (1)").await;
    running.query("SELECT pg_sleep(1)").await;
    primary.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 1).await;
    // One that has not even begun to log in holds nothing up.
    let _half_open = RawClient::open(proxy.port()).await;

    proxy.signal(Signal::TERM);
    let goodbye = idle.read_message().await;
    assert_eq!(
        (goodbye.field(b'C').as_deref(), goodbye.field(b'S').as_deref()),
        (Some("57P01"), Some("FATAL"))
    );
    assert_eq!(idle.try_read_message().await, None);
    assert_eq!(running.read_error().await, None, "the statement finishes");
    assert_eq!(running.read_message().await.field(b'C').as_deref(), Some("57P01"));
    busy.ask("INSERT INTO t VALUES (2)").await;
    assert!(proxy.is_running(), "a transaction is open");
    assert_eq!(busy.ask("COMMIT").await[0].body, &b"COMMIT\0"[..]);
    assert_eq!(busy.read_message().await.field(b'C').as_deref(), Some("57P01"));
    let before = Instant::now();
    assert_eq!(ended(&proxy).code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    assert_eq!(primary.value("SELECT count(*) FROM t").await, "2");
    primary.wait_for_app_backends("true", 0).await;
    assert!(!primary.log().contains("unexpected EOF"), "idle backends were told goodbye:\n{}", primary.log());
}

#[tokio::test]
async fn sigterm_does_not_wait_for_a_server_that_is_down() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("pools.primary", "wait_timeout", "300ms");
    let proxy = Proxy::start(&config.to_toml());
    let _idle = RawClient::app(proxy.port()).await;
    primary.kill();
    let mut client = RawClient::app(proxy.port()).await;
    client.query("SELECT 1").await;
    assert_eq!(client.read_error().await.map(|[code, ..]| code).as_deref(), Some("08006"));
    // By then the attempts to reach it are seconds apart.
    eventually("it has been down for a while", SOON, async || {
        let (_, text) = http_get(proxy.http_port(), "/readyz").await.expect("it answers HTTP");
        let json: serde_json::Value = serde_json::from_str(&text).expect("it answers JSON");
        (json["servers"][0]["unreachable_seconds"].as_f64()? > 5.0).then_some(())
    })
    .await;
    proxy.signal(Signal::TERM);
    let before = Instant::now();
    assert_eq!(ended(&proxy).code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut busy = RawClient::app(proxy.port()).await;
    busy.ask("BEGIN").await;
    busy.query_value("SELECT 1").await;
    proxy.signal(Signal::TERM);
    proxy.wait_for_log("draining").await;
    assert!(proxy.is_running());
    proxy.signal(Signal::TERM);
    let before = Instant::now();
    assert_eq!(ended(&proxy).code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    primary.wait_for_app_backends("true", 0).await;
}

#[tokio::test]
async fn who_waits_in_a_queue_when_the_drain_begins_is_served() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1).to_toml());
    let (mut busy, mut waiting) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    busy.ask("BEGIN").await;
    busy.query_value("SELECT 1").await;
    waiting.query("SELECT 2").await;
    proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0).await;
    // SIGINT drains as SIGTERM does.
    proxy.signal(Signal::INT);
    proxy.wait_for_log("draining").await;
    assert_eq!(http_get(proxy.http_port(), "/readyz").await.expect("it answers").0, 503);
    busy.ask("COMMIT").await;
    assert_eq!(busy.read_message().await.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(waiting.read_error().await, None, "its turn came");
    assert_eq!(waiting.read_message().await.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

#[tokio::test]
async fn transactions_are_cut_when_the_grace_is_over() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("listen", "shutdown_grace", "300ms");
    let proxy = Proxy::start(&config.to_toml());
    let (mut idle, mut busy) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    idle.ask("BEGIN").await;
    idle.query_value("SELECT 1").await;
    busy.query("SELECT pg_sleep(60)").await;
    primary.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 1).await;
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait(SOON).code(), Some(0));
    assert!(proxy.log().contains("clients are cut off"), "{}", proxy.log());
    for client in [&mut idle, &mut busy] {
        let told = client.try_read_message().await.expect("the client is told");
        assert_eq!(told.field(b'C').as_deref(), Some("57P01"), "{told:?}");
        assert_eq!(client.try_read_message().await, None);
    }
    primary.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 0).await;
}
