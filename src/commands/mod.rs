//! Commands beside serving: what is wrong with a configuration or at its servers, where a statement goes, and whether a
//! Bulkhead that runs is ready.

pub mod check;
pub mod classify;
pub mod health;
pub mod jobs;
pub mod moving;
pub mod upstream;
