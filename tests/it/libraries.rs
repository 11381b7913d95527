//! Job libraries that are found rather than named: their tables on the primary tell, and jobs get a pool of their own.

use std::time::Duration;

use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, eventually, oban};

const WITHIN: Duration = Duration::from_secs(15);

/// A statement of a worker goes to the pool of this name.
async fn wait_for_pool(proxy: &Proxy, client: &mut RawClient, sql: &str, pool: &str) {
    let count = async || {
        let text = proxy.metrics().await;
        let lines = text.lines().filter(|line| {
            line.starts_with("bulkhead_requests_total{") && line.contains(&format!("pool=\"{pool}\""))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    eventually(&format!("{sql} goes to {pool}"), WITHIN, async || {
        let before = count().await;
        client.ask(sql).await;
        (count().await > before).then_some(())
    })
    .await;
}

async fn max_connections(proxy: &Proxy, pool: &str) -> Option<f64> {
    proxy.metric(&format!("bulkhead_pool_max_connections{{pool=\"{pool}\",server=\"primary\"}}")).await
}

#[tokio::test]
async fn the_tables_of_a_library_give_its_jobs_a_pool() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM pg_class", "primary").await;
    assert_eq!(max_connections(&proxy, "jobs").await, None);

    oban::install(&primary).await;
    // The client's own definitions are noticed at once; those of others in the next round.
    client.ask("CREATE TABLE mine ()").await;
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM oban_jobs", "jobs").await;
    let (jobs, own) = (max_connections(&proxy, "jobs").await, max_connections(&proxy, "primary").await);
    assert_eq!((jobs, own), (Some(2.0), Some(8.0)), "of the 10 that it had");
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM mine", "primary").await;
    let log = proxy.log();
    for word in
        ["preset=\"oban\"", "schema=\"public\"", "presets = [\"oban\"]", "[pools.jobs]; max_connections = 2"]
    {
        assert!(log.contains(word), "{word} is not in the log:\n{log}");
    }

    // A transaction may use both, as before.
    for sql in
        ["BEGIN", "INSERT INTO oban_jobs (worker) VALUES ('J')", "INSERT INTO mine DEFAULT VALUES", "COMMIT"]
    {
        let answer = client.ask(sql).await;
        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
    }

    client.ask("DROP TABLE oban_jobs").await;
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM mine", "primary").await;
    eventually("the pool goes with the tables", WITHIN, async || {
        (max_connections(&proxy, "primary").await == Some(10.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn workers_that_hold_every_connection_of_theirs_leave_users_alone() {
    let primary = Postgres::start(Role::Primary);
    oban::install(&primary).await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 4).to_toml());
    let mut user = RawClient::app(proxy.port()).await;
    wait_for_pool(&proxy, &mut user, "SELECT count(*) FROM oban_jobs", "jobs").await;
    let mut workers = Vec::new();
    for _ in 0..10 {
        let mut worker = RawClient::app(proxy.port()).await;
        worker.query("SELECT pg_sleep(60), count(*) FROM oban_jobs").await;
        workers.push(worker);
    }
    primary.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 1).await;
    assert_eq!(user.query_value("SELECT 1").await, "1");
    assert_eq!(user.query_value("CREATE TABLE t (); SELECT 2").await, "2");
}

#[tokio::test]
async fn what_is_named_or_refused_is_not_looked_for() {
    let primary = Postgres::start(Role::Primary);
    oban::install(&primary).await;
    let config = ProxyConfig::primary_only(&primary).set("jobs", "presets", Vec::<String>::new());
    let mut proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM oban_jobs", "primary").await;
    assert_eq!(max_connections(&proxy, "jobs").await, None);
    // A reload that leaves them open takes up what is known.
    proxy.reload_to(&config.remove("jobs")).await;
    assert_eq!(max_connections(&proxy, "jobs").await, Some(2.0));
    wait_for_pool(&proxy, &mut client, "SELECT count(*) FROM oban_jobs", "jobs").await;
}
