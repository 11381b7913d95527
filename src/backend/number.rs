//! Numbers that tell backends apart, and the word that a server has moved: what all servers of the process share.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Tells backends apart for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u64);

/// The count of backends, and the word that a server has moved: all servers of the process share one.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The next backend's number.
    next: AtomicU64,
    /// Tells that a server is at another host now.
    pub moved: Notify,
}

impl Numbers {
    pub(super) fn next(&self) -> BackendId {
        BackendId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}
