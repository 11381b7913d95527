//! What pools did in the last whole period, for the averages that the console tells.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a period is, as in PgBouncer (`stats_period`).
pub const PERIOD: Duration = Duration::from_secs(60);

/// The work of a pool from the start on, on all of its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolTotals {
    /// Times that a client was given a server connection.
    pub assignments: u64,
    /// Transactions.
    pub transactions: u64,
    /// Requests: what clients send up to a Query or Sync.
    pub requests: u64,
    /// Bytes that were sent to the servers for clients.
    pub received_bytes: u64,
    /// Bytes that came from the servers.
    pub sent_bytes: u64,
    /// Time that server connections were in use.
    pub transaction_time: Duration,
    /// Time that requests took.
    pub request_time: Duration,
    /// Time that clients waited for a server connection.
    pub wait_time: Duration,
    /// Clients that have logged in, and would use the pool first.
    pub logins: u64,
}

/// The two last times that totals were noted.
#[derive(Debug, Default)]
pub struct Averages(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    older: Option<Noted>,
    newer: Option<Noted>,
}

#[derive(Clone, Debug)]
struct Noted {
    at: Instant,
    pools: HashMap<String, PoolTotals>,
}

impl PoolTotals {
    /// The work since `before`.
    fn since(self, before: Self) -> Self {
        Self {
            assignments: self.assignments.saturating_sub(before.assignments),
            transactions: self.transactions.saturating_sub(before.transactions),
            requests: self.requests.saturating_sub(before.requests),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            transaction_time: self.transaction_time.saturating_sub(before.transaction_time),
            request_time: self.request_time.saturating_sub(before.request_time),
            wait_time: self.wait_time.saturating_sub(before.wait_time),
            logins: self.logins.saturating_sub(before.logins),
        }
    }
}

impl Averages {
    /// Notes what pools have done until now, by their names: the end of a period.
    pub fn note(&self, pools: HashMap<String, PoolTotals>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.older = state.newer.replace(Noted { at: Instant::now(), pools });
    }

    /// The work of a pool in the last whole period, and how long that was; nothing before there was one.
    pub fn of(&self, pool: &str) -> (PoolTotals, Duration) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(older), Some(newer)) = (&state.older, &state.newer) else {
            return (PoolTotals::default(), PERIOD);
        };
        let now = newer.pools.get(pool).copied().unwrap_or_default();
        let before = older.pools.get(pool).copied().unwrap_or_default();
        (now.since(before), newer.at.saturating_duration_since(older.at))
    }
}
