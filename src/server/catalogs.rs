//! The catalog snapshots that classification goes by: one of each database that clients use.
//!
//! A snapshot is read when the first client of its database comes, at once after definitions have changed through
//! here, and looked at again every `catalog_refresh` for what has changed past us. From the end of a change that went
//! through here until its reading has begun and ended nothing is known of the database: its statements go to the
//! primary, unproven. What only adds tables and the like leaves the rest as it is known: whoever creates and drops them in
//! a loop is nobody else's trouble. Readings are made on at most half of the time, so that whoever changes definitions in
//! a loop keeps one connection half busy at most.
//!
//! A database that nobody uses is not read, and soon forgotten. One that cannot be read is tried again ever more
//! rarely.

mod question;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use question::read_catalog;
use question::{Fingerprint, Found};

use crate::{
    backend::{Home, Identity},
    pool::{ServerPool, Wants},
    sql::Catalog,
};

/// Databases of which a snapshot is kept.
const DATABASES_MAX: usize = 1_000;

/// Databases that are read at the same time: each takes a connection of the primary's pool.
const AT_ONCE: usize = 4;

/// A server that takes longer to answer will not; its place is needed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A snapshot that could not be read is tried again after this, and after twice as long each time that follows.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What may have changed definitions is looked after no sooner.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// A login waits no longer for the first reading of its database.
const FIRST_READ: Duration = Duration::from_secs(2);

/// Names of tables and sequences that were added since a reading began; of more, nothing is known until the next one.
const ADDED_MAX: usize = 500;

/// After so many failures in a row, which take more than a minute, what was read last may not be gone by any more.
const FAILURES_MAX: u32 = 6;

/// A database that nobody has used for so many rounds is forgotten.
const UNUSED_ROUNDS: u32 = 6;

/// A round is not begun before so many times as long as the last one took have gone by.
const ROUND_SHARE: u32 = 10;

/// The snapshot of one database's catalog.
#[derive(Debug)]
pub struct DatabaseCatalog {
    database: String,
    /// Who reads it.
    identity: ArcSwap<Identity>,
    /// What may be gone by: nothing is in it while definitions are changing.
    snapshot: ArcSwap<Catalog>,
    reading: Mutex<Reading>,
    /// An attempt to read it has ended.
    attempted: Notify,
    /// Counts changes of definitions, those that went through here and those that were found.
    changes: AtomicU64,
    /// Texts under way that change definitions at a moment that is not seen: nothing is known meanwhile.
    defining: AtomicUsize,
    nothing: ArcSwap<Catalog>,
}

/// As long as it lives, nothing is known of a database.
#[derive(Debug)]
pub struct Defining(Arc<DatabaseCatalog>);

impl Drop for Defining {
    fn drop(&mut self) {
        self.0.defining.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where the reading of a database stands.
#[derive(Debug)]
struct Reading {
    /// The snapshot that was read last, which may be gone by while it is known to be right.
    last: Arc<Catalog>,
    /// Of what that was read from.
    fingerprint: Option<Fingerprint>,
    is_wanted: bool,
    is_under_way: bool,
    /// Counts the changes of its definitions that went through here.
    changes: u64,
    /// The last one of these after which nothing was known.
    changed_at: u64,
    /// Names of what was only added, with the change that did it.
    added: Vec<(Box<str>, u64)>,
    /// It is not begun before.
    not_before: Instant,
    /// Failures since it last succeeded, and the last one's reason.
    failures: u32,
    error: String,
    /// It was last read as somebody with all rights, where one with fewer would do.
    by_superuser: bool,
    /// Rounds that have gone by since somebody used the database.
    unused: u32,
}

/// What a reading has come to.
#[derive(Debug)]
struct Read {
    catalog: Arc<Catalog>,
    fingerprint: Fingerprint,
    /// What was proven by the one before need not be by this one.
    contradicts: bool,
}

/// Where catalogs are read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The pool of the primary.
    pub primary: Arc<ServerPool>,
    /// How often all of them are looked at again.
    pub refresh: Duration,
}

impl DatabaseCatalog {
    fn new(identity: &Arc<Identity>) -> Self {
        Self {
            database: identity.database.clone(),
            identity: ArcSwap::new(Arc::clone(identity)),
            snapshot: ArcSwap::from_pointee(Catalog::empty()),
            attempted: Notify::new(),
            changes: AtomicU64::new(0),
            defining: AtomicUsize::new(0),
            nothing: ArcSwap::from_pointee(Catalog::empty()),
            reading: Mutex::new(Reading {
                last: Arc::default(),
                fingerprint: None,
                is_wanted: true,
                is_under_way: false,
                changes: 0,
                changed_at: 0,
                added: Vec::new(),
                not_before: Instant::now(),
                failures: 0,
                error: String::new(),
                by_superuser: false,
                unused: 0,
            }),
        }
    }

