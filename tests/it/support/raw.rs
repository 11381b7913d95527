//! A client that speaks the protocol message by message and may say anything: for tests of the protocol itself.

use std::{collections::HashMap, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::{
    IsNull,
    authentication::{md5_hash, sasl},
    message::frontend,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Login, told};

/// No answer within this is a failure.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a client says, as far as it is pending; [`RawClient::flush`] sends it.
pub(crate) type Say = fn(&mut RawClient);

/// One message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    /// Without tag and length.
    pub(crate) body: Bytes,
}

/// A connection that holds what is to be sent until [`Self::flush`], so that tests choose what goes in one write.
pub(crate) struct RawClient {
    stream: TcpStream,
    received: BytesMut,
    pending: BytesMut,
    parameters: HashMap<String, String>,
    key: (i32, Bytes),
}

impl Message {
    /// A field of an `ErrorResponse` or `NoticeResponse`: `b'C'` is the SQLSTATE, `b'M'` the message.
    pub(crate) fn field(&self, name: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let field = fields.filter_map(|field| field.split_first()).find(|(tag, _)| **tag == name);
        field.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    }

    /// The columns of a `DataRow`, as text.
    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "a DataRow is expected, not {self:?}");
        let mut body = self.body.clone();
        let count = body.get_u16();
        let column = |body: &mut Bytes| {
            let length = usize::try_from(body.get_i32()).ok()?;
            Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
        };
        (0..count).map(|_| column(&mut body)).collect()
    }
}

impl RawClient {
    /// A TCP connection on which nothing has been said.
    pub(crate) async fn open(port: u16) -> Self {
        Self::try_open(port).await.expect("the server accepts connections")
    }

