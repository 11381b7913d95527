//! What ends a read that is held until a replica has what it needs.

use std::time::Duration;

use tokio::time::Instant;

use super::{Beside, SOON};
use crate::support::{RawClient, eventually};

const CANCELED: &str = "57014";

/// Longer than any test.
const HELD: &str = "10m";

const READ: &str = "SELECT id FROM items LIMIT 1";

/// A replica that stands still behind a write, and a client whose read waits for it.
async fn held(is_extended: bool) -> (Beside, RawClient) {
    let beside = Beside::start(1, |config| config.set("pools.replicas", "causal_wait", HELD)).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    beside.replicas[0].set_replay(false).await;
    client.batch_execute("INSERT INTO items VALUES (2)").await.expect("valid");
    let mut raw = RawClient::app(beside.proxy.port()).await;
    beside.hold(&mut raw, is_extended).await;
    (beside, raw)
}

impl Beside {
    /// Sends a read that is held. While a replica does not answer in time, on a machine that is busy, the primary runs it.
    async fn hold(&self, raw: &mut RawClient, is_extended: bool) {
        eventually("a read is held", SOON, async || {
            if is_extended {
                raw.parse("", READ).bind("", "", &[]).execute("", 0).sync().flush().await;
            } else {
                raw.query(READ).await;
            }
            let answer = tokio::time::timeout(Duration::from_millis(300), raw.read_until_ready()).await;
            answer.is_err().then_some(())
        })
        .await;
    }

    /// Nothing is left of it: neither a place in a pool, nor anybody who waits, nor a statement on a server.
    async fn check_nothing_is_left(&self, clients: f64) {
        self.proxy.wait_for_metric("bulkhead_clients", clients).await;
        for (pool, server) in [("primary", "primary"), ("replicas", "replica_1")] {
            let labels = format!("pool=\"{pool}\",server=\"{server}\"");
            self.proxy.wait_for_metric(&format!("bulkhead_pool_waiting{{{labels}}}"), 0.0).await;
            let active = format!("bulkhead_pool_connections{{{labels},state=\"active\"}}");
            self.proxy.wait_for_metric(&active, 0.0).await;
        }
        for server in [&self.primary, &self.replicas[0]] {
            server.wait_for_app_backends("state <> 'idle'", 0).await;
        }
    }
}

#[tokio::test]
async fn a_cancel_ends_a_read_that_is_held() {
    for is_extended in [false, true] {
        let (beside, mut raw) = held(is_extended).await;
        let (pid, secret) = raw.key().clone();
        let held = "bulkhead_replica_reads_total{on=\"replica\",reason=\"held\"}";
        // On a busy machine some of those before were held for a moment.
        let before = beside.proxy.metric(held).await.expect("it is counted");
        loop {
            let began = Instant::now();
            RawClient::cancel(beside.proxy.port(), pid, &secret).await;
            let error = raw.read_error().await.map(|[code, ..]| code);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            if error.is_some() {
                assert_eq!(error.as_deref(), Some(CANCELED));
                break;
            }
            let silent = beside
                .proxy
                .metric("bulkhead_replica_reads_total{on=\"primary\",reason=\"no_replica\"}")
                .await;
            assert!(silent > Some(0.0), "it was answered, and the replica did answer");
            beside.hold(&mut raw, is_extended).await;
        }
        // The one client that `held` has for its own is gone.
        beside.check_nothing_is_left(1.0).await;
        // The cancel does not hit what comes next, here or elsewhere.
        assert_eq!(raw.query_value("/* bulkhead: route=primary */ SELECT count(*) FROM items").await, "2");
        beside.replicas[0].set_replay(true).await;
        assert_eq!(raw.query_value("SELECT count(*) FROM items").await, "2");
        let held = beside.proxy.metric(held).await;
        assert!(held <= Some(before + 1.0), "the one that was cancelled does not count");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_read_that_is_held() {
    for resets in [false, true] {
        let (beside, mut raw) = held(false).await;
        if resets {
            raw.reset();
        } else {
            raw.terminate().await;
            drop(raw);
        }
        beside.check_nothing_is_left(0.0).await;
        beside.replicas[0].set_replay(true).await;
    }
}

#[tokio::test]
async fn a_replica_that_dies_ends_the_wait_for_it() {
    let (beside, mut raw) = held(false).await;
    beside.replicas[0].kill();
    let answer = tokio::time::timeout(Duration::from_secs(30), raw.read_until_ready()).await;
    assert_eq!(RawClient::tags(&answer.expect("the primary answers")), "TDCZ");
}
