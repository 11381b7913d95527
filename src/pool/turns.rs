//! Who gets a place: a share for each identity, as long as others want theirs.
//!
//! A backend belongs to one identity, so a place changes its owner only by closing one and connecting another. That is
//! done for an identity that has less than its share, at the cost of one that has more; of one that has no more than its
//! share only after its backend has been idle for a moment, or when the other one has none at all and has waited for a
//! while.

use std::{sync::Arc, time::Duration};

use super::{
    ServerPool,
    queue::Waiter,
    state::{Life, State, milliseconds},
};
use crate::{
    backend::{Backend, Identity},
    threads::Home,
};

/// An identity that has no place takes turns with others, as long as these.
const TURN: Duration = Duration::from_millis(50);

/// An idle backend is kept for its own identity for so long, unless that has more than its share.
const HOLD: Duration = Duration::from_millis(20);

impl State {
    /// The places that each identity may have that has some, or wants some.
    fn share(&self) -> usize {
        let without = self.queue.heads().filter(|waiter| self.shares.held(&waiter.identity) == 0);
        let identities = self.shares.0.len() + without.count();
        self.limits.max_connections.div_ceil(identities.max(1))
    }

    /// Whether a backend that is free must make room for a waiter of another identity.
    fn must_make_room(&self, of: &Arc<Identity>) -> bool {
        // The usual case: everybody who waits is of its identity.
        if !self.queue.heads().any(|waiter| waiter.fresh || !Arc::ptr_eq(&waiter.identity, of)) {
            return false;
        }
        let share = self.share();
        let has_too_many = self.shares.held(of) > share;
        let deserves = |waiter: &Waiter| {
            let held = self.shares.held(&waiter.identity);
            let has_its_turn = if Arc::ptr_eq(&waiter.identity, of) {
                // One of its own is of no use to it.
                waiter.fresh
            } else {
                held < share && (has_too_many || (held == 0 && waiter.since.elapsed() >= TURN))
            };
            has_its_turn && !self.is_coming_for(&waiter.identity)
        };
        self.queue.heads().any(deserves)
    }

    /// The place of the idle backend to be closed for somebody of another identity: of those that may be, the one that
    /// has been idle for longest.
    fn expendable(&self, now: u64) -> Option<usize> {
        let share = self.share();
        self.idle.iter().position(|idle| {
            self.shares.held(&idle.backend.identity) > share
                || now.saturating_sub(idle.backend.idle_since) >= milliseconds(HOLD)
        })
    }
}

impl ServerPool {
    /// A leased backend comes back: to a waiter, or among the idle ones.
    pub(super) fn give_back(self: &Arc<Self>, mut backend: Box<Backend>) {
        let mut state = self.lock();
        let now = self.clock();
        self.note_sides(&backend);
        state.note_use(&mut backend);
        let is_of_use = backend.expires_at > now
            && !state.is_over_bound()
            && state.fits(&backend)
            && state.control.paused.is_none();
        if !is_of_use || state.must_make_room(&backend.identity) {
            state.leased -= 1;
            state.bury(backend);
            self.attention.notify_one();
            return;
        }
        while let Some(waiter) = state.queue.take_for(&backend.identity, backend.home) {
            match waiter.to.send(Ok(backend)) {
                Ok(()) => {
                    self.note_outstanding(&state);
                    return;
                }
                Err(refused) => backend = refused.expect("a backend was sent"),
            }
        }
        state.leased -= 1;
        // Whoever a connection of one session's own was made for has left, and it suits nobody else.
        if state.life != Life::Open || backend.identity.is_one_sessions() {
            state.bury(backend);
            self.attention.notify_one();
        } else {
            backend.idle_since = now;
            state.put_idle(backend);
        }
        self.note_outstanding(&state);
    }

