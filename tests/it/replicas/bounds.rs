//! Replicas that serve no reads, and whose reads the primary serves instead.

use std::time::Duration;

use tokio::time::Instant;

use super::{Beside, SOON, logging};
use crate::support::{Postgres, Role, eventually};

/// Where a replica that is behind is used as long as it is within its bounds.
fn eventual(config: crate::support::ProxyConfig) -> crate::support::ProxyConfig {
    config.set("pools.replicas", "consistency", "eventual")
}

async fn set_delay(replica: &Postgres, delay: &str) {
    replica.query(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")).await;
    replica.query("SELECT pg_reload_conf()").await;
}

impl Beside {
    /// Writes and reads for two seconds in which the replica is behind by what lies between half its bound of 2 s and all of it;
    /// whether it serves reads, which must not change.
    async fn serves_while_in_between(&self, client: &tokio_postgres::Client) -> bool {
        let (mut since, mut serves) = (None, None);
        eventually("it is behind by that for a while", Duration::from_secs(30), async || {
            client.batch_execute("INSERT INTO items VALUES (2)").await.expect("valid");
            let there = self.reads_there(client).await == 1;
            if (1.1..1.9).contains(&self.of_replica("lag_seconds", 1).await) {
                let began = *since.get_or_insert_with(Instant::now);
                assert_eq!(*serves.get_or_insert(there), there, "after {:?}", began.elapsed());
                return (began.elapsed() > Duration::from_secs(2)).then_some(());
            }
            (since, serves) = (None, None);
            None
        })
        .await;
        serves.expect("it was seen")
    }

    async fn write_until(&self, client: &tokio_postgres::Client, there: usize) {
        eventually(&format!("{there} replicas serve reads"), SOON, async || {
            client.batch_execute("INSERT INTO items VALUES (2)").await.expect("valid");
            (self.reads_there(client).await == there).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_leaves_beyond_max_lag_and_comes_back_below_half_of_it() {
    let beside = Beside::start(1, |config| eventual(config).set("pools.replicas", "max_lag", "2s")).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    assert!(beside.serves(1).await);
    set_delay(&beside.replicas[0], "1500ms").await;
    assert!(beside.serves_while_in_between(&client).await, "it has not been further behind");
    set_delay(&beside.replicas[0], "1h").await;
    beside.write_until(&client, 0).await;
    assert!(!beside.serves(1).await);
    set_delay(&beside.replicas[0], "1500ms").await;
    assert!(!beside.serves_while_in_between(&client).await, "it is not behind by less than half");
    set_delay(&beside.replicas[0], "0").await;
    beside.write_until(&client, 1).await;
    set_delay(&beside.replicas[0], "1500ms").await;
    assert!(beside.serves_while_in_between(&client).await, "it is in again");
    let no_replica = "bulkhead_replica_reads_total{on=\"primary\",reason=\"no_replica\"}";
    assert!(beside.proxy.metric(no_replica).await.expect("it is counted") >= 1.0);
}

#[tokio::test]
async fn a_replica_leaves_beyond_max_lag_bytes() {
    let beside =
        Beside::start(1, |config| eventual(config).set("pools.replicas", "max_lag_bytes", "1MB")).await;
    let client = beside.client().await;
    beside.wait_until_read(&client, 1).await;
    beside.replicas[0].set_replay(false).await;
    let write = async |rows: u32| {
        let sql = format!("INSERT INTO items SELECT generate_series(1, {rows})");
        client.batch_execute(&sql).await.expect("valid");
        eventually("it is known to be behind by that", SOON, async || {
            beside.reads_there(&client).await;
            // A row takes at least as much.
            (beside.of_replica("lag_bytes", 1).await > f64::from(rows) * 30.0).then_some(())
        })
        .await;
    };
    write(3_000).await;
    assert!(beside.of_replica("lag_bytes", 1).await < 500_000.0);
    assert_eq!(beside.reads_there(&client).await, 1);
    write(50_000).await;
    beside.wait_until_read(&client, 0).await;
    assert!(!beside.serves(1).await);
    beside.replicas[0].set_replay(true).await;
    beside.wait_until_read(&client, 1).await;
}

/// It looks like a replica, and has other data.
#[tokio::test]
async fn a_replica_of_another_cluster_serves_nothing() {
    for consistency in ["tables", "eventual", "strong"] {
        let other = Postgres::builder(Role::Jobs).setting("log_statement", "all").start();
        let replica = Postgres::start(Role::ReplicaOf(&other));
        other.query("SET ROLE app; CREATE TABLE items (id int); INSERT INTO items VALUES (1)").await;
        replica.wait_for_replay(&other).await;
        let beside = Beside::of(logging(), vec![replica], |config| {
            config.set("pools.replicas", "consistency", consistency)
        })
        .await;
        let client = beside.client().await;
        // Nothing is a read before the catalog is there; from then on it is one that no replica serves.
        let no_replica = "bulkhead_replica_reads_total{on=\"primary\",reason=\"no_replica\"}";
        eventually("a read is not served", SOON, async || {
            client.simple_query("SELECT id FROM items").await.expect("it runs somewhere");
            (beside.proxy.metric(no_replica).await? > 0.0).then_some(())
        })
        .await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_eq!(beside.reads_there(&client).await, 0, "{consistency}, after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!beside.serves(1).await, "{consistency}");
    }
}

/// Everybody may by default: somebody has taken it away.
#[tokio::test]
async fn reads_stay_on_the_primary_if_a_replica_cannot_tell_where_it_is() {
    for function in ["pg_control_checkpoint()", "pg_control_recovery()", "pg_control_system()"] {
        let primary = logging();
        let replica = Postgres::start(Role::ReplicaOf(&primary));
        primary.query(&format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")).await;
        replica.wait_for_replay(&primary).await;
        // The rights are of one database.
        let revoked = format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC");
        primary.admin_of("app").await.batch_execute(&revoked).await.expect("valid");
        replica.wait_for_replay(&primary).await;
        let beside = Beside::of(primary, vec![replica], |config| config).await;
        let client = beside.client().await;
        beside.proxy.wait_for_log("the server does not tell where its WAL is").await;
        beside
            .proxy
            .wait_for_log(&format!("permission denied for function {}", &function[..function.len() - 2]))
            .await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_eq!(beside.reads_there(&client).await, 0, "{function}, after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let said = beside.proxy.log().matches("does not tell where its WAL is").count();
        assert!(said <= 4, "{said} times");
        // It may again, as the next connection finds.
        beside
            .primary
            .admin_of("app")
            .await
            .batch_execute(&revoked.replace("REVOKE", "GRANT").replace("FROM", "TO"))
            .await
            .expect("valid");
        beside.replicas[0].wait_for_replay(&beside.primary).await;
        for server in [&beside.primary, &beside.replicas[0]] {
            server
                .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
                .await;
        }
        eventually("replicas are used", SOON, async || {
            let client = beside.client().await;
            client.simple_query("SELECT 1").await.ok()?;
            (beside.reads_there(&client).await == 1).then_some(())
        })
        .await;
    }
}
