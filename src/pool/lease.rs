//! A lease: the right to a place together with the backend that fills it.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{ServerPool, pin_places::PinsFull, pins::PinPlace};
use crate::backend::{
    Backend, Broken, Quiescent, Usage,
    handover::{Needs, NotReady},
    query::in_time,
};

/// A backend in use. Given back with [`Lease::release`]; dropped in any other way, its backend is closed.
#[derive(Debug)]
pub struct Lease {
    /// `None` only while being taken apart.
    backend: Option<Box<Backend>>,
    pool: Arc<ServerPool>,
    /// Its place among the pool's pins, given up with the lease at the latest.
    pin: Option<PinPlace>,
}

impl Lease {
    /// The place must have been counted as leased.
    pub(super) fn new(mut backend: Box<Backend>, pool: Arc<ServerPool>) -> Self {
        backend.usage = Usage::begin();
        Self { backend: Some(backend), pool, pin: None }
    }

    /// Where it belongs.
    pub fn pool(&self) -> &Arc<ServerPool> {
        &self.pool
    }

    /// The lease is to last: a pause of the pool does not wait for its end.
    pub fn stands(&mut self) {
        let mut state = self.pool.lock();
        if let Some(backend) = self.backend.as_mut().filter(|backend| !backend.usage.is_standing) {
            backend.usage.is_standing = true;
            state.standing += 1;
        }
    }

    /// Takes a place among the pool's pins, if there is one, unless the lease has one.
    pub fn try_pin(&mut self) -> Result<(), PinsFull> {
        if self.pin.is_none() {
            self.pin = Some(self.pool.try_pin()?);
        }
        Ok(())
    }

    /// Takes over a place that was reserved before there was a lease, if it is one of its pool.
    pub fn take_place(&mut self, place: PinPlace) {
        if place.is_of(&self.pool) {
            self.pin = Some(place);
        }
    }

    /// Whether it is pinned above the pool's bound.
    pub fn is_pinned_over_bound(&self) -> bool {
        self.pin.as_ref().is_some_and(PinPlace::is_over_bound)
    }

    /// As [`Lease::try_pin`], above the bound if need be: what was not foreseen cannot be undone.
    pub fn pin_anyway(&mut self) {
        if self.pin.is_none() {
            self.pin = Some(self.pool.pin_anyway());
        }
    }

    /// Gives the place among the pins up.
    pub fn unpin(&mut self) {
        self.pin = None;
    }

    /// Makes the backend ready for whoever has it now, within the pool's `connect_timeout`. On failure drop the lease.
    pub async fn make_ready(&mut self, needs: Needs<'_>) -> Result<(), NotReady> {
        let (limit, server) = (self.pool.limits().connect_timeout, Arc::clone(&self.server));
        in_time(limit, &server, self.deref_mut().make_ready(needs)).await
    }

    /// Checks a backend that has been idle for long. An error if it is of no use.
    pub async fn check(&mut self) -> Result<(), Broken> {
        let (limit, server) = (self.pool.limits().connect_timeout, Arc::clone(&self.server));
        match in_time(limit, &server, self.ask(";")).await?.error {
            Some(_) => Err(self.given_up("it answers an empty query with an error")),
            None => Ok(()),
        }
    }

    /// Gives the backend back. The proof says that it owes nobody an answer.
    pub fn release(mut self, _proof: Quiescent) {
        if let Some(backend) = self.backend.take() {
            self.pool.give_back(backend);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            self.pool.discard(backend);
        }
    }
}

impl Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        self.backend.as_ref().expect("a lease has a backend until it ends")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Backend {
        self.backend.as_mut().expect("a lease has a backend until it ends")
    }
}
