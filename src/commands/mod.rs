//! Commands beside serving: what is wrong with a configuration or at its servers, where a statement goes, how a Bulkhead that
//! runs is, whether it is ready, and why its users are slow.

pub mod check;
pub mod classify;
pub mod health;
pub mod jobs;
pub mod moving;
mod sides;
#[cfg(feature = "top")]
pub mod top;
mod undo;
pub mod upstream;
pub mod why;
