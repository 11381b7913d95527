//! What commands change: pools that pause under load, sessions that end, the configuration, the program itself.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{Site, done, refused, table};
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, connect, error_of, eventually};

const SOON: Duration = Duration::from_secs(10);

/// Inserts until it is over, each row in a transaction of two statements; counts what was acknowledged.
async fn inserts(url: &str, over: &AtomicBool, acknowledged: &AtomicU64) {
    let mut client = connect(url).await.expect("clients are let in");
    while !over.load(Ordering::Relaxed) {
        let transaction = client.transaction().await.expect("a transaction begins");
        transaction.batch_execute("INSERT INTO load VALUES (1)").await.expect("a row");
        transaction.query_one("SELECT count(*) FROM load", &[]).await.expect("a count");
        transaction.commit().await.expect("it is committed");
        acknowledged.fetch_add(1, Ordering::Relaxed);
        client.simple_query("SELECT 1").await.expect("a read");
    }
}

/// Connections of clients' that the server has, the health check's left out.
const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app' \
     AND application_name <> 'bulkhead health check'";

#[tokio::test]
async fn a_server_is_restarted_in_a_pause_and_no_client_notices() {
    let site = Site::start();
    site.cluster.primary.query("CREATE TABLE load (a int); ALTER TABLE load OWNER TO app").await;
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        let (url, over, acknowledged) = (site.proxy.url(), Arc::clone(&over), Arc::clone(&acknowledged));
        load.spawn(async move { inserts(&url, &over, &acknowledged).await });
    }
    let mut console = site.console().await;
    let at_least = |count: u64| {
        let acknowledged = Arc::clone(&acknowledged);
        async move {
            eventually("the load goes on", SOON, async || {
                (acknowledged.load(Ordering::Relaxed) >= count).then_some(())
            })
            .await;
        }
    };
    at_least(50).await;
    for _ in 0..2 {
        assert_eq!(done(&mut console, "PAUSE").await, "PAUSE");
        assert_eq!(site.cluster.primary.value(OURS).await, "0", "every connection is closed");
        let at = acknowledged.load(Ordering::Relaxed);
        site.cluster.primary.restart();
        assert_eq!(acknowledged.load(Ordering::Relaxed), at, "nothing runs in a pause");
        let databases = table(&mut console, "SHOW DATABASES").await;
        assert_eq!(databases.value(&[("name", "primary")], "paused"), "1");
        assert_eq!(table(&mut console, "SHOW STATE").await.value(&[("key", "paused")], "value"), "yes");
        let is_waiting = |row: &&Vec<Option<String>>| row[4].as_deref() == Some("waiting");
        eventually("every client waits", SOON, async || {
            let clients = table(&mut console, "SHOW CLIENTS").await;
            (clients.rows.iter().filter(is_waiting).count() == 8).then_some(())
        })
        .await;
        assert_eq!(refused(&mut console, "PAUSE").await[0], "55000");
        assert_eq!(done(&mut console, "RESUME").await, "RESUME");
        at_least(at + 50).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(client) = load.join_next().await {
        client.expect("no client met an error");
    }
    let rows = site.cluster.primary.value("SELECT count(*) FROM load").await;
    assert_eq!(rows, acknowledged.load(Ordering::Relaxed).to_string(), "no row is lost or doubled");
}

