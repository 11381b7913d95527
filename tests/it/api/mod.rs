//! `/api/v1` and the live page: what they tell, who may do what, and their bounds.

mod actions;
mod bounds;
mod page;
mod shapes;
#[cfg(feature = "top")]
mod top;

use std::time::Duration;

use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::Proxy;

const SOON: Duration = Duration::from_secs(10);
const TOKEN: &str = "a-token-of-an-operator";

/// An answer over HTTP.
#[derive(Debug)]
struct Told {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Told {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends these bytes and reads to the end of the connection.
async fn send(proxy: &Proxy, request: &str) -> Told {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.http_port())).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut response = Vec::new();
        // Who refuses without reading all resets the connection afterwards.
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8(response).expect("it is text")
    };
    let response = timeout(Duration::from_secs(40), exchange).await.expect("it answers in time");
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// A request with these lines in its head.
async fn ask(proxy: &Proxy, line: &str, headers: &str) -> Told {
    send(proxy, &format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")).await
}

async fn get(proxy: &Proxy, path: &str) -> Told {
    ask(proxy, &format!("GET {path}"), "").await
}

/// An action with the token.
async fn act(proxy: &Proxy, path: &str) -> Told {
    ask(proxy, &format!("POST /api/v1/{path}"), &format!("Authorization: Bearer {TOKEN}\r\n")).await
}
