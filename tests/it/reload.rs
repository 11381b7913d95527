//! SIGHUP under load and at rest: pools, servers, users and rules change without a client noticing, and a bad file
//! changes nothing.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, connect, eventually,
};

const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app' \
     AND application_name <> 'bulkhead health check'";

const OK: &str = "bulkhead_reloads_total{result=\"ok\"}";
const FAILED: &str = "bulkhead_reloads_total{result=\"failed\"}";
const SUCCESSFUL: &str = "bulkhead_config_last_reload_successful";

/// Reloads in vain, which is said.
async fn refused(proxy: &mut Proxy, config: &str) {
    proxy.reload_in_vain(config).await;
    assert_eq!(proxy.metric(SUCCESSFUL).await, Some(0.0));
}

async fn wait_for_backends(primary: &Postgres, at_most: i64) {
    eventually(&format!("the server counts at most {at_most}"), Duration::from_secs(10), async || {
        let now: i64 = primary.value(OURS).await.parse().expect("a number");
        (now <= at_most).then_some(())
    })
    .await;
}

/// One client of the load: transactions in both protocols, prepared statements, settings, reads and jobs.
async fn works(url: &str, number: u64, over: &AtomicBool, done: &AtomicU64) {
    let mut client = connect(url).await.expect("the proxy lets clients in");
    client.batch_execute(&format!("SET application_name = 'load_{number}'")).await.expect("a setting");
    let prepared = client.prepare("SELECT $1::int8 + 1").await.expect("a statement");
    while !over.load(Ordering::Relaxed) {
        let row = client.query_one(&prepared, &[&41_i64]).await.expect("a prepared statement");
        assert_eq!(row.get::<_, i64>(0), 42);
        let transaction = client.transaction().await.expect("a transaction");
        transaction.batch_execute("INSERT INTO load VALUES (1)").await.expect("a write");
        transaction.query_one("SELECT count(*) FROM load", &[]).await.expect("a read in it");
        transaction.commit().await.expect("its end");
        client.simple_query("SELECT 1 FROM load LIMIT 1").await.expect("a read");
        client.simple_query("SELECT count(*) FROM oban_jobs").await.expect("a job statement");
        let name = client.query_one("SHOW application_name", &[]).await.expect("the setting");
        assert_eq!(name.get::<_, String>(0), format!("load_{number}"));
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn fifty_reloads_under_load_cost_no_client_an_error() {
    let cluster = Cluster::start();
    let admin = cluster.primary.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE load (n int); CREATE TABLE oban_jobs (id int); GRANT ALL ON load, oban_jobs TO app",
        )
        .await
        .expect("tables");
    cluster.wait_for_replay().await;
    // Jobs move between a pool of their own on the primary and the primary's; reads between the replica and none.
    let base = ProxyConfig::primary_only(&cluster.primary).set("pools.primary", "wait_timeout", "20s");
    let with_jobs = base.clone().pool("jobs", &["primary"], 3).set("jobs", "presets", vec!["oban"]);
    let with_replica = with_jobs
        .clone()
        .set("servers.replica_1", "url", cluster.replica.url(Login::App))
        .pool("replicas", &["replica_1"], 4);
    let sizes =
        |config: &ProxyConfig, places: i64| config.clone().set("pools.primary", "max_connections", places);
    let shapes = [
        (sizes(&base, 4), 4),
        (sizes(&with_replica, 9), 12),
        (sizes(&with_jobs, 2), 5),
        (sizes(&with_replica, 3), 6),
        (sizes(&base, 12), 12),
    ];
    let mut proxy = Proxy::start(&shapes[0].0.to_toml());
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..30 {
        let (url, over, done) = (proxy.url(), Arc::clone(&over), Arc::clone(&done));
        clients.spawn(async move { works(&url, number, &over, &done).await });
    }
    let count = admin.prepare(OURS).await.expect("the view is there");
    let mut highest = 0;
    for round in 1..=50 {
        let reached = done.load(Ordering::Relaxed) + 10;
        eventually("the clients go on", Duration::from_secs(20), async || {
            let now = admin.query_one(&count, &[]).await.expect("the server answers").get::<_, i64>(0);
            highest = highest.max(now);
            (done.load(Ordering::Relaxed) >= reached || clients.try_join_next().is_some()).then_some(())
        })
        .await;
        proxy.reload_to(&shapes[round % shapes.len()].0).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client saw an error");
    }
    let bound = shapes.iter().map(|(_, bound)| *bound).max().expect("shapes");
    assert!(highest <= bound, "{highest} connections, {bound} allowed by the widest configuration");
    assert!(highest >= 4, "the load used its pools: {highest}");
    assert_eq!(proxy.metric(FAILED).await, Some(0.0));
    assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
}

#[tokio::test]
async fn a_pool_shrinks_without_cutting_a_transaction_and_grows_for_those_who_wait() {
    let primary = Postgres::start(Role::Primary);
    let base = ProxyConfig::primary_only(&primary).set("pools.primary", "wait_timeout", "30s");
    let sized = |places: i64| base.clone().set("pools.primary", "max_connections", places);
    let mut proxy = Proxy::start(&sized(6).to_toml());
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(connect(&proxy.url()).await.expect("a client"));
    }
    for client in &clients {
        client.batch_execute("BEGIN; SELECT 1").await.expect("a transaction");
    }
    assert_eq!(primary.value(OURS).await, "6");

    proxy.reload_to(&sized(2)).await;
    // All six are in the middle of something, and stay there.
    for client in &clients {
        client.batch_execute("SELECT 1").await.expect("the transaction goes on");
    }
    assert_eq!(primary.value(OURS).await, "6");
    for client in &clients[..5] {
        client.batch_execute("COMMIT").await.expect("the transaction ends");
    }
    wait_for_backends(&primary, 2).await;
    // One of the two is still in its transaction: there is one place for the others.
    clients[0].batch_execute("BEGIN; SELECT 1").await.expect("the last place");
    let waiting = clients[1].simple_query("SELECT 'served'");
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("a third connection: {answer:?}"),
        () = proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0) => {}
    }
    assert_eq!(primary.value(OURS).await, "2");

    let grows = async {
        tokio::time::timeout(Duration::from_secs(10), proxy.reload_to(&sized(3))).await.expect("in time");
    };
    let (answer, ()) = tokio::join!(&mut waiting, grows);
    answer.expect("who waited is served by the new place");
    assert_eq!(primary.value(OURS).await, "3");
    for at in [0, 5] {
        clients[at].batch_execute("COMMIT").await.expect("the transaction ends");
    }
}

