//! Why the program cannot run.

use std::io;

use crate::{
    auth::{AuthError, tls, users::UsersError},
    sql::UnknownPreset,
};

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port or a Unix socket cannot be listened on.
    #[error("cannot listen on {place} ({key}): {error}")]
    Listen {
        /// The address or path.
        place: String,
        /// The key of the configuration that names it.
        key: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The service manager passed sockets that are of no use.
    #[error("a socket of the service manager cannot be used: {0}")]
    Inherited(io::Error),
    /// The users file is missing or wrong.
    #[error("{0}")]
    Users(#[from] UsersError),
    /// A preset that does not exist; validation finds it first.
    #[error("{0}")]
    Preset(#[from] UnknownPreset),
    /// A certificate or key is missing or wrong.
    #[error("{0}")]
    Tls(#[from] tls::Problem),
    /// No random bytes.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// Threads or signals could not be set up.
    #[error("{0}")]
    System(#[from] io::Error),
}
