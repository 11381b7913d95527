//! Connecting to a server: socket, login, and what the server reports at its start.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Backend, Changes, Identity, Protocol, Server, Settings, Usage,
    address::Login,
    cancel::Target,
    connect_error::ConnectError,
    dial::{self, Dialled},
    hosts::{HostPort, SessionAttrs},
    in_use::HostTurn,
    statements::Held,
};
use crate::{
    auth::{
        Asked, RequireAuth, scram,
        tls::{self, ChannelBinding, Encryption, EndPoint},
    },
    socket::{Socket, silence::Silence},
    threads::Home,
    wire::{
        frame::split_message,
        message,
        read::{Body, ErrorFields},
    },
};

/// A server that says more than this before it is ready is none.
const LOGIN_BYTES: usize = 256 * 1024;

/// `invalid_authorization_specification`: no entry in `pg_hba.conf`, among others.
const INVALID_AUTHORIZATION: &str = "28000";

const APPLICATION_NAME: &str = "application_name";

/// What may be wrong where a key that was passed through is refused.
const OTHER_VERIFIER: &str = "The SCRAM verifier in auth.users_file is not the one that the server has now; copy it from \
                              pg_authid.rolpassword again, or write the password.";

const ONLY_DIGEST: &str = "The server asks for SCRAM, and auth.users_file has only an md5 digest: it is not valid any more \
                           there, or has been replaced.";

/// One of a server's hosts, and what is looked for there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    pub(super) host: &'a HostPort,
    pub(super) wanted: SessionAttrs,
}

/// Tries what `sslmode` allows, in libpq's order: another way only if TLS or `pg_hba.conf` is what has failed.
pub(super) async fn log_in(
    server: &Arc<Server>,
    at: Sought<'_>,
    identity: &Arc<Identity>,
    home: Home,
) -> Result<Box<Backend>, ConnectError> {
    let attempts = if at.host.is_unix() { &[Encryption::Plain] } else { server.tls.attempts() };
    let mut before: Option<(ConnectError, bool)> = None;
    for encryption in attempts {
        // Whether there was an encrypted connection, which then failed.
        let mut encrypted = false;
        let error = match attempt(server, at, identity, home, *encryption, &mut encrypted).await {
            Ok(backend) => return Ok(backend),
            Err(error) => explained(error, server, at.host),
        };
        let other_way = match &error {
            ConnectError::Tls(_) => true,
            ConnectError::Refused(fields) => {
                fields.code == INVALID_AUTHORIZATION && encrypted == (*encryption != Encryption::Plain)
            }
            _ => false,
        };
        let (told, told_encrypted) = match before {
            // The refusal says more than that there is no TLS; of two refusals, that of the encrypted connection.
            Some((first, was_encrypted)) if was_encrypted || matches!(error, ConnectError::Tls(_)) => {
                (first, was_encrypted)
            }
            _ => (error, encrypted),
        };
        if !other_way {
            return Err(advised(told, server));
        }
        before = Some((told, told_encrypted));
    }
    let (error, _) = before.expect("there is an attempt at least");
    Err(advised(error, server))
}

/// An alert may come as late as the first answer.
fn explained(error: ConnectError, server: &Server, host: &HostPort) -> ConnectError {
    match error {
        ConnectError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            ConnectError::Tls(tls::explain_server(&error, &server.tls, &host.host))
        }
        other => other,
    }
}

/// A server that wants encryption says so only in its `pg_hba.conf`.
fn advised(error: ConnectError, server: &Server) -> ConnectError {
    match error {
        ConnectError::Refused(mut fields)
            if fields.code == INVALID_AUTHORIZATION
                && fields.hint.is_empty()
                && (fields.message.contains("no encryption") || fields.message.contains("SSL off")) =>
        {
            fields.hint = format!("Write sslmode=require in servers.{}.url.", server.name).into();
            ConnectError::Refused(fields)
        }
        other => other,
    }
}

/// Names and values of parameters; process id and secret of a cancel key.
type Greeted = (Vec<(String, String)>, (i32, Box<[u8]>));

