//! The names and labels of pgbouncer_exporter that dashboards and alerts made for it ask for.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::support::Prometheus;

/// What the community's mixin (grafana/jsonnet-libs, pgbouncer-mixin) chooses by, beside `job`, `pgbouncer_cluster` and
/// `instance`, which Prometheus adds.
const ASKED: [(&str, &[&str]); 16] = [
    ("pgbouncer_pools_client_active_connections", &["database", "user"]),
    ("pgbouncer_pools_client_waiting_connections", &["database", "user"]),
    ("pgbouncer_pools_client_maxwait_seconds", &["database", "user"]),
    ("pgbouncer_pools_server_active_connections", &["database", "user"]),
    ("pgbouncer_pools_server_idle_connections", &["database", "user"]),
    ("pgbouncer_pools_server_used_connections", &["database", "user"]),
    ("pgbouncer_pools_server_testing_connections", &["database", "user"]),
    ("pgbouncer_pools_server_login_connections", &["database", "user"]),
    ("pgbouncer_databases_max_connections", &["database"]),
    ("pgbouncer_databases_current_connections", &["database"]),
    ("pgbouncer_stats_queries_pooled_total", &["database"]),
    ("pgbouncer_stats_queries_duration_seconds_total", &["database"]),
    ("pgbouncer_stats_sql_transactions_pooled_total", &["database"]),
    ("pgbouncer_stats_server_in_transaction_seconds_total", &["database"]),
    ("pgbouncer_stats_received_bytes_total", &["database"]),
    ("pgbouncer_stats_sent_bytes_total", &["database"]),
];

/// The same, without labels of its own.
const PLAIN: [&str; 2] = ["pgbouncer_config_max_client_connections", "pgbouncer_config_max_user_connections"];

const OURS: &str = "job=\"integrations/pgbouncer\",pgbouncer_cluster=~\"test\",instance=~\".+\"";

/// The largest value of an expression; fails if it has none.
async fn largest(prometheus: &Prometheus, expression: &str) -> f64 {
    let samples = prometheus.query(expression).await;
    let values = samples.iter().filter_map(|sample| sample["value"][1].as_str()?.parse::<f64>().ok());
    values.reduce(f64::max).unwrap_or_else(|| panic!("{expression} has no data"))
}

/// Its queries and alerts have data, and the right data: pools are databases, full ones are told from others.
pub(super) async fn check(prometheus: &Prometheus) {
    for (name, labels) in ASKED {
        let chosen: Vec<String> = labels.iter().map(|label| format!("{label}=~\".+\"")).collect();
        let samples = prometheus.query(&format!("{name}{{{OURS},{}}}", chosen.join(","))).await;
        assert!(!samples.is_empty(), "{name} is not there with {labels:?}");
        if labels.contains(&"user") {
            let pool = |sample: &Value| sample["metric"]["database"].as_str().map(ToOwned::to_owned);
            let pools: BTreeSet<String> = samples.iter().filter_map(pool).collect();
            let all = ["primary", "replicas", "jobs", "full", "slow", "long", "pinned"];
            assert_eq!(pools, all.map(ToOwned::to_owned).into(), "{name}");
        }
        if name.ends_with("_total") {
            let rate = largest(prometheus, &format!("sum(rate({name}{{{OURS}}}[10s]))")).await;
            assert!(rate > 0.0, "{name} does not grow");
        }
    }
    for name in PLAIN {
        assert!(largest(prometheus, &format!("sum({name}{{{OURS}}})")).await >= 10.0, "{name}");
    }
    // Average duration of queries in milliseconds, as its panels have it: with the interval to come.
    let average = "1000 * increase(pgbouncer_stats_queries_duration_seconds_total[5s:] offset -5s) \
                   / clamp_min(increase(pgbouncer_stats_queries_pooled_total[5s:] offset -5s), 1)";
    let samples = prometheus.query_before(average, Duration::from_secs(7)).await;
    let of_long = samples.iter().find(|sample| sample["metric"]["database"] == "long");
    let milliseconds = of_long.and_then(|sample| sample["value"][1].as_str()?.parse().ok());
    assert!(milliseconds.is_some_and(|time: f64| (1_000.0..20_000.0).contains(&time)), "{samples:?}");
    // Its alerts.
    let waiting = "pgbouncer_pools_client_waiting_connections{database=\"slow\"} > 0";
    assert!(largest(prometheus, waiting).await < 20.0);
    assert!(largest(prometheus, "pgbouncer_pools_client_maxwait_seconds{database=\"slow\"}").await < 15.0);
    let saturation = "100 * (sum without (database, user) (pgbouncer_pools_server_active_connections{} \
                      + pgbouncer_pools_server_idle_connections{} + pgbouncer_pools_server_used_connections{}) \
                      / clamp_min(pgbouncer_config_max_user_connections{}, 1))";
    let saturation = largest(prometheus, saturation).await;
    assert!((10.0..=100.0).contains(&saturation), "{saturation} %");
    assert!(largest(prometheus, "pgbouncer_up").await >= 1.0);
}
