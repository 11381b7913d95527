//! An operator's orders to a server pool, as they stand.

use std::time::Duration;

use tokio::time::Instant;

/// The operator's hold on a server pool.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Control {
    /// The pool is paused, and whoever waits is refused after this.
    pub(super) paused: Option<Duration>,
    pub(super) is_disabled: bool,
    /// When it was resumed: who waited through the pause waits from then on.
    pub(super) resumed_at: Option<Instant>,
}

impl Control {
    /// Whether the pool gives nothing to those who ask.
    pub(super) const fn is_shut(&self) -> bool {
        self.paused.is_some() || self.is_disabled
    }
}
