//! TLS, both sides: what clients may or must do, how servers are verified, and the certificates for it.
//!
//! Owns the settings, the files they name, and the words for what goes wrong. [`acceptor()`] and [`connector()`] read all
//! files anew, so a reload that calls them takes up new certificates, and one that fails keeps the old values. Refuses
//! to touch sockets: they give a connection that `socket::tls` drives.

mod acceptor;
mod connector;
mod end_point;
mod explain;
mod files;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use acceptor::{Acceptor, AcceptorSettings, ClientCertificates, ClientMode, acceptor};
pub use connector::{
    ChannelBinding, Connector, ConnectorSettings, Encryption, Negotiation, Roots, SslMode, connector,
};
pub use end_point::EndPoint;
pub use explain::{explain_client, explain_server};

/// The name of PostgreSQL's protocol in ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// A setting or a file of it that TLS cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}\n    {hint}")]
pub struct Problem {
    /// The key in the configuration, such as `listen.tls.certificate`.
    pub key: String,
    /// The fault, with the file's name.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

impl Problem {
    fn new(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: hint.into() }
    }
}

/// The one library of algorithms in use, given to each connection: there is no process-wide default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