    /// The snapshot as of now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Catalog>> {
        if self.defining.load(Ordering::SeqCst) > 0 { self.nothing.load() } else { self.snapshot.load() }
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

    /// Takes over what an attempt to read it has come to, which began after so many changes. What has been added since is
    /// known with this epoch.
    fn note_read(&self, read: Result<Read, String>, changes: u64, took: Duration, epoch: u64) {
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
                    self.snapshot.store(reading.last_with_additions(epoch));
                }
            }
            Err(error) => {
                reading.not_before = Instant::now() + retry_after(reading.failures);
                reading.failures = reading.failures.saturating_add(1);
                reading.is_wanted = true;
                if reading.failures >= FAILURES_MAX {
                    self.snapshot.store(Arc::default());
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

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody of the database has come, who may have more luck, or fewer rights, than who reads it. Whether it is to
    /// be read because of that.
    fn is_used_by(&self, identity: &Arc<Identity>) -> bool {
        let mut reading = self.lock();
        if std::mem::take(&mut reading.unused) > 0 {
            // Not looked at while nobody used it.
            self.snapshot.store(Arc::default());
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

impl Reading {
    fn last_with_additions(&self, epoch: u64) -> Arc<Catalog> {
        if self.added.is_empty() {
            return Arc::clone(&self.last);
        }
        Arc::new(self.last.with_additions(epoch, self.added.iter().map(|(name, _)| name.clone())))
    }

    /// Notes that this was added by the last change.
    fn add(&mut self, name: &str) {
        let change = self.changes;
        match self.added.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, at)) => *at = change,
            None => self.added.push((name.into(), change)),
        }
    }
}

/// The catalog snapshots of all databases that clients use.
#[derive(Debug)]
pub struct Catalogs {
    known: Mutex<HashMap<String, Arc<DatabaseCatalog>>>,
    /// The database of the primary's URL, which is never forgotten.
    warm: Mutex<Option<Arc<DatabaseCatalog>>>,
    epochs: AtomicU64,
    /// Counts changes of definitions that went through here.
    generation: AtomicU64,
    wanted: Notify,
    /// Of the fingerprints' hashes.
    seed: u32,
}

impl Default for Catalogs {
    fn default() -> Self {
        let seed = getrandom::u32().unwrap_or_default();
        Self {
            known: Mutex::default(),
            warm: Mutex::default(),
            epochs: AtomicU64::default(),
            generation: AtomicU64::default(),
            wanted: Notify::default(),
            seed,
        }
    }
}

impl Catalogs {
    /// The snapshot of the identity's database; read soon if it is a new one.
    pub fn of(&self, identity: &Arc<Identity>) -> Arc<DatabaseCatalog> {
        let mut known = self.lock();
        if let Some(catalog) = known.get(&identity.database) {
            let catalog = Arc::clone(catalog);
            drop(known);
            if catalog.is_used_by(identity) {
                self.wanted.notify_one();
            }
            return catalog;
        }
        if known.len() >= DATABASES_MAX {
            known.retain(|_, catalog| Arc::strong_count(catalog) > 1);
        }
        let catalog = Arc::new(DatabaseCatalog::new(identity));
        known.insert(identity.database.clone(), Arc::clone(&catalog));
        self.wanted.notify_one();
        catalog
    }

    /// Reads the identity's database before the first client asks, and whether there are clients or not.
    pub fn keep_warm(&self, identity: &Arc<Identity>) {
        let catalog = self.of(identity);
        *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(catalog);
    }

    /// Definitions may have changed: nothing is known of them until they have been read again.
    pub fn changed(&self, catalog: &DatabaseCatalog) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        let mut reading = catalog.lock();
        reading.changes += 1;
        reading.changed_at = reading.changes;
        reading.is_wanted = true;
        catalog.snapshot.store(Arc::default());
        catalog.changes.fetch_add(1, Ordering::SeqCst);
        drop(reading);
        self.wanted.notify_one();
    }

    /// Tables and sequences of these names, or indexes and schemas, have been added by statements of which everything is
    /// proven: the rest is known as before, and what is new is known to run no code. It is read soon.
    pub fn added(&self, catalog: &DatabaseCatalog, names: &[String]) {
        let mut reading = catalog.lock();
        if reading.added.len() + names.len() > ADDED_MAX {
            drop(reading);
            return self.changed(catalog);
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
        reading.changes += 1;
        for name in names {
            reading.add(name);
        }
        let current = catalog.snapshot.load();
        if !current.is_empty() && !current.has_added(names) {
            catalog.snapshot.store(reading.last_with_additions(self.next_epoch()));
        }
        if !reading.is_wanted {
            reading.is_wanted = true;
            drop(reading);
            self.wanted.notify_one();
        }
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Something ran that may have changed definitions without naming them: whether it has is looked at soon.
    pub fn doubt(&self, catalog: &DatabaseCatalog) {
        let mut reading = catalog.lock();
        if !reading.is_wanted {
            reading.is_wanted = true;
            // Who doubts again and again does not keep the server busy.
            reading.not_before = reading.not_before.max(Instant::now() + DOUBT_PAUSE);
            drop(reading);
            self.wanted.notify_one();
        }
    }

    /// The primary is another server: nothing is known of any database until it has been read there.
    pub fn moved(&self) {
        for catalog in self.all() {
            catalog.lock().fingerprint = None;
            self.changed(&catalog);
        }
    }

    /// Definitions have gone: what is known of the others still holds, but a name may stand for another of them.
    pub fn dropped(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that grows with each change of definitions.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<DatabaseCatalog>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<DatabaseCatalog>> {
        self.lock().values().cloned().collect()
    }

    // --- when ---

    /// Reads snapshots from the primary: new ones and stale ones at once, all of them every `refresh`.
    pub async fn keep(self: Arc<Self>, mut source: watch::Receiver<Source>, stop: CancellationToken) {
        let mut next_round = Instant::now() + source.borrow().refresh;
        let mut round_began: Option<Instant> = None;
        // Dropped at the end, with the connections that they are made on.
        let mut readings = JoinSet::new();
        loop {
            let Source { primary, refresh } = source.borrow_and_update().clone();
            let next = self.begin_readings(&primary, &mut readings);
            if let Some(began) = round_began.take_if(|_| readings.is_empty()) {
                let pause = (began.elapsed() * ROUND_SHARE).min(refresh * ROUND_SHARE);
                next_round = next_round.max(Instant::now() + pause);
            }
            tokio::select! {
                // Cancel safe: a notification that is not consumed stays with the Notify.
                () = self.wanted.notified() => {}
                // Cancel safe: a change that was not seen is seen next time.
                Ok(()) = source.changed() => {
                    let refresh = source.borrow().refresh;
                    next_round = next_round.min(Instant::now() + refresh);
                }
                // Cancel safe: a reading that has ended stays in the set.
                Some(_) = readings.join_next() => {}
                () = sleep_until(next.min(next_round)) => {
                    if Instant::now() >= next_round {
                        let now = Instant::now();
                        (next_round, round_began) = (now + refresh, Some(now));
                        self.begin_round(&primary);
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Each database is to be looked at; those that nobody has used for a while are forgotten.
    fn begin_round(&self, primary: &ServerPool) {
        let mut forgotten = Vec::new();
        self.lock().retain(|_, catalog| {
            let mut reading = catalog.lock();
            if Arc::strong_count(catalog) > 1 {
                reading.unused = 0;
                reading.is_wanted = true;
                return true;
            }
            reading.unused += 1;
            reading.is_wanted = false;
            let stays = reading.unused < UNUSED_ROUNDS;
            if !stays {
                forgotten.push(catalog.database.clone());
            }
            stays
        });
        if !forgotten.is_empty() {
            // Nobody can drop the database, or make another one after it, while somebody is connected to it.
            primary.close_idle(|identity| forgotten.contains(&identity.database));
        }
    }

    /// Begins the readings that are due. Returns when the next one is.
    fn begin_readings(self: &Arc<Self>, primary: &Arc<ServerPool>, readings: &mut JoinSet<()>) -> Instant {
        let now = Instant::now();
        let mut next = now + RETRY_MAX;
        for catalog in self.all() {
            let mut reading = catalog.lock();
            if !reading.is_wanted || reading.is_under_way {
                continue;
            }
            if reading.not_before > now {
                next = next.min(reading.not_before);
            } else if readings.len() < AT_ONCE {
                reading.is_wanted = false;
                reading.is_under_way = true;
                drop(reading);
                let (catalogs, primary) = (Arc::clone(self), Arc::clone(primary));
                readings.spawn(async move { catalogs.renew(&primary, &catalog).await });
            }
        }
        next
    }

    // --- how ---

    /// Reads a database again, and puts in force what was read.
    async fn renew(&self, primary: &Arc<ServerPool>, catalog: &Arc<DatabaseCatalog>) {
        let began = Instant::now();
        let changes = catalog.lock().changes;
        let read = self.read(primary, catalog).await;
        let took = began.elapsed();
        catalog.note_read(read, changes, took, self.next_epoch());
        catalog.attempted.notify_waiters();
    }

    async fn read(&self, primary: &Arc<ServerPool>, catalog: &DatabaseCatalog) -> Result<Read, String> {
        let identity = catalog.identity.load_full();
        let wants = Wants { identity: &identity, last: None, settings: 0, home: Home(0) };
        let mut lease = primary.lease(&wants).await.map_err(|refusal| refusal.to_string())?;
        let (last, known) = {
            let mut reading = catalog.lock();
            reading.by_superuser = question::is_superuser(&lease);
            (Arc::clone(&reading.last), reading.fingerprint.clone())
        };
        let found = timeout(READ_TIMEOUT, question::ask(&mut lease, self.seed, known.as_ref()))
            .await
            .map_err(|_| format!("no answer within {READ_TIMEOUT:?}"))??;
        // After an error it is dropped, and its connection closed.
        if let Some(proof) = lease.protocol.quiescent() {
            lease.release(proof);
        }
        match found {
            Found::Same(fingerprint) => Ok(Read { catalog: last, fingerprint, contradicts: false }),
            Found::Rows(fingerprint, answer) => {
                let epoch = self.next_epoch();
                let make = move || {
                    let read = question::catalog(epoch, answer);
                    if last.says_the_same(&read) {
                        // Sessions keep their cached verdicts as long as nothing has changed.
                        return Read { catalog: last, fingerprint, contradicts: false };
                    }
                    let contradicts = !last.differs_in_plain_relations(&read);
                    Read { catalog: Arc::new(read), fingerprint, contradicts }
                };
                tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string())
            }
        }
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
