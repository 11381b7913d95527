//! A server's URL with several hosts: which one is taken, and what happens when it goes.

use std::time::Duration;

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, connect, eventually, free_port, http_get,
};

fn start(primary: &Postgres, url: String) -> Proxy {
    Proxy::start(&ProxyConfig::primary_only(primary).set("servers.primary", "url", url).to_toml())
}

async fn port_of(proxy: &Proxy) -> String {
    let client = connect(&proxy.url()).await.expect("a client");
    let row = client.query_one("SELECT inet_server_port()::text", &[]).await.expect("an answer");
    row.get(0)
}

#[tokio::test]
async fn the_first_host_that_answers_is_taken_and_cancels_go_there() {
    let cluster = Cluster::start();
    let primary = &cluster.primary;
    let proxy = start(primary, Login::App.url_of_hosts(&[free_port(), primary.port()], ""));
    assert_eq!(port_of(&proxy).await, primary.port().to_string());

    let mut client = RawClient::app(proxy.port()).await;
    let (pid, secret) = client.key().clone();
    client.query("SELECT pg_sleep(30)").await;
    proxy
        .wait_for_metric(
            "bulkhead_pool_connections{pool=\"primary\",server=\"primary\",state=\"active\"}",
            1.0,
        )
        .await;
    RawClient::cancel(proxy.port(), pid, &secret).await;
    let [code, ..] = client.read_error().await.expect("the statement is cancelled");
    assert_eq!(code, "57014");
}

#[tokio::test]
async fn what_is_looked_for_is_found_in_any_order() {
    let cluster = Cluster::start();
    let (primary, replica) = (cluster.primary.port(), cluster.replica.port());
    for (attrs, expected) in [
        ("any", replica),
        ("read-write", primary),
        ("primary", primary),
        ("read-only", replica),
        ("standby", replica),
        ("prefer-standby", replica),
    ] {
        let proxy = start(
            &cluster.primary,
            Login::App.url_of_hosts(&[replica, primary], &format!("?target_session_attrs={attrs}")),
        );
        assert_eq!(port_of(&proxy).await, expected.to_string(), "{attrs}");
    }
    let alone =
        start(&cluster.primary, Login::App.url_of_hosts(&[primary], "?target_session_attrs=prefer-standby"));
    assert_eq!(port_of(&alone).await, primary.to_string());
    let none = ProxyConfig::primary_only(&cluster.primary)
        .set("servers.primary", "url", Login::App.url_of_hosts(&[primary], "?target_session_attrs=standby"))
        .set("pools.primary", "wait_timeout", "300ms");
    let none = Proxy::start(&none.to_toml());
    connect(&none.url()).await.expect_err("there is no standby");
    none.wait_for_log("is not standby").await;
}

#[tokio::test]
async fn a_promoted_replica_takes_over_without_a_restart() {
    let cluster = Cluster::start();
    let both = [cluster.primary.port(), cluster.replica.port()];
    let proxy = start(&cluster.primary, Login::App.url_of_hosts(&both, "?target_session_attrs=read-write"));
    let client = connect(&proxy.url()).await.expect("a client");
    client.batch_execute("CREATE TABLE t (n int)").await.expect("a write");
    cluster.wait_for_replay().await;
    cluster.primary.kill();
    cluster.replica.promote().await;
    eventually("the same client writes again", Duration::from_secs(20), async || {
        client.batch_execute("INSERT INTO t VALUES (1)").await.ok()
    })
    .await;
    let row = client.query_one("SELECT inet_server_port()::text", &[]).await.expect("an answer");
    assert_eq!(row.get::<_, String>(0), cluster.replica.port().to_string());
}

/// A client that writes where it is, again and again, until it was the host at `port`.
async fn write_until_at(client: &mut RawClient, port: u16) {
    eventually("writes go to the other host", Duration::from_secs(20), async || {
        client.query("INSERT INTO t SELECT inet_server_port() RETURNING n").await;
        let answer = client.read_until_ready().await;
        let row = answer.iter().find(|message| message.tag == b'D')?;
        (row.columns()[0].as_deref() == Some(&port.to_string())).then_some(())
    })
    .await;
}

/// A primary and its replica behind a server of two hosts, with a table that both have.
async fn pair() -> (Cluster, Proxy) {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE t (n int); GRANT ALL ON t TO app").await;
    cluster.wait_for_replay().await;
    let both = [cluster.primary.port(), cluster.replica.port()];
    let proxy = start(&cluster.primary, Login::App.url_of_hosts(&both, "?target_session_attrs=read-write"));
    (cluster, proxy)
}

