//! The places of pins: how many are held, who waits for one, and what is counted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use tokio::sync::oneshot;

use crate::backend::probe::PinReason;

/// The pins of a server pool.
#[derive(Debug)]
pub struct Pins {
    places: Mutex<Places>,
    /// Sessions pinned now, by reason.
    pub by_reason: [AtomicU64; PinReason::ALL.len()],
    /// Statements refused because they would have pinned one session too many.
    pub refused: AtomicU64,
    /// Pins that began above the bound, because their statement did not show that it would pin.
    pub over_bound: AtomicU64,
    /// Time that pins have lasted which are over, in nanoseconds.
    pub ended_nanos: AtomicU64,
    /// When the next warning may be given, in milliseconds of the pool's clock.
    pub(super) next_warning: AtomicU64,
}

/// Its lock is held for a moment only, and no other one is taken meanwhile.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) held: usize,
    pub(super) max: usize,
    /// Who waits, in the order of arrival. A receiver takes itself out before it goes.
    pub(super) queue: VecDeque<(u64, oneshot::Sender<()>)>,
    pub(super) next_ticket: u64,
}

impl Places {
    /// Gives the places that are free to those who wait: they count as held from here on.
    fn serve(&mut self) {
        while self.held < self.max
            && let Some((_, to)) = self.queue.pop_front()
        {
            if to.send(()).is_ok() {
                self.held += 1;
            }
        }
    }

    pub(super) fn give_back(&mut self) {
        self.held -= 1;
        self.serve();
    }
}

impl Pins {
    /// At most so many, as far as they can be foreseen.
    pub(super) fn new(max: usize) -> Self {
        let places = Places { held: 0, max, queue: VecDeque::new(), next_ticket: 0 };
        Self {
            places: Mutex::new(places),
            by_reason: Default::default(),
            refused: AtomicU64::new(0),
            over_bound: AtomicU64::new(0),
            ended_nanos: AtomicU64::new(0),
            next_warning: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places taken.
    pub(super) fn held(&self) -> usize {
        self.lock().held
    }

    /// Sets how many there may be from now on.
    pub(super) fn set_max(&self, max: usize) {
        let mut places = self.lock();
        places.max = max;
        places.serve();
    }
}

/// Too many sessions are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinsFull {
    /// Pins that there may be.
    pub max_pinned: usize,
}
