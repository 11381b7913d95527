//! Bulkhead: a Postgres proxy with a bounded pool for every class of statement.
pub mod auth;
pub mod config;
pub mod sql;