#[tokio::test]
async fn a_removed_pool_finishes_what_it_has_begun() {
    let primary = Postgres::start(Role::Primary);
    primary
        .admin()
        .await
        .batch_execute("CREATE TABLE oban_jobs (id int); GRANT ALL ON oban_jobs TO app")
        .await
        .expect("a table");
    let plain = ProxyConfig::primary_only(&primary).set("jobs", "presets", Vec::<String>::new());
    let with_jobs = plain.clone().pool("jobs", &["primary"], 1).set("jobs", "presets", vec!["oban"]);
    let mut proxy = Proxy::start(&with_jobs.to_toml());
    let worker = connect(&proxy.url()).await.expect("a client");
    let other = connect(&proxy.url()).await.expect("a client");
    worker.batch_execute("BEGIN; INSERT INTO oban_jobs VALUES (1)").await.expect("a job statement");
    let waits = other.simple_query("INSERT INTO oban_jobs VALUES (2)");
    tokio::pin!(waits);
    tokio::select! {
        answer = &mut waits => panic!("the pool has one place: {answer:?}"),
        () = proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"jobs\",server=\"primary\"}", 1.0) => {}
    }
    proxy.reload_to(&plain).await;
    worker.batch_execute("INSERT INTO oban_jobs VALUES (3); COMMIT").await.expect("the transaction goes on");
    waits.await.expect("who waited for the removed pool is served by it");
    proxy.wait_for_log("the pool was drained").await;
    worker.batch_execute("INSERT INTO oban_jobs VALUES (4)").await.expect("now by the primary's pool");
    assert_eq!(primary.value("SELECT count(*) FROM oban_jobs").await, "4");
    assert_eq!(
        proxy.metric("bulkhead_pool_waiting{pool=\"jobs\",server=\"primary\"}").await,
        None,
        "the pool is gone"
    );
}

