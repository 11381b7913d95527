//! How the servers are: each one is asked every few seconds, whoever wants to know reads the last answer, which is never
//! older than a few seconds.
//!
//! The question is asked on a connection of its own (`check`), with a deadline. Statements that just run say nothing of
//! a server: that this question is not answered does. From then on the server cannot serve, until that very question is
//! answered, or others are: statements on other connections, for a while; or a question in a pool, none of whose
//! connections is in use, or which has had a place for it for as long.
//!
//! Where the server's bound leaves no place for that, the question takes a free place of a pool, and never waits for one.
//! Then a server all of whose pools are full has its answers to clients for a sign of life; if it sends none of these
//! either, it must answer whether it offers TLS, which takes no place. This cannot tell connections that hang from long
//! statements.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

use super::check::{Check, Status};
use crate::{
    backend::{Identity, number::Numbers},
    causal::{
        Causal,
        progress::{LagBounds, Progress, Standing},
        samples::Era,
    },
    metrics::Traffic,
    pool::{Pool, ServerPool},
    route::PoolId,
};

/// An answer that is older says nothing of the server as it is now. Longer than a check takes, and the pause before it.
const STALE_AFTER: Duration = Duration::from_secs(12);

/// The purpose of a server, by the pools that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes: the pool `primary` is on it.
    Primary,
    /// Follows the primary: in the pool `replicas`, and not the primary itself.
    Replica,
    /// Any other, such as a job server.
    Other,
}

impl Role {
    /// The name that is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Other => "other",
        }
    }
}

/// The state of a server, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing yet.
    Unchecked,
    /// The server answers.
    Up {
        /// Whether it is in recovery, and takes no writes.
        in_recovery: bool,
    },
    /// The server does not answer, and why.
    Down {
        /// The last error.
        error: String,
    },
}

/// One server.
#[derive(Debug)]
pub struct ServerHealth {
    /// The key in the configuration.
    pub name: String,
    /// The purpose of the server.
    pub role: Role,
    /// The pools on it.
    pub(super) members: Vec<Arc<ServerPool>>,
    last: Mutex<Last>,
    /// The connection that it is asked on; the same in every snapshot.
    pub(super) own: Arc<tokio::sync::Mutex<Check>>,
    /// Whether that is open.
    pub(super) has_own: AtomicBool,
    /// Bytes received by the time of the last check.
    pub(super) received: AtomicU64,
    /// When its other hosts are looked at next.
    pub(super) looks_around_at: Mutex<Option<Instant>>,
    /// In a pool it cannot answer all that is asked.
    pub(super) is_plain: AtomicBool,
    /// What is known of writes and positions.
    pub(super) causal: Arc<Causal>,
    /// How far it is, if it is a replica; the same in every snapshot.
    progress: Arc<Progress>,
    pub(super) bounds: LagBounds,
}

/// The last that was found, and when.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) known: Known,
    /// When it was last found to be so.
    at: Option<Instant>,
    /// Since when it has been up, or down.
    since: Instant,
}

impl Default for Last {
    fn default() -> Self {
        Self { known: Known::Unchecked, at: None, since: Instant::now() }
    }
}

/// All servers, in the order of the pools that use them.
#[derive(Debug)]
pub struct Health {
    /// Each of them once.
    pub servers: Vec<ServerHealth>,
}

