//! Bulkhead: a Postgres proxy with a bounded pool for every class of statement.
pub mod auth;
pub mod socket;
pub mod sql;
pub mod wire;
