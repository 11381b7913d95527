//! All socket I/O: one read into this thread's scratch buffer, one write at once.
//!
//! A session or an idle backend owns no buffer: bytes are read into a buffer that belongs to the thread and
//! are consumed before the next await. Readiness stays registered for the life of the socket, so that neither
//! reading nor waiting costs a system call of its own.

pub mod silence;
pub mod tls;

use std::{
    cell::Cell,
    io,
    mem::ManuallyDrop,
    net::SocketAddr,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, Interest},
    net::{TcpStream, UnixStream},
    task::coop::has_budget_remaining,
};

use tls::TlsStream;

/// A peer that was sent nothing has so long to show a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Bytes taken from a socket by one read.
pub const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    /// The thread's read buffer. Taken out while it is in use, so nested use allocates another one instead of
    /// sharing.
    static SCRATCH: Cell<Option<Box<[u8; SCRATCH_BYTES]>>> = const { Cell::new(None) };
}

/// A connected stream to a client or to a server.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP. Boxed: it is many times larger than the others.
    Tls(Box<TlsStream>),
}

/// Lets the system find out that a peer is gone without a word while nothing is sent to it: after `limit`, or after a
/// minute if that is zero. What happens to bytes that were sent is for [`silence`] to tell.
pub fn keep_alive(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let limit = if limit.is_zero() { KEEP_ALIVE } else { limit };
    // The system counts in seconds.
    let seconds = |part: Duration| Duration::from_secs(part.as_secs().clamp(1, KEEP_ALIVE.as_secs()));
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(seconds(limit / 2))
        .with_interval(seconds(limit / 6))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The thread's read buffer, on loan from the first read until it is dropped.
#[derive(Debug, Default)]
pub struct Scratch(Option<Box<[u8; SCRATCH_BYTES]>>);

impl Scratch {
    /// All of it.
    fn buffer(&mut self) -> &mut [u8] {
        let take = || SCRATCH.take().unwrap_or_else(|| Box::new([0; SCRATCH_BYTES]));
        &mut self.0.get_or_insert_with(take)[..]
    }

    /// The first `len` bytes.
    pub fn filled(&self, len: usize) -> &[u8] {
        self.0.as_ref().and_then(|buffer| buffer.get(..len)).unwrap_or_default()
    }
}

impl Scratch {
    /// The first `len` bytes, to be changed where they are.
    pub fn filled_mut(&mut self, len: usize) -> &mut [u8] {
        self.0.as_mut().and_then(|buffer| buffer.get_mut(..len)).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            SCRATCH.set(Some(buffer));
        }
    }
}

/// What a look at a socket has found.
enum Found {
    /// No event was reported for it since it was empty: it was not read from.
    NoEvent,
    /// Nothing has arrived.
    Nothing,
    /// So many bytes, or an error.
    Read(io::Result<usize>),
}

