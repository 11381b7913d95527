//! Bulkhead: a Postgres proxy with a bounded pool for every class of statement.
pub mod auth;
pub mod backend;
pub mod pool;
pub mod route;
pub mod server;
pub mod session;
pub mod socket;
pub mod sql;
pub mod wire;
