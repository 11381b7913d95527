//! The bounded set of backends on one server.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    CheckPlace, ConnectFailure, Gate, Lease, Limits, Stats, Waiting, queue::Queue, shares::Shares,
    stats::count,
};
use crate::{
    backend::{Backend, BackendId, Home, Identity, Server},
    seldom::SeldomFor,
};

/// Starts tasks on the threads of the program, all under one tracker.
#[derive(Clone, Debug)]
pub struct Spawner {
    /// Ends when every task has.
    pub tracker: TaskTracker,
    /// One for each thread.
    pub threads: Arc<[Handle]>,
}

impl Spawner {
    /// Starts a task on a thread.
    pub fn spawn(&self, home: Home, task: impl Future<Output = ()> + Send + 'static) {
        let at = usize::from(home.0) % self.threads.len();
        self.tracker.spawn_on(task, &self.threads[at]);
    }

    /// Whether every thread runs a trivial task within this time.
    pub async fn is_well(&self, within: Duration) -> bool {
        let signs = Self { tracker: TaskTracker::new(), threads: Arc::clone(&self.threads) };
        for thread in 0..signs.threads.len() {
            signs.spawn(Home(thread as u16), async {});
        }
        signs.tracker.close();
        tokio::time::timeout(within, signs.tracker.wait()).await.is_ok()
    }
}

/// Who wants a backend.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// The identity that it must belong to.
    pub identity: &'a Arc<Identity>,
    /// The backend that the session had last: preferred.
    pub last: Option<BackendId>,
    /// The hash of the session's settings: a backend that has them is preferred to another.
    pub settings: u64,
    /// The session's thread.
    pub home: Home,
}

/// What asking for a backend gives at once.
#[derive(Debug)]
pub enum Checkout {
    /// A backend.
    Lease(Lease),
    /// A backend that was idle for so long that it is to be checked first ([`Lease::check`]).
    Stale(Lease),
    /// A place in the queue.
    Wait(Waiting),
    /// Nothing.
    Refused(Refusal),
}

/// Why a session got no backend.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Too many others wait.
    Full {
        /// How full the pool is.
        figures: Figures,
        /// What is wrong with the server, if anything is known to be.
        down: Option<String>,
    },
    /// It has waited for `wait_timeout`.
    TimedOut {
        /// How full the pool was.
        figures: Figures,
        /// How long it waited.
        waited: Duration,
        /// What is wrong with the server, if anything is known to be.
        down: Option<String>,
        /// What it said, if it has no place for more connections.
        full: Option<String>,
    },
    /// The server cannot be reached, or refused the login.
    Unreachable(Arc<ConnectFailure>),
    /// Its client has cancelled the wait.
    Cancelled,
    /// The pool's server is another one now: the pool that has taken its place is to be asked.
    Moved,
    /// Bulkhead is going down.
    Closing,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { figures, .. } => write!(f, "{} sessions are waiting already", figures.waiting),
            Self::TimedOut { waited, down: None, .. } => {
                write!(f, "no connection was free within {waited:?}")
            }
            Self::TimedOut { waited, down: Some(error), .. } => {
                write!(f, "no connection could be made within {waited:?}: {error}")
            }
            Self::Unreachable(failure) => f.write_str(&failure.message),
            Self::Cancelled => f.write_str("the wait was cancelled"),
            Self::Moved => f.write_str("the server is another one now"),
            Self::Closing => f.write_str("shutting down"),
        }
    }
}

/// How full a server pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Backends in use.
    pub leased: usize,
    /// Backends that wait for use.
    pub idle: usize,
    /// Backends being connected.
    pub connecting: usize,
    /// Backends being closed.
    pub closing: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// Of the backends in use, those that pinned sessions keep.
    pub pinned: usize,
    /// The bound.
    pub max_connections: usize,
}

impl Figures {
    /// Places taken.
    pub const fn taken(&self) -> usize {
        self.leased + self.idle + self.connecting + self.closing
    }
}

