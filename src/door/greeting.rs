//! What a new session is told of its parameters: what the server would have said, had the client connected to it
//! with the same startup parameters. Asked of a backend once for each identity and set of parameters.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    backend::{
        Identity, Settings,
        protocol::reading_of,
        query::{ASK_TIMEOUT, in_time},
    },
    pool::Wants,
    route::PoolId,
    session::reply::{self, Reply},
    shared::{
        Snapshot,
        greetings::{Greeting, Key},
    },
    sql::Reading,
    threads::Home,
    wire::{frame::split_message, message, read::Body},
};

/// The server takes any value of it that is plain, and says it back.
const APPLICATION_NAME: &str = "application_name";

/// The length of a name, `NAMEDATALEN` less one: the server cuts longer ones.
const NAME_BYTES: usize = 63;

/// The greeting of a new session with these startup settings; an error ends it.
pub(super) async fn greeting(
    snapshot: &Arc<Snapshot>,
    identity: &Arc<Identity>,
    pool: PoolId,
    startup: Settings,
    home: Home,
) -> Result<Greeting, Reply> {
    let pairs: Vec<(String, Vec<u8>)> =
        startup.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // An identity lives as long as anybody has remembered it: its address tells it from any other.
    let generation = snapshot.greetings.generation.load(Ordering::Acquire);
    let key = (generation, Arc::as_ptr(identity) as usize, pool, pairs);
    if let Some(known) = snapshot.greetings.known.get(&key) {
        return Ok(known);
    }
    let startup = Arc::new(startup);
    let parameters = match renamed(snapshot, &key) {
        Some(parameters) => parameters,
        None => ask(snapshot, identity, pool, &startup, home).await?,
    };
    let reading = reading(&parameters);
    let greeting = Greeting { parameters, startup, reading, _identity: Arc::clone(identity) };
    snapshot.greetings.known.insert(unnamed(&key), greeting.clone());
    snapshot.greetings.known.insert(key, greeting.clone());
    Ok(greeting)
}

/// The key of all that differ in nothing but their `application_name`.
fn unnamed((generation, identity, pool, pairs): &Key) -> Key {
    let others = pairs.iter().filter(|(name, _)| name != APPLICATION_NAME).cloned();
    // No setting has this name.
    let mark = (String::new(), Vec::new());
    (*generation, *identity, *pool, others.chain([mark]).collect())
}

/// What is known of a session that differs in nothing but its `application_name`: a new name alone needs no server.
fn renamed(snapshot: &Arc<Snapshot>, key: &Key) -> Option<Arc<[u8]>> {
    let (_, name) = key.3.iter().find(|(name, _)| name == APPLICATION_NAME)?;
    let is_plain = name.len() <= NAME_BYTES && name.iter().all(|byte| (b' '..=b'~').contains(byte));
    let name = std::str::from_utf8(name).ok()?;
    let known = snapshot.greetings.known.get(&unnamed(key)).filter(|_| is_plain)?;
    let mut messages = Vec::new();
    let mut rest = &*known.parameters;
    while let Ok(Some((_, body, after))) = split_message(rest) {
        let whole = &rest[..rest.len() - after.len()];
        rest = after;
        if Body::new(body, "ParameterStatus").cstring().ok()? == APPLICATION_NAME.as_bytes() {
            message::parameter_status(&mut messages, APPLICATION_NAME, name);
        } else {
            messages.extend_from_slice(whole);
        }
    }
    Some(messages.into())
}

/// The reading of texts that ParameterStatus messages tell.
fn reading(mut messages: &[u8]) -> Reading {
    let mut parameters = Vec::new();
    while let Ok(Some((_, body, after))) = split_message(messages) {
        messages = after;
        let mut body = Body::new(body, "ParameterStatus");
        if let (Ok(name), Ok(value)) = (body.cstring(), body.cstring()) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            parameters.push((text(name), text(value)));
        }
    }
    reading_of(&parameters)
}

async fn ask(
    snapshot: &Arc<Snapshot>,
    identity: &Arc<Identity>,
    pool: PoolId,
    startup: &Arc<Settings>,
    home: Home,
) -> Result<Arc<[u8]>, Reply> {
    let pool = snapshot.pool(pool);
    let refused = |refusal| reply::refused(&pool.name, &refusal);
    let wants = Wants { identity, last: None, settings: startup.hash(), home };
    let member = pool.choose().unwrap_or(&pool.members[0]);
    let mut lease = member.lease(&wants).await.map_err(refused)?;
    if let Some(sql) = lease.applied.change_to(startup) {
        let server = Arc::clone(&lease.server);
        let asked = in_time(ASK_TIMEOUT, &server, lease.ask(&sql)).await;
        let answer = asked.map_err(|broken| reply::no_answer(&broken))?;
        if let Some(error) = answer.error {
            // It was one transaction, so nothing has changed.
            if let Some(proof) = lease.protocol.quiescent() {
                lease.release(proof);
            }
            return Err(Reply::from_server(&error));
        }
        lease.applied = Arc::clone(startup);
    }
    let mut messages = Vec::new();
    for (name, value) in lease.protocol.parameters() {
        message::parameter_status(&mut messages, name, value);
    }
    if let Some(proof) = lease.protocol.quiescent() {
        lease.release(proof);
    }
    Ok(messages.into())
}
