//! Ports, connections and HTTP.

use std::{
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_postgres::{Client, Config, NoTls};

/// Below the range from which the system takes the ports of outgoing connections (`net.ipv4.ip_local_port_range`): a
/// connection of another test, or a test's own to a port where nobody listens yet, cannot take one of these.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

/// A port of this machine that nobody listens on. Whoever uses it must be ready to find it taken after all.
pub(crate) fn free_port() -> u16 {
    // Tests run at the same time, each as a process of its own: chance keeps them apart.
    let seeds = std::iter::repeat_with(|| RandomState::new().hash_one(()));
    let ports = seeds.map(|seed| PORTS.start + (seed % PORTS.len() as u64) as u16);
    let mut free = ports.take(1_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("the loopback interface has a free port")
}

/// A client of `url`, whose connection is driven by a task of its own.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config: Config = url.parse()?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    connect_config(&config).await
}

pub(super) async fn connect_config(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // Its error also reaches the client's next call, so it need not be reported here.
    tokio::spawn(connection);
    Ok(client)
}

/// Status and body of `GET http://127.0.0.1:port/path`.
pub(crate) async fn http_get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        std::io::Result::Ok(response)
    };
    let response = timeout(Duration::from_secs(10), exchange).await.map_err(std::io::Error::other)??;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((
        status,
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_owned()
        },
    ))
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
        text.push_str(chunk);
        body = rest[length..].trim_start_matches("\r\n");
    }
    text
}
