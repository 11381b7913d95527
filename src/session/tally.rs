//! The figures of the request under way, and of its session: gathered on the way, and taken up by `counting`.

use std::time::Duration;

use crate::{
    clock::{self, Moment},
    route::PoolId,
    shared::{counters::ReadOn, queries::Ran},
    sql::{Class, Reason, TextId, Verdict},
};

/// The request under way, as far as it has come.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
pub(super) struct Tally {
    /// The moment when it came.
    pub(super) began: Option<Moment>,
    /// Rows, by the tags of its commands.
    pub(super) rows: u64,
    /// How long it has waited for a connection.
    pub(super) waited: Duration,
    /// The client was told an error.
    pub(super) failed: bool,
    /// Where it runs, if it is a read that a replica might serve.
    pub(super) read_on: Option<ReadOn>,
    /// The pool that it is to run on.
    pub(super) pool: Option<PoolId>,
    /// The statement that completes it, if it succeeds.
    pub(super) restore: Option<Box<str>>,
    /// The request only prepares or describes statements.
    pub(super) prepares: bool,
    /// The request goes on with a transaction that others before it were a part of.
    pub(super) is_part: bool,
    /// Only what goes in front of its statements was sent: it is counted, and is noted when they have run.
    pub(super) has_begun: bool,
    /// The session was pinned when it came.
    pub(super) was_pinned: bool,
    /// The literals and bound values, if they are to be logged.
    pub(super) values: Option<Box<str>>,
    /// The request that this one fetches more rows of, if it has no statement of its own.
    pub(super) goes_on: Option<(TextId, Class, Reason)>,
    /// The work of the session until now, if its end is to be logged.
    pub(super) totals: Option<Box<Totals>>,
}

/// Allocated for each session that is at work, in a size of its own: what idle sessions let go of makes room for others.
const _: () = assert!(size_of::<Tally>() <= 96);

/// The work of a session.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) began: Moment,
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) waited: Duration,
    /// The pools that have served it, by their places.
    pub(super) pools: u64,
}

impl Tally {
    /// When the request came.
    pub(super) fn arrival(&self) -> Moment {
        self.began.unwrap_or_else(clock::last_tick)
    }

    pub(super) fn ran(&self, took: Duration, goes_on: bool) -> Ran {
        let Self { waited, rows, failed, read_on, .. } = *self;
        Ran { ended: clock::last_tick(), took, waited, rows, failed, read_on, goes_on }
    }

    /// The verdict of the last statement, if the request under way has fetched more of its rows, or has failed.
    pub(super) fn goes_on(&self) -> Option<Verdict> {
        let (text, class, reason) = self.goes_on.filter(|_| self.rows > 0 || self.failed)?;
        Some(Verdict { text, ..Verdict::new(class, reason) })
    }

    /// The request is over.
    pub(super) fn end(&mut self, pool: Option<PoolId>) {
        if let Some(totals) = &mut self.totals {
            totals.requests += 1;
            totals.errors += u64::from(self.failed);
            totals.waited += self.waited;
            totals.pools |= pool.map_or(0, |pool| 1 << (pool.0 % 64));
        }
        (self.rows, self.waited, self.failed) = (0, Duration::ZERO, false);
        (self.read_on, self.pool, self.values) = (None, None, None);
        (self.prepares, self.has_begun) = (false, false);
    }
}
