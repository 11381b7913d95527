//! Counters and histograms: relaxed atomics, so that counting looks nothing up and waits for nobody.

mod evictions;
mod histogram;
mod traffic;

pub use evictions::Evictions;
pub use histogram::{Histogram, Observed};
pub use traffic::Traffic;

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
