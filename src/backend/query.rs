//! Asking a backend ourselves: a Query on a backend that is in no transaction and answers nobody else.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Backend, Broken, Server, outgoing::Outgoing, statements::UnnamedText};
use crate::wire::{
    frame, message,
    read::{Body, ErrorFields},
};

/// An answer to a question of ours takes no more memory than this, nor more bytes on its way, whatever the server sends.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A question of ours to a backend that somebody waits for takes no longer than this.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of what `server` is asked, or, if that is not there within `limit`, that the server did not answer in time.
/// A backend whose question was given up halfway is not quiescent.
pub async fn in_time<T, E: From<Broken>>(
    limit: Duration,
    server: &Arc<Server>,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let timed_out = |_| Err(Broken::TimedOut { server: server.name.clone() }.into());
    timeout(limit, asked).await.unwrap_or_else(timed_out)
}

/// The answer to a question of ours.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows, as text; NULL is `None`.
    pub rows: Vec<Vec<Option<String>>>,
    /// The error, if it answered with one.
    pub error: Option<ErrorFields>,
    /// Bytes that came along and are for the session's client (notifications).
    pub for_client: Vec<u8>,
    /// Notices and warnings that came with it, as messages; most questions of ours are none of the client's.
    pub notices: Vec<u8>,
    /// Memory that the rows take.
    rows_bytes: usize,
}

impl Backend {
    /// Runs `sql` and collects its answer. Dropped halfway, the backend is not quiescent and will be closed, and so it
    /// is after an answer that is too long.
    pub async fn ask(&mut self, sql: &str) -> Result<Answer, Broken> {
        self.ask_within(sql, ANSWER_BYTES_MAX).await
    }

    /// Asks as [`Backend::ask`] does, with a bound of its own on the answer.
    pub async fn ask_within(&mut self, sql: &str, bytes_max: usize) -> Result<Answer, Broken> {
        let mut request = Vec::with_capacity(sql.len() + 8);
        message::query(&mut request, sql.as_bytes());
        self.send(&request)?;
        self.protocol.sent_ours();
        self.statements.unnamed = UnnamedText::None;
        let mut answer = Answer::default();
        let mut unread = Vec::new();
        let mut received = 0_usize;
        while !self.protocol.is_answered() {
            let chunk = match self.next_chunk().await {
                Ok(chunk) => chunk,
                // What the server said before it closed is the answer.
                Err(broken) if answer.error.is_some() => {
                    tracing::debug!(%broken, "the server ended the connection with an error");
                    return Ok(answer);
                }
                Err(broken) => return Err(broken),
            };
            received += chunk.len();
            if received > bytes_max || answer.rows_bytes + unread.len() > bytes_max {
                return Err(self.nonsense(&format_args!(
                    "its answer to a question of ours takes more than {bytes_max} bytes"
                )));
            }
            let mut out = Outgoing::default();
            self.protocol.receive(&chunk, &mut out).map_err(|error| self.nonsense(&error))?;
            answer.for_client.extend_from_slice(out.bytes(&chunk));
            unread.extend_from_slice(&chunk);
            let taken = answer.read(&unread).map_err(|error| self.nonsense(&error))?;
            unread.drain(..taken);
        }
        self.protocol.take_heard();
        self.protocol.take_error();
        Ok(answer)
    }

    async fn next_chunk(&mut self) -> Result<Vec<u8>, Broken> {
        std::future::poll_fn(|cx| self.socket.poll_flush(cx, &mut self.unsent))
            .await
            .map_err(|error| self.broken(error))?;
        let mut chunk = Vec::new();
        self.read_more(&mut chunk).await?;
        self.server.traffic.count_received(chunk.len());
        self.usage.received_bytes += chunk.len() as u64;
        Ok(chunk)
    }
}

impl Answer {
    /// Reads whole messages; returns how many bytes they were.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut rest = bytes;
        while let Some((tag, body, after)) = frame::split_message(rest).map_err(|error| error.to_string())? {
            match tag {
                b'D' => {
                    let row = read_row(body).map_err(|error| error.to_string())?;
                    // A row of nothing but NULLs is larger here than on its way.
                    self.rows_bytes += size_of_val(&row) + size_of_val(row.as_slice()) + body.len();
                    self.rows.push(row);
                }
                b'N' => message::raw(&mut self.notices, b'N', body),
                b'E' => self.error = Some(ErrorFields::parse(body)),
                _ => {}
            }
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }
}

fn read_row(body: &[u8]) -> Result<Vec<Option<String>>, crate::wire::read::Malformed> {
    let mut body = Body::new(body, "DataRow");
    let columns = body.int16()?;
    let mut row = Vec::new();
    for _ in 0..columns {
        let len = body.int32()?;
        row.push(match usize::try_from(len) {
            Ok(len) => Some(String::from_utf8_lossy(body.take(len)?).into_owned()),
            Err(_) => None,
        });
    }
    Ok(row)
}
