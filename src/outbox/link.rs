//! The relay's own connection to one of the two servers: questions, several in one write, and rows by COPY, which pass
//! through as they are.
//!
//! Knows nothing of jobs. Every question has a bound on its time; a connection on which one was not answered in time, or
//! was dropped halfway, is to be closed, which undoes what had not been committed.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    backend::{Backend, Credentials, Identity, Server, connect_error::ConnectError, search::connect},
    pool::CheckPlace,
    threads::Home,
    wire::{
        frame::split_message,
        message,
        read::{Body, ErrorFields, Malformed},
    },
};

/// The name of the connections in `pg_stat_activity`.
pub(super) const APPLICATION_NAME: &str = "bulkhead outbox";

/// A question takes no longer than this.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer other than rows that pass through takes no more bytes than this.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Rows are handed on in pieces of about so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes of the first row that are kept: enough for its key.
const FIRST_ROW_BYTES: usize = 8 << 10;

/// Session settings: names mean PostgreSQL's own (but where triggers run), values have one text on both servers, what is missing is an error and
/// not an absence (`row_security`), no time is without bound, and a server notices by itself that this side has vanished, or
/// does not read what it has asked for.
const SETTINGS: &str = "SET search_path = ''; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; \
    SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3; \
    SET bytea_output = 'hex'; SET xmlbinary = 'base64'; SET xmloption = 'content'; SET array_nulls = on; \
    SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET transform_null_equals = off; SET row_security = off; \
    SET jit = off; \
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
    SET default_transaction_deferrable = off; SET enable_seqscan = off; SET enable_mergejoin = off; \
    SET statement_timeout = '25s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET tcp_user_timeout = '30s'; \
    SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
    WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local'); \
    SELECT pg_catalog.set_config(name, CASE name WHEN 'idle_session_timeout' THEN '{idle}' ELSE '0' END, false) \
    FROM pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// SQLSTATEs `lock_not_available`, `query_canceled`, `serialization_failure` and `deadlock_detected`.
const PASSING: [&str; 4] = ["55P03", "57014", "40001", "40P01"];

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection, or no more. What was not committed is undone; whether a COMMIT under way was carried out is not
    /// known.
    #[error("{0}")]
    Lost(String),
    /// The server's error.
    #[error("{server}: {fields}")]
    Server {
        /// The server's name.
        server: String,
        /// The error.
        fields: Box<ErrorFields>,
    },
}

impl Failure {
    /// Whether the server has only not got on in time, or two transactions have met: the same may succeed soon, on the same
    /// connection.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Server { fields, .. } if PASSING.contains(&fields.code.as_str()))
    }
}

/// The answer to one Query.
#[derive(Debug, Default)]
pub struct Reply {
    /// Rows as text; NULL is `None`.
    pub rows: Vec<Vec<Option<String>>>,
    /// The tag of the last command.
    pub tag: String,
    /// The error, if there was one.
    pub error: Option<ErrorFields>,
}

/// The rows that have passed through.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Rows.
    pub(super) rows: u64,
    /// The first bytes of the first row, as COPY writes it.
    pub(super) first: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    backend: Box<Backend>,
    unread: Vec<u8>,
    /// Notifications have come that nobody was told of.
    notified: bool,
    _place: Option<CheckPlace>,
}

impl Link {
    /// Logs in as the user of the server's URL. A connection that is idle for longer than `idle` is the server's to close.
    pub async fn connect(
        server: &Arc<Server>,
        limit: Duration,
        idle: Duration,
        place: Option<CheckPlace>,
    ) -> Result<Self, Failure> {
        let identity = Identity::new(server.database.clone(), server.user.clone(), Credentials::of_url())
            .with_startup(vec![("application_name".to_owned(), APPLICATION_NAME.to_owned())]);
        let identity = Arc::new(identity);
        let connecting = connect(server, &identity, Home(0), limit);
        let backend = timeout(limit, connecting).await.unwrap_or(Err(ConnectError::TimedOut(limit)));
        let lost = |error| Failure::Lost(format!("server \"{}\" cannot be reached: {error}", server.name));
        let mut link =
            Self { backend: backend.map_err(lost)?, unread: Vec::new(), notified: false, _place: place };
        link.ask(&SETTINGS.replace("{idle}", &format!("{}ms", idle.as_millis()))).await?;
        Ok(link)
    }

