//! Counters of a server pool: relaxed atomics, read when they are scraped.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets of waiting times, in seconds.
pub const WAIT_BUCKETS_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; WAIT_BUCKETS_SECONDS.len()],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(at) = WAIT_BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts one duration too short to be measured.
    pub fn observe_none(&self) {
        self.buckets[0].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many durations were at most each bound, cumulatively; their count; their sum in seconds.
    pub fn read(&self) -> (Vec<u64>, u64, f64) {
        let mut sum = 0;
        let cumulative = self
            .buckets
            .iter()
            .map(|bucket| {
                sum += bucket.load(Ordering::Relaxed);
                sum
            })
            .collect();
        let seconds = self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        (cumulative, self.count.load(Ordering::Relaxed), seconds)
    }
}

/// What happened in a server pool since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Time from asking for a backend to having one.
    pub wait: Histogram,
    /// Sessions refused because `max_waiting` others waited.
    pub refused_full: AtomicU64,
    /// Sessions refused because `wait_timeout` was over.
    pub refused_timeout: AtomicU64,
    /// Sessions refused because the server could not be reached or refused the login.
    pub refused_unreachable: AtomicU64,
    /// Backends connected.
    pub connects: AtomicU64,
    /// Connections that failed.
    pub connect_failures: AtomicU64,
    /// Backends closed because their lease was dropped in use.
    pub discarded: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
