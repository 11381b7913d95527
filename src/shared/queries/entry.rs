//! What is counted of one text, user, database and pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use super::Named;
use crate::{
    backend::probe::PinReason,
    clock::Moment,
    shared::counters::ReadOn,
    sql::{Class, Reason, Verdict},
};

/// Buckets of durations: four for each power of two, the shortest ones a microsecond wide.
const BUCKETS: usize = 128;

/// Stands for no position in a list.
const NONE: u8 = u8::MAX;

/// The outcome of a request.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// When it ended.
    pub ended: Moment,
    /// How long it took, with waiting.
    pub took: Duration,
    /// How long it waited for a connection.
    pub waited: Duration,
    /// Rows, by the tags of its commands.
    pub rows: u64,
    /// Whether its client was told an error.
    pub failed: bool,
    /// Where it ran, if it is a read that a replica might have served.
    pub read_on: Option<ReadOn>,
    /// Whether it only fetched more rows of a request that was counted before.
    pub goes_on: bool,
}

/// The counts of one text, user, database and pool.
#[derive(Debug)]
pub(super) struct Entry {
    pool: Arc<str>,
    is_forgotten: AtomicBool,
    class: AtomicU8,
    reason: AtomicU8,
    /// Why the last read that did not run on a replica ran on the primary: a position in [`ReadOn::ALL`].
    primary_why: AtomicU8,
    /// Why it pinned its session last: a position in [`PinReason::ALL`].
    pinned_by: AtomicU8,
    /// In milliseconds.
    used_at: AtomicU64,
    total_nanos: AtomicU64,
    max_nanos: AtomicU64,
    wait_nanos: AtomicU64,
    rows: AtomicU64,
    errors: AtomicU64,
    pins: AtomicU64,
    reads: [AtomicU32; ReadOn::ALL.len()],
    buckets: [AtomicU32; BUCKETS],
}

/// The counts of one text, user, database and pool, as they were read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Query {
    /// The text without its literals.
    #[serde(rename = "query")]
    pub text: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// The pool.
    pub pool: Arc<str>,
    /// The class, as it was last judged.
    pub class: &'static str,
    /// Why it has this class.
    pub reason: &'static str,
    /// Requests, with those that failed.
    pub calls: u64,
    /// Requests that ended with an error.
    pub errors: u64,
    /// Rows that commands have returned or changed.
    pub rows: u64,
    /// The time that all took.
    #[serde(rename = "total_time_us", serialize_with = "super::as_micros")]
    pub total_time: Duration,
    /// The time that the longest one took.
    #[serde(rename = "max_time_us", serialize_with = "super::as_micros")]
    pub max_time: Duration,
    /// The time within which 95 of 100 ended, within a fifth of it.
    #[serde(rename = "p95_time_us", serialize_with = "super::as_micros")]
    pub p95_time: Duration,
    /// The time that all waited for a connection.
    #[serde(rename = "wait_time_us", serialize_with = "super::as_micros")]
    pub wait_time: Duration,
    /// Times that it pinned its session.
    pub pins: u64,
    /// Why it did so last.
    pub pinned_by: Option<&'static str>,
    /// Reads that ran on a replica.
    pub on_replica: u64,
    /// Reads that might have, and ran on the primary, by why.
    pub on_primary: Vec<(&'static str, u64)>,
    /// Why the last one did not run on a replica: why the primary served the read, or why it is no read.
    pub not_on_replica: Option<&'static str>,
}

impl Entry {
    /// Begins at this time, for a pool of this name.
    pub(super) fn new(pool: Arc<str>, made_at: u64) -> Self {
        Self {
            pool,
            is_forgotten: AtomicBool::new(false),
            class: AtomicU8::new(0),
            reason: AtomicU8::new(0),
            primary_why: AtomicU8::new(NONE),
            pinned_by: AtomicU8::new(NONE),
            used_at: AtomicU64::new(made_at),
            total_nanos: AtomicU64::new(0),
            max_nanos: AtomicU64::new(0),
            wait_nanos: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            pins: AtomicU64::new(0),
            reads: std::array::from_fn(|_| AtomicU32::new(0)),
            buckets: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Whether it is still one of those that are told of, and of a pool of this name.
    #[inline]
    pub(super) fn is_of(&self, pool: &str) -> bool {
        !self.is_forgotten.load(Ordering::Relaxed) && *self.pool == *pool
    }

    /// Leaves those that are told of.
    pub(super) fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Relaxed);
    }

