//! Accepting clients and dealing them out to the threads.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Home,
    pool::Spawner,
    session::{Shared, handshake},
    socket::{Socket, keep_alive},
};

/// After an accept that failed (no file descriptors left) the next one waits for this.
const PAUSE_AFTER_ERROR: std::time::Duration = std::time::Duration::from_millis(50);

/// Sessions above `max_clients` that may be busy saying so, or sending a cancel.
const DOORSTEP: usize = 100;

/// Accepts clients until `stop`.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>, spawner: Spawner, stop: CancellationToken) {
    let places = Arc::new(tokio::sync::Semaphore::new(shared.limits.max_clients + DOORSTEP));
    for turn in (0..u16::try_from(spawner.threads.len()).unwrap_or(1)).cycle() {
        let stream = tokio::select! {
            // Cancel safe: a connection that was not returned stays in the backlog.
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match stream {
            Ok((stream, _)) => {
                // Without a place the connection is closed: a client sees that at once.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    hand_over(stream, place, Home(turn), &shared, &spawner);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

fn hand_over(
    stream: TcpStream,
    place: tokio::sync::OwnedSemaphorePermit,
    home: Home,
    shared: &Arc<Shared>,
    spawner: &Spawner,
) {
    // A socket belongs to the thread that registers it.
    let prepared =
        stream.set_nodelay(true).and_then(|()| keep_alive(&stream)).and_then(|()| stream.into_std());
    let Ok(stream) = prepared else { return };
    let shared = Arc::clone(shared);
    spawner.spawn(home, async move {
        if let Ok(stream) = TcpStream::from_std(stream) {
            handshake::run(Socket::Tcp(stream), shared, home).await;
        }
        drop(place);
    });
}
