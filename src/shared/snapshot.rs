//! What all sessions share: a snapshot of what the configuration says, and what outlives every snapshot.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    averages::PoolTotals,
    card::Card,
    console::Console,
    counters::{ReadOn, Requests},
    greetings::Greetings,
    identities::Identities,
    process::Process,
    recent::{Refused, Tally},
};
use crate::{
    auth::tls::Acceptor,
    backend::Identity,
    causal::progress::Progress,
    outbox::{Outbox, Settings},
    pool::{Pool, ServerPool},
    route::{PoolId, Routes},
    sql::{Classifier, Consistency, Glob},
    topology::{Health, Known, ServerHealth},
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
    /// Bytes that these may take.
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
    /// Length of the time in which a session that has worked on jobs counts as a worker's; zero for never.
    pub job_window: Duration,
}

/// How reads use replicas; by default there are none.
#[derive(Debug, Default)]
pub struct Replicas {
    /// How fresh a replica must be, unless a session or a statement asks for something else.
    pub consistency: Consistency,
    /// How long a read may be held for one to be so.
    pub causal_wait: Duration,
    /// How often servers may be asked for their positions.
    pub sample_interval: Duration,
    /// How far each is, in the order of the pool's members.
    pub progress: Vec<Arc<Progress>>,
    /// The share of reads that each gets, in the same order.
    pub weights: Vec<usize>,
}

/// The snapshot that all sessions share, and that a reload replaces as a whole ([`Current`](super::Current)).
#[derive(Debug)]
pub struct Snapshot {
    /// Which snapshot it is; each has a higher number than those before.
    pub epoch: u64,
    /// Bounds.
    pub limits: Limits,
    /// How clients get TLS.
    pub acceptor: Acceptor,
    /// Clients that may come in.
    pub identities: Identities,
    /// Text to verdict. Handed on from snapshot to snapshot as long as the rules are the same.
    pub classifier: Arc<Classifier>,
    /// The first snapshot that had this classifier.
    pub classifier_epoch: u64,
    /// Where requests go.
    pub routes: Routes,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// The servers' health; handed on by their names.
    pub health: Health,
    /// Counters of requests, by [`PoolId`]; a pool's are handed on by its name.
    pub requests: Vec<Arc<Requests>>,
    /// Which sessions are workers.
    pub workers: Workers,
    /// How reads use replicas.
    pub replicas: Replicas,
    /// The console.
    pub console: Console,
    /// Where jobs of the primary's transactions are left for the job database, if there is one. Handed on from snapshot to
    /// snapshot.
    pub outbox: Option<Arc<Outbox>>,
    /// How these jobs are moved; `None` if there is no outbox.
    pub relay: Option<Settings>,
    /// What new sessions are told of the server's parameters. Handed on as long as the primary is the same.
    pub greetings: Arc<Greetings>,
    /// The part that is the same in every snapshot.
    pub process: Arc<Process>,
}

/// The process's own is used as if it were the snapshot's.
impl Deref for Snapshot {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Snapshot {
    /// The identity of the primary's URL, as which Bulkhead asks for its own purposes.
    pub fn url_identity(&self) -> Option<Arc<Identity>> {
        self.identities.identity(&self.identities.url_database, &self.identities.url_user)
    }

    /// Connections begin with other settings from now on: those that are open make room for new ones, and new sessions
    /// are told of the new settings.
    pub(crate) fn renew_backends(&self) {
        self.greetings.renew();
        self.pools.iter().flat_map(|pool| &pool.members).for_each(ServerPool::renew);
    }

    /// Whether jobs may be added on the primary now.
    pub(crate) fn takes_jobs(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.is_ready())
    }