    /// When it was last counted for.
    pub(super) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Counts a request.
    #[inline]
    pub(super) fn count(&self, verdict: &Verdict, ran: &Ran, used_at: u64) {
        let relaxed = Ordering::Relaxed;
        let nanos = ran.took.as_nanos() as u64;
        self.class.store(verdict.class as u8, relaxed);
        self.reason.store(verdict.reason as u8, relaxed);
        self.used_at.store(used_at, relaxed);
        self.total_nanos.fetch_add(nanos, relaxed);
        if !ran.goes_on {
            self.buckets[bucket(nanos)].fetch_add(1, relaxed);
        }
        if nanos > self.max_nanos.load(relaxed) {
            self.max_nanos.fetch_max(nanos, relaxed);
        }
        if ran.rows > 0 {
            self.rows.fetch_add(ran.rows, relaxed);
        }
        if !ran.waited.is_zero() {
            self.wait_nanos.fetch_add(ran.waited.as_nanos() as u64, relaxed);
        }
        if ran.failed {
            self.errors.fetch_add(1, relaxed);
        }
        if let Some(on) = ran.read_on {
            self.reads[on as usize].fetch_add(1, relaxed);
            if on.labels().0 == "primary" {
                self.primary_why.store(on as u8, relaxed);
            }
        }
    }

    /// Counts a pin.
    pub(super) fn pinned(&self, reason: PinReason) {
        self.pins.fetch_add(1, Ordering::Relaxed);
        let at = PinReason::ALL.iter().position(|known| *known == reason);
        self.pinned_by.store(at.map_or(NONE, |at| at as u8), Ordering::Relaxed);
    }

    /// Reads the counts.
    pub(super) fn read(&self, named: &Named) -> Query {
        let relaxed = Ordering::Relaxed;
        let class = Class::ALL[usize::from(self.class.load(relaxed)) % Class::ALL.len()];
        let reason = Reason::ALL[usize::from(self.reason.load(relaxed)) % Reason::ALL.len()];
        let counts: Vec<u64> = self.buckets.iter().map(|count| u64::from(count.load(relaxed))).collect();
        let max_nanos = self.max_nanos.load(relaxed);
        let reads =
            ReadOn::ALL.into_iter().zip(self.reads.iter().map(|count| u64::from(count.load(relaxed))));
        let (on_replica, on_primary): (Vec<_>, Vec<_>) =
            reads.filter(|(_, count)| *count > 0).partition(|(on, _)| on.labels().0 == "replica");
        let primary_why =
            ReadOn::ALL.get(usize::from(self.primary_why.load(relaxed))).map(|on| on.labels().1);
        let no_read = (class != Class::Read).then_some(reason.label());
        Query {
            text: Arc::clone(&named.text),
            database: Arc::clone(&named.database),
            user: Arc::clone(&named.user),
            pool: Arc::clone(&named.pool),
            class: class.label(),
            reason: reason.label(),
            calls: counts.iter().sum(),
            errors: self.errors.load(relaxed),
            rows: self.rows.load(relaxed),
            total_time: Duration::from_nanos(self.total_nanos.load(relaxed)),
            max_time: Duration::from_nanos(max_nanos),
            p95_time: Duration::from_nanos(percentile(&counts, 95).min(max_nanos)),
            wait_time: Duration::from_nanos(self.wait_nanos.load(relaxed)),
            pins: self.pins.load(relaxed),
            pinned_by: PinReason::ALL.get(usize::from(self.pinned_by.load(relaxed))).map(|by| by.label()),
            on_replica: on_replica.iter().map(|(_, count)| count).sum(),
            on_primary: on_primary.into_iter().map(|(on, count)| (on.labels().1, count)).collect(),
            not_on_replica: primary_why.or(no_read),
        }
    }
}

/// The bucket of a duration.
#[inline]
const fn bucket(nanos: u64) -> usize {
    // Nearly a microsecond each.
    let units = nanos >> 10;
    if units < 4 {
        return units as usize;
    }
    let power = units.ilog2();
    let at = (power as usize - 1) * 4 + ((units >> (power - 2)) & 3) as usize;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The end of a bucket, in nanoseconds.
const fn bucket_end(at: usize) -> u64 {
    let units = if at < 4 { at as u64 + 1 } else { (4 + at as u64 % 4 + 1) << (at / 4 - 1) };
    units << 10
}

/// The duration within which so many of a hundred ended.
fn percentile(counts: &[u64], percent: u64) -> u64 {
    let wanted = counts.iter().sum::<u64>().saturating_mul(percent).div_ceil(100).max(1);
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    found.map_or(0, bucket_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for at in 0..BUCKETS - 1 {
            let end = bucket_end(at);
            assert_eq!((bucket(end - 1), bucket(end)), (at, at + 1), "{at}");
            assert!(at < 4 || bucket_end(at + 1) - end <= end.div_ceil(4), "{at}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
        assert!(Duration::from_nanos(bucket_end(BUCKETS - 2)) > Duration::from_secs(3600));
    }

    #[test]
    fn percentiles_are_near() {
        let mut counts = vec![0; BUCKETS];
        assert_eq!(percentile(&counts, 95), 0);
        for micros in 1..=1000_u64 {
            counts[bucket(micros * 1000)] += 1;
        }
        let p95 = percentile(&counts, 95);
        assert!((950_000..1_150_000).contains(&p95), "{p95}");
        assert!((500_000..600_000).contains(&percentile(&counts, 50)));
    }
}