async fn wait_for_status(proxy: &Proxy, word: &str, part: &str) {
    eventually(&format!("/readyz says {word} and {part}"), Duration::from_secs(20), async || {
        let (status, text) = http_get(proxy.http_port(), "/readyz").await.ok()?;
        let text = serde_json::from_str::<serde_json::Value>(&text).expect("JSON").to_string();
        (status == 200 && text.contains(&format!("\"{word}\"")) && text.contains(part)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_old_primary_that_comes_back_gets_no_writes() {
    let (cluster, proxy) = pair().await;
    let mut client = RawClient::app(proxy.port()).await;
    write_until_at(&mut client, cluster.primary.port()).await;
    cluster.wait_for_replay().await;
    cluster.primary.kill();
    cluster.replica.promote().await;
    write_until_at(&mut client, cluster.replica.port()).await;
    cluster.primary.boot();
    let host = |postgres: &Postgres| format!("127.0.0.1:{}", postgres.port());
    wait_for_status(&proxy, "degraded", &format!("{} takes writes as well", host(&cluster.primary))).await;
    wait_for_status(&proxy, "degraded", &format!("\"host\":\"{}\"", host(&cluster.replica))).await;
    proxy.wait_for_log("two hosts of a server take writes").await;
    proxy.wait_for_metric("bulkhead_server_rival_hosts{server=\"primary\"}", 1.0).await;
    proxy.wait_for_metric("bulkhead_server_host_changes_total{server=\"primary\"}", 1.0).await;
    let before = cluster.primary.value("SELECT count(*) FROM t").await;
    // More connections than there have been yet, and new sessions.
    for _ in 0..4 {
        let mut more = RawClient::app(proxy.port()).await;
        client.ask("BEGIN").await;
        client.ask("INSERT INTO t VALUES (1)").await;
        more.ask("INSERT INTO t VALUES (2)").await;
        client.ask("COMMIT").await;
    }
    assert_eq!(cluster.primary.value("SELECT count(*) FROM t").await, before);
    assert_eq!(cluster.replica.value("SELECT count(*) FROM t WHERE n < 10").await, "8");
    cluster.primary.kill();
    wait_for_status(&proxy, "ready", "\"rivals\":[]").await;
}

#[tokio::test]
async fn of_two_primaries_the_later_one_wins_and_open_transactions_fail() {
    let (cluster, proxy) = pair().await;
    let mut open = RawClient::app(proxy.port()).await;
    let mut busy = RawClient::app(proxy.port()).await;
    write_until_at(&mut open, cluster.primary.port()).await;
    open.ask("BEGIN").await;
    open.ask("INSERT INTO t VALUES (1)").await;
    busy.query("INSERT INTO t SELECT 2 FROM pg_sleep(60)").await;
    cluster.primary.wait_for_app_backends("state = 'active'", 1).await;
    cluster.replica.promote().await;
    // Nobody stops the old one: the statement under way ends at once all the same.
    let [code, message, ..] = busy.read_error().await.expect("it is not the server any more");
    assert_eq!(code, "08006", "{message}");
    assert!(message.contains(&cluster.replica.port().to_string()), "{message}");
    open.query("COMMIT").await;
    assert!(open.read_error().await.is_some(), "the transaction is lost, and its client told");
    open.ask("ROLLBACK").await;
    write_until_at(&mut open, cluster.replica.port()).await;
    cluster.primary.wait_for_app_backends("true", 0).await;
    assert_eq!(cluster.primary.value("SELECT count(*) FROM t WHERE n = 1").await, "0");
}

#[tokio::test]
async fn a_primary_that_was_set_read_only_is_left() {
    let (cluster, proxy) = pair().await;
    let mut client = RawClient::app(proxy.port()).await;
    write_until_at(&mut client, cluster.primary.port()).await;
    cluster.primary.query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    cluster.primary.query("SELECT pg_reload_conf()").await;
    cluster.replica.promote().await;
    write_until_at(&mut client, cluster.replica.port()).await;
    wait_for_status(&proxy, "ready", &format!("127.0.0.1:{}", cluster.replica.port())).await;
}

#[tokio::test]
async fn whoever_waits_while_the_url_changes_goes_over() {
    let (before, after) = (Postgres::start(Role::Primary), Postgres::start(Role::Primary));
    let config = ProxyConfig::primary_only(&before).pool("primary", &["primary"], 1).set(
        "pools.primary",
        "wait_timeout",
        "60s",
    );
    let mut proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    let mut waiter = RawClient::app(proxy.port()).await;
    holder.ask("BEGIN").await;
    holder.query_value("SELECT 1").await;
    waiter.query("SELECT inet_server_port()").await;
    proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0).await;
    proxy.reload(&config.set("servers.primary", "url", after.url(Login::App)).to_toml());
    let answer = waiter.read_until_ready().await;
    let row = answer.iter().find(|message| message.tag == b'D').expect("it waits no longer");
    assert_eq!(row.columns()[0].as_deref(), Some(&*after.port().to_string()));
    assert_eq!(holder.query_value("SELECT inet_server_port()").await, before.port().to_string());
}
