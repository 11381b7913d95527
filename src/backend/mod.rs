//! One connection to a server: connecting and authenticating, where its conversation stands, which settings
//! and statements it holds, and cancelling what it does.
//!
//! Knows nothing of pools or sessions: a pool decides who may use a backend, a session decides what is sent.

pub mod address;
pub mod cancel;
pub mod connect;
pub mod connect_error;
pub mod dial;
pub mod doing;
pub mod filter;
pub mod handover;
pub mod hosts;
pub mod in_use;
pub mod number;
pub mod outgoing;
pub mod probe;
pub mod proof;
pub mod protocol;
pub mod query;
pub mod search;
pub mod secret;
pub mod settings;
pub mod statements;
mod usage;

use std::{sync::Arc, time::Duration};

pub use address::{Credentials, Identity, Server};
use filter::Filter;
pub use hosts::{HostPort, SessionAttrs};
pub use number::BackendId;
pub use protocol::{Protocol, Quiescent};
pub use settings::Settings;
pub use usage::Usage;

use crate::{
    causal::stamps::Scope,
    socket::{
        Socket,
        silence::{self, Silence},
    },
    threads::Home,
};

/// One authenticated connection to a server.
#[derive(Debug)]
pub struct Backend {
    /// Which one.
    pub id: BackendId,
    /// Where it is connected to.
    pub server: Arc<Server>,
    /// The identity that it belongs to.
    pub identity: Arc<Identity>,
    /// The credentials that it has logged in with.
    pub credentials: Arc<Credentials>,
    /// The thread that its socket belongs to.
    pub home: Home,
    /// The connection.
    pub socket: Socket,
    /// Where the conversation stands.
    pub protocol: Protocol,
    /// Bytes for the server that its socket has not taken yet.
    pub unsent: Vec<u8>,
    /// The settings that differ from what the server gave at connect, as the server has confirmed them.
    pub applied: Arc<Settings>,
    /// What has run on it since it was connected or reset is not all proven to leave no more than `applied` and
    /// `statements` tell: only the session that used it last goes on with it as it is. See [`handover`].
    pub is_suspect: bool,
    /// The sessions whose statements are prepared on it.
    pub prepared: Prepared,
    /// Protocol-level prepared statements that exist on it.
    pub statements: statements::Held,
    /// How to cancel it, shared with whoever may have to.
    pub cancel: Arc<cancel::Target>,
    /// Which of the server's hosts it is at, and the turn in which that one was in use.
    pub place: in_use::HostTurn,
    /// Whether the server still acknowledges what it is sent.
    pub silence: Silence,
    /// What the transaction on it may have changed.
    pub changes: Changes,
    /// The use that its lease has made of it so far.
    pub usage: Usage,
    /// The filter that puts its replies into the primary's numbers of types, if its own are others and its session's are not.
    pub types: Option<Box<Filter>>,
    /// How often a session took it, and so whether another one has had it since.
    pub uses: u32,
    /// The pool's generation when it was connected.
    pub generation: u32,
    /// When it was connected, in milliseconds of its pool's clock.
    pub opened_at: u64,
    /// When it was last given back, in milliseconds of its pool's clock.
    pub idle_since: u64,
    /// When it has lived long enough, in milliseconds of its pool's clock.
    pub expires_at: u64,
}

/// What a transaction may have changed, and clients may not know of yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// The tables.
    pub scope: Scope,
    /// What was sent may commit it: it counts as a commit under way.
    pub is_committing: bool,
}

/// The sessions whose statements are prepared on a backend: `pg_prepared_statements` shows their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepared {
    /// No session's.
    #[default]
    Nothing,
    /// Those of the session that has used it last.
    Own,
    /// Other sessions', too.
    Others,
}

impl Prepared {
    /// A session takes the backend; `is_own` if nobody else has used it since this one did.
    #[must_use]
    pub const fn taken(self, is_own: bool) -> Self {
        match self {
            Self::Own if !is_own => Self::Others,
            Self::Others => Self::Others,
            _ => Self::Own,
        }
    }
}

/// Why a backend can no longer be used.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The server took too long.
    #[error("server \"{server}\" did not answer in time")]
    TimedOut {
        /// The server's name.
        server: String,
    },
    /// The connection failed.
    #[error("connection to server \"{server}\" was lost: {error}")]
    Io {
        /// The server's name.
        server: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// Bulkhead closes the connection, though the server has not.
    #[error("the connection to server \"{server}\" was given up: {why}")]
    GivenUp {
        /// The server's name.
        server: String,
        /// What is in the way of using it.
        why: &'static str,
    },
    /// The server closed the connection.
    #[error("server \"{server}\" closed the connection")]
    Closed {
        /// The server's name.
        server: String,
    },
    /// The server is at another host now.
    #[error("server \"{server}\" is at {now}, and its connections to {before} were closed")]
    LeftBehind {
        /// The server's name.
        server: String,
        /// The host that it was at.
        before: String,
        /// The host that it is at now.
        now: String,
    },
    /// The server sent what the protocol does not allow.
    #[error("server \"{server}\" broke the protocol: {what}")]
    Protocol {
        /// The server's name.
        server: String,
        /// The fault, in words.
        what: String,
    },
}

