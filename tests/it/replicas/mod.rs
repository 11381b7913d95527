//! What README promises of replicas, on real servers.
//!
//! | file | holds |
//! |---|---|
//! | `bounds.rs` | replicas that are too far behind, of another cluster, or do not tell where they are |
//! | `share.rs` | which of several replicas is used |
//! | `asking.rs` | how often servers are asked |
//! | `held.rs` | what ends a read that is held |
//! | `databases.rs` | tables of many databases |

mod asking;
mod bounds;
mod databases;
mod held;
mod share;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio_postgres::Client;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, Role, connect, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Numbers the marks.
static MARKS: AtomicU32 = AtomicU32::new(0);

/// A primary with replicas, all of which log every statement, behind a proxy.
struct Beside {
    // Dropped first, so that it does not complain of its servers.
    proxy: Proxy,
    config: ProxyConfig,
    replicas: Vec<Postgres>,
    primary: Postgres,
}

impl Beside {
    async fn start(count: usize, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = logging();
        // This tells them from their primary.
        let replicas = (0..count).map(|_| {
            Postgres::builder(Role::ReplicaOf(&primary)).setting("quote_all_identifiers", "on").start()
        });
        let replicas = replicas.collect();
        Self::of(primary, replicas, change).await
    }

    async fn of(
        primary: Postgres,
        replicas: Vec<Postgres>,
        change: impl FnOnce(ProxyConfig) -> ProxyConfig,
    ) -> Self {
        primary.query("SET ROLE app; CREATE TABLE items (id int); INSERT INTO items VALUES (1)").await;
        let mut config = ProxyConfig::primary_only(&primary).set("auth", "method", "trust");
        let names: Vec<String> = (1..=replicas.len()).map(|number| format!("replica_{number}")).collect();
        for (name, replica) in names.iter().zip(&replicas) {
            config = config.set(&format!("servers.{name}"), "url", replica.url(Login::App));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let config = change(config.pool("replicas", &names, 20));
        let proxy = Proxy::start(&config.to_toml());
        Self { proxy, config, replicas, primary }
    }

    async fn client(&self) -> Client {
        connect(&self.proxy.url()).await.expect("the proxy accepts connections")
    }

    /// Reads, and tells how many replicas have run it: one, or none and the primary has.
    async fn reads_there(&self, client: &Client) -> usize {
        let mark = format!("/* read {} */", MARKS.fetch_add(1, Ordering::Relaxed));
        client.simple_query(&format!("SELECT id FROM items {mark}")).await.expect("it runs somewhere");
        let there = self.replicas.iter().filter(|replica| replica.log().contains(&mark)).count();
        assert_eq!(there + usize::from(self.primary.log().contains(&mark)), 1, "{mark} runs once");
        there
    }

    /// Waits until reads run on replicas, or do not.
    async fn wait_until_read(&self, client: &Client, there: usize) {
        eventually(&format!("a read is run by {there} replicas"), SOON, async || {
            (self.reads_there(client).await == there).then_some(())
        })
        .await;
    }

    /// Whether a replica serves reads.
    async fn serves(&self, number: usize) -> bool {
        self.of_replica("serves_reads", number).await > 0.5
    }

    /// What one metric says of a replica.
    async fn of_replica(&self, metric: &str, number: usize) -> f64 {
        let sample = format!("bulkhead_replica_{metric}{{server=\"replica_{number}\"}}");
        self.proxy.metric(&sample).await.unwrap_or_else(|| panic!("{sample} is missing"))
    }
}

fn logging() -> Postgres {
    Postgres::builder(Role::Primary).setting("log_statement", "all").start()
}
