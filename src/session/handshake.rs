//! From the first packet to the first ReadyForQuery: encryption requests, cancels, version negotiation,
//! authentication, and what the client is told of itself. Everything before the end of authentication is
//! bounded in time and bytes.

use std::{io, sync::Arc};

use super::{
    Ended, Session, alias,
    cancels::Found,
    identities::Method,
    left::Left,
    live::Live,
    metrics::CountedClient,
    replication::{self, Dedicated},
    reply::{self, Reply},
    serve::serve,
    shared::Shared,
    transaction::Begun,
    welcome::{Welcome, welcome},
};
use crate::{
    auth::{AuthError, ScramKeys, Verifier, md5, scram, tls},
    backend::{Home, Settings},
    route::PoolId,
    socket::{Socket, tls::TlsStream},
    wire::{
        Reading,
        frame::{HEADER_BYTES, Header},
        message,
        read::Body,
        startup::{self, FirstPacket, MINOR_VERSION, Startup},
    },
};

/// A login message longer than this is refused unread.
const LOGIN_MESSAGE_BYTES: usize = 16 * 1024;

/// The first byte of a TLS handshake (ContentType).
const TLS_HANDSHAKE: u8 = 0x16;

/// A cancel that the server does not answer is given up after this.
const CANCEL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a client was not let in.
enum Refused {
    /// Nobody is there to be told.
    Silently(&'static str),
    /// TLS did not come about; the client has got an alert.
    Tls {
        /// The client's address.
        peer: String,
        /// In words.
        why: String,
    },
    /// The client is told.
    With(Reply),
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Silently("the client has gone")
    }
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Self::With(reply)
    }
}

/// Serves one connection from its first byte to its last.
pub async fn run(socket: Socket, live: Arc<Live>, home: Home) {
    // Boxed: what a login needs is not to be kept for as long as the session lives.
    let Some((mut session, _counted)) = Box::pin(log_in(socket, live, home)).await else { return };
    let ended = serve(&mut session).await;
    say_goodbye(&mut session, &ended);
    if matches!(ended, Ended::ByClient) {
        Box::pin(session.hand_back()).await;
    }
}

async fn log_in(socket: Socket, live: Arc<Live>, home: Home) -> Option<(Box<Session>, CountedClient)> {
    // The whole login goes by one snapshot.
    let shared = live.load();
    let mut door = Door { socket: Some(socket), unread: Vec::new() };
    let entered = tokio::select! {
        // Cancel safe: a client that is not let in has nothing to lose; a cancel that is dropped counts as lost.
        entered = enter(&mut door, &shared, home) => entered,
        () = tokio::time::sleep(shared.limits.login_timeout) => {
            Err(Refused::Silently("no login within limits.login_timeout"))
        }
        () = shared.draining.cancelled() => Err(reply::shutting_down().into()),
    };
    let refused = match entered {
        Ok(Some((admitted, counted))) => {
            shared.metrics.logins.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Admitted { kind, key, greeting } = admitted;
            return match kind {
                Kind::Session(start) => {
                    Some((start.into_session(door, key, greeting, shared, live, home), counted))
                }
                Kind::Replication(backend) => {
                    let socket = door.socket.expect("the login has ended on it");
                    replication::run(socket, greeting, &door.unread, backend, &key, &shared).await;
                    None
                }
            };
        }
        Ok(None) => return None,
        Err(refused) => refused,
    };
    refuse(door, &shared, refused);
    None
}

fn refuse(mut door: Door, shared: &Shared, refused: Refused) {
    shared.metrics.login_failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let peer = door.socket.as_ref().map_or_else(|| "gone".to_owned(), Socket::peer);
    match refused {
        Refused::Silently(why) => tracing::debug!(peer, why, "a client was not let in"),
        Refused::Tls { peer, why } => tracing::info!(peer, why, "TLS with a client failed"),
        Refused::With(reply) => {
            tracing::debug!(peer, message = reply.message, "a client was refused");
            let mut out = Vec::new();
            reply.fatal(&mut out);
            // The error is all that is said; a client that does not take it is closed all the same.
            let _ = door.socket.as_mut().map(|socket| socket.send_now(&out));
        }
    }
}

