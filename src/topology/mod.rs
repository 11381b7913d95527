//! How the servers are: whether each answers, and whether it takes writes.

mod asking;
mod check;
mod monitor;
mod sampler;

pub use monitor::{Health, Known, Role, ServerHealth};