    /// The name of the server.
    pub fn server(&self) -> &str {
        &self.backend.server.name
    }

    /// Whether the server is still where this connection leads to, and still reached in this way.
    pub(super) fn is_of_use(&self, server: &Arc<Server>) -> bool {
        Arc::ptr_eq(&self.backend.server, server) && self.backend.place.turn == server.in_use.turn()
    }

    /// Asks, and gives the rows, or the server's error.
    pub async fn ask(&mut self, sql: &str) -> Result<Reply, Failure> {
        let mut request = Vec::with_capacity(sql.len() + 8);
        message::query(&mut request, sql.as_bytes());
        let replies = self.exchange(&request, 1).await?;
        let reply = replies.into_iter().next().unwrap_or_default();
        match reply.error {
            Some(fields) => Err(self.error(fields)),
            None => Ok(reply),
        }
    }

    /// The server's error.
    pub(super) fn error(&self, fields: ErrorFields) -> Failure {
        Failure::Server { server: self.server().to_owned(), fields: Box::new(fields) }
    }

    /// Writes several messages at once, of which so many are answered with ReadyForQuery, and gives their replies.
    pub(super) async fn exchange(&mut self, request: &[u8], queries: usize) -> Result<Vec<Reply>, Failure> {
        let talk = async {
            self.send(request).await?;
            let mut replies = Vec::with_capacity(queries);
            for _ in 0..queries {
                replies.push(self.reply().await?);
            }
            Ok(replies)
        };
        timeout(ASK_TIMEOUT, talk).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Runs `sql`, whose last command is a `COPY .. TO STDOUT`, and hands its rows on to `to`, once the first one has come
    /// behind a Query of `opening` there, which is a `COPY .. FROM STDIN`. Returns what has passed; what `to` answers is
    /// still to be read, and its COPY to be ended, if anything has. After a server's error, that has been done.
    pub(super) async fn pass(&mut self, sql: &str, to: &mut Self, opening: &str) -> Result<Passed, Failure> {
        let mut request = Vec::with_capacity(sql.len() + 8);
        message::query(&mut request, sql.as_bytes());
        let talk = async {
            self.send(&request).await?;
            let mut passed = Passed::default();
            let mut error = None;
            // What is to be handed on.
            let mut piece = Vec::new();
            loop {
                let is_over = self.take_rows(opening, &mut passed, &mut error, &mut piece)?;
                if piece.len() >= PIECE_BYTES || (is_over && !piece.is_empty()) {
                    to.send(&piece).await?;
                    piece.clear();
                }
                if is_over {
                    break;
                }
                self.more().await?;
            }
            let Some(fields) = error else { return Ok(passed) };
            if passed.rows > 0 {
                let mut request = Vec::new();
                message::raw(&mut request, b'f', b"the other side has failed\0");
                to.send(&request).await?;
                to.reply().await?;
            }
            Err(self.error(fields))
        };
        timeout(ASK_TIMEOUT, talk).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Moves rows that have come to `piece`; whether they were the last ones.
    fn take_rows(
        &mut self,
        opening: &str,
        passed: &mut Passed,
        error: &mut Option<ErrorFields>,
        piece: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        let mut used = 0;
        let mut is_over = false;
        while let Some((tag, body, rest)) =
            split_message(&self.unread[used..]).map_err(|error| self.nonsense(&error))?
        {
            let end = self.unread.len() - rest.len();
            match tag {
                b'd' => {
                    if passed.rows == 0 {
                        message::query(piece, opening.as_bytes());
                        passed.first = body[..body.len().min(FIRST_ROW_BYTES)].to_vec();
                    }
                    passed.rows += 1;
                    piece.extend_from_slice(&self.unread[used..end]);
                }
                b'E' => *error = Some(ErrorFields::parse(body)),
                b'A' => self.notified = true,
                b'Z' => is_over = true,
                _ => {}
            }
            used = end;
        }
        self.unread.drain(..used);
        Ok(is_over)
    }

    /// Waits until a notification has come.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn notified(&mut self) -> Result<(), Failure> {
        loop {
            while let Some((tag, error)) = self.message()? {
                match tag {
                    b'A' => self.notified = true,
                    b'E' => return Err(self.lost(&error.unwrap_or_default())),
                    _ => {}
                }
            }
            if std::mem::take(&mut self.notified) {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Takes the next message off what was read: its tag, and its error if it is one.
    fn message(&mut self) -> Result<Option<(u8, Option<ErrorFields>)>, Failure> {
        let Some((tag, body, rest)) = split_message(&self.unread).map_err(|error| self.nonsense(&error))?
        else {
            return Ok(None);
        };
        let error = (tag == b'E').then(|| ErrorFields::parse(body));
        let used = self.unread.len() - rest.len();
        self.unread.drain(..used);
        Ok(Some((tag, error)))
    }

    /// Reads up to the next ReadyForQuery.
    async fn reply(&mut self) -> Result<Reply, Failure> {
        let mut reply = Reply::default();
        let mut bytes = 0;
        loop {
            let mut used = 0;
            let mut is_over = false;
            while let Some((tag, body, rest)) =
                split_message(&self.unread[used..]).map_err(|error| self.nonsense(&error))?
            {
                let end = self.unread.len() - rest.len();
                match tag {
                    b'D' => {
                        bytes += body.len();
                        reply.rows.push(row(body).map_err(|error| self.nonsense(&error))?);
                    }
                    b'C' => {
                        let tag = body.strip_suffix(&[0]).unwrap_or(body);
                        reply.tag = String::from_utf8_lossy(tag).into_owned();
                    }
                    b'E' if reply.error.is_none() => reply.error = Some(ErrorFields::parse(body)),
                    b'A' => self.notified = true,
                    b'Z' => is_over = true,
                    _ => {}
                }
                used = end;
                if is_over {
                    break;
                }
            }
            self.unread.drain(..used);
            if is_over {
                return Ok(reply);
            }
            if bytes + self.unread.len() > ANSWER_BYTES_MAX {
                return Err(self.nonsense(&"its answer is longer than can be kept"));
            }
            if let Err(lost) = self.more().await {
                // What the server said before it closed says why.
                return Err(reply.error.map_or(lost, |fields| self.lost(&fields)));
            }
        }
    }

    /// Writes all of this.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.backend.server.traffic.count_sent(bytes.len());
        let sent = self.backend.socket.send_all(bytes).await;
        sent.map_err(|error| self.lost(&error))
    }

    /// Reads what comes next.
    ///
    /// Cancel safe.
    async fn more(&mut self) -> Result<(), Failure> {
        let before = self.unread.len();
        let read = self.backend.read_more(&mut self.unread).await;
        self.backend.server.traffic.count_received(self.unread.len() - before);
        read.map_err(|broken| Failure::Lost(broken.to_string()))
    }

    fn lost(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::Lost(format!("connection to server \"{}\" was lost: {why}", self.server()))
    }

    fn nonsense(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::Lost(format!("server \"{}\" broke the protocol: {what}", self.server()))
    }

    fn too_late(&self) -> Failure {
        Failure::Lost(format!("server \"{}\" did not answer within {ASK_TIMEOUT:?}", self.server()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It is closed all the same.
        let _ = self.backend.socket.send_now(&message::TERMINATE);
    }
}

impl Reply {
    /// A value, empty for NULL or none.
    pub fn value(&self, row: usize, column: usize) -> &str {
        let row = self.rows.get(row).map(Vec::as_slice).unwrap_or_default();
        row.get(column).and_then(Option::as_deref).unwrap_or_default()
    }

    /// A number in the first row, 0 for none.
    pub fn number(&self, column: usize) -> u64 {
        self.value(0, column).parse().unwrap_or(0)
    }
}

fn row(body: &[u8]) -> Result<Vec<Option<String>>, Malformed> {
    let mut body = Body::new(body, "DataRow");
    let mut row = Vec::new();
    for _ in 0..body.int16()? {
        let len = body.int32()?;
        row.push(match usize::try_from(len) {
            Ok(len) => Some(String::from_utf8_lossy(body.take(len)?).into_owned()),
            Err(_) => None,
        });
    }
    Ok(row)
}
