//! How long a session keeps its backend, and which pool it is bound to: session mode, aliases of databases.

use crate::support::{Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, error_of};

const PID: &str = "SELECT pg_backend_pid()";

fn pinned(reason: &str) -> String {
    format!(r#"bulkhead_pool_pinned{{pool="primary",server="primary",reason="{reason}"}}"#)
}

#[tokio::test]
async fn in_session_mode_a_session_keeps_its_backend() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let config = config.set("pools.primary", "mode", "session").set("pools.primary", "wait_timeout", "30s");
    let mut proxy = Proxy::start(&config.to_toml());
    let mut clients = [RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    let mut pids = Vec::new();
    for client in &mut clients {
        pids.push(client.query_value(PID).await);
    }
    assert_ne!(pids[0], pids[1]);
    for (client, pid) in clients.iter_mut().zip(&pids) {
        client.ask("SET work_mem = '9MB'; SET app.mine = 'x'").await;
        client
            .ask("CREATE TEMP TABLE kept (a int); PREPARE p AS SELECT 1; SELECT pg_advisory_lock_shared(3)")
            .await;
        client.ask("DECLARE c CURSOR WITH HOLD FOR SELECT 1").await;
        assert_eq!(client.query_value(PID).await, *pid);
    }
    proxy.wait_for_metric(&pinned("session_mode"), 2.0).await;
    // The third finds no connection, and is told so. (Logging in needs one for a moment, unless it is known already.)
    let mut third = RawClient::app(proxy.port()).await;
    proxy.reload_to(&config.clone().set("pools.primary", "wait_timeout", "300ms")).await;
    let [code, message, _] = error_of(&third.ask("SELECT 1").await).expect("the pool is full");
    assert_eq!(code, "53300", "{message}");
    // Whoever gets a connection may wait for it: one is made, or cleaned, as fast as the machine does it.
    proxy.reload_to(&config).await;

    // The backend of one that leaves is cleaned, not closed.
    let connects = r#"bulkhead_backend_connects_total{pool="primary",server="primary"}"#;
    let before = proxy.metric(connects).await;
    let [mut first, _second] = clients;
    first.terminate().await;
    drop(first);
    proxy.wait_for_metric(&pinned("session_mode"), 1.0).await;
    assert_eq!(third.query_value(PID).await, pids[0], "the same connection");
    assert_eq!(proxy.metric(connects).await, before);
    assert_eq!(third.query_value("SHOW work_mem").await, "4MB");
    assert_eq!(third.query_value("SELECT coalesce(current_setting('app.mine', true), '')").await, "");
    assert_eq!(error_of(&third.ask("SELECT * FROM kept").await).expect("gone")[0], "42P01");
    let left = "SELECT concat((SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors), \
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))";
    assert_eq!(third.query_value(left).await, "000");
}

#[tokio::test]
async fn a_backend_left_in_a_transaction_is_closed() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1);
    let proxy = Proxy::start(&config.set("pools.primary", "mode", "session").to_toml());
    primary.query("CREATE TABLE written (a int); ALTER TABLE written OWNER TO app").await;
    let mut client = RawClient::app(proxy.port()).await;
    let pid = client.query_value(PID).await;
    client.ask("BEGIN").await;
    client.ask("INSERT INTO written VALUES (1)").await;
    drop(client);
    let mut next = RawClient::app(proxy.port()).await;
    assert_ne!(next.query_value(PID).await, pid);
    assert_eq!(next.query_value("SELECT count(*) FROM written").await, "0");
}