#[tokio::test]
async fn a_pause_waits_for_transactions_and_can_be_given_up() {
    let site = Site::start_with(|config| config.set("console", "pause_timeout", "300ms"));
    let (mut console, mut holder, mut other) =
        (site.console().await, site.client().await, site.client().await);
    holder.ask("BEGIN").await;
    holder.ask("CREATE TABLE held (a int)").await;
    console.query("PAUSE primary").await;
    eventually("the pool is paused", SOON, async || {
        let databases = table(&mut site.console().await, "SHOW DATABASES").await;
        (databases.value(&[("name", "primary")], "paused") == "1").then_some(())
    })
    .await;
    // Who asks meanwhile waits for as long as a pause may last, and keeps its connection.
    let [code, message, hint] = error_of(&other.ask("CREATE TABLE later (a int)").await).expect("a refusal");
    assert_eq!(code, "57P03", "{message}");
    assert!(hint.contains("console.pause_timeout"), "{hint}");
    // Whoever is in a transaction goes on.
    assert_eq!(error_of(&holder.ask("INSERT INTO held VALUES (1)").await), None);
    let (id, secret) = console.key().clone();
    RawClient::cancel(site.proxy.port(), id, &secret).await;
    let answer = console.read_until_ready().await;
    assert_eq!(error_of(&answer).expect("it is cancelled")[0], "57014");
    assert_eq!(error_of(&other.ask("CREATE TABLE later (a int)").await), None, "the pool goes on");

    // The same when its client goes.
    console.query("PAUSE primary").await;
    let mut second = site.console().await;
    let paused = [("name", "primary")];
    eventually("the pool is paused", SOON, async || {
        (table(&mut second, "SHOW DATABASES").await.value(&paused, "paused") == "1").then_some(())
    })
    .await;
    drop(console);
    eventually("the pool goes on", SOON, async || {
        (table(&mut second, "SHOW DATABASES").await.value(&paused, "paused") == "0").then_some(())
    })
    .await;
    // And a pause that is waited for comes about with the end of the transaction.
    second.query("PAUSE primary").await;
    assert_eq!(error_of(&holder.ask("COMMIT").await), None);
    assert_eq!(error_of(&second.read_until_ready().await), None);
    done(&mut second, "RESUME primary").await;
    assert_eq!(holder.query_value("SELECT count(*) FROM held").await, "1");
}

#[tokio::test]
async fn a_primary_is_replaced_in_a_pause() {
    let (one, two) = (Postgres::start(Role::Primary), Postgres::start(Role::Primary));
    for server in [&one, &two] {
        server.query("CREATE TABLE rows (a int); ALTER TABLE rows OWNER TO app").await;
    }
    let config =
        |server: &Postgres| ProxyConfig::primary_only(server).set("console", "admin_users", vec!["app"]);
    let mut proxy = Proxy::start(&config(&one).to_toml());
    let mut console = RawClient::login(proxy.port(), crate::support::Login::App, "bulkhead").await;
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("INSERT INTO rows VALUES (1)").await;
    done(&mut console, "PAUSE").await;
    client.query("INSERT INTO rows VALUES (2)").await;
    proxy.reload_to(&config(&two)).await;
    let databases = table(&mut console, "SHOW DATABASES").await;
    assert_eq!(databases.value(&[("name", "primary")], "paused"), "1", "its new pool is paused, too");
    assert_eq!(two.value(OURS).await, "0");
    done(&mut console, "RESUME primary").await;
    assert_eq!(error_of(&client.read_until_ready().await), None);
    let rows = "SELECT coalesce(string_agg(a::text, ','), '') FROM rows";
    assert_eq!((one.value(rows).await, two.value(rows).await), ("1".to_owned(), "2".to_owned()));
}