fn say_goodbye(session: &mut Session, ended: &Ended) {
    let reply = match ended {
        Ended::ByClient | Ended::ClientIo(_) | Ended::Amid(_) => None,
        Ended::Shutdown => Some(reply::shutting_down()),
        Ended::SlowListener(limit_bytes) => Some(reply::slow_listener(*limit_bytes)),
        Ended::ListenerLost => Some(reply::listener_lost()),
        Ended::PinnedIdle { pool, reason, idle } => Some(reply::pinned_idle(pool, reason, *idle)),
        Ended::Protocol(what) => Some(reply::protocol_violation(what)),
        Ended::Backend(broken) => Some(reply::lost(broken)),
        Ended::ByServer(fields) => Some(Reply::from_server(fields)),
    };
    tracing::debug!(user = session.identity.user, %ended, "a session ended");
    let amid = session.lease.as_ref().is_some_and(|lease| lease.protocol.is_amid_message());
    if let Some(reply) = reply.filter(|_| !amid) {
        reply.fatal(&mut session.outbox);
        let _ = session.flush_now();
    }
}

/// A connection that is not a session yet.
struct Door {
    /// Gone while TLS begins.
    socket: Option<Socket>,
    unread: Vec<u8>,
}

/// A client that was let in.
struct Admitted {
    kind: Kind,
    key: super::cancels::CancelKey,
    greeting: Vec<u8>,
}

/// What it came for.
enum Kind {
    Session(Start),
    Replication(Dedicated),
}

/// Everything that a session starts with.
struct Start {
    identity: Arc<crate::backend::Identity>,
    startup: Arc<Settings>,
    reading: Reading,
    bound: Option<PoolId>,
}

impl Start {
    fn into_session(
        self,
        door: Door,
        key: super::cancels::CancelKey,
        greeting: Vec<u8>,
        shared: Arc<Shared>,
        live: Arc<Live>,
        home: Home,
    ) -> Box<Session> {
        let application_name = self.startup.get("application_name");
        let custom = self.startup.iter().map(|(name, _)| name).filter(|name| name.contains('.'));
        Box::new(Session {
            socket: door.socket.expect("the login has ended on it"),
            // An empty buffer still owns its memory.
            inbox: if door.unread.is_empty() { Vec::new() } else { door.unread },
            outbox: greeting,
            catalog: shared.catalogs.of(&self.identity),
            is_worker: shared.is_worker(&self.identity.user, application_name),
            custom_settings: custom.map(str::to_owned).collect(),
            asked: self.startup.get("bulkhead.route").and_then(|route| shared.classifier.rules().hint(route)),
            bound: self.bound,
            in_session_mode: self.startup.get("bulkhead.pool_mode") == Some("session"),
            shared,
            live,
            identity: self.identity,
            home,
            key,
            settings: Arc::clone(&self.startup),
            startup: self.startup,
            reading: self.reading,
            begun: Begun::No,
            lease: None,
            lease_pool: PoolId(0),
            is_kept: false,
            pin: None,
            left: Left::default(),
            restore: None,
            was_in_transaction: false,
            last: None,
            is_new_backend: false,
            asks_sequences: false,
            statements: None,
            listening: None,
            streaming: 0,
            search: None,
            skipping: false,
            client_closed: false,
        })
    }
}

