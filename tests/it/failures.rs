//! What breaks, and what must go on: backends and servers killed, clients that vanish, networks that stall, servers
//! missing at the start.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio_postgres::error::SqlState;

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role, Scratch, Stop, connect, eventually,
};

const SOON: Duration = Duration::from_secs(10);

async fn code(client: &mut RawClient) -> String {
    client.read_error().await.map(|[code, ..]| code).unwrap_or_default()
}

/// The process of the backend whose last statement contains `text`.
async fn backend_of(primary: &Postgres, text: &str) -> u32 {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%{text}%' \
             AND application_name <> 'bulkhead health check' LIMIT 1"
    );
    eventually(&format!("a backend has {text}"), SOON, async || primary.value(&sql).await.parse().ok()).await
}

/// All places of a pool are free or idle.
async fn wait_until_calm(proxy: &Proxy, pool: &str) {
    for state in ["active", "connecting", "closing"] {
        let server = if pool == "replicas" { "replica_1" } else { pool };
        let sample =
            format!("bulkhead_pool_connections{{pool=\"{pool}\",server=\"{server}\",state=\"{state}\"}}");
        proxy.wait_for_metric(&sample, 0.0).await;
    }
}

async fn eventually_answers(client: &mut RawClient, sql: &str) -> String {
    let what = format!("{sql} is answered");
    let client = tokio::sync::Mutex::new(client);
    eventually(&what, SOON, async || {
        let mut client = client.lock().await;
        let answer = client.ask(sql).await;
        let row = answer.iter().find(|message| message.tag == b'D')?;
        row.columns().swap_remove(0)
    })
    .await
}

