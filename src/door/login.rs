//! From the first packet to the first ReadyForQuery: encryption requests, cancels, version negotiation,
//! authentication, and what the client is told of itself. Everything before the end of authentication is
//! bounded in time and bytes.

use std::{io, sync::Arc};

use super::{
    authenticate::authenticate,
    claim::{Claim, Cut},
    database,
    greeting::greeting,
    refused::Refused,
    reprove,
    stranger::Stranger,
};
use crate::{
    backend::{Credentials, Identity, Settings},
    console::{self, Rights},
    session::{
        self, Client, Session,
        replication::{self, Dedicated},
        reply::{self, Reply},
        start::Start,
    },
    shared::{
        Current, Snapshot,
        cancels::{CancelKey, Found},
        card::{Card, Purpose},
        greetings::Greeting,
        places::{CountedClient, NoPlace},
    },
    socket::Socket,
    threads::Home,
    wire::{
        message,
        options::{self, BadOption},
        startup::{FirstPacket, MINOR_VERSION, Startup},
    },
};

/// A cancel that the server does not answer is given up after this.
const CANCEL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Serves one connection, which arrives by `register` on the thread that serves it, from its first byte to its last.
/// `place` is given up with it.
pub fn run(
    register: impl FnOnce() -> io::Result<Socket> + Send + 'static,
    place: impl Send + 'static,
    current: Arc<Current>,
    home: Home,
) -> impl Future<Output = ()> + Send + 'static {
    // Boxed, with its arguments: what a login needs is not to be kept for as long as the session lives.
    let entering = Box::pin(async move { log_in(register().ok()?, current, home).await });
    async move {
        if let Some((mut session, _counted)) = entering.await {
            session::run(&mut session).await;
        }
        drop(place);
    }
}

async fn log_in(socket: Socket, current: Arc<Current>, home: Home) -> Option<(Box<Session>, CountedClient)> {
    // The whole login goes by one snapshot.
    let snapshot = current.load();
    let mut stranger = Stranger::new(socket);
    let entered = tokio::select! {
        // Cancel safe: a client that is not let in has nothing to lose; a cancel that is dropped counts as lost.
        entered = enter(&mut stranger, &snapshot, home) => entered,
        () = tokio::time::sleep(snapshot.limits.login_timeout) => {
            Err(Refused::Silently("no login within limits.login_timeout"))
        }
        () = snapshot.draining.cancelled() => Err(reply::shutting_down().into()),
    };
    let refused = match entered {
        Ok(Entered::Console { user, rights, key, greeting, place }) => {
            let (socket, unread) = (stranger.socket.expect("the login has ended on it"), stranger.unread);
            let like = snapshot.console.like;
            let entry = console::Entry { socket, unread, greeting, key, user, rights, like, current };
            drop(snapshot);
            console::run(entry).await;
            drop(place);
            return None;
        }
        Ok(Entered::Client(admitted, counted)) => {
            let Admitted { kind, key, greeting } = admitted;
            let (socket, unread) = (stranger.socket.expect("the login has ended on it"), stranger.unread);
            return match kind {
                Kind::Session(start) => {
                    let client = Client::new(socket, unread, greeting, &snapshot);
                    Some((start.into_session(client, key, snapshot, current, home), counted))
                }
                Kind::Replication(backend) => {
                    replication::run(socket, greeting, &unread, backend, &key, &snapshot).await;
                    None
                }
            };
        }
        Ok(Entered::Nobody) => return None,
        Err(refused) => refused,
    };
    refuse(stranger, &snapshot, refused);
    None
}

fn refuse(mut stranger: Stranger, snapshot: &Snapshot, refused: Refused) {
    snapshot.metrics.login_failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let peer = stranger.socket.as_ref().map_or_else(|| "gone".to_owned(), Socket::peer);
    match refused {
        Refused::Silently(why) => tracing::debug!(peer, why, "a client was not let in"),
        Refused::Tls { peer, why } => {
            if let Some(left_out) = snapshot.tls_log.admits() {
                tracing::info!(peer, why, left_out, "TLS with a client failed");
            }
        }
        Refused::With(reply) => {
            if let Some(left_out) = snapshot.door_log.admits() {
                let Claim { user, database, application_name } = &stranger.claim;
                let (user, database, application_name) = (Cut(user), Cut(database), Cut(application_name));
                let why = stranger.why.take().unwrap_or_else(|| reply.message.clone());
                tracing::info!(
                    ?user, ?database, ?application_name, peer, code = %reply.code, why, left_out, "a client was refused"
                );
            }
            let mut out = Vec::new();
            reply.fatal(&mut out);
            // The error is all that is said; a client that does not take it is closed all the same.
            let _ = stranger.socket.as_mut().map(|socket| socket.send_now(&out));
        }
    }
}

