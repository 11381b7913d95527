//! What all sessions share: a snapshot of what the configuration says, and what outlives every snapshot.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    attention::Attention,
    cancels::Cancels,
    door_log::DoorLog,
    identities::Identities,
    judges::Judges,
    metrics::{Metrics, Requests},
    places::Places,
    welcome::Welcomes,
};
use crate::{
    auth::tls::Acceptor,
    backend::{Identity, statements::Statements},
    pool::{Pool, ServerPool},
    route::{PoolId, Routes},
    server::{Catalogs, Health, Listeners},
    sql::{Classifier, Glob},
};

/// Bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients, all together.
    pub max_clients: usize,
    /// From accept to the end of authentication.
    pub login_timeout: Duration,
    /// How long what a client has sent may go on when it has left.
    pub orphan_timeout: Duration,
    /// Bytes of a request that are kept before it is routed.
    pub request_buffer: usize,
    /// Bytes of unfinished requests of all sessions together.
    pub request_buffer_total: usize,
    /// How long a client or server may acknowledge nothing of what was sent to it; zero for no bound.
    pub tcp_user_timeout: Duration,
    /// Prepared statements of one client.
    pub prepared_per_client: usize,
    /// What they may take, in bytes.
    pub prepared_bytes_per_client: usize,
    /// Prepared statements on one backend.
    pub prepared_per_backend: usize,
    /// Bytes of the names and values of one client's settings that are carried.
    pub settings_per_client: usize,
}

/// Which sessions are workers.
#[derive(Debug, Default)]
pub struct Workers {
    /// Globs on `application_name`.
    pub application_names: Vec<Glob>,
    /// Users.
    pub users: Vec<String>,
}

/// What all sessions share: a snapshot that a reload replaces as a whole ([`Live`](super::Live)).
#[derive(Debug)]
pub struct Shared {
    /// Which snapshot it is; each has a higher number than those before.
    pub epoch: u64,
    /// Bounds.
    pub limits: Limits,
    /// How clients get TLS.
    pub acceptor: Acceptor,
    /// Who may come in.
    pub identities: Identities,
    /// Text to verdict. Handed on from snapshot to snapshot as long as the rules are the same.
    pub classifier: Arc<Classifier>,
    /// The first snapshot that had this classifier.
    pub classifier_epoch: u64,
    /// Where requests go.
    pub routes: Routes,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// What is known of the servers; handed on by their names.
    pub health: Health,
    /// Counters of requests, by [`PoolId`]; a pool's are handed on by its name.
    pub requests: Vec<Arc<Requests>>,
    /// Which sessions are workers.
    pub workers: Workers,
    /// What new sessions are told of the server's parameters. Handed on as long as the primary is the same.
    pub welcomes: Arc<Welcomes>,
    /// What is the same in every snapshot.
    pub lasting: Arc<Lasting>,
}

/// What lives as long as the program, whatever the configuration says.
#[derive(Debug)]
pub struct Lasting {
    /// What databases define.
    pub catalogs: Arc<Catalogs>,
    /// Who listens for sessions.
    pub listeners: Listeners,
    /// Prepared statements.
    pub statements: Statements,
    /// Where long texts are judged.
    pub judges: Judges,
    /// Keys given to clients.
    pub cancels: Arc<Cancels>,
    /// Who holds how many of the places for clients.
    pub places: Arc<Places>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is logged of clients that were refused.
    pub door_log: DoorLog,
    /// What is logged of clients with whom TLS did not come about.
    pub tls_log: DoorLog,
    /// Ends every session that is not in a transaction; set by [`Lasting::drain`].
    pub draining: CancellationToken,
    /// The same, to be asked before every request: the token takes a lock.
    pub is_draining: AtomicBool,
    /// Bytes of unfinished requests, of all sessions.
    pub kept: Arc<AtomicUsize>,
    /// What sessions are to look at, though nothing has come for them.
    pub attention: Attention,
}

/// What lasts is used as if it were the snapshot's own.
impl Deref for Shared {
    type Target = Lasting;

    fn deref(&self) -> &Lasting {
        &self.lasting
    }
}

impl Lasting {
    /// For a program that shares these prepared statements.
    pub fn new(statements: Statements, listeners: Listeners) -> Self {
        Self {
            catalogs: Arc::default(),
            listeners,
            statements,
            judges: Judges::default(),
            cancels: Arc::default(),
            places: Arc::default(),
            metrics: Arc::default(),
            door_log: DoorLog::default(),
            tls_log: DoorLog::default(),
            draining: CancellationToken::new(),
            is_draining: AtomicBool::new(false),
            kept: Arc::default(),
            attention: Attention::default(),
        }
    }

    /// Lets no session begin anything new: each ends when it is in no transaction.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.draining.cancel();
        self.cancels.wake_all();
    }

    /// Ends every session now, and tells its client so.
    pub fn cut_off(&self) {
        self.attention.cut_off();
        self.cancels.wake_all();
    }

    /// Has the sessions that hold a backend, or all of them, look at whether their peers are still there.
    pub fn look(&self, all: bool) {
        self.attention.call();
        if all { self.cancels.wake_all() } else { self.cancels.wake_holders() }
    }

    /// Clients connected now.
    pub fn clients(&self) -> u64 {
        self.metrics.clients.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}

impl Shared {
    /// The identity of the primary's URL, as which Bulkhead asks for its own purposes.
    pub fn url_identity(&self) -> Option<Arc<Identity>> {
        self.identities.identity(&self.identities.url_database, &self.identities.url_user)
    }

    /// Connections begin with other settings from now on: those that are open make room for new ones, and new sessions
    /// are told of the new settings.
    pub(crate) fn renew_backends(&self) {
        self.welcomes.renew();
        self.pools.iter().flat_map(|pool| &pool.members).for_each(ServerPool::renew);
    }

    pub(crate) fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// The pool of this name.
    pub(crate) fn pool_named(&self, name: &str) -> Option<PoolId> {
        self.pools.iter().position(|pool| pool.name == name).map(|at| PoolId(at as u8))
    }

    /// Whether two pools are on one server (the first one of each).
    pub(crate) fn same_server(&self, one: PoolId, other: PoolId) -> bool {
        self.pool(one).members[0].is_on_server_of(&self.pool(other).members[0])
    }

    pub(crate) fn is_worker(&self, user: &str, application_name: Option<&str>) -> bool {
        let named = application_name
            .is_some_and(|name| self.workers.application_names.iter().any(|glob| glob.matches(name)));
        named || self.workers.users.iter().any(|worker| worker == user)
    }
}