    /// Jobs may have been added on the primary, and committed.
    pub(crate) fn added_jobs(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.enqueued();
        }
    }

    /// Why a replica serves no reads; `None` if it does.
    pub fn why_no_reads(&self, server: &ServerHealth) -> Option<&'static str> {
        let reads = server.reads();
        let pool = self.routes.replicas.map(|replicas| self.pool(replicas));
        let member = pool.and_then(|pool| pool.members.iter().find(|m| m.server_name == server.name));
        match server.known() {
            _ if member.is_some_and(|member| member.is_disabled()) => Some("disabled on the console"),
            _ if member.is_some_and(|member| member.is_paused()) => Some("paused on the console"),
            Known::Down { .. } => Some("it cannot be reached, or does not answer"),
            Known::Unchecked => Some("it has not been asked yet"),
            Known::Up { in_recovery: false } => Some("it is not in recovery: it follows no primary"),
            Known::Up { .. } if reads.is_stuck() => Some("it has left questions unanswered"),
            Known::Up { .. } if !reads.is_in() => Some("it is too far behind, or follows another primary"),
            Known::Up { .. } => None,
        }
    }

    pub(crate) fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// The pool of this name.
    pub(crate) fn pool_named(&self, name: &str) -> Option<PoolId> {
        self.pools.iter().position(|pool| pool.name == name).map(|at| PoolId(at as u8))
    }

    /// The pool that a client would use first: the one it is bound to, that of workers, or the primary's.
    pub(crate) fn first_pool(&self, card: &Card, application_name: Option<&str>) -> PoolId {
        let bound = card.bound.as_ref().and_then(|pool| self.pool_named(pool));
        let is_worker = || self.is_worker(&card.identity.user, application_name);
        let worker = || self.routes.workers.filter(|_| is_worker());
        bound.or_else(worker).unwrap_or(self.routes.primary)
    }

    /// Counts a client that was let in.
    pub(crate) fn count_login(&self, card: &Card, application_name: Option<&str>) {
        self.metrics.logins.fetch_add(1, Ordering::Relaxed);
        self.requests[usize::from(self.first_pool(card, application_name).0)].count_login();
    }

    /// The work of each pool from the start on.
    pub fn pool_totals(&self) -> impl Iterator<Item = (&str, PoolTotals)> {
        self.pools.iter().zip(&self.requests).map(|(pool, requests)| {
            let mut totals = PoolTotals {
                transactions: requests.again(),
                logins: requests.logins(),
                ..PoolTotals::default()
            };
            for (_, _, count) in requests.read() {
                totals.requests += count;
            }
            for (_, observed) in requests.durations() {
                totals.request_time += Duration::from_secs_f64(observed.sum_seconds);
            }
            for member in &pool.members {
                let (wait, leases) = (member.stats().wait.read(), member.totals());
                totals.assignments += wait.count;
                totals.wait_time += Duration::from_secs_f64(wait.sum_seconds);
                totals.transaction_time += leases.leased;
                totals.received_bytes += leases.sent_bytes;
                totals.sent_bytes += leases.received_bytes;
            }
            totals.transactions += totals.assignments;
            (&*pool.name, totals)
        })
    }

    /// The counts of what was refused, and where reads ran, as they are now.
    pub fn tally(&self) -> Tally {
        let metrics = &self.metrics;
        let members = self.pools.iter().flat_map(|pool| &pool.members);
        let pools = members.map(|member| {
            let (stats, pins) = (member.stats(), member.pins());
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let refused = Refused {
                full: read(&stats.refused_full),
                timeout: read(&stats.refused_timeout),
                unreachable: read(&stats.refused_unreachable),
                pins: read(&pins.refused),
                connects: stats.connect_failures.iter().map(read).sum(),
            };
            ((member.name.clone(), member.server_name.clone()), refused)
        });
        let mut reads = [0; ReadOn::ALL.len()];
        for (at, (_, count)) in metrics.reads.read().enumerate() {
            reads[at] = count;
        }
        Tally {
            pools: pools.collect(),
            no_place: metrics.no_place.load(Ordering::Relaxed),
            turned_away: metrics.login_failures.load(Ordering::Relaxed),
            reads,
        }
    }

    /// Whether a pool is on the job database's server, and that another one than the primary's.
    pub(crate) fn is_jobs_elsewhere(&self, pool: PoolId) -> bool {
        let is_there = |jobs: PoolId| jobs == pool || self.same_server(jobs, pool);
        self.routes.jobs_elsewhere && self.routes.jobs.is_some_and(is_there)
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
