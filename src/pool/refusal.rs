//! Why a session gets no backend, and how full its pool was.

use std::{sync::Arc, time::Duration};

use crate::wire::read::ErrorFields;

/// Why a session got no backend.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Too many others wait.
    Full {
        /// How full the pool is.
        figures: Figures,
        /// The server's trouble, if any is known.
        down: Option<String>,
    },
    /// The session has waited for `wait_timeout`.
    TimedOut {
        /// How full the pool was.
        figures: Figures,
        /// How long it waited.
        waited: Duration,
        /// The server's trouble, if any is known.
        down: Option<String>,
        /// The server's words, if it has no place for more connections.
        full: Option<String>,
    },
    /// The server cannot be reached, or refused the login.
    Unreachable(Arc<ConnectFailure>),
    /// The client has cancelled the wait.
    Cancelled,
    /// The pool's server is another one now: the pool that has taken its place is to be asked.
    Moved,
    /// The pool is paused, and the session has waited for as long as it may.
    Paused {
        /// How long it waited.
        waited: Duration,
    },
    /// An operator has disabled the pool.
    Disabled,
    /// Bulkhead is going down.
    Closing,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { figures, .. } => write!(f, "{} sessions are waiting already", figures.waiting),
            Self::TimedOut { waited, down: None, .. } => {
                write!(f, "no connection was free within {waited:?}")
            }
            Self::TimedOut { waited, down: Some(error), .. } => {
                write!(f, "no connection could be made within {waited:?}: {error}")
            }
            Self::Unreachable(failure) => f.write_str(&failure.message),
            Self::Cancelled => f.write_str("the wait was cancelled"),
            Self::Moved => f.write_str("the server is another one now"),
            Self::Paused { waited } => write!(f, "the pool has been paused for {waited:?}"),
            Self::Disabled => f.write_str("the pool is disabled"),
            Self::Closing => f.write_str("shutting down"),
        }
    }
}

/// How full a server pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Backends in use.
    pub leased: usize,
    /// Backends that wait for use.
    pub idle: usize,
    /// Backends being connected.
    pub connecting: usize,
    /// Backends being closed.
    pub closing: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// Of the backends in use, those that pinned sessions keep.
    pub pinned: usize,
    /// The bound.
    pub max_connections: usize,
}

impl Figures {
    /// Places taken.
    pub const fn taken(&self) -> usize {
        self.leased + self.idle + self.connecting + self.closing
    }
}

/// Why no connection could be made.
#[derive(Clone, Debug)]
pub struct ConnectFailure {
    /// The server's name.
    pub server: String,
    /// The server's error, if it refused the login.
    pub refused: Option<ErrorFields>,
    /// In words.
    pub message: String,
}

impl ConnectFailure {
    /// The server cannot be reached.
    pub fn unreachable(server: &str, message: String) -> Self {
        Self { server: server.to_owned(), refused: None, message }
    }
}
