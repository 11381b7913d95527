//! Jobs that are enqueued in a transaction of the primary, and how they come to a job database on another server.
//!
//! An application that inserts a job within its own transaction writes it to the primary's table of the same name: so the
//! job is there if and only if the transaction has committed. The [`Relay`] moves committed rows to the job database, each
//! exactly once, whatever fails in between. It does so by rows and keys; whose jobs they are, and what they mean, it does
//! not know.
//!
//! | file | owns |
//! |---|---|
//! | `state` | what sessions, metrics and the relay tell each other |
//! | `relay` | the task: who moves rows, when, and what follows a failure |
//! | `queue` | the rows that wait in one table: what is known of them, the next round, and putting the table off |
//! | `leader` | the lock of the one instance that moves rows |
//! | `round` | moving some rows of one table: the order of the two commits |
//! | `fault` | whether an error is the rows' fault |
//! | `former` | what another version has installed |
//! | `ledger` | forgetting what was moved long ago |
//! | `calls` | calls that are noted on the primary, and made in the job database |
//! | `parents` | rows of other tables that the moved ones name |
//! | `mirror` | tables of the job database that enqueuing reads, on the primary |
//! | `statements` | the texts of that |
//! | `tables` | the tables of both sides, and whether they fit together |
//! | `rights` | whether both sides fit together, and which right is lacking |
//! | `install` | what the relay needs at both servers: making it, and taking it away |
//! | `moving` | the other way to a job database: the library's tables as they are, moved while they are used |
//! | `drift` | comparing all that the library has on both sides |
//! | `status` | what waits, what was moved, who moves |
//! | `link`, `text` | a connection; names and values in SQL |
//!
//! # What there is at the servers
//!
//! In a schema `bulkhead`. On the primary: `outbox` (the tables that are moved) and `refused` (rows that the job database
//! refuses, set aside); for graphile-worker `calls_of_` and its schema, too, the calls that are noted. In the job
//! database: `outbox`, with counts, and `relayed`, the ledger: the keys of rows that were moved within the last
//! `outbox_keep`, and of all that may still be on the primary.
//!
//! Numbers must not meet: the primary's sequences give odd ones, the job database's even ones.

mod calls;
mod drain;
mod drift;
mod fault;
mod former;
mod install;
mod leader;
mod ledger;
mod link;
mod mirror;
pub mod moving;
mod parents;
mod queue;
mod relay;
mod rights;
mod round;
mod state;
mod statements;
mod status;
mod tables;
mod text;
mod told;

pub use calls::Noting;
pub use drain::Drain;
pub use drift::{Drift, drift};
pub use former::Former;
pub use install::{Plan, Step, install, uninstall};
pub use link::{Failure, Link};
pub use relay::Relay;
pub use state::{Figures, Outbox, Settings};
pub use status::{Status, TableStatus, status};
pub use tables::{Column, Partitions, Sequence, Side, Table, former, has_rows, problems, read};

/// Rows that wait are counted up to so many.
pub const COUNTED_MAX: u64 = 100_000;
