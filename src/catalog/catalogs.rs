//! The snapshots of all databases that clients use.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::database::DatabaseCatalog;
use crate::{backend::Identity, metrics::Evictions, sql::Library};

/// Databases of which a snapshot is kept.
const DATABASES_MAX: usize = 1_000;

/// What may have changed definitions is looked after no sooner.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// Names of tables and sequences that were added since a reading began; of more, nothing is known until the next one.
const ADDED_MAX: usize = 500;

/// The catalog snapshots of all databases that clients use.
#[derive(Debug)]
pub struct Catalogs {
    pub(super) known: Mutex<HashMap<String, Arc<DatabaseCatalog>>>,
    /// The database of the primary's URL, which is never forgotten.
    pub(super) warm: Mutex<Option<Arc<DatabaseCatalog>>>,
    pub(super) epochs: AtomicU64,
    /// Counts changes of definitions that went through here.
    pub(super) generation: AtomicU64,
    pub(super) wanted: Notify,
    /// The job libraries of the primary's database, as it was read last.
    pub(super) libraries: watch::Sender<Vec<Library>>,
    /// The seed of the fingerprints' hashes.
    pub(super) seed: u32,
    /// Databases that nobody used any more, and that have made room for others.
    evictions: Evictions,
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
            libraries: watch::Sender::default(),
            seed,
            evictions: Evictions::default(),
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
            let before = known.len();
            known.retain(|_, catalog| Arc::strong_count(catalog) > 1);
            self.evictions.add(before - known.len());
        }
        let catalog = Arc::new(DatabaseCatalog::new(identity));
        known.insert(identity.database.clone(), Arc::clone(&catalog));
        self.wanted.notify_one();
        catalog
    }

    /// Databases that have made room for others.
    pub fn evicted(&self) -> u64 {
        self.evictions.read()
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
        catalog.snapshot.store(Arc::default(), &mut reading);
        catalog.changes.fetch_add(1, Ordering::SeqCst);
        drop(reading);
        catalog.types.want();
        self.wanted.notify_one();
    }

    /// Tables and sequences of these names, or indexes and schemas, have been added by statements of which everything is
    /// proven: the rest is known as before, and what is new is known to run no code. It is read soon.
    pub fn added(&self, catalog: &DatabaseCatalog, names: &[String]) {
        // A table's rows have a type.
        catalog.types.want();
        let mut reading = catalog.lock();
        // Of names that begin as the server's own do it must be known whose they are.
        let is_like_system = names.iter().any(|name| name.starts_with("pg_"));
        if is_like_system || reading.added.len() + names.len() > ADDED_MAX {
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
            let catalog_now = reading.last_with_additions(self.next_epoch());
            catalog.snapshot.store(catalog_now, &mut reading);
        }
        if !reading.is_wanted {
            reading.is_wanted = true;
            drop(reading);
            self.wanted.notify_one();
        }
    }

    /// The job libraries of the primary's database: changes whenever it is read and they have.
    pub fn libraries(&self) -> watch::Receiver<Vec<Library>> {
        self.libraries.subscribe()
    }

    /// Tells of the libraries of a database that was read, if it is the primary's.
    pub(super) fn tell_libraries(&self, catalog: &Arc<DatabaseCatalog>) {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !warm.is_some_and(|warm| Arc::ptr_eq(&warm, catalog)) {
            return;
        }
        let last = Arc::clone(&catalog.lock().last);
        self.libraries.send_if_modified(|known| {
            let is_new = known != last.libraries();
            if is_new {
                *known = last.libraries().to_vec();
            }
            is_new
        });
    }

    pub(super) fn next_epoch(&self) -> u64 {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<DatabaseCatalog>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<Arc<DatabaseCatalog>> {
        self.lock().values().cloned().collect()
    }
}