#[tokio::test]
async fn a_client_may_ask_for_session_mode() {
    let cluster = Cluster::start();
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let options = [("database", "app"), ("options", "-c bulkhead.pool_mode=session")];
    let mut client = RawClient::try_login(proxy.port(), Login::App, &options).await.expect("logged in");
    let mut others = [RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    // What may write later never begins on a replica.
    assert_eq!(client.query_value("SELECT pg_is_in_recovery() FROM pg_class LIMIT 1").await, "f");
    let pid = client.query_value(PID).await;
    for _ in 0..5 {
        for other in &mut others {
            assert_ne!(other.query_value(PID).await, pid);
        }
        assert_eq!(client.query_value(PID).await, pid);
    }
    proxy.wait_for_metric(&pinned("session_mode"), 1.0).await;
    assert_eq!(client.query_value("SHOW bulkhead.pool_mode").await, "session");
    client.ask("SET bulkhead.pool_mode = 'transaction'").await;
    drop(client);
    proxy.wait_for_metric(&pinned("session_mode"), 0.0).await;

    let wrong = [("database", "app"), ("bulkhead.pool_mode", "statement")];
    let error = RawClient::try_login(proxy.port(), Login::App, &wrong).await.err().expect("refused");
    assert_eq!(error.field(b'C').as_deref(), Some("22023"));
    // And at any time later.
    let mut late = RawClient::app(proxy.port()).await;
    late.ask("SET bulkhead.pool_mode = 'session'").await;
    proxy.wait_for_metric(&pinned("session_mode"), 1.0).await;
}

#[tokio::test]
async fn an_alias_binds_a_connection_to_a_pool() {
    let cluster = Cluster::start();
    let proxy =
        Proxy::start(&ProxyConfig::of(&cluster).set("", "databases", vec!["app", "postgres"]).to_toml());
    let port = "SELECT concat(current_database(), ' ', current_setting('port'))";
    for (pool, server) in
        [("primary", &cluster.primary), ("replicas", &cluster.replica), ("jobs", &cluster.jobs)]
    {
        let mut client = RawClient::login(proxy.port(), Login::App, &format!("app@{pool}")).await;
        let wanted = format!("app {}", server.port());
        // A read, a catalog query, and what only the primary would get.
        assert_eq!(client.query_value(port).await, wanted, "{pool}");
        client.ask("BEGIN").await;
        assert_eq!(client.query_value(port).await, wanted, "{pool}");
        client.ask("COMMIT").await;
    }
    let mut replica = RawClient::login(proxy.port(), Login::App, "app@replicas").await;
    assert_eq!(replica.parameter("in_hot_standby"), Some("on"), "it is told of the server it is bound to");
    assert_eq!(error_of(&replica.ask("CREATE TABLE nowhere ()").await).expect("read only")[0], "25006");
    // A job statement on the primary, as long as its client wants it there.
    let mut bound = RawClient::login(proxy.port(), Login::App, "app@primary").await;
    assert_eq!(
        error_of(&bound.ask("SELECT 1 FROM oban_jobs").await).expect("no such table there")[0],
        "42P01"
    );

    for name in ["other@primary", "app@nowhere"] {
        let error = RawClient::try_login(proxy.port(), Login::App, &[("database", name)])
            .await
            .err()
            .expect("refused");
        assert_eq!(
            (error.field(b'S'), error.field(b'C')),
            (Some("FATAL".into()), Some("3D000".into())),
            "{name}"
        );
        let hint = error.field(b'H').expect("a hint");
        assert!(hint.contains("jobs, primary, replicas"), "{hint}");
    }
}

#[tokio::test]
async fn a_database_may_be_called_like_an_alias() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE DATABASE \"a@b\" OWNER app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    for name in ["a@b", "a@b@primary"] {
        let mut client = RawClient::login(proxy.port(), Login::App, name).await;
        assert_eq!(client.query_value("SELECT current_database()").await, "a@b", "{name}");
    }
}

#[tokio::test]
async fn a_long_unnamed_statement_keeps_its_backend() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.set("limits", "request_buffer", "4KiB").to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let mut others = [RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    let sql = format!("SELECT $1::text || length('{}')", "x".repeat(100_000));
    client.parse("", &sql).describe(b'S', "").sync().flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "1tTZ");
    for round in 0..5 {
        for other in &mut others {
            other.parse("", "SELECT 'other'").bind("", "", &[]).execute("", 0).sync().flush().await;
            assert_eq!(RawClient::tags(&other.read_until_ready().await), "12DCZ");
        }
        client.bind("", "", &[Some(&format!("{round} "))]).execute("", 0).sync().flush().await;
        let replies = client.read_until_ready().await;
        assert_eq!(RawClient::tags(&replies), "2DCZ", "round {round}: {replies:?}");
        assert_eq!(replies[1].columns(), [Some(format!("{round} 100000"))]);
    }
    proxy.wait_for_metric(&pinned("unnamed_statement"), 1.0).await;
    // Another one takes its place, and the backend is free again.
    client.parse("", "SELECT 1").bind("", "", &[]).execute("", 0).sync().flush().await;
    client.read_until_ready().await;
    proxy.wait_for_metric(&pinned("unnamed_statement"), 0.0).await;
}
