//! Numbers that tell backends apart, and the word that a server has moved: what all servers of the process share.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Tells backends apart for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(NonZeroU64);

impl BackendId {
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The count of backends, and the word that a server has moved: all servers of the process share one.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The last backend's number.
    last: AtomicU64,
    /// Tells that a server is at another host now, or does not answer: who waits for it is to look.
    pub moved: Notify,
}

impl Numbers {
    pub(super) fn next(&self) -> BackendId {
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        BackendId(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}