/// The outcome of a login.
enum Entered {
    /// Nobody: a cancel.
    Nobody,
    /// A client, on its place.
    Client(Admitted, CountedClient),
    /// A client of the console.
    Console { user: String, rights: Rights, key: CancelKey, greeting: Vec<u8>, place: console::Place },
}

/// A client that was let in.
struct Admitted {
    kind: Kind,
    key: CancelKey,
    greeting: Vec<u8>,
}

/// The purpose that a client came for.
enum Kind {
    Session(Start),
    Replication(Dedicated),
}

async fn enter(stranger: &mut Stranger, snapshot: &Arc<Snapshot>, home: Home) -> Result<Entered, Refused> {
    let start = match stranger.first_packet(&snapshot.acceptor).await? {
        FirstPacket::Start(start) => start,
        FirstPacket::Cancel { process_id, secret } => {
            // The answer to a cancel is always the same: none.
            if let Some(found) = snapshot.cancels.find(process_id, &secret) {
                snapshot.metrics.cancels.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if let Found::Backend(under_way) = found {
                    under_way.send(CANCEL_TIMEOUT).await;
                }
            }
            return Ok(Entered::Nobody);
        }
        FirstPacket::Ssl | FirstPacket::GssEnc => {
            return Err(Refused::Silently("encryption asked for twice"));
        }
    };
    stranger.claim = claim_of(&start);
    if snapshot.acceptor.requires_tls() && matches!(stranger.socket, Some(Socket::Tcp(_))) {
        return Err(reply::tls_required().into());
    }
    if snapshot.console.is_at(&start.database) {
        return enter_console(stranger, &start, snapshot).await;
    }
    let mut counted = take_place(&start, snapshot)?;
    let proven = async {
        negotiate(stranger, &start).await?;
        authenticate(stranger, snapshot, &start.user).await
    };
    let stays = tokio::select! {
        // Cancel safe: a client that is not let in has nothing to lose.
        proven = proven => proven.map(|()| true)?,
        () = counted.gives_way() => false,
    };
    if !stays || !counted.is_let_in() {
        return Err(reply::too_many_logins(&start.user).into());
    }
    let pools: Vec<&str> = snapshot.pools.iter().map(|pool| pool.name.as_str()).collect();
    let (parameters, kind) = admit(&start, snapshot, home)
        .await
        .map_err(|reply| reply::hint_at_pools(reply, &start.database, &pools))?;
    let long_key = start.minor >= 2;
    let card = card_of(&kind, &start, snapshot, stranger.socket.as_ref());
    snapshot.count_login(&card, application_name(&start));
    let (key, greeting) = greet(snapshot, long_key, card, &parameters)?;
    Ok(Entered::Client(Admitted { kind, key, greeting }, counted))
}

/// Lets a client in to the console: who proves to be a user that may use it, and the operating system's user that
/// Bulkhead runs as.
async fn enter_console(
    stranger: &mut Stranger,
    start: &Startup,
    snapshot: &Arc<Snapshot>,
) -> Result<Entered, Refused> {
    negotiate(stranger, start).await?;
    let is_own = console::OWN_USERS.contains(&start.user.as_str())
        && stranger.socket.as_ref().is_some_and(Socket::is_of_own_user);
    let rights = if is_own {
        Rights::Admin
    } else {
        authenticate(stranger, snapshot, &start.user).await?;
        console::rights(snapshot, &start.user)?
    };
    let place = console::Place::take(snapshot)?;
    let identity = Identity::new(&*start.database, &*start.user, Credentials::default());
    let card = Card::new(Arc::new(identity), Purpose::Console, None, stranger.socket.as_ref());
    let (key, greeting) =
        greet(snapshot, start.minor >= 2, card, &console::parameters(snapshot.console.like))?;
    let settings = Settings::new(start.settings.clone());
    key.has_settings(&Arc::new(settings));
    Ok(Entered::Console { user: start.user.clone(), rights, key, greeting, place })
}

/// A key for a client, and what it is told first.
fn greet(
    snapshot: &Snapshot,
    long_key: bool,
    card: Card,
    parameters: &[u8],
) -> Result<(CancelKey, Vec<u8>), Refused> {
    let (key, secret) = snapshot
        .cancels
        .issue(long_key, card)
        .map_err(|_| Refused::Silently("no random bytes from the system"))?;
    let mut greeting = Vec::new();
    message::authentication(&mut greeting, 0, &[]);
    greeting.extend_from_slice(parameters);
    message::backend_key(&mut greeting, key.process_id(), &secret);
    message::ready(&mut greeting, crate::wire::TxStatus::Idle);
    Ok((key, greeting))
}