#[tokio::test]
async fn sessions_bound_to_a_removed_pool_are_told() {
    let cluster = Cluster::start();
    let all = ProxyConfig::of(&cluster);
    let mut proxy = Proxy::start(&all.to_toml());
    let url = Login::App.url(proxy.port(), "app@jobs");
    let (idle, busy) = (connect(&url).await.expect("a client"), connect(&url).await.expect("a client"));
    idle.simple_query("SELECT 1").await.expect("it is served");
    busy.simple_query("BEGIN; SELECT 1").await.expect("a transaction");
    proxy.reload_to(&all.clone().remove("pools.jobs").remove("servers.jobs").remove("jobs")).await;
    busy.simple_query("SELECT 2; COMMIT").await.expect("the transaction goes on");
    for client in [&idle, &busy] {
        for _ in 0..2 {
            let error = client.simple_query("SELECT 3").await.expect_err("the pool is gone");
            let error = error.as_db_error().expect("it is told so");
            assert!(error.message().contains("pool \"jobs\""), "{error:?}");
            assert_eq!((error.severity(), error.code().code()), ("ERROR", "3D000"), "{error:?}");
        }
    }
    assert!(connect(&url).await.is_err(), "nobody else is bound to it");
    // It comes back, and so do they.
    proxy.reload_to(&all).await;
    for client in [&idle, &busy] {
        client.simple_query("SELECT 4").await.expect("it is served again");
    }
}

/// The shared connection of those who listen belongs to a pool.
#[tokio::test]
async fn sessions_that_listen_in_a_removed_pool_are_told() {
    let cluster = Cluster::start();
    let all = ProxyConfig::of(&cluster);
    let mut proxy = Proxy::start(&all.to_toml());
    let mut listens = RawClient::app(proxy.port()).await;
    listens.ask("LISTEN \"public.oban_insert\"").await;
    let mut elsewhere = RawClient::app(proxy.port()).await;
    elsewhere.ask("LISTEN news").await;
    proxy.wait_for_metric("bulkhead_listen_channels", 2.0).await;
    proxy.reload_to(&all.clone().remove("pools.jobs").remove("servers.jobs").remove("jobs")).await;
    let told = listens.read_message().await;
    assert_eq!((told.tag, told.field(b'C').as_deref()), (b'E', Some("57P01")), "{told:?}");
    assert_eq!(told.field(b'S').as_deref(), Some("FATAL"), "{told:?}");
    assert_eq!(listens.try_read_message().await, None);
    cluster.primary.query("NOTIFY news, 'heard'").await;
    assert_eq!(elsewhere.read_message().await.tag, b'A', "others go on listening");
    // The channel is an ordinary one now.
    let mut again = RawClient::app(proxy.port()).await;
    again.ask("LISTEN \"public.oban_insert\"").await;
    cluster.primary.query("NOTIFY \"public.oban_insert\"").await;
    assert_eq!(again.read_message().await.tag, b'A');
    cluster.jobs.wait_for_backends(0).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_all_of_it_is_said() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary);
    let mut proxy = Proxy::start(&config.to_toml());
    let client = connect(&proxy.url()).await.expect("a client");
    assert_eq!(proxy.metric(SUCCESSFUL).await, Some(1.0), "the start counts as a load");

    let bad = config
        .clone()
        .set("pools.primary", "max_connections", 3)
        .set("pools.primary", "wait_timeout", "soon")
        .set("limits", "max_client", 3);
    refused(&mut proxy, &bad.to_toml()).await;
    for word in ["wait_timeout", "max_client", "reload failed: nothing was changed"] {
        assert!(proxy.log().contains(word), "{word} in {}", proxy.log());
    }
    let bound = "bulkhead_pool_max_connections{pool=\"primary\",server=\"primary\"}";
    assert_eq!(proxy.metric(bound).await, Some(10.0), "the good half of a bad file is not taken");

    refused(&mut proxy, "this is no TOML").await;
    let elsewhere = config.clone().set("listen", "address", "127.0.0.1:1").set("listen", "threads", 7);
    refused(&mut proxy, &elsewhere.to_toml()).await;
    for key in ["listen.address", "listen.threads"] {
        let said = proxy.log().lines().any(|line| line.contains(key) && line.contains("needs a restart"));
        assert!(said, "{key} in {}", proxy.log());
    }
    client.simple_query("SELECT 1").await.expect("the client noticed nothing");

    proxy.reload_to(&config.clone().set("pools.primary", "max_connections", 3)).await;
    assert_eq!(proxy.metric(bound).await, Some(3.0));
    assert_eq!(proxy.metric(SUCCESSFUL).await, Some(1.0));
    assert!(proxy.log().contains("pools.primary.max_connections: 10 -> 3"), "{}", proxy.log());
    assert!(!proxy.log().contains("secret"), "no password in the log");
}

