//! The HTTP server: a few paths, GET and HEAD only, bounded in connections, time and memory.
//!
//! Speaks neither TLS nor asks who somebody is: it is meant for an address that only operators reach.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    health::{Status, readiness},
    metrics,
};
use crate::{
    seldom::Seldom,
    shared::{Current, Snapshot},
    threads::Spawner,
    why,
};

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
/// How often the threads that serve sessions are asked whether they are alive.
const PULSE_EVERY: Duration = Duration::from_secs(1);
/// A thread that does nothing for so long is not.
const PULSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The pause after a failed accept: without it, a process that is out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The path of the report on why users are slow.
const WHY: &str = "/api/v1/why";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GET_AND_HEAD: HeaderValue = HeaderValue::from_static("GET, HEAD");

type Answer = Response<Full<Bytes>>;

/// Serves `/metrics`, `/healthz` and `/readyz` on a thread of its own until `stop`, then ends within a second: neither
/// can sessions hold it up, nor it sessions. Returns once the thread has ended.
pub async fn serve(
    listener: std::net::TcpListener,
    current: Arc<Current>,
    threads: Spawner,
    stop: CancellationToken,
) {
    let (alive, ended) = tokio::sync::oneshot::channel::<Infallible>();
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let _alive = alive;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(serve_here(listener, current, threads, stop)),
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
    current: Arc<Current>,
    threads: Spawner,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "HTTP cannot be served"),
    };
    let pulse = Arc::new(Pulse::default());
    let mut beat = pin!(pulse.keep(&threads));
    let mut guests = Guests::default();
    let failures = Seldom::default();
    loop {
        // Cancel safe, every arm: an accept or a join that is dropped leaves the connection or the result where it
        // is for the next round; the pulse is polled through a reference and goes on.
        tokio::select! {
            () = stop.cancelled() => break,
            () = beat.as_mut() => {}
            Some(ended) = guests.tasks.join_next() => guests.left(ended.ok()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => guests.enter(stream, &current, &pulse, &stop),
                Err(error) => {
                    if let Some(left_out) = failures.is_time() {
                        tracing::warn!(%error, left_out, "an HTTP connection could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // Each one has been told by the token, and bounds itself.
    while guests.tasks.join_next().await.is_some() {}
}

/// Whether the threads that serve sessions are alive, asked again and again.
#[derive(Debug, Default)]
struct Pulse {
    is_lost: AtomicBool,
}

impl Pulse {
    async fn keep(&self, threads: &Spawner) {
        loop {
            self.is_lost.store(!threads.is_well(PULSE_TIMEOUT).await, Ordering::Relaxed);
            tokio::time::sleep(PULSE_EVERY).await;
        }
    }
}

/// The connections that are open, bounded.
#[derive(Debug, Default)]
struct Guests {
    tasks: JoinSet<u64>,
    open: Vec<Arc<Guest>>,
    entered: u64,
}

/// One connection.
#[derive(Debug)]
struct Guest {
    number: u64,
    since: Instant,
    /// When it last asked for something, in microseconds after `since`; zero before the first time.
    asked: AtomicU64,
    leave: CancellationToken,
}

impl Guest {
    fn asks(&self) {
        self.asked.store(self.since.elapsed().as_micros() as u64 + 1, Ordering::Relaxed);
    }

    /// When it was last heard of; who has never asked for anything comes first.
    fn heard(&self) -> (bool, Instant) {
        let asked = self.asked.load(Ordering::Relaxed);
        (asked > 0, self.since + Duration::from_micros(asked))
    }

    /// Returns if it asks for nothing in time.
    async fn is_mute(&self) {
        tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
        if self.asked.load(Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
    }
}

impl Guests {
    /// Serves a connection; the one that has been silent for longest makes room for it, of those at first that have
    /// never asked for anything.
    fn enter(
        &mut self,
        stream: TcpStream,
        current: &Arc<Current>,
        pulse: &Arc<Pulse>,
        stop: &CancellationToken,
    ) {
        if self.open.len() >= CONNECTIONS_MAX
            && let Some(at) = (0..self.open.len()).min_by_key(|&at| self.open[at].heard())
        {
            self.open.swap_remove(at).leave.cancel();
        }
        self.entered += 1;
        let guest = Arc::new(Guest {
            number: self.entered,
            since: Instant::now(),
            asked: AtomicU64::new(0),
            leave: CancellationToken::new(),
        });
        self.open.push(Arc::clone(&guest));
        self.tasks.spawn(converse(stream, Arc::clone(current), Arc::clone(pulse), guest, stop.clone()));
    }

    fn left(&mut self, number: Option<u64>) {
        self.open.retain(|guest| Some(guest.number) != number);
    }
}

/// One connection, from its first request to its last; returns its number.
async fn converse(
    stream: TcpStream,
    current: Arc<Current>,
    pulse: Arc<Pulse>,
    guest: Arc<Guest>,
    stop: CancellationToken,
) -> u64 {
    let service = service_fn(|request: Request<Incoming>| {
        guest.asks();
        let (shared, pulse) = (current.load(), Arc::clone(&pulse));
        async move {
            let path = request.uri().path();
            if path == WHY && *request.method() == Method::GET {
                return Ok::<_, Infallible>(json(StatusCode::OK, &why::report(&shared).await));
            }
            Ok(answer(request.method(), path, &shared, &pulse))
        }
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
        () = guest.is_mute() => return guest.number,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = tokio::time::timeout(LAST_REQUEST_TIMEOUT, connection).await {
        log(result);
    }
    guest.number
}

fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}

/// What a path answers. HEAD is answered as GET; hyper leaves the body out.
fn answer(method: &Method, path: &str, shared: &Snapshot, pulse: &Pulse) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, GET_AND_HEAD);
        return answer;
    }
    match path {
        "/metrics" => {
            let mut answer = text(StatusCode::OK, metrics::text(shared));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            answer
        }
        "/healthz" if pulse.is_lost.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "a thread does not answer\n")
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(shared),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn ready(shared: &Snapshot) -> Answer {
    let readiness = readiness(shared);
    let status = match readiness.status {
        Status::Ready | Status::Degraded => StatusCode::OK,
        Status::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &readiness)
}

fn json(status: StatusCode, said: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec_pretty(said).expect("it holds nothing that JSON cannot say");
    body.push(b'\n');
    let mut answer = text(status, body);
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::{super::fixture::shared, *};
    use crate::topology::Known;

    const SOON: Duration = Duration::from_secs(10);

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
        tasks: JoinSet<()>,
        shared: Arc<Snapshot>,
    }

    impl Running {
        fn start() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.set_nonblocking(true).expect("sockets have the option");
            let address = listener.local_addr().expect("it is bound");
            let (stop, shared, mut tasks) = (CancellationToken::new(), Arc::new(shared()), JoinSet::new());
            shared.health.servers[0].set(Known::Up { in_recovery: false });
            let current = Arc::new(Current::new(Arc::clone(&shared)));
            let threads = Spawner {
                tracker: tokio_util::task::TaskTracker::new(),
                threads: Arc::new([tokio::runtime::Handle::current()]),
            };
            tasks.spawn(serve(listener, current, threads, stop.clone()));
            Self { address, stop, tasks, shared }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("it listens")
        }

        /// Sends a request on a new connection and reads to its end.
        async fn ask(&self, request_line: &str) -> String {
            let mut stream = self.connect().await;
            let request = format!("{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("it reads");
            let mut response = String::new();
            let read = stream.read_to_string(&mut response);
            timeout(SOON, read).await.expect("it answers soon").expect("it answers text");
            response
        }

        async fn ends(mut self) {
            self.stop.cancel();
            let ended = timeout(SOON, self.tasks.join_next()).await.expect("it ends soon");
            ended.expect("there was a task").expect("it did not panic");
        }
    }

    /// Whether a request on the connection is answered; not if it has been closed or reset.
    async fn is_served(stream: &mut TcpStream) -> bool {
        let mut bytes = [0; 1024];
        let exchange = async {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            stream.read(&mut bytes).await
        };
        let count = timeout(SOON, exchange).await.expect("it answers or closes soon").unwrap_or(0);
        bytes[..count].ends_with(b"ok\n")
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let running = Running::start();
        let cases = [
            ("GET /healthz", "200", "\r\n\r\nok\n"),
            ("GET /healthz?x=1", "200", "\r\n\r\nok\n"),
            ("GET /readyz", "200", "}\n"),
            ("HEAD /metrics", "200", "\r\n\r\n"),
            ("GET /", "404", "there are /metrics, /healthz and /readyz\n"),
            ("HEAD /nowhere", "404", "\r\n\r\n"),
            ("POST /metrics", "405", "only GET and HEAD\n"),
            ("OPTIONS *", "405", "only GET and HEAD\n"),
        ];
        for (request_line, status, end) in cases {
            let response = running.ask(request_line).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request_line}: {response}");
            assert!(response.ends_with(end), "{request_line}: {response}");
        }
        let metrics = running.ask("GET /metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nbulkhead_clients 0\n"), "{metrics}");
        assert!(running.ask("DELETE /healthz").await.contains("allow: GET, HEAD\r\n"));
        running.shared.pools[0].members[0].gate().failed("connection refused");
        assert!(running.ask("GET /readyz").await.starts_with("HTTP/1.1 503 "));
        running.ends().await;
    }

    #[tokio::test]
    async fn connections_are_kept_bounded_and_ended() {
        let running = Running::start();
        let mut kept = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = running.connect().await;
            assert!(is_served(&mut stream).await && is_served(&mut stream).await);
            kept.push(stream);
        }
        // The second has been silent for longest, since the first asks again.
        assert!(is_served(&mut kept[0]).await);
        let mut more = running.connect().await;
        assert!(is_served(&mut more).await);
        assert!(!is_served(&mut kept[1]).await);
        assert!(is_served(&mut kept[0]).await && is_served(&mut kept[2]).await);
        running.ends().await;
        assert!(!is_served(&mut kept[0]).await && !is_served(&mut more).await);
    }

    #[tokio::test]
    async fn who_never_asks_makes_room_first_and_is_not_kept_for_long() {
        let running = Running::start();
        let mut scraper = running.connect().await;
        assert!(is_served(&mut scraper).await);
        let mut slow = Vec::new();
        for _ in 0..3 * CONNECTIONS_MAX {
            let mut stream = running.connect().await;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").await.expect("it is connected");
            slow.push(stream);
        }
        let began = Instant::now();
        assert!(running.ask("GET /healthz").await.ends_with("ok\n"));
        assert!(is_served(&mut scraper).await, "who has asked for something stays");
        let mut bytes = Vec::new();
        let closed = timeout(SOON, slow.last_mut().expect("many").read_to_end(&mut bytes)).await;
        assert!(closed.is_ok(), "half a request is not waited for");
        assert!(began.elapsed() < FIRST_REQUEST_TIMEOUT + Duration::from_secs(3), "{:?}", began.elapsed());
        running.ends().await;
    }

    #[tokio::test]
    async fn a_thread_that_hangs_is_no_good_health() {
        let running = Running::start();
        let pulse = Pulse::default();
        let told = |pulse: &Pulse| answer(&Method::GET, "/healthz", &running.shared, pulse).status();
        assert_eq!(told(&pulse), StatusCode::OK);
        pulse.is_lost.store(true, Ordering::Relaxed);
        assert_eq!(told(&pulse), StatusCode::SERVICE_UNAVAILABLE);
        running.ends().await;
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_request_does_not_hold_up_the_end() {
        let running = Running::start();
        let mut stream = running.connect().await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").await.expect("it is connected");
        assert!(running.ask("GET /healthz").await.ends_with("ok\n"));
        running.ends().await;
    }
}
