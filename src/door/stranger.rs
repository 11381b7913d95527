//! A connection that is not a session yet: requests for encryption, first packets, and the messages of a login.
//!
//! Everything here is bounded in bytes; the time for all of it is bounded by whoever opens the door.

use std::io;

use super::{claim::Claim, refused::Refused};
use crate::{
    auth::tls,
    session::reply,
    socket::{Socket, tls::TlsStream},
    wire::{
        frame::{HEADER_BYTES, Header},
        startup::{self, FirstPacket},
    },
};

/// A login message longer than this is refused unread.
const LOGIN_MESSAGE_BYTES: usize = 16 * 1024;

/// The first byte of a TLS handshake (ContentType).
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that is not a session yet.
pub(super) struct Stranger {
    /// Gone while TLS begins.
    pub(super) socket: Option<Socket>,
    pub(super) unread: Vec<u8>,
    /// The client's claim, as far as it has made one.
    pub(super) claim: Claim,
    /// For the log: why it is refused, if that is more than it is told.
    pub(super) why: Option<String>,
}

impl Stranger {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket: Some(socket), unread: Vec::new(), claim: Claim::default(), why: None }
    }

    /// The first packet that is not a request for encryption. TLS is begun if the client asks for it and it is offered;
    /// other requests are declined.
    pub(super) async fn first_packet(&mut self, acceptor: &tls::Acceptor) -> Result<FirstPacket, Refused> {
        let bad = |error: startup::BadStart| Refused::With(reply::bad_start(&error.to_string()));
        for _ in 0..3 {
            let len = loop {
                // No packet begins like a TLS handshake: it would be far too long.
                if self.unread.first() == Some(&TLS_HANDSHAKE)
                    && let Some(connection) = self.offer(acceptor)
                {
                    self.begin_tls(connection).await?;
                    self.check_direct()?;
                    continue;
                }
                if let Some(len) = startup::packet_len(&self.unread).map_err(bad)?
                    && self.unread.len() >= len
                {
                    break len;
                }
                self.read_more().await?;
            };
            let rest = self.unread.split_off(len);
            let packet = std::mem::replace(&mut self.unread, rest);
            let first = startup::parse(&packet).map_err(bad)?;
            if !matches!(first, FirstPacket::Ssl | FirstPacket::GssEnc) {
                return Ok(first);
            }
            // Bytes sent before our answer would have been meant for the encrypted stream.
            if !self.unread.is_empty() {
                return Err(Refused::Silently("data came before the answer to a request for encryption"));
            }
            match self.offer(acceptor) {
                Some(connection) if first == FirstPacket::Ssl => {
                    self.send(b"S").await?;
                    self.begin_tls(connection).await?;
                }
                _ => self.send(b"N").await?,
            }
        }
        Err(Refused::Silently("encryption asked for again and again"))
    }

    /// A TLS connection for this client, if it may have one: over TCP, and only once.
    fn offer(&self, acceptor: &tls::Acceptor) -> Option<rustls::ServerConnection> {
        matches!(self.socket, Some(Socket::Tcp(_))).then(|| acceptor.connection())?
    }

    async fn begin_tls(&mut self, connection: rustls::ServerConnection) -> Result<(), Refused> {
        let received = std::mem::take(&mut self.unread);
        let Some(Socket::Tcp(tcp)) = self.socket.take() else {
            return Err(Refused::Silently("TLS is only for TCP"));
        };
        let peer = tcp.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
        let stream = TlsStream::handshake(tcp, connection, received)
            .await
            .map_err(|error| Refused::Tls { peer, why: tls::explain_client(&error) })?;
        self.socket = Some(Socket::Tls(Box::new(stream)));
        Ok(())
    }

    /// As in PostgreSQL, TLS that begins without a request must name the protocol: a client of something else cannot be
    /// led here.
    fn check_direct(&self) -> Result<(), Refused> {
        match &self.socket {
            Some(Socket::Tls(stream)) if stream.application_protocol().is_some() => Ok(()),
            _ => Err(reply::direct_tls_without_alpn().into()),
        }
    }

    /// The body of a password message (also SASLInitialResponse and SASLResponse).
    pub(super) async fn password_message(&mut self) -> Result<Vec<u8>, Refused> {
        loop {
            let header =
                Header::peek(&self.unread).map_err(|error| reply::protocol_violation(&error.to_string()))?;
            match header {
                Some(header) if header.tag != b'p' => {
                    return Err(reply::protocol_violation("expected password response").into());
                }
                Some(header) if header.len > LOGIN_MESSAGE_BYTES => {
                    return Err(reply::protocol_violation("password response is too long").into());
                }
                Some(header) if self.unread.len() >= header.len => {
                    let rest = self.unread.split_off(header.len);
                    let message = std::mem::replace(&mut self.unread, rest);
                    return Ok(message[HEADER_BYTES..].to_vec());
                }
                _ => self.read_more().await?,
            }
        }
    }

    fn socket(&mut self) -> io::Result<&mut Socket> {
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket()?.send_all(bytes).await
    }

    async fn read_more(&mut self) -> Result<(), Refused> {
        let mut unread = std::mem::take(&mut self.unread);
        let more = self.socket()?.read_more(&mut unread).await?;
        self.unread = unread;
        if more { Ok(()) } else { Err(Refused::Silently("the client has gone")) }
    }
}
