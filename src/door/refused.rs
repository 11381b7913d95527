//! Why a client was not let in.

use std::io;

use crate::session::reply::Reply;

/// Why a client was not let in.
pub(super) enum Refused {
    /// Nobody is there to be told.
    Silently(&'static str),
    /// TLS did not come about; the client has got an alert.
    Tls {
        /// The client's address.
        peer: String,
        /// In words.
        why: String,
    },
    /// The client is told.
    With(Reply),
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Silently("the client has gone")
    }
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Self::With(reply)
    }
}
