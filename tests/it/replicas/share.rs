//! Which of several replicas is used: the one with the fewest clients for its weight, and less of one that comes back.

use std::time::Duration;

use super::{Beside, SOON};
use crate::support::{ProxyConfig, RawClient, eventually};

/// A read that takes a while.
const SLOW: &str = "SELECT id, pg_sleep(0.6)::text FROM items WHERE id = 1";

impl Beside {
    async fn raw_clients(&self, count: usize) -> Vec<RawClient> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(RawClient::app(self.proxy.port()).await);
        }
        clients
    }

    /// The most clients that were reading at one moment, by replica, while all of these read once.
    async fn round(&self, clients: &mut [RawClient]) -> Vec<usize> {
        const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(0.6)%' \
             AND usename = 'app'";
        for client in &mut *clients {
            client.query(SLOW).await;
        }
        let mut most = vec![0; self.replicas.len()];
        for _ in 0..10 {
            let mut now = Vec::new();
            for replica in &self.replicas {
                now.push(replica.value(BUSY).await.parse().expect("a count"));
            }
            if now.iter().sum::<usize>() > most.iter().sum() {
                most = now;
            }
        }
        for client in clients {
            client.read_until_ready().await;
        }
        most
    }

    /// How many clients each replica has while all of these read at once: of the first round in which they
    /// were seen to, since one that has to connect first may come when another is done.
    async fn shares(&self, clients: &mut [RawClient]) -> Vec<usize> {
        eventually("all of them are read at once", SOON, async || {
            let shares = self.round(clients).await;
            (shares.iter().sum::<usize>() == clients.len()).then_some(shares)
        })
        .await
    }

    /// Waits until no replica has to connect first.
    async fn settle(&self, clients: &mut [RawClient], wanted: &[usize]) {
        eventually(&format!("shares are {wanted:?}"), Duration::from_secs(40), async || {
            (self.round(clients).await == wanted).then_some(())
        })
        .await;
    }
}

fn weigh(config: ProxyConfig, weights: &[i64]) -> ProxyConfig {
    weights.iter().enumerate().fold(config, |config, (at, weight)| {
        config.set(&format!("servers.replica_{}", at + 1), "weight", *weight)
    })
}

#[tokio::test]
async fn reads_are_shared_by_weight() {
    let mut beside = Beside::start(2, |config| weigh(config, &[3, 1])).await;
    let mut clients = beside.raw_clients(8).await;
    beside.settle(&mut clients, &[6, 2]).await;
    assert_eq!(beside.shares(&mut clients).await, [6, 2]);
    // A reload changes it.
    beside.proxy.reload_to(&weigh(beside.config.clone(), &[1, 1])).await;
    beside.settle(&mut clients, &[4, 4]).await;
    assert_eq!(beside.shares(&mut clients).await, [4, 4]);
}

#[tokio::test]
async fn four_replicas_share_reads() {
    let beside = Beside::start(4, |config| weigh(config, &[4, 2, 1, 1])).await;
    let mut clients = beside.raw_clients(16).await;
    beside.settle(&mut clients, &[8, 4, 2, 2]).await;
    assert_eq!(beside.shares(&mut clients).await, [8, 4, 2, 2]);
}

#[tokio::test]
async fn a_replica_that_comes_back_begins_with_an_eighth() {
    let beside = Beside::start(2, |config| config.set("pools.replicas", "max_lag", "500ms")).await;
    let client = beside.client().await;
    let mut clients = beside.raw_clients(10).await;
    beside.settle(&mut clients, &[5, 5]).await;
    let second = &beside.replicas[1];
    second.set_replay(false).await;
    eventually("it leaves", SOON, async || {
        client.batch_execute("INSERT INTO items VALUES (2)").await.expect("valid");
        beside.reads_there(&client).await;
        (!beside.serves(2).await).then_some(())
    })
    .await;
    beside.replicas[0].wait_for_replay(&beside.primary).await;
    eventually("the other one has all", SOON, async || {
        beside.reads_there(&client).await;
        (beside.of_replica("lag_bytes", 1).await < 0.5).then_some(())
    })
    .await;
    assert_eq!(beside.shares(&mut clients).await, [10, 0]);
    second.set_replay(true).await;
    eventually("it comes back", SOON, async || {
        beside.reads_there(&client).await;
        (beside.serves(2).await && beside.of_replica("lag_bytes", 2).await < 0.5).then_some(())
    })
    .await;
    let began = tokio::time::Instant::now();
    let shares = beside.shares(&mut clients).await;
    assert!((1..=3).contains(&shares[1]), "{shares:?} in {:?}", began.elapsed());
    beside.settle(&mut clients, &[5, 5]).await;
    assert!(began.elapsed() > Duration::from_secs(5), "after {:?} it has all", began.elapsed());
}
