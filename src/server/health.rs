//! How the servers are: each one is asked every few seconds, whoever wants to know reads the last answer.
//!
//! The question is asked on a connection of a pool, so that it takes one of the places that `max_connections` promises
//! and never one more. It takes a free place only, and never waits for one: a server all of whose pools are full has its
//! answers to clients for a sign of life; if it sends none of these either, it must answer whether it offers TLS, which
//! takes no place. One that cannot be reached is not asked either: its pools try to reach it anyway, and their last error
//! is the answer.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    backend::{
        Home, Identity,
        address::Traffic,
        connect::Numbers,
        dial,
        search::{TIMELINE, look_around, read_timeline},
    },
    pool::{Lease, Pool, Refusal, ServerPool, Wants},
    route::PoolId,
};

/// How often each server is asked: a load balancer hears of a change about as often.
pub const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How soon a server is asked again that could not be asked at all yet: the program is not ready before.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A server that takes longer to say whether it is in recovery is not well. As long as the default `connect_timeout`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// How often the hosts that are not in use are looked at.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(4);

/// Such a host is there within this, or not at all.
const LOOK_AROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server is there for, by the pools that use it.
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
    /// As it is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Other => "other",
        }
    }
}

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing yet.
    Unchecked,
    /// It answers.
    Up {
        /// Whether it is in recovery, and takes no writes.
        in_recovery: bool,
    },
    /// It does not, and why.
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
    /// What it is there for.
    pub role: Role,
    /// The pools on it.
    members: Vec<Arc<ServerPool>>,
    last: Mutex<(Known, Option<Instant>)>,
    /// Bytes received by the time of the last check.
    received: AtomicU64,
    /// When its other hosts are looked at next.
    looks_around_at: Mutex<Option<Instant>>,
}

/// All servers, in the order of the pools that use them.
#[derive(Debug)]
pub struct Health {
    /// Each of them once.
    pub servers: Vec<ServerHealth>,
}

impl Health {
    /// Of servers that `before` had, what was known there; of the others nothing yet.
    pub fn new(pools: &[Pool], primary: PoolId, replicas: Option<PoolId>, before: Option<&Self>) -> Self {
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
                        last: Mutex::new(
                            before.map_or((Known::Unchecked, None), |before| before.last(member)),
                        ),
                        received: AtomicU64::new(0),
                        looks_around_at: Mutex::new(None),
                    }),
                }
            }
        }
        Self { servers }
    }

    /// Asks every server once, as `identity`, all at the same time. Returns how long after the beginning of this round
    /// the next one is due.
    pub async fn check(&self, identity: Option<&Arc<Identity>>) -> Duration {
        if let Some(identity) = identity {
            let checks = self.servers.iter().map(|server| Box::pin(server.check(identity)));
            all(checks.collect()).await;
        }
        // At the start the places may be taken by whoever came first.
        let unchecked = self.servers.iter().any(|server| server.known() == Known::Unchecked);
        if unchecked { FIRST_RETRY } else { CHECK_EVERY }
    }
}

/// Waits for all of them, which are few.
async fn all(mut checks: Vec<impl Future<Output = ()> + Unpin>) {
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
    fn last(&self, member: &ServerPool) -> (Known, Option<Instant>) {
        let server = self.servers.iter().find(|server| server.is_of(member));
        server.map_or((Known::Unchecked, None), |server| server.lock().clone())
    }
}

impl ServerHealth {
    fn is_of(&self, member: &ServerPool) -> bool {
        self.members.iter().any(|known| known.is_on_server_of(member))
    }

    async fn check(&self, identity: &Arc<Identity>) {
        if self.members[0].gate().is_down() {
            // `known` has the pools' own error.
            return;
        }
        match timeout(CHECK_TIMEOUT, self.ask_in_pool(identity)).await {
            Ok(Some(known)) => self.note(known),
            // No place for a question: others have taken them, and wait for their answers, too.
            Ok(None) => self.note_alive().await,
            Err(_) => self.note(Known::Down { error: format!("no answer within {CHECK_TIMEOUT:?}") }),
        }
        if self.is_time_to_look_around() {
            look_around(&self.members[0].server(), identity, LOOK_AROUND_TIMEOUT).await;
        }
    }

