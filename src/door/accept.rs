//! Accepting clients, on TCP and on Unix sockets, and dealing them out to the threads.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{login, unix_socket::SocketFile};
use crate::{
    seldom::Seldom,
    shared::{Current, Snapshot},
    socket::{Socket, keep_alive},
    threads::{Home, Spawner},
};

/// After an accept that failed (no file descriptors left) the next one waits for this.
const PAUSE_AFTER_ERROR: std::time::Duration = std::time::Duration::from_millis(50);

/// Sessions above `max_clients` that may be busy saying so, or sending a cancel.
pub const DOORSTEP: usize = 100;

/// Where clients come in.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file, if it was made here, is removed with it.
    Unix(UnixListener, Option<SocketFile>),
}

/// A client that has just connected, not yet of any thread.
enum Arrival {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl ListenSocket {
    /// Cancel safe: a connection that was not returned stays in the backlog.
    async fn accept(&self, keep_alive_limit: std::time::Duration) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream, keep_alive_limit)?;
                Ok(Arrival::Tcp(stream.into_std()?))
            }
            Self::Unix(listener, _) => Ok(Arrival::Unix(listener.accept().await?.0.into_std()?)),
        }
    }

    /// Where it listens, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
            }
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(
                    || "a Unix socket without a name".to_owned(),
                    |path| path.display().to_string(),
                )
            }
        }
    }
}

impl Arrival {
    /// A socket belongs to the thread that registers it: this one.
    fn register(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// A connection that has been accepted; counts as long as it lives.
struct CountedConnection(Arc<AtomicUsize>);

impl CountedConnection {
    /// `None` if `limit` connections are open.
    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts clients until `stop`. `open` counts the connections of all listeners.
pub async fn listen(
    listener: ListenSocket,
    open: Arc<AtomicUsize>,
    current: Arc<Current>,
    spawner: Spawner,
    stop: CancellationToken,
) {
    let failures = Seldom::default();
    for turn in (0..u16::try_from(spawner.threads.len()).unwrap_or(1)).cycle() {
        let arrived = tokio::select! {
            // Cancel safe, as it says.
            accepted = listener.accept(current.load().limits.tcp_user_timeout) => accepted,
            () = stop.cancelled() => return,
        };
        match arrived {
            Ok(arrival) => {
                // Without a place the connection is closed: a client sees that at once.
                if let Some(place) = CountedConnection::take(&open, connections_max(&current.load())) {
                    hand_over(arrival, place, Home(turn), &current, &spawner);
                }
            }
            Err(error) => {
                if let Some(left_out) = failures.is_time() {
                    tracing::warn!(%error, left_out, "a connection could not be accepted");
                }
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Connections that may be open: those of clients and consoles, and those that are busy at the door.
fn connections_max(snapshot: &Snapshot) -> usize {
    snapshot.limits.max_clients + snapshot.console.max_clients + DOORSTEP
}

fn hand_over(
    arrival: Arrival,
    place: CountedConnection,
    home: Home,
    current: &Arc<Current>,
    spawner: &Spawner,
) {
    let register = move || arrival.register();
    spawner.spawn(home, login::run(register, place, Arc::clone(current), home));
}
