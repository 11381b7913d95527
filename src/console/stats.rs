//! `SHOW STATS` and its kin: what each pool has done, in PgBouncer's words and units.
//!
//! PgBouncer counts for each of its databases; a row here is a pool. Times are in microseconds.

use std::time::Duration;

use super::table::{Columns, Rows, Value, all};
use crate::{
    shared::{Snapshot, averages::PoolTotals},
    version::PgBouncer,
};

/// A count, and what PgBouncer calls it in each table.
struct Count {
    /// The total in `STATS`.
    total: &'static str,
    /// The average in `STATS`.
    average: &'static str,
    /// The total in `STATS_TOTALS`.
    alone: &'static str,
    /// Both in `TOTALS`, behind `total_` and `avg_`: there it has the names that its source has.
    inside: &'static str,
}

/// The counts, in PgBouncer's order.
const COUNTS: [Count; 12] = [
    count(
        "total_server_assignment_count",
        "avg_server_assignment_count",
        "server_assignment_count",
        "server_assignment_count",
    ),
    count("total_xact_count", "avg_xact_count", "xact_count", "xact_count"),
    count("total_query_count", "avg_query_count", "query_count", "query_count"),
    count("total_received", "avg_recv", "bytes_received", "client_bytes"),
    count("total_sent", "avg_sent", "bytes_sent", "server_bytes"),
    count("total_xact_time", "avg_xact_time", "xact_time", "xact_time"),
    count("total_query_time", "avg_query_time", "query_time", "query_time"),
    count("total_wait_time", "avg_wait_time", "wait_time", "wait_time"),
    count(
        "total_client_parse_count",
        "avg_client_parse_count",
        "client_parse_count",
        "ps_client_parse_count",
    ),
    count(
        "total_server_parse_count",
        "avg_server_parse_count",
        "server_parse_count",
        "ps_server_parse_count",
    ),
    count("total_bind_count", "avg_bind_count", "bind_count", "ps_bind_count"),
    // From 1.26 on.
    count("total_client_login_count", "avg_client_login_count", "client_login_count", "client_login_count"),
];

/// The types of the columns of `STATS`; the other tables have the first ones of them.
const KINDS: &str = "sNNNNNNNNNNNNNNNNNNNNNNNN";

const fn count(
    total: &'static str,
    average: &'static str,
    alone: &'static str,
    inside: &'static str,
) -> Count {
    Count { total, average, alone, inside }
}

/// The counts that a version of PgBouncer has.
fn counts(like: PgBouncer) -> &'static [Count] {
    match like {
        PgBouncer::V1_25 => &COUNTS[..COUNTS.len() - 1],
        PgBouncer::V1_26 => &COUNTS,
    }
}

/// The name of the pool, and numbers of these names.
fn columns(names: impl Iterator<Item = &'static str>) -> Columns {
    let names: Vec<&str> = std::iter::once("database").chain(names).collect();
    Columns::new(&KINDS[..names.len()], &names)
}

pub(super) fn stats_columns(like: PgBouncer) -> Columns {
    let averages = counts(like).iter().map(|count| count.average);
    columns(counts(like).iter().map(|count| count.total).chain(averages))
}

pub(super) fn totals_columns(like: PgBouncer) -> Columns {
    columns(counts(like).iter().map(|count| count.alone))
}

pub(super) fn averages_columns(like: PgBouncer) -> Columns {
    // PgBouncer names the first of them here as it does totals.
    columns(counts(like).iter().enumerate().map(|(at, count)| match at {
        0..8 => count.alone,
        _ => count.average,
    }))
}

/// The totals of a pool, in the order of [`COUNTS`].
fn values(totals: &PoolTotals) -> [u64; COUNTS.len()] {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    [
        totals.assignments,
        totals.transactions,
        totals.requests,
        totals.received_bytes,
        totals.sent_bytes,
        micros(totals.transaction_time),
        micros(totals.request_time),
        micros(totals.wait_time),
        // Prepared statements are not counted by pools.
        0,
        0,
        0,
        totals.logins,
    ]
}

/// Averages over the last whole period: counts for each second, times for each of what they are of.
fn average(totals: &PoolTotals, period: Duration) -> [u64; COUNTS.len()] {
    let values = values(totals);
    let seconds = period.as_secs_f64();
    let each = |sum: u64, of: u64| sum.checked_div(of).unwrap_or_default();
    std::array::from_fn(|at| match at {
        5 => each(values[at], totals.transactions),
        6 => each(values[at], totals.requests),
        7 => each(values[at], totals.assignments),
        _ if seconds > 0.0 => (values[at] as f64 / seconds) as u64,
        _ => 0,
    })
}

fn rows(snapshot: &Snapshot, of: impl Fn(&str, &PoolTotals) -> Vec<u64>) -> Rows {
    let row = |(name, totals): (&str, PoolTotals)| {
        let numbers = of(name, &totals).into_iter().map(Value::from);
        std::iter::once(Value::from(name.to_owned())).chain(numbers).collect()
    };
    all(snapshot.pool_totals().map(row).collect())
}

fn averages_of(snapshot: &Snapshot, pool: &str) -> [u64; COUNTS.len()] {
    let (totals, period) = snapshot.averages.of(pool);
    average(&totals, period)
}

pub(super) fn stats(snapshot: &Snapshot, like: PgBouncer) -> Rows {
    let known = counts(like).len();
    rows(snapshot, |name, totals| [&values(totals)[..known], &averages_of(snapshot, name)[..known]].concat())
}

pub(super) fn totals(snapshot: &Snapshot, like: PgBouncer) -> Rows {
    rows(snapshot, |_, totals| values(totals)[..counts(like).len()].to_vec())
}

pub(super) fn averages(snapshot: &Snapshot, like: PgBouncer) -> Rows {
    rows(snapshot, |name, _| averages_of(snapshot, name)[..counts(like).len()].to_vec())
}

/// `SHOW TOTALS`: totals and averages of all pools together, a row for each.
pub(super) fn sums(snapshot: &Snapshot, like: PgBouncer) -> Rows {
    let (mut all_totals, mut all_averages) = ([0_u64; COUNTS.len()], [0_u64; COUNTS.len()]);
    for (name, totals) in snapshot.pool_totals() {
        let average = averages_of(snapshot, name);
        for (at, value) in values(&totals).into_iter().enumerate() {
            all_totals[at] = all_totals[at].saturating_add(value);
            all_averages[at] = all_averages[at].saturating_add(average[at]);
        }
    }
    let named = |what: &'static str, sums: [u64; COUNTS.len()]| {
        let rows = counts(like).iter().zip(sums);
        rows.map(move |(count, sum)| vec![format!("{what}_{}", count.inside).into(), sum.into()])
    };
    all(named("total", all_totals).chain(named("avg", all_averages)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_for_seconds_and_of_what_was_timed() {
        let totals = PoolTotals {
            assignments: 60,
            transactions: 120,
            requests: 240,
            received_bytes: 6_000,
            sent_bytes: 60_000,
            transaction_time: Duration::from_micros(1_200),
            request_time: Duration::from_micros(4_800),
            wait_time: Duration::from_micros(600),
            logins: 180,
        };
        assert_eq!(average(&totals, Duration::from_secs(60)), [1, 2, 4, 100, 1_000, 10, 20, 10, 0, 0, 0, 3]);
        assert_eq!(average(&PoolTotals::default(), Duration::ZERO), [0; COUNTS.len()]);
    }
}
