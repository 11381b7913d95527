//! How the servers are: each one is asked every few seconds, whoever wants to know reads the last answer.
//!
//! The question is asked on a connection of a pool, so that it takes one of the places that `max_connections` promises
//! and never one more. It takes a free place only: a server all of whose pools are full has clients' statements for
//! a sign of life, and the last answer stands, with its age. One that cannot be reached is not asked either: its
//! pools try to reach it anyway, and their last error is the answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    backend::{Home, Identity, address::Traffic},
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
        let has_place = |member: &&Arc<ServerPool>| {
            let figures = member.figures();
            figures.waiting == 0 && (figures.idle > 0 || figures.taken() < figures.max_connections)
        };
        let Some(member) = self.members.iter().find(has_place) else { return };
        let wants = Wants { identity, last: None, settings: 0, home: Home(0) };
        let lease = match timeout(CHECK_TIMEOUT, member.lease(&wants)).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(refusal @ Refusal::Unreachable(_))) => {
                self.note(Known::Down { error: refusal.to_string() });
                return;
            }
            // Others were quicker. A server that lets nobody in makes connecting fail, and is down by that.
            Ok(Err(_)) | Err(_) => return,
        };
        self.note(match timeout(CHECK_TIMEOUT, ask(lease)).await {
            Ok(Ok(in_recovery)) => Known::Up { in_recovery },
            Ok(Err(error)) => Known::Down { error },
            Err(_) => Known::Down { error: format!("no answer within {CHECK_TIMEOUT:?}") },
        });
    }

    fn note(&self, known: Known) {
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
    let answer = lease.ask(QUESTION).await.map_err(|broken| broken.to_string())?;
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
