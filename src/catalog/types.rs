//! The numbers of a database's types on the primary and on the job database, where that is another server.
//!
//! Both catalogs are read when the first client of a database comes, after definitions have changed through here, in
//! each round of `catalog_refresh`, and when a job backend tells a number that nobody has heard of: then its session waits
//! for the reading. As long as one of the servers cannot be asked, what was read last is gone by.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::Instant};

use crate::types::TypeMap;

/// Between two readings of a database there is as much time.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// After a failure the next attempt is made no later.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(10);

/// Differences that are written to the log at once.
const DRIFT_MAX: usize = 10;

/// The types of one database on two servers, as far as they are known.
#[derive(Debug)]
pub(super) struct DatabaseTypes {
    /// `None` if all numbers are the same.
    map: ArcSwapOption<TypeMap>,
    state: Mutex<State>,
    /// A reading has ended.
    pub(super) ended: Notify,
    /// Sessions that wait for that.
    pub(super) waiting: AtomicUsize,
}

/// Where the reading of them stands.
#[derive(Debug)]
pub(super) struct State {
    /// Counts the wishes for a reading.
    pub(super) wanted: u64,
    /// The last wish that a reading has met, or has failed to.
    pub(super) met: u64,
    pub(super) is_under_way: bool,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    pub(super) error: String,
    /// The differences that were written to the log.
    drift: Vec<String>,
    /// The map that was read last.
    pub(super) last: Arc<TypeMap>,
}

impl Default for DatabaseTypes {
    fn default() -> Self {
        Self {
            // Nothing is known: a number that is not PostgreSQL's own is asked for.
            map: ArcSwapOption::from_pointee(TypeMap::default()),
            state: Mutex::new(State {
                wanted: 1,
                met: 0,
                is_under_way: false,
                not_before: Instant::now(),
                failures: 0,
                error: String::new(),
                drift: Vec::new(),
                last: Arc::default(),
            }),
            ended: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl DatabaseTypes {
    pub(super) fn load(&self) -> Option<Arc<TypeMap>> {
        self.map.load_full()
    }

    /// Wishes for a reading. Gives the number of the wish.
    pub(super) fn want(&self) -> u64 {
        let mut state = self.lock();
        // A reading under way began too early.
        if state.is_under_way || state.wanted == state.met {
            state.wanted += 1;
        }
        state.wanted
    }

    /// The job database is another one: nothing is known until both have been read.
    pub(super) fn forget(&self) {
        self.map.store(Some(Arc::default()));
        self.lock().last = Arc::default();
        self.want();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a reading has come to that was to meet this wish.
    pub(super) fn note_read(&self, database: &str, wish: u64, took: Duration, read: Result<Read, String>) {
        let mut state = self.lock();
        (state.is_under_way, state.met) = (false, wish);
        match read {
            Ok(Read { map, drift }) => {
                state.not_before = Instant::now() + took.max(PAUSE);
                (state.failures, state.error) = (0, String::new());
                self.map.store((!map.is_identity()).then(|| Arc::clone(&map)));
                state.last = map;
                if !drift.is_empty() && drift != state.drift {
                    warn(database, &drift);
                }
                state.drift = drift;
            }
            Err(error) => {
                let pause = Duration::from_secs(1).saturating_mul(1 << state.failures.min(8)).min(RETRY_MAX);
                state.not_before = Instant::now() + pause;
                state.failures = state.failures.saturating_add(1);
                // It is tried again.
                state.wanted = state.wanted.max(wish + 1);
                if state.error != error {
                    tracing::warn!(
                        database,
                        error,
                        "the numbers of types could not be read; results with types of which nothing is known are refused"
                    );
                    state.error = error;
                }
            }
        }
    }
}

/// One line: whoever compares all of it has `bulkhead check --connect`.
fn warn(database: &str, drift: &[String]) {
    let mut differences = drift.iter().take(DRIFT_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    if drift.len() > DRIFT_MAX {
        let _ = write!(differences, "; and {} more", drift.len() - DRIFT_MAX);
    }
    tracing::warn!(database, differences, "types of the job database are not the primary's");
}

/// The types of a database on both servers.
pub(super) struct Read {
    pub(super) map: Arc<TypeMap>,
    pub(super) drift: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_met_by_a_reading_that_begins_after_it() {
        let types = DatabaseTypes::default();
        assert_eq!((types.want(), types.want()), (1, 1), "the first reading is still to come");
        types.lock().is_under_way = true;
        assert_eq!(types.want(), 2, "what is under way began before");
        let read = || Ok(Read { map: Arc::default(), drift: Vec::new() });
        types.note_read("app", 1, Duration::ZERO, read());
        let state = types.lock();
        assert_eq!((state.met, state.wanted), (1, 2));
        drop(state);
        assert!(types.load().is_none(), "without types all are the same");
        types.note_read("app", 2, Duration::ZERO, Err("gone".to_owned()));
        let state = types.lock();
        assert!(state.wanted > state.met && state.failures == 1, "it is tried again");
    }
}
