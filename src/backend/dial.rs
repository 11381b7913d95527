//! Opening a socket to a server: TCP or a Unix socket, and TLS if that is wanted.
//!
//! Refuses to log in: that is `connect`.

use std::{io, net::SocketAddr};

use tokio::net::{TcpStream, UnixStream};

use super::{Server, connect_error::ConnectError, hosts::HostPort};
use crate::{
    auth::tls::{self, Encryption, Negotiation},
    socket::{Socket, tls::TlsStream},
    wire::message,
};

/// How a backend was reached; its cancels go the same way.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which of the server's hosts it is.
    pub host: HostPort,
    /// The address, if it is one of TCP: a name may have several.
    pub address: Option<SocketAddr>,
    /// Whether with TLS.
    pub encryption: Encryption,
}

/// An open socket, and the way that it goes.
#[derive(Debug)]
pub struct Dialled {
    /// The socket.
    pub socket: Socket,
    /// How it came about.
    pub route: Route,
}

/// Opens a socket to one of the server's hosts. `address` is where that is, if it is known already.
pub async fn open(
    server: &Server,
    host: &HostPort,
    encryption: Encryption,
    address: Option<SocketAddr>,
) -> Result<Dialled, ConnectError> {
    if host.is_unix() {
        let path = format!("{}/.s.PGSQL.{}", host.host, host.port);
        let socket = Socket::Unix(UnixStream::connect(path).await?);
        return Ok(Dialled {
            socket,
            route: Route { host: host.clone(), address: None, encryption: Encryption::Plain },
        });
    }
    let tcp = match address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((host.host.as_str(), host.port)).await?,
    };
    tcp.set_nodelay(true)?;
    crate::socket::keep_alive(&tcp, server.tcp_user_timeout)?;
    let address = tcp.peer_addr().ok();
    let socket = match encryption {
        Encryption::Plain => Socket::Tcp(tcp),
        Encryption::IfOffered | Encryption::Tls => begin_tls(server, host, tcp, encryption).await?,
    };
    let encryption = if matches!(socket, Socket::Tls(_)) { Encryption::Tls } else { Encryption::Plain };
    Ok(Dialled { socket, route: Route { host: host.clone(), address, encryption } })
}

/// Whether a server answers there: it is asked whether it offers TLS, which costs it no place of a connection.
pub async fn knock(server: &Server, host: &HostPort) -> Result<(), ConnectError> {
    let mut socket = open(server, host, Encryption::Plain, None).await?.socket;
    is_offered(&mut socket).await.map(|_| ())
}

async fn begin_tls(
    server: &Server,
    host: &HostPort,
    tcp: TcpStream,
    encryption: Encryption,
) -> Result<Socket, ConnectError> {
    let direct = server.tls.negotiation() == Negotiation::Direct;
    let mut socket = Socket::Tcp(tcp);
    if !direct && !is_offered(&mut socket).await? {
        if encryption == Encryption::IfOffered {
            return Ok(socket);
        }
        let what = "the server does not offer TLS, but sslmode asks for it; set ssl = on there, or write sslmode=prefer";
        return Err(ConnectError::Tls(what.to_owned()));
    }
    let Socket::Tcp(tcp) = socket else { return Err(ConnectError::Tls("TLS is only for TCP".to_owned())) };
    let connection = server.tls.connection(&host.host).map_err(ConnectError::Tls)?;
    let stream = TlsStream::handshake(tcp, connection, Vec::new())
        .await
        .map_err(|error| ConnectError::Tls(tls::explain_server(&error, &server.tls, &host.host)))?;
    if direct && stream.application_protocol() != Some(tls::ALPN) {
        let what = "the server speaks TLS, but did not agree on PostgreSQL's protocol (ALPN); sslnegotiation=direct needs PostgreSQL 17 or later";
        return Err(ConnectError::Tls(what.to_owned()));
    }
    Ok(Socket::Tls(Box::new(stream)))
}

/// Asks whether TLS may begin.
async fn is_offered(socket: &mut Socket) -> Result<bool, ConnectError> {
    let mut request = Vec::new();
    message::ssl_request(&mut request);
    socket.send_all(&request).await?;
    let mut answer = Vec::new();
    if !socket.read_more(&mut answer).await? {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match answer.as_slice() {
        b"S" => Ok(true),
        b"N" => Ok(false),
        // Whatever stands behind it came unencrypted, and would pass for part of the encrypted stream.
        [b'S' | b'N', ..] => Err(ConnectError::Protocol("data came before the TLS handshake".to_owned())),
        _ => Err(ConnectError::Protocol(
            "the answer to a request for TLS is neither S nor N: is a PostgreSQL server listening there?"
                .to_owned(),
        )),
    }
}
