//! When the types of a database are read on both servers, and how.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    catalogs::Catalogs,
    database::DatabaseCatalog,
    question,
    reader::{AT_ONCE, READ_TIMEOUT},
    types::{PAUSE, RETRY_MAX, Read},
};
use crate::{
    backend::Identity,
    pool::{ServerPool, Wants},
    threads::Home,
    types::{Known, TypeMap, drift},
};

/// A session waits no longer for a reading.
const WAIT: Duration = Duration::from_secs(10);

/// The first one that waits does so no longer than this. It holds a place of the jobs' pool: if others that wait hold all
/// the rest, the reading has none before one of them gives up, and then it has one in time for the others.
const FIRST_WAIT: Duration = Duration::from_millis(2_500);

/// A session that waits; counted as long as this lives.
struct Waiting(Arc<DatabaseCatalog>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.types.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until the wish of this number is met, or for some seconds.
///
/// Cancel safe.
async fn meet(catalog: Arc<DatabaseCatalog>, wish: u64) -> Result<Arc<TypeMap>, String> {
    let is_first = catalog.types.waiting.fetch_add(1, Ordering::Relaxed) == 0;
    let waiting = Waiting(catalog);
    let catalog = &waiting.0;
    let limit = if is_first { FIRST_WAIT } else { WAIT };
    let met = async {
        loop {
            let ended = catalog.types.ended.notified();
            {
                let state = catalog.types.lock();
                if state.met >= wish {
                    let has_failed = state.failures > 0;
                    return if has_failed { Err(state.error.clone()) } else { Ok(Arc::clone(&state.last)) };
                }
                // Whoever would wait for the next attempt would wait for others, too.
                if state.failures > 0 && state.not_before > Instant::now() + PAUSE {
                    return Err(state.error.clone());
                }
            }
            ended.await;
        }
    };
    timeout(limit, met).await.unwrap_or_else(|_| Err(format!("the catalogs were not read within {limit:?}")))
}

impl Catalogs {
    /// Reads the types of a database once more, and gives what was read, or why it could not be. Bounded in time.
    pub fn read_types(
        &self,
        catalog: &Arc<DatabaseCatalog>,
    ) -> impl Future<Output = Result<Arc<TypeMap>, String>> + Send + Sync + 'static {
        let wish = catalog.types.want();
        self.wanted.notify_one();
        meet(Arc::clone(catalog), wish)
    }

    /// The job database is another one: nothing is known of types until they have been read there.
    pub(super) fn forget_types(&self) {
        for catalog in self.all() {
            catalog.types.forget();
        }
    }

    /// Begins the readings that are due. Returns when the next one is.
    pub(super) fn begin_type_readings(
        self: &Arc<Self>,
        (primary, jobs): (&Arc<ServerPool>, &Arc<ServerPool>),
        readings: &mut JoinSet<()>,
    ) -> Instant {
        let now = Instant::now();
        let mut next = now + RETRY_MAX;
        for catalog in self.all() {
            let mut state = catalog.types.lock();
            if state.wanted == state.met || state.is_under_way {
                continue;
            }
            if state.not_before > now {
                next = next.min(state.not_before);
            } else if readings.len() < AT_ONCE {
                state.is_under_way = true;
                let wish = state.wanted;
                drop(state);
                let (primary, jobs, catalog) = (Arc::clone(primary), Arc::clone(jobs), Arc::clone(&catalog));
                readings.spawn(async move {
                    let began = Instant::now();
                    let read = read(&primary, &jobs, &catalog.identity.load_full()).await;
                    catalog.types.note_read(&catalog.database, wish, began.elapsed(), read);
                    catalog.types.ended.notify_waiters();
                });
            }
        }
        next
    }
}

async fn read(
    primary: &Arc<ServerPool>,
    jobs: &Arc<ServerPool>,
    identity: &Arc<Identity>,
) -> Result<Read, String> {
    let (here, there) = (read_from(primary, identity).await?, read_from(jobs, identity).await?);
    let make = move || Read { map: Arc::new(TypeMap::of(&there, &here)), drift: drift(&there, &here) };
    tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string())
}

async fn read_from(pool: &Arc<ServerPool>, identity: &Arc<Identity>) -> Result<Known, String> {
    let wants = Wants { identity, last: None, settings: 0, home: Home(0) };
    let mut lease = pool.lease(&wants).await.map_err(|refusal| refusal.to_string())?;
    let known = timeout(READ_TIMEOUT, question::read_types(&mut lease))
        .await
        .map_err(|_| format!("no answer within {READ_TIMEOUT:?}"))??;
    // After an error it is dropped, and its connection closed.
    if let Some(proof) = lease.protocol.quiescent() {
        lease.release(proof);
    }
    Ok(known)
}
