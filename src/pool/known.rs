//! Backends that a server pool has connected, for as long as they are open, whoever holds them.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::SystemTime,
};

use crate::{
    backend::{Backend, BackendId, Identity, cancel::Target},
    socket::Socket,
};

/// A backend that was connected, as long as it is open.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: BackendId,
    pub(super) identity: Arc<Identity>,
    /// Alive as long as the backend is.
    pub(super) target: Weak<Target>,
    pub(super) generation: u32,
    pub(super) since: SystemTime,
    pub(super) local: Option<SocketAddr>,
    pub(super) is_tls: bool,
}

impl Known {
    pub(super) fn of(backend: &Backend) -> Self {
        Self {
            id: backend.id,
            identity: Arc::clone(&backend.identity),
            target: Arc::downgrade(&backend.cancel),
            generation: backend.generation,
            since: SystemTime::now(),
            local: backend.socket.local_address(),
            is_tls: matches!(backend.socket, Socket::Tls(_)),
        }
    }
}
