//! The shared connections of all databases that are listened to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{
    connection::{ListenLimits, Listener},
    mailbox::ListenStats,
};
use crate::{
    backend::Identity,
    pool::ServerPool,
    threads::{Home, Spawner},
};

/// Databases that are listened to at once, over all servers. Each costs a connection.
const LISTENERS_MAX: usize = 100;

/// The shared connections of all databases.
#[derive(Debug)]
pub struct Listeners {
    known: Mutex<Vec<Arc<Listener>>>,
    spawner: Spawner,
    limits: Arc<Mutex<ListenLimits>>,
    stats: Arc<ListenStats>,
    stop: CancellationToken,
}

impl Listeners {
    /// None yet. Their tasks run on `spawner` until [`Listeners::stop`].
    pub fn new(spawner: Spawner, limits: ListenLimits) -> Self {
        let limits = Arc::new(Mutex::new(limits));
        Self {
            known: Mutex::default(),
            spawner,
            limits,
            stats: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The one for the identity's database on the pool's server; opened when somebody subscribes. `None` if there are
    /// too many.
    pub fn of(&self, pool: &Arc<ServerPool>, identity: &Arc<Identity>) -> Option<Arc<Listener>> {
        let database = pool.server().login(identity, &identity.credentials()).database.to_owned();
        let mut known = self.lock();
        known.retain(|listener| !listener.lock().closed);
        let is_it = |known: &&Arc<Listener>| known.is_on_server_of(pool) && known.database == database;
        if let Some(listener) = known.iter().find(is_it) {
            return Some(Arc::clone(listener));
        }
        if known.len() >= LISTENERS_MAX {
            return None;
        }
        let listener = Arc::new(Listener::new(pool, identity, database, &self.limits, &self.stats));
        known.push(Arc::clone(&listener));
        let (task, stop) = (Arc::clone(&listener), self.stop.clone());
        self.spawner.spawn(Home(0), async move { task.run(&stop).await });
        Some(listener)
    }

    /// From now on these hold, for sessions that begin to listen and connections that are lost.
    pub fn set_limits(&self, limits: ListenLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Gives up the connections of pools that are no longer part of the configuration, and their sessions, and those to a
    /// host that its server is no longer at.
    pub fn look(&self) {
        self.lock().iter().for_each(|listener| listener.work.notify_one());
    }

    /// Ends all of them: the program is stopping.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Counters.
    pub fn stats(&self) -> &ListenStats {
        &self.stats
    }

    /// Channels listened to now.
    pub fn channels(&self) -> usize {
        self.lock().iter().map(|listener| listener.lock().confirmed.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
