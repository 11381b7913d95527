//! A session that uses both servers when something happens to one of them, or to the configuration: what it says next goes
//! where it belongs, or is refused.

use std::time::Duration;

use super::{Both, COUNT, ITEM, JOB};
use crate::support::{ProxyConfig, RawClient, Stop, error_code, short};

/// A read that takes a second or more before anything of its answer comes.
const SLOW_READ: &str = "SELECT count(*) FROM generate_series(1, 20000000) n";

async fn begin_slow_read(site: &Both, client: &mut RawClient) {
    client.query(SLOW_READ).await;
    let which = "state = 'active' AND query LIKE '%generate_series%'";
    site.primary.wait_for_app_backends(which, 1).await;
}

/// A transaction that has written on the primary when the pool of the jobs is moved there: it is not gone on with in a second
/// transaction of the same server, of which only one would be committed.
#[tokio::test]
async fn a_transaction_does_not_follow_a_pool_that_is_moved() {
    let mut kept = None;
    let mut site = Both::configured(|config| {
        kept = Some(config.clone());
        config
    })
    .await;
    let kept: ProxyConfig = kept.expect("it was given");
    let moved = kept.pool("jobs", &["primary"], 2).remove("servers.jobs");
    let mut client = site.client().await;
    for (sql, expected) in [("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T")] {
        assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
    }
    site.proxy.reload_to(&moved).await;
    assert_eq!(short(&client.ask(COUNT).await), "40001 E");
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert_eq!(site.primary.value("SELECT count(*) FROM items").await, "0");
    // The next one finds both on one server.
    for (sql, expected) in
        [("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (JOB, "INSERT 0 1 T"), ("COMMIT", "COMMIT I")]
    {
        assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
    }
    let both = "SELECT (SELECT count(*) FROM items) || ' ' || (SELECT count(*) FROM oban_jobs)";
    assert_eq!(site.primary.value(both).await, "1 1");
    assert_eq!(site.jobs.value("SELECT count(*) FROM oban_jobs").await, "0");
}

/// A read is lost, and cannot be run once more: what follows is no repetition, and goes where it belongs.
#[tokio::test]
async fn what_follows_a_read_that_could_not_be_repeated_goes_where_it_belongs() {
    let site = Both::configured(|config| config.set("pools.primary", "wait_timeout", "1s")).await;
    let mut client = site.client().await;
    begin_slow_read(&site, &mut client).await;
    site.primary.stop(Stop::Immediate);
    let code = error_code(&client.read_until_ready().await).expect("there is no primary");
    assert!(matches!(code.as_str(), "08006" | "57P03" | "53300"), "{code}");
    assert_eq!(short(&client.ask(JOB).await), "INSERT 0 1 I");
    assert_eq!(site.jobs.value("SELECT count(*) FROM oban_jobs").await, "1");
}

/// Who has asked for the job database by a setting is not answered by the primary when that is lost.
#[tokio::test]
async fn a_read_of_a_server_that_was_asked_for_is_run_nowhere_else() {
    let site = Both::start().await;
    let mut client = site.client().await;
    client.ask("SET bulkhead.route = 'job'").await;
    client.query(SLOW_READ).await;
    let which = "state = 'active' AND query LIKE '%generate_series%'";
    site.jobs.wait_for_app_backends(which, 1).await;
    site.jobs.end_app_backends(which).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), client.read_until_ready()).await;
    assert_eq!(error_code(&answer.expect("an answer")).as_deref(), Some("57P01"));
}