#[tokio::test]
async fn a_new_password_is_used_at_once() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary);
    let mut proxy = Proxy::start(&config.to_toml());
    let old = connect(&proxy.url()).await.expect("a client");
    let in_transaction = connect(&proxy.url()).await.expect("a client");
    old.simple_query("SELECT 1").await.expect("works");
    in_transaction.batch_execute("BEGIN; SELECT 1").await.expect("works");
    let admin = primary.admin().await;
    admin.batch_execute("ALTER ROLE app PASSWORD 'rotated'").await.expect("a new password");
    let rotated = primary.url(Login::App).replace("secret", "rotated");
    proxy.reload_to(&config.clone().set("servers.primary", "url", rotated)).await;

    in_transaction.batch_execute("COMMIT").await.expect("the transaction is not cut");
    old.simple_query("SELECT 1").await.expect("a session goes on, over a connection with the new password");
    connect(&proxy.url()).await.expect_err("the old password no longer lets clients in");
    let new = connect(&proxy.url().replace("secret", "rotated")).await.expect("the new one does");
    new.simple_query("SELECT 1").await.expect("works");
}

#[tokio::test]
async fn users_come_and_go_with_their_file() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    let write = |text: &str| fs::write(&users, text).expect("the folder is writable");
    write("\"app_two\" \"second\"\n");
    let config = ProxyConfig::primary_only(&primary).set("auth", "users_file", users.to_str().expect("text"));
    let mut proxy = Proxy::start(&config.to_toml());
    let two = connect(&proxy.url_of(Login::AppTwo)).await.expect("a user of the file");
    connect(&proxy.url_of(Login::Admin)).await.expect_err("not in the file yet");

    write("\"admin\" \"secret\"\n");
    // The configuration is the same: files are read again all the same.
    proxy.reload_to(&config).await;
    let admin = connect(&proxy.url_of(Login::Admin)).await.expect("now in the file");
    admin.simple_query("SELECT 1").await.expect("works");
    two.simple_query("SELECT 1").await.expect("a session of a removed user goes on");
    connect(&proxy.url_of(Login::AppTwo)).await.expect_err("but there is no new one");

    write("\"app_two\n");
    refused(&mut proxy, &config.to_toml()).await;
    connect(&proxy.url_of(Login::Admin)).await.expect("a broken users file changes nothing");
}

#[tokio::test]
async fn replicas_come_and_go() {
    let cluster = Cluster::start();
    let plain = ProxyConfig::primary_only(&cluster.primary);
    let with_replica = plain.clone().set("servers.replica_1", "url", cluster.replica.url(Login::App)).pool(
        "replicas",
        &["replica_1"],
        4,
    );
    let admin = cluster.primary.admin().await;
    admin.batch_execute("CREATE TABLE t AS SELECT 1 AS n; GRANT ALL ON t TO app").await.expect("a table");
    cluster.wait_for_replay().await;
    let mut proxy = Proxy::start(&plain.to_toml());
    let client = connect(&proxy.url()).await.expect("a client");
    // Prepared before the replica is known, and routed anew.
    let read = client.prepare("SELECT n FROM t").await.expect("a statement");
    let reads = async || client.query_one(&read, &[]).await.expect("a read").get::<_, i32>(0);
    let at_replica = async || cluster.replica.value(OURS).await;
    assert_eq!(reads().await, 1);
    proxy.reload_to(&with_replica).await;
    // Once it has shown how far it is.
    eventually("reads go to the replica", Duration::from_secs(10), async || {
        assert_eq!(reads().await, 1);
        (at_replica().await == "1").then_some(())
    })
    .await;
    proxy.reload_to(&plain).await;
    assert_eq!(reads().await, 1);
    eventually("the replica's connections are closed", Duration::from_secs(10), async || {
        (at_replica().await == "0").then_some(())
    })
    .await;
    assert_eq!(reads().await, 1);
    assert_eq!(at_replica().await, "0");
}

#[tokio::test]
async fn new_rules_route_the_statements_of_open_sessions() {
    let cluster = Cluster::start();
    for server in [&cluster.primary, &cluster.jobs] {
        let admin = server.admin().await;
        admin
            .batch_execute("CREATE TABLE errands (id int); GRANT ALL ON errands TO app")
            .await
            .expect("a table");
    }
    let plain = ProxyConfig::of(&cluster);
    let mut proxy = Proxy::start(&plain.to_toml());
    let client = connect(&proxy.url()).await.expect("a client");
    let insert = client.prepare("INSERT INTO errands VALUES ($1)").await.expect("a statement");
    client.execute(&insert, &[&1_i32]).await.expect("an insert");
    proxy.reload_to(&plain.clone().set("jobs.rules", "tables", vec!["errands"])).await;
    client.execute(&insert, &[&2_i32]).await.expect("an insert");
    let all = "SELECT string_agg(id::text, ',' ORDER BY id) FROM errands";
    assert_eq!(cluster.primary.value(all).await, "1");
    assert_eq!(cluster.jobs.value(all).await, "2");
}

