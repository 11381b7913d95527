//! What workers send uses a pool of its own, however they are known.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{
    Place::{Jobs, Primary, Replica},
    Routed,
};
use crate::support::{ProxyConfig, connect};

#[tokio::test]
async fn workers_use_their_own_pool() {
    let site = Routed::configured(|cluster| {
        ProxyConfig::of(cluster)
            .pool("workers", &["primary"], 2)
            .set("workers", "application_names", vec!["worker-*"])
            // What was written a moment ago does not count.
            .set("pools.replicas", "consistency", "eventual")
    })
    .await;
    let user = site.client().await;
    let url = format!("{}?application_name=worker-7", site.proxy.url());
    let worker = connect(&url).await.expect("the proxy accepts connections");
    let counted = async || {
        (requests(&site, "workers").await, requests(&site, "primary").await, requests(&site, "jobs").await)
    };
    let before = counted().await;
    for (sql, mark) in [
        ("SELECT * FROM items", "worker reads"),
        ("UPDATE items SET name = 'worker' WHERE id = 5", "worker writes"),
        ("SELECT * FROM oban_jobs", "worker works"),
    ] {
        worker.simple_query(&format!("{sql} /* {mark} */")).await.expect("valid");
    }
    assert_eq!(site.places("worker reads"), [Primary]);
    assert_eq!(site.places("worker writes"), [Primary]);
    assert_eq!(site.places("worker works"), [Jobs]);
    let after = counted().await;
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (2, 0, 1));
    user.simple_query("SELECT * FROM items /* user reads */").await.expect("valid");
    assert_eq!(site.places("user reads"), [Replica]);
}

/// How many requests each pool has had.
async fn requests(site: &Routed, pool: &str) -> u64 {
    let text = site.proxy.metrics().await;
    let label = format!("pool=\"{pool}\"");
    let lines =
        text.lines().filter(|line| line.starts_with("bulkhead_requests_total") && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn with_workers(key: &str, value: impl Into<toml::Value>) -> Routed {
    let value = value.into();
    Routed::configured(|cluster| {
        ProxyConfig::of(cluster).pool("workers", &["primary"], 2).set("workers", key, value.clone()).set(
            "pools.replicas",
            "consistency",
            "eventual",
        )
    })
    .await
}

#[tokio::test]
async fn statements_of_workers_are_known_by_tags_in_comments() {
    let site = with_workers("comment_tags", vec!["job=*"]).await;
    let client = site.client().await;
    let tag = "/*job='Mailer%2FSend',traceparent='00-1'*/";
    let untagged = "/*controller='orders',traceparent='00-2'*/";
    for (sql, pool) in [
        (format!("UPDATE items SET name = 'a' WHERE id = 5 {tag}"), "workers"),
        (format!("UPDATE items SET name = 'a' WHERE id = 5 {untagged}"), "primary"),
        ("UPDATE items SET name = 'a' WHERE id = 5".to_owned(), "primary"),
        (format!("{tag} UPDATE items SET name = 'b' WHERE id = 5"), "workers"),
        (format!("SELECT * FROM items {tag}"), "workers"),
        (format!("SELECT * FROM items {untagged}"), "replicas"),
        (format!("SELECT 1; UPDATE items SET name = 'a' WHERE id = 5 {tag}"), "workers"),
        (format!("SELECT * FROM oban_jobs {tag}"), "jobs"),
        // A hint says more than a tag.
        (format!("/* bulkhead: route=primary */ SELECT * FROM items {tag}"), "primary"),
    ] {
        for is_extended in [false, true] {
            let before = requests(&site, pool).await;
            if is_extended && !sql.contains(';') {
                let statement = client.prepare(&sql).await.expect("valid");
                client.query(&statement, &[]).await.expect("valid");
                assert_eq!(requests(&site, pool).await - before, 2, "{sql}, prepared");
            } else {
                client.simple_query(&sql).await.expect("valid");
                assert_eq!(requests(&site, pool).await - before, 1, "{sql}");
            }
        }
    }
    // What opens a transaction decides for all of it.
    let before = (requests(&site, "workers").await, requests(&site, "primary").await);
    for sql in [
        "BEGIN",
        &format!("UPDATE items SET name = 'a' WHERE id = 5 {tag}"),
        "UPDATE items SET name = 'b' WHERE id = 5",
        "COMMIT",
    ] {
        client.simple_query(sql).await.expect("valid");
    }
    assert_eq!(requests(&site, "workers").await - before.0, 3);
    assert_eq!(requests(&site, "primary").await, before.1);
}

#[tokio::test]
async fn sessions_that_work_on_jobs_are_workers_for_a_while() {
    let site = with_workers("job_window", "3s").await;
    let (worker, user) = (site.client().await, site.client().await);
    let update = "UPDATE items SET name = 'a' WHERE id = 5";
    let runs_in = async |client: &Client, sql: &str, pool: &str| {
        let before = requests(&site, pool).await;
        client.simple_query(sql).await.expect("valid");
        assert_eq!(requests(&site, pool).await - before, 1, "{sql}");
    };
    runs_in(&worker, update, "primary").await;
    // Whoever adds jobs, or looks at them, is no worker.
    runs_in(&worker, "INSERT INTO oban_jobs (worker) VALUES ('w')", "jobs").await;
    runs_in(&worker, "SELECT count(*) FROM oban_jobs", "jobs").await;
    runs_in(&worker, update, "primary").await;
    let claim = "UPDATE oban_jobs SET state = 'executing' WHERE id IN (SELECT id FROM oban_jobs \
                 WHERE state = 'available' LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id";
    runs_in(&worker, claim, "jobs").await;
    let claimed = Instant::now();
    runs_in(&worker, update, "workers").await;
    runs_in(&worker, "SELECT * FROM items", "workers").await;
    runs_in(&user, update, "primary").await;
    assert!(claimed.elapsed() < Duration::from_secs(3), "the machine is too slow for this to say something");
    tokio::time::sleep(Duration::from_millis(3200)).await;
    runs_in(&worker, update, "primary").await;
}
