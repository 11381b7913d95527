//! Pins: leases that are kept between transactions. They are counted and bounded, so that a pool always has
//! connections for transactions.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::time::Instant;

use super::{ServerPool, stats::count};
use crate::backend::probe::PinReason;

/// Pins above the bound are warned of once in so long.
const WARN_MILLISECONDS: u64 = 60_000;

/// The pins of a server pool.
#[derive(Debug, Default)]
pub struct Pins {
    held: AtomicUsize,
    /// Sessions pinned now, by reason.
    pub by_reason: [AtomicU64; PinReason::ALL.len()],
    /// Statements refused because they would have pinned one session too many.
    pub refused: AtomicU64,
    /// Pins that began above the bound, because their statement did not show that it would pin.
    pub over_bound: AtomicU64,
    /// Time that pins have lasted which are over, in nanoseconds.
    pub ended_nanos: AtomicU64,
    /// When the next warning may be given, in milliseconds of the pool's clock.
    next_warning: AtomicU64,
}

impl Pins {
    /// Places taken.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }
}

/// Too many sessions are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinsFull {
    /// Pins that there may be.
    pub max_pinned: usize,
}

/// A place among the pins; free again when dropped.
#[derive(Debug)]
pub(super) struct PinPlace(Arc<ServerPool>);

impl Drop for PinPlace {
    fn drop(&mut self) {
        self.0.pins.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a pinned session under its reason as long as it lives.
#[derive(Debug)]
pub struct CountedPin {
    reason: PinReason,
    pool: Arc<ServerPool>,
    since: Instant,
}

impl CountedPin {
    /// From now on.
    pub fn new(pool: &Arc<ServerPool>, reason: PinReason) -> Self {
        count(&pool.pins.by_reason[reason as usize]);
        Self { reason, pool: Arc::clone(pool), since: Instant::now() }
    }
}

impl Drop for CountedPin {
    fn drop(&mut self) {
        let pins = &self.pool.pins;
        pins.by_reason[self.reason as usize].fetch_sub(1, Ordering::Relaxed);
        pins.ended_nanos.fetch_add(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl ServerPool {
    /// What is counted of pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(super) fn try_pin(self: &Arc<Self>) -> Result<PinPlace, PinsFull> {
        let max_pinned = self.limits().max_pinned;
        let one_more = |held: usize| (held < max_pinned).then_some(held + 1);
        if self.pins.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            count(&self.pins.refused);
            return Err(PinsFull { max_pinned });
        }
        Ok(PinPlace(Arc::clone(self)))
    }

    pub(super) fn pin_anyway(self: &Arc<Self>) -> PinPlace {
        let held = self.pins.held.fetch_add(1, Ordering::AcqRel);
        let max_pinned = self.limits().max_pinned;
        if held >= max_pinned {
            count(&self.pins.over_bound);
            let now = self.clock();
            let due = self.pins.next_warning.load(Ordering::Relaxed);
            if now >= due {
                self.pins.next_warning.store(now + WARN_MILLISECONDS, Ordering::Relaxed);
                tracing::warn!(
                    pool = %self.name,
                    pinned = held + 1,
                    max_pinned,
                    "more sessions are pinned than pools.*.max_pinned allows: statements that do not show it leave state"
                );
            }
        }
        PinPlace(Arc::clone(self))
    }

    /// Whether sessions wait that only a lease given back could serve: every place is taken by one.
    pub fn is_starved(&self) -> bool {
        let figures = self.figures();
        figures.waiting > 0 && figures.leased >= figures.max_connections
    }
}
