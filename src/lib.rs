//! Bulkhead: a Postgres proxy with a bounded pool for every class of statement.
pub mod admin;
pub mod app;
pub mod auth;
pub mod backend;
pub mod config;
pub mod listener;
pub mod pool;
pub mod route;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod sql;
pub mod telemetry;
pub mod wire;