#[tokio::test]
async fn killed_backends_are_replaced() {
    let primary = Postgres::builder(Role::Primary).setting("restart_after_crash", "on").start();
    primary.query("CREATE TABLE slept (a int); GRANT INSERT ON slept TO app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;

    // Idle: nobody notices.
    client.query_value("SELECT 'idle'").await;
    primary.kill_backend(backend_of(&primary, "''idle''").await).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");

    // In a query: its client is told, and goes on.
    client.query("INSERT INTO slept SELECT 1 FROM pg_sleep(30)").await;
    primary.kill_backend(backend_of(&primary, "pg_sleep").await).await;
    let [code_, message, hint] = client.read_error().await.expect("the statement has failed");
    assert!(["08006", "57P02"].contains(&code_.as_str()), "{code_} {message}");
    assert!(message.contains("\"primary\"") || code_ == "57P02", "{message}");
    assert!(code_ == "57P02" || hint.contains("stays usable"), "{hint}");
    assert_eq!(eventually_answers(&mut client, "SELECT 2").await, "2");

    // In a transaction, between statements: the next statement is told, and the transaction has failed.
    client.ask("BEGIN").await;
    client.query_value("SELECT 'open'").await;
    primary.kill_backend(backend_of(&primary, "''open''").await).await;
    client.query("SELECT 3").await;
    let answer = client.read_until_ready().await;
    assert_eq!((answer[0].tag, answer[1].body[0]), (b'E', b'E'), "{answer:?}");
    client.query("SELECT 4").await;
    assert_eq!(code(&mut client).await, "25P02");
    assert_eq!(client.ask("COMMIT").await[0].body, &b"ROLLBACK\0"[..]);
    assert_eq!(client.query_value("SELECT 5").await, "5");
    wait_until_calm(&proxy, "primary").await;
}

async fn terminate(primary: &Postgres, text: &str) {
    let pid = backend_of(primary, text).await;
    assert_eq!(primary.value(&format!("SELECT pg_terminate_backend({pid}, 5000)")).await, "t");
}

#[tokio::test]
async fn a_terminated_backend_is_told_wherever_it_stood() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (id int); ALTER TABLE t OWNER TO app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2).to_toml());
    let mut client = RawClient::app(proxy.port()).await;

    // COPY IN: the error comes at once; what the client still sends of its COPY is dropped.
    client.query("COPY t FROM STDIN").await;
    assert_eq!(client.read_message().await.tag, b'G');
    client.message(b'd', b"1\n").flush().await;
    primary.wait_for_app_backends("query LIKE 'COPY t%' AND state = 'active'", 1).await;
    terminate(&primary, "COPY t").await;
    assert_eq!(code(&mut client).await, "57P01");
    client.message(b'd', b"2\n").message(b'c', b"").flush().await;
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");

    // Half of a message of COPY data has been passed on: the rest of it is awaited before the next request.
    client.query("COPY t FROM STDIN").await;
    assert_eq!(client.read_message().await.tag, b'G');
    client.bytes(&[b'd', 0, 0, 0, 12, b'1', b'\n']).flush().await;
    primary.wait_for_app_backends("query LIKE 'COPY t%' AND state = 'active'", 1).await;
    terminate(&primary, "COPY t").await;
    client = match client.try_read_message().await {
        Some(message) if message.field(b'S').as_deref() == Some("ERROR") => {
            assert_eq!(client.read_message().await.tag, b'Z');
            client.bytes(b"2\n3\n4\n").message(b'c', b"").flush().await;
            client
        }
        // The connection may also end, but not in silence.
        Some(message) => {
            assert_eq!(message.field(b'S').as_deref(), Some("FATAL"), "{message:?}");
            RawClient::app(proxy.port()).await
        }
        None => panic!("the connection ended without a word"),
    };
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");

    // Between Flush and Sync, with all answers: an error belongs to no message there, so the session ends.
    client.parse("", "SELECT 'pipeline'").bind("", "", &[]).execute("", 0).flush_message().flush().await;
    for tag in *b"12DC" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    terminate(&primary, "''pipeline''").await;
    let goodbye = client.read_message().await;
    assert_eq!((goodbye.tag, goodbye.field(b'S').as_deref()), (b'E', Some("FATAL")), "{goodbye:?}");
    assert_eq!(client.try_read_message().await, None);
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(client.query_value("SELECT 3").await, "3");

    // A session whose temporary table is lost must not go on as if it were there.
    client.ask("CREATE TEMP TABLE mine (id int)").await;
    client.query_value("SELECT count(*) FROM mine").await;
    terminate(&primary, "").await;
    let goodbye = client.read_message().await;
    assert_eq!((goodbye.tag, goodbye.field(b'S').as_deref()), (b'E', Some("FATAL")), "{goodbye:?}");
    assert!(matches!(goodbye.field(b'C').as_deref(), Some("57P01" | "08006")), "{goodbye:?}");
    assert_eq!(client.try_read_message().await, None);
    wait_until_calm(&proxy, "primary").await;
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
}

