//! The snapshot of one database's catalog: what may be gone by, and where its reading stands.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{latest::Latest, question::Fingerprint, reading::Reading, types::DatabaseTypes};
use crate::{backend::Identity, sql::Catalog, types::TypeMap};

/// A snapshot that could not be read is tried again after this, and after twice as long each time that follows.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// No pause before another attempt is longer.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);

/// A login waits no longer for the first reading of its database, nor a statement for another one.
const FIRST_READ: Duration = Duration::from_secs(2);

/// After so many failures in a row, which take more than a minute, what was read last may not be gone by any more.
const FAILURES_MAX: u32 = 6;

/// The snapshot of one database's catalog.
#[derive(Debug)]
pub struct DatabaseCatalog {
    pub(super) database: String,
    /// The identity as which it is read.
    pub(super) identity: ArcSwap<Identity>,
    /// The snapshot that may be gone by.
    pub(super) snapshot: Latest,
    pub(super) reading: Mutex<Reading>,
    /// An attempt to read it has ended.
    pub(super) attempted: Notify,
    /// Counts changes of definitions, those that went through here and those that were found.
    pub(super) changes: AtomicU64,
    /// Texts under way that change definitions at a moment that is not seen: nothing is known meanwhile.
    pub(super) defining: AtomicUsize,
    pub(super) nothing: ArcSwap<Catalog>,
    /// The numbers of its types here and on the job database.
    pub(super) types: DatabaseTypes,
}

/// As long as it lives, nothing is known of a database.
#[derive(Debug)]
pub struct Defining(Arc<DatabaseCatalog>);

impl Drop for Defining {
    fn drop(&mut self) {
        self.0.defining.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The outcome of a reading.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) catalog: Arc<Catalog>,
    pub(super) fingerprint: Fingerprint,
    /// What was proven by the one before need not be by this one.
    pub(super) contradicts: bool,
}

impl DatabaseCatalog {
    pub(super) fn new(identity: &Arc<Identity>) -> Self {
        Self {
            database: identity.database.clone(),
            identity: ArcSwap::new(Arc::clone(identity)),
            snapshot: Latest::default(),
            attempted: Notify::new(),
            changes: AtomicU64::new(0),
            defining: AtomicUsize::new(0),
            nothing: ArcSwap::from_pointee(Catalog::empty()),
            types: DatabaseTypes::default(),
            reading: Mutex::new(Reading::new()),
        }
    }

    /// The snapshot as of now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Catalog>> {
        if self.defining.load(Ordering::SeqCst) > 0 { self.nothing.load() } else { self.snapshot.load() }
    }

    /// The epoch by which the verdict of this text is cached as of now.
    #[inline]
    pub fn epoch_of(&self, text: &[u8]) -> u64 {
        if self.defining.load(Ordering::SeqCst) > 0 {
            self.nothing.load().epoch_of(text)
        } else {
            self.snapshot.epoch_of(text)
        }
    }

    /// How often definitions have changed. What was judged before a change, and ran after it, is not proven.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Nothing is known as long as the guard lives.
    pub fn define(self: &Arc<Self>) -> Defining {
        self.defining.fetch_add(1, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
        Defining(Arc::clone(self))
    }

    /// The numbers that its types have on the job database, as far as they are known; `None` if all are the primary's.
    pub fn types(&self) -> Option<Arc<TypeMap>> {
        self.types.load()
    }

    /// Waits until a snapshot has been read, or could not be, for a while: the first statements of all need not be taken for
    /// the worst. When it is to be read again, logins do not wait.
    ///
    /// Cancel safe.
    pub async fn first_read(&self) {
        let known = async {
            loop {
                let attempted = self.attempted.notified();
                let (was_read, has_failed) = {
                    let reading = self.lock();
                    (reading.fingerprint.is_some() || !reading.last.is_empty(), reading.failures > 0)
                };
                if was_read || has_failed {
                    return;
                }
                attempted.await;
            }
        };
        // Whoever waits in vain goes on with nothing known.
        let _ = timeout(FIRST_READ, known).await;
    }

    /// Waits until something is known again, or it could not be read, for a while.
    ///
    /// Cancel safe.
    pub async fn known(&self) {
        let known = async {
            loop {
                let attempted = self.attempted.notified();
                if !self.load().is_empty() || self.lock().failures > 0 {
                    return;
                }
                attempted.await;
            }
        };
        let _ = timeout(FIRST_READ, known).await;
    }

    /// Takes over what an attempt to read it has come to, which began after so many changes. What has been added since is
    /// known with this epoch.
    pub(super) fn note_read(&self, read: Result<Read, String>, changes: u64, took: Duration, epoch: u64) {
        let mut reading = self.lock();
        reading.is_under_way = false;
        reading.not_before = Instant::now() + took.min(RETRY_MIN);
        match read {
            Ok(Read { catalog, fingerprint, contradicts }) => {
                if reading.failures > 0 {
                    tracing::info!(database = %self.database, "the catalog can be read again");
                }
                (reading.failures, reading.error) = (0, String::new());
                if contradicts {
                    self.changes.fetch_add(1, Ordering::SeqCst);
                }
                reading.last = catalog;
                reading.fingerprint = Some(fingerprint);
                reading.added.retain(|(_, change)| *change > changes);
                // Changed while it was read: the next reading is on its way.
                if reading.changed_at <= changes {
                    self.snapshot.store(reading.last_with_additions(epoch), &mut reading);
                }
            }
            Err(error) => {
                reading.not_before = Instant::now() + retry_after(reading.failures);
                reading.failures = reading.failures.saturating_add(1);
                reading.is_wanted = true;
                if reading.failures >= FAILURES_MAX {
                    self.snapshot.store(Arc::default(), &mut reading);
                }
                if reading.error != error {
                    tracing::warn!(database = %self.database, error, "the catalog could not be read; what it does not say is taken for a write");
                    reading.error = error;
                }
            }
        }
    }

    /// The parameters with a dot in their name that functions set, as of the snapshot that was read last: should it not be
    /// right any more, they are asked for in vain.
    pub fn parameters(&self) -> Vec<String> {
        self.lock().last.parameters().to_vec()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody of the database has come, who may have more luck, or fewer rights, than who reads it. Whether it is to
    /// be read because of that.
    pub(super) fn is_used_by(&self, identity: &Arc<Identity>) -> bool {
        let mut reading = self.lock();
        if std::mem::take(&mut reading.unused) > 0 {
            // Not looked at while nobody used it.
            self.snapshot.store(Arc::default(), &mut reading);
            reading.is_wanted = true;
        }
        let may_do_better = reading.failures > 0 || reading.by_superuser;
        if may_do_better && !Arc::ptr_eq(&self.identity.load(), identity) {
            self.identity.store(Arc::clone(identity));
            reading.not_before = reading.not_before.min(Instant::now() + RETRY_MIN);
        }
        reading.is_wanted
    }
}

/// How long after a failure, of which there were so many before, the next attempt is made.
fn retry_after(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_rarely() {
        let seconds: Vec<u64> = (0..10).map(|failures| retry_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(retry_after(u32::MAX), RETRY_MAX);
    }
}
