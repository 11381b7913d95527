//! What sessions, metrics and the relay tell each other: that something was enqueued, whether it may be, how much waits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::sql::Outgoing;

/// The outbox of this instance. Sessions ask it whether they may enqueue on the primary, and tell it that they have.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Both sides were found as they must be.
    ready: AtomicBool,
    /// Whether both sides are as they must be has been looked at.
    is_known: AtomicBool,
    known: Notify,
    /// Somebody has enqueued since the relay last looked.
    enqueued: AtomicBool,
    wake: Notify,
    /// Rows that wait on the primary, as they were last counted.
    waiting: AtomicU64,
    /// How long the oldest of them has waited, in milliseconds.
    lag: AtomicU64,
    /// Counts of what this instance has moved.
    pub(super) moved: Moved,
    trouble: Mutex<Option<Arc<str>>>,
}

/// Counts of what one instance has moved since it started.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) relayed: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// How an outbox is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The tables that may be moved.
    pub outgoing: Vec<Outgoing>,
    /// Rows that are moved at once.
    pub batch: usize,
    /// How often the primary is looked at without having been woken.
    pub poll: Duration,
    /// How long it is remembered what was moved.
    pub keep: Duration,
}

/// The state of an outbox, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether sessions may enqueue on the primary.
    pub is_ready: bool,
    /// Rows that wait on the primary: no more than [`COUNTED_MAX`](super::COUNTED_MAX) are counted.
    pub waiting: u64,
    /// How long the oldest of them has been known to wait.
    pub lag_millis: u64,
    /// Rows that this instance has moved.
    pub relayed: u64,
    /// Rows of these that the job database did not take, since it had a job of the same unique key.
    pub conflicts: u64,
    /// Rows that it refused, and that were set aside on the primary.
    pub refused: u64,
}

impl Outbox {
    /// A commit on the primary carried an enqueue: the relay looks at once. Costs one look at a flag while it has not
    /// looked yet, and takes no lock then.
    pub fn enqueued(&self) {
        if !self.enqueued.load(Ordering::Acquire) && !self.enqueued.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Whether both sides were found as they must be, so that sessions may enqueue on the primary. It stays so while the
    /// job database is away: rows wait then.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether it has been found out whether sessions may enqueue on the primary.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Waits until that has been found out.
    ///
    /// Cancel safe: it changes nothing.
    pub async fn known(&self) {
        let mut known = std::pin::pin!(self.known.notified());
        known.as_mut().enable();
        if !self.is_known() {
            known.await;
        }
    }

    /// Why the relay does not get on, if it does not.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All numbers.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            is_ready: self.is_ready(),
            waiting: read(&self.waiting),
            lag_millis: read(&self.lag),
            relayed: read(&self.moved.relayed),
            conflicts: read(&self.moved.conflicts),
            refused: read(&self.moved.refused),
        }
    }

    pub(super) fn note_refused(&self) {
        self.moved.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        self.is_known.store(true, Ordering::Release);
        self.known.notify_waiters();
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(Into::into);
    }

    pub(super) fn set_waiting(&self, rows: u64, lag_millis: u64) {
        self.waiting.store(rows, Ordering::Relaxed);
        self.lag.store(lag_millis, Ordering::Relaxed);
    }

    /// Notes that what was enqueued up to now is being looked for.
    pub(super) fn looks(&self) {
        self.enqueued.store(false, Ordering::Release);
    }

    /// Waits for the next [`Outbox::enqueued`].
    ///
    /// Cancel safe: a word that was not heard stays.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}
