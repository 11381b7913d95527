//! Bytes that went both ways.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes received from a peer and sent to it, as relaxed counters.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
}

impl Traffic {
    /// Counts received bytes.
    pub fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts sent bytes.
    pub fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
