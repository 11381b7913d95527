//! What is known of a client from its login on, for operators.

use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
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
    /// The client's address.
    peer: Address,
    /// The address that it came to.
    local: Address,
    /// When it was let in, in seconds since 1970.
    pub since_seconds: u32,
    /// Whether its connection is encrypted.
    pub is_tls: bool,
}

/// An address in as little memory as most take: every idle client has two.
#[derive(Debug)]
enum Address {
    /// That of a Unix socket.
    None,
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl Address {
    fn of(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::None,
            Some(SocketAddr::V4(address)) => Self::V4(address),
            Some(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
        }
    }

    fn get(&self) -> Option<SocketAddr> {
        match self {
            Self::None => None,
            Self::V4(address) => Some((*address).into()),
            Self::V6(address) => Some((**address).into()),
        }
    }
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
            peer: Address::of(socket.and_then(Socket::peer_address)),
            local: Address::of(socket.and_then(Socket::local_address)),
            since_seconds: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
            is_tls: matches!(socket, Some(Socket::Tls(_))),
        }
    }
    /// The client's address; `None` over a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.get()
    }

    /// The address that it came to; `None` over a Unix socket.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_was() {
        for address in ["127.0.0.1:80", "[::1]:5432", "[fe80::1%3]:6432"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(Address::of(Some(address)).get(), Some(address));
        }
        assert_eq!(Address::of(None).get(), None);
        assert!(size_of::<Address>() <= 16);
    }
}