impl Health {
    /// Of servers that `before` had, what was known there; of the others nothing yet.
    pub fn new(
        pools: &[Pool],
        (primary, replicas): (PoolId, Option<PoolId>),
        causal: &Arc<Causal>,
        bounds: LagBounds,
        before: Option<&Self>,
    ) -> Self {
        let mut servers: Vec<ServerHealth> = Vec::new();
        // The primary's pool first, then the replicas', so that each server gets its strongest role.
        let mut order: Vec<usize> = (0..pools.len()).collect();
        order.sort_by_key(|at| {
            (*at != usize::from(primary.0), Some(*at) != replicas.map(|id| usize::from(id.0)))
        });
        for at in order {
            let role = match PoolId(at as u8) {
                id if id == primary => Role::Primary,
                id if Some(id) == replicas => Role::Replica,
                _ => Role::Other,
            };
            for member in &pools[at].members {
                match servers.iter_mut().find(|known| known.is_of(member)) {
                    Some(known) => known.members.push(Arc::clone(member)),
                    None => servers.push(ServerHealth {
                        name: member.server_name.clone(),
                        role,
                        members: vec![Arc::clone(member)],
                        last: Mutex::new(before.map_or_else(Last::default, |before| before.last(member))),
                        own: before.and_then(|before| before.own(member)).unwrap_or_default(),
                        has_own: AtomicBool::new(false),
                        received: AtomicU64::new(0),
                        looks_around_at: Mutex::new(None),
                        is_plain: AtomicBool::new(false),
                        causal: Arc::clone(causal),
                        progress: match role {
                            Role::Primary => Arc::new(Progress::of_primary()),
                            _ => before.and_then(|before| before.progress(member)).unwrap_or_default(),
                        },
                        bounds,
                    }),
                }
            }
        }
        Self { servers }
    }

    /// Asks every server again and again, as `identity`: each at its own pace, so that one that hangs holds up nobody else.
    ///
    /// Cancel safe but for a connection of a pool that a question is asked on, which is closed then.
    pub async fn watch(&self, identity: &Arc<Identity>, sampling: Duration) {
        let each = self.servers.iter().map(|server| Box::pin(server.watch(identity)));
        let positions = self.follow_positions(identity, sampling);
        tokio::join!(all(each.collect()), positions);
    }
}