/// The card that operators see of a client.
fn card_of(kind: &Kind, start: &Startup, snapshot: &Snapshot, socket: Option<&Socket>) -> Card {
    match kind {
        Kind::Session(session) => {
            let bound = session.bound.map(|pool| snapshot.pool(pool).name.as_str());
            Card::new(Arc::clone(&session.identity), Purpose::Session, bound, socket)
        }
        Kind::Replication(dedicated) => {
            let is_logical = start.replication.as_deref() == Some("database");
            let purpose = if is_logical { Purpose::LogicalReplication } else { Purpose::PhysicalReplication };
            Card::new(dedicated.identity(), purpose, None, socket)
        }
    }
}

/// A place for whom the client says it is.
fn take_place(start: &Startup, snapshot: &Snapshot) -> Result<CountedClient, Reply> {
    let limit = snapshot.limits.max_clients;
    let (database, _) = database::split(&start.database, |name| snapshot.pool_named(name));
    let others_known = snapshot.identities.users.iter().nth(1).is_some();
    let name = (start.user.as_str(), database);
    CountedClient::new(&snapshot.metrics, &snapshot.places, name, limit, others_known).map_err(|why| {
        snapshot.metrics.no_place.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match why {
            NoPlace::Full => reply::too_many_clients(limit),
            NoPlace::Kept { held, reserve } => reply::too_many_of_identity(name, held, reserve),
        }
    })
}

fn claim_of(start: &Startup) -> Claim {
    Claim {
        user: start.user.clone(),
        database: start.database.clone(),
        application_name: application_name(start).unwrap_or_default().to_owned(),
    }
}

fn application_name(start: &Startup) -> Option<&str> {
    let named = start.settings.iter().find(|(name, _)| name == "application_name");
    named.map(|(_, value)| value.as_str())
}

/// What an authenticated client gets, and the parameters (ParameterStatus) that it is told.
async fn admit(start: &Startup, snapshot: &Arc<Snapshot>, home: Home) -> Result<(Arc<[u8]>, Kind), Reply> {
    let (database, bound) = database::split(&start.database, |name| snapshot.pool_named(name));
    let identities = &snapshot.identities;
    let pool = bound.unwrap_or(snapshot.routes.primary);
    if replication::is_asked(start.replication.as_deref()) {
        // Physical replication is of the whole server: it names no database.
        let physical = start.replication.as_deref() != Some("database");
        if !physical && !identities.serves(database) {
            return Err(reply::unknown_database(database));
        }
        let identity = identities.one_sessions(database, &start.user, replication_parameters(start));
        let backend = replication::open(snapshot, identity, pool, home).await?;
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
        .ok_or_else(|| reply::too_many_clients(snapshot.limits.max_clients))?;
    let settings = startup_settings(start)?;
    if let Some(other) =
        settings.get("bulkhead.pool_mode").filter(|mode| !["session", "transaction"].contains(mode))
    {
        return Err(reply::bad_pool_mode(other));
    }
    reprove::prove(snapshot, &identity, pool, home).await?;
    snapshot.catalogs.of(&identity).first_read().await;
    let Greeting { parameters, startup, reading, .. } =
        greeting(snapshot, &identity, pool, settings, home).await?;
    Ok((parameters, Kind::Session(Start { identity, startup, reading, bound })))
}

/// The startup parameters of a replication connection: the client's own.
fn replication_parameters(start: &Startup) -> Vec<(String, String)> {
    let mut parameters = start.settings.clone();
    parameters.extend(start.replication.iter().map(|value| ("replication".to_owned(), value.clone())));
    parameters
}

/// Tells a client that asked for more than we know what we know.
async fn negotiate(stranger: &mut Stranger, start: &Startup) -> io::Result<()> {
    if start.minor <= MINOR_VERSION && start.unknown_options.is_empty() {
        return Ok(());
    }
    let mut out = Vec::new();
    message::negotiate_version(&mut out, start.minor.min(MINOR_VERSION), &start.unknown_options);
    stranger.send(&out).await
}

/// The settings of a startup packet; `options` comes first, as in PostgreSQL the others override it.
fn startup_settings(start: &Startup) -> Result<Settings, Reply> {
    let mut pairs = Vec::new();
    for (name, value) in &start.settings {
        if name == "options" {
            let parsed = options::parse(value).map_err(|bad| match bad {
                BadOption::Argument(word) => reply::bad_argument(&word),
                BadOption::NoValue(option) => reply::no_value(&option),
            })?;
            pairs.splice(0..0, parsed);
        } else {
            pairs.push((name.clone(), value.clone()));
        }
    }
    Ok(Settings::new(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle client costs a session and this, with some 100 bytes of the runtime's.
    #[test]
    fn the_future_of_a_connection_is_small() {
        let size = size_of_future(|(current, place): (Arc<Current>, usize)| {
            run(|| Err(io::ErrorKind::NotFound.into()), place, current, Home(0))
        });
        // With what the runtime keeps of a task it is 512.
        assert!(size <= 392, "{size} bytes");
    }
}
