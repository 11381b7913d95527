//! A table that rows are moved from: what is known of the rows that wait there, and the next round of them.
//!
//! What fails for one table is that table's: it is put off for a while, and others go on. Only a connection that is lost is
//! everybody's.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    link::{Failure, Link, Reply},
    round::{Outcome, round},
    state::Outbox,
    statements::Statements,
    tables::Table,
};

/// The first pause after a failure; each one in a row has twice the pause of the one before.
const RETRY: Duration = Duration::from_millis(50);

/// The longest pause, unless `outbox_poll` is longer.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The pause after so many failures in a row before the last one, with an `outbox_poll` of `poll`.
pub(super) fn pause(failures: u32, poll: Duration) -> Duration {
    RETRY.saturating_mul(1 << failures.min(16)).min(RETRY_MAX.max(poll))
}

/// A table that rows are moved from.
pub(super) struct Queue {
    pub(super) statements: Statements,
    /// Rows of the next round: fewer while some are refused or time runs out.
    limit: usize,
    /// Whether rows are known to wait.
    pub(super) has_rows: bool,
    /// The first row that waits, and since when that is known.
    first: Option<(String, Instant)>,
    /// How many rows wait, and for how many milliseconds the first one has, as it was last counted.
    waiting: (u64, u64),
    /// Rows that have passed through the stage since it was emptied.
    staged: u64,
    /// Whether rows that wait stay where they are though they were deleted.
    keeps: bool,
    /// Whether its statements are prepared in the job database's session.
    pub(super) is_prepared: bool,
    failed: Option<Failed>,
}

/// Failures of a table in a row.
struct Failed {
    count: u32,
    /// The last one.
    why: String,
    /// When it is tried again.
    again_at: Instant,
}

impl Queue {
    /// `at` tells its objects in the job database's session from those of others.
    pub(super) fn new(table: Table, at: usize, limit: usize) -> Self {
        Self {
            statements: Statements::new(table, at),
            limit,
            has_rows: true,
            first: None,
            waiting: (0, 0),
            staged: 0,
            keeps: false,
            is_prepared: false,
            failed: None,
        }
    }

    // === What waits ===

    /// Counts what waits on the primary: the rows, and for how many milliseconds the first one has. A table that somebody has
    /// locked has as many as before.
    pub(super) async fn measure(&mut self, primary: &mut Link) -> Result<(u64, u64), Failure> {
        match primary.ask(&self.statements.waiting_unlocked()).await {
            Ok(reply) => self.waiting = self.measured(&reply, Instant::now()),
            Err(failure) if failure.is_passing() => {}
            Err(failure) => return Err(failure),
        }
        Ok(self.waiting)
    }

    fn measured(&mut self, waiting: &Reply, now: Instant) -> (u64, u64) {
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

    /// Whether a round is to be made now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.has_rows && self.again_at().is_none_or(|at| at <= now)
    }

    /// When the table is tried again that has failed.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.failed.as_ref().map(|failed| failed.again_at)
    }

    /// Why its rows do not get on, if something is in the way of these only.
    pub(super) fn trouble(&self) -> Option<String> {
        let source = self.statements.source();
        if let Some(Failed { why, .. }) = &self.failed {
            return Some(format!("{source} waits: {why}"));
        }
        self.keeps.then(|| {
            format!(
                "{source} on the primary keeps its rows when they are deleted: a trigger or a rule of the table stands in the way"
            )
        })
    }

    // === Moving ===

    /// Makes a round of no more than `batch` rows, and returns how many have gone over. One that the job database refuses is
    /// set aside. After a server's error, nothing is changed, and both connections are of use still.
    pub(super) async fn step(
        &mut self,
        outbox: &Outbox,
        primary: &mut Link,
        jobs: &mut Link,
        batch: usize,
    ) -> Result<u64, Failure> {
        let moved = self.attempt(outbox, primary, jobs, batch).await;
        match &moved {
            Ok(_) => self.failed = None,
            Err(Failure::Server { .. }) => {
                primary.ask("ROLLBACK").await?;
                jobs.ask("ROLLBACK").await?;
                self.fewer_rows();
            }
            Err(Failure::Lost(_)) => {}
        }
        moved
    }

    async fn attempt(
        &mut self,
        outbox: &Outbox,
        primary: &mut Link,
        jobs: &mut Link,
        batch: usize,
    ) -> Result<u64, Failure> {
        if !self.is_prepared {
            jobs.ask(&self.statements.prepare()).await?;
            self.is_prepared = true;
        }
        match round(outbox, primary, jobs, &self.statements, self.limit, &mut self.staged).await? {
            Outcome::Moved(0) if self.first.is_some() => {
                self.has_rows = false;
                self.keeps = primary.ask(&self.statements.keeps()).await?.value(0, 0) == "t";
            }
            Outcome::Moved(rows) => {
                self.keeps = false;
                self.has_rows = rows >= self.limit as u64;
                self.limit = (self.limit * 2).min(batch);
                return Ok(rows);
            }
            Outcome::PutOff => (self.has_rows, self.limit) = (self.limit > 1, self.limit.div_ceil(8)),
            Outcome::Refused { .. } if self.limit > 1 => self.fewer_rows(),
            Outcome::Refused { key: None, error } => return Err(jobs.error(error)),
            Outcome::Refused { key: Some(key), error } => {
                let error = error.to_string();
                primary.ask(&self.statements.set_aside(&key, &error)).await?;
                outbox.note_refused();
                let source = self.statements.source();
                tracing::warn!(table = %source, key, error, "the job database refuses a job: it is in bulkhead.refused on the primary");
            }
        }
        Ok(0)
    }

    /// Puts the table off that has failed: for longer each time, and for no less than the failure has taken others' time.
    pub(super) fn put_off(&mut self, failure: &Failure, took: Duration, poll: Duration) {
        let before = self.failed.as_ref().map_or(0, |failed| failed.count);
        self.failed = Some(Failed {
            count: before + 1,
            why: failure.to_string(),
            again_at: Instant::now() + pause(before, poll).max(took),
        });
        self.has_rows = true;
    }

    /// A round took too long, or asked for too much: the next ones are smaller.
    pub(super) fn fewer_rows(&mut self) {
        self.limit = self.limit.div_ceil(2);
    }
}
