//! Asking a pool for a backend: an idle one, a place in the queue, or a refusal.

use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;

use super::{
    lease::Lease,
    refusal::Refusal,
    server_pool::ServerPool,
    state::{Life, State, Wants, milliseconds},
    waiting::Waiting,
};
use crate::{
    backend::{Settings, handover::Needs},
    metrics::count,
};

/// The answer that asking for a backend gets at once.
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

impl ServerPool {
    /// Asks for a backend.
    pub fn checkout(self: &Arc<Self>, wants: &Wants<'_>) -> Checkout {
        let mut state = self.lock();
        if state.control.is_shut() && state.life != Life::Moved {
            return self.checkout_shut(state, wants);
        }
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

    /// The answer of a pool that gives nothing out.
    #[cold]
    fn checkout_shut(self: &Arc<Self>, mut state: MutexGuard<'_, State>, wants: &Wants<'_>) -> Checkout {
        if state.control.is_disabled {
            count(&self.stats.refused_full);
            return Checkout::Refused(Refusal::Disabled);
        }
        let (ticket, from) = state.queue.push(Arc::clone(wants.identity), wants.home);
        self.note_outstanding(&state);
        drop(state);
        self.attention.notify_one();
        Checkout::Wait(Waiting {
            pool: Arc::clone(self),
            ticket,
            since: Instant::now(),
            from,
            is_over: false,
        })
    }

    /// A backend for a purpose of our own, with nothing of any session's on it and the server's own settings: waits for
    /// it, and checks one that was idle for long.
    ///
    /// Cancel safe: dropped, it leaves the queue.
    pub async fn lease(self: &Arc<Self>, wants: &Wants<'_>) -> Result<Lease, Refusal> {
        let settings = Arc::new(Settings::default());
        let needs = Needs {
            settings: &settings,
            is_own: false,
            forgets_sequences: false,
            forgets_statements: false,
            closes: false,
        };
        loop {
            let mut lease = match self.checkout(wants) {
                Checkout::Lease(lease) => lease,
                Checkout::Wait(waiting) => waiting.await?,
                Checkout::Refused(refusal) => return Err(refusal),
                Checkout::Stale(mut lease) => {
                    if lease.check().await.is_err() {
                        // It is closed with its lease, and the next one is tried.
                        continue;
                    }
                    lease
                }
            };
            let was_suspect = lease.is_suspect;
            if lease.is_ready(needs) || lease.make_ready(needs).await.is_ok() {
                // Whether a reset is enough for a session is not known here.
                lease.is_suspect = was_suspect;
                return Ok(lease);
            }
        }
    }
}
