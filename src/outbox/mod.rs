//! Jobs that are enqueued in a transaction of the primary, and how they come to a job database on another server.
//!
//! An application that inserts a job within its own transaction writes it to the primary's table of the same name: so
//! the job is there if and only if the transaction has committed. The relay moves committed rows to the job database,
//! each exactly once.

mod state;

pub use state::{Figures, Outbox};

/// Rows that wait are counted up to so many.
pub const COUNTED_MAX: u64 = 100_000;
