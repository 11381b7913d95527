//! What statements have cost, as JSON: what `SHOW QUERIES` and `SHOW SLOW` tell on the console.

use serde::Serialize;

use crate::shared::{
    Snapshot,
    queries::{Query, Slow},
};

/// The statistics of statements.
#[derive(Debug, Serialize)]
pub struct Queries {
    /// Entries that have made room for others since the last reset.
    pub evicted: u64,
    /// Requests that were not counted since the last reset, since their texts had made room for others.
    pub left_out: u64,
    /// The entries, those that took longest all together first.
    pub queries: Vec<Query>,
}

/// The requests that took longest lately.
#[derive(Debug, Serialize)]
pub struct SlowStatements {
    /// Each of them, the last one first.
    pub slow: Vec<Slow>,
}

/// The statistics of statements, as they are now.
pub fn queries(snapshot: &Snapshot) -> Queries {
    let queries = &snapshot.queries;
    Queries { evicted: queries.evicted(), left_out: queries.left_out(), queries: queries.read() }
}

/// The requests that took longest lately.
pub fn slow(snapshot: &Snapshot) -> SlowStatements {
    SlowStatements { slow: snapshot.slow.read() }
}
