//! How many reads stay on a replica that is behind, when some tables are written all the time.

use std::time::{Duration, Instant};

use super::tell;
use crate::support::{Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Role, error_code};

/// What the replica is behind by.
const LAG: &str = "100ms";

const TABLES: usize = 20;
/// A tenth of them are written.
const WRITTEN: usize = 2;
/// One request in so many is a write.
const WRITES_EVERY: u64 = 20;

const CLIENTS: u64 = 8;
const LASTS: Duration = Duration::from_secs(4);

/// How a row of a table is changed.
type Write = fn(usize) -> String;

/// A replica that is behind by [`LAG`], and a proxy that keeps to what was written to the tables that a read reaches.
struct Behind {
    proxy: Proxy,
    _servers: [Postgres; 2],
}

impl Behind {
    async fn start() -> Self {
        let primary = Postgres::start(Role::Primary);
        let replica =
            Postgres::builder(Role::ReplicaOf(&primary)).setting("recovery_min_apply_delay", LAG).start();
        let tables = (0..TABLES).map(|at| {
            format!(
                "CREATE TABLE t{at} (n int); INSERT INTO t{at} VALUES (0); ALTER TABLE t{at} OWNER TO app;"
            )
        });
        primary.query(&tables.collect::<String>()).await;
        replica.wait_for_replay(&primary).await;
        let config = ProxyConfig::primary_only(&primary)
            .set("servers.replica_1", "url", replica.url(Login::App))
            .pool("replicas", &["replica_1"], 10);
        Self { proxy: Proxy::start(&config.to_toml()), _servers: [primary, replica] }
    }

    /// Reads that ran on the replica, and all that might have.
    async fn reads(&self) -> (f64, f64) {
        let metrics = self.proxy.metrics().await;
        let sum = |on: &str| -> f64 {
            let begins = format!("bulkhead_replica_reads_total{{on=\"{on}\"");
            let lines = metrics.lines().filter(|line| line.starts_with(&begins));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        (sum("replica"), sum("replica") + sum("primary"))
    }

    /// The share of reads that ran on the replica while clients wrote in this way.
    async fn share(&self, write: Write) -> f64 {
        let before = self.reads().await;
        let clients = (0..CLIENTS).map(|seed| {
            let port = self.proxy.port();
            tokio::spawn(async move {
                let mut random = Random::new(seed + 1);
                let mut client = RawClient::app(port).await;
                let began = Instant::now();
                while began.elapsed() < LASTS {
                    if random.below(WRITES_EVERY) == 0 {
                        let sql = write(random.below(WRITTEN as u64) as usize);
                        assert_eq!(error_code(&client.ask(&sql).await), None, "{sql}");
                    } else {
                        let sql = format!("SELECT n FROM t{}", random.below(TABLES as u64));
                        client.query_value(&sql).await;
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("no panic");
        }
        let after = self.reads().await;
        assert!(after.1 - before.1 > 500.0, "{} reads", after.1 - before.1);
        (after.0 - before.0) / (after.1 - before.1)
    }
}

#[tokio::test]
async fn reads_of_tables_that_are_not_written_stay_on_replicas() {
    let behind = Behind::start().await;
    // Until it is known what the replica has.
    behind.share(|at| format!("UPDATE t{at} SET n = n + 1")).await;
    let by_table = behind.share(|at| format!("UPDATE t{at} SET n = n + 1")).await;
    // What is not proven counts for all tables, as if there were one stamp for all.
    let by_one = behind.share(|at| format!("DO $$ BEGIN UPDATE t{at} SET n = n + 1; END $$")).await;
    tell(&format!(
        "on the replica: {:.1} % by table, {:.1} % with one stamp",
        by_table * 100.0,
        by_one * 100.0
    ));
    assert!(by_table >= 0.85, "only {:.1} % of the reads ran on the replica", by_table * 100.0);
    assert!(by_one < 0.5, "{:.1} % with one stamp for all tables: this compares nothing", by_one * 100.0);
}
