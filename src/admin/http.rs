//! The HTTP server: a few paths, bounded in connections, time and memory.
//!
//! Speaks no TLS: it is meant for an address that only operators reach. Who may do what is for `api::guard`.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{events::Events, fullness, guest::Guest, paths::Site};
use crate::{shared::Current, threads::Spawner};

/// Connections at once; one more takes the place of the one that has been silent for longest.
const CONNECTIONS_MAX: usize = 64;
/// From a connection's beginning to the end of its first request's headers.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// From the end of one request to the end of the next one's headers: longer than the usual scrape intervals, so that
/// a scraper keeps its connection.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(75);
/// After this a connection takes no further request, so that a client that reads nothing does not keep its place.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// How long the request under way may take when its connection is to end.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of a request's headers.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The pause after a failed accept: without it, a process that is out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Bytes that the system keeps of what a client has not taken: one that takes nothing is soon noticed.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Serves HTTP on a thread of its own until `stop`, then ends within a second: neither
/// can sessions hold it up, nor it sessions. Returns once the thread has ended.
pub async fn serve(
    listener: std::net::TcpListener,
    (current, events): (Arc<Current>, Arc<Events>),
    threads: Spawner,
    stop: CancellationToken,
) {
    let (alive, ended) = tokio::sync::oneshot::channel::<Infallible>();
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let _alive = alive;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let site = Arc::new(Site::new(current, events));
                runtime.block_on(serve_here(listener, site, threads, stop));
            }
            Err(error) => tracing::error!(%error, "HTTP cannot be served"),
        }
    });
    if let Err(error) = thread {
        tracing::error!(%error, "HTTP cannot be served");
    }
    // An error says that the thread has ended.
    let _ = ended.await;
}

async fn serve_here(
    listener: std::net::TcpListener,
    site: Arc<Site>,
    threads: Spawner,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "HTTP cannot be served"),
    };
    let (mut beat, mut news) = (pin!(site.pulse.keep(&threads)), pin!(site.tell()));
    let mut full = pin!(fullness::watch(&site.current));
    let mut guests = Guests::default();
    loop {
        // Cancel safe, every arm: an accept or a join that is dropped leaves the connection or the result where it
        // is for the next round; the pulse, the news and the pools are polled through references and go on.
        tokio::select! {
            () = stop.cancelled() => break,
            () = beat.as_mut() => {}
            () = news.as_mut() => {}
            () = full.as_mut() => {}
            Some(ended) = guests.tasks.join_next() => guests.left(ended.ok()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => guests.enter(stream, &site, &stop),
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // Each one has been told by the token, and bounds itself.
    while guests.tasks.join_next().await.is_some() {}
}

/// The connections that are open, bounded.
#[derive(Debug, Default)]
struct Guests {
    tasks: JoinSet<u64>,
    open: Vec<Arc<Guest>>,
    entered: u64,
}

impl Guests {
    /// Serves a connection; the one that has been silent for longest makes room for it, of those at first that have
    /// never asked for anything.
    fn enter(&mut self, stream: TcpStream, site: &Arc<Site>, stop: &CancellationToken) {
        if self.open.len() >= CONNECTIONS_MAX
            && let Some(at) = (0..self.open.len()).min_by_key(|&at| self.open[at].heard())
        {
            self.open.swap_remove(at).leave.cancel();
        }
        self.entered += 1;
        // A system that does not do that keeps more.
        let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        let to = stream.local_addr().ok().map(|address| address.ip());
        let guest = Arc::new(Guest::new(self.entered, to));
        self.open.push(Arc::clone(&guest));
        self.tasks.spawn(converse(stream, Arc::clone(site), guest, stop.clone()));
    }

    fn left(&mut self, number: Option<u64>) {
        self.open.retain(|guest| Some(guest.number) != number);
    }
}

/// One connection, from its first request to its last; returns its number.
async fn converse(stream: TcpStream, site: Arc<Site>, guest: Arc<Guest>, stop: CancellationToken) -> u64 {
    let service = service_fn(|request: Request<Incoming>| {
        guest.asks();
        let (site, guest) = (Arc::clone(&site), Arc::clone(&guest));
        async move { Ok::<_, Infallible>(site.answer(&request, &guest).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_TIMEOUT)
            .max_buf_size(HEADERS_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    // Cancel safe: the connection is polled through a reference and goes on below, or is closed.
    tokio::select! {
        result = connection.as_mut() => {
            log(result);
            return guest.number;
        }
        () = guest.leave.cancelled() => return guest.number,
        () = is_mute(&guest) => return guest.number,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = tokio::time::timeout(LAST_REQUEST_TIMEOUT, connection).await {
        log(result);
    }
    guest.number
}

/// Returns if a connection asks for nothing in time.
async fn is_mute(guest: &Guest) {
    tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
    if guest.has_asked() {
        std::future::pending::<()>().await;
    }
}

fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}

#[cfg(test)]
mod tests;
