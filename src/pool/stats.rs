//! Counters of a server pool: relaxed atomics, read when they are scraped.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::backend::connect::FailureKind;

/// Upper bounds of the buckets of waiting times, in seconds.
pub(super) const WAIT_BUCKETS_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of the buckets of backends' lifetimes, in seconds.
pub(super) const LIFETIME_BUCKETS_SECONDS: [f64; 8] =
    [1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 86400.0];

/// A histogram of durations, in buckets whose upper bounds (in seconds) are given once.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [AtomicU64; N],
    /// Above the last bound.
    longer: AtomicU64,
    sum_nanos: AtomicU64,
}

/// What a histogram holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The upper bounds in seconds, each with how many durations were at most that.
    pub cumulative: Vec<(f64, u64)>,
    /// All durations.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one.
    pub fn new(bounds: &'static [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, buckets, longer: AtomicU64::new(0), sum_nanos: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.bounds.iter().position(|bound| seconds <= *bound);
        count(at.map_or(&self.longer, |at| &self.buckets[at]));
        self.sum_nanos.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts one duration too short to be measured.
    pub fn observe_none(&self) {
        count(&self.buckets[0]);
    }

    /// What has been counted.
    pub fn read(&self) -> Observed {
        let mut sum = 0;
        let mut add = |bucket: &AtomicU64| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        };
        let cumulative = self.bounds.iter().copied().zip(self.buckets.iter().map(&mut add)).collect();
        let count = add(&self.longer);
        Observed { cumulative, count, sum_seconds: self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

/// What happened in a server pool since the start.
#[derive(Debug)]
pub struct Stats {
    /// Time from asking for a backend to having one.
    pub wait: Histogram<{ WAIT_BUCKETS_SECONDS.len() }>,
    /// Sessions refused because `max_waiting` others waited.
    pub refused_full: AtomicU64,
    /// Sessions refused because `wait_timeout` was over.
    pub refused_timeout: AtomicU64,
    /// Sessions refused because the server could not be reached or refused the login.
    pub refused_unreachable: AtomicU64,
    /// Sessions that waited when Bulkhead went down.
    pub refused_closing: AtomicU64,
    /// Backends connected.
    pub connects: AtomicU64,
    /// Connections that failed, by kind.
    pub connect_failures: [AtomicU64; FailureKind::ALL.len()],
    /// How long backends lived, when they are closed.
    pub lifetime: Histogram<{ LIFETIME_BUCKETS_SECONDS.len() }>,
    /// Backends closed because their lease was dropped in use.
    pub discarded: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            wait: Histogram::new(&WAIT_BUCKETS_SECONDS),
            refused_full: AtomicU64::new(0),
            refused_timeout: AtomicU64::new(0),
            refused_unreachable: AtomicU64::new(0),
            refused_closing: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            connect_failures: std::array::from_fn(|_| AtomicU64::new(0)),
            lifetime: Histogram::new(&LIFETIME_BUCKETS_SECONDS),
            discarded: AtomicU64::new(0),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
