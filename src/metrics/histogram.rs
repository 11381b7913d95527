//! How long something took, in buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::count;

/// A histogram of durations, in buckets whose upper bounds (in seconds) are given once.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [AtomicU64; N],
    /// Above the last bound.
    longer: AtomicU64,
    sum_nanos: AtomicU64,
}

/// The contents of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The upper bounds in seconds, each with how many durations were at most that.
    pub cumulative: Vec<(f64, u64)>,
    /// All durations.
    pub count: u64,
    /// The sum of all durations.
    pub sum_seconds: f64,
}

impl Observed {
    /// Both together, of histograms with the same bounds.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for ((_, count), (_, more)) in self.cumulative.iter_mut().zip(&other.cumulative) {
            *count += more;
        }
        self.count += other.count;
        self.sum_seconds += other.sum_seconds;
        self
    }
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

    /// Reads what has been counted.
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