/// Reads of what an idle backend has said unasked, of a few bytes each.
const IDLE_READS_MAX: usize = 1_000;

impl Backend {
    /// The error for a failed socket.
    pub fn broken(&self, error: std::io::Error) -> Broken {
        Broken::Io { server: self.server.name.clone(), error }
    }

    /// The error for a server that has acknowledged nothing for this long.
    pub fn silent(&self, limit: Duration) -> Broken {
        let what = format!("it acknowledged nothing for {} s", limit.as_secs_f64());
        self.broken(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
    }

    /// Reads what comes next to the end of `unread`; an error if nothing will, or if the server acknowledges nothing for
    /// `limits.tcp_user_timeout`.
    ///
    /// Cancel safe: what was read is in `unread`.
    pub async fn read_more(&mut self, unread: &mut Vec<u8>) -> Result<(), Broken> {
        let limit = self.server.tcp_user_timeout;
        loop {
            tokio::select! {
                read = self.socket.read_more(unread) => return match read {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(self.closed()),
                    Err(error) => Err(self.broken(error)),
                },
                () = tokio::time::sleep(silence::pause(limit)), if !limit.is_zero() => {
                    if self.silence.lasts(&self.socket, limit) {
                        return Err(self.silent(limit));
                    }
                }
            }
        }
    }

    /// The error for an orderly close by the server.
    pub fn closed(&self) -> Broken {
        Broken::Closed { server: self.server.name.clone() }
    }

    /// The error for a server that does not answer.
    pub fn timed_out(&self) -> Broken {
        Broken::TimedOut { server: self.server.name.clone() }
    }

    /// The error for a connection that works, and is of no use to anybody.
    pub fn given_up(&self, why: &'static str) -> Broken {
        Broken::GivenUp { server: self.server.name.clone(), why }
    }

    /// Whether the server is still at the host that this is connected to.
    pub fn is_at_server(&self) -> bool {
        self.server.in_use.host().is_none_or(|at| at == self.place.host)
    }

    /// The error for a connection to a host that the server is no longer at.
    pub fn left_behind(&self) -> Broken {
        let name = |at: usize| self.server.hosts.get(at).map(ToString::to_string).unwrap_or_default();
        let now = self.server.in_use.host().map(name).unwrap_or_default();
        Broken::LeftBehind { server: self.server.name.clone(), before: name(self.place.host), now }
    }

    /// The host that it is connected to, for logs.
    pub fn host(&self) -> String {
        self.server.hosts.get(self.place.host).map(ToString::to_string).unwrap_or_default()
    }

    /// Whether a session may have it: it is what the server would give today.
    pub fn is_in_use(&self) -> bool {
        self.place.turn == self.server.in_use.turn() && !self.has_changed_sides()
    }

    /// Whether the server has reported that it is no longer what its URL looks for. A session's own
    /// `default_transaction_read_only` says nothing of that.
    pub fn has_changed_sides(&self) -> bool {
        let reported = self.protocol.parameters();
        self.protocol.has_reported_role()
            && self.applied.get("default_transaction_read_only").is_none()
            && !self.server.session_attrs.accepts(reported)
    }

    /// The error for replies that make no sense.
    pub fn nonsense(&self, what: &dyn std::fmt::Display) -> Broken {
        Broken::Protocol { server: self.server.name.clone(), what: what.to_string() }
    }

    /// Sends `bytes` as far as the socket takes them now and keeps the rest.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let sent = if self.unsent.is_empty() {
            self.socket.send_now(bytes).map_err(|error| self.broken(error))?
        } else {
            0
        };
        // What is left unsent goes out later, unless the connection is lost.
        self.server.traffic.count_sent(bytes.len());
        self.usage.sent_bytes += bytes.len() as u64;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Looks at an idle backend without waiting: false when the server has closed it or said something that
    /// ends it. Reports about parameters and notices are taken and dropped.
    pub fn is_alive(&mut self) -> bool {
        // Small: clearing it is all that this costs as long as nothing has come.
        let mut buffer = [0; 64];
        // A server that has more to say than that is not idle.
        for _ in 0..IDLE_READS_MAX {
            match self.socket.read_now(&mut buffer) {
                None => return self.protocol.quiescent().is_some(),
                Some(Ok(n)) if n > 0 => {
                    let mut nothing = outgoing::Outgoing::default();
                    let asynchronous = self.protocol.receive(&buffer[..n], &mut nothing).is_ok();
                    if !asynchronous || self.protocol.take_error().is_some() {
                        return false;
                    }
                }
                Some(_) => return false,
            }
        }
        false
    }
}
