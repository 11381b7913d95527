//! Pins: leases that are kept between transactions. They are counted and bounded, so that a pool always has
//! connections for transactions.
//!
//! A statement that will pin its session waits for a place among the pins before it waits for a connection, first come,
//! first served. So nobody waits for a place who holds a connection, and whoever holds a place waits at most for what
//! transactions give back: the two queues cannot wait for each other. Within a transaction nothing is reserved, since its
//! connection is held by then, and most of what it creates it drops again; what is left at its end takes a place, above
//! the bound if need be. So does what is seen too late. A pin above the bound lasts only as long as nobody needs its
//! connection: idle, it makes room.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    ServerPool,
    pin_places::{Pins, PinsFull},
};
use crate::{backend::probe::PinReason, metrics::count};

/// Pins above the bound are warned of once in so long.
const WARN_MILLISECONDS: u64 = 60_000;

/// A place among the pins; free again when dropped.
#[derive(Debug)]
pub struct PinPlace {
    pool: Arc<ServerPool>,
    is_over_bound: bool,
}

impl PinPlace {
    /// Whether it is this pool's.
    pub(super) fn is_of(&self, pool: &Arc<ServerPool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Whether it was taken above the bound, and there are still more than there may be.
    pub(super) fn is_over_bound(&self) -> bool {
        let places = self.pool.pins.lock();
        self.is_over_bound && places.held > places.max
    }
}

impl Drop for PinPlace {
    fn drop(&mut self) {
        self.pool.pins.lock().give_back();
    }
}

/// The answer that asking for a place gets at once.
#[derive(Debug)]
pub enum PinCheckout {
    /// A place.
    Place(PinPlace),
    /// A turn in the queue.
    Wait(PinWaiting),
    /// Nothing: as many wait as may.
    Full(PinsFull),
}

/// A turn in the queue for a place. Dropped, it is given up, and so is a place that was handed over just then.
#[derive(Debug)]
pub struct PinWaiting {
    pool: Arc<ServerPool>,
    ticket: u64,
    from: oneshot::Receiver<()>,
    is_over: bool,
}

impl Future for PinWaiting {
    type Output = PinPlace;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is in the queue until it sends.
        let Poll::Ready(Ok(())) = Pin::new(&mut self.from).poll(cx) else { return Poll::Pending };
        self.is_over = true;
        Poll::Ready(PinPlace { pool: Arc::clone(&self.pool), is_over_bound: false })
    }
}

impl Drop for PinWaiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut places = self.pool.pins.lock();
        match places.queue.iter().position(|(ticket, _)| *ticket == self.ticket) {
            Some(at) => drop(places.queue.remove(at)),
            // It was handed over.
            None => places.give_back(),
        }
    }
}

/// Counts a pinned session under its reason as long as it lives.
#[derive(Debug)]
pub struct CountedPin {
    reason: PinReason,
    pool: Arc<ServerPool>,
    since: Instant,
}

impl CountedPin {
    /// From now on.
    pub fn new(pool: &Arc<ServerPool>, reason: PinReason) -> Self {
        count(&pool.pins.by_reason[reason as usize]);
        Self { reason, pool: Arc::clone(pool), since: Instant::now() }
    }
}

impl Drop for CountedPin {
    fn drop(&mut self) {
        let pins = &self.pool.pins;
        pins.by_reason[self.reason as usize].fetch_sub(1, Ordering::Relaxed);
        pins.ended_nanos.fetch_add(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl ServerPool {
    /// The counters of pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// A place for a statement that will pin, or a turn in the queue for one. Not to be awaited with a lease in hand.
    pub fn reserve_pin(self: &Arc<Self>) -> PinCheckout {
        let limits = self.limits();
        let mut places = self.pins.lock();
        if places.held < places.max {
            places.held += 1;
            return PinCheckout::Place(PinPlace { pool: Arc::clone(self), is_over_bound: false });
        }
        if places.max == 0 || places.queue.len() >= limits.max_waiting {
            drop(places);
            return PinCheckout::Full(self.refuse_pin());
        }
        let (to, from) = oneshot::channel();
        let ticket = places.next_ticket;
        places.next_ticket += 1;
        places.queue.push_back((ticket, to));
        PinCheckout::Wait(PinWaiting { pool: Arc::clone(self), ticket, from, is_over: false })
    }

    /// Counts that a statement has got no place.
    pub fn refuse_pin(&self) -> PinsFull {
        count(&self.pins.refused);
        PinsFull { max_pinned: self.limits().max_pinned }
    }

    pub(super) fn try_pin(self: &Arc<Self>) -> Result<PinPlace, PinsFull> {
        let mut places = self.pins.lock();
        if places.held < places.max {
            places.held += 1;
            return Ok(PinPlace { pool: Arc::clone(self), is_over_bound: false });
        }
        drop(places);
        Err(self.refuse_pin())
    }

    pub(super) fn pin_anyway(self: &Arc<Self>) -> PinPlace {
        let (pinned, max_pinned) = {
            let mut places = self.pins.lock();
            places.held += 1;
            (places.held, places.max)
        };
        let is_over_bound = pinned > max_pinned;
        if is_over_bound {
            count(&self.pins.over_bound);
            let now = self.clock();
            let due = self.pins.next_warning.load(Ordering::Relaxed);
            if now >= due {
                self.pins.next_warning.store(now + WARN_MILLISECONDS, Ordering::Relaxed);
                tracing::warn!(
                    pool = %self.name,
                    pinned,
                    max_pinned,
                    "more sessions are pinned than pools.*.max_pinned allows: statements that do not show it leave state"
                );
            }
        }
        PinPlace { pool: Arc::clone(self), is_over_bound }
    }

    /// Whether sessions wait that only a lease given back could serve, since every place is taken by one.
    pub fn is_starved(&self) -> bool {
        let figures = self.figures();
        figures.waiting > 0 && figures.leased >= figures.max_connections
    }

    /// Whether sessions wait that only a pin given up could serve.
    pub fn wants_pins(&self) -> bool {
        !self.pins.lock().queue.is_empty()
    }
}
