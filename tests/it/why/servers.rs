//! Servers that are stopped, gone, full, or behind.

use std::process::Command;

use super::{comes_first, named, patient, report, site};
use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, connect, eventually, oban,
};

#[tokio::test]
async fn the_primary_does_not_answer() {
    let site = site(2, |config| config);
    let mut client = named(&site, "web").await;
    client.query_value("SELECT 1").await;
    site.primary.pause();
    client.query("SELECT 1").await;
    let found =
        comes_first(&site.proxy, "primary_down", &["the primary, server \"primary\", does not serve"]).await;
    assert!(found.contains("look whether PostgreSQL at 127.0.0.1:"), "{found}");
    site.primary.resume();
    client.read_until_ready().await;
}

#[tokio::test]
async fn the_primary_is_gone() {
    let site = site(2, |config| config);
    let mut client = named(&site, "web").await;
    client.query_value("SELECT 1").await;
    site.primary.kill();
    let words = ["the primary, server \"primary\", does not serve", "refused"];
    comes_first(&site.proxy, "primary_down", &words).await;
    site.primary.boot();
    eventually("all is well again", super::SOON * 2, async || {
        (report(&site.proxy).await["well"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_primary_takes_no_writes() {
    let primary = Postgres::start(Role::Primary);
    let replica = Postgres::start(Role::ReplicaOf(&primary));
    let proxy = Proxy::start(&patient(ProxyConfig::primary_only(&replica)).to_toml());
    comes_first(&proxy, "primary_read_only", &["server \"primary\"", "takes no writes"]).await;
}

#[tokio::test]
async fn others_have_taken_all_connections_of_the_server() {
    let primary = Postgres::builder(Role::Primary).max_connections(12).start();
    let config = patient(ProxyConfig::primary_only(&primary)).set("auth", "method", "trust");
    let proxy = Proxy::start(&config.pool("primary", &["primary"], 5).to_toml());
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(RawClient::app(proxy.port()).await);
    }
    clients[0].query("SELECT pg_sleep(60)").await;
    primary.wait_for_app_backends("wait_event = 'PgSleep'", 1).await;
    let mut others = Vec::new();
    // The last places are for superusers, which these are not.
    while let Ok(other) = connect(&primary.url(Login::AppTwo)).await {
        others.push(other);
    }
    for client in &mut clients[1..] {
        client.query("SELECT pg_sleep(60)").await;
    }
    let found =
        comes_first(&proxy, "server_full", &["server \"primary\"", "no place for more connections"]).await;
    assert!(found.contains("its pools may open 5: the others are not Bulkhead's"), "{found}");
    assert!(found.contains(" for a connection to it, the first for "), "{found}");
}

#[tokio::test]
async fn a_replica_is_behind() {
    let primary = Postgres::start(Role::Primary);
    let replica = Postgres::start(Role::ReplicaOf(&primary));
    primary.query("CREATE TABLE items (name text); GRANT ALL ON items TO app").await;
    replica.wait_for_replay(&primary).await;
    let config = patient(ProxyConfig::primary_only(&primary))
        .set("servers.replica_1", "url", replica.url(Login::App))
        .pool("replicas", &["replica_1"], 4)
        .set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let client = connect(&proxy.url()).await.expect("it serves");
    let read = async || client.simple_query("SELECT count(*) FROM items").await.expect("it reads");
    eventually("reads run on the replica", super::SOON * 2, async || {
        read().await;
        let metrics = proxy.metrics().await;
        metrics
            .lines()
            .any(|line| {
                line.starts_with("bulkhead_replica_reads_total{on=\"replica\"") && !line.ends_with(" 0")
            })
            .then_some(())
    })
    .await;
    replica.set_replay(false).await;
    client.simple_query("INSERT INTO items VALUES ('secret')").await.expect("it writes");
    let found = {
        let reads = async {
            loop {
                read().await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let words = ["replica \"replica_1\" is ", "behind: reads run on the primary"];
        tokio::select! {
            found = comes_first(&proxy, "replica_lag", &words) => found,
            () = reads => unreachable!("it reads for ever"),
        }
    };
    assert!(found.contains("ran on the primary: "), "{found}");
    assert!(found.contains("had not been replayed"), "{found}");
    replica.set_replay(true).await;
}

/// A primary and a job database with the outbox between them.
async fn outbox(primary: &Postgres, jobs: &Postgres) -> ProxyConfig {
    oban::install(primary).await;
    oban::install(jobs).await;
    let config = patient(ProxyConfig::primary_only(primary))
        .set("servers.jobs", "url", jobs.url(Login::App))
        .pool("jobs", &["jobs"], 5)
        .set("jobs", "presets", vec!["oban"])
        .set("jobs", "outbox", true)
        .set("jobs", "outbox_poll", "50ms");
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    std::fs::write(&file, text).expect("a writable folder");
    let mut init = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let status = init.arg("--config").arg(&file).args(["jobs", "init"]).output().expect("it runs").status;
    assert!(status.success());
    config
}

#[tokio::test]
async fn the_job_database_is_down_and_jobs_wait() {
    let primary = Postgres::start(Role::Primary);
    let jobs = Postgres::start(Role::Jobs);
    let proxy = Proxy::start(&outbox(&primary, &jobs).await.to_toml());
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    let client = connect(&proxy.url()).await.expect("it serves");
    jobs.kill();
    for _ in 0..3 {
        client.batch_execute("BEGIN").await.expect("it begins");
        client.simple_query("SELECT count(*) FROM pg_class").await.expect("it reads");
        client.simple_query("INSERT INTO oban_jobs (worker) VALUES ('secret')").await.expect("it enqueues");
        client.batch_execute("COMMIT").await.expect("it commits");
    }
    let found = eventually("the job database and its jobs are told of", super::SOON, async || {
        let found = super::text_of(&report(&proxy).await["findings"][0]);
        found.contains("3 jobs wait on the primary until it is back").then_some(found)
    })
    .await;
    assert!(found.starts_with("server \"jobs\" does not serve"), "{found}");
    assert!(!found.contains("secret"), "{found}");
    comes_first(&proxy, "server_down", &["server \"jobs\" does not serve", "refused"]).await;
}

#[tokio::test]
async fn a_pool_is_paused() {
    let site = site(2, |config| {
        config.set("console", "admin_users", vec!["app"]).remove("console.stats_users").remove("auth.method")
    });
    let mut console = RawClient::open(site.proxy.port()).await;
    console.startup(&[("user", "app"), ("database", "bulkhead")]).await;
    assert_eq!(console.authenticate("app", "secret").await, None);
    // Who logs in needs the server.
    let mut client = named(&site, "web").await;
    console.ask("PAUSE primary").await;
    client.query("SELECT 1").await;
    site.proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0).await;
    let found = comes_first(&site.proxy, "pool_held", &["pool \"primary\" is paused on the console"]).await;
    assert!(found.contains("RESUME primary"), "{found}");
}

#[tokio::test]
async fn a_failover_is_under_way_and_then_over() {
    let primary = Postgres::start(Role::Primary);
    let replica = Postgres::start(Role::ReplicaOf(&primary));
    replica.wait_for_replay(&primary).await;
    let hosts = [primary.port(), replica.port()];
    let url = Login::App.url_of_hosts(&hosts, "?target_session_attrs=read-write");
    let config = patient(ProxyConfig::primary_only(&primary)).set("servers.primary", "url", url);
    let proxy = Proxy::start(&config.to_toml());
    let client = connect(&proxy.url()).await.expect("it serves");
    client.simple_query("SELECT 1").await.expect("it serves");
    primary.kill();
    let found =
        comes_first(&proxy, "primary_down", &["the primary, server \"primary\", does not serve"]).await;
    assert!(
        found.contains(&format!(
            "none of its 2 hosts takes connections as it should; it was last at 127.0.0.1:{}",
            hosts[0]
        )),
        "{found}"
    );
    assert!(found.contains("let the failover end, or promote a host"), "{found}");
    replica.promote().await;
    let moved = eventually("the move is told of", super::SOON * 4, async || {
        let report = report(&proxy).await;
        let first = &report["findings"][0];
        (first["cause"] == "moved").then(|| super::text_of(first))
    })
    .await;
    assert!(moved.starts_with(&format!("server \"primary\" moved to 127.0.0.1:{} ", hosts[1])), "{moved}");
}