/// A replica that takes connections and says nothing.
#[tokio::test]
async fn reads_leave_a_replica_that_does_not_answer() {
    let cluster = Cluster::start();
    let relay = Relay::start(cluster.replica.port());
    let config = ProxyConfig::of(&cluster)
        .set("servers.replica_1", "url", Login::App.url(relay.port(), "app"))
        .set("pools.replicas", "connect_timeout", "500ms")
        .set("pools.replicas", "check_after", "0s")
        .set("pools.replicas", "close_timeout", "500ms");
    relay.stall(true);
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let read = "/* bulkhead: route=read */ SELECT current_setting('port')";
    for _ in 0..5 {
        let before = Instant::now();
        assert_eq!(client.query_value(read).await, cluster.primary.port().to_string());
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    }
    relay.stall(false);
    let replica = cluster.replica.port().to_string();
    let reads = tokio::sync::Mutex::new(&mut client);
    eventually("reads come back to the replica", Duration::from_secs(20), async || {
        (reads.lock().await.query_value(read).await == replica).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reads_leave_a_killed_replica_and_come_back() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE t AS SELECT 1 AS id; ALTER TABLE t OWNER TO app").await;
    cluster.wait_for_replay().await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let read = "/* bulkhead: route=read */ SELECT current_setting('port')";
    let replica = cluster.replica.port().to_string();
    let on_replica = async |client: &mut RawClient| client.query_value(read).await == replica;
    let reads = tokio::sync::Mutex::new(&mut client);
    eventually("reads go to the replica", SOON, async || {
        on_replica(&mut **reads.lock().await).await.then_some(())
    })
    .await;
    cluster.replica.kill();
    for number in 0..20 {
        let before = Instant::now();
        assert_eq!(
            client.query_value(read).await,
            cluster.primary.port().to_string(),
            "read {number} goes to the primary"
        );
        assert!(before.elapsed() < Duration::from_secs(4), "read {number} took {:?}", before.elapsed());
    }
    cluster.replica.boot();
    let reads = tokio::sync::Mutex::new(&mut client);
    eventually("reads come back to the replica", Duration::from_secs(20), async || {
        on_replica(&mut **reads.lock().await).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_primary_is_named_and_recovered_from() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE t (id int); ALTER TABLE t OWNER TO app").await;
    let config = ProxyConfig::of(&cluster).set("pools.primary", "wait_timeout", "500ms");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("INSERT INTO t VALUES (1)").await;
    cluster.wait_for_replay().await;
    client.ask("BEGIN").await;
    client.ask("INSERT INTO t VALUES (2)").await;
    cluster.primary.kill();

    let mut other = RawClient::app(proxy.port()).await;
    other.query("INSERT INTO t VALUES (3)").await;
    let [code_, message, _] = other.read_error().await.expect("nobody can write");
    assert_eq!(code_, "08006", "{message}");
    assert!(message.contains("primary"), "{message}");
    // By now it is known to be down, and nobody waits for it any more.
    eventually("writes fail at once", SOON, async || {
        let mut other = RawClient::app(proxy.port()).await;
        let before = Instant::now();
        other.query("INSERT INTO t VALUES (4)").await;
        let [code, message, _] = other.read_error().await.expect("nobody can write");
        assert_eq!(code, "08006", "{message}");
        (before.elapsed() < Duration::from_millis(200)
            && message.contains("server \"primary\" cannot be reached"))
        .then_some(())
    })
    .await;
    let ready = crate::support::http_get(proxy.http_port(), "/readyz").await.expect("the proxy answers HTTP");
    assert!(ready.0 == 503 && ready.1.contains("primary"), "{ready:?}");
    client.query("INSERT INTO t VALUES (5)").await;
    let status = client.read_status().await;
    assert_eq!(status, 'E', "the transaction is lost");
    client.ask("ROLLBACK").await;

    cluster.primary.boot();
    eventually("writes work again", Duration::from_secs(20), async || {
        client.query("INSERT INTO t VALUES (6)").await;
        client.read_error().await.is_none().then_some(())
    })
    .await;
    assert_eq!(cluster.primary.value("SELECT count(*) FROM t WHERE id IN (2, 5)").await, "0");
    wait_until_calm(&proxy, "primary").await;
}

#[tokio::test]
async fn what_a_vanished_client_did_is_ended() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (id int); ALTER TABLE t OWNER TO app").await;
    let config = ProxyConfig::primary_only(&primary).set("limits", "orphan_timeout", "1s");
    let proxy = Proxy::start(&config.pool("primary", &["primary"], 4).to_toml());

    let mut client = RawClient::app(proxy.port()).await;
    client.query("SELECT pg_sleep(60)").await;
    primary.wait_for_app_backends("query LIKE '%pg_sleep(60)%' AND state = 'active'", 1).await;
    drop(client);
    primary.wait_for_app_backends("query LIKE '%pg_sleep(60)%'", 0).await;
    assert!(primary.log().contains("canceling statement due to user request"), "it was cancelled");

    let mut client = RawClient::app(proxy.port()).await;
    client.ask("BEGIN").await;
    client.ask("INSERT INTO t VALUES (1)").await;
    drop(client);
    primary.wait_for_app_backends("state LIKE 'idle in transaction%'", 0).await;

    let mut client = RawClient::app(proxy.port()).await;
    client.query("COPY t FROM STDIN").await;
    assert_eq!(client.read_message().await.tag, b'G');
    client.message(b'd', b"2\n").flush().await;
    primary.wait_for_app_backends("query LIKE 'COPY%' AND state = 'active'", 1).await;
    drop(client);
    primary.wait_for_app_backends("query LIKE 'COPY%' AND state = 'active'", 0).await;

    let mut client = RawClient::app(proxy.port()).await;
    client.query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT").await;
    assert_eq!(client.read_message().await.tag, b'H');
    client.read_message().await;
    drop(client);
    primary.wait_for_app_backends("query LIKE 'COPY%' AND state = 'active'", 0).await;

    wait_until_calm(&proxy, "primary").await;
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    assert_eq!(primary.value("SELECT count(*) FROM t").await, "0", "nothing of it was committed");
    assert_eq!(RawClient::app(proxy.port()).await.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_named_and_joins_later() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE t AS SELECT 1 AS id; ALTER TABLE t OWNER TO app").await;
    cluster.jobs.query("CREATE TABLE oban_jobs AS SELECT 7 AS id; ALTER TABLE oban_jobs OWNER TO app").await;
    cluster.wait_for_replay().await;
    cluster.jobs.stop(Stop::Fast);
    cluster.replica.stop(Stop::Fast);
    let config = ProxyConfig::of(&cluster).set("pools.jobs", "wait_timeout", "300ms");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(client.query_value("SELECT id FROM t").await, "1");
    client.query("SELECT id FROM oban_jobs").await;
    let [code_, message, _] = client.read_error().await.expect("the job server is down");
    assert_eq!(code_, "08006");
    assert!(message.contains("jobs"), "{message}");
    proxy.wait_for_log("cannot be reached server=jobs").await;
    eventually("it is ready without them, and says so", SOON, async || {
        let (status, text) =
            crate::support::http_get(proxy.http_port(), "/readyz").await.expect("the proxy answers HTTP");
        (status == 200 && text.contains("\"degraded\"") && text.contains("jobs")).then_some(())
    })
    .await;

    cluster.jobs.boot();
    cluster.replica.boot();
    assert_eq!(eventually_answers(&mut client, "SELECT id FROM oban_jobs").await, "7");
    let client = tokio::sync::Mutex::new(client);
    eventually("the replica is used", Duration::from_secs(20), async || {
        let port = client
            .lock()
            .await
            .query_value("/* bulkhead: route=read */ SELECT current_setting('port')")
            .await;
        (port == cluster.replica.port().to_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_primary_that_is_down_at_the_start_is_waited_for() {
    let primary = Postgres::start(Role::Primary);
    primary.stop(Stop::Fast);
    let config = ProxyConfig::primary_only(&primary).set("pools.primary", "wait_timeout", "300ms");
    let proxy = Proxy::start(&config.to_toml());
    let error = connect(&proxy.url()).await.expect_err("there is no server");
    let error = error.as_db_error().expect("an answer");
    assert_eq!(error.code(), &SqlState::CONNECTION_FAILURE, "{error:?}");
    assert!(error.message().contains("primary"), "{error:?}");
    primary.boot();
    eventually("clients are let in", Duration::from_secs(20), async || connect(&proxy.url()).await.ok())
        .await;
}

#[tokio::test]
async fn a_cut_network_is_told_and_a_stalled_one_is_waited_out() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE slept (a int); GRANT INSERT ON slept TO app").await;
    let relay = Relay::start(primary.port());
    let url = Login::App.url(relay.port(), "app");
    let config = ProxyConfig::primary_only(&primary)
        .pool("primary", &["primary"], 2)
        .set("servers.primary", "url", url)
        .set("pools.primary", "wait_timeout", "400ms")
        .set("pools.primary", "check_after", "0s")
        .set("pools.primary", "connect_timeout", "300ms")
        .set("pools.primary", "close_timeout", "300ms");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.query("INSERT INTO slept SELECT 1 FROM pg_sleep(30)").await;
    primary.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 1).await;
    relay.cut();
    let [code_, message, _] = client.read_error().await.expect("the statement has failed");
    assert_eq!(code_, "08006");
    assert!(message.contains("server \"primary\""), "{message}");
    assert_eq!(client.query_value("SELECT 1").await, "1", "the next statement gets another connection");

    // Stalled: statements under way wait; others are refused when their time is over, and nobody is stuck for good.
    relay.stall(true);
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut other = RawClient::app(proxy.port()).await;
        other.query("SELECT 2").await;
        others.push(other);
    }
    relay.stall(false);
    for other in &mut others {
        let answer = other.read_until_ready().await;
        assert!(matches!(RawClient::tags(&answer).as_str(), "TDCZ" | "EZ"), "{answer:?}");
    }
    assert_eq!(eventually_answers(&mut client, "SELECT 3").await, "3");
    wait_until_calm(&proxy, "primary").await;
}

/// A server that refuses one login is not down for all others.
#[tokio::test]
async fn a_user_whom_the_server_refuses_hurts_nobody_else() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    // The server has other passwords for these: one is sent and refused, of the other no key is known.
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==\
                    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let text = format!("\"app\" \"secret\"\n\"app_two\" \"wrong\"\n\"admin\" \"{verifier}\"\n");
    fs::write(&users, text).expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary)
        .set("auth", "method", "trust")
        .set("auth", "users_file", users.to_str().expect("the path is text"))
        .set("pools.primary", "wait_timeout", "10s");
    let proxy = Proxy::start(&config.to_toml());
    for login in [Login::AppTwo, Login::Admin] {
        let before = Instant::now();
        let error = connect(&proxy.url_of(login)).await.expect_err("the server refuses");
        let error = error.as_db_error().unwrap_or_else(|| panic!("{login:?}: an answer, not {error:?}"));
        assert!(error.code().code().starts_with("28"), "{login:?}: {error:?}");
        assert!(before.elapsed() < Duration::from_secs(5), "{login:?}: told at once");
        assert_eq!(
            proxy.metric("bulkhead_server_up{server=\"primary\"}").await,
            Some(1.0),
            "{login:?} does not make the server look down"
        );
        RawClient::app(proxy.port()).await.query_value("SELECT 1").await;
    }
}

/// A server with no room for another connection still serves through those that Bulkhead has.
#[tokio::test]
async fn a_full_server_serves_through_the_connections_it_has() {
    let primary = Postgres::builder(Role::Primary)
        .max_connections(5)
        .setting("superuser_reserved_connections", 3)
        .setting("max_wal_senders", 0)
        .start();
    let config = ProxyConfig::primary_only(&primary).set("auth", "method", "trust").set(
        "pools.primary",
        "wait_timeout",
        "1s",
    );
    let proxy = Proxy::start(&config.to_toml());
    let until = Instant::now() + Duration::from_secs(4);
    let mut clients = tokio::task::JoinSet::new();
    let port = proxy.port();
    for _ in 0..6 {
        clients.spawn(async move {
            let mut client = RawClient::app(port).await;
            while Instant::now() < until {
                client.query("SELECT pg_sleep(0.02)").await;
                assert_eq!(client.read_error().await, None);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("every statement is answered");
    }
    assert!(primary.log().contains("remaining connection slots are reserved"), "the server was full");
}

#[tokio::test]
async fn logins_fail_with_the_right_code() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let url = proxy.url();
    let cases = [
        (url.replace("secret", "wrong"), "28P01", "password authentication failed for user \"app\""),
        (
            url.replace("//app:", "//stranger:"),
            "28P01",
            "password authentication failed for user \"stranger\"",
        ),
        (Login::App.url(proxy.port(), "nowhere"), "3D000", "database \"nowhere\" does not exist"),
    ];
    for (url, code, message) in cases {
        let error = connect(&url).await.expect_err("the login is refused");
        let error = error.as_db_error().unwrap_or_else(|| panic!("an answer, not {error:?}"));
        assert_eq!((error.code().code(), error.message(), error.severity()), (code, message, "FATAL"));
    }
    connect(&url).await.expect("others are let in");
    wait_until_calm(&proxy, "primary").await;

    let restricted = ProxyConfig::primary_only(&primary).set("", "databases", vec!["app"]);
    let proxy = Proxy::start(&restricted.to_toml());
    let error = connect(&Login::App.url(proxy.port(), "app_two")).await.expect_err("not served");
    assert_eq!(error.code().map(SqlState::code), Some("3D000"), "{error:?}");
}
