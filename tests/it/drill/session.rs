//! A client's connection that takes every end for an answer: who meets it is told what, and how long it took.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use crate::support::{Message, RawClient};

/// No answer within this counts as none at all; more than every bound, and less than the harness's own patience.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is said in place of an SQLSTATE.
const CLOSED: &str = "closed";
const REFUSED: &str = "refused";
const SILENCE: &str = "silence";

/// Marks what ended the session.
pub(super) const ENDS: char = '†';

pub(super) struct Session {
    raw: RawClient,
    /// The longest that one exchange has taken, and its text.
    pub(super) longest: (Duration, String),
}

/// What came in place of success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// SQLSTATE, or a word where there is none.
    pub(super) code: String,
    /// Message and detail.
    pub(super) text: String,
    /// The session has ended with it.
    pub(super) ended: bool,
    /// What was asked for.
    pub(super) asked: String,
}

impl Refusal {
    fn ended(code: &str) -> Self {
        Self { code: code.to_owned(), text: String::new(), ended: true, asked: String::new() }
    }

    fn of(error: &Message) -> Self {
        let field = |name| error.field(name).unwrap_or_default();
        Self {
            code: field(b'C'),
            text: format!("{}; {}", field(b'M'), field(b'D')),
            ended: field(b'S') != "ERROR",
            asked: String::new(),
        }
    }

    /// As the table has it.
    pub(super) fn seen(&self) -> String {
        if self.ended { format!("{}{ENDS}", self.code) } else { self.code.clone() }
    }

    /// Whether what was asked for may have been done.
    pub(super) fn is_unknown(&self) -> bool {
        self.ended || self.code == "08007" || self.text.contains("unknown")
    }
}

impl Session {
    /// Logs in as `app` where no password is asked for.
    pub(super) async fn login(port: u16, name: &str, options: &[(&str, &str)]) -> Result<Self, Refusal> {
        let opened = timeout(PATIENCE, RawClient::try_open(port)).await;
        let Ok(Ok(mut raw)) = opened else { return Err(Refusal::ended(REFUSED)) };
        let mut packet = BytesMut::new();
        let parameters =
            [&[("user", "app"), ("database", "app"), ("application_name", name)], options].concat();
        // What is named twice, a server takes the last of.
        frontend::startup_message(parameters, &mut packet).expect("no zero bytes");
        raw.bytes(&packet);
        let mut session = Self { raw, longest: (Duration::ZERO, String::new()) };
        session.exchange("login").await.map(|_| session)
    }

    /// To say something; nothing is sent before the next exchange.
    pub(super) fn say(&mut self) -> &mut RawClient {
        &mut self.raw
    }

    /// Sends a Query and returns its answer.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<Message>, Refusal> {
        self.raw.message(b'Q', format!("{sql}\0").as_bytes());
        self.exchange(sql).await
    }

    /// Sends what was said and returns what comes up to ReadyForQuery.
    pub(super) async fn exchange(&mut self, what: &str) -> Result<Vec<Message>, Refusal> {
        self.exchange_until(what, b'Z').await
    }

    /// Sends what was said and returns what comes up to a message with this tag. An error that comes before it is
    /// returned at once, except before a ReadyForQuery, which is read as well then.
    pub(super) async fn exchange_until(&mut self, what: &str, last: u8) -> Result<Vec<Message>, Refusal> {
        let began = Instant::now();
        // To one that is closed: what it said before is still to be read.
        self.raw.try_flush().await;
        let answer = self.read(last).await;
        let took = began.elapsed();
        if took > self.longest.0 {
            self.longest = (took, what.to_owned());
        }
        answer.map_err(|refusal| Refusal { asked: what.to_owned(), ..refusal })
    }

    async fn read(&mut self, last: u8) -> Result<Vec<Message>, Refusal> {
        let mut messages = Vec::new();
        let mut error = None;
        loop {
            let message = match timeout(PATIENCE, self.raw.try_read_message()).await {
                Err(_) => return Err(Refusal::ended(SILENCE)),
                Ok(None) => return Err(Refusal::ended(CLOSED)),
                Ok(Some(message)) => message,
            };
            if message.tag == b'E' {
                let refusal = Refusal::of(&message);
                if refusal.ended || last != b'Z' {
                    return Err(refusal);
                }
                error.get_or_insert(refusal);
            }
            let is_last = message.tag == last;
            messages.push(message);
            if is_last {
                return error.map_or(Ok(messages), Err);
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn leave(mut self) {
        self.raw.message(b'X', &[]).try_flush().await;
    }
}
