//! When a server may be tried again: exponential backoff with jitter, shared by all pools on the server, so
//! that a storm of clients never becomes a storm of connects. And how many places all of its pools may take
//! together: while a reload moves places from one pool to another, their sum never exceeds the server's bound. The
//! health check's place is one of these.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// Logins under way to one server at once: each costs it a fork.
const CONNECTS_AT_ONCE: usize = 8;

#[derive(Debug)]
enum Reach {
    /// The last attempt succeeded, or there was none.
    Up,
    /// Every attempt has failed since.
    Down { since: Instant, attempts: u32, next_try: Instant, last_error: String },
    /// The server answers, and has no place for more connections.
    Full { since: Instant, attempts: u32, next_try: Instant, last_error: String },
}

/// Guards one server.
#[derive(Debug)]
pub struct Gate {
    reach: Mutex<Reach>,
    down: AtomicBool,
    slots: Semaphore,
    /// Places taken, in all pools.
    places: AtomicUsize,
    /// The most places that may be taken.
    places_max: AtomicUsize,
    /// How many of them are beside those that the pools may take: for the health check, and the outbox's relay.
    own_max: AtomicUsize,
    /// How many of these are taken.
    own: AtomicUsize,
    /// Nobody has said how many connections there may be: one more for a question does no harm.
    is_open_ended: AtomicBool,
    /// Tells that the server has no more places.
    filled: Notify,
    /// Why the server did not answer when it was asked how it is, if it did not.
    unwell: Mutex<Option<String>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            reach: Mutex::new(Reach::Up),
            down: AtomicBool::new(false),
            slots: Semaphore::new(CONNECTS_AT_ONCE),
            places: AtomicUsize::new(0),
            places_max: AtomicUsize::new(usize::MAX),
            own_max: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            is_open_ended: AtomicBool::new(false),
            filled: Notify::new(),
            unwell: Mutex::new(None),
        }
    }
}

