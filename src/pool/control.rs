//! What an operator asks of a server pool: to pause and go on, to refuse everybody, to connect anew.
//!
//! A paused pool hands nothing out and closes what comes back; who asks it waits, however many these are: there are no
//! more than clients. A disabled one refuses whoever asks. Neither touches a transaction.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{ServerPool, refusal::Refusal, state::State};

impl State {
    /// How long a waiter may wait.
    pub(super) fn wait_limit(&self) -> Duration {
        self.control.paused.unwrap_or(self.limits.wait_timeout)
    }
}

impl ServerPool {
    /// Hands nothing out from now on, and closes what is free. Whoever asks waits until [`ServerPool::resume`], but no
    /// longer than `limit`. False if it was paused already.
    pub fn pause(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        let was_paused = state.control.paused.replace(limit).is_some();
        for idle in std::mem::take(&mut state.idle) {
            state.bury(idle.backend);
        }
        drop(state);
        self.attention.notify_one();
        !was_paused
    }

    /// Serves everybody again, those first who have waited. False if it was not paused.
    pub fn resume(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let was_paused = state.control.paused.take().is_some();
        if was_paused {
            state.control.resumed_at = Some(Instant::now());
            self.serve_queue(&mut state);
        }
        drop(state);
        self.attention.notify_one();
        was_paused
    }

    /// Refuses whoever asks from now on, and those who wait; or serves again.
    pub fn set_disabled(&self, is_disabled: bool) {
        let mut state = self.lock();
        state.control.is_disabled = is_disabled;
        if is_disabled {
            self.refuse_waiters(&mut state, |_| true, &Refusal::Disabled);
        }
    }

    /// Takes over what an operator has asked of the pool whose place this one takes.
    pub fn obey_as(&self, other: &Self) {
        let control = other.lock().control;
        self.lock().control = control;
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.lock().control.paused.is_some()
    }

    /// Whether it refuses whoever asks.
    pub fn is_disabled(&self) -> bool {
        self.lock().control.is_disabled
    }

    /// Whether no connection of it is left, none that is being made or closed included, but those that listen.
    pub fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.figures().taken() == state.standing
    }
}
