//! What is known of a client from its login on, for operators.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{backend::Identity, socket::Socket};

/// A client as it was let in.
#[derive(Debug)]
pub struct Card {
    /// The user and the database.
    pub identity: Arc<Identity>,
    /// The purpose that it came for.
    pub purpose: Purpose,
    /// The pool that its database's name binds it to (`app@jobs`).
    pub bound: Option<Box<String>>,
    /// The client's address; `None` over a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that it came to; `None` over a Unix socket.
    pub local: Option<SocketAddr>,
    /// When it was let in, in seconds since 1970.
    pub since_seconds: u32,
    /// Whether its connection is encrypted.
    pub is_tls: bool,
}

/// The purpose that a client came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An ordinary session.
    Session,
    /// Physical replication.
    PhysicalReplication,
    /// Logical replication.
    LogicalReplication,
    /// The console.
    Console,
}

impl Card {
    /// A client of this identity that is let in now, on this socket.
    pub fn new(
        identity: Arc<Identity>,
        purpose: Purpose,
        bound: Option<&str>,
        socket: Option<&Socket>,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            identity,
            purpose,
            bound: bound.map(|pool| pool.to_owned().into()),
            peer: socket.and_then(Socket::peer_address),
            local: socket.and_then(Socket::local_address),
            since_seconds: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
            is_tls: matches!(socket, Some(Socket::Tls(_))),
        }
    }
}
