//! Accepting clients and dealing them out to the threads.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Home,
    pool::Spawner,
    session::{Live, handshake},
    socket::{Socket, keep_alive},
};

/// After an accept that failed (no file descriptors left) the next one waits for this.
const PAUSE_AFTER_ERROR: std::time::Duration = std::time::Duration::from_millis(50);

/// Sessions above `max_clients` that may be busy saying so, or sending a cancel.
const DOORSTEP: usize = 100;

/// A connection that has been accepted; counts as long as it lives.
struct Place(Arc<AtomicUsize>);

impl Place {
    /// `None` if `limit` connections are open.
    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts clients until `stop`.
pub async fn listen(listener: TcpListener, live: Arc<Live>, spawner: Spawner, stop: CancellationToken) {
    let open = Arc::new(AtomicUsize::new(0));
    for turn in (0..u16::try_from(spawner.threads.len()).unwrap_or(1)).cycle() {
        let stream = tokio::select! {
            // Cancel safe: a connection that was not returned stays in the backlog.
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match stream {
            Ok((stream, _)) => {
                // Without a place the connection is closed: a client sees that at once.
                if let Some(place) = Place::take(&open, live.load().limits.max_clients + DOORSTEP) {
                    hand_over(stream, place, Home(turn), &live, &spawner);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

fn hand_over(stream: TcpStream, place: Place, home: Home, live: &Arc<Live>, spawner: &Spawner) {
    // A socket belongs to the thread that registers it.
    let prepared =
        stream.set_nodelay(true).and_then(|()| keep_alive(&stream)).and_then(|()| stream.into_std());
    let Ok(stream) = prepared else { return };
    let live = Arc::clone(live);
    spawner.spawn(home, async move {
        if let Ok(stream) = TcpStream::from_std(stream) {
            handshake::run(Socket::Tcp(stream), live, home).await;
        }
        drop(place);
    });
}
