//! What all sessions share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{cancels::Cancels, identities::Identities, metrics::Metrics, welcome::Welcomes};
use crate::{
    auth::tls::Acceptor,
    backend::statements::Statements,
    pool::Pool,
    route::{PoolId, Routes},
    server::Catalogs,
    sql::{Classifier, Glob},
};

/// Bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients, all together.
    pub max_clients: usize,
    /// From accept to the end of authentication.
    pub login_timeout: Duration,
    /// Bytes of a request that are kept before it is routed.
    pub request_buffer: usize,
    /// Prepared statements of one client.
    pub prepared_per_client: usize,
    /// Prepared statements on one backend.
    pub prepared_per_backend: usize,
}

/// Which sessions are workers.
#[derive(Debug, Default)]
pub struct Workers {
    /// Globs on `application_name`.
    pub application_names: Vec<Glob>,
    /// Users.
    pub users: Vec<String>,
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// Bounds.
    pub limits: Limits,
    /// How clients get TLS.
    pub acceptor: Acceptor,
    /// Who may come in.
    pub identities: Identities,
    /// Text to verdict.
    pub classifier: Classifier,
    /// Where requests go.
    pub routes: Routes,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// What databases define.
    pub catalogs: Arc<Catalogs>,
    /// Prepared statements.
    pub statements: Statements,
    /// Keys given to clients.
    pub cancels: Arc<Cancels>,
    /// Which sessions are workers.
    pub workers: Workers,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What new sessions are told of the server's parameters.
    pub welcomes: Welcomes,
    /// Ends every session that is not in a transaction; set by [`Shared::drain`].
    pub draining: CancellationToken,
    /// The same, to be asked before every request: the token takes a lock.
    pub is_draining: AtomicBool,
}

impl Shared {
    /// Lets no session begin anything new: each ends when it is in no transaction.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.draining.cancel();
        self.cancels.wake_all();
    }

    /// Clients connected now.
    pub fn clients(&self) -> u64 {
        self.metrics.clients.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    pub(crate) fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// Whether two pools are on one server (the first one of each).
    pub(crate) fn same_server(&self, one: PoolId, other: PoolId) -> bool {
        Arc::ptr_eq(&self.pool(one).members[0].server, &self.pool(other).members[0].server)
    }

    pub(crate) fn is_worker(&self, user: &str, application_name: Option<&str>) -> bool {
        let named = application_name
            .is_some_and(|name| self.workers.application_names.iter().any(|glob| glob.matches(name)));
        named || self.workers.users.iter().any(|worker| worker == user)
    }
}
