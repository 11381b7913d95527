//! Connecting to a server: socket, login, and what the server reports at its start.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    Backend, BackendId, Home, Identity, Protocol, Server, Settings, address::Login, cancel::Target,
    statements::Held,
};
use crate::{
    auth::{AuthError, scram},
    socket::Socket,
    wire::{
        frame::split_message,
        message,
        read::{Body, ErrorFields, Malformed},
    },
};

/// A server that says more than this before it is ready is none.
const LOGIN_BYTES: usize = 256 * 1024;

const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// Gives each backend of the process its number.
#[derive(Debug, Default)]
pub struct Numbers(AtomicU64);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network or the name lookup failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took longer than `connect_timeout`.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The server answered with an error.
    #[error("{0}")]
    Refused(ErrorFields),
    /// The server asked for a password and none is known.
    #[error("the server asks for a password, and none is known for user \"{0}\"")]
    NoPassword(String),
    /// The server asked for a kind of authentication that we do not speak.
    #[error("the server asks for {0}, which is not supported")]
    Unsupported(String),
    /// The password exchange failed.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl From<Malformed> for ConnectError {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl ConnectError {
    /// Whether trying again is of no use until somebody changes something: wrong password, unknown database,
    /// missing rights. Too many connections, starting up and the like pass by themselves.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(fields) => !matches!(fields.code.get(..2), Some("53" | "57" | "58" | "08" | "XX")),
            Self::NoPassword(_) | Self::Unsupported(_) | Self::Auth(_) => true,
            Self::Io(_) | Self::TimedOut(_) | Self::Protocol(_) => false,
        }
    }

    /// As the fields of an ErrorResponse, for who waits for the login.
    pub fn fields(&self) -> ErrorFields {
        match self {
            Self::Refused(fields) => fields.clone(),
            other => {
                ErrorFields { code: "28000".to_owned(), message: other.to_string(), ..ErrorFields::default() }
            }
        }
    }
}

/// Opens a socket to a server.
pub async fn open_socket(server: &Server) -> io::Result<Socket> {
    if server.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", server.host, server.port);
        return Ok(Socket::Unix(UnixStream::connect(path).await?));
    }
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    crate::socket::keep_alive(&stream)?;
    Ok(Socket::Tcp(stream))
}

/// Connects and logs in.
pub async fn connect(
    server: &Arc<Server>,
    identity: &Arc<Identity>,
    home: Home,
    limit: Duration,
) -> Result<Box<Backend>, ConnectError> {
    timeout(limit, log_in(server, identity, home)).await.unwrap_or(Err(ConnectError::TimedOut(limit)))
}

async fn log_in(
    server: &Arc<Server>,
    identity: &Arc<Identity>,
    home: Home,
) -> Result<Box<Backend>, ConnectError> {
    let login = server.login(identity);
    let mut talk =
        Talk { socket: open_socket(server).await?, unread: Vec::new(), unread_messages: VecDeque::new() };
    let mut packet = Vec::new();
    message::startup(&mut packet, &[("user", login.user), ("database", login.database)]);
    talk.socket.send_all(&packet).await?;
    authenticate(&mut talk, login).await?;

    let mut reported = Vec::new();
    let mut key: (i32, Box<[u8]>) = (0, Box::default());
    loop {
        let (tag, body) = talk.next().await?;
        match tag {
            b'S' => {
                let mut body = Body::new(&body, "ParameterStatus");
                let (name, value) = (body.cstring()?, body.cstring()?);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                reported.push((text(name), text(value)));
            }
            b'K' => {
                let mut body = Body::new(&body, "BackendKeyData");
                key = (body.int32()?, body.rest().into());
            }
            b'Z' => break,
            b'N' => {}
            b'E' => return Err(ConnectError::Refused(ErrorFields::parse(&body))),
            other => return Err(unexpected(other)),
        }
    }
    let mut protocol = Protocol::default();
    protocol.set_parameters(reported);
    Ok(Box::new(Backend {
        id: server.numbers.next(),
        server: Arc::clone(server),
        identity: Arc::clone(identity),
        home,
        socket: talk.socket,
        protocol,
        unsent: Vec::new(),
        applied: Arc::new(Settings::default()),
        statements: Held::default(),
        cancel: Arc::new(Target::new(Arc::clone(server), key.0, key.1)),
        idle_since: 0,
        expires_at: u32::MAX,
    }))
}

