//! What a pool knows of its backends on one server, behind its lock.

use std::{sync::Arc, time::Duration};

use super::{
    Limits, known::Known, orders::Control, queue::Queue, refusal::Figures, shares::Shares, stats::Totals,
};
use crate::{
    backend::{Backend, BackendId, Identity, Server, Usage},
    threads::Home,
};

/// A session's wish for a backend.
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

/// Milliseconds, which a pool's clock counts in.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The backends of a pool on one server, who waits for them, and its bounds.
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
    /// The identities for which connections are being made.
    pub(super) connecting: Vec<Arc<Identity>>,
    /// Who has how many places, those of connections being made included, of those being closed not.
    pub(super) shares: Shares,
    pub(super) leased: usize,
    /// Places of backends that are being closed, those in `dead` included.
    pub(super) closing: usize,
    /// Backends for the keeper to close, boxed as they are everywhere.
    #[expect(clippy::vec_box, reason = "they come boxed, and moving the box is cheaper than the backend")]
    pub(super) dead: Vec<Box<Backend>>,
    /// The operator's hold on it.
    pub(super) control: Control,
    /// Backends that were connected, those being closed included.
    pub(super) known: Vec<Known>,
    pub(super) totals: Totals,
    /// Backends in use that nobody waits for: they listen.
    pub(super) standing: usize,
}

/// Whether a server pool is part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The pool is part of the configuration.
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

    /// A lease ends.
    #[inline]
    pub(super) fn note_use(&mut self, backend: &mut Backend) {
        self.totals.add(&backend.usage);
        self.standing -= usize::from(backend.usage.is_standing);
        backend.usage = Usage::none();
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
    pub(super) fn take_idle(&mut self, wants: &Wants<'_>) -> Option<Box<Backend>> {
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
