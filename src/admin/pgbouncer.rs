//! The names of pgbouncer_exporter, for dashboards and alerts that were made for it (`metrics.pgbouncer_names`).
//!
//! The figures are those of the console, which has them in PgBouncer's words: a database is a pool here. Left out is what
//! has a label that clients choose (`pgbouncer_client_connections`, by `application_name`).

use std::collections::{BTreeMap, BTreeSet};

use prometheus::proto::MetricFamily;

use super::{
    metrics::list::{Described, Kind, Label, USERS_MAX, Unit, Values},
    samples::{Sample, label},
};
use crate::{
    console::figures::{Figures, Row, Seen},
    shared::Snapshot,
};

/// The label of all users that are not told apart.
const OTHER_USERS: &str = "(others)";

const DATABASE: Label = Label { name: "database", values: Values::Pools };
const NAME: Label = Label { name: "name", values: Values::Pools };
const USER: Label = Label { name: "user", values: Values::Users };
const HOST: Label = Label { name: "host", values: Values::One };
const PORT: Label = Label { name: "port", values: Values::One };
const SERVER_DATABASE: Label = Label { name: "database", values: Values::One };
const FORCE_USER: Label = Label { name: "force_user", values: Values::One };
const POOL_MODE: Label =
    Label { name: "pool_mode", values: Values::Words(|| vec!["transaction", "session"]) };
const VERSION: Label = Label { name: "version", values: Values::One };

/// A column of the console, and the metric that it is.
pub(super) struct Column {
    column: &'static str,
    pub(super) metric: Described,
}

/// The columns of one result of the console, a line for each: its name, type, name, unit, meaning.
macro_rules! columns {
    ($table:ident $labels:tt $($column:literal $kind:ident $name:literal $unit:ident $meaning:literal;)*) => {
        pub(super) const $table: &[Column] = &[$(Column {
            column: $column,
            metric: Described {
                name: $name,
                kind: Kind::$kind,
                labels: &$labels,
                unit: Unit::$unit,
                meaning: $meaning,
            },
        }),*];
    };
}

columns! { POOLS [DATABASE, USER]
    "cl_active" Gauge "pgbouncer_pools_client_active_connections" Count "Clients of the user that use the pool, or would use it first.";
    "cl_active_cancel_req" Gauge "pgbouncer_pools_client_active_cancel_connections" Count "Cancel requests that are under way to the server.";
    "cl_waiting" Gauge "pgbouncer_pools_client_waiting_connections" Count "Clients that wait for a server connection.";
    "cl_waiting_cancel_req" Gauge "pgbouncer_pools_client_waiting_cancel_connections" Count "Always 0: cancel requests do not wait.";
    "sv_active" Gauge "pgbouncer_pools_server_active_connections" Count "Server connections that a client uses.";
    "sv_active_cancel" Gauge "pgbouncer_pools_server_active_cancel_connections" Count "Server connections that bring a cancel request.";
    "sv_being_canceled" Gauge "pgbouncer_pools_server_being_canceled_connections" Count "Server connections that such a request is for.";
    "sv_idle" Gauge "pgbouncer_pools_server_idle_connections" Count "Server connections that are free for use.";
    "sv_used" Gauge "pgbouncer_pools_server_used_connections" Count "Server connections that are free and have been for longer than check_after.";
    "sv_tested" Gauge "pgbouncer_pools_server_testing_connections" Count "Always 0.";
    "sv_login" Gauge "pgbouncer_pools_server_login_connections" Count "Server connections that are being opened.";
    "maxwait" Gauge "pgbouncer_pools_client_maxwait_seconds" Seconds "How long the client that waits longest has waited.";
}

columns! { TOTALS [DATABASE]
    "query_count" Counter "pgbouncer_stats_queries_pooled_total" Count "Requests: what clients send up to a Query or Sync.";
    "query_time" Counter "pgbouncer_stats_queries_duration_seconds_total" Seconds "Time that requests took.";
    "bytes_received" Counter "pgbouncer_stats_received_bytes_total" Bytes "Bytes sent to servers for clients.";
    "bytes_sent" Counter "pgbouncer_stats_sent_bytes_total" Bytes "Bytes that came from servers for clients.";
    "wait_time" Counter "pgbouncer_stats_client_wait_seconds_total" Seconds "Time that clients waited for a server connection.";
    "xact_count" Counter "pgbouncer_stats_sql_transactions_pooled_total" Count "Transactions.";
    "xact_time" Counter "pgbouncer_stats_server_in_transaction_seconds_total" Seconds "Time that server connections were in use, counted when they come back.";
    "client_parse_count" Counter "pgbouncer_stats_client_parses_total" Count "Always 0: prepared statements are not counted by pools.";
    "server_parse_count" Counter "pgbouncer_stats_server_parses_total" Count "Always 0, as above.";
    "bind_count" Counter "pgbouncer_stats_binds_total" Count "Always 0, as above.";
    "server_assignment_count" Counter "pgbouncer_stats_server_assignments_total" Count "Times that a client was given a server connection.";
}

columns! { DATABASES [NAME, HOST, PORT, SERVER_DATABASE, FORCE_USER, POOL_MODE]
    "pool_size" Gauge "pgbouncer_databases_pool_size" Count "Server connections that the pool may have, on all of its servers.";
    "reserve_pool_size" Gauge "pgbouncer_databases_reserve_pool" Count "Always 0: there is no reserve.";
    "max_connections" Gauge "pgbouncer_databases_max_connections" Count "The same as the pool's size.";
    "current_connections" Gauge "pgbouncer_databases_current_connections" Count "Server connections that the pool has.";
    "paused" Gauge "pgbouncer_databases_paused" Flag "1 while the pool is paused.";
    "disabled" Gauge "pgbouncer_databases_disabled" Flag "1 while the pool is disabled.";
}

