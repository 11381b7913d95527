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

use tokio::time::{Instant, sleep_until, timeout};

use super::check::{self, Check, Outcome, Status};
use crate::{
    backend::{Identity, connect_error::ConnectError, dial, number::Numbers, search::look_around},
    causal::{
        Causal,
        progress::{LagBounds, Progress, Standing},
        samples::Era,
    },
    metrics::Traffic,
    pool::{Pool, Refusal, ServerPool, Wants},
    route::PoolId,
    threads::Home,
};

/// How often each server is asked: a load balancer hears of a change about as often.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How soon a server is asked again that could not be asked at all yet: the program is not ready before.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A server that takes longer to say whether it is in recovery is not well. As long as the default `connect_timeout`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that is older says nothing of the server as it is now. Longer than a check takes, and the pause before it.
const STALE_AFTER: Duration = Duration::from_secs(12);

/// A question that has not been answered for so long is given up, if others are answered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// How often the hosts that are not in use are looked at.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(4);

/// Such a host is there within this, or not at all.
const LOOK_AROUND_TIMEOUT: Duration = Duration::from_secs(1);

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
    has_own: AtomicBool,
    /// Bytes received by the time of the last check.
    received: AtomicU64,
    /// When its other hosts are looked at next.
    looks_around_at: Mutex<Option<Instant>>,
    /// In a pool it cannot answer all that is asked.
    is_plain: AtomicBool,
    /// What is known of writes and positions.
    pub(super) causal: Arc<Causal>,
    /// How far it is, if it is a replica; the same in every snapshot.
    progress: Arc<Progress>,
    pub(super) bounds: LagBounds,
}

/// The last that was found, and when.
#[derive(Clone, Debug)]
struct Last {
    known: Known,
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

    async fn watch(&self, identity: &Arc<Identity>) {
        loop {
            let began = Instant::now();
            self.check(identity).await;
            let gate = self.members[0].gate();
            // At the start the places may be taken by whoever came first.
            let is_new = self.known() == Known::Unchecked && gate.full_for().is_none();
            let pause = if is_new { FIRST_RETRY } else { CHECK_EVERY };
            tokio::select! {
                // Cancel safe, both. Pools that want a place more urgently get it now.
                () = sleep_until(began + pause) => {}
                () = gate.filled() => {}
            }
        }
    }

    async fn check(&self, identity: &Arc<Identity>) {
        let mut own = self.own.lock().await;
        let halfway = Instant::now() + CHECK_TIMEOUT / 2;
        let outcome = {
            let others_wait = self.members.iter().any(|member| member.figures().waiting > 0);
            let stamps = &self.causal.stamps;
            let mut asked = Box::pin(own.ask(&self.members[0], identity, others_wait, stamps, CHECK_TIMEOUT));
            tokio::select! {
                // Cancel safe, as it says; it is not dropped in between.
                outcome = &mut asked => outcome,
                () = sleep_until(halfway) => {
                    // What is received from now on was sent when the question had been asked for a while.
                    self.note_received();
                    asked.await
                }
            }
        };
        match outcome {
            Outcome::Answered(status) => self.note_reached(status),
            Outcome::Failed(error) => self.note(Known::Down { error }),
            Outcome::NoPlace => self.check_in_pool(identity).await,
            Outcome::Unreachable(error) => self.note_unreachable(&error, identity).await,
            Outcome::Overdue(since) => self.check_others(&mut own, since, identity).await,
        }
        self.has_own.store(own.is_open(), Ordering::Relaxed);
        drop(own);
        if self.is_time_to_look_around() && !self.members[0].gate().is_down() {
            look_around(&self.members[0].server(), identity, LOOK_AROUND_TIMEOUT).await;
        }
        self.note_received();
    }

    /// No connection of its own could be made.
    async fn note_unreachable(&self, error: &ConnectError, identity: &Arc<Identity>) {
        let gate = self.members[0].gate();
        let message = error.to_string();
        if error.is_full() {
            // That is an answer. The pools' connections are there to ask on, or tell by what they receive.
            gate.is_full(&message);
            self.check_in_pool(identity).await;
        } else {
            if !error.is_final() && gate.failed(&message) {
                tracing::warn!(server = %self.name, %message, "the server cannot be reached");
            }
            self.note(Known::Down { error: message });
        }
    }

    /// It has answered.
    pub(super) fn note_reached(&self, status: Status) {
        self.note(Known::Up { in_recovery: status.in_recovery });
        self.note_position(status);
        // Where it is, is known from now on.
        self.members[0].server().in_use.note_use();
    }

