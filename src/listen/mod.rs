//! Notifications: one connection for each database listens for all sessions.

pub mod connection;
mod listeners;
mod mailbox;
mod task;

pub use connection::{ListenFailure, ListenLimits, Listener, OnGap, listen_sql};
pub use listeners::{Listeners, Told};
pub use mailbox::{Fate, ListenStats, Mail, Mailbox, Notification};
