//! Whether the threads that serve sessions are alive, asked again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::threads::Spawner;

/// How often the threads are asked.
const EVERY: Duration = Duration::from_secs(1);
/// A thread that does nothing for so long is not alive.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The state of the threads, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    is_lost: AtomicBool,
}

impl Pulse {
    /// Asks for as long as it is polled.
    pub(super) async fn keep(&self, threads: &Spawner) {
        loop {
            self.set_lost(!threads.is_well(TIMEOUT).await);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether a thread does not answer.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub(super) fn set_lost(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }
}
