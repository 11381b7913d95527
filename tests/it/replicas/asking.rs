//! How often servers are asked where they are, by what they log.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Beside;
use crate::support::Postgres;

/// So long each phase takes.
const LASTS: Duration = Duration::from_secs(4);

/// The health check asks the same as often.
const CHECKS: usize = 3;

/// The questions that a server has been asked.
fn asked(server: &Postgres) -> usize {
    let log = server.log();
    log.lines()
        .filter(|line| line.contains("bulkhead health check") && line.contains("pg_is_in_recovery"))
        .count()
}

impl Beside {
    /// How often each server is asked while clients do this, again and again: the primary, then the replicas.
    async fn asked_during(&self, what: &[&str]) -> Vec<usize> {
        let clients = [self.client().await, self.client().await, self.client().await];
        let servers: Vec<&Postgres> = std::iter::once(&self.primary).chain(&self.replicas).collect();
        // What came before counts for nothing, and nobody reads for longer than a read is remembered.
        sleep(Duration::from_millis(1500)).await;
        let before: Vec<usize> = servers.iter().map(|server| asked(server)).collect();
        let until = Instant::now() + LASTS;
        let busy = clients.iter().map(async |client| {
            while Instant::now() < until {
                for sql in what {
                    client.simple_query(sql).await.expect("it runs somewhere");
                }
                // The server logs all of it.
                sleep(Duration::from_millis(3)).await;
            }
        });
        let [one, two, three]: [_; 3] =
            busy.collect::<Vec<_>>().try_into().unwrap_or_else(|_| unreachable!("three"));
        tokio::join!(one, two, three);
        servers.iter().zip(before).map(|(server, before)| asked(server) - before).collect()
    }
}

#[tokio::test]
async fn servers_are_asked_as_often_as_reads_need_it() {
    const READ: &str = "SELECT id FROM items LIMIT 1";
    const WRITE: &str = "UPDATE items SET id = id WHERE id = 1";
    let beside = Beside::start(2, |config| config).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    let seconds = LASTS.as_secs() as usize;

    let both = beside.asked_during(&[READ, WRITE]).await;
    for (server, count) in both.iter().enumerate() {
        assert!(*count <= 100 * seconds + CHECKS, "server {server}: {both:?}");
    }
    assert!(both[0] > 10 * seconds, "this says nothing of the bound: {both:?}");

    let reads = beside.asked_during(&[READ]).await;
    assert!(reads[0] <= CHECKS + 1, "{reads:?}");
    for count in &reads[1..] {
        assert!((2 * seconds..=4 * seconds + CHECKS).contains(count), "{reads:?}");
    }

    for what in [&[WRITE][..], &[]] {
        let unread = beside.asked_during(what).await;
        assert!(unread.iter().all(|count| *count <= CHECKS), "{what:?}: {unread:?}");
    }
}

#[tokio::test]
async fn servers_are_asked_no_more_often_than_configured() {
    let beside = Beside::start(1, |config| config.set("pools.replicas", "sample_interval", "200ms")).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    for consistency in ["tables", "strong"] {
        let read = format!("/* bulkhead: consistency={consistency} */ SELECT id FROM items LIMIT 1");
        let asked = beside.asked_during(&[&read, "UPDATE items SET id = id WHERE id = 1"]).await;
        let most = 5 * LASTS.as_secs() as usize + CHECKS;
        assert!(asked.iter().all(|count| *count <= most), "{consistency}: {asked:?}");
        assert!(asked[0] > most / 2, "{consistency}: {asked:?}");
    }
}

#[tokio::test]
async fn the_age_of_what_is_known_of_the_primary_is_told() {
    const AGE: &str = "bulkhead_replica_sample_age_seconds";
    let beside = Beside::start(1, |config| config).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    client.batch_execute("UPDATE items SET id = id").await.expect("valid");
    beside.wait_until_read(&client, 1).await;
    // The health check renews it.
    let young = beside.proxy.metric(AGE).await.expect("the primary has been asked");
    assert!(young < 4.0, "{young}");
    beside.primary.pause();
    sleep(Duration::from_secs(3)).await;
    let old = beside.proxy.metric(AGE).await.expect("it is still known");
    beside.primary.resume();
    assert!(old >= 3.0, "{old} after {young}");
    crate::support::eventually("it is asked again", super::SOON, async || {
        (beside.proxy.metric(AGE).await? < 2.0).then_some(())
    })
    .await;
}
