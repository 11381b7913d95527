//! A table that rows are moved from: what the relay knows of the rows that wait there.

use tokio::time::Instant;

use super::{link::Reply, statements::Statements, tables::Table};

/// A table that rows are moved from.
pub(super) struct Queue {
    pub(super) statements: Statements,
    /// Rows of the next round: fewer while some are refused or time runs out.
    pub(super) limit: usize,
    /// Whether rows are known to wait.
    pub(super) has_rows: bool,
    /// The first row that waits, and since when that is known.
    pub(super) first: Option<(String, Instant)>,
    /// Rows that have passed through the stage since it was emptied.
    pub(super) staged: u64,
    /// Whether rows that wait stay where they are though they were deleted.
    pub(super) keeps: bool,
}

impl Queue {
    /// `at` tells its objects in the job database's session from those of others.
    pub(super) fn new(table: Table, at: usize, limit: usize) -> Self {
        let statements = Statements::new(table, at);
        Self { statements, limit, has_rows: true, first: None, staged: 0, keeps: false }
    }

    /// Takes up how many rows wait, as the primary has told, and returns that, and for how many milliseconds the first one has.
    pub(super) fn measured(&mut self, waiting: &Reply, now: Instant) -> (u64, u64) {
        let rows = waiting.number(0);
        self.has_rows |= rows > 0;
        let first = waiting.rows.first().and_then(|row| row.get(1)?.clone());
        self.first = match (first, self.first.take()) {
            (Some(key), Some((known, since))) if known == key => Some((known, since)),
            (first, _) => first.map(|key| (key, now)),
        };
        let known_for =
            self.first.as_ref().map_or(0, |(_, since)| now.duration_since(*since).as_millis() as u64);
        (rows, waiting.value(0, 2).parse().unwrap_or(known_for))
    }
}
