//! Bounds of the API: sizes, names, listeners of the stream.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use super::{SOON, TOKEN, act, ask, get, send};
use crate::support::{Postgres, Proxy, ProxyConfig, Role};

const LISTENERS_MAX: usize = 16;

fn proxy() -> (Postgres, Proxy) {
    let primary = Postgres::start(Role::Primary);
    let proxy =
        Proxy::start(&ProxyConfig::primary_only(&primary).set("listen", "http_token", TOKEN).to_toml());
    (primary, proxy)
}

/// Somebody who watches.
struct Watcher {
    stream: TcpStream,
    read: String,
}

impl Watcher {
    async fn new(proxy: &Proxy) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.http_port())).await.expect("it listens");
        let request = b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        stream.write_all(request).await.expect("it reads");
        Self { stream, read: String::new() }
    }

    /// Reads until so many events, or an end of the headers, are there.
    async fn has(&mut self, what: &str, count: usize) -> bool {
        let mut bytes = vec![0; 65_536];
        let reading = async {
            while self.read.matches(what).count() < count {
                match self.stream.read(&mut bytes).await {
                    Ok(len @ 1..) => self.read.push_str(&String::from_utf8_lossy(&bytes[..len])),
                    _ => return false,
                }
            }
            true
        };
        timeout(SOON, reading).await.expect("in time")
    }
}

#[tokio::test]
async fn the_stream_tells_once_a_second_to_a_bounded_number() {
    let (_primary, proxy) = proxy();
    let mut first = Watcher::new(&proxy).await;
    assert!(first.has("data: ", 1).await);
    assert!(first.read.to_ascii_lowercase().contains("content-type: text/event-stream"), "{}", first.read);
    let began = Instant::now();
    assert!(first.has("data: ", 4).await);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2_500), "three events came in {took:?}");
    let event =
        first.read.split("data: ").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("an event");
    let told: serde_json::Value = serde_json::from_str(event).expect("JSON in one line");
    for part in ["level", "summary", "clients", "pools", "servers", "pins", "reasons", "events"] {
        assert!(!told[part].is_null(), "{part}: {told}");
    }
    let mut others = Vec::new();
    for _ in 1..LISTENERS_MAX {
        let mut watcher = Watcher::new(&proxy).await;
        assert!(watcher.has("data: ", 1).await);
        others.push(watcher);
    }
    let mut late = Watcher::new(&proxy).await;
    assert!(late.has("\r\n\r\n", 1).await && late.read.starts_with("HTTP/1.1 503 "), "{}", late.read);
    // Who goes makes room, and the others are still told.
    drop(others.pop());
    let again = async {
        loop {
            let mut watcher = Watcher::new(&proxy).await;
            assert!(watcher.has("\r\n\r\n", 1).await);
            if watcher.read.starts_with("HTTP/1.1 200 ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, again).await.expect("there is room");
    let events = first.read.matches("data: ").count();
    assert!(first.has("data: ", events + 2).await);
    assert_eq!(get(&proxy, "/healthz").await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_or_makes_no_sense_is_refused() {
    let (_primary, proxy) = proxy();
    let huge = format!("X-Huge: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(ask(&proxy, "GET /api/v1/health", &huge).await.status, 431);
    let body = "x".repeat(100_000);
    let request = format!(
        "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(send(&proxy, &request).await.status, 413);
    for (line, status) in [
        ("GET /api/v1/clients?limit=1001", 400),
        ("GET /api/v1/clients?limit=0", 400),
        ("GET /api/v1/nothing", 404),
        ("GET /api/v1/", 404),
        ("GET /api/v2/health", 404),
        ("POST /api/v1/health", 405),
        ("POST /api/v1/nothing", 404),
        ("POST /", 405),
    ] {
        let told = ask(&proxy, line, "").await;
        assert_eq!(told.status, status, "{line}: {told:?}");
    }
    assert_eq!(act(&proxy, "pools/primary/reconnect").await.status, 200);
}

#[tokio::test]
async fn a_name_that_may_be_anybodys_is_not_served() {
    let (_primary, proxy) = proxy();
    for (host, status) in [
        ("evil.example", 421),
        ("evil.example:9930", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.1:9930", 200),
        ("[::1]:9930", 200),
        ("localhost", 200),
        ("bulkhead:9930", 200),
    ] {
        for path in ["health", "clients", "events"] {
            let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let told = send(&proxy, &request).await;
            assert_eq!(told.status, status, "{host} {path}: {told:?}");
            assert!(!told.head.contains("access-control-"), "{told:?}");
        }
    }
    // An action under a foreign name is none, though the token is right.
    let request = format!(
        "POST /api/v1/pools/primary/pause HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\n\r\n"
    );
    assert_eq!(send(&proxy, &request).await.status, 421);
    assert_ne!(get(&proxy, "/api/v1/pools").await.json()["pools"][0]["state"], "paused");
}
