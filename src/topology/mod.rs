//! How the servers are: whether each answers, and whether it takes writes.

mod check;
mod monitor;

pub use monitor::{Health, Known, Role, ServerHealth};
