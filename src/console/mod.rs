//! The console: a database that is none, in which operators and their tools ask how Bulkhead is, and tell it what to do,
//! in PgBouncer's words (`SHOW POOLS`, `PAUSE`, `RELOAD`).
//!
//! | file | what it holds |
//! |---|---|
//! | `client` | its client: what it sends, what is kept for it, what ends it |
//! | `conversation` | the protocol: simple and extended, one message after the other |
//! | `lexer`, `command` | from a text to commands |
//! | `table` | results: columns, values, and how they are written |
//! | `show`, `pools`, `sockets`, `stats`, `own` | what each `SHOW` tells |
//! | `figures` | the same for those who tell it in other words: metrics |
//! | `routing` | where requests go, causal reads, the job database |
//! | `objects` | the same rows as JSON, and the same actions, for `/api/v1` |
//! | `control` | what changes something: `PAUSE`, `KILL`, `RELOAD` and the like |
//! | `reply` | errors and their hints |
//!
//! Reads what sessions and pools count anyway, and walks their lists one after the other, so that nobody waits for it
//! for longer than copying a list takes. What a console keeps of its client is bounded by `client` and `conversation`.

mod client;
mod command;
mod control;
mod conversation;
pub(crate) mod figures;
mod lexer;
pub(crate) mod objects;
mod own;
mod pools;
mod queries;
mod reply;
mod routing;
mod show;
mod sockets;
mod stats;
mod table;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

pub(crate) use client::Entry;
pub(crate) use conversation::run;

use crate::{
    session::reply::Reply,
    shared::{Process, Snapshot},
    version::PgBouncer,
    wire::message,
};

/// The rights of a console's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything.
    Admin,
    /// `SHOW`, and nothing else.
    Stats,
}

/// A place among the consoles, given up when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, if there is one.
    pub(crate) fn take(snapshot: &Snapshot) -> Result<Self, Reply> {
        let (process, limit): (&Process, usize) = (&snapshot.process, snapshot.console.max_clients);
        let place = Self(Arc::clone(&process.consoles));
        if place.0.fetch_add(1, Ordering::AcqRel) < limit { Ok(place) } else { Err(reply::no_place(limit)) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The rights of a user who has proven to be this one; an error if there are none.
pub(crate) fn rights(snapshot: &Snapshot, user: &str) -> Result<Rights, Reply> {
    let console = &snapshot.console;
    if console.admin_users.iter().any(|admin| admin == user) {
        Ok(Rights::Admin)
    } else if console.stats_users.iter().any(|stats| stats == user) {
        Ok(Rights::Stats)
    } else {
        Err(reply::not_allowed(user))
    }
}

/// Users as whom the operating system's user that Bulkhead runs as is let in over the Unix socket.
pub(crate) const OWN_USERS: [&str; 2] = ["bulkhead", "pgbouncer"];

/// Parameters that the client of a console is told, as ParameterStatus messages.
pub(crate) fn parameters(like: PgBouncer) -> Vec<u8> {
    let version = format!("{}/bulkhead", like.release());
    let mut out = Vec::new();
    for (name, value) in [
        ("server_version", version.as_str()),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("is_superuser", "on"),
    ] {
        message::parameter_status(&mut out, name, value);
    }
    out
}