/// Waits for all of them, which are few.
pub(super) async fn all(mut checks: Vec<impl Future<Output = ()> + Unpin>) {
    std::future::poll_fn(|cx| {
        checks.retain_mut(|check| std::pin::Pin::new(check).poll(cx).is_pending());
        if checks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Health {
    /// What all servers share.
    pub fn numbers(&self) -> Option<Arc<Numbers>> {
        self.servers.first().map(|server| Arc::clone(&server.members[0].server().numbers))
    }

    /// What is known of the server that a pool is on.
    fn last(&self, member: &ServerPool) -> Last {
        let server = self.servers.iter().find(|server| server.is_of(member));
        server.map_or_else(Last::default, |server| server.lock().clone())
    }

    /// How far the server is that a pool is on.
    pub fn progress(&self, member: &ServerPool) -> Option<Arc<Progress>> {
        let server = self.servers.iter().find(|server| server.is_of(member))?;
        Some(Arc::clone(&server.progress))
    }

    /// The connection that the server is asked on that a pool is on.
    fn own(&self, member: &ServerPool) -> Option<Arc<tokio::sync::Mutex<Check>>> {
        let server = self.servers.iter().find(|server| server.is_of(member))?;
        Some(Arc::clone(&server.own))
    }
}

impl ServerHealth {
    fn is_of(&self, member: &ServerPool) -> bool {
        self.members.iter().any(|known| known.is_on_server_of(member))
    }

    /// It has answered.
    pub(super) fn note_reached(&self, status: Status) {
        self.note(Known::Up { in_recovery: status.in_recovery });
        self.note_position(status);
        // Where it is, is known from now on.
        self.members[0].server().in_use.note_use();
    }

    fn note_position(&self, status: Status) {
        let Status { in_recovery, timeline, position, cluster, time, connection, backends } = status;
        match self.role {
            Role::Primary => {
                let era = timeline.zip(cluster).filter(|_| !in_recovery);
                if let (Some((timeline, cluster)), Some(position)) = (era, position) {
                    self.causal.note_sample(Era { connection, timeline, cluster }, time, position);
                }
            }
            Role::Replica => {
                let standing =
                    Standing { in_recovery, timeline, cluster, connection, time, position, backends };
                self.progress.note(standing, &self.causal.samples(), self.bounds, std::time::Instant::now());
                self.causal.note_progress();
            }
            Role::Other => {}
        }
    }

    /// It has not answered in time whether it has replayed what reads wait for.
    pub(super) fn note_silent(&self) {
        if self.role == Role::Replica && self.progress.note_silent() {
            tracing::warn!(server = %self.name, "the replica does not answer: reads under way on it are run on the primary");
            self.members.iter().for_each(|member| member.send_elsewhere("it does not answer"));
            self.members[0].server().numbers.moved.notify_one();
        }
    }

    /// How far it is.
    pub fn reads(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn note(&self, known: Known) {
        let is_down = |known: &Known| matches!(known, Known::Down { .. });
        self.members[0].gate().note_check(match &known {
            Known::Down { error } => Some(error.clone()),
            Known::Unchecked | Known::Up { .. } => None,
        });
        let mut last = self.lock();
        if last.known == Known::Unchecked || is_down(&last.known) != is_down(&known) {
            last.since = Instant::now();
        }
        last.known = known;
        last.at = Some(Instant::now());
    }

    /// What is known now. A server that cannot be connected to is down at once, whatever it answered before; and so is
    /// one of which nothing is known but what is long ago.
    pub fn known(&self) -> Known {
        if let Some((_, error)) = self.members[0].gate().down_for() {
            return Known::Down { error };
        }
        let last = self.lock();
        match last.at.map(|at| at.elapsed()) {
            Some(ago) if ago > STALE_AFTER => {
                Known::Down { error: format!("it was last asked {} s ago", ago.as_secs()) }
            }
            _ => last.known.clone(),
        }
    }

    /// How long ago it last answered or failed to; `None` before the first time.
    pub fn checked_ago(&self) -> Option<Duration> {
        self.lock().at.map(|at| at.elapsed())
    }

    /// How long it has been up, or down; `None` before the first time.
    pub fn known_for(&self) -> Option<Duration> {
        let last = self.lock();
        let known_for = last.at.map(|_| last.since.elapsed());
        drop(last);
        self.unreachable_for().or(known_for)
    }

    /// How long it has been impossible to connect; `None` if it is not.
    pub fn unreachable_for(&self) -> Option<Duration> {
        self.members[0].gate().down_for().map(|(since, _)| since)
    }

    /// The host that it is at; `None` as long as that is not known.
    pub fn host(&self) -> Option<String> {
        let server = self.members[0].server();
        let at = if server.hosts.len() == 1 { Some(0) } else { server.in_use.host() };
        at.and_then(|at| server.hosts.get(at)).map(ToString::to_string)
    }

    /// How long it has been at that host; `None` as long as that is not known.
    pub fn host_for(&self) -> Option<Duration> {
        self.members[0].server().in_use.used_for()
    }

    /// Hosts of it that take writes as well, and get none.
    pub fn rivals(&self) -> Vec<String> {
        let server = self.members[0].server();
        let rivals = server.in_use.rivals();
        rivals.iter().filter_map(|rival| server.hosts.get(rival.host)).map(ToString::to_string).collect()
    }

    /// How often it went over to another host.
    pub fn host_changes(&self) -> u64 {
        self.members[0].server().in_use.changes()
    }

    /// What the server says, if it takes no more connections, and how many it has given.
    pub fn full(&self) -> Option<(String, usize)> {
        let (_, error) = self.members[0].gate().full_for()?;
        let open = |member: &Arc<ServerPool>| member.figures().leased + member.figures().idle;
        let own = usize::from(self.has_own.load(Ordering::Relaxed));
        Some((error, self.members.iter().map(open).sum::<usize>() + own))
    }

    /// Bytes received from it and sent to it.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.members[0].server().traffic)
    }

    /// Says what a check has found.
    #[cfg(test)]
    pub(crate) fn set(&self, known: Known) {
        self.note(known);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