#[tokio::test]
async fn clients_are_disconnected_one_by_one_or_with_their_pool() {
    let site = Site::start();
    let (mut console, mut idle, mut holder) =
        (site.console().await, site.client().await, site.client().await);
    let id = idle.key().0.to_string();
    assert_eq!(table(&mut console, "SHOW CLIENTS").await.value(&[("id", &id)], "state"), "idle");
    assert_eq!(done(&mut console, &format!("KILL_CLIENT {id}")).await, "KILL_CLIENT");
    let told = idle.read_message().await;
    assert_eq!(told.field(b'C').as_deref(), Some("57P01"));
    assert!(idle.try_read_message().await.is_none());
    eventually("it is gone", SOON, async || {
        (refused(&mut console, &format!("KILL_CLIENT {id}")).await[0] == "42704").then_some(())
    })
    .await;

    // One that runs something, and whose server connection is closed with it.
    holder.query("SELECT pg_sleep(60)").await;
    let id = holder.key().0.to_string();
    eventually("it runs", SOON, async || {
        (table(&mut console, "SHOW CLIENTS").await.value(&[("id", &id)], "state") == "active").then_some(())
    })
    .await;
    done(&mut console, &format!("KILL_CLIENT {id}")).await;
    assert_eq!(holder.read_message().await.field(b'C').as_deref(), Some("57P01"));
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' \
                  AND pid <> pg_backend_pid()";
    eventually("the statement has ended", SOON, async || {
        (site.cluster.primary.value(asleep).await == "0").then_some(())
    })
    .await;

    let (mut holder, mut other) = (site.client().await, site.client().await);
    holder.ask("BEGIN").await;
    holder.ask("CREATE TABLE gone (a int)").await;
    assert_eq!(done(&mut console, "KILL primary").await, "KILL");
    assert_eq!(holder.read_message().await.field(b'C').as_deref(), Some("57P01"));
    other.query("CREATE TABLE here (a int)").await;
    let id = other.key().0.to_string();
    eventually("it waits", SOON, async || {
        let clients = table(&mut console, "SHOW CLIENTS").await;
        (clients.value(&[("id", &id)], "state") == "waiting").then_some(())
    })
    .await;
    assert_eq!(done(&mut console, "RESUME primary").await, "RESUME");
    assert_eq!(error_of(&other.read_until_ready().await), None);
    assert_eq!(site.cluster.primary.value("SELECT to_regclass('gone')").await, "");
}

#[tokio::test]
async fn connections_are_made_anew() {
    let site = Site::start();
    let (mut console, mut client) = (site.console().await, site.client().await);
    client.ask("CREATE TABLE x (a int)").await;
    client.ask("BEGIN").await;
    client.ask("INSERT INTO x VALUES (1)").await;
    let old = client.query_value("SELECT pg_backend_pid()").await;
    assert_eq!(done(&mut console, "RECONNECT").await, "RECONNECT");
    let servers = table(&mut console, "SHOW SERVERS").await;
    assert_eq!(servers.value(&[("remote_pid", &old)], "close_needed"), "1");
    console.query("WAIT_CLOSE primary").await;
    assert_eq!(client.query_value("SELECT pg_backend_pid()").await, old, "not within a transaction");
    client.ask("COMMIT").await;
    assert_eq!(error_of(&console.read_until_ready().await), None);
    client.ask("BEGIN").await;
    client.ask("INSERT INTO x VALUES (2)").await;
    assert_ne!(client.query_value("SELECT pg_backend_pid()").await, old);
}

#[tokio::test]
async fn disabled_pools_refuse_and_replicas_give_way_to_the_primary() {
    let site = Site::start();
    let (mut console, mut client) = (site.console().await, site.client().await);
    site.cluster.primary.query("CREATE TABLE r (a int); ALTER TABLE r OWNER TO app").await;
    let in_recovery = "/* bulkhead: route=read */ SELECT pg_is_in_recovery()";
    eventually("the replica serves reads", SOON, async || {
        (client.query_value(in_recovery).await == "t").then_some(())
    })
    .await;
    assert_eq!(done(&mut console, "DISABLE replicas").await, "DISABLE");
    assert_eq!(client.query_value(in_recovery).await, "f");
    let replicas = table(&mut console, "SHOW REPLICAS").await;
    assert_eq!(replicas.value(&[("server", "replica_1")], "why_not"), "disabled on the console");
    done(&mut console, "ENABLE replicas").await;
    assert_eq!(client.query_value(in_recovery).await, "t");

    done(&mut console, "DISABLE primary").await;
    let [code, _, hint] = refused(&mut client, "INSERT INTO r VALUES (1)").await;
    assert_eq!((code.as_str(), hint.contains("ENABLE primary")), ("57P03", true));
    let databases = table(&mut console, "SHOW DATABASES").await;
    assert_eq!(databases.value(&[("name", "primary")], "disabled"), "1");
    done(&mut console, "ENABLE primary").await;
    assert_eq!(error_of(&client.ask("INSERT INTO r VALUES (1)").await), None);
}