async fn enter(
    door: &mut Door,
    shared: &Arc<Shared>,
    home: Home,
) -> Result<Option<(Admitted, CountedClient)>, Refused> {
    let start = match door.first_packet(&shared.acceptor).await? {
        FirstPacket::Start(start) => start,
        FirstPacket::Cancel { process_id, secret } => {
            // The answer to a cancel is always the same: none.
            if let Some(found) = shared.cancels.find(process_id, &secret) {
                shared.metrics.cancels.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if let Found::Backend(under_way) = found {
                    under_way.send(CANCEL_TIMEOUT).await;
                }
            }
            return Ok(None);
        }
        FirstPacket::Ssl | FirstPacket::GssEnc => {
            return Err(Refused::Silently("encryption asked for twice"));
        }
    };
    if shared.acceptor.requires_tls() && matches!(door.socket, Some(Socket::Tcp(_))) {
        return Err(reply::tls_required().into());
    }
    let counted = CountedClient::new(&shared.metrics, shared.limits.max_clients)
        .ok_or_else(|| reply::too_many_clients(shared.limits.max_clients))?;
    negotiate(door, &start).await?;
    authenticate(door, shared, &start.user).await?;
    let pools: Vec<&str> = shared.pools.iter().map(|pool| pool.name.as_str()).collect();
    let (parameters, kind) = admit(&start, shared, home)
        .await
        .map_err(|reply| reply::hint_at_pools(reply, &start.database, &pools))?;
    let long_key = start.minor >= 2;
    let (key, secret) =
        shared.cancels.issue(long_key).map_err(|_| Refused::Silently("no random bytes from the system"))?;

    let mut greeting = Vec::new();
    message::authentication(&mut greeting, 0, &[]);
    greeting.extend_from_slice(&parameters);
    message::backend_key(&mut greeting, key.process_id(), &secret);
    message::ready(&mut greeting, crate::wire::TxStatus::Idle);
    Ok(Some((Admitted { kind, key, greeting }, counted)))
}

/// What an authenticated client gets, and the parameters (ParameterStatus) that it is told.
async fn admit(start: &Startup, shared: &Arc<Shared>, home: Home) -> Result<(Arc<[u8]>, Kind), Reply> {
    let (database, bound) = alias::split(&start.database, |name| shared.pool_named(name));
    let identities = &shared.identities;
    let pool = bound.unwrap_or(shared.routes.primary);
    if replication::is_asked(start.replication.as_deref()) {
        // Physical replication is of the whole server: it names no database.
        let physical = start.replication.as_deref() != Some("database");
        if !physical && !identities.serves(database) {
            return Err(reply::unknown_database(database));
        }
        let identity = identities.one_sessions(database, &start.user, replication_parameters(start));
        let backend = replication::open(shared, identity, pool, home).await?;
        let mut parameters = Vec::new();
        for (name, value) in backend.parameters() {
            message::parameter_status(&mut parameters, name, value);
        }
        return Ok((parameters.into(), Kind::Replication(backend)));
    }
    if !identities.serves(database) {
        return Err(reply::unknown_database(database));
    }
    let identity = identities
        .identity(database, &start.user)
        .ok_or_else(|| reply::too_many_clients(shared.limits.max_clients))?;
    let settings = startup_settings(start)?;
    if let Some(other) =
        settings.get("bulkhead.pool_mode").filter(|mode| !["session", "transaction"].contains(mode))
    {
        return Err(reply::bad_pool_mode(other));
    }
    let Welcome { parameters, startup, reading, .. } =
        welcome(shared, &identity, pool, settings, home).await?;
    Ok((parameters, Kind::Session(Start { identity, startup, reading, bound })))
}

/// The startup parameters of a replication connection: the client's own.
fn replication_parameters(start: &Startup) -> Vec<(String, String)> {
    let mut parameters = start.settings.clone();
    parameters.extend(start.replication.iter().map(|value| ("replication".to_owned(), value.clone())));
    parameters
}

/// Tells a client that asked for more than we know what we know.
async fn negotiate(door: &mut Door, start: &Startup) -> io::Result<()> {
    if start.minor <= MINOR_VERSION && start.unknown_options.is_empty() {
        return Ok(());
    }
    let mut out = Vec::new();
    message::negotiate_version(&mut out, start.minor.min(MINOR_VERSION), &start.unknown_options);
    door.send(&out).await
}

/// The settings of a startup packet; `options` comes first, as in PostgreSQL the others override it.
fn startup_settings(start: &Startup) -> Result<Settings, Reply> {
    let mut pairs = Vec::new();
    for (name, value) in &start.settings {
        if name == "options" {
            let parsed = startup::parse_options(value).map_err(|word| reply::bad_argument(&word))?;
            pairs.splice(0..0, parsed);
        } else {
            pairs.push((name.clone(), value.clone()));
        }
    }
    Ok(Settings::new(pairs))
}