impl Gate {
    /// Waits until the server may be tried; the attempt is over when the result is dropped.
    pub async fn enter(&self) -> tokio::sync::SemaphorePermit<'_> {
        let slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let next_try = match &*self.lock() {
            Reach::Up => None,
            Reach::Down { next_try, .. } | Reach::Full { next_try, .. } => Some(*next_try),
        };
        if let Some(next_try) = next_try {
            tokio::time::sleep_until(next_try).await;
        }
        slot
    }

    /// An attempt succeeded. Returns true if the server was down.
    pub fn succeeded(&self) -> bool {
        let mut reach = self.lock();
        // Down => Up
        // Full => Up
        let was_down = matches!(*reach, Reach::Down { .. } | Reach::Full { .. });
        *reach = Reach::Up;
        self.down.store(false, Ordering::Release);
        was_down
    }

    /// An attempt failed. Returns true if the server was up until now.
    pub fn failed(&self, error: &str) -> bool {
        let now = Instant::now();
        let mut reach = self.lock();
        let (since, attempts, was_up) = match &*reach {
            // Up => Down
            // Full => Down
            Reach::Up | Reach::Full { .. } => (now, 1, true),
            // Down => Down, with a longer delay
            Reach::Down { since, attempts, .. } => (*since, attempts.saturating_add(1), false),
        };
        let next_try = now + delay(attempts);
        *reach = Reach::Down { since, attempts, next_try, last_error: error.to_owned() };
        self.down.store(true, Ordering::Release);
        was_up
    }

    /// The server has answered that it has no place. Returns true if it had until now.
    pub fn is_full(&self, error: &str) -> bool {
        let now = Instant::now();
        let mut reach = self.lock();
        let (since, attempts, had_place) = match &*reach {
            // Up => Full
            // Down => Full
            Reach::Up | Reach::Down { .. } => (now, 1, true),
            // Full => Full, with a longer delay
            Reach::Full { since, attempts, .. } => (*since, attempts.saturating_add(1), false),
        };
        let next_try = now + delay(attempts);
        *reach = Reach::Full { since, attempts, next_try, last_error: error.to_owned() };
        self.down.store(false, Ordering::Release);
        if had_place {
            self.filled.notify_one();
        }
        had_place
    }

    /// Waits until the server answers that it has no place, though it had until then.
    ///
    /// Cancel safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// How long the server has had no place for more connections, and what it said; `None` if it has.
    pub fn full_for(&self) -> Option<(Duration, String)> {
        match &*self.lock() {
            Reach::Full { since, last_error, .. } => Some((since.elapsed(), last_error.clone())),
            Reach::Up | Reach::Down { .. } => None,
        }
    }

    /// Notes the outcome of a check of the server.
    pub fn note_check(&self, error: Option<String>) {
        *self.unwell.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// The server's trouble, if any is known.
    pub fn trouble(&self) -> Option<String> {
        let unwell = || self.unwell.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.down_for().map(|(_, error)| error).or_else(unwell)
    }

    /// From now on there are up to `max` places, of which the pools may take `of_pools`.
    pub fn set_places_max(&self, max: usize, of_pools: usize) {
        self.places_max.store(max, Ordering::Relaxed);
        self.own_max.store(max.saturating_sub(of_pools), Ordering::Relaxed);
    }

    /// Whether an operator's question may have a place beside all that there are: where the configuration sets no bound.
    pub fn set_open_ended(&self, is_open_ended: bool) {
        self.is_open_ended.store(is_open_ended, Ordering::Relaxed);
    }

    /// Whether there is a place for the health check beside those that the pools may take.
    pub(super) fn has_check_place(&self) -> bool {
        self.own_max.load(Ordering::Relaxed) > 0
    }

    /// Takes a place at the server, if there is one.
    pub(super) fn take_place(&self) -> bool {
        let max = self.places_max.load(Ordering::Relaxed);
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        self.places.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back a place at the server.
    pub(super) fn give_place(&self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the last attempt failed.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// How long the server has been down, and the last error; `None` if it is not.
    pub fn down_for(&self) -> Option<(Duration, String)> {
        match &*self.lock() {
            Reach::Up | Reach::Full { .. } => None,
            Reach::Down { since, last_error, .. } => Some((since.elapsed(), last_error.clone())),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at a server beside those of its pools, for the health check or the outbox's relay; given back when dropped.
#[derive(Debug)]
pub struct CheckPlace(Arc<Gate>);

impl CheckPlace {
    /// Takes one. `None` if pools still have all: so it is, for a while, when a reload has lowered the bound.
    pub(super) fn take(gate: &Arc<Gate>) -> Option<Self> {
        gate.take_place().then(|| {
            gate.own.fetch_add(1, Ordering::AcqRel);
            Self(Arc::clone(gate))
        })
    }
}

impl Drop for CheckPlace {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::AcqRel);
        self.0.give_place();
    }
}

/// A place for an operator's question; never one that a pool may want.
#[derive(Debug)]
pub struct QuestionPlace {
    _counted: Option<CheckPlace>,
}

impl QuestionPlace {
    /// Takes one. `None` if the server's bound leaves none.
    pub(super) fn take(gate: &Arc<Gate>) -> Option<Self> {
        let has_own = gate.own.load(Ordering::Acquire) < gate.own_max.load(Ordering::Relaxed);
        let counted = has_own.then(|| CheckPlace::take(gate)).flatten();
        (counted.is_some() || gate.is_open_ended.load(Ordering::Relaxed))
            .then_some(Self { _counted: counted })
    }
}

/// The pause before the next attempt.
fn delay(attempts: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << attempts.min(7)).min(LAST_DELAY).mul_f64(jitter())
}

/// A random factor between 0.5 and 1.
pub(super) fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_takes_no_place_that_a_pool_may_want() {
        let gate = Arc::new(Gate::default());
        // Two pools of one, the health check, and one more.
        gate.set_places_max(4, 2);
        let check = CheckPlace::take(&gate).expect("the health check's place");
        let question = QuestionPlace::take(&gate).expect("one is left");
        assert!(QuestionPlace::take(&gate).is_none());
        assert!(gate.take_place() && gate.take_place() && !gate.take_place());
        drop(question);
        drop(QuestionPlace::take(&gate).expect("it was given back"));
        gate.set_places_max(3, 2);
        assert!(QuestionPlace::take(&gate).is_none(), "the health check has it");
        gate.give_place();
        assert!(QuestionPlace::take(&gate).is_none(), "a pool may want this one");
        gate.set_open_ended(true);
        let beside = QuestionPlace::take(&gate).expect("nobody has set a bound");
        assert!(gate.take_place());
        drop((beside, check));
        assert_eq!((gate.places.load(Ordering::Relaxed), gate.own.load(Ordering::Relaxed)), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_to_a_bound_and_end_with_a_success() {
        let gate = Gate::default();
        assert!(gate.failed("refused"));
        for _ in 0..20 {
            let before = Instant::now();
            drop(gate.enter().await);
            assert!(before.elapsed() <= LAST_DELAY);
            assert!(!gate.failed("refused"));
        }
        let before = Instant::now();
        drop(gate.enter().await);
        assert!(before.elapsed() >= LAST_DELAY / 2);
        assert!(gate.is_down() && gate.succeeded() && !gate.is_down());
        assert!(gate.is_full("53300") && !gate.is_full("53300") && !gate.is_down());
        assert!(gate.full_for().is_some() && gate.trouble().is_none());
        assert!(gate.failed("refused") && gate.is_down() && gate.full_for().is_none());
    }
}