    /// [`Self::open`], or why nobody takes the connection.
    pub(crate) async fn try_open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: BytesMut::new(),
            pending: BytesMut::new(),
            parameters: HashMap::new(),
            key: (0, Bytes::new()),
        })
    }

    /// A session of the user `app` in its database.
    pub(crate) async fn app(port: u16) -> Self {
        Self::login(port, Login::App, "app").await
    }

    /// Logs in as one of the harness's roles and returns when the server is ready.
    pub(crate) async fn login(port: u16, login: Login, database: &str) -> Self {
        let client = Self::try_login(port, login, &[("database", database)]).await;
        client.unwrap_or_else(|error| {
            panic!("{login:?} is refused: {:?} {:?}", error.field(b'C'), error.field(b'M'))
        })
    }

    /// The same with these startup parameters; the error if the login is refused.
    pub(crate) async fn try_login(
        port: u16,
        login: Login,
        parameters: &[(&str, &str)],
    ) -> Result<Self, Message> {
        let (user, password) = login.credentials();
        let mut client = Self::open(port).await;
        client.startup(&[&[("user", user)], parameters].concat()).await;
        client.authenticate(user, password).await.map_or(Ok(client), Err)
    }

    /// Sends a StartupMessage of protocol 3.0.
    pub(crate) async fn startup(&mut self, parameters: &[(&str, &str)]) {
        frontend::startup_message(parameters.iter().copied(), &mut self.pending)
            .expect("no zero bytes in parameters");
        self.flush().await;
    }

    /// Sends a StartupMessage of protocol 3 with this minor version.
    pub(crate) async fn startup_minor(&mut self, minor: u16, parameters: &[(&str, &str)]) {
        let start = self.pending.len();
        frontend::startup_message(parameters.iter().copied(), &mut self.pending)
            .expect("no zero bytes in parameters");
        self.pending[start + 6..start + 8].copy_from_slice(&minor.to_be_bytes());
        self.flush().await;
    }

    /// Answers whatever is asked until the server is ready; the error if it refuses.
    pub(crate) async fn authenticate(&mut self, user: &str, password: &str) -> Option<Message> {
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            let message = self.read_message().await;
            let mut body = message.body.clone();
            match message.tag {
                b'E' => return Some(message),
                b'Z' => return None,
                b'K' => self.key = (body.get_i32(), body),
                b'R' => match body.get_i32() {
                    0 => (),
                    3 => frontend::password_message(password.as_bytes(), &mut self.pending)
                        .expect("no zero bytes"),
                    5 => {
                        let salt = body[..4].try_into().expect("a salt has 4 bytes");
                        let hash = md5_hash(user.as_bytes(), password.as_bytes(), salt);
                        frontend::password_message(hash.as_bytes(), &mut self.pending)
                            .expect("no zero bytes");
                    }
                    10 => {
                        let binding = sasl::ChannelBinding::unsupported();
                        let new = scram.insert(sasl::ScramSha256::new(password.as_bytes(), binding));
                        frontend::sasl_initial_response(
                            sasl::SCRAM_SHA_256,
                            new.message(),
                            &mut self.pending,
                        )
                        .expect("short enough");
                    }
                    11 => {
                        let state = scram.as_mut().expect("SASL has begun");
                        state.update(&body).expect("the server's first message is valid");
                        frontend::sasl_response(state.message(), &mut self.pending).expect("short enough");
                    }
                    12 => scram
                        .as_mut()
                        .expect("SASL has begun")
                        .finish(&body)
                        .expect("the server knows the password"),
                    other => panic!("authentication request {other}"),
                },
                _ => (),
            }
            self.flush().await;
        }
    }

    /// What the server last told of a parameter (ParameterStatus).
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// All parameters that the server has told of, as last told.
    pub(crate) fn parameters(&self) -> &HashMap<String, String> {
        &self.parameters
    }

    /// Process id and secret, for [`Self::cancel`].
    pub(crate) fn key(&self) -> &(i32, Bytes) {
        &self.key
    }

    // What follows appends to the pending bytes; nothing is sent before `flush`.

    /// Any bytes at all.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.pending.extend_from_slice(bytes);
        self
    }

    /// A message with any tag and body.
    pub(crate) fn message(&mut self, tag: u8, body: &[u8]) -> &mut Self {
        self.pending.put_u8(tag);
        self.pending.put_u32(body.len() as u32 + 4);
        self.bytes(body)
    }

    pub(crate) fn parse(&mut self, name: &str, sql: &str) -> &mut Self {
        frontend::parse(name, sql, [], &mut self.pending).expect("no zero bytes");
        self
    }

    /// Binds text parameters; the results are text.
    pub(crate) fn bind(&mut self, portal: &str, statement: &str, parameters: &[Option<&str>]) -> &mut Self {
        let put = |value: Option<&str>, buffer: &mut BytesMut| match value {
            None => Ok(IsNull::Yes),
            Some(text) => {
                buffer.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        };
        let bound =
            frontend::bind(portal, statement, [], parameters.iter().copied(), put, [0], &mut self.pending);
        assert!(bound.is_ok(), "parameters are short and have no zero bytes");
        self
    }

    /// Describes a statement (`b'S'`) or a portal (`b'P'`).
    pub(crate) fn describe(&mut self, kind: u8, name: &str) -> &mut Self {
        frontend::describe(kind, name, &mut self.pending).expect("no zero bytes");
        self
    }

    /// Executes a portal; 0 rows means all.
    pub(crate) fn execute(&mut self, portal: &str, max_rows: i32) -> &mut Self {
        frontend::execute(portal, max_rows, &mut self.pending).expect("no zero bytes");
        self
    }

    /// Closes a statement (`b'S'`) or a portal (`b'P'`).
    pub(crate) fn close(&mut self, kind: u8, name: &str) -> &mut Self {
        frontend::close(kind, name, &mut self.pending).expect("no zero bytes");
        self
    }

    pub(crate) fn sync(&mut self) -> &mut Self {
        frontend::sync(&mut self.pending);
        self
    }

    /// A Flush message of the protocol, which is not [`Self::flush`].
    pub(crate) fn flush_message(&mut self) -> &mut Self {
        frontend::flush(&mut self.pending);
        self
    }

    /// Sends what is pending, in one write if the socket takes it.
    pub(crate) async fn flush(&mut self) {
        let written = timeout(PATIENCE, self.stream.write_all(&self.pending)).await;
        written.expect("the server reads").expect("the connection is open");
        self.pending.clear();
    }

    /// Bytes that [`Self::flush`] would send.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// As [`Self::try_flush`], in pieces of so many bytes, each of which the server may read by itself.
    pub(crate) async fn try_flush_in_pieces(&mut self, bytes: usize) -> bool {
        for piece in self.pending.split().chunks(bytes) {
            if !matches!(timeout(PATIENCE, self.stream.write_all(piece)).await, Ok(Ok(()))) {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    /// As [`Self::flush`], to a server that may have closed the connection.
    pub(crate) async fn try_flush(&mut self) -> bool {
        let written = timeout(PATIENCE, self.stream.write_all(&self.pending)).await;
        self.pending.clear();
        matches!(written, Ok(Ok(())))
    }

    /// Sends a Query and whatever was pending.
    pub(crate) async fn query(&mut self, sql: &str) {
        frontend::query(sql, &mut self.pending).expect("no zero bytes");
        self.flush().await;
    }

    /// Sends a Query and returns all messages of its answer.
    pub(crate) async fn ask(&mut self, sql: &str) -> Vec<Message> {
        self.query(sql).await;
        self.read_until_ready().await
    }

    /// Ends the request with a Sync and returns its answer.
    pub(crate) async fn finish(&mut self) -> Vec<Message> {
        self.sync().flush().await;
        self.read_until_ready().await
    }

    /// Returns once all that came before has been counted: a client has its answers earlier, but the session takes up no
    /// other request until it has seen what those have left.
    pub(crate) async fn settle(&mut self) {
        assert_eq!(told(&self.finish().await), "Z", "a Sync of its own has no other answer");
    }

    /// [`Self::finish`], of which it returns what it was [`told`].
    pub(crate) async fn exchange(&mut self) -> String {
        told(&self.finish().await)
    }

    /// Reads messages with exactly these tags.
    pub(crate) async fn expect(&mut self, tags: &str) {
        for tag in tags.chars() {
            let message = self.read_message().await;
            assert_eq!(char::from(message.tag), tag, "of {tags}: {message:?}");
        }
    }

    /// The first column of the only row that a Query answers.
    pub(crate) async fn query_value(&mut self, sql: &str) -> String {
        let answer = self.ask(sql).await;
        let rows: Vec<_> = answer.iter().filter(|message| message.tag == b'D').collect();
        let [row] = rows.as_slice() else { panic!("`{sql}` answers one row, not {answer:?}") };
        row.columns().swap_remove(0).unwrap_or_default()
    }

    /// Sends Terminate; the connection is closed on drop.
    pub(crate) async fn terminate(&mut self) {
        frontend::terminate(&mut self.pending);
        self.flush().await;
    }

    /// The next message; panics when the connection ends or nothing comes.
    pub(crate) async fn read_message(&mut self) -> Message {
        self.try_read_message().await.expect("the server has more to say")
    }

    /// The next message; `None` when the server has closed or reset the connection.
    pub(crate) async fn try_read_message(&mut self) -> Option<Message> {
        let length = loop {
            if let Some(length) = self.frame_length() {
                break length;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            if !matches!(read.expect("the server answers in time"), Ok(1..)) {
                return None;
            }
        };
        let mut body = self.received.split_to(length).freeze();
        let tag = body.get_u8();
        body.advance(4);
        if tag == b'S' {
            let mut fields =
                body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
            if let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                self.parameters.insert(name, value);
            }
        }
        Some(Message { tag, body })
    }

    /// All messages up to and including ReadyForQuery.
    pub(crate) async fn read_until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|message: &Message| message.tag != b'Z') {
            messages.push(self.read_message().await);
        }
        messages
    }

    /// The error of the next answer, read up to its ReadyForQuery: SQLSTATE, message and hint; `None` if it has none.
    pub(crate) async fn read_error(&mut self) -> Option<[String; 3]> {
        let answer = self.read_until_ready().await;
        let error = answer.iter().find(|message| message.tag == b'E')?;
        Some([b'C', b'M', b'H'].map(|field| error.field(field).unwrap_or_default()))
    }

    /// Reads the rest of an answer that has begun, up to its ReadyForQuery or the end of the connection: it may fail once,
    /// and does not begin again.
    pub(crate) async fn expect_no_second_answer(&mut self) {
        let mut errors = 0;
        loop {
            match self.try_read_message().await.map(|message| message.tag) {
                Some(b'E') => errors += 1,
                Some(b'T') => panic!("it was begun again"),
                Some(b'Z') | None => break,
                _ => {}
            }
        }
        assert!(errors <= 1, "{errors} errors");
    }

    /// The transaction status in the next ReadyForQuery, whatever comes before it.
    pub(crate) async fn read_status(&mut self) -> char {
        let answer = self.read_until_ready().await;
        char::from(answer.last().and_then(|ready| ready.body.first().copied()).unwrap_or_default())
    }

    /// Closes the sending side; what the server says can still be read.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Ends the connection by a reset, as the system does for a program that dies with unread bytes.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("TCP sockets have the option");
    }

    /// One byte that is no message: the answer to a request for encryption.
    pub(crate) async fn read_byte(&mut self) -> u8 {
        self.stream.read_u8().await.expect("the connection is open")
    }

    /// Sends what is pending in as many writes as there are bytes.
    pub(crate) async fn flush_byte_by_byte(&mut self) {
        for byte in self.pending.split() {
            self.stream.write_all(&[byte]).await.expect("the connection is open");
            tokio::task::yield_now().await;
        }
    }

    /// Sends a Query and returns its answer if that begins within a short time.
    pub(crate) async fn ask_soon(&mut self, sql: &str) -> Option<Vec<Message>> {
        self.query(sql).await;
        timeout(Duration::from_millis(200), self.peek()).await.ok()?;
        Some(self.read_until_ready().await)
    }

    /// Returns once a whole message has come, without taking it. Cancel safe.
    pub(crate) async fn peek(&mut self) {
        while self.frame_length().is_none() {
            let count = self.stream.read_buf(&mut self.received).await.expect("the connection is open");
            assert_ne!(count, 0, "the server has closed the connection");
        }
    }

    /// The tags of messages, as a text such as `12DCZ`.
    pub(crate) fn tags(messages: &[Message]) -> String {
        messages.iter().map(|message| char::from(message.tag)).collect()
    }

    /// Sends a CancelRequest over a connection of its own and waits for the server to close that.
    pub(crate) async fn cancel(port: u16, pid: i32, secret: &[u8]) {
        let mut client = Self::open(port).await;
        client.pending.put_u32(12 + secret.len() as u32);
        client.pending.put_u32(80_877_102);
        client.pending.put_i32(pid);
        client.pending.extend_from_slice(secret);
        client.flush().await;
        assert_eq!(client.try_read_message().await, None, "a cancel request has no answer");
    }

    /// The length of the first message with its tag, if all of it has come.
    fn frame_length(&self) -> Option<usize> {
        let length = self.received.get(1..5)?.try_into().map(u32::from_be_bytes).expect("4 bytes");
        let length = length as usize + 1;
        (self.received.len() >= length).then_some(length)
    }
}
