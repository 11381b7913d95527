//! One client's conversation, from its first packet to its last.
//!
//! `serve.rs` is the journey of a request; everything else in this folder is one step of it.

mod alias;
mod aliases;
mod answer;
pub mod attention;
mod authenticate;
mod broken;
pub mod cancels;
mod checkout;
mod classify;
mod door;
mod door_log;
mod draft;
mod extended;
mod failed;
mod goodbye;
pub mod handshake;
pub mod identities;
mod idle;
mod judges;
mod kept;
mod left;
mod listen;
pub mod live;
mod mail;
pub mod metrics;
mod named;
mod orphan;
mod others;
mod pins;
mod places;
mod prepared;
mod prologue;
mod relay;
pub mod repeat;
mod replication;
mod reply;
mod reprove;
mod request;
mod rewrite;
mod send;
pub(crate) mod serve;
mod settle;
pub mod shared;
mod transaction;
mod welcome;

use std::sync::Arc;

pub use judges::Judges;
pub use live::Live;
pub use shared::{Lasting, Limits, Shared, Workers};
pub use welcome::Welcomes;

use crate::{
    backend::{
        BackendId, Broken, Home, Identity, Settings,
        statements::{Own, Shape, StatementId},
    },
    pool::{Lease, PinPlace},
    route::PoolId,
    server::DatabaseCatalog,
    socket::{Socket, silence::Silence},
    sql::{HiddenSearch, Hint, Reading},
    wire::{
        frame::BadFrame,
        read::{ErrorFields, Malformed},
    },
};
use attention::Call;
use cancels::CancelKey;
use kept::Kept;
use left::Left;
use listen::Listening;
use metrics::CountedPin;
use named::Named;
use orphan::Presence;
use transaction::{Begun, Ending};

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
    /// What the client had sent before it left did not end within this.
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
    /// It was pinned and idle while others waited.
    #[error("{0}")]
    PinnedIdle(Box<PinnedIdle>),
}

/// What a session was pinned by that was idle while others waited.
#[derive(Debug, thiserror::Error)]
#[error("pinned by {reason} and idle for {idle:?} while others waited for pool \"{pool}\"")]
pub struct PinnedIdle {
    /// The pool that it kept a backend of.
    pool: String,
    /// What kept it.
    reason: &'static str,
    /// `pinned_idle_timeout`; of one above the bound, how long it was left alone.
    idle: std::time::Duration,
    /// Its pin was one more than `max_pinned` allows.
    is_over_bound: bool,
}

/// The size of it is that of many results on the way.
const _: () = assert!(size_of::<Ended>() <= 32);

/// An idle client costs one of these: the next larger one would take a quarter more memory.
const _: () = assert!(size_of::<Session>() <= 512);

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
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(crate) struct Session {
    socket: Socket,
    /// Bytes from the client that have not been sent on. Empty when idle.
    inbox: Vec<u8>,
    /// What the inbox counts of what all sessions may keep.
    kept: Kept,
    /// The same of `sent`, and of what is sent again should a plan be stale.
    kept_sent: Kept,
    /// Bytes for the client that its socket has not taken. Empty when idle.
    outbox: Vec<u8>,
    /// The snapshot that the session goes by, and where the next one is found.
    shared: Arc<Shared>,
    live: Arc<Live>,
    identity: Arc<Identity>,
    catalog: Arc<DatabaseCatalog>,
    home: Home,
    /// The key that cancels this session.
    key: CancelKey,
    /// What the client asked for at startup: where RESET goes back to.
    startup: Arc<Settings>,
    /// What is in force.
    settings: Arc<Settings>,
    /// How the server reads the session's texts, as it has said last.
    reading: Reading,
    /// Names with a dot that the session has set: the server does not list them.
    custom_settings: Vec<String>,
    /// `SET bulkhead.route`.
    asked: Option<Hint>,
    is_worker: bool,
    /// The pool that everything goes to (`dbname=app@jobs`).
    bound: Option<PoolId>,
    /// The client asked for session mode (`bulkhead.pool_mode`).
    in_session_mode: bool,
    /// A transaction that exists here only.
    begun: Begun,
    /// The backend, while the session holds one.
    lease: Option<Lease>,
    lease_pool: PoolId,
    /// The lease is the session's own until it disconnects.
    is_kept: bool,
    /// A place among a pool's pins, for the lease that is taken next.
    reserved: Option<PinPlace>,
    /// Why the lease is kept between transactions.
    pin: Option<Box<CountedPin>>,
    /// What the statements since the last checkout have, or may have, left on the backend.
    left: Left,
    /// Whether the request under way is part of an explicit transaction.
    was_in_transaction: bool,
    /// What it may do to that.
    ending: Ending,
    /// What completes the request under way, if it succeeds.
    restore: Option<Box<str>>,
    /// The backend used last, to be preferred, and how often it had been taken by then.
    last: Option<(PoolId, BackendId, u32)>,
    /// Another session had the backend since this one did, or nobody did.
    is_new_backend: bool,
    /// Whether the session has asked for `currval` or `lastval`.
    asks_sequences: bool,
    statements: Option<Box<Statements>>,
    /// What the session listens to.
    listening: Option<Box<Listening>>,
    /// Bytes of the client's current message still to be sent on.
    streaming: usize,
    /// What is looked for in it, if it is a text.
    search: Option<Box<HiddenSearch>>,
    /// A refused extended request: everything up to its Sync is dropped.
    skipping: bool,
    /// The request under way, as long as it can be run once more.
    sent: Option<Vec<u8>>,
    /// The request under way, or at the start of the inbox, was sent before.
    is_repeated: bool,
    /// Whether everything under way is proven to read only.
    only_reads: bool,
    /// Whether the client is still there.
    presence: Presence,
    /// The last call for attention that it has followed.
    attended: Call,
    /// Whether the client still acknowledges what it is sent.
    silence: Silence,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.part());
    }
}

/// A session's prepared statements.
#[derive(Debug, Default)]
struct Statements {
    named: Named,
    unnamed: Option<Unnamed>,
    /// Those that exist on the leased backend under the client's own names.
    aliases: Vec<aliases::Alias>,
    /// SQL's PREPARE has been used.
    has_sql_names: bool,
    /// What the backend has just told us of a statement that it was sent for this.
    confirmed: Option<(StatementId, Shape)>,
    /// Only a part of the request was sent: what the replies tell decides what becomes of the rest.
    is_stepping: bool,
    /// What is sent again should a stale plan be in the way of the request under way.
    repeat: Option<Box<prepared::Repeat>>,
}

impl Statements {
    /// The session's statement of this name.
    fn own(&self, name: &[u8]) -> Option<&Own> {
        self.named.get(prepared::key(name))
    }
}

/// The unnamed statement, as it was last parsed.
#[derive(Debug)]
struct Unnamed {
    /// Text, zero, and the parameter types: the Parse message's body without its name.
    body: Vec<u8>,
    hash: u64,
    /// What the client was told of it.
    told: Shape,
}

impl Unnamed {
    fn text(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The count of parameter types, and their ids.
    fn types(&self) -> &[u8] {
        self.body.get(self.text().len() + 1..).unwrap_or_default()
    }
}
