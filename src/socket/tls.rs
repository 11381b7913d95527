//! TLS over a TCP socket, with the same interface as the bare socket has.
//!
//! Owns the bytes on their way through rustls. Three rules keep any from being lost or forgotten:
//!
//! * Nothing is read from the network before the plaintext that is there has been taken, so the buffers inside rustls
//!   stay below two records.
//! * A record is made only when the socket has taken the whole record before it.
//! * The last byte of a record counts as not sent until the socket has taken all of the record. So whoever has an
//!   unsent rest has something to flush, and whoever has none can forget about the connection. The rest must be
//!   offered again, first and unchanged.
//!
//! Refuses to choose certificates or to verify them: the [`Connection`] comes with all that.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

use super::Scratch;

/// The plaintext of the largest record.
const RECORD_BYTES: usize = 16 * 1024;

/// What rustls keeps of received plaintext before it refuses to read on.
const PLAINTEXT_BYTES: usize = 16 * 1024;

/// An encrypted connection. Dropping it says goodbye (`close_notify`), as far as the socket takes that.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    connection: Connection,
    /// Received bytes that rustls has no room for yet; empty almost always, and never more than one read.
    held: Vec<u8>,
    /// The last byte that was encrypted is not counted as sent yet.
    owed: bool,
    /// What is to be reported once the plaintext that came before it has been taken.
    failed: Option<io::Error>,
}

impl TlsStream {
    /// Shakes hands. `received` are the peer's first bytes, if some have been read already.
    ///
    /// Errors: what the system says; `InvalidData` around a [`rustls::Error`]; `UnexpectedEof` if the peer hangs up.
    /// Not cancel safe: dropped halfway, the connection is closed.
    pub async fn handshake(
        tcp: TcpStream,
        connection: impl Into<Connection>,
        received: Vec<u8>,
    ) -> io::Result<Self> {
        let connection = connection.into();
        let mut stream = Self { tcp, connection, held: received, owed: false, failed: None };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The certificate that the peer showed, in DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// The application protocol that both sides have agreed on (ALPN).
    pub fn application_protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The TCP connection below.
    pub(super) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.poll_write_out(cx)?;
            if !self.connection.is_handshaking() {
                return flushed.map(Ok);
            }
            if !self.held.is_empty() {
                self.feed_held()?;
                continue;
            }
            let mut scratch = Scratch::default();
            let len = ready!(poll_read_tcp(&mut self.tcp, cx, scratch.buffer()))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.feed(scratch.filled(len))?;
        }
    }

    // === reading ===

    /// Reads once into `buffer`; 0 means that the peer has closed.
    ///
    /// A connection that ends without `close_notify` counts as closed too: the messages inside have lengths of their
    /// own, so what is cut off is noticed there, as it is without TLS.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(read) = self.take_plaintext(buffer) {
                return Poll::Ready(read);
            }
            if self.held.is_empty() {
                // Ciphertext passes through the same buffer: rustls makes its own copy.
                let len = ready!(poll_read_tcp(&mut self.tcp, cx, buffer))?;
                self.receive(&buffer[..len]);
            } else {
                self.failed = self.feed_held().err();
            }
        }
    }

    /// Reads without waiting; `None` when no plaintext is there.
    pub(super) fn read_now(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            if let Some(read) = self.take_plaintext(buffer) {
                return Some(read);
            }
            if self.held.is_empty() {
                let mut scratch = Scratch::default();
                match self.tcp.try_read(scratch.buffer()) {
                    Ok(len) => self.receive(scratch.filled(len)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(error) => return Some(Err(error)),
                }
            } else {
                self.failed = self.feed_held().err();
            }
        }
    }

    /// Plaintext that is there, the end, or what has failed; `None` if more must be received first.
    fn take_plaintext(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.connection.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.failed.take().map(Err),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(self.failed.take().map_or(Ok(0), Err))
            }
            other => Some(other),
        }
    }

    /// Takes what one read gave; nothing means the end.
    fn receive(&mut self, bytes: &[u8]) {
        let fed = if bytes.is_empty() {
            // The reader tells of the end from now on.
            self.connection.read_tls(&mut io::empty()).map(|_| ())
        } else {
            self.feed(bytes)
        };
        self.failed = fed.err();
    }

    fn feed_held(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.feed(&held)
    }

    /// Gives rustls what was received; what it has no room for is held.
    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // Nothing counts after close_notify.
            if self.connection.read_tls(&mut bytes)? == 0 {
                break;
            }
            let processed = self.connection.process_new_packets();
            if self.connection.wants_write() {
                // An alert, or part of the handshake. What does not fit now leaves before the next record.
                let _ = self.write_out_now();
            }
            let state = processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if state.plaintext_bytes_to_read() > PLAINTEXT_BYTES {
                self.held = bytes.to_vec();
                break;
            }
        }
        Ok(())
    }

    // === writing ===

    /// Sends as much as the socket takes now. See the rules above for what the count means.
    pub(super) fn send_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() && self.write_out_now()? {
            sent += self.encrypt_next(&bytes[sent..])?;
        }
        Ok(sent)
    }

    /// Sends `bytes` as the socket takes them, adding to `sent`. Ready when all are sent.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            ready!(self.poll_write_out(cx))?;
            *sent += self.encrypt_next(&bytes[*sent..])?;
        }
        Poll::Ready(Ok(()))
    }

    /// Every record made so far has left. Counts the byte that was owed for the last one, and makes the next record
    /// of what follows. Returns how many bytes count as sent now.
    fn encrypt_next(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let paid = usize::from(std::mem::take(&mut self.owed));
        let next = bytes.get(paid..).unwrap_or_default();
        if next.is_empty() {
            return Ok(paid);
        }
        let taken = self.connection.writer().write(&next[..next.len().min(RECORD_BYTES)])?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.owed = true;
        Ok(paid + taken - 1)
    }

    /// Writes what rustls has for the peer; false when the socket takes no more now.
    fn write_out_now(&mut self) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Now(&self.tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Waiting(&mut self.tcp, cx)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye and closes the sending side.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        std::future::poll_fn(|cx| self.poll_write_out(cx)).await?;
        self.tcp.shutdown().await
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.connection.send_close_notify();
        // A socket that takes nothing more is closed without it.
        let _ = self.write_out_now();
    }
}

fn poll_read_tcp(tcp: &mut TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    Pin::new(tcp).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
}

/// Writes without waiting.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes, and lets the task be woken when the socket takes more.
struct Waiting<'a, 'b>(&'a mut TcpStream, &'a mut Context<'b>);

impl Waiting<'_, '_> {
    fn now(write: Poll<io::Result<usize>>) -> io::Result<usize> {
        match write {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Waiting<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.0).poll_write(self.1, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.0).poll_write_vectored(self.1, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