async fn authenticate(talk: &mut Talk, login: Login<'_>) -> Result<(), ConnectError> {
    let no_password = || ConnectError::NoPassword(login.user.to_owned());
    loop {
        let body = talk.expect_authentication().await?;
        let mut body = Body::new(&body, "Authentication");
        match body.int32()? {
            0 => return Ok(()),
            3 => {
                let password = login.secret.and_then(|secret| secret.password()).ok_or_else(no_password)?;
                let mut text = password.expose().as_bytes().to_vec();
                text.push(0);
                talk.send_password(&text).await?;
            }
            5 => {
                let salt = body.take(4)?.try_into().map_err(|_| body.malformed())?;
                let digest =
                    login.secret.and_then(|secret| secret.md5(login.user)).ok_or_else(no_password)?;
                let mut answer = digest.answer(salt).as_bytes().to_vec();
                answer.push(0);
                talk.send_password(&answer).await?;
            }
            10 => {
                let mut mechanisms = Vec::new();
                while let Ok(name) = body.cstring() {
                    mechanisms.push(String::from_utf8_lossy(name).into_owned());
                }
                if !mechanisms.iter().any(|name| name == SCRAM_SHA_256) {
                    return Err(ConnectError::Unsupported(format!("SASL ({})", mechanisms.join(", "))));
                }
                prove(talk, login).await?;
            }
            other => return Err(ConnectError::Unsupported(format!("authentication method {other}"))),
        }
    }
}

/// SCRAM-SHA-256 as the client. Returns when the server has proven itself too.
async fn prove(talk: &mut Talk, login: Login<'_>) -> Result<(), ConnectError> {
    let secret = login.secret.ok_or_else(|| ConnectError::NoPassword(login.user.to_owned()))?;
    let (client, first) = scram::Client::start()?;
    let mut packet = Vec::new();
    message::sasl_initial(&mut packet, SCRAM_SHA_256, first.as_bytes());
    talk.socket.send_all(&packet).await?;

    let challenge = client.challenge(&talk.expect_sasl(11).await?)?;
    let keys =
        secret.keys_for(&challenge).await.ok_or_else(|| ConnectError::NoPassword(login.user.to_owned()))?;
    let (sent, proof) = challenge.answer(&keys);
    talk.send_password(proof.as_bytes()).await?;
    sent.verify(&talk.expect_sasl(12).await?)?;
    Ok(())
}

fn unexpected(tag: u8) -> ConnectError {
    ConnectError::Protocol(format!("unexpected message \"{}\"", tag.escape_ascii()))
}

/// A login's conversation, message by message.
struct Talk {
    socket: Socket,
    unread: Vec<u8>,
    unread_messages: VecDeque<(u8, Vec<u8>)>,
}

impl Talk {
    async fn next(&mut self) -> Result<(u8, Vec<u8>), ConnectError> {
        loop {
            if let Some(message) = self.unread_messages.pop_front() {
                return Ok(message);
            }
            if !self.socket.read_more(&mut self.unread).await? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let mut rest = self.unread.as_slice();
            while let Some((tag, body, after)) =
                split_message(rest).map_err(|error| ConnectError::Protocol(error.to_string()))?
            {
                self.unread_messages.push_back((tag, body.to_vec()));
                rest = after;
            }
            self.unread = rest.to_vec();
            if self.unread.len() > LOGIN_BYTES {
                return Err(ConnectError::Protocol("a message of the login is too long".to_owned()));
            }
        }
    }

    async fn expect_authentication(&mut self) -> Result<Vec<u8>, ConnectError> {
        loop {
            match self.next().await? {
                (b'R', body) => return Ok(body),
                (b'E', body) => return Err(ConnectError::Refused(ErrorFields::parse(&body))),
                // A server of an older minor version tells which one it speaks; we ask for the oldest.
                (b'N' | b'v', _) => {}
                (other, _) => return Err(unexpected(other)),
            }
        }
    }

    async fn expect_sasl(&mut self, kind: i32) -> Result<Vec<u8>, ConnectError> {
        let body = self.expect_authentication().await?;
        let mut body = Body::new(&body, "Authentication");
        if body.int32()? == kind { Ok(body.rest().to_vec()) } else { Err(unexpected(b'R')) }
    }

    async fn send_password(&mut self, body: &[u8]) -> Result<(), ConnectError> {
        let mut packet = Vec::new();
        message::password(&mut packet, body);
        Ok(self.socket.send_all(&packet).await?)
    }
}

impl Numbers {
    fn next(&self) -> BackendId {
        BackendId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
