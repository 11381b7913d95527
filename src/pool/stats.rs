//! Counters of a server pool: relaxed atomics, read when they are scraped.

use std::{sync::atomic::AtomicU64, time::Duration};

use crate::{
    backend::{Usage, connect_error::FailureKind},
    metrics::Histogram,
};

/// Upper bounds of the buckets of waiting times, in seconds.
pub(super) const WAIT_BUCKETS_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of the buckets of backends' lifetimes, in seconds.
pub(super) const LIFETIME_BUCKETS_SECONDS: [f64; 8] =
    [1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 86400.0];

/// Counters of a server pool, from the start on.
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

/// Sums over the leases of a server pool that have ended. Kept under its lock, which each end of a lease takes anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time that backends were in use.
    pub leased: Duration,
    /// Bytes sent to the server.
    pub sent_bytes: u64,
    /// Bytes received from the server.
    pub received_bytes: u64,
}

impl Totals {
    /// Adds a lease that ends now.
    #[inline]
    pub(super) fn add(&mut self, usage: &Usage) {
        self.leased += usage.lasted();
        self.sent_bytes += usage.sent_bytes;
        self.received_bytes += usage.received_bytes;
    }
}
