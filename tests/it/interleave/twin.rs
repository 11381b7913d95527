//! One side of a session: carries out its steps and writes down all that the server tells, as lines that two servers
//! have in common.

use std::{fmt::Write, time::Duration};

use bytes::Buf;
use tokio::time::timeout;

use super::acts::Act;
use crate::support::{Message, RawClient};

/// An answer that takes longer is a difference.
const PATIENCE: Duration = Duration::from_secs(10);

/// So is a notification that takes longer than this after the other side's.
const NOTIFICATION_PATIENCE: Duration = Duration::from_secs(3);

/// OIDs from here on are those of objects that users made, and differ between servers.
const FIRST_USER_OID: u32 = 16_384;

/// What both servers are sent when they ask for COPY data.
const COPY_DATA: &[u8] = b"7\tcopied\n8\tas well\n";
const BAD_COPY_DATA: &[u8] = b"x\ty\n";

/// A connection, straight or through the proxy, and where its conversation stands.
pub(super) struct Twin {
    port: u16,
    database: String,
    client: Option<RawClient>,
    status: u8,
    copies: usize,
    /// The notifications so far. No rule says when one comes that another session has sent, but in which order.
    heard: Vec<String>,
}

impl Twin {
    pub(super) fn new(port: u16, database: &str) -> Self {
        Self { port, database: database.to_owned(), client: None, status: b'I', copies: 0, heard: Vec::new() }
    }

    /// The transaction status last told.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    pub(super) fn heard(&self) -> &[String] {
        &self.heard
    }

    /// Waits, between two steps, until so many notifications have come; not forever.
    pub(super) async fn hear(&mut self, count: usize) {
        let Some(client) = &mut self.client else { return };
        while self.heard.len() < count {
            match timeout(NOTIFICATION_PATIENCE, client.try_read_message()).await {
                Ok(Some(message)) if message.tag == b'S' => {}
                Ok(Some(message)) => self.heard.push(told(&message)),
                Ok(None) | Err(_) => return,
            }
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Does the step; what the server said.
    pub(super) async fn act(&mut self, act: &Act) -> Vec<String> {
        let mut said = Vec::new();
        if let Act::Login(parameters) = act {
            self.login(parameters, &mut said).await;
        } else {
            let Some(client) = &mut self.client else { return vec!["not connected".to_owned()] };
            let readies = act.write(client);
            client.try_flush().await;
            self.listen(readies, matches!(act, Act::Messages(_)), &mut said).await;
        }
        if let Some(client) = &self.client {
            let mut parameters: Vec<_> =
                client.parameters().iter().map(|(name, value)| format!("{name}={value}")).collect();
            parameters.sort();
            said.push(format!("parameters {}", parameters.join(" ")));
        }
        said
    }

    async fn login(&mut self, parameters: &[(&str, &str)], said: &mut Vec<String>) {
        if let Some(mut client) = self.client.take() {
            client.terminate().await;
            // The server has ended the session when it closes: its locks and tables are gone then.
            while let Ok(Some(_)) = timeout(PATIENCE, client.try_read_message()).await {}
        }
        self.status = b'I';
        self.heard.clear();
        let mut client = RawClient::open(self.port).await;
        client
            .startup(&[&[("user", "app"), ("database", self.database.as_str())], parameters].concat())
            .await;
        if let Some(error) = client.authenticate("app", "secret").await {
            said.push(told(&error));
        } else {
            said.push("logged in".to_owned());
            self.client = Some(client);
        }
    }

    async fn listen(&mut self, mut readies: usize, extended: bool, said: &mut Vec<String>) {
        let Some(client) = &mut self.client else { return };
        while readies > 0 {
            let message = match timeout(PATIENCE, client.try_read_message()).await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    said.push("closed".to_owned());
                    self.client = None;
                    self.status = b'I';
                    return;
                }
                Err(_) => {
                    said.push("no answer".to_owned());
                    self.client = None;
                    return;
                }
            };
            match message.tag {
                b'S' => continue,
                b'A' => {
                    self.heard.push(told(&message));
                    continue;
                }
                b'Z' => {
                    readies -= 1;
                    self.status = message.body[0];
                }
                b'G' => {
                    self.copies += 1;
                    match self.copies % 5 {
                        0 => client.message(b'd', COPY_DATA).message(b'f', b"no more\0"),
                        1 => client.message(b'd', BAD_COPY_DATA).message(b'd', COPY_DATA).message(b'c', b""),
                        _ => client.message(b'd', COPY_DATA).message(b'c', b""),
                    };
                    if extended {
                        client.sync();
                    }
                    client.try_flush().await;
                }
                _ => {}
            }
            said.push(told(&message));
        }
    }
}

/// A message as a line, without what must differ.
fn told(message: &Message) -> String {
    match message.tag {
        b'E' | b'N' => {
            let fields = b"SVCMDHPpqWstcdn".iter().filter_map(|field| {
                message.field(*field).map(|text| format!(" {}={}", char::from(*field), neutral(&text)))
            });
            format!("{}{}", char::from(message.tag), fields.collect::<String>())
        }
        b'D' => format!("D {}", neutral(&format!("{:?}", message.columns()))),
        b'T' => format!("T{}", columns(message)),
        b'A' => format!("A {:?}", message.body.get(4..)),
        tag => format!("{} {}", char::from(tag), message.body.escape_ascii()),
    }
}

/// A RowDescription.
fn columns(message: &Message) -> String {
    let mut body = message.body.clone();
    let count = body.get_u16();
    let mut text = String::new();
    for _ in 0..count {
        let length = body.iter().position(|byte| *byte == 0).expect("names end with a zero");
        let name = body.split_to(length);
        body.advance(1);
        let of_table = body.get_u32() != 0;
        let column = body.get_u16();
        let oid = body.get_u32();
        let type_oid = if oid < FIRST_USER_OID { oid.to_string() } else { "user".to_owned() };
        let (length, modifier, format) = (body.get_i16(), body.get_i32(), body.get_i16());
        let name = name.escape_ascii();
        write!(text, " {name}({of_table} {column} {type_oid} {length} {modifier} {format})")
            .expect("text takes text");
    }
    text
}

/// A text without numbers of temporary schemas, and without the names of protocol-level statements, which the proxy
/// gives its own on the server.
fn neutral(text: &str) -> String {
    let text = without_number(text, "pg_temp_", 10)
        .replace("\"m1\"", "\"bulkhead_\"")
        .replace("\"m2\"", "\"bulkhead_\"");
    without_number(&text, "bulkhead_", 16)
}

/// A text without the digits that follow a prefix.
fn without_number(text: &str, prefix: &str, radix: u32) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find(prefix) {
        let (before, after) = rest.split_at(at + prefix.len());
        out += before;
        rest = after.trim_start_matches(|c: char| c.is_digit(radix));
    }
    out + rest
}
