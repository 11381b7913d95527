//! Asking a running Bulkhead over HTTP how it is: `bulkhead health`, for health checks of containers that have no
//! HTTP client.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::config::Config;

/// Connecting, and each read and write. A health check that takes longer says that something is wrong.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A longer answer is cut off; `/metrics` with all pools is far below.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const OK: u16 = 200;

/// Why Bulkhead is not healthy, as far as can be told.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The configuration switches HTTP off.
    #[error("listen.http is \"off\": there is nothing to ask; write an address such as \"127.0.0.1:9930\"")]
    Off,
    /// Nobody answers.
    #[error("http://{address}/readyz does not answer: {error}")]
    Silent {
        /// Where it was asked.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The answer is that it should get no clients.
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks `/readyz` of the Bulkhead that runs with this configuration; its answer if it can be sent clients.
pub fn check(config: &Config) -> Result<String, Unhealthy> {
    let address = reachable(config.listen.http.ok_or(Unhealthy::Off)?);
    let (status, text) = get(address, "/readyz").map_err(|error| Unhealthy::Silent { address, error })?;
    let text = text.trim().to_owned();
    if status == OK { Ok(text) } else { Err(Unhealthy::NotReady(text)) }
}

/// Status and body of `GET http://ADDRESS/PATH`.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    get_within(TIMEOUT, address, path)
}

/// The same for an answer each piece of which may take so long.
pub(super) fn get_within(limit: Duration, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, limit.min(TIMEOUT))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0, so that the body comes in one piece and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// The address at which one that listens at this one is asked: on the loopback interface if that is all.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            let address = reachable(listens.parse().expect("an address"));
            assert_eq!(address.to_string(), asked);
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for answer in ["", "HTTP/1.1 200 OK\r\n", "+OK\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                // The request first: closing with it unread would reset the connection.
                let mut request = [0; 512];
                let _ = stream.read(&mut request).expect("a request");
                stream.write_all(answer.as_bytes()).expect("it reads");
            });
            let error = get(address, "/").expect_err("not HTTP");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{answer:?}: {error}");
            server.join().expect("no panic");
        }
    }
}
