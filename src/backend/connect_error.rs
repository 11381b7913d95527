//! Why no connection to a server came about, and what that says: of the server, of a host, of a login.

use std::{io, time::Duration};

use crate::{
    auth::{Asked, AuthError},
    wire::read::{ErrorFields, Malformed},
};

/// SQLSTATE of a server, a database or a role that has its limit of connections.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// SQLSTATE of a server that is starting up or going down: libpq goes on to the next host.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network or the name lookup failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// TLS did not come about, in words for the operator.
    #[error("{0}")]
    Tls(String),
    /// The login cannot be bound to the server's certificate, and `channel_binding=require`.
    #[error("channel_binding=require, but {0}")]
    Unbound(&'static str),
    /// The attempt took longer than `connect_timeout`.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The server answered with an error.
    #[error("{0}")]
    Refused(ErrorFields),
    /// The server asked for a password and none is known.
    #[error("the server asks for a password, and none is known for user \"{0}\"")]
    NoPassword(String),
    /// The server asked for a kind of authentication that we do not speak.
    #[error("the server asks for {0}, which is not supported")]
    Unsupported(String),
    /// The password exchange failed.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// The server asked in a way that is not allowed.
    #[error("the server asks for {asked}, but {why}")]
    Forbidden {
        /// How it asked.
        asked: Asked,
        /// The reason that it is not allowed.
        why: String,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// Not what `target_session_attrs` looks for.
    #[error("target_session_attrs: {0}")]
    Unwanted(String),
}

/// Kinds of failed connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// The network or the name lookup failed.
    Unreachable,
    /// TLS did not come about, or not as it is asked for.
    Tls,
    /// The attempt took too long.
    TimedOut,
    /// The server answered with an error.
    Refused,
    /// No password, a wrong one, or a kind of authentication that we do not speak.
    Authentication,
    /// The server broke the protocol.
    Protocol,
}

impl FailureKind {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 6] =
        [Self::Unreachable, Self::Tls, Self::TimedOut, Self::Refused, Self::Authentication, Self::Protocol];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::TimedOut => "timeout",
            Self::Refused => "refused",
            Self::Authentication => "authentication",
            Self::Protocol => "protocol",
        }
    }
}

impl From<Malformed> for ConnectError {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl ConnectError {
    /// Whether trying again is of no use until somebody changes something: wrong password, unknown database,
    /// missing rights. Too many connections, starting up and the like pass by themselves.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(fields) => !matches!(fields.code.get(..2), Some("53" | "57" | "58" | "08" | "XX")),
            Self::NoPassword(_)
            | Self::Unsupported(_)
            | Self::Forbidden { .. }
            | Self::Auth(_)
            | Self::Unbound(_) => true,
            Self::Io(_) | Self::Tls(_) | Self::TimedOut(_) | Self::Protocol(_) | Self::Unwanted(_) => false,
        }
    }

    /// Whether the server is well and has no place for one more connection.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Refused(fields) if fields.code == TOO_MANY_CONNECTIONS)
    }

    /// Whether the server, or the role, or the database has as many connections as it may.
    pub fn is_of_bounds(&self) -> bool {
        matches!(self, Self::Refused(fields) if fields.code.starts_with("53"))
    }

    /// Whether another host of the server is to be tried: this one cannot be reached, or is not what is looked for.
    /// A wrong password is wrong everywhere (libpq).
    pub(super) fn is_of_host(&self) -> bool {
        match self {
            Self::Io(_) | Self::Tls(_) | Self::TimedOut(_) | Self::Protocol(_) | Self::Unwanted(_) => true,
            Self::Refused(fields) => fields.code == CANNOT_CONNECT_NOW,
            Self::Unbound(_)
            | Self::NoPassword(_)
            | Self::Unsupported(_)
            | Self::Forbidden { .. }
            | Self::Auth(_) => false,
        }
    }

    /// The kind of the failure, for counting.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Io(_) | Self::Unwanted(_) => FailureKind::Unreachable,
            Self::Tls(_) | Self::Unbound(_) => FailureKind::Tls,
            Self::TimedOut(_) => FailureKind::TimedOut,
            Self::Refused(_) => FailureKind::Refused,
            Self::NoPassword(_) | Self::Unsupported(_) | Self::Forbidden { .. } | Self::Auth(_) => {
                FailureKind::Authentication
            }
            Self::Protocol(_) => FailureKind::Protocol,
        }
    }

    /// As the fields of an ErrorResponse, for who waits for the login.
    pub fn fields(&self) -> ErrorFields {
        match self {
            Self::Refused(fields) => fields.clone(),
            other => {
                ErrorFields { code: "28000".to_owned(), message: other.to_string(), ..ErrorFields::default() }
            }
        }
    }
}
