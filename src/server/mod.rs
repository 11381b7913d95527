//! What is known of the servers beyond their address: how they are, the catalog snapshots that classification goes by,
//! and the notifications that sessions listen for.

mod catalogs;
mod check;
mod health;
pub mod listener;
pub mod mailbox;

pub use catalogs::{Catalogs, DatabaseCatalog, Defining, Source, read_catalog};
pub use health::{Health, Known, Role, ServerHealth};
pub use listener::{ListenFailure, ListenLimits, Listener, Listeners, OnGap, listen_sql};
pub use mailbox::{Fate, ListenStats, Mail, Mailbox, Notification};
