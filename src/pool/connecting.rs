//! Making connections. The pool makes them, not the sessions: a session that goes away leaves nothing half
//! done, and whoever waits longest gets the first backend that is there.

use std::{sync::Arc, time::Duration};

use super::{
    ServerPool,
    gate::jitter,
    known::Known,
    refusal::{ConnectFailure, Refusal},
    state::{State, milliseconds},
};
use crate::{
    backend::{Backend, Identity, connect_error::ConnectError, search},
    metrics::count,
    threads::Home,
    wire::read::ErrorFields,
};

/// Looking for the host that a server is at takes no less, however short others may wait.
const SEARCH_AT_LEAST: Duration = Duration::from_millis(500);

impl ServerPool {
    /// Connects in a task of its own. False if other pools have taken all of the server's places, which is so only
    /// until the backends are closed that a reload has made superfluous.
    pub(super) fn start_connecting(
        self: &Arc<Self>,
        state: &mut State,
        identity: Arc<Identity>,
        home: Home,
    ) -> bool {
        if !self.gate().take_place() {
            return false;
        }
        state.shares.add(&identity);
        state.connecting.push(Arc::clone(&identity));
        let pool = Arc::clone(self);
        self.spawner.spawn(home, async move { pool.connect(identity, home).await });
        true
    }

    async fn connect(self: Arc<Self>, identity: Arc<Identity>, home: Home) {
        let mut place = Place { pool: &self, identity: &identity, taken: true };
        loop {
            let slot = self.gate().enter().await;
            let (server, credentials) = (self.server(), identity.credentials());
            let generation = self.lock().generation;
            let limits = self.limits();
            // With several hosts all of it is to be over before those who wait have to give up.
            let limit = match server.hosts.len() {
                1 => limits.connect_timeout,
                _ => limits.connect_timeout.min(limits.wait_timeout.max(SEARCH_AT_LEAST)),
            };
            let began = std::time::Instant::now();
            let attempt = search::connect(&server, &identity, home, limit).await;
            drop(slot);
            match attempt {
                Ok(mut backend) => {
                    backend.generation = generation;
                    place.taken = false;
                    self.note_proof(&backend, began);
                    self.connected(backend);
                    return;
                }
                Err(_) if !self.is_up_to_date(&server, &identity, &credentials) => {
                    // The password it failed with is not the one of today, which is tried next.
                    if !self.lock().queue.wants(&identity) {
                        return;
                    }
                }
                Err(error) => {
                    if !self.connect_failed(&identity, &error) {
                        return;
                    }
                }
            }
        }
    }

    fn connected(self: &Arc<Self>, mut backend: Box<Backend>) {
        count(&self.stats().connects);
        if self.gate().succeeded() {
            tracing::info!(server = %self.server_name, "the server can be reached again");
        }
        backend.opened_at = self.tick();
        let lifetime = self.limits().max_lifetime;
        backend.expires_at = if lifetime == Duration::ZERO {
            u64::MAX
        } else {
            // jitter() gives 0.5 to 1; a tenth of spread is asked for.
            let spread = lifetime.mul_f64(0.8 + jitter() / 5.0);
            // Whoever it was made for gets it, however short its life is.
            backend.opened_at.saturating_add(milliseconds(spread).max(1))
        };
        {
            let mut state = self.lock();
            state.connected(&backend.identity);
            state.leased += 1;
            state.forget_closed();
            state.known.push(Known::of(&backend));
            // Who has asked for a fresh one gives it back at once.
            while let Some(waiter) = state.queue.take_for_fresh(&backend.identity) {
                match waiter.to.send(Ok(backend)) {
                    Ok(()) => return self.note_outstanding(&state),
                    Err(refused) => backend = refused.expect("a backend was sent"),
                }
            }
        }
        self.give_back(backend);
    }

    /// Tells who waits; returns whether to try again.
    fn connect_failed(&self, identity: &Arc<Identity>, error: &ConnectError) -> bool {
        count(&self.stats().connect_failures[error.kind() as usize]);
        let message = error.to_string();
        let mut state = self.lock();
        if state.control.is_shut() {
            // Whoever waits goes on waiting: a server may be down on purpose.
            return false;
        }
        if error.is_final() {
            // The server is there; it is this login that fails.
            self.gate().succeeded();
            let ErrorFields { code, hint, .. } = error.fields();
            if let Some(left_out) = self.refusals.is_time(&code) {
                tracing::warn!(
                    pool = %self.name, server = %self.server_name, user = %identity.user, database = %identity.database,
                    %message, hint, left_out, "a login at the server failed"
                );
            }
            let refused = Some(error.fields());
            let failure = Arc::new(ConnectFailure { server: self.server_name.clone(), refused, message });
            let same = |waiter: &super::queue::Waiter| Arc::ptr_eq(&waiter.identity, identity);
            self.refuse_waiters(&mut state, same, &Refusal::Unreachable(failure));
            return false;
        }
        // Who has asked for a fresh one asks once: a server that cannot say anything of a login says nothing against it.
        let proves = |waiter: &super::queue::Waiter| waiter.fresh && Arc::ptr_eq(&waiter.identity, identity);
        let was_proof = state.queue.in_turn().any(proves);
        let failure = ConnectFailure::unreachable(&self.server_name, message.clone());
        self.refuse_waiters(&mut state, proves, &Refusal::Unreachable(Arc::new(failure)));
        if was_proof && error.is_of_bounds() && !state.queue.wants(identity) {
            // Its bounds are reached, and nobody else needed the connection: that is no failure.
            return false;
        }
        if error.is_full() {
            if self.gate().is_full(&message) {
                tracing::warn!(
                    server = %self.server_name, user = %identity.user, %message,
                    "the server takes no more connections, fewer than its pools may open; those that are open are used"
                );
            }
            let has_none = state.leased == 0 && state.idle.is_empty();
            if state.limits.fails_fast && has_none {
                let failure = Arc::new(ConnectFailure::unreachable(&self.server_name, message));
                self.refuse_waiters(&mut state, |_| true, &Refusal::Unreachable(failure));
            }
            return state.queue.wants(identity) && !state.is_over_bound();
        }
        if self.gate().failed(&message) {
            tracing::warn!(server = %self.server_name, %message, "the server cannot be reached");
        }
        if let Some(failure) = self.is_hopeless(&state) {
            self.refuse_waiters(&mut state, |_| true, &Refusal::Unreachable(failure));
        }
        state.queue.wants(identity) && !state.is_over_bound()
    }
}

/// The place of a connection that is being made; given up unless the connection came about.
struct Place<'a> {
    pool: &'a Arc<ServerPool>,
    identity: &'a Arc<Identity>,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            let mut state = self.pool.lock();
            state.connected(self.identity);
            state.shares.remove(self.identity);
            self.pool.gate().give_place();
            self.pool.serve_queue(&mut state);
        }
    }
}