/// What a pool's clock counts in.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The bounded set of backends on one server.
#[derive(Debug)]
pub struct ServerPool {
    /// The pool's name.
    pub name: String,
    /// The server's name.
    pub server_name: String,
    gate: Arc<Gate>,
    pub(super) spawner: Spawner,
    pub(super) state: Mutex<State>,
    /// When the pool was made.
    started: Instant,
    /// Milliseconds since then, as of the keeper's last round.
    clock: AtomicU64,
    outstanding: AtomicUsize,
    stats: Stats,
    pub(super) pins: super::pins::Pins,
    /// Lines in the log about logins at the server that failed, by SQLSTATE.
    pub(super) refusals: SeldomFor,
    /// Tells the keeper that somebody waits or that something must be closed.
    pub(super) attention: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    /// How the server is reached now; a backend that was connected otherwise is closed when it is free.
    pub(super) server: Arc<Server>,
    /// Counts what makes new backends begin with other settings; older ones are closed when they are free.
    pub(super) generation: u32,
    /// For whom `min_connections` are kept open.
    pub(super) warm: Option<Arc<Identity>>,
    pub(super) life: Life,
    /// Whether a keeper works for it.
    pub(super) has_keeper: bool,
    /// Last in, first out.
    pub(super) idle: Vec<Idle>,
    pub(super) queue: Queue,
    /// Whose connections are being made.
    pub(super) connecting: Vec<Arc<Identity>>,
    /// Who has how many places, those of connections being made included, of those being closed not.
    pub(super) shares: Shares,
    pub(super) leased: usize,
    /// Places of backends that are being closed, those in `dead` included.
    pub(super) closing: usize,
    /// Backends for the keeper to close, boxed as they are everywhere.
    #[expect(clippy::vec_box, reason = "they come boxed, and moving the box is cheaper than the backend")]
    pub(super) dead: Vec<Box<Backend>>,
}

/// Whether a server pool is part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It is.
    Open,
    /// Not any more: who still asks it is served, and what is free is closed.
    Draining,
    /// Not any more, and another one has taken its place: who has a backend may keep it, everybody else is sent there.
    Moved,
}

/// An idle backend with what the choice looks at.
#[derive(Debug)]
pub(super) struct Idle {
    id: BackendId,
    settings: u64,
    home: Home,
    pub(super) backend: Box<Backend>,
}

impl State {
    pub(super) fn figures(&self) -> Figures {
        Figures {
            leased: self.leased,
            idle: self.idle.len(),
            connecting: self.connecting.len(),
            closing: self.closing,
            waiting: self.queue.len(),
            pinned: 0,
            max_connections: self.limits.max_connections,
        }
    }

    /// Whether a connection for this identity is being made, or a place is being freed.
    pub(super) fn is_coming_for(&self, identity: &Arc<Identity>) -> bool {
        self.closing > 0 || self.connecting.iter().any(|other| Arc::ptr_eq(other, identity))
    }

    pub(super) fn has_room(&self) -> bool {
        self.figures().taken() < self.limits.max_connections
    }

    /// Whether there are more backends than the bound allows, which it once did; those being closed do not count.
    pub(super) fn is_over_bound(&self) -> bool {
        self.figures().taken() - self.closing > self.limits.max_connections
    }

    /// Whether a backend was connected in the way that is the right one today.
    pub(super) fn fits(&self, backend: &Backend) -> bool {
        backend.generation == self.generation
            && backend.is_in_use()
            && Arc::ptr_eq(&backend.server, &self.server)
            && backend.identity.is_current(&backend.credentials)
    }

    /// Takes out the idle backend that suits best: the one that the session had last, or else of equals the one used last.
    fn take_idle(&mut self, wants: &Wants<'_>) -> Option<Box<Backend>> {
        let is_own = |idle: &Idle| Arc::ptr_eq(&idle.backend.identity, wants.identity);
        let had_last = |last| self.idle.iter().rposition(|idle| idle.id == last && is_own(idle));
        let at = wants.last.and_then(had_last).or_else(|| self.best_idle(wants, is_own))?;
        Some(self.idle.remove(at).backend)
    }

