//! Commands beside serving: what is wrong with a configuration or at its servers, where a statement goes, whether a
//! Bulkhead that runs is ready, and why its users are slow.

pub mod check;
pub mod classify;
pub mod health;
pub mod jobs;
pub mod moving;
pub mod upstream;
pub mod why;