    /// Asks on a connection that a pool has a place for. `None` without one.
    async fn ask_in_pool(&self, identity: &Arc<Identity>) -> Option<Known> {
        let has_place = |member: &&Arc<ServerPool>| {
            let figures = member.figures();
            let is_full = member.gate().full_for().is_some();
            figures.waiting == 0
                && (figures.idle > 0 || (figures.taken() < figures.max_connections && !is_full))
        };
        let member = self.members.iter().find(has_place)?;
        let wants = Wants { identity, last: None, settings: 0, home: Home(0) };
        match member.lease(&wants).await {
            Ok(lease) => {
                let answer = ask(lease).await;
                Some(
                    answer
                        .map_or_else(|error| Known::Down { error }, |in_recovery| Known::Up { in_recovery }),
                )
            }
            Err(refusal @ Refusal::Unreachable(_)) => Some(Known::Down { error: refusal.to_string() }),
            // Others were quicker. A server that lets nobody in makes connecting fail, and is down by that.
            Err(_) => None,
        }
    }

    /// Without a place for a question: what the server sends to clients is a sign of life. If it sends nothing, it must
    /// at least answer the door.
    async fn note_alive(&self) {
        let server = self.members[0].server();
        let received = server.traffic.received.load(Ordering::Relaxed);
        let was_heard = self.received.swap(received, Ordering::Relaxed) != received;
        let host = server.in_use.host().and_then(|at| server.hosts.get(at)).or(server.hosts.first());
        let knocked = match host {
            Some(host) if !was_heard => timeout(CHECK_TIMEOUT, dial::knock(&server, host)).await,
            _ => Ok(Ok(())),
        };
        let error = match knocked {
            Ok(Ok(())) => {
                let mut last = self.lock();
                if last.0 == Known::Unchecked {
                    return;
                }
                if let Known::Down { .. } = last.0 {
                    // Which of both it is shows as soon as there is a place.
                    last.0 = Known::Up { in_recovery: self.role == Role::Replica };
                }
                last.1 = Some(Instant::now());
                drop(last);
                return self.members[0].gate().note_check(None);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
        };
        let busy: usize = self.members.iter().map(|member| member.figures().leased).sum();
        self.note(Known::Down {
            error: format!("{error}; {busy} connections in use have had nothing since"),
        });
    }

    fn is_time_to_look_around(&self) -> bool {
        let now = Instant::now();
        let mut due = self.looks_around_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = due.is_none_or(|due| due <= now);
        if is_due {
            *due = Some(now + LOOK_AROUND_EVERY);
        }
        is_due
    }

    fn note(&self, known: Known) {
        self.members[0].gate().note_check(match &known {
            Known::Down { error } => Some(error.clone()),
            Known::Unchecked | Known::Up { .. } => None,
        });
        *self.lock() = (known, Some(Instant::now()));
    }

    /// What is known now. A server that cannot be connected to is down at once, whatever it answered before.
    pub fn known(&self) -> Known {
        match self.members[0].gate().down_for() {
            Some((_, error)) => Known::Down { error },
            None => self.lock().0.clone(),
        }
    }

    /// How long ago it last answered or failed to; `None` before the first time.
    pub fn checked_ago(&self) -> Option<Duration> {
        self.lock().1.map(|at| at.elapsed())
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
        Some((error, self.members.iter().map(open).sum()))
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

    fn lock(&self) -> MutexGuard<'_, (Known, Option<Instant>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server is in recovery. Dropped halfway, the connection is closed.
async fn ask(mut lease: Lease) -> Result<bool, String> {
    let has_several = lease.server.hosts.len() > 1;
    let question = if has_several { format!("{QUESTION}, {TIMELINE}") } else { QUESTION.to_owned() };
    let answer = lease.ask(&question).await.map_err(|broken| broken.to_string())?;
    if let Some([_, timeline]) = answer.rows.first().map(Vec::as_slice) {
        lease.server.in_use.note_timeline(lease.place, read_timeline(timeline.as_deref()));
    }
    if let Some(proof) = lease.protocol.quiescent() {
        lease.release(proof);
    }
    if let Some(error) = answer.error {
        return Err(error.to_string());
    }
    match answer.rows.first().and_then(|row| row.first()?.as_deref()) {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        other => Err(format!("it answered {other:?} to {QUESTION}")),
    }
}
