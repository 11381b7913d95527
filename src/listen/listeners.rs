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

/// A shared connection, as operators are told of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The server's name.
    pub server: String,
    /// The database at the server.
    pub database: String,
    /// The user that it logs in as.
    pub user: String,
    /// The pool that it has a place of.
    pub pool: String,
    /// Channels that sessions listen to.
    pub wanted: usize,
    /// Channels that the connection listens to.
    pub confirmed: usize,
    /// Whether it has not yet been made, or was lost.
    pub is_behind: bool,
}

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

    /// Each of them.
    pub fn told(&self) -> Vec<Told> {
        let told = |listener: &Arc<Listener>| {
            let state = listener.lock();
            (!state.closed).then(|| Told {
                server: listener.pool.server_name.clone(),
                database: listener.database.clone(),
                user: listener.identity.user.clone(),
                pool: listener.pool.name.clone(),
                wanted: state.channels.len(),
                confirmed: state.confirmed.len(),
                is_behind: state.has_gap || (state.confirmed.is_empty() && !state.channels.is_empty()),
            })
        };
        self.lock().iter().filter_map(told).collect()
    }

    /// Channels listened to now.
    pub fn channels(&self) -> usize {
        self.lock().iter().map(|listener| listener.lock().confirmed.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
