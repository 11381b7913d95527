//! `SHOW STATS` and its kin: what each pool has done, in PgBouncer's words and units.
//!
//! PgBouncer counts for each of its databases; a row here is a pool. Times are in microseconds.

use std::time::Duration;

use super::table::{Columns, Rows, Value, all};
use crate::shared::{Snapshot, averages::PoolTotals};

/// The counts, in PgBouncer's order: the names in `STATS_TOTALS` and `TOTALS`, and those of averages.
const COUNTS: [(&str, &str); 11] = [
    ("server_assignment_count", "avg_server_assignment_count"),
    ("xact_count", "avg_xact_count"),
    ("query_count", "avg_query_count"),
    ("bytes_received", "avg_recv"),
    ("bytes_sent", "avg_sent"),
    ("xact_time", "avg_xact_time"),
    ("query_time", "avg_query_time"),
    ("wait_time", "avg_wait_time"),
    ("client_parse_count", "avg_client_parse_count"),
    ("server_parse_count", "avg_server_parse_count"),
    ("bind_count", "avg_bind_count"),
];

/// The names of totals in `STATS`.
const TOTALS: [&str; 11] = [
    "total_server_assignment_count",
    "total_xact_count",
    "total_query_count",
    "total_received",
    "total_sent",
    "total_xact_time",
    "total_query_time",
    "total_wait_time",
    "total_client_parse_count",
    "total_server_parse_count",
    "total_bind_count",
];

pub(super) fn stats_columns() -> Columns {
    let averages = COUNTS.iter().map(|(_, average)| *average);
    let names: Vec<&str> = ["database"].into_iter().chain(TOTALS).chain(averages).collect();
    Columns::new("sNNNNNNNNNNNNNNNNNNNNNN", &names)
}

pub(super) fn totals_columns() -> Columns {
    let names: Vec<&str> = ["database"].into_iter().chain(COUNTS.iter().map(|(total, _)| *total)).collect();
    Columns::new("sNNNNNNNNNNN", &names)
}

pub(super) fn averages_columns() -> Columns {
    // PgBouncer names the first of them here as it does totals.
    let names = COUNTS.iter().enumerate().map(|(at, (total, average))| match at {
        0..8 => *total,
        _ => *average,
    });
    let names: Vec<&str> = ["database"].into_iter().chain(names).collect();
    Columns::new("sNNNNNNNNNNN", &names)
}

/// The totals of a pool, in the order of [`COUNTS`].
fn values(totals: &PoolTotals) -> [u64; 11] {
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
    ]
}

/// Averages over the last whole period: counts for each second, times for each of what they are of.
fn average(totals: &PoolTotals, period: Duration) -> [u64; 11] {
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

fn averages_of(snapshot: &Snapshot, pool: &str) -> [u64; 11] {
    let (totals, period) = snapshot.averages.of(pool);
    average(&totals, period)
}

pub(super) fn stats(snapshot: &Snapshot) -> Rows {
    rows(snapshot, |name, totals| [values(totals), averages_of(snapshot, name)].concat())
}

pub(super) fn totals(snapshot: &Snapshot) -> Rows {
    rows(snapshot, |_, totals| values(totals).to_vec())
}

pub(super) fn averages(snapshot: &Snapshot) -> Rows {
    rows(snapshot, |name, _| averages_of(snapshot, name).to_vec())
}

/// `SHOW TOTALS`: totals and averages of all pools together, a row for each.
pub(super) fn sums(snapshot: &Snapshot) -> Rows {
    let (mut all_totals, mut all_averages) = ([0_u64; 11], [0_u64; 11]);
    for (name, totals) in snapshot.pool_totals() {
        let average = averages_of(snapshot, name);
        for (at, value) in values(&totals).into_iter().enumerate() {
            all_totals[at] = all_totals[at].saturating_add(value);
            all_averages[at] = all_averages[at].saturating_add(average[at]);
        }
    }
    let totals = COUNTS.iter().zip(all_totals).map(|((name, _), value)| (format!("total_{name}"), value));
    let averages = COUNTS.iter().zip(all_averages).map(|((_, name), value)| ((*name).to_owned(), value));
    all(totals.chain(averages).map(|(name, value)| vec![name.into(), value.into()]).collect())
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
        };
        assert_eq!(average(&totals, Duration::from_secs(60)), [1, 2, 4, 100, 1_000, 10, 20, 10, 0, 0, 0]);
        assert_eq!(average(&PoolTotals::default(), Duration::ZERO), [0; 11]);
    }
}