/// Reads once from a socket. A read that does not fill the buffer has emptied the socket: it counts as one that would block,
/// so that the next one waits for an event and costs no system call (epoll(7), question 9).
#[inline]
fn receive(stream: &impl AsFd, buffer: &mut [u8], found: &mut Found) -> io::Result<()> {
    let len = match rustix::net::recv(stream, &mut *buffer, RecvFlags::empty()) {
        Ok((len, _)) => len,
        Err(Errno::WOULDBLOCK) => {
            *found = Found::Nothing;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Err(error) => {
            *found = Found::Read(Err(error.into()));
            return Ok(());
        }
    };
    *found = Found::Read(Ok(len));
    if len == 0 || len == buffer.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

fn send(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}

impl Socket {
    /// Reads once into `scratch`; 0 means that the peer has closed.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(stream) => ready!(stream.poll_read_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_read_ready(cx))?,
                Self::Tls(stream) => return stream.poll_read(cx, scratch.buffer()),
            }
            if let Found::Read(read) = self.look(|| scratch.buffer()) {
                return Poll::Ready(read);
            }
        }
    }

    /// As [`Socket::poll_read`], for a socket that one task alone reads, always with the same `is_watched`: it remembers that
    /// the task has asked to be woken by the next event, and there was none since. To ask again would cost more than to
    /// look.
    pub fn poll_read_watched(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        is_watched: &mut bool,
    ) -> Poll<io::Result<usize>> {
        if *is_watched {
            match self.look(|| scratch.buffer()) {
                Found::NoEvent => return Poll::Pending,
                Found::Nothing => {}
                Found::Read(read) => {
                    *is_watched = false;
                    return Poll::Ready(read);
                }
            }
        }
        let read = self.poll_read(cx, scratch);
        // A task whose turn is over has not been asked for, only put back in its queue.
        *is_watched = read.is_pending() && has_budget_remaining() && !matches!(self, Self::Tls(_));
        read
    }

    /// Writes as much as the socket takes now; 0 when it takes nothing. Whoever sends more afterwards must send the
    /// rest first, unchanged.
    pub fn send_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match self {
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, || send(stream, bytes)),
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, || send(stream, bytes)),
            Self::Tls(stream) => return stream.send_now(bytes),
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Writes `pending` and keeps the unsent rest in it. Ready when it is empty.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, pending: &mut Vec<u8>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        while sent < pending.len() {
            let rest = &pending[sent..];
            let write = match self {
                Self::Tcp(stream) => Pin::new(stream).poll_write(cx, rest),
                Self::Unix(stream) => Pin::new(stream).poll_write(cx, rest),
                Self::Tls(stream) => {
                    let flushed = stream.poll_send(cx, pending, &mut sent);
                    pending.drain(..sent);
                    return flushed;
                }
            };
            match write {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    pending.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        pending.clear();
        Poll::Ready(Ok(()))
    }

    /// Reads without waiting; `None` when nothing has arrived. Used to look at idle connections: it costs no
    /// system call as long as no event was reported for the socket.
    #[inline]
    pub fn read_now(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.look(|| buffer) {
            Found::Read(read) => Some(read),
            Found::NoEvent | Found::Nothing => None,
        }
    }

    #[inline]
    fn look<'b>(&mut self, buffer: impl FnOnce() -> &'b mut [u8]) -> Found {
        let mut found = Found::NoEvent;
        let read = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || receive(stream, buffer(), &mut found)),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || receive(stream, buffer(), &mut found)),
            // Events do not tell what is in its buffers.
            Self::Tls(stream) => return stream.read_now(buffer()).map_or(Found::Nothing, Found::Read),
        };
        // It only tells whether the next read waits for an event, and owns nothing that would have to be dropped.
        let _ = ManuallyDrop::new(read);
        found
    }

    /// Writes all of `bytes`, waiting as needed.
    pub async fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.send_now(bytes)?;
        if sent == bytes.len() {
            return Ok(());
        }
        let mut rest = bytes[sent..].to_vec();
        std::future::poll_fn(|cx| self.poll_flush(cx, &mut rest)).await
    }

    /// Appends what one read gives to `into`; `false` when the peer has closed.
    pub async fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            let mut scratch = Scratch::default();
            self.poll_read(cx, &mut scratch).map_ok(|len| {
                into.extend_from_slice(scratch.filled(len));
                len > 0
            })
        })
        .await
    }

    /// Closes the sending side, in good order.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown().await,
            Self::Unix(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    /// Our end of the connection; `None` of a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.tcp()?.local_addr().ok()
    }

    /// The peer's address; `None` of a Unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    /// Whether the peer runs as the same user of the operating system: only a Unix socket tells.
    pub fn is_of_own_user(&self) -> bool {
        match self {
            Self::Unix(stream) => {
                stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
            }
            Self::Tcp(_) | Self::Tls(_) => false,
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.tcp()),
            Self::Unix(_) => None,
        }
    }

    /// Where the peer is, for logs: an address, or `unix`.
    pub fn peer(&self) -> String {
        let Some(tcp) = self.tcp() else { return "unix".to_owned() };
        tcp.peer_addr().map_or_else(|_| "gone".to_owned(), |address| address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{io::AsyncWriteExt as _, task::coop};

    use super::*;

    /// Ends the turn of the task that is running.
    fn end_turn(cx: &mut Context<'_>) {
        while let Poll::Ready(turn) = coop::poll_proceed(cx) {
            turn.made_progress();
        }
    }

    /// Reads from a socket to its end while a peer sends little by little; looks at it as often as `looks` says before it
    /// waits, and with its turn over every `tired` reads.
    async fn read_all(looks: usize, tired: usize) -> usize {
        const PIECES: usize = 2000;
        let (socket, mut peer) = UnixStream::pair().expect("a pair");
        let mut socket = Socket::Unix(socket);
        let sends = tokio::spawn(async move {
            for piece in 0..PIECES {
                peer.write_all(b"ten bytes.").await.expect("it is read");
                if piece % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let (mut total, mut is_watched, mut reads) = (0, false, 0_usize);
        loop {
            reads += 1;
            let mut is_tired = reads.is_multiple_of(tired);
            let read = poll_fn(|cx| {
                if std::mem::take(&mut is_tired) {
                    end_turn(cx);
                }
                let mut scratch = Scratch::default();
                for _ in 1..looks {
                    let read = socket.poll_read_watched(cx, &mut scratch, &mut is_watched);
                    if read.is_ready() {
                        return read;
                    }
                }
                socket.poll_read_watched(cx, &mut scratch, &mut is_watched)
            });
            match tokio::time::timeout(Duration::from_secs(10), read).await.expect("it is woken") {
                Ok(0) => break,
                read => total += read.expect("it is connected"),
            }
        }
        sends.await.expect("all was sent");
        assert_eq!(total, 10 * PIECES);
        reads
    }

    #[tokio::test]
    async fn no_event_of_a_watched_socket_is_lost() {
        for (looks, tired) in [(1, usize::MAX), (2, usize::MAX), (1, 3), (3, 1), (2, 2)] {
            let reads = read_all(looks, tired).await;
            assert!(reads > 100, "it had to wait: {reads}");
        }
    }
}
