//! One client's conversation, from its first request to its last.
//!
//! `serve.rs` is the journey of a request; everything else in this folder is one step of it, or one part of a session:
//!
//! | part | what it is | file |
//! |---|---|---|
//! | `client` | the client's socket, what came from it and what is to go to it | `client` |
//! | `who` | who the client is: identity, startup settings, cancel key | `start` |
//! | `view` | what the session goes by: the configuration and its database's definitions | `view` |
//! | `own` | what makes it the same on any backend: settings, statements, channels | `own` |
//! | `hold` | its transaction, and its backend with what is true of that only while it is held | `hold` |
//! | `under_way` | the request under way | `under_way` |
//!
//! A request is judged by a `Judge`, which borrows the parts that it reads and can change none (`classify`, `texts`,
//! `failed`). The steps that need a backend are given `Held`, the session's parts beside it (`held`), and do not ask whether
//! there is one; what is true of what is held is asked of `Hold`. What becomes of the backend behind a request is a pure
//! function of what is known (`settled`), which reads the table of the kinds of state (`kinds`); what it wants to know is
//! asked in `questions`. Every hold on a backend ends by
//! `Session::part`, in whatever way: what must follow from it is said there. The request that drivers send most, one prepared
//! statement run once, has a shorter way of its own (`bound`), which leads to the same.

mod across;
mod aliases;
mod anew;
mod answer;
mod attention;
mod bound;
mod broken;
mod carry;
mod checkout;
mod classify;
mod client;
mod counting;
mod define;
mod extended;
mod failed;
mod found;
mod fresh;
mod goodbye;
mod held;
mod hold;
mod idle;
mod inbox;
mod kept;
mod kinds;
mod leaving;
mod left;
mod listen;
mod live;
mod mail;
mod named;
mod notes;
mod onward;
mod orphan;
mod others;
mod own;
mod parts;
mod pins;
mod prepare;
mod prepared;
mod prologue;
mod questions;
mod relay;
mod relayed;
mod remember;
mod repeat;
pub(crate) mod replication;
pub(crate) mod reply;
mod request;
mod rewrite;
mod send;

mod serve;
mod settle;
mod settled;
mod soon;
pub(crate) mod start;
mod tally;
mod texts;
mod there;
mod thread_buffer;
mod transaction;
mod types;
mod under_way;
mod view;

pub(crate) use client::Client;
pub(crate) use serve::run;

use crate::{
    backend::{
        Broken,
        statements::{OwnStatement, Shape, StatementId},
    },
    wire::{
        frame::BadFrame,
        read::{ErrorFields, Malformed},
    },
};
use hold::Hold;
use named::Named;
use own::Own;
use start::Who;
use under_way::UnderWay;
use view::View;

/// How a session ends.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The client said goodbye or closed its connection.
    #[error("the client has gone")]
    ByClient,
    /// The client's connection failed.
    #[error("the client's connection failed: {0}")]
    ClientIo(std::io::Error),
    /// The client sent what the protocol does not allow.
    #[error("the client broke the protocol: {0}")]
    Protocol(String),
    /// The client sent this instead of COPY data. As on a server it gets two errors.
    #[error("the client sent \"{}\" in place of COPY data", .0.escape_ascii())]
    AmidCopy(u8),
    /// The backend broke when its client could no longer be told without ending the session.
    #[error("{0}")]
    Backend(Box<Broken>),
    /// The server ended the connection and said why, when the session had state there, or by a timeout of the client's.
    #[error("the server ended the connection: {}", .0.message)]
    ByServer(Box<ErrorFields>),
    /// The backend broke when the client had got a message in part: nothing more can be said.
    #[error("{0}")]
    Amid(Box<Broken>),
    /// The client's last requests, sent before it left, did not end within this.
    #[error("its client left, and it did not end within {0:?}")]
    Orphaned(std::time::Duration),
    /// Bulkhead is going down.
    #[error("shutting down")]
    Shutdown,
    /// More notifications waited than may: their bound in bytes.
    #[error("the client takes its notifications too slowly")]
    SlowListener(usize),
    /// The unfinished requests of all clients together would be more than `request_buffer_total`, in bytes.
    #[error("the unfinished requests of all clients are more than {0} bytes")]
    NoRoom(usize),
    /// The connection that listened for it was lost.
    #[error("the connection that listened was lost")]
    ListenerLost,
    /// The session was pinned and idle while others waited.
    #[error("{0}")]
    PinnedIdle(Box<PinnedIdle>),
}

