//! A server's URL with several hosts: which one is taken, and what happens when it goes.

use std::time::Duration;

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, connect, eventually, free_port,
};

/// The URL of a server with more hosts in front of its own.
fn url(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://app:secret@{}/app{parameters}", hosts.join(","))
}

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
    let proxy = start(primary, url(&[free_port(), primary.port()], ""));
    assert_eq!(port_of(&proxy).await, primary.port().to_string());

    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
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
        let proxy =
            start(&cluster.primary, url(&[replica, primary], &format!("?target_session_attrs={attrs}")));
        assert_eq!(port_of(&proxy).await, expected.to_string(), "{attrs}");
    }
    let alone = start(&cluster.primary, url(&[primary], "?target_session_attrs=prefer-standby"));
    assert_eq!(port_of(&alone).await, primary.to_string());
    let none = ProxyConfig::primary_only(&cluster.primary)
        .set("servers.primary", "url", url(&[primary], "?target_session_attrs=standby"))
        .set("pools.primary", "wait_timeout", "300ms");
    let none = Proxy::start(&none.to_toml());
    connect(&none.url()).await.expect_err("there is no standby");
    none.wait_for_log("is not standby").await;
}

#[tokio::test]
async fn a_promoted_replica_takes_over_without_a_restart() {
    let cluster = Cluster::start();
    let both = [cluster.primary.port(), cluster.replica.port()];
    let proxy = start(&cluster.primary, url(&both, "?target_session_attrs=read-write"));
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