async fn authenticate(door: &mut Door, shared: &Shared, user: &str) -> Result<(), Refused> {
    let identities = &shared.identities;
    let known = identities.users.get(user);
    let only_scram = known.is_some_and(|known| matches!(known.verifier(), Verifier::Scram(_)));
    match identities.method {
        Method::Trust if known.is_some() => Ok(()),
        Method::Trust => Err(reply::authentication_failed(user).into()),
        Method::Md5 if !only_scram => check_md5(door, shared, user).await,
        Method::Md5 | Method::ScramSha256 => check_scram(door, shared, user).await,
    }
}

fn failed(user: &str, error: AuthError) -> Refused {
    tracing::debug!(user, %error, "authentication failed");
    reply::authentication_failed(user).into()
}

async fn check_md5(door: &mut Door, shared: &Shared, user: &str) -> Result<(), Refused> {
    let challenge = md5::Challenge::new().map_err(|error| failed(user, error))?;
    let mut out = Vec::new();
    message::authentication(&mut out, 5, &challenge.salt());
    door.send(&out).await?;
    let body = door.password_message().await?;
    let answer = body.strip_suffix(&[0]).unwrap_or(&body);
    let verifier = shared.identities.users.get(user).map(|user| user.verifier());
    challenge.verify(user, verifier, answer).map_err(|error| failed(user, error))
}

async fn check_scram(door: &mut Door, shared: &Shared, user: &str) -> Result<(), Refused> {
    let identities = &shared.identities;
    // The certificate that the client sees is ours: a login can be bound to it.
    let end_point = match door.socket {
        Some(Socket::Tls(_)) => shared.acceptor.end_point(),
        _ => None,
    };
    let mut out = Vec::new();
    let plus = if end_point.is_some() { format!("{}\0", scram::MECHANISM_PLUS) } else { String::new() };
    message::authentication(&mut out, 10, format!("{plus}{}\0\0", scram::MECHANISM).as_bytes());
    door.send(&out).await?;

    let initial = door.password_message().await?;
    let mut body = Body::new(&initial, "SASLInitialResponse");
    let malformed = |_| Refused::With(reply::protocol_violation("malformed SASLInitialResponse message"));
    let mechanism = body.cstring().map_err(malformed)?;
    body.int32().map_err(malformed)?;
    let channel = match end_point {
        Some(end_point) if mechanism == scram::MECHANISM_PLUS.as_bytes() => {
            scram::Channel::Bound(end_point.clone())
        }
        Some(_) if mechanism == scram::MECHANISM.as_bytes() => scram::Channel::Offered,
        None if mechanism == scram::MECHANISM.as_bytes() => scram::Channel::Plain,
        _ => {
            let what = "client selected an invalid SASL authentication mechanism";
            return Err(reply::protocol_violation(what).into());
        }
    };
    let server = identities
        .users
        .scram_server(user, &identities.mock)
        .map_err(|error| failed(user, error))?
        .on(channel);
    let (challenge, first) = server.first(body.rest()).map_err(|error| failed(user, error))?;
    out.clear();
    message::authentication(&mut out, 11, first.as_bytes());
    door.send(&out).await?;

    let last = door.password_message().await?;
    let proven = challenge.finish(&last).map_err(|error| failed(user, error))?;
    if let Some(verifier) = identities.users.get(user).and_then(|user| user.scram_ready()) {
        let keys = ScramKeys::passed_through(proven.client_key, verifier);
        identities.set_proven(user, verifier, keys);
    }
    out.clear();
    message::authentication(&mut out, 12, proven.server_final.as_bytes());
    door.send(&out).await?;
    Ok(())
}

