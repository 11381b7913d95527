//! What a server pool has at the moment, for operators: its backends one by one, and who waits.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    ServerPool,
    known::Known,
    state::{State, milliseconds},
};
use crate::backend::{BackendId, Identity, Settings, cancel::Target};

/// A backend of a pool, as it is at the moment.
#[derive(Clone, Debug)]
pub struct OpenBackend {
    /// The backend's number.
    pub id: BackendId,
    /// The identity that it belongs to.
    pub identity: Arc<Identity>,
    /// Which server process it is, and where.
    pub target: Arc<Target>,
    /// When it was connected.
    pub since: SystemTime,
    /// Our end of the connection, if it is one of TCP.
    pub local: Option<SocketAddr>,
    /// Whether its connection is encrypted.
    pub is_tls: bool,
    /// Whether it is closed when it is free: it was connected before what is asked for today.
    pub is_outdated: bool,
    /// Whether it waits for use; `None` while somebody has it, or it is being closed.
    pub idle: Option<IdleBackend>,
}

/// The state of a backend that waits for use.
#[derive(Clone, Debug)]
pub struct IdleBackend {
    /// How long it has waited.
    pub idle_for: Duration,
    /// Whether it is checked before it is used.
    pub is_old: bool,
    /// The settings on it.
    pub settings: Arc<Settings>,
    /// Prepared statements on it.
    pub statements: usize,
}

/// One identity's part of a pool.
#[derive(Clone, Debug)]
pub struct Share {
    /// The identity.
    pub identity: Arc<Identity>,
    /// Backends in use.
    pub leased: usize,
    /// Backends that wait for use.
    pub idle: usize,
    /// Idle backends that are checked before they are used.
    pub old: usize,
    /// Backends being connected.
    pub connecting: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub longest_wait: Duration,
}

impl State {
    /// Forgets the backends that are closed.
    pub(super) fn forget_closed(&mut self) {
        self.known.retain(|known| known.target.strong_count() > 0);
    }

    fn share_of(&mut self, identity: &Arc<Identity>) -> Share {
        Share {
            identity: Arc::clone(identity),
            leased: self.shares.held(identity),
            idle: 0,
            old: 0,
            connecting: 0,
            waiting: 0,
            longest_wait: Duration::ZERO,
        }
    }
}

/// The share of an identity among those that were found.
fn share<'s>(shares: &'s mut Vec<Share>, state: &mut State, identity: &Arc<Identity>) -> &'s mut Share {
    let at = shares.iter().position(|share| Arc::ptr_eq(&share.identity, identity)).unwrap_or_else(|| {
        shares.push(state.share_of(identity));
        shares.len() - 1
    });
    &mut shares[at]
}

impl ServerPool {
    /// Every backend of it that is open.
    pub fn backends(&self) -> Vec<OpenBackend> {
        let state = self.lock();
        let (now, check_after) = (self.clock(), milliseconds(state.limits.check_after));
        let open = state.known.iter().filter_map(|known| {
            let target = known.target.upgrade()?;
            let idle = state.idle.iter().find(|idle| idle.backend.id == known.id).map(|idle| {
                let idle_ms = now.saturating_sub(idle.backend.idle_since);
                IdleBackend {
                    idle_for: Duration::from_millis(idle_ms),
                    is_old: idle_ms > check_after,
                    settings: Arc::clone(&idle.backend.applied),
                    statements: idle.backend.statements.len(),
                }
            });
            let Known { id, since, local, is_tls, generation, .. } = *known;
            let (identity, is_outdated) = (Arc::clone(&known.identity), generation != state.generation);
            Some(OpenBackend { id, identity, target, since, local, is_tls, is_outdated, idle })
        });
        open.collect()
    }

    /// The share of each identity that has something of it, or waits.
    pub fn shares(&self) -> Vec<Share> {
        let mut state = self.lock();
        let (now, check_after) = (self.clock(), milliseconds(state.limits.check_after));
        let mut shares = Vec::new();
        for identity in state.shares.0.iter().map(|(identity, _)| Arc::clone(identity)).collect::<Vec<_>>() {
            share(&mut shares, &mut state, &identity);
        }
        let idle = state.idle.iter().map(|idle| {
            let idle_ms = now.saturating_sub(idle.backend.idle_since);
            (Arc::clone(&idle.backend.identity), idle_ms > check_after)
        });
        for (identity, is_old) in idle.collect::<Vec<_>>() {
            let share = share(&mut shares, &mut state, &identity);
            (share.idle, share.old) = (share.idle + 1, share.old + usize::from(is_old));
        }
        for identity in state.connecting.clone() {
            share(&mut shares, &mut state, &identity).connecting += 1;
        }
        let waiters = state.queue.in_turn().map(|waiter| (Arc::clone(&waiter.identity), waiter.since));
        for (identity, since) in waiters.collect::<Vec<_>>() {
            let share = share(&mut shares, &mut state, &identity);
            share.waiting += 1;
            share.longest_wait = share.longest_wait.max(since.elapsed());
        }
        for share in &mut shares {
            // Places are counted for each identity as a whole.
            share.leased = share.leased.saturating_sub(share.idle + share.connecting);
        }
        shares
    }

    /// Whether a backend is open that is older than the last [`ServerPool::renew`].
    pub fn has_old_generation(&self) -> bool {
        let state = self.lock();
        let is_old = |known: &Known| known.generation != state.generation && known.target.strong_count() > 0;
        state.known.iter().any(is_old)
    }
}
