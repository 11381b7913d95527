//! What lives as long as the program, whatever the configuration says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    attention::Attention,
    averages::Averages,
    cancels::Cancels,
    counters::Metrics,
    door_log::DoorLog,
    judges::Judges,
    orders::Orders,
    places::Places,
    queries::{Queries, SlowLog},
    recent::Recent,
};
use crate::{backend::statements::Statements, catalog::Catalogs, causal::Causal, listen::Listeners};

/// Each inquiry takes a connection to every server for up to two seconds.
const INQUIRIES_AT_ONCE: usize = 1;

/// Everything that lives as long as the program, whatever the configuration says.
#[derive(Debug)]
pub struct Process {
    /// Catalog snapshots of the databases.
    pub catalogs: Arc<Catalogs>,
    /// What is known of writes, and of replicas.
    pub causal: Arc<Causal>,
    /// Connections that listen for sessions.
    pub listeners: Listeners,
    /// Prepared statements.
    pub statements: Statements,
    /// Where long texts are judged.
    pub judges: Judges,
    /// Keys given to clients.
    pub cancels: Arc<Cancels>,
    /// Places for clients, and the identities that hold them.
    pub places: Arc<Places>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The log of clients that were refused.
    pub door_log: DoorLog,
    /// The log of clients with whom TLS did not come about.
    pub tls_log: DoorLog,
    /// The log of clients that were disconnected for what they did, or did not do.
    pub disconnect_log: DoorLog,
    /// Ends every session that is not in a transaction; set by [`Process::drain`].
    pub draining: CancellationToken,
    /// The same, to be asked before every request: the token takes a lock.
    pub is_draining: AtomicBool,
    /// Bytes of unfinished requests, of all sessions.
    pub kept: Arc<AtomicUsize>,
    /// Calls for sessions to look at what may have changed.
    pub attention: Attention,
    /// Orders of operators to the program itself.
    pub orders: Orders,
    /// Consoles that are open now.
    pub consoles: Arc<AtomicUsize>,
    /// The work of pools in the last minutes, for the console.
    pub averages: Averages,
    /// Refusals of the last minute.
    pub recent: Recent,
    /// Places for those who have the servers asked what keeps them.
    pub inquiries: Arc<Semaphore>,
    /// Statistics of statements.
    pub queries: Queries,
    /// Slow statements.
    pub slow: SlowLog,
}

impl Process {
    /// For a program that shares these prepared statements.
    pub fn new(statements: Statements, listeners: Listeners) -> Self {
        Self {
            catalogs: Arc::default(),
            causal: Arc::default(),
            listeners,
            statements,
            judges: Judges::default(),
            cancels: Arc::default(),
            places: Arc::default(),
            metrics: Arc::default(),
            door_log: DoorLog::default(),
            tls_log: DoorLog::default(),
            disconnect_log: DoorLog::default(),
            draining: CancellationToken::new(),
            is_draining: AtomicBool::new(false),
            kept: Arc::default(),
            attention: Attention::default(),
            orders: Orders::default(),
            consoles: Arc::default(),
            averages: Averages::default(),
            recent: Recent::default(),
            inquiries: Arc::new(Semaphore::new(INQUIRIES_AT_ONCE)),
            queries: Queries::default(),
            slow: SlowLog::default(),
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

    /// Ends the session of this number. False if there is none.
    pub fn kill(&self, id: i32) -> bool {
        let waker = self.cancels.kill(id);
        self.attention.call();
        waker.inspect(Waker::wake_by_ref).is_some()
    }

    /// Clients connected now.
    pub fn clients(&self) -> u64 {
        self.metrics.clients.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