impl Door {
    /// The first packet that is not a request for encryption. TLS is begun if the client asks for it and it is offered;
    /// other requests are declined.
    async fn first_packet(&mut self, acceptor: &tls::Acceptor) -> Result<FirstPacket, Refused> {
        let bad = |error: startup::BadStart| Refused::With(reply::bad_start(&error.to_string()));
        for _ in 0..3 {
            let len = loop {
                // No packet begins like a TLS handshake: it would be far too long.
                if self.unread.first() == Some(&TLS_HANDSHAKE)
                    && let Some(connection) = self.offer(acceptor)
                {
                    self.begin_tls(connection).await?;
                    self.check_direct()?;
                    continue;
                }
                if let Some(len) = startup::packet_len(&self.unread).map_err(bad)?
                    && self.unread.len() >= len
                {
                    break len;
                }
                self.read_more().await?;
            };
            let rest = self.unread.split_off(len);
            let packet = std::mem::replace(&mut self.unread, rest);
            let first = startup::parse(&packet).map_err(bad)?;
            if !matches!(first, FirstPacket::Ssl | FirstPacket::GssEnc) {
                return Ok(first);
            }
            // Bytes sent before our answer would have been meant for the encrypted stream.
            if !self.unread.is_empty() {
                return Err(Refused::Silently("data came before the answer to a request for encryption"));
            }
            match self.offer(acceptor) {
                Some(connection) if first == FirstPacket::Ssl => {
                    self.send(b"S").await?;
                    self.begin_tls(connection).await?;
                }
                _ => self.send(b"N").await?,
            }
        }
        Err(Refused::Silently("encryption asked for again and again"))
    }

    /// A TLS connection for this client, if it may have one: over TCP, and only once.
    fn offer(&self, acceptor: &tls::Acceptor) -> Option<rustls::ServerConnection> {
        matches!(self.socket, Some(Socket::Tcp(_))).then(|| acceptor.connection())?
    }

    async fn begin_tls(&mut self, connection: rustls::ServerConnection) -> Result<(), Refused> {
        let received = std::mem::take(&mut self.unread);
        let Some(Socket::Tcp(tcp)) = self.socket.take() else {
            return Err(Refused::Silently("TLS is only for TCP"));
        };
        let peer = tcp.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
        let stream = TlsStream::handshake(tcp, connection, received)
            .await
            .map_err(|error| Refused::Tls { peer, why: tls::explain_client(&error) })?;
        self.socket = Some(Socket::Tls(Box::new(stream)));
        Ok(())
    }

    /// As in PostgreSQL, TLS that begins without a request must name the protocol: a client of something else cannot be
    /// led here.
    fn check_direct(&self) -> Result<(), Refused> {
        match &self.socket {
            Some(Socket::Tls(stream)) if stream.application_protocol().is_some() => Ok(()),
            _ => Err(reply::direct_tls_without_alpn().into()),
        }
    }

    /// The body of a password message (also SASLInitialResponse and SASLResponse).
    async fn password_message(&mut self) -> Result<Vec<u8>, Refused> {
        loop {
            let header =
                Header::peek(&self.unread).map_err(|error| reply::protocol_violation(&error.to_string()))?;
            match header {
                Some(header) if header.tag != b'p' => {
                    return Err(reply::protocol_violation("expected password response").into());
                }
                Some(header) if header.len > LOGIN_MESSAGE_BYTES => {
                    return Err(reply::protocol_violation("password response is too long").into());
                }
                Some(header) if self.unread.len() >= header.len => {
                    let rest = self.unread.split_off(header.len);
                    let message = std::mem::replace(&mut self.unread, rest);
                    return Ok(message[HEADER_BYTES..].to_vec());
                }
                _ => self.read_more().await?,
            }
        }
    }

    fn socket(&mut self) -> io::Result<&mut Socket> {
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket()?.send_all(bytes).await
    }

    async fn read_more(&mut self) -> Result<(), Refused> {
        let mut unread = std::mem::take(&mut self.unread);
        let more = self.socket()?.read_more(&mut unread).await?;
        self.unread = unread;
        if more { Ok(()) } else { Err(Refused::Silently("the client has gone")) }
    }
}
