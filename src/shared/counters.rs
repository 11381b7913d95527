//! Counters of sessions: relaxed atomics in arrays indexed by enums, so that counting looks nothing up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    backend::{probe::PinReason, protocol::Transient},
    metrics::{Evictions, Histogram, Observed, Traffic},
    pool::{self, ServerPool},
    sql::{Class, Reason},
};

const CLASSES: usize = Class::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// Upper bounds of the buckets of the durations of requests and transactions, in seconds. What alerts compare with is
/// among them: within a bucket a quantile is only guessed.
const DURATION_BUCKETS_SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0];

type Durations = [Histogram<{ DURATION_BUCKETS_SECONDS.len() }>; CLASSES];

/// Requests of one pool: how many by class and reason, and how long they, and their transactions, took by class.
///
/// Most requests are a transaction of their own, and are counted once for both.
#[derive(Debug)]
pub struct Requests {
    counts: [[AtomicU64; REASONS]; CLASSES],
    /// Requests that were a transaction of their own.
    whole: Durations,
    /// Requests that were a part of one.
    parts: Durations,
    /// Transactions of several requests.
    transactions: Durations,
    /// Transactions that began on a backend which their session had kept from an earlier one.
    again: AtomicU64,
    /// Clients that have logged in and would use the pool first.
    logins: AtomicU64,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            whole: durations(),
            parts: durations(),
            transactions: durations(),
            again: AtomicU64::new(0),
            logins: AtomicU64::new(0),
        }
    }
}

fn durations() -> Durations {
    std::array::from_fn(|_| Histogram::new(&DURATION_BUCKETS_SECONDS))
}