async fn attempt(
    server: &Arc<Server>,
    at: Sought<'_>,
    identity: &Arc<Identity>,
    home: Home,
    encryption: Encryption,
    encrypted: &mut bool,
) -> Result<Box<Backend>, ConnectError> {
    let credentials = identity.credentials();
    let login = server.login(identity, &credentials);
    let Dialled { socket, route } = dial::open(server, at.host, encryption, None).await?;
    *encrypted = route.encryption == Encryption::Tls;
    let mut talk = LoginTalk { socket, unread: Vec::new(), unread_messages: VecDeque::new() };
    talk.socket.send_all(&startup_packet(server, identity, login)).await?;
    authenticate(&mut talk, login, server.tls.channel_binding(), &server.require_auth).await?;

    let (reported, key) = greeted(&mut talk).await?;
    if !at.wanted.accepts(&reported) {
        let Sought { host, wanted } = at;
        // It is closed all the same.
        let _ = talk.socket.send_now(&message::TERMINATE);
        return Err(ConnectError::Unwanted(format!("{host} is not {}", wanted.name())));
    }
    let mut protocol = Protocol::default();
    protocol.set_parameters(reported);
    Ok(Box::new(Backend {
        id: server.numbers.next(),
        server: Arc::clone(server),
        identity: Arc::clone(identity),
        credentials,
        home,
        socket: talk.socket,
        protocol,
        unsent: Vec::new(),
        applied: Arc::new(Settings::default()),
        is_suspect: false,
        prepared: super::Prepared::Nothing,
        statements: Held::default(),
        cancel: Arc::new(Target::new(Arc::clone(server), route, key.0, key.1)),
        place: HostTurn::default(),
        silence: Silence::default(),
        changes: Changes::default(),
        usage: Usage::none(),
        types: None,
        uses: 0,
        generation: 0,
        opened_at: 0,
        idle_since: 0,
        expires_at: u64::MAX,
    }))
}

/// The parameters that a server reports, and the key that cancels, up to when it is ready.
async fn greeted(talk: &mut LoginTalk) -> Result<Greeted, ConnectError> {
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
            b'Z' => return Ok((reported, key)),
            b'N' => {}
            b'E' => return Err(ConnectError::Refused(ErrorFields::parse(&body))),
            other => return Err(unexpected(other)),
        }
    }
}

/// The startup packet of an identity's connection.
fn startup_packet(server: &Server, identity: &Identity, login: Login<'_>) -> Vec<u8> {
    let mut parameters = vec![("user", login.user), ("database", login.database)];
    let names_itself = |(name, _): &(String, String)| name == APPLICATION_NAME;
    if let Some(name) = server.application_name.as_deref()
        && !identity.startup.iter().any(names_itself)
    {
        parameters.push((APPLICATION_NAME, name));
    }
    parameters.extend(identity.startup.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut packet = Vec::new();
    message::startup(&mut packet, &parameters);
    packet
}

async fn authenticate(
    talk: &mut LoginTalk,
    login: Login<'_>,
    binding: ChannelBinding,
    require: &RequireAuth,
) -> Result<(), ConnectError> {
    let no_password = || ConnectError::NoPassword(login.user.to_owned());
    let mut bound = binding != ChannelBinding::Require;
    let mut asked = Asked::None;
    loop {
        let body = talk.expect_authentication().await?;
        let mut body = Body::new(&body, "Authentication");
        let kind = body.int32()?;
        asked = match kind {
            3 => Asked::Password,
            5 => Asked::Md5,
            10 => Asked::Scram,
            _ => asked,
        };
        check_allowed(asked, require, &talk.socket)?;
        match kind {
            0 if bound => return Ok(()),
            0 | 3 | 5 if !bound => {
                return Err(ConnectError::Unbound("the server does not ask for SCRAM-SHA-256-PLUS"));
            }
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
                let (mechanism, chosen) = choose(talk, &mechanisms, binding)?;
                prove(talk, login, mechanism, chosen).await?;
                bound = true;
            }
            other => return Err(ConnectError::Unsupported(format!("authentication method {other}"))),
        }
    }
}

