//! Opening what clients and operators connect to: the configuration's addresses, or the sockets that the service
//! manager passed.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::{StartError, service::Inherited};
use crate::{
    config::Listen,
    door::{accept::ListenSocket, unix_socket},
};

/// Connections that wait to be accepted; the system's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4096;

/// Everything that listens.
#[derive(Debug)]
pub struct Ports {
    /// For Postgres clients. Never empty.
    pub clients: Vec<ListenSocket>,
    /// For `/metrics` and the like.
    pub http: Option<TcpListener>,
}

impl Ports {
    /// Opens all of them, or says which one cannot be opened.
    pub fn open(listen: &Listen, inherited: Inherited) -> Result<Self, StartError> {
        let http = match (inherited.http, listen.http) {
            (Some(passed), _) => Some(TcpListener::from_std(passed)?),
            (None, Some(address)) => Some(bind(address, "listen.http")?),
            (None, None) => None,
        };
        let mut clients = Vec::new();
        for passed in inherited.tcp {
            clients.push(ListenSocket::Tcp(TcpListener::from_std(passed)?));
        }
        for passed in inherited.unix {
            clients.push(ListenSocket::Unix(UnixListener::from_std(passed)?, None));
        }
        if !clients.is_empty() {
            tracing::info!(
                "the service manager's sockets are used in place of listen.address and listen.unix_socket_dir"
            );
            return Ok(Self { clients, http });
        }
        clients.push(ListenSocket::Tcp(bind(listen.address, "listen.address")?));
        if let Some(dir) = &listen.unix_socket_dir {
            let path = unix_socket::path(dir, listen.address.port());
            let (listener, file) = unix_socket::listen(&path, listen.unix_socket_mode).map_err(|error| {
                StartError::Listen { place: path.display().to_string(), key: "listen.unix_socket_dir", error }
            })?;
            clients.push(ListenSocket::Unix(listener, Some(file)));
        }
        Ok(Self { clients, http })
    }
}

fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    let listener = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listener().map_err(|error| StartError::Listen { place: address.to_string(), key, error })
}