    fn best_idle(&self, wants: &Wants<'_>, is_own: impl Fn(&Idle) -> bool) -> Option<usize> {
        /// Nothing suits better.
        const BEST: u8 = 4 + 2 + 1;
        let mut best: Option<(usize, u8)> = None;
        for (at, idle) in self.idle.iter().enumerate().rev().filter(|(_, idle)| is_own(idle)) {
            // Settings cost a round trip, a reset two and every prepared statement.
            let clean = 4 * u8::from(!idle.backend.is_suspect);
            let suits =
                clean + 2 * u8::from(idle.settings == wants.settings) + u8::from(idle.home == wants.home);
            if best.is_none_or(|(_, other)| other < suits) {
                best = Some((at, suits));
            }
            if suits == BEST {
                break;
            }
        }
        best.map(|(at, _)| at)
    }

    /// A connection for this identity is no longer being made.
    pub(super) fn connected(&mut self, identity: &Arc<Identity>) {
        if let Some(at) = self.connecting.iter().position(|other| Arc::ptr_eq(other, identity)) {
            self.connecting.swap_remove(at);
        }
    }

    pub(super) fn put_idle(&mut self, backend: Box<Backend>) {
        let (id, settings, home) = (backend.id, backend.applied.hash(), backend.home);
        self.idle.push(Idle { id, settings, home, backend });
    }

    /// Gives idle backends to those who wait for their identity.
    pub(super) fn hand_out_idle(&mut self) {
        let mut at = 0;
        while at < self.idle.len() {
            let free = &self.idle[at];
            let Some(waiter) = self.queue.take_for(&free.backend.identity, free.home) else {
                at += 1;
                continue;
            };
            let backend = self.idle.remove(at).backend;
            self.leased += 1;
            if let Err(refused) = waiter.to.send(Ok(backend)) {
                self.leased -= 1;
                self.put_idle(refused.expect("a backend was sent"));
            }
        }
    }

    /// Moves a backend whose place has been uncounted elsewhere among those to be closed.
    pub(super) fn bury(&mut self, backend: Box<Backend>) {
        self.closing += 1;
        self.shares.remove(&backend.identity);
        self.dead.push(backend);
    }
}

impl ServerPool {
    /// An empty set.
    pub fn new(name: String, server: Arc<Server>, gate: Arc<Gate>, limits: Limits, spawner: Spawner) -> Self {
        let server_name = server.name.clone();
        let state = State {
            limits,
            server,
            generation: 0,
            warm: None,
            life: Life::Open,
            has_keeper: false,
            idle: Vec::new(),
            queue: Queue::default(),
            connecting: Vec::new(),
            shares: Shares::default(),
            leased: 0,
            closing: 0,
            dead: Vec::new(),
        };
        Self {
            name,
            server_name,
            gate,
            spawner,
            state: Mutex::new(state),
            started: Instant::now(),
            clock: AtomicU64::new(0),
            outstanding: AtomicUsize::new(0),
            stats: Stats::default(),
            pins: super::pins::Pins::new(limits.max_pinned),
            refusals: SeldomFor::default(),
            attention: Notify::new(),
        }
    }

