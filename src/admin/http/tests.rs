//! The server's bounds and its oldest paths, over real connections.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    super::{fixture::shared, paths::for_machines, pulse::Pulse, stream::Hub},
    *,
};
use crate::{shared::Snapshot, topology::Known};

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
        tasks.spawn(serve(listener, (current, Arc::default()), threads, stop.clone()));
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
        ("GET /", "200", "</html>\n"),
        ("GET /nowhere", "404", "there are /, /metrics, /healthz, /readyz and /api/v1/\n"),
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
    let told = |pulse: &Pulse| for_machines("/healthz", &running.shared, pulse).status();
    assert_eq!(told(&pulse), hyper::StatusCode::OK);
    pulse.set_lost(true);
    assert_eq!(told(&pulse), hyper::StatusCode::SERVICE_UNAVAILABLE);
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

#[tokio::test]
async fn a_watcher_that_reads_nothing_is_closed_and_keeps_nobody_waiting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("sockets have the option");
    let address = listener.local_addr().expect("it is bound");
    let current = Arc::new(Current::new(Arc::new(shared())));
    // As many events as fill the system's buffers soon.
    let hub = Hub::every(Duration::from_millis(1));
    let site = Arc::new(Site { hub, ..Site::new(current, Arc::default()) });
    let threads = Spawner {
        tracker: tokio_util::task::TaskTracker::new(),
        threads: Arc::new([tokio::runtime::Handle::current()]),
    };
    let stop = CancellationToken::new();
    let serving = serve_here(listener, Arc::clone(&site), threads, stop.clone());
    let watching = async {
        let request = b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        let mut slow = socket.connect(address).await.expect("it listens");
        slow.write_all(request).await.expect("it reads");
        let mut quick = TcpStream::connect(address).await.expect("it listens");
        quick.write_all(request).await.expect("it reads");
        let (mut bytes, mut read) = (vec![0; 65_536], 0);
        // The slow one has gone when only one is left; the other one has been told all the time.
        while site.hub.listeners() != 1 || read == 0 {
            read += quick.read(&mut bytes).await.expect("it is told");
        }
        let mut rest = Vec::new();
        let ended = slow.read_to_end(&mut rest).await;
        assert!(ended.is_err() || !rest.is_empty(), "it was closed in the middle of what it did not read");
        assert!(quick.read(&mut bytes).await.expect("it goes on") > 0);
        stop.cancel();
    };
    let both = async { tokio::join!(serving, watching) };
    timeout(Duration::from_secs(30), both).await.expect("the slow one is given up");
}
