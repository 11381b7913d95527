//! What is known when somebody asks why users are slow: numbers and names, from which `findings` are made. Times are
//! durations up to now.

use std::time::Duration;

use crate::backend::doing::Phase;

/// All that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Bulkhead is going down.
    pub(super) is_draining: bool,
    /// How long the while is that counts are of.
    pub(super) window: Duration,
    pub(super) clients: Clients,
    pub(super) servers: Vec<Server>,
    pub(super) pools: Vec<Pool>,
    pub(super) reads: Reads,
    pub(super) outbox: Option<Outbox>,
    /// Server connections of clients that wait for a lock, of all servers.
    pub(super) locks: Vec<Lock>,
}

/// Clients, all together.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    pub(super) connected: usize,
    pub(super) max: usize,
    /// Clients in the window for whom there was no place.
    pub(super) no_place: u64,
    /// Clients by user and application, the most first, with how many of them do nothing.
    pub(super) by_name: Vec<(Who, usize, usize)>,
}

/// A client, as far as it has a name. The parts are as they came, and are not to be shown as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) application_name: String,
    pub(super) user: String,
}

/// The state of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// The server answers.
    #[default]
    Up,
    /// Nobody has asked it yet.
    Unchecked,
    /// The server cannot be reached, refuses, or does not answer.
    Down,
    /// The server takes no more connections.
    Full,
    /// The server is in recovery where it should take writes, or is not where it should follow.
    WrongRole,
    /// The server has answered others, and not what was asked here in time.
    Slow,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) is_primary: bool,
    pub(super) is_replica: bool,
    pub(super) reach: Reach,
    /// How long it has been so, if that is known.
    pub(super) reach_for: Option<Duration>,
    /// The last error.
    pub(super) error: String,
    /// Hosts of it, and the one in use.
    pub(super) hosts: usize,
    pub(super) host: String,
    pub(super) host_for: Option<Duration>,
    pub(super) host_changes: u64,
    /// Hosts that take writes as well.
    pub(super) rivals: Vec<String>,
    /// Connections that Bulkhead has there, and those that its pools may have.
    pub(super) open: usize,
    pub(super) open_max: usize,
    /// Why it serves no reads, if it is a replica that does not.
    pub(super) why_no_reads: Option<String>,
    pub(super) lag: Duration,
    pub(super) lag_bytes: u64,
    /// Why it was not asked what its connections do.
    pub(super) not_asked: Option<String>,
    /// Connections of which it does not tell what they do: the role may not see it.
    pub(super) hidden: usize,
}

/// A pool on one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) server: String,
    pub(super) leased: usize,
    pub(super) idle: usize,
    pub(super) connecting: usize,
    pub(super) closing: usize,
    pub(super) max_connections: usize,
    /// Clients that wait, and how long the first of them has.
    pub(super) waiting: usize,
    pub(super) oldest_wait: Duration,
    pub(super) max_waiting: usize,
    pub(super) wait_timeout: Duration,
    pub(super) pinned: u64,
    pub(super) max_pinned: usize,
    /// Somebody waits for a place among the pins.
    pub(super) pins_wanted: bool,
    pub(super) is_paused: bool,
    pub(super) is_disabled: bool,
    /// In the window.
    pub(super) refused: Refusals,
    pub(super) holders: Vec<Holder>,
}

/// Requests that got an error in place of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) full: u64,
    pub(super) timeout: u64,
    pub(super) unreachable: u64,
    pub(super) pins: u64,
}

/// A server connection that a client has.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// The server's process.
    pub(super) pid: i32,
    /// The client's number, if it is known which one has it.
    pub(super) client: Option<i32>,
    pub(super) who: Who,
    pub(super) phase: Phase,
    pub(super) lasts: Duration,
    pub(super) class: &'static str,
    pub(super) pin: Option<&'static str>,
    pub(super) stalled: Option<Duration>,
    /// The text that it runs, or has run last, without literals, if the server tells.
    pub(super) text: Option<String>,
}

impl Holder {
    pub(super) fn is_in_transaction(&self) -> bool {
        matches!(self.phase, Phase::InTransaction | Phase::InFailedTransaction)
    }
}

/// A server's process that waits for a lock.
#[derive(Clone, Debug, Default)]
pub(super) struct Lock {
    pub(super) server: String,
    pub(super) pid: i32,
    /// How long what it runs has lasted.
    pub(super) waits: Duration,
    pub(super) blockers: Vec<Blocker>,
}

/// A server's process that others wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocker {
    /// Zero for a prepared transaction.
    pub(super) pid: i32,
    /// The client of Bulkhead's that it works for, if it is one.
    pub(super) client: Option<i32>,
    pub(super) who: Who,
    /// Where it comes from, if it does not through Bulkhead: an address, or nothing of a Unix socket.
    pub(super) address: String,
    /// In the server's words: `active`, `idle in transaction`; empty if it does not tell.
    pub(super) state: String,
    /// How long it has been so.
    pub(super) state_for: Option<Duration>,
    pub(super) text: Option<String>,
}

/// Where reads ran in the window that might use a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    pub(super) on_replicas: u64,
    /// Not replayed: what was written to their tables, what their sessions have seen, what was committed.
    pub(super) fresh_write: u64,
    pub(super) floor: u64,
    pub(super) behind: u64,
    pub(super) no_replica: u64,
}

impl Reads {
    /// Reads that ran on the primary since no replica would do.
    pub(super) const fn fallen(self) -> u64 {
        self.fresh_write + self.floor + self.behind + self.no_replica
    }
}

/// Jobs that wait on the primary.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    pub(super) is_ready: bool,
    pub(super) waiting: u64,
    pub(super) lag: Duration,
    pub(super) trouble: Option<String>,
    /// The server that they are moved to.
    pub(super) server: String,
}