    /// Milliseconds since the pool was made, as of the keeper's last round.
    pub(super) fn clock(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Milliseconds since the pool was made.
    pub(super) fn tick(&self) -> u64 {
        let now = milliseconds(self.started.elapsed());
        self.clock.store(now, Ordering::Relaxed);
        now
    }

    /// The server's gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether the server has a place for the health check beside those of its pools.
    pub fn has_check_place(&self) -> bool {
        self.gate.has_check_place()
    }

    /// Takes the health check's place, if it is free.
    pub fn take_check_place(&self) -> Option<CheckPlace> {
        CheckPlace::take(&self.gate)
    }

    /// How the server is reached now.
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.lock().server)
    }

    /// Whether the other one is on the same server.
    pub fn is_on_server_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gate, &other.gate)
    }

    /// Whether this gate is its server's.
    pub fn is_behind(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How full it is.
    pub fn figures(&self) -> Figures {
        self.figures_of(&self.lock())
    }

    pub(super) fn figures_of(&self, state: &State) -> Figures {
        Figures { pinned: self.pins.held(), ..state.figures() }
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.lock().limits
    }

    /// Leases and waiters, approximately: for the choice between servers.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_outstanding(&self, state: &State) {
        self.outstanding.store(state.leased + state.queue.len(), Ordering::Relaxed);
    }

    /// Asks for a backend.
    pub fn checkout(self: &Arc<Self>, wants: &Wants<'_>) -> Checkout {
        let mut state = self.lock();
        while let Some(mut backend) = state.take_idle(wants) {
            if backend.is_alive() && state.fits(&backend) {
                state.leased += 1;
                self.note_outstanding(&state);
                let idle_for = self.clock().saturating_sub(backend.idle_since);
                let is_old = idle_for > milliseconds(state.limits.check_after);
                drop(state);
                self.stats.wait.observe_none();
                let lease = Lease::new(backend, Arc::clone(self));
                return if is_old { Checkout::Stale(lease) } else { Checkout::Lease(lease) };
            }
            state.bury(backend);
            self.attention.notify_one();
        }
        if state.life == Life::Moved {
            return Checkout::Refused(Refusal::Moved);
        }
        let limits = state.limits;
        if let Some(failure) = self.is_hopeless(&state) {
            count(&self.stats.refused_unreachable);
            return Checkout::Refused(Refusal::Unreachable(failure));
        }
        let figures = state.figures();
        // Who waits for a connection that is being made for it does not count: an empty pool is not a full one.
        let coming =
            figures.connecting + figures.closing + (limits.max_connections.saturating_sub(figures.taken()));
        if figures.waiting >= limits.max_waiting + coming + figures.idle {
            let refusal = Refusal::Full { figures: self.figures_of(&state), down: self.gate.trouble() };
            count(&self.stats.refused_full);
            let Some(greedy) = state.queue.make_room_for(wants.identity) else {
                return Checkout::Refused(refusal);
            };
            // A waiter that has left meanwhile needs no refusal.
            let _ = greedy.to.send(Err(refusal));
        }
        let (ticket, from) = state.queue.push(Arc::clone(wants.identity), wants.home);
        if state.has_room() || !state.idle.is_empty() {
            self.serve_queue(&mut state);
        }
        self.note_outstanding(&state);
        let is_first = state.queue.len() == 1;
        drop(state);
        if is_first {
            self.attention.notify_one();
        }
        Checkout::Wait(Waiting {
            pool: Arc::clone(self),
            ticket,
            since: Instant::now(),
            from,
            is_over: false,
        })
    }

    /// Whether waiting is of no use: the server has been unreachable for as long as anybody would wait (or at all, if
    /// there is somewhere else to go), and no connection is in use that could become free.
    pub(super) fn is_hopeless(&self, state: &State) -> Option<Arc<ConnectFailure>> {
        if !self.gate.is_down() {
            return None;
        }
        let (down_for, error) = self.gate.down_for()?;
        let limits = state.limits;
        let hopeless = limits.fails_fast || (down_for >= limits.wait_timeout && state.leased == 0);
        hopeless.then(|| Arc::new(ConnectFailure::unreachable(&self.server_name, error)))
    }

    /// A lease ended in the middle of something: its backend is closed, and its place stays taken until then.
    pub(super) fn discard(&self, backend: Box<Backend>) {
        let mut state = self.lock();
        state.leased -= 1;
        state.bury(backend);
        self.note_outstanding(&state);
        drop(state);
        count(&self.stats.discarded);
        self.attention.notify_one();
    }

    pub(super) fn leave_queue(&self, ticket: u64) {
        let mut state = self.lock();
        if state.queue.remove(ticket).is_some() {
            self.note_outstanding(&state);
        }
    }

    /// Refuses everybody for whom `leaves` holds.
    pub(super) fn refuse_waiters(
        &self,
        state: &mut State,
        leaves: impl Fn(&super::queue::Waiter) -> bool,
        refusal: &Refusal,
    ) {
        let counter = match refusal {
            Refusal::TimedOut { .. } => &self.stats.refused_timeout,
            Refusal::Unreachable(_) => &self.stats.refused_unreachable,
            Refusal::Closing => &self.stats.refused_closing,
            Refusal::Full { .. } | Refusal::Cancelled | Refusal::Moved => &self.stats.refused_full,
        };
        for waiter in state.queue.take_where(leaves) {
            // Who asks for a proof is not refused by this, but by what it makes of it.
            if !waiter.fresh {
                count(counter);
            }
            // A waiter that has left meanwhile needs no refusal.
            let _ = waiter.to.send(Err(refusal.clone()));
        }
        self.note_outstanding(state);
    }
}