#[tokio::test]
async fn the_command_checks_the_file_before_it_signals() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary);
    let proxy = Proxy::start(&config.to_toml());
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let reload = |text: &str, pid: &str| {
        fs::write(&file, text).expect("the folder is writable");
        let run = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .arg("--config")
            .arg(&file)
            .args(["reload", "--pid", pid])
            .output()
            .expect("the program runs");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let good = config.to_toml().replace("{listen}", "127.0.0.1:0").replace("{http}", "off");
    let pid = proxy.pid().to_string();
    let (code, said) = reload(&good.replace("max_connections", "max_conections"), &pid);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("max_conections"), "{said}");
    assert_eq!(proxy.metric(OK).await, Some(0.0), "no signal was sent");
    let (code, said) = reload(&good, &pid);
    assert_eq!(code, Some(0), "{said}");
    proxy.wait_for_metric(OK, 1.0).await;
    // Somebody else's process is not sent a signal that would end it.
    let (code, said) = reload(&good, &primary.pid().to_string());
    assert_eq!(code, Some(69), "{said}");
    assert_eq!(primary.value("SELECT 1").await, "1");
}

#[tokio::test]
async fn many_signals_at_once_are_no_trouble_and_the_end_comes_first() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let client = connect(&proxy.url()).await.expect("a client");
    for _ in 0..200 {
        proxy.signal(Signal::HUP);
    }
    client.simple_query("SELECT 1").await.expect("works");
    eventually("they were reloads", Duration::from_secs(10), async || {
        (proxy.metric(OK).await? >= 1.0).then_some(())
    })
    .await;
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::HUP);
    assert!(proxy.wait(Duration::from_secs(10)).success());
}

/// What 150 reloads of the same and of a wrong file, and as many failing logins, leave in the log.
#[tokio::test]
async fn what_comes_again_is_said_seldom() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("auth", "reprove_after", "0s");
    let mut proxy = Proxy::start(&config.to_toml());
    let lines = |proxy: &Proxy| proxy.log().lines().count();
    proxy.wait_for_log("ready for clients").await;
    // A line for what changes, whatever it is.
    let mut before = lines(&proxy);
    for places in [3, 4] {
        proxy.reload_to(&config.clone().pool("primary", &["primary"], places)).await;
    }
    proxy.wait_for_log("pools.primary.max_connections: 3 -> 4").await;
    assert_eq!(lines(&proxy) - before, 2, "{}", proxy.log());
    // Nothing new: a line in ten seconds.
    let same = config.pool("primary", &["primary"], 4);
    before = lines(&proxy);
    let began = Instant::now();
    for _ in 0..150 {
        proxy.reload_to(&same).await;
    }
    let seldom = |began: Instant| 2 + began.elapsed().as_secs() as usize / 10;
    let more = lines(&proxy) - before;
    assert!((1..=seldom(began)).contains(&more), "{more} lines");
    assert!(proxy.log().contains("nothing has changed"), "{}", proxy.log());
    // A wrong file: all of its problems once.
    let wrong = same.clone().set("pools.primary", "max_pinned", 99).set("limits", "statement_bytes", "2MiB");
    before = lines(&proxy);
    let began = Instant::now();
    for _ in 0..150 {
        refused(&mut proxy, &wrong.to_toml()).await;
    }
    let more = lines(&proxy) - before;
    assert!((3..=3 + seldom(began)).contains(&more), "{more} lines");
    let log = proxy.log();
    for problem in ["pools.primary.max_pinned: 99", "limits.statement_bytes: no statement"] {
        assert_eq!(log.matches(problem).count(), 1, "{log}");
    }
    // Another problem is told, and so is that it is over.
    refused(&mut proxy, &wrong.set("limits", "statement_bytes", "3MiB").to_toml()).await;
    proxy.reload_to(&same).await;
    assert!(proxy.log().contains("no statement of 3MiB"), "{}", proxy.log());
    // Logins that the server refuses: a line for each reason.
    primary.query("ALTER ROLE app NOLOGIN").await;
    before = lines(&proxy);
    let began = Instant::now();
    for _ in 0..150 {
        connect(&proxy.url()).await.expect_err("it may not log in");
    }
    let log = proxy.log();
    let at_server =
        log.lines().skip(before).filter(|line| line.contains("a login at the server failed")).count();
    assert!((1..=seldom(began)).contains(&at_server), "{at_server}: {log}");
    // Clients that were refused have a bound of their own: 20 lines in 10 s.
    assert!(lines(&proxy) - before <= 21 * seldom(began), "{log}");
}
