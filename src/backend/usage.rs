//! What a lease uses of its backend, in plain numbers: whoever holds a backend counts alone.

use std::time::Duration;

use crate::{
    clock::{self, Moment},
    sql::{Class, Reason, TextId},
};

/// The use of a backend by its lease.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When the lease began; `None` while there is none.
    since: Option<Moment>,
    /// Bytes sent to the server.
    pub sent_bytes: u64,
    /// Bytes received from the server.
    pub received_bytes: u64,
    /// The lease is to last: nobody waits for its end.
    pub is_standing: bool,
    /// When the transaction under way began, and the class of its first request that is not neutral; `None` before the end of that.
    pub transaction: Option<(Moment, Class)>,
    /// The last request of the lease that had a statement: what is fetched of it later is its own.
    pub last: Option<(TextId, Class, Reason)>,
    /// The last text of the lease that may have left state on the backend.
    pub suspect: TextId,
}

impl Usage {
    /// Nobody uses it.
    pub const fn none() -> Self {
        Self {
            since: None,
            sent_bytes: 0,
            received_bytes: 0,
            is_standing: false,
            transaction: None,
            last: None,
            suspect: TextId::NONE,
        }
    }

    /// A lease begins, at the thread's last look at the clock.
    #[inline]
    pub fn begin() -> Self {
        Self { since: Some(clock::last_tick()), ..Self::none() }
    }

    /// How long the lease has lasted, at the thread's last look at the clock.
    #[inline]
    pub fn lasted(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| clock::last_tick().since(since))
    }
}
