//! The bounded set of backends on one server.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Limits,
    gate::{CheckPlace, Gate, QuestionPlace},
    orders::Control,
    pin_places::Pins,
    queue::{Queue, Waiter},
    refusal::{ConnectFailure, Figures, Refusal},
    shares::Shares,
    state::{Life, State, milliseconds},
    stats::{Stats, Totals},
};
use crate::{
    backend::{Backend, Server},
    metrics::count,
    seldom::SeldomFor,
    threads::Spawner,
};

/// The bounded set of backends on one server.
#[derive(Debug)]
pub struct ServerPool {
    /// The pool's name.
    pub name: String,
    /// The server's name.
    pub server_name: String,
    pub(super) gate: Arc<Gate>,
    pub(super) spawner: Spawner,
    pub(super) state: Mutex<State>,
    /// When the pool was made.
    started: Instant,
    /// Milliseconds since then, as of the keeper's last round.
    clock: AtomicU64,
    outstanding: AtomicUsize,
    pub(super) stats: Stats,
    pub(super) pins: Pins,
    /// Lines in the log about logins at the server that failed, by SQLSTATE.
    pub(super) refusals: SeldomFor,
    /// Tells the keeper that somebody waits or that something must be closed.
    pub(super) attention: Notify,
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
            control: Control::default(),
            known: Vec::new(),
            totals: Totals::default(),
            standing: 0,
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
            pins: Pins::new(limits.max_pinned),
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

    /// Takes a place beside those of the pools, if one is free: the health check's, or the outbox's relay's.
    pub fn take_check_place(&self) -> Option<CheckPlace> {
        CheckPlace::take(&self.gate)
    }

    /// Takes a place for an operator's question: one that no pool may want.
    pub fn take_question_place(&self) -> Option<QuestionPlace> {
        QuestionPlace::take(&self.gate)
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

    /// Sums of what its leases were.
    pub fn totals(&self) -> Totals {
        self.lock().totals
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

    /// Whether waiting is of no use: the server has been unreachable for as long as anybody would wait (or at all, if
    /// there is somewhere else to go), and no connection is in use that could become free.
    pub(super) fn is_hopeless(&self, state: &State) -> Option<Arc<ConnectFailure>> {
        // Whoever paused it may be about to start the server again.
        if !self.gate.is_down() || state.control.paused.is_some() {
            return None;
        }
        let (down_for, error) = self.gate.down_for()?;
        let limits = state.limits;
        let hopeless = limits.fails_fast || (down_for >= limits.wait_timeout && state.leased == 0);
        hopeless.then(|| Arc::new(ConnectFailure::unreachable(&self.server_name, error)))
    }

    /// A lease ended in the middle of something: its backend is closed, and its place stays taken until then.
    pub(super) fn discard(&self, mut backend: Box<Backend>) {
        let mut state = self.lock();
        state.note_use(&mut backend);
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

    /// Lets those go elsewhere who wait, if they can.
    pub fn send_elsewhere(&self, why: &str) {
        let mut state = self.lock();
        if state.limits.fails_fast {
            let failure = Arc::new(ConnectFailure::unreachable(&self.server_name, why.to_owned()));
            self.refuse_waiters(&mut state, |_| true, &Refusal::Unreachable(failure));
        }
    }

    /// Refuses everybody for whom `leaves` holds.
    pub(super) fn refuse_waiters(
        &self,
        state: &mut State,
        leaves: impl Fn(&Waiter) -> bool,
        refusal: &Refusal,
    ) {
        let counter = match refusal {
            Refusal::TimedOut { .. } | Refusal::Paused { .. } => &self.stats.refused_timeout,
            Refusal::Unreachable(_) => &self.stats.refused_unreachable,
            Refusal::Closing => &self.stats.refused_closing,
            Refusal::Full { .. } | Refusal::Cancelled | Refusal::Moved | Refusal::Disabled => {
                &self.stats.refused_full
            }
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
