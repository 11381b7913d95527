//! Why users are slow: what is in the way, the most certain cause first, each with what shows it and what to do.
//!
//! | file | owns |
//! |---|---|
//! | `facts` | what is known: numbers and names |
//! | `findings`, `found` | facts to findings, and their order; pure |
//! | `servers`, `pools`, `locks`, `others` | the findings, by what they are about; pure |
//! | `words` | names and texts from outside, escaped and bounded |
//! | `gather` | the facts of this instance |
//! | `activity` | the servers' own word: what their connections run, and who waits for whom |
//! | `page` | a report on one screen; pure |
//!
//! Reads what sessions and pools write down anyway. Each server is asked one question on a connection that is opened for it
//! and closed behind it, within two seconds, for one who asks at a time. It has a place that no pool may want, or is not
//! opened: nobody waits longer because somebody asks why they wait.

mod activity;
mod facts;
mod findings;
mod found;
mod gather;
mod locks;
mod others;
mod page;
mod pools;
mod servers;
mod words;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use activity::QUESTION;
pub use gather::report;
pub use page::{Look, page};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Whether nothing was found.
    pub well: bool,
    /// The findings, the most certain cause of slow users first.
    pub findings: Vec<Finding>,
    /// How clients, pools and servers are, in one line each.
    pub figures: Vec<String>,
    /// Things that could not be looked at, and why.
    pub unknown: Vec<String>,
    /// How long it took to find out, in milliseconds.
    pub took_ms: u64,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The cause, for programs.
    pub cause: Cause,
    /// How bad that is.
    pub severity: Severity,
    /// The cause, for people.
    pub title: String,
    /// Lines that show it.
    pub evidence: Vec<String>,
    /// Advice on what to do.
    pub next: String,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Clients wait for it, or get errors.
    Harm,
    /// Something is not as it should be, and nobody waits for it now.
    Risk,
}

impl Severity {
    /// The name that is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Harm => "harm",
            Self::Risk => "risk",
        }
    }
}

/// Causes of waiting, in the order in which those of the same severity are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Bulkhead is shutting down.
    ShuttingDown,
    /// The primary cannot be reached, refuses, or does not answer.
    PrimaryDown,
    /// The primary is in recovery.
    PrimaryReadOnly,
    /// An operator has paused or disabled a pool.
    PoolHeld,
    /// A server takes no more connections.
    ServerFull,
    /// A server that is neither the primary nor a replica cannot be reached.
    ServerDown,
    /// A transaction keeps a lock that others wait for.
    Lock,
    /// A pool has no connection free.
    PoolFull,
    /// A pool has no place for more pinned sessions.
    PinsFull,
    /// Bulkhead has no place for more clients.
    ClientsFull,
    /// A server answers late.
    ServerSlow,
    /// Requests of a pool were refused a moment ago.
    Refusals,
    /// Jobs wait on the primary, and are not moved.
    OutboxBehind,
    /// A replica is behind, and reads run on the primary.
    ReplicaLag,
    /// A replica serves no reads.
    ReplicaOut,
    /// Two hosts of a server take writes.
    TwoPrimaries,
    /// A server has moved to another host a moment ago.
    Moved,
    /// Clients have been idle in a transaction for long.
    IdleInTransaction,
    /// Clients have read nothing of their answers for long.
    NotReading,
}

impl Cause {
    /// The name that programs read.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::PrimaryDown => "primary_down",
            Self::PrimaryReadOnly => "primary_read_only",
            Self::PoolHeld => "pool_held",
            Self::ServerFull => "server_full",
            Self::ServerDown => "server_down",
            Self::Lock => "lock",
            Self::PoolFull => "pool_full",
            Self::PinsFull => "pins_full",
            Self::ClientsFull => "clients_full",
            Self::ServerSlow => "server_slow",
            Self::Refusals => "refusals",
            Self::OutboxBehind => "outbox_behind",
            Self::ReplicaLag => "replica_lag",
            Self::ReplicaOut => "replica_out",
            Self::TwoPrimaries => "two_primaries",
            Self::Moved => "moved",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::NotReading => "not_reading",
        }
    }
}
