//! Counters of sessions: relaxed atomics in arrays indexed by enums, so that counting looks nothing up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    backend::probe::PinReason,
    pool::{self, ServerPool},
    sql::{Class, Reason},
};

const CLASSES: usize = Class::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// Requests by class and reason, for one pool.
#[derive(Debug)]
pub struct Requests([[AtomicU64; REASONS]; CLASSES]);

impl Default for Requests {
    fn default() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Requests {
    pub(crate) fn count(&self, class: Class, reason: Reason) {
        self.0[class as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every combination that has occurred.
    pub fn read(&self) -> impl Iterator<Item = (Class, Reason, u64)> {
        Class::ALL.into_iter().flat_map(move |class| {
            Reason::ALL.iter().copied().filter_map(move |reason| {
                let count = self.0[class as usize][reason as usize].load(Ordering::Relaxed);
                (count > 0).then_some((class, reason, count))
            })
        })
    }
}

/// What happened in all sessions since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Reloads of the configuration.
    pub reloads: Reloads,
    /// Clients connected now.
    pub clients: AtomicU64,
    /// Clients that were let in.
    pub logins: AtomicU64,
    /// Clients that were not.
    pub login_failures: AtomicU64,
    /// Cancel requests that found their session.
    pub cancels: AtomicU64,
    /// Sessions pinned now, by reason.
    pub pinned: [AtomicU64; PinReason::ALL.len()],
    /// Times that a session became pinned, by reason.
    pub pins: [AtomicU64; PinReason::ALL.len()],
}

/// What became of reloads of the configuration; the start counts as the first success.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Reloads that were carried out.
    pub ok: AtomicU64,
    /// Reloads that changed nothing because something was wrong.
    pub failed: AtomicU64,
    /// Whether the last one failed.
    pub last_failed: AtomicBool,
    /// When the last one was carried out, in seconds since 1970.
    pub success_at_seconds: AtomicU64,
}

impl Reloads {
    /// A configuration is in force.
    pub fn succeeded(&self) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.success_at_seconds.store(since_1970.as_secs(), Ordering::Relaxed);
        self.last_failed.store(false, Ordering::Relaxed);
    }
}

/// Counts as long as it lives.
#[derive(Debug)]
pub(crate) struct CountedPin {
    pub(crate) reason: PinReason,
    metrics: Arc<Metrics>,
    _in_pool: pool::CountedPin,
}

impl CountedPin {
    pub(crate) fn new(metrics: &Arc<Metrics>, pool: &Arc<ServerPool>, reason: PinReason) -> Self {
        metrics.pinned[reason as usize].fetch_add(1, Ordering::Relaxed);
        metrics.pins[reason as usize].fetch_add(1, Ordering::Relaxed);
        Self { reason, metrics: Arc::clone(metrics), _in_pool: pool::CountedPin::new(pool, reason) }
    }
}

impl Drop for CountedPin {
    fn drop(&mut self) {
        self.metrics.pinned[self.reason as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a client as long as it lives.
#[derive(Debug)]
pub(crate) struct CountedClient(Arc<Metrics>);

impl CountedClient {
    /// `None` if there are `limit` clients already.
    pub(crate) fn new(metrics: &Arc<Metrics>, limit: usize) -> Option<Self> {
        let counted = Self(Arc::clone(metrics));
        let before = metrics.clients.fetch_add(1, Ordering::Relaxed);
        (before < limit as u64).then_some(counted)
    }
}

impl Drop for CountedClient {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
