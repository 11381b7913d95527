//! `/healthz` and `/readyz` with real servers that go and come, and what the checks cost them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Cluster, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually, http_get, oban};

const SOON: Duration = Duration::from_secs(20);

async fn ready(proxy: &Proxy) -> (u16, Value) {
    let (status, text) = http_get(proxy.http_port(), "/readyz").await.expect("it answers HTTP");
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

async fn wait_for(proxy: &Proxy, status: u16, word: &str) -> Value {
    eventually(&format!("/readyz says {status} {word}"), SOON, async || {
        let (now, json) = ready(proxy).await;
        (now == status && json["status"] == word).then_some(json)
    })
    .await
}

fn server<'a>(json: &'a Value, name: &str) -> &'a Value {
    let servers = json["servers"].as_array().expect("a list");
    servers.iter().find(|server| server["name"] == name).unwrap_or_else(|| panic!("{name} in {json}"))
}

#[tokio::test]
async fn readiness_follows_the_servers() {
    let cluster = Cluster::start();
    oban::install(&cluster.jobs).await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let json = wait_for(&proxy, 200, "ready").await;
    assert_eq!(
        (&server(&json, "primary")["role"], &server(&json, "primary")["in_recovery"]),
        (&"primary".into(), &false.into())
    );
    assert!(server(&json, "primary")["host"].is_string(), "{json}");
    for since in ["host_seconds", "state_seconds"] {
        assert!(server(&json, "primary")[since].as_f64().is_some_and(|seconds| seconds < 20.0), "{json}");
    }
    // The others may be asked a moment later.
    eventually("the replica has been asked", SOON, async || {
        let (_, json) = ready(&proxy).await;
        (server(&json, "replica_1")["in_recovery"] == true && server(&json, "jobs")["in_recovery"] == false)
            .then_some(())
    })
    .await;

    cluster.jobs.kill();
    let json = wait_for(&proxy, 200, "degraded").await;
    assert_eq!(server(&json, "jobs")["state"], "down");
    assert!(
        json["reasons"][0].as_str().is_some_and(|reason| reason.contains("\"jobs\" cannot serve")),
        "{json}"
    );
    assert!(!json.to_string().contains("secret"), "{json}");
    cluster.jobs.boot();
    wait_for(&proxy, 200, "ready").await;

    cluster.primary.kill();
    let json = wait_for(&proxy, 503, "not_ready").await;
    assert_eq!(server(&json, "primary")["state"], "down");
    assert_eq!(
        http_get(proxy.http_port(), "/healthz").await.expect("it answers").0,
        200,
        "the process is well"
    );
    cluster.primary.boot();
    wait_for(&proxy, 200, "ready").await;
    assert_eq!(proxy.metric("bulkhead_server_in_recovery{server=\"replica_1\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_primary_that_takes_no_writes_is_not_ready() {
    let primary = Postgres::start(Role::Primary);
    let replica = Postgres::start(Role::ReplicaOf(&primary));
    let proxy = Proxy::start(&ProxyConfig::primary_only(&replica).to_toml());
    let json = eventually("it has been asked", SOON, async || {
        let (status, json) = ready(&proxy).await;
        (status == 503 && server(&json, "primary")["state"] == "up").then_some(json)
    })
    .await;
    assert!(json["reasons"][0].as_str().is_some_and(|reason| reason.contains("takes no writes")), "{json}");
}

#[tokio::test]
async fn checks_take_no_place_beyond_the_server_s_bound() {
    let primary = Postgres::start(Role::Primary);
    // The catalog's own reading would wait for the place, too.
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1).set(
        "servers.primary",
        "max_connections",
        1,
    );
    let proxy = Proxy::start(&config.set("limits", "catalog_refresh", "1h").to_toml());
    wait_for(&proxy, 200, "ready").await;
    let mut busy = RawClient::app(proxy.port()).await;
    busy.ask("BEGIN").await;
    busy.query_value("SELECT 1").await;
    // The only place is taken: nobody waits for it, nothing is opened beside it, and it is known all the same that the
    // server answers.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let (status, json) = ready(&proxy).await;
        assert_eq!(status, 200, "{json}");
        let count = primary.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await;
        assert_eq!((count.as_str(), &json["pools"][0]["waiting"]), ("1", &0.into()));
        let age = server(&json, "primary")["last_check_seconds"].as_f64().expect("it was asked");
        assert!(age < 5.0, "{json}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    busy.ask("COMMIT").await;
    eventually("it is asked again", SOON, async || {
        let (_, json) = ready(&proxy).await;
        (server(&json, "primary")["last_check_seconds"].as_f64()? < 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_with_a_lower_limit_is_served_and_told_of() {
    let primary = Postgres::start(Role::Primary);
    primary.query("ALTER ROLE app CONNECTION LIMIT 2").await;
    let config = ProxyConfig::primary_only(&primary).set("pools.primary", "wait_timeout", "1s");
    let proxy = Proxy::start(&config.to_toml());
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(RawClient::app(proxy.port()).await);
    }
    for client in &mut clients {
        client.query("SELECT pg_sleep(0.1)").await;
    }
    for client in &mut clients {
        assert_eq!(client.read_error().await, None, "all are served, one after the other");
    }
    let json = wait_for(&proxy, 200, "degraded").await;
    assert!(json["reasons"][0].as_str().is_some_and(|reason| reason.contains("no more than 2")), "{json}");
    // Whoever waits in vain is told which limit it is.
    let [first, second, third, ..] = &mut *clients else { unreachable!("there are six") };
    first.query("SELECT pg_sleep(3)").await;
    second.query("SELECT pg_sleep(3)").await;
    primary.wait_for_app_backends("state = 'active'", 2).await;
    third.query("SELECT 1").await;
    let [code, message, hint] = third.read_error().await.expect("no place");
    assert_eq!(code, "53300", "{message}");
    assert!(hint.contains("CONNECTION LIMIT"), "{message}: {hint}");
    assert_eq!(ready(&proxy).await.0, 200);
}

#[tokio::test]
async fn a_primary_that_hangs_is_not_ready_and_nobody_is_told_to_raise_a_bound() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary)
        .pool("primary", &["primary"], 1)
        .set("pools.primary", "max_waiting", 1)
        .set("pools.primary", "wait_timeout", "12s");
    let proxy = Proxy::start(&config.to_toml());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(RawClient::app(proxy.port()).await);
    }
    wait_for(&proxy, 200, "ready").await;
    let [busy, waits, comes] = &mut *clients else { unreachable!("there are three") };
    busy.ask("BEGIN").await;
    busy.query_value("SELECT 1").await;
    primary.pause();
    busy.query("SELECT 2").await;
    waits.query("SELECT 3").await;
    wait_for(&proxy, 503, "not_ready").await;
    comes.query("SELECT 4").await;
    for client in [comes, waits] {
        let [code, message, hint] = client.read_error().await.expect("the server hangs");
        assert_eq!(code, "08006", "{message}");
        assert!(!hint.contains("Raise"), "{message}: {hint}");
    }
    primary.resume();
    assert_eq!(busy.read_error().await, None);
    wait_for(&proxy, 200, "ready").await;
}

/// Longer than a server may go without an answer before it counts as not well: two seconds and five.
const STATED: Duration = Duration::from_secs(7);
/// What a busy machine may add to that.
const SLACK: Duration = Duration::from_secs(4);

const CHECKS: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bulkhead health check'";
const OURS: &str =
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'";

async fn pids(primary: &Postgres, which: &str) -> Vec<i32> {
    let rows = primary.query(which).await;
    rows.into_iter().filter_map(|row| row.into_iter().next()??.parse().ok()).collect()
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids {
        kill_process(Pid::from_raw(*pid).expect("a process id"), signal).expect("the process is there");
    }
}

/// Two connections, both in transactions, in a full pool.
async fn full_pool(primary: &Postgres) -> (Proxy, Vec<RawClient>) {
    let config = ProxyConfig::primary_only(primary)
        .pool("primary", &["primary"], 2)
        .set("limits", "catalog_refresh", "1h")
        .set("pools.primary", "wait_timeout", "30s");
    let proxy = Proxy::start(&config.to_toml());
    wait_for(&proxy, 200, "ready").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::app(proxy.port()).await;
        client.ask("BEGIN").await;
        client.query_value("SELECT 1").await;
        clients.push(client);
    }
    (proxy, clients)
}

#[tokio::test]
async fn a_check_has_one_connection_of_its_own_for_as_long_as_it_is_configured() {
    let primary = Postgres::start(Role::Primary);
    let (mut proxy, _clients) = full_pool(&primary).await;
    let first = pids(&primary, CHECKS).await;
    assert_eq!((first.len(), pids(&primary, OURS).await.len()), (1, 3));
    // Another snapshot goes on with it, one without a place for it closes it.
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 3);
    proxy.reload(&config.to_toml());
    proxy.wait_for_log("reloaded").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(pids(&primary, CHECKS).await, first);
    proxy.reload(&config.clone().set("servers.primary", "max_connections", 3).to_toml());
    eventually("it is closed", SOON, async || pids(&primary, CHECKS).await.is_empty().then_some(())).await;
    wait_for(&proxy, 200, "ready").await;
    proxy.reload(&config.set("servers.primary", "max_connections", 4).to_toml());
    eventually("there is another one", SOON, async || {
        (pids(&primary, CHECKS).await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_primary_whose_open_connections_hang_is_not_ready_though_it_takes_new_ones() {
    let primary = Postgres::start(Role::Primary);
    let (proxy, mut clients) = full_pool(&primary).await;
    let json = ready(&proxy).await.1;
    let known_for = server(&json, "primary")["state_seconds"].as_f64().expect("it was asked");
    let hung = pids(&primary, OURS).await;
    assert_eq!(hung.len(), 3);
    signal(&hung, Signal::STOP);
    let since = Instant::now();
    for client in &mut clients {
        client.query("SELECT 2").await;
    }
    let json = wait_for(&proxy, 503, "not_ready").await;
    assert!(since.elapsed() < STATED + SLACK, "{:?}", since.elapsed());
    assert_eq!(server(&json, "primary")["state"], "down");
    assert!(
        json["reasons"][0].as_str().is_some_and(|reason| reason.contains("2 connections in use")),
        "{json}"
    );
    assert!(
        server(&json, "primary")["state_seconds"].as_f64().is_some_and(|down_for| down_for < known_for + 1.0)
    );
    // It does take new ones; that is not enough, however often it is looked at.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        primary.value("SELECT 1").await;
        assert_eq!(ready(&proxy).await.0, 503);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    signal(&hung, Signal::CONT);
    for client in &mut clients {
        assert_eq!(client.read_error().await, None);
    }
    wait_for(&proxy, 200, "ready").await;
}

#[tokio::test]
async fn a_primary_that_hangs_is_not_ready_within_the_stated_time_though_nobody_asks_it() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    wait_for(&proxy, 200, "ready").await;
    primary.pause();
    let since = Instant::now();
    wait_for(&proxy, 503, "not_ready").await;
    assert!(since.elapsed() < STATED + SLACK, "{:?}", since.elapsed());
    primary.resume();
    wait_for(&proxy, 200, "ready").await;
    // One connection that hangs, while others answer, is given up for another one, and says nothing of the server.
    let check = pids(&primary, CHECKS).await;
    signal(&check, Signal::STOP);
    let mut client = RawClient::app(proxy.port()).await;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        assert_eq!(client.query_value("SELECT 1").await, "1");
        let (status, json) = ready(&proxy).await;
        assert_eq!(status, 200, "{json}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signal(&check, Signal::CONT);
}

#[tokio::test]
async fn statements_that_run_long_leave_a_server_ready() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    let admin = primary.admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE t").await.expect("it is locked");
    let (proxy, mut clients) = full_pool(&primary).await;
    let [sleeps, waits] = &mut *clients else { unreachable!("there are two") };
    sleeps.query("SELECT pg_sleep(14)").await;
    waits.query("SELECT count(*) FROM t").await;
    let until = Instant::now() + Duration::from_secs(13);
    while Instant::now() < until {
        let (status, json) = ready(&proxy).await;
        assert_eq!((status, &json["status"]), (200, &"ready".into()), "{json}");
        let age = server(&json, "primary")["last_check_seconds"].as_f64().expect("it was asked");
        assert!(age < 2.0 + SLACK.as_secs_f64(), "{json}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    admin.batch_execute("COMMIT").await.expect("it is unlocked");
    for client in &mut clients {
        assert_eq!(client.read_error().await, None);
    }
}

#[tokio::test]
async fn a_server_with_fewer_places_than_configured_gives_them_to_the_pools() {
    let primary = Postgres::start(Role::Primary);
    primary.query("ALTER ROLE app CONNECTION LIMIT 1").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    let json = wait_for(&proxy, 200, "degraded").await;
    assert!(json["reasons"][0].as_str().is_some_and(|reason| reason.contains("no more than 1")), "{json}");
    assert_eq!(pids(&primary, CHECKS).await, Vec::<i32>::new());
}