/// Refuses what `require_auth` does not allow, and to say a password where others may hear it.
fn check_allowed(asked: Asked, require: &RequireAuth, socket: &Socket) -> Result<(), ConnectError> {
    if !require.allows(asked) {
        let why = format!("require_auth={require} does not allow it");
        return Err(ConnectError::Forbidden { asked, why });
    }
    if asked == Asked::Password && !is_private(socket) && !require.names(asked) {
        let why = "the connection is not encrypted; write sslmode=require in the server's URL, or \
                   require_auth=password if the network is to be trusted";
        return Err(ConnectError::Forbidden { asked, why: why.to_owned() });
    }
    Ok(())
}

/// Whether nobody between can read what is sent.
fn is_private(socket: &Socket) -> bool {
    match socket {
        Socket::Tls(_) | Socket::Unix(_) => true,
        Socket::Tcp(tcp) => tcp.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
    }
}

/// The mechanism, and what to say of channel binding, as libpq does.
fn choose(
    talk: &LoginTalk,
    mechanisms: &[String],
    wanted: ChannelBinding,
) -> Result<(&'static str, scram::Binding), ConnectError> {
    let offers = |mechanism: &str| mechanisms.iter().any(|name| name == mechanism);
    let end_point = match &talk.socket {
        Socket::Tls(stream) if wanted != ChannelBinding::Disable => {
            stream.peer_certificate().and_then(EndPoint::of)
        }
        _ => None,
    };
    let unbound = match end_point {
        Some(end_point) if offers(scram::MECHANISM_PLUS) => {
            return Ok((scram::MECHANISM_PLUS, scram::Binding::EndPoint(end_point)));
        }
        Some(_) => ("the server does not offer SCRAM-SHA-256-PLUS", scram::Binding::NotOffered),
        None if matches!(talk.socket, Socket::Tls(_)) => {
            ("the signature of the server's certificate allows no binding", scram::Binding::Unsupported)
        }
        None => ("the connection is not encrypted", scram::Binding::Unsupported),
    };
    if wanted == ChannelBinding::Require {
        return Err(ConnectError::Unbound(unbound.0));
    }
    if !offers(scram::MECHANISM) {
        return Err(ConnectError::Unsupported(format!("SASL ({})", mechanisms.join(", "))));
    }
    Ok((scram::MECHANISM, unbound.1))
}

/// SCRAM as the client. Returns when the server has proven itself too.
async fn prove(
    talk: &mut LoginTalk,
    login: Login<'_>,
    mechanism: &str,
    binding: scram::Binding,
) -> Result<(), ConnectError> {
    let secret = login.secret.ok_or_else(|| ConnectError::NoPassword(login.user.to_owned()))?;
    let (client, first) = scram::Client::start(binding)?;
    let mut packet = Vec::new();
    message::sasl_initial(&mut packet, mechanism, first.as_bytes());
    talk.socket.send_all(&packet).await?;

    let challenge = client.challenge(&talk.expect_sasl(11).await?)?;
    challenge.check_iterations()?;
    let fitting = secret.keys_for(&challenge).await;
    let fits = fitting.is_some();
    // Keys of another verifier open nothing, and it is for the server to say so: it shows one that is made up where
    // the password is no longer valid.
    let (keys, hint) = match fitting.or_else(|| secret.proven_keys()) {
        Some(keys) => (keys, OTHER_VERIFIER),
        // So it does in place of a digest that is no longer valid.
        None if secret.md5(login.user).is_some() => (crate::auth::ScramKeys::random()?, ONLY_DIGEST),
        None => return Err(ConnectError::NoPassword(login.user.to_owned())),
    };
    let (sent, proof) = challenge.answer(&keys);
    talk.send_password(proof.as_bytes()).await?;
    let last = match talk.expect_sasl(12).await {
        Err(ConnectError::Refused(mut fields)) if !fits && fields.hint.is_empty() => {
            fields.hint = hint.into();
            return Err(ConnectError::Refused(fields));
        }
        other => other?,
    };
    sent.verify(&last)?;
    Ok(())
}

fn unexpected(tag: u8) -> ConnectError {
    ConnectError::Protocol(format!("unexpected message \"{}\"", tag.escape_ascii()))
}

/// A login's conversation, message by message.
struct LoginTalk {
    socket: Socket,
    unread: Vec<u8>,
    unread_messages: VecDeque<(u8, Vec<u8>)>,
}

impl LoginTalk {
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