impl Requests {
    pub(crate) fn count(&self, class: Class, reason: Reason) {
        self.counts[class as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a transaction that begins on a backend which its session has kept.
    pub(crate) fn count_again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    /// Transactions that began on a backend which their session had kept.
    pub fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Counts the login of a client that would use the pool first.
    pub(crate) fn count_login(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that have logged in and would use the pool first.
    pub fn logins(&self) -> u64 {
        self.logins.load(Ordering::Relaxed)
    }

    /// Notes how long a request took that was a transaction of its own.
    pub(crate) fn note_whole(&self, class: Class, duration: Duration) {
        self.whole[class as usize].observe(duration);
    }

    /// Notes how long a request took that was a part of a transaction.
    pub(crate) fn note_part(&self, class: Class, duration: Duration) {
        self.parts[class as usize].observe(duration);
    }

    /// Notes how long a transaction of several requests took, by the class of the first.
    pub(crate) fn note_transaction(&self, class: Class, duration: Duration) {
        self.transactions[class as usize].observe(duration);
    }

    /// How long the requests of each class took; without those that have not occurred.
    pub fn durations(&self) -> impl Iterator<Item = (Class, Observed)> {
        self.whole_and(&self.parts)
    }

    /// The same of transactions, by the class of their first request.
    pub fn transactions(&self) -> impl Iterator<Item = (Class, Observed)> {
        self.whole_and(&self.transactions)
    }

    fn whole_and(&self, others: &Durations) -> impl Iterator<Item = (Class, Observed)> {
        let both = |class: Class| self.whole[class as usize].read().plus(&others[class as usize].read());
        let all = Class::ALL.into_iter().map(move |class| (class, both(class)));
        all.filter(|(_, observed)| observed.count > 0)
    }

    /// Every combination that has occurred.
    pub fn read(&self) -> impl Iterator<Item = (Class, Reason, u64)> {
        Class::ALL.into_iter().flat_map(move |class| {
            Reason::ALL.iter().copied().filter_map(move |reason| {
                let count = self.counts[class as usize][reason as usize].load(Ordering::Relaxed);
                (count > 0).then_some((class, reason, count))
            })
        })
    }
}

/// Counters of all sessions, from the start on.
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
    /// Clients among them for whom there was no place.
    pub no_place: AtomicU64,
    /// Bytes that clients sent and were sent, logins left out.
    pub traffic: Traffic,
    /// Errors that servers answered clients with.
    pub server_errors: AtomicU64,
    /// Errors that Bulkhead itself answered clients with.
    pub own_errors: AtomicU64,
    /// Reads that might use a replica, by where they ran, and why not there.
    pub reads: Reads,
    /// Requests that were run once more.
    pub repeats: Repeats,
    /// Verdicts that have made room for others.
    pub verdicts_evicted: Evictions,
    /// Prepared statements that were closed on a server connection to make room for others.
    pub server_statements_evicted: Evictions,
    /// Cancel requests that found their session.
    pub cancels: AtomicU64,
    /// Sessions pinned now, by reason.
    pub pinned: [AtomicU64; PinReason::ALL.len()],
    /// Times that a session became pinned, by reason.
    pub pins: [AtomicU64; PinReason::ALL.len()],
}

/// Counters of reloads of the configuration; the start counts as the first success.
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
pub(crate) struct SessionPin {
    pub(crate) reason: PinReason,
    metrics: Arc<Metrics>,
    _in_pool: pool::CountedPin,
}

impl SessionPin {
    pub(crate) fn new(metrics: &Arc<Metrics>, pool: &Arc<ServerPool>, reason: PinReason) -> Self {
        metrics.pinned[reason as usize].fetch_add(1, Ordering::Relaxed);
        metrics.pins[reason as usize].fetch_add(1, Ordering::Relaxed);
        Self { reason, metrics: Arc::clone(metrics), _in_pool: pool::CountedPin::new(pool, reason) }
    }
}

impl Drop for SessionPin {
    fn drop(&mut self) {
        self.metrics.pinned[self.reason as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a read ran that might use a replica, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOn {
    /// On a replica, at once.
    Replica,
    /// On a replica, after it was held for one to be fresh enough.
    ReplicaLater,
    /// On a replica, where its transaction had been opened.
    ReplicaOpen,
    /// On the primary: what was written to its tables has not been replayed.
    FreshWrite,
    /// On the primary: what its session has seen or written has not been replayed.
    Floor,
    /// On the primary: not everything that was committed when it came has been replayed.
    Behind,
    /// On the primary, where its transaction had been opened.
    PrimaryOpen,
    /// On the primary: no replica serves reads, because none answers, or each is too far behind.
    NoReplica,
}

impl ReadOn {
    /// Every one of them, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Replica,
        Self::ReplicaLater,
        Self::ReplicaOpen,
        Self::FreshWrite,
        Self::Floor,
        Self::Behind,
        Self::PrimaryOpen,
        Self::NoReplica,
    ];

    /// The labels of the metric: where, and why.
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Replica => ("replica", "fresh"),
            Self::ReplicaLater => ("replica", "held"),
            Self::ReplicaOpen => ("replica", "transaction"),
            Self::FreshWrite => ("primary", "fresh_write"),
            Self::Floor => ("primary", "floor"),
            Self::Behind => ("primary", "lag"),
            Self::PrimaryOpen => ("primary", "transaction"),
            Self::NoReplica => ("primary", "no_replica"),
        }
    }
}

/// Reads that might use a replica, by where they ran.
#[derive(Debug, Default)]
pub struct Reads(pub(crate) [AtomicU64; ReadOn::ALL.len()]);

impl Reads {
    /// Each, and how often.
    pub fn read(&self) -> impl Iterator<Item = (ReadOn, u64)> {
        ReadOn::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Requests that were run once more, by reason.
#[derive(Debug, Default)]
pub struct Repeats(pub(crate) [AtomicU64; Transient::ALL.len()]);

impl Repeats {
    /// Every reason, and how often.
    pub fn read(&self) -> impl Iterator<Item = (Transient, u64)> {
        Transient::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}
