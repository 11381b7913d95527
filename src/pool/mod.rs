//! Bounded sets of backends: who may use one, who waits, who is refused.
//!
//! A [`Pool`] has one [`ServerPool`] for each of its servers. A place in a server pool is taken by a backend from
//! before it connects until the server has closed it again, so that what the server counts never exceeds
//! `max_connections`, whatever storm of clients, cancels or crashes happens.

mod checkout;
mod connecting;
mod control;
mod gate;
mod inspect;
mod keeper;
mod known;
mod lease;
mod orders;
mod pin_places;
mod pins;
mod proving;
mod queue;
mod refusal;
mod resize;
mod server_pool;
mod shares;
mod state;
mod stats;
mod turns;
mod waiting;

use std::{sync::Arc, time::Duration};

pub use checkout::Checkout;
pub use gate::{CheckPlace, Gate, QuestionPlace};
pub use inspect::{IdleBackend, OpenBackend, Share};
pub use keeper::keep;
pub use lease::Lease;
pub use pin_places::{Pins, PinsFull};
pub use pins::{CountedPin, PinCheckout, PinPlace, PinWaiting};
pub use refusal::{ConnectFailure, Figures, Refusal};
pub use server_pool::ServerPool;
pub use state::Wants;
pub use stats::{Stats, Totals};
pub use waiting::Waiting;

/// Bounds of a pool on each of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Backends of all identities together.
    pub max_connections: usize,
    /// Backends kept open even if idle.
    pub min_connections: usize,
    /// Sessions that may wait.
    pub max_waiting: usize,
    /// How long a session waits.
    pub wait_timeout: Duration,
    /// Idle backends are closed after this; zero means never.
    pub idle_timeout: Duration,
    /// Backends are closed at this age, less up to a tenth at random; zero means never.
    pub max_lifetime: Duration,
    /// Connecting and authenticating.
    pub connect_timeout: Duration,
    /// Backends idle for longer are checked before use; zero means always.
    pub check_after: Duration,
    /// How long closing a backend may take before its place is given up.
    pub close_timeout: Duration,
    /// Backends that pinned sessions may keep between transactions.
    pub max_pinned: usize,
    /// A pinned session that idles for longer is ended if others wait in vain; zero means never.
    pub pinned_idle_timeout: Duration,
    /// Nobody waits for a server that cannot be reached: for pools whose requests can go elsewhere.
    pub fails_fast: bool,
}

/// A named set of backends on one or more servers.
#[derive(Debug)]
pub struct Pool {
    /// The key in the configuration.
    pub name: String,
    /// One for each server. Never empty.
    pub members: Vec<Arc<ServerPool>>,
    /// Whether a session that has a backend of this pool keeps it until it disconnects.
    pub keeps_sessions: bool,
}

impl Pool {
    /// The member to use next: of those whose server can be reached, the one with the fewest leases and
    /// waiters. `None` if no server can be reached.
    pub fn choose(&self) -> Option<&Arc<ServerPool>> {
        if let [only] = self.members.as_slice() {
            return Some(only);
        }
        self.choose_by(|_| 1)
    }

    /// The same among those that have a weight, by their positions: one with twice the weight gets twice as much. Also a
    /// single one must be reachable.
    pub fn choose_by(&self, weight: impl Fn(usize) -> usize) -> Option<&Arc<ServerPool>> {
        /// Larger than any weight, so that none is lost when it divides.
        const SCALE: usize = 1 << 20;
        let reachable = self.members.iter().enumerate().filter(|(_, member)| !member.gate().is_down());
        let weighted = reachable.filter_map(|(at, member)| {
            let weight = weight(at);
            (weight > 0).then(|| ((member.outstanding() + 1) * SCALE / weight, member))
        });
        weighted.min_by_key(|(load, _)| *load).map(|(_, member)| member)
    }
}

#[cfg(test)]
mod tests;
