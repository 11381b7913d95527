//! The keeper of a server pool: closes what must be closed, refuses who has waited too long, and keeps as many
//! idle backends as the limits say.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, ServerPool,
    state::{State, milliseconds},
};
use crate::{
    backend::{Backend, Identity},
    threads::Home,
    wire::message,
};

/// How often waiting times are looked at while somebody waits.
const QUEUE_ROUND: Duration = Duration::from_millis(10);

/// How often idle backends are looked at.
const IDLE_ROUND: Duration = Duration::from_secs(1);

/// Keeps a server pool until `stop`, or until it has been drained and nobody can ask it for anything any more.
pub async fn keep(pool: Arc<ServerPool>, stop: CancellationToken) {
    let mut next_idle_round = Instant::now();
    loop {
        let now = Instant::now();
        pool.tick();
        close_dead(&pool);
        if now >= next_idle_round {
            next_idle_round = now + IDLE_ROUND;
            idle_round(&pool);
            if pool.lets_keeper_go() {
                tracing::info!(pool = pool.name, server = pool.server_name, "the pool was drained");
                return;
            }
        }
        let pause = if refuse_late(&pool) { QUEUE_ROUND } else { next_idle_round - now };
        tokio::select! {
            // Cancel safe: a notification that is not consumed stays with the Notify.
            () = pool.attention.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    close_all(&pool);
}

/// Refuses those who have waited too long; returns whether somebody still waits.
fn refuse_late(pool: &Arc<ServerPool>) -> bool {
    let mut state = pool.lock();
    if state.queue.is_empty() {
        return false;
    }
    let (limit, resumed) = (state.wait_limit(), state.control.resumed_at);
    let late = |waiter: &super::queue::Waiter| {
        resumed.map_or(waiter.since, |resumed| resumed.max(waiter.since)).elapsed() >= limit
    };
    if state.control.paused.is_some() {
        pool.refuse_waiters(&mut state, late, &Refusal::Paused { waited: limit });
        return !state.queue.is_empty();
    }
    let figures = pool.figures_of(&state);
    let full = pool.gate().full_for().map(|(_, error)| error);
    let under_way = || {
        // One to a server that has no place waits for its turn: the server is not what cannot be reached.
        let none_yet = figures.leased + figures.idle == 0 && figures.connecting > 0 && full.is_none();
        none_yet.then(|| "an attempt to connect is still under way".to_owned())
    };
    let down = pool.gate().trouble().or_else(under_way);
    let refusal = Refusal::TimedOut { figures, waited: limit, down, full };
    pool.refuse_waiters(&mut state, late, &refusal);
    pool.serve_queue(&mut state);
    !state.queue.is_empty()
}

/// Hands the dead to tasks that close them.
fn close_dead(pool: &Arc<ServerPool>) {
    let (dead, limit) = {
        let mut state = pool.lock();
        (std::mem::take(&mut state.dead), state.limits.close_timeout)
    };
    let now = pool.clock();
    for backend in dead {
        let age = now.saturating_sub(backend.opened_at);
        pool.stats().lifetime.observe(Duration::from_millis(age));
        let pool = Arc::clone(pool);
        let spawner = pool.spawner.clone();
        spawner.spawn(backend.home, async move {
            let place = ClosingPlace(pool);
            close(backend, limit).await;
            drop(place);
        });
    }
}

/// Closes the identity's longest idle backend, if it has one, and returns when its place is free.
///
/// Cancel safe: dropped, the connection is closed without a goodbye.
pub(super) async fn close_oldest_idle(pool: &Arc<ServerPool>, identity: &Arc<Identity>) {
    let (oldest, limit) = {
        let mut state = pool.lock();
        let of_identity = |idle: &super::state::Idle| Arc::ptr_eq(&idle.backend.identity, identity);
        let Some(at) = state.idle.iter().position(of_identity) else { return };
        state.closing += 1;
        state.shares.remove(identity);
        (state.idle.remove(at).backend, state.limits.close_timeout)
    };
    let place = ClosingPlace(Arc::clone(pool));
    let age = pool.clock().saturating_sub(oldest.opened_at);
    pool.stats().lifetime.observe(Duration::from_millis(age));
    close(oldest, limit).await;
    drop(place);
}

/// The place of a backend that is being closed; free again when dropped, whatever ends the closing.
struct ClosingPlace(Arc<ServerPool>);

impl Drop for ClosingPlace {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closing -= 1;
        self.0.gate().give_place();
        self.0.serve_queue(&mut state);
    }
}

/// Ends a backend so that its server process is gone when this returns, or `limit` is over: cancels what it
/// does, says goodbye, and waits for the server to close (it does so last, after it has left
/// `pg_stat_activity`).
async fn close(mut backend: Box<Backend>, limit: Duration) {
    let server = backend.server.name.clone();
    let goodbye = async {
        if !backend.protocol.is_answered() {
            backend.cancel.register().send(limit).await;
        }
        if backend.unsent.is_empty() {
            let _ = backend.socket.send_now(&message::TERMINATE);
        }
        // The server may have closed already; then there is nothing to wait for.
        let _ = backend.socket.shutdown().await;
        let mut nothing = Vec::new();
        while let Ok(true) = backend.socket.read_more(&mut nothing).await {
            nothing.clear();
        }
    };
    if timeout(limit, goodbye).await.is_err() {
        tracing::warn!(server, "a connection was given up: the server did not close it in time");
    }
}

/// Closes what has been idle or has lived for too long, connects what is missing, and tries a server that is down.
fn idle_round(pool: &Arc<ServerPool>) {
    let now = pool.clock();
    let mut state = pool.lock();
    retire_idle(&mut state, now);
    state.forget_closed();
    if !state.dead.is_empty() {
        pool.attention.notify_one();
    }
    if state.control.is_shut() {
        return;
    }
    let Some(identity) = state.warm.clone() else { return };
    let present = state.figures().taken() - state.closing;
    let room = state.limits.max_connections.saturating_sub(state.figures().taken());
    let wanted = if pool.gate().is_down() {
        // Nobody else may try, since whoever asks is sent away: one attempt at a time finds out when it is back.
        usize::from(state.connecting.is_empty())
    } else {
        state.limits.min_connections.saturating_sub(present)
    };
    let missing = wanted.min(room);
    for thread in 0..missing {
        if !pool.start_connecting(&mut state, Arc::clone(&identity), Home(thread as u16)) {
            return;
        }
    }
}

fn retire_idle(state: &mut State, now: u64) {
    let limits = state.limits;
    let idle_limit = milliseconds(limits.idle_timeout);
    let lifetime = milliseconds(limits.max_lifetime);
    let mut spare = state.figures().taken().saturating_sub(limits.min_connections + state.closing);
    let (mut kept, mut retired) = (Vec::new(), Vec::new());
    for mut idle in std::mem::take(&mut state.idle) {
        let backend = &mut idle.backend;
        if lifetime > 0 {
            // A reload may have shortened it.
            backend.expires_at = backend.expires_at.min(now.saturating_add(lifetime));
        }
        let idle_too_long =
            idle_limit > 0 && now.saturating_sub(backend.idle_since) > idle_limit && spare > 0;
        if backend.expires_at <= now || idle_too_long || !backend.is_alive() || !backend.is_in_use() {
            spare = spare.saturating_sub(1);
            retired.push(idle.backend);
        } else {
            kept.push(idle);
        }
    }
    state.idle = kept;
    for backend in retired {
        state.bury(backend);
    }
}

impl ServerPool {
    /// Closes the idle backends for whose identity `leaves` holds.
    pub fn close_idle(&self, leaves: impl Fn(&Identity) -> bool) {
        let mut state = self.lock();
        let (out, stay) = std::mem::take(&mut state.idle)
            .into_iter()
            .partition::<Vec<_>, _>(|idle| leaves(&idle.backend.identity));
        state.idle = stay;
        for idle in out {
            state.bury(idle.backend);
        }
        drop(state);
        self.attention.notify_one();
    }
}

fn close_all(pool: &Arc<ServerPool>) {
    let mut state = pool.lock();
    let idle = std::mem::take(&mut state.idle);
    for idle in idle {
        state.bury(idle.backend);
    }
    pool.refuse_waiters(&mut state, |_| true, &Refusal::Closing);
    drop(state);
    close_dead(pool);
}