#[tokio::test]
async fn the_configuration_is_read_again_and_keys_are_set() {
    let site = Site::start();
    let mut console = site.console().await;
    let path = site.proxy.config_path();
    let good = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, good.replace("max_connections = 10", "max_conections = 10")).expect("writable");
    let [code, message, _] = refused(&mut console, "RELOAD").await;
    assert_eq!(code, "F0000");
    assert!(message.contains("nothing was changed") && message.contains("max_conections"), "{message}");
    fs::write(&path, good.replace("max_connections = 10", "max_connections = 9")).expect("writable");
    let answer = console.ask("RELOAD").await;
    let notice = answer.iter().find(|message| message.tag == b'N').expect("what has changed");
    assert!(notice.field(b'D').is_some_and(|told| told.contains("pools.jobs.max_connections: 10 -> 9")));

    let places = async |console: &mut RawClient| {
        table(console, "SHOW DATABASES").await.value(&[("name", "jobs")], "pool_size")
    };
    assert_eq!(places(&mut console).await, "9");
    assert_eq!(done(&mut console, "SET pools.jobs.max_connections = 4").await, "SET");
    assert_eq!(done(&mut console, "SET pools.jobs.wait_timeout TO '3s'").await, "SET");
    assert_eq!(places(&mut console).await, "4");
    let config = table(&mut console, "SHOW CONFIG").await;
    assert_eq!(config.value(&[("key", "pools.jobs.wait_timeout")], "value"), "3s");
    for (sql, told) in [
        ("SET pools.jobs.max_connections = 0", "out of bounds"),
        ("SET pools.jobs.max_connections = many", "not a whole number"),
        ("SET listen.threads = 3", "needs a restart"),
        ("SET nothing.at_all = 3", "unknown key"),
        ("SET max_client_conn = 3", "unknown key"),
        ("SET workers.users = x", "is a list"),
    ] {
        let [code, message, _] = refused(&mut console, sql).await;
        assert_eq!(code, "F0000", "{sql}");
        assert!(message.contains(told) && message.contains("nothing was changed"), "{sql}: {message}");
    }
    assert_eq!(places(&mut console).await, "4");
    // The file is as it was, and is what counts when it is read again.
    assert!(fs::read_to_string(&path).expect("it is there").contains("max_connections = 9"));
    done(&mut console, "RELOAD").await;
    assert_eq!(places(&mut console).await, "9");
}

#[tokio::test]
async fn the_program_ends_at_once_or_when_it_may() {
    let site = Site::start();
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    client.ask("CREATE TABLE kept (a int)").await;
    let mut console = site.console().await;
    assert_eq!(done(&mut console, "SHUTDOWN WAIT_FOR_SERVERS").await, "SHUTDOWN");
    assert_eq!(error_of(&client.ask("INSERT INTO kept VALUES (1)").await), None);
    client.ask("COMMIT").await;
    assert!(site.proxy.wait(SOON).success());
    assert_eq!(site.cluster.primary.value("SELECT count(*) FROM kept").await, "1");

    let proxy =
        Proxy::start(&Site::config(&site.cluster, &crate::support::Scratch::new()).remove("auth").to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let mut console = RawClient::login(proxy.port(), crate::support::Login::App, "bulkhead").await;
    done(&mut console, "SHUTDOWN WAIT_FOR_CLIENTS").await;
    eventually("nobody else is let in", SOON, async || {
        let stranger = RawClient::try_open(proxy.port()).await;
        stranger.is_err().then_some(())
    })
    .await;
    assert_eq!(client.query_value("SELECT 1").await, "1", "whoever is in may go on");
    table(&mut console, "SHOW POOLS").await;
    assert!(proxy.is_running());
    client.terminate().await;
    assert!(proxy.wait(SOON).success());

    let proxy =
        Proxy::start(&Site::config(&site.cluster, &crate::support::Scratch::new()).remove("auth").to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("BEGIN").await;
    client.ask("CREATE TABLE lost (a int)").await;
    let mut console = RawClient::login(proxy.port(), crate::support::Login::App, "bulkhead").await;
    done(&mut console, "SHUTDOWN").await;
    assert!(proxy.wait(SOON).success());
    assert_eq!(site.cluster.primary.value("SELECT to_regclass('lost')").await, "");
}