/// The pin of a session that was idle while others waited.
#[derive(Debug, thiserror::Error)]
#[error("pinned by {reason} and idle for {idle:?} while others waited for pool \"{pool}\"")]
pub struct PinnedIdle {
    /// The pool that it kept a backend of.
    pool: String,
    /// The reason why it kept the backend.
    reason: &'static str,
    /// `pinned_idle_timeout`; of one above the bound, how long it was left alone.
    idle: std::time::Duration,
    /// The pin was one more than `max_pinned` allows.
    is_over_bound: bool,
}

/// The size of it is that of many results on the way.
const _: () = assert!(size_of::<Ended>() <= 32);

/// An idle client costs one of these: the next larger one would take a sixth more memory. (In tests a socket is larger.)
#[cfg(not(test))]
const _: () = assert!(size_of::<Session>() <= 384);

impl From<BadFrame> for Ended {
    fn from(error: BadFrame) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<Malformed> for Ended {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client is told why, and its session goes on.
    Refused(reply::Reply),
    /// The session ends.
    Ended(Ended),
}

impl From<reply::Reply> for Stop {
    fn from(reply: reply::Reply) -> Self {
        Self::Refused(reply)
    }
}

impl<E: Into<Ended>> From<E> for Stop {
    fn from(ended: E) -> Self {
        Self::Ended(ended.into())
    }
}

/// One client and where its conversation stands.
///
/// An idle session is one of these and a task: whatever only a busy session needs is behind an `Option<Box<_>>`
/// or an empty `Vec`.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    who: Who,
    view: View,
    own: Own,
    hold: Hold,
    under_way: UnderWay,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.part_beside());
        drop(self.part());
    }
}

/// A session's prepared statements.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
struct SessionStatements {
    named: Named,
    unnamed: Option<UnnamedStatement>,
    /// Statements that exist on the leased backend under the client's own names.
    aliases: Vec<aliases::Alias>,
    /// SQL's PREPARE has been used.
    has_sql_names: bool,
    /// The backend's answer to the question what a statement is, which was sent in front of a request.
    confirmed: Option<(StatementId, Shape)>,
    /// Only a part of the request was sent: what the replies tell decides what becomes of the rest.
    is_stepping: bool,
    /// A statement of the session has asked for `currval` or `lastval`.
    asks_sequences: bool,
    /// The session is bound to a job database that is another server: numbers of types are those of that one.
    are_elsewhere: bool,
    /// A part of the request under way that is sent again should a stale plan be in its way.
    repeat: Option<Box<prepared::Repeat>>,
}

impl SessionStatements {
    /// The session's statement of this name.
    fn own(&self, name: &[u8]) -> Option<&OwnStatement> {
        self.named.get(prepared::key(name))
    }
}

/// The unnamed statement, as it was last parsed.
#[derive(Debug)]
struct UnnamedStatement {
    /// Text, zero, and the parameter types: the Parse message's body without its name.
    body: Vec<u8>,
    /// The hash of the settings and definitions that it was parsed by, as far as they decide what it means.
    world: u64,
    /// The hash of body and world.
    hash: u64,
    /// The shape that the client was told of.
    told: Shape,
}

impl UnnamedStatement {
    /// Whether it is of this Parse message's body without its name, in this world.
    fn is(&self, body: &[u8], world: u64) -> bool {
        self.world == world && self.body == body
    }

    fn text(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The count of parameter types, and their ids.
    fn types(&self) -> &[u8] {
        self.body.get(self.text().len() + 1..).unwrap_or_default()
    }
}
