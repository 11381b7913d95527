//! What all sessions share: a snapshot of what the configuration says, and what outlives every snapshot. The door, the
//! sessions, `/metrics` and a reload all read it.

pub mod attention;
pub mod averages;
pub mod cancels;
pub mod card;
pub mod connections;
pub mod console;
pub mod counters;
mod current;
mod door_log;
pub mod greetings;
pub mod identities;
pub(crate) mod judges;
pub mod orders;
pub(crate) mod places;
mod process;
pub mod queries;
pub mod recent;
mod snapshot;

pub use current::Current;
pub use door_log::DoorLog;
pub use greetings::Greetings;
pub use judges::Judges;
pub use places::Places;
pub use process::Process;
pub use snapshot::{Limits, Replicas, Snapshot, Workers};