    fn note_position(&self, status: Status) {
        let Status { in_recovery, timeline, position, time, connection } = status;
        match self.role {
            Role::Primary => {
                if let (false, Some(timeline), Some(position)) = (in_recovery, timeline, position) {
                    self.causal.note_sample(Era { connection, timeline }, time, position);
                }
            }
            Role::Replica => {
                let standing = Standing { in_recovery, timeline, position };
                self.progress.note(standing, &self.causal.samples(), self.bounds, std::time::Instant::now());
                self.causal.note_progress();
            }
            Role::Other => {}
        }
    }

    /// It has not answered in time whether it has replayed what reads wait for.
    pub(super) fn note_silent(&self) {
        if self.role == Role::Replica {
            self.progress.note_silent();
        }
    }

    /// How far it is.
    pub fn reads(&self) -> &Progress {
        &self.progress
    }

    /// The question on the connection of its own has not been answered in time.
    async fn check_others(&self, own: &mut Check, since: Instant, identity: &Arc<Identity>) {
        let is_long_ago = since.elapsed() > GIVE_UP_AFTER;
        if self.was_heard() {
            if is_long_ago {
                own.close();
            }
            return self.note_alive();
        }
        let in_use: usize = self.members.iter().map(|member| member.figures().leased).sum();
        self.note(Known::Down {
            error: format!(
                "no answer within {CHECK_TIMEOUT:?}; {in_use} connections in use have had nothing since"
            ),
        });
        let asked = timeout(CHECK_TIMEOUT, self.ask_in_pool(identity)).await;
        if let Ok(Some(Ok(status))) = asked
            && (in_use == 0 || is_long_ago)
        {
            // It is that one connection that hangs.
            own.close();
            self.note_reached(status);
        }
    }

    /// Asks where the pools have a place, and looks for signs of life where they have none.
    async fn check_in_pool(&self, identity: &Arc<Identity>) {
        if self.members[0].gate().is_down() {
            // `known` has the pools' own error.
            return;
        }
        match timeout(CHECK_TIMEOUT, self.ask_in_pool(identity)).await {
            Ok(Some(Ok(status))) => self.note_reached(status),
            Ok(Some(Err(error))) => self.note(Known::Down { error }),
            // No place for a question: others have taken them, and wait for their answers, too.
            Ok(None) => self.look_for_life().await,
            Err(_) => self.note(Known::Down { error: format!("no answer within {CHECK_TIMEOUT:?}") }),
        }
    }

    /// Asks on a connection that a pool has a place for. `None` without one.
    pub(super) async fn ask_in_pool(&self, identity: &Arc<Identity>) -> Option<Result<Status, String>> {
        let has_place = |member: &&Arc<ServerPool>| {
            let figures = member.figures();
            let is_full = member.gate().full_for().is_some();
            figures.waiting == 0
                && (figures.idle > 0 || (figures.taken() < figures.max_connections && !is_full))
        };
        let member = self.members.iter().find(has_place)?;
        let wants = Wants { identity, last: None, settings: 0, home: Home(0) };
        match member.lease(&wants).await {
            Ok(mut lease) => {
                let answer = check::ask(&mut lease, self.causal.stamps.tick(), &self.is_plain).await;
                if let Some(proof) = lease.protocol.quiescent() {
                    lease.release(proof);
                }
                Some(answer)
            }
            Err(refusal @ Refusal::Unreachable(_)) => Some(Err(refusal.to_string())),
            // Others were quicker. A server that lets nobody in makes connecting fail, and is down by that.
            Err(_) => None,
        }
    }

    /// Without a place for a question: what the server sends to clients is a sign of life. If it sends nothing, it must
    /// at least answer the door.
    async fn look_for_life(&self) {
        let server = self.members[0].server();
        let was_heard = self.was_heard();
        self.note_received();
        let host = server.in_use.host().and_then(|at| server.hosts.get(at)).or(server.hosts.first());
        let knocked = match host {
            Some(host) if !was_heard => timeout(CHECK_TIMEOUT, dial::knock(&server, host)).await,
            _ => Ok(Ok(())),
        };
        let error = match knocked {
            Ok(Ok(())) => return self.note_alive(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
        };
        let busy: usize = self.members.iter().map(|member| member.figures().leased).sum();
        self.note(Known::Down {
            error: format!("{error}; {busy} connections in use have had nothing since"),
        });
    }

    /// Whether it has sent anything since the last check.
    fn was_heard(&self) -> bool {
        self.traffic().received.load(Ordering::Relaxed) != self.received.load(Ordering::Relaxed)
    }

    fn note_received(&self) {
        self.received.store(self.traffic().received.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// It lives; whether it is in recovery is not known anew.
    fn note_alive(&self) {
        let known = match self.lock().known.clone() {
            Known::Unchecked => return,
            up @ Known::Up { .. } => up,
            // Which of both it is shows as soon as there is a place.
            Known::Down { .. } => Known::Up { in_recovery: self.role == Role::Replica },
        };
        self.note(known);
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

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
