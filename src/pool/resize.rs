//! What a reload changes in a server pool that lives on: its bounds, how its server is reached, and whether it is
//! still part of the configuration; and what makes all of its backends old.
//!
//! Nothing here cuts a transaction: what is in use is closed, if it must be, when it comes back.

use std::sync::{Arc, MutexGuard};

use super::{
    Limits, Refusal, ServerPool,
    state::{Life, State},
};
use crate::backend::{Credentials, Identity, Server};

impl ServerPool {
    /// From now on the pool has these limits, reaches its server so, and keeps `min_connections` open for `warm`.
    /// Those who wait get the new places at once. Idle backends that are too many, or that were connected
    /// otherwise, are closed; busy ones when they come back. Who waits already goes on waiting, even if fewer
    /// may wait now.
    ///
    /// True if somebody must [`keep`](super::keep) the pool from now on.
    pub fn adjust(
        self: &Arc<Self>,
        limits: Limits,
        server: &Arc<Server>,
        warm: Option<&Arc<Identity>>,
    ) -> bool {
        let mut state = self.lock();
        // Draining => Open, too: a pool that was taken out and has come back.
        state.life = Life::Open;
        state.limits = limits;
        state.server = Arc::clone(server);
        state.warm = warm.cloned();
        state.close_unfit();
        self.serve_queue(&mut state);
        let keeper_is_missing = !std::mem::replace(&mut state.has_keeper, true);
        drop(state);
        self.pins.set_max(limits.max_pinned);
        self.attention.notify_one();
        keeper_is_missing
    }

    /// New backends begin with other settings than those that are open (ALTER ROLE .. SET): idle ones are closed, busy
    /// ones when they come back.
    pub fn renew(self: &Arc<Self>) {
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        state.close_unfit();
        self.serve_queue(&mut state);
        drop(state);
        self.attention.notify_one();
    }

    /// Closes the idle backends that have logged in otherwise than their identities would today; busy ones are closed
    /// when they come back.
    pub fn close_outdated(self: &Arc<Self>) {
        let mut state = self.lock();
        state.close_unfit();
        self.serve_queue(&mut state);
        drop(state);
        self.attention.notify_one();
    }

    /// The pool is no longer part of the configuration: who has a backend or waits for one is served, and what is
    /// free is closed.
    pub fn drain(&self) {
        drop(self.leave(Life::Draining));
    }

    /// As [`ServerPool::drain`], but another pool has taken its place, on another server: who waits goes there.
    pub fn send_on(&self) {
        let mut state = self.leave(Life::Moved);
        self.refuse_waiters(&mut state, |_| true, &Refusal::Moved);
    }

    fn leave(&self, life: Life) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.life = life;
        state.warm = None;
        for idle in std::mem::take(&mut state.idle) {
            state.bury(idle.backend);
        }
        self.attention.notify_one();
        state
    }

    /// Whether the pool is no longer part of the configuration.
    pub fn is_drained(&self) -> bool {
        self.lock().life != Life::Open
    }

    /// Whether the keeper may end: the pool is drained, and its keeper is the last one that knows of it.
    pub(super) fn lets_keeper_go(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let is_empty = state.figures().taken() == 0 && state.queue.is_empty();
        let may_go = state.life != Life::Open && is_empty && Arc::strong_count(self) == 1;
        state.has_keeper = !may_go;
        may_go
    }

    /// Whether a login with these is what one would be today.
    pub(super) fn is_up_to_date(
        &self,
        server: &Arc<Server>,
        identity: &Identity,
        credentials: &Credentials,
    ) -> bool {
        identity.is_current(credentials) && Arc::ptr_eq(server, &self.lock().server)
    }
}

impl State {
    /// Has idle backends closed that are connected otherwise than today's would be, and then the longest idle ones
    /// of those that are too many.
    fn close_unfit(&mut self) {
        let (fit, unfit): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.idle).into_iter().partition(|idle| self.fits(&idle.backend));
        self.idle = fit;
        for idle in unfit {
            self.bury(idle.backend);
        }
        while self.is_over_bound() && !self.idle.is_empty() {
            let oldest = self.idle.remove(0).backend;
            self.bury(oldest);
        }
    }
}
