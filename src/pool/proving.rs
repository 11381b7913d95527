//! Fresh connections that prove a login. They take places as all others do, and serve sessions afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Refusal, ServerPool, Waiting, keeper};
use crate::{
    backend::{Identity, proof::Outcome},
    metrics::count,
    threads::Home,
};

impl ServerPool {
    /// Has a connection log in as `identity`, within `limit`. It stays in the pool, in the place of the identity's
    /// longest idle one: proofs make no pool grow. A full pool is waited for as by any other session.
    ///
    /// Cancel safe: dropped, it leaves the queue; a connection under way goes on and stays in the pool.
    pub async fn prove(self: &Arc<Self>, identity: &Arc<Identity>, home: Home, limit: Duration) -> Outcome {
        // A paused pool connects to nothing, and whoever paused it has not locked users out.
        if self.gate().is_down() || self.is_paused() {
            return Outcome::Unknown;
        }
        match tokio::time::timeout(limit, self.log_in_anew(identity, home)).await {
            Ok(outcome) => outcome,
            Err(_) if self.is_connecting(identity) => Outcome::Unknown,
            Err(_) => Outcome::NoPlace,
        }
    }

    async fn log_in_anew(self: &Arc<Self>, identity: &Arc<Identity>, home: Home) -> Outcome {
        keeper::close_oldest_idle(self, identity).await;
        let Some(waiting) = self.queue_for_fresh(identity, home) else { return Outcome::NoPlace };
        match waiting.await {
            Ok(lease) => {
                if let Some(proof) = lease.protocol.quiescent() {
                    lease.release(proof);
                }
                Outcome::Proven
            }
            Err(Refusal::Unreachable(failure)) => {
                failure.refused.clone().map_or(Outcome::Unknown, Outcome::Refused)
            }
            Err(
                Refusal::TimedOut { down: Some(_), .. }
                | Refusal::Moved
                | Refusal::Closing
                | Refusal::Paused { .. }
                | Refusal::Disabled,
            ) => Outcome::Unknown,
            Err(Refusal::TimedOut { down: None, .. } | Refusal::Full { .. } | Refusal::Cancelled) => {
                Outcome::NoPlace
            }
        }
    }

    /// A place in the queue for a connection that is yet to be made; `None` if too many wait.
    fn queue_for_fresh(self: &Arc<Self>, identity: &Arc<Identity>, home: Home) -> Option<Waiting> {
        let mut state = self.lock();
        let figures = state.figures();
        if !state.has_room()
            && figures.waiting >= state.limits.max_waiting + figures.connecting + figures.closing
        {
            // Whoever floods the queue gives way to others, here as everywhere.
            let greedy = state.queue.make_room_for(identity)?;
            // A waiter that has left meanwhile needs no refusal.
            let _ = greedy.to.send(Err(Refusal::Full { figures, down: None }));
            count(&self.stats().refused_full);
        }
        let (ticket, from) = state.queue.push_for_fresh(Arc::clone(identity), home);
        self.serve_queue(&mut state);
        self.note_outstanding(&state);
        drop(state);
        self.attention.notify_one();
        let since = tokio::time::Instant::now();
        Some(Waiting { pool: Arc::clone(self), ticket, since, from, is_over: false })
    }

    fn is_connecting(&self, identity: &Arc<Identity>) -> bool {
        self.lock().connecting.iter().any(|other| Arc::ptr_eq(other, identity))
    }

    /// Notes that the server has let the identity in.
    pub(super) fn note_proof(&self, backend: &crate::backend::Backend, began: Instant) {
        if backend.identity.is_current(&backend.credentials) {
            backend.identity.proofs.note(&self.server_name, began, Outcome::Proven);
        }
    }
}
