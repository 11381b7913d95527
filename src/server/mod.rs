//! What is known of the servers beyond their address: how they are, the catalog snapshots that classification goes by,
//! and the notifications that sessions listen for.

mod health;
pub mod listener;
pub mod mailbox;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub use health::{CHECK_EVERY, Health, Known, Role, ServerHealth};
pub use listener::{ListenFailure, ListenLimits, Listener, Listeners, OnGap, listen_sql};
pub use mailbox::{Fate, ListenStats, Mail, Mailbox};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Backend, Home, Identity},
    pool::{ServerPool, Wants},
    sql::Catalog,
};

/// Databases of which a snapshot is kept.
const DATABASES_MAX: usize = 1_000;

/// A server that takes longer to answer will not; its place is needed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A snapshot that could not be read is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// The snapshot of one database's catalog.
#[derive(Debug)]
pub struct DatabaseCatalog {
    database: String,
    /// Who reads it.
    identity: ArcSwap<Identity>,
    snapshot: ArcSwap<Catalog>,
    /// The snapshot that was read last, which `snapshot` is while it can be trusted.
    last: ArcSwap<Catalog>,
    /// A statement may have changed definitions since the snapshot was read.
    stale: AtomicBool,
    /// The last reading failed; perhaps another identity has more luck.
    failed: AtomicBool,
}

/// Where catalogs are read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The pool of the primary.
    pub primary: Arc<ServerPool>,
    /// How often all of them are read again.
    pub refresh: Duration,
}

impl DatabaseCatalog {
    /// The snapshot as of now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.snapshot.load()
    }
}

/// The catalog snapshots of all databases that clients use.
#[derive(Debug, Default)]
pub struct Catalogs {
    known: Mutex<HashMap<String, Arc<DatabaseCatalog>>>,
    epochs: AtomicU64,
    /// Counts changes of definitions that went through here.
    generation: AtomicU64,
    wanted: Notify,
}

impl Catalogs {
    /// The snapshot of the identity's database; read soon if it is a new one.
    pub fn of(&self, identity: &Arc<Identity>) -> Arc<DatabaseCatalog> {
        let mut known = self.lock();
        if let Some(catalog) = known.get(&identity.database) {
            if catalog.failed.load(Ordering::Relaxed) {
                catalog.identity.store(Arc::clone(identity));
            }
            return Arc::clone(catalog);
        }
        if known.len() >= DATABASES_MAX {
            known.retain(|_, catalog| Arc::strong_count(catalog) > 1);
        }
        let catalog = Arc::new(DatabaseCatalog {
            database: identity.database.clone(),
            identity: ArcSwap::new(Arc::clone(identity)),
            snapshot: ArcSwap::from_pointee(Catalog::empty()),
            last: ArcSwap::from_pointee(Catalog::empty()),
            stale: AtomicBool::new(true),
            failed: AtomicBool::new(false),
        });
        known.insert(identity.database.clone(), Arc::clone(&catalog));
        self.wanted.notify_one();
        catalog
    }

    /// Definitions may have changed: nothing is known of them until they have been read again.
    pub fn changed(&self, catalog: &DatabaseCatalog) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        catalog.stale.store(true, Ordering::SeqCst);
        catalog.snapshot.store(Arc::default());
        self.wanted.notify_one();
    }

    /// The primary is another server: nothing is known of any database until it has been read there.
    pub fn moved(&self) {
        let known: Vec<_> = self.lock().values().cloned().collect();
        for catalog in &known {
            self.changed(catalog);
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<DatabaseCatalog>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads snapshots from the primary: new ones and stale ones at once, all of them every `refresh`.
    pub async fn keep(self: Arc<Self>, mut source: watch::Receiver<Source>, stop: CancellationToken) {
        let mut next_round = tokio::time::Instant::now() + source.borrow().refresh;
        loop {
            let Source { primary, refresh } = source.borrow_and_update().clone();
            tokio::select! {
                // Cancel safe: a notification that is not consumed stays with the Notify.
                () = self.wanted.notified() => {}
                // Cancel safe: a change that was not seen is seen next time.
                Ok(()) = source.changed() => {
                    let refresh = source.borrow().refresh;
                    next_round = next_round.min(tokio::time::Instant::now() + refresh);
                    continue;
                }
                () = tokio::time::sleep_until(next_round) => {
                    next_round = tokio::time::Instant::now() + refresh;
                    self.lock().values().for_each(|catalog| catalog.stale.store(true, Ordering::Release));
                }
                () = stop.cancelled() => return,
            }
            let stale: Vec<_> = self
                .lock()
                .values()
                .filter(|catalog| catalog.stale.load(Ordering::Acquire))
                .cloned()
                .collect();
            for catalog in stale {
                tokio::select! {
                    // Not cancel safe for the backend, which is closed then: the program is stopping.
                    read = self.read(&primary, &catalog) => {
                        catalog.failed.store(read.is_err(), Ordering::Relaxed);
                        if let Err(error) = read {
                            catalog.stale.store(true, Ordering::Release);
                            next_round = tokio::time::Instant::now() + refresh.min(RETRY);
                            tracing::warn!(database = %catalog.database, error, "the catalog could not be read; reads go to the primary until it is");
                        }
                    }
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    async fn read(&self, primary: &Arc<ServerPool>, catalog: &DatabaseCatalog) -> Result<(), String> {
        catalog.stale.store(false, Ordering::Release);
        let identity = catalog.identity.load_full();
        let wants = Wants { identity: &identity, last: None, settings: 0, home: Home(0) };
        let mut lease = primary.lease(&wants).await.map_err(|refusal| refusal.to_string())?;
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let read = tokio::time::timeout(READ_TIMEOUT, read_catalog(&mut lease, epoch))
            .await
            .map_err(|_| format!("no answer within {READ_TIMEOUT:?}"))?;
        if let Some(proof) = lease.protocol.quiescent() {
            lease.release(proof);
        }
        let read = read?;
        // Sessions keep their cached verdicts as long as nothing has changed.
        if !catalog.last.load().says_the_same(&read) {
            catalog.last.store(Arc::new(read));
        }
        catalog.snapshot.store(catalog.last.load_full());
        if catalog.stale.load(Ordering::SeqCst) {
            // Changed while it was read: the next snapshot is on its way.
            catalog.snapshot.store(Arc::default());
        }
        Ok(())
    }
}

/// Reads the catalog of a backend's database.
pub async fn read_catalog(backend: &mut Backend, epoch: u64) -> Result<Catalog, String> {
    let answer = backend.ask(Catalog::QUERY).await.map_err(|error| error.to_string())?;
    if let Some(error) = answer.error {
        return Err(error.to_string());
    }
    let rows = answer.rows.into_iter().filter_map(|row| {
        let mut columns = row.into_iter().flatten();
        Some((columns.next()?, columns.next()?))
    });
    Ok(Catalog::from_rows(epoch, rows))
}