    /// A backend that reports that its host is no longer what is looked for makes all of that host doubtful.
    fn note_sides(&self, backend: &Backend) {
        if backend.protocol.has_reported_role()
            && backend.has_changed_sides()
            && backend.server.in_use.doubt(backend.place.turn)
        {
            let (server, host) = (&self.server_name, backend.host());
            tracing::warn!(server, host, "the server is no longer what its URL looks for");
        }
    }

    /// Sees to it that somebody works for every waiter as far as there are places: an idle backend is handed over,
    /// a free place is filled, and at the bound an idle backend of another identity makes room. Those who have less
    /// than their share come first.
    pub(super) fn serve_queue(self: &Arc<Self>, state: &mut State) {
        if state.control.is_shut() {
            return;
        }
        state.hand_out_idle();
        if state.queue.is_empty() {
            return;
        }
        let share = state.share();
        let mut waiting: Vec<(Arc<Identity>, Home)> =
            state.queue.in_turn().map(|waiter| (Arc::clone(&waiter.identity), waiter.home)).collect();
        waiting.sort_by_key(|(identity, _)| state.shares.held(identity) >= share);
        let mut connecting = state.connecting.clone();
        let mut closing = state.closing;
        for (identity, home) in waiting {
            if let Some(at) = connecting.iter().position(|other| Arc::ptr_eq(other, &identity)) {
                connecting.swap_remove(at);
            } else if state.has_room() && self.start_connecting(state, identity, home) {
                // It comes.
            } else if closing > 0 {
                closing -= 1;
            } else if let Some(at) = state.expendable(self.clock()) {
                let idle = state.idle.remove(at).backend;
                state.bury(idle);
                self.attention.notify_one();
            } else {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::{HOME, identities, pool_of};

    /// A pool of so many places, of which these have some.
    fn pool(max_connections: usize, holders: &[(&Arc<Identity>, usize)]) -> Arc<ServerPool> {
        let pool = pool_of(max_connections);
        for (identity, places) in holders {
            (0..*places).for_each(|_| pool.lock().shares.add(identity));
        }
        pool
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_more_than_its_share_makes_room_at_once() {
        let [greedy, other] = identities();
        let pool = pool(4, &[(&greedy, 4)]);
        let mut state = pool.lock();
        assert!(!state.must_make_room(&greedy), "nobody else wants anything");
        drop(state.queue.push(Arc::clone(&greedy), HOME));
        assert!(!state.must_make_room(&greedy), "it is its own turn");
        drop(state.queue.push(Arc::clone(&other), HOME));
        assert_eq!(state.share(), 2);
        assert!(state.must_make_room(&greedy));
        state.connecting.push(Arc::clone(&other));
        assert!(!state.must_make_room(&greedy), "one is coming already");
        state.connecting.clear();
        (0..2).for_each(|_| state.shares.remove(&greedy));
        (0..2).for_each(|_| state.shares.add(&other));
        assert!(!state.must_make_room(&greedy) && !state.must_make_room(&other), "each has its share");
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_are_fewer_places_than_identities_these_take_turns() {
        let [one, two, three] = identities();
        let pool = pool(2, &[(&one, 1), (&two, 1)]);
        {
            let mut state = pool.lock();
            drop(state.queue.push(Arc::clone(&three), HOME));
            drop(state.queue.push(Arc::clone(&one), HOME));
            assert!(!state.must_make_room(&one) && !state.must_make_room(&two));
        }
        tokio::time::advance(TURN).await;
        let state = pool.lock();
        assert!(state.must_make_room(&one) && state.must_make_room(&two), "whoever comes back first");
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_counted_for_each() {
        let [one, two] = identities();
        let pool = pool(5, &[(&one, 2), (&two, 1)]);
        let mut state = pool.lock();
        assert_eq!((state.shares.held(&one), state.shares.held(&two), state.share()), (2, 1, 3));
        state.shares.remove(&two);
        assert_eq!((state.shares.held(&two), state.share()), (0, 5));
        // Nothing to give up.
        state.shares.remove(&two);
    }
}