columns! { LISTS []
    "databases" Gauge "pgbouncer_databases" Count "Pools.";
    "users" Gauge "pgbouncer_users" Count "Users that the configuration knows.";
    "pools" Gauge "pgbouncer_pools" Count "Pools by user.";
    "free_clients" Gauge "pgbouncer_free_clients" Count "Client connections that may come.";
    "used_clients" Gauge "pgbouncer_used_clients" Count "Client connections.";
    "login_clients" Gauge "pgbouncer_login_clients" Count "Client connections that are logging in.";
    "free_servers" Gauge "pgbouncer_free_servers" Count "Server connections that may be opened.";
    "used_servers" Gauge "pgbouncer_used_servers" Count "Server connections.";
    "dns_names" Gauge "pgbouncer_cached_dns_names" Count "Always 0: the system looks names up.";
    "dns_zones" Gauge "pgbouncer_cached_dns_zones" Count "Always 0, as above.";
    "dns_queries" Gauge "pgbouncer_in_flight_dns_queries" Count "Always 0, as above.";
}

columns! { OTHERS []
    "up" Gauge "pgbouncer_up" Flag "Always 1.";
    "max_client_conn" Gauge "pgbouncer_config_max_client_connections" Count "Client connections that may be open at once.";
    "max_user_connections" Gauge "pgbouncer_config_max_user_connections" Count "Server connections that one user may have: those of all pools, since no user has a bound of its own. (The console says 0, which PgBouncer has for no bound.)";
}

const VERSION_INFO: Described = Described {
    name: "pgbouncer_version_info",
    kind: Kind::Gauge,
    labels: &[VERSION],
    unit: Unit::Flag,
    meaning: "Always 1; the label tells which version of PgBouncer the console is like.",
};

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Described> {
    let columns = [OTHERS, POOLS, TOTALS, DATABASES, LISTS].into_iter().flatten();
    std::iter::once(VERSION_INFO).chain(columns.map(|column| column.metric))
}

/// The families of all of them.
pub(super) fn families(shared: &Snapshot) -> Vec<MetricFamily> {
    let mut families = vec![VERSION_INFO.of([with([("version", shared.console.like.release())], 1.0)])];
    families.extend(others(shared));
    let seen = Seen::now(shared);
    families.extend(of_users(&seen.pools()));
    families.extend(of_rows(TOTALS, &seen.totals()));
    families.extend(of_rows(DATABASES, &seen.databases()));
    families.extend(of_lists(&seen.lists()));
    families
}

fn with<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: f64) -> Sample {
    Sample { labels: labels.into_iter().map(label).collect(), value }
}

fn others(shared: &Snapshot) -> impl Iterator<Item = MetricFamily> {
    let members = shared.pools.iter().flat_map(|pool| &pool.members);
    let places: usize = members.map(|member| member.figures().max_connections).sum();
    let values = [1, shared.limits.max_clients, places];
    OTHERS.iter().zip(values).map(|(column, value)| column.metric.is(value as u64))
}

/// The value of a column in the metric's unit; times are in microseconds on the console.
fn value(column: &Column, row: Row<'_>) -> f64 {
    let number = row.number(column.column) as f64;
    match column.column {
        "maxwait" => number + row.number("maxwait_us") as f64 / 1e6,
        _ if column.metric.unit == Unit::Seconds => number / 1e6,
        _ => number,
    }
}

/// The values of a user's part of a pool; of those users that are not told apart together.
fn of_users(pools: &Figures) -> Vec<MetricFamily> {
    let names: BTreeSet<String> = pools.rows().map(|row| row.text("user")).collect();
    let told: BTreeSet<&String> = names.iter().take(USERS_MAX).collect();
    let mut parts: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for row in pools.rows() {
        let user = row.text("user");
        let user = if told.contains(&user) { user } else { OTHER_USERS.to_owned() };
        let sums = parts.entry((row.text("database"), user)).or_insert_with(|| vec![0.0; POOLS.len()]);
        for (column, sum) in POOLS.iter().zip(sums) {
            let value = value(column, row);
            *sum = if column.column == "maxwait" { sum.max(value) } else { *sum + value };
        }
    }
    let family = |(at, column): (usize, &Column)| {
        column.metric.of(parts.iter().map(|((pool, user), sums)| {
            with([("database", pool.as_str()), ("user", user.as_str())], sums[at])
        }))
    };
    POOLS.iter().enumerate().map(family).collect()
}

/// A family for each column, with a sample for each row.
fn of_rows<'a>(columns: &'a [Column], figures: &'a Figures) -> impl Iterator<Item = MetricFamily> + 'a {
    columns.iter().map(|column| {
        let sample = |row: Row<'_>| {
            let texts: Vec<String> = column.metric.labels.iter().map(|label| row.text(label.name)).collect();
            let names = column.metric.labels.iter().map(|label| label.name);
            with(names.zip(texts.iter().map(String::as_str)), value(column, row))
        };
        column.metric.of(figures.rows().map(sample))
    })
}

/// `SHOW LISTS` has a row for each.
fn of_lists(lists: &Figures) -> impl Iterator<Item = MetricFamily> {
    LISTS.iter().filter_map(|column| {
        let row = lists.rows().find(|row| row.text("list") == column.column)?;
        Some(column.metric.is(row.number("items") as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::shared, *};

    #[test]
    fn every_name_has_samples() {
        let families = families(&shared());
        let told: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        let listed: Vec<&str> = all().map(|metric| metric.name).collect();
        assert_eq!(told, listed);
        assert!(families.iter().all(|family| !family.get_metric().is_empty()));
    }
}
