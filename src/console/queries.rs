//! `SHOW QUERIES` and `SHOW SLOW`: what statements have cost, by their texts without literals. Times are in microseconds.

use std::time::{Duration, SystemTime};

use super::table::{Columns, Rows, Value, all};
use crate::shared::{Snapshot, queries::Query, queries::Slow};

pub(super) fn columns() -> Columns {
    Columns::new(
        "ssssssNNNNNNNNsNss",
        &[
            "query",
            "database",
            "user",
            "pool",
            "class",
            "reason",
            "calls",
            "errors",
            "rows",
            "total_time",
            "max_time",
            "p95_time",
            "wait_time",
            "pins",
            "pinned_by",
            "on_replica",
            "on_primary",
            "not_on_replica",
        ],
    )
}

pub(super) fn rows(snapshot: &Snapshot) -> Rows {
    Box::new(snapshot.queries.read().into_iter().map(|query| row(&query)))
}

fn row(query: &Query) -> Vec<Value> {
    let on_primary: Vec<String> =
        query.on_primary.iter().map(|(why, count)| format!("{why}: {count}")).collect();
    vec![
        query.text.to_string().into(),
        query.database.to_string().into(),
        query.user.to_string().into(),
        query.pool.to_string().into(),
        query.class.into(),
        query.reason.into(),
        query.calls.into(),
        query.errors.into(),
        query.rows.into(),
        micros(query.total_time),
        micros(query.max_time),
        micros(query.p95_time),
        micros(query.wait_time),
        query.pins.into(),
        query.pinned_by.into(),
        query.on_replica.into(),
        on_primary.join(", ").into(),
        query.not_on_replica.into(),
    ]
}

pub(super) fn slow_columns() -> Columns {
    Columns::new(
        "NNNsssssNs",
        &[
            "ended_at",
            "time",
            "wait_time",
            "query",
            "database",
            "user",
            "application_name",
            "pool",
            "rows",
            "failed",
        ],
    )
}

pub(super) fn slow_rows(snapshot: &Snapshot) -> Rows {
    all(snapshot.slow.read().into_iter().map(slow_row).collect())
}

fn slow_row(slow: Slow) -> Vec<Value> {
    let since_1970 = slow.ended.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    vec![
        since_1970.as_secs().into(),
        micros(slow.took),
        micros(slow.waited),
        slow.text.to_string().into(),
        slow.database.into(),
        slow.user.into(),
        slow.application_name.into(),
        slow.pool.into(),
        slow.rows.into(),
        if slow.failed { "yes" } else { "no" }.into(),
    ]
}

fn micros(time: Duration) -> Value {
    Value::from(time.as_micros() as u64)
}
