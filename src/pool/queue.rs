//! The wait queue: first in, first out, bounded by its pool.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

use super::{Lease, Refusal, ServerPool};
use crate::backend::{Backend, Home, Identity};

/// What a waiting session gets in the end.
pub(super) type Outcome = Result<Box<Backend>, Refusal>;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) identity: Arc<Identity>,
    pub(super) home: Home,
    /// It waits for a connection that is yet to be made; one that was there before is of no use to it.
    pub(super) fresh: bool,
    pub(super) since: Instant,
    pub(super) to: oneshot::Sender<Outcome>,
}

/// Waiting sessions in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
}

/// A waiter whose backend belongs to another thread may be passed over for so long.
const FAIRNESS: std::time::Duration = std::time::Duration::from_millis(5);

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn push(&mut self, identity: Arc<Identity>, home: Home) -> (u64, oneshot::Receiver<Outcome>) {
        self.push_as(identity, home, false)
    }

    /// For a connection that is yet to be made.
    pub(super) fn push_for_fresh(
        &mut self,
        identity: Arc<Identity>,
        home: Home,
    ) -> (u64, oneshot::Receiver<Outcome>) {
        self.push_as(identity, home, true)
    }

    fn push_as(
        &mut self,
        identity: Arc<Identity>,
        home: Home,
        fresh: bool,
    ) -> (u64, oneshot::Receiver<Outcome>) {
        let (to, from) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.push_back(Waiter { ticket, identity, home, fresh, since: Instant::now(), to });
        (ticket, from)
    }

    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let at = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        self.waiters.remove(at)
    }

    /// Takes out the waiter that gets a free backend: the first of its identity, or, as long as that one has not
    /// waited for long, the first that lives on the backend's thread.
    pub(super) fn take_for(&mut self, backend: &Backend) -> Option<Waiter> {
        let fits = |waiter: &Waiter| !waiter.fresh && Arc::ptr_eq(&waiter.identity, &backend.identity);
        let first = self.waiters.iter().position(fits)?;
        let at = if self.waiters[first].home == backend.home || self.waiters[first].since.elapsed() > FAIRNESS
        {
            first
        } else {
            self.waiters
                .iter()
                .position(|waiter| fits(waiter) && waiter.home == backend.home)
                .unwrap_or(first)
        };
        self.waiters.remove(at)
    }

    /// Takes out the first waiter that a connection just made for this identity is for.
    pub(super) fn take_for_fresh(&mut self, identity: &Arc<Identity>) -> Option<Waiter> {
        let fits = |waiter: &Waiter| waiter.fresh && Arc::ptr_eq(&waiter.identity, identity);
        let at = self.waiters.iter().position(fits)?;
        self.waiters.remove(at)
    }

    /// Everybody, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// The first waiter, if `backend` is of no use to it: it has another identity, or wants a fresh one.
    pub(super) fn head_is_stranger(&self, backend: &Backend) -> Option<&Waiter> {
        self.waiters
            .front()
            .filter(|waiter| waiter.fresh || !Arc::ptr_eq(&waiter.identity, &backend.identity))
    }

    /// Takes out everybody for whom `leaves` holds.
    pub(super) fn take_where(&mut self, leaves: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let (out, stay) = std::mem::take(&mut self.waiters).into_iter().partition(leaves);
        self.waiters = stay;
        Vec::from_iter::<VecDeque<Waiter>>(out)
    }

    /// Whether anybody waits for this identity.
    pub(super) fn wants(&self, identity: &Arc<Identity>) -> bool {
        self.waiters.iter().any(|waiter| Arc::ptr_eq(&waiter.identity, identity))
    }
}

/// A place in a queue. Dropped, it is given up; a backend that was handed over just then goes back.
#[derive(Debug)]
pub struct Waiting {
    pub(super) pool: Arc<ServerPool>,
    pub(super) ticket: u64,
    pub(super) since: Instant,
    pub(super) from: oneshot::Receiver<Outcome>,
    /// The outcome has been taken: no place in the queue is left to give up.
    pub(super) is_over: bool,
}

impl Future for Waiting {
    type Output = Result<Lease, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(outcome) = Pin::new(&mut self.from).poll(cx) else { return Poll::Pending };
        self.is_over = true;
        Poll::Ready(match outcome {
            Ok(Ok(backend)) => {
                self.pool.stats().wait.observe(self.since.elapsed());
                Ok(Lease::new(backend, Arc::clone(&self.pool)))
            }
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Closing),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.pool.leave_queue(self.ticket);
        self.from.close();
        if let Ok(Ok(backend)) = self.from.try_recv() {
            self.pool.give_back(backend);
        }
    }
}
