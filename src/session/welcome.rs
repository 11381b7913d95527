//! What a new session is told of its parameters: what the server would have said, had the client connected to it
//! with the same startup parameters. Asked of a backend once for each identity and set of parameters.

use std::{sync::Arc, time::Duration};

use super::{
    reply::{self, Reply},
    shared::Shared,
};
use crate::{
    backend::{Home, Identity, Settings},
    pool::Wants,
    route::PoolId,
    wire::message,
};

/// Sets of parameters that are remembered.
const REMEMBERED: usize = 1_000;

/// Asking takes no longer than this.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// ParameterStatus messages by identity and startup settings.
pub struct Welcomes(quick_cache::sync::Cache<Key, Welcome>);

/// What a new session starts with.
#[derive(Clone, Debug)]
pub(super) struct Welcome {
    /// ParameterStatus messages.
    pub(super) parameters: Arc<[u8]>,
    /// Held, so that its address belongs to nobody else as long as this is remembered.
    _identity: Arc<Identity>,
    /// Its startup settings: sessions with equal ones share them.
    pub(super) startup: Arc<Settings>,
}

/// The identity's address, the pool that was asked, and the startup settings.
type Key = (usize, PoolId, Vec<(String, String)>);

impl std::fmt::Debug for Welcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Welcomes").field(&self.0.len()).finish()
    }
}

impl Default for Welcomes {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(REMEMBERED))
    }
}

/// What a new session with these startup settings starts with; an error ends it.
pub(super) async fn welcome(
    shared: &Arc<Shared>,
    identity: &Arc<Identity>,
    pool: PoolId,
    startup: Settings,
    home: Home,
) -> Result<Welcome, Reply> {
    let pairs: Vec<(String, String)> =
        startup.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // An identity lives as long as anybody has remembered it: its address tells it from any other.
    let key = (Arc::as_ptr(identity) as usize, pool, pairs);
    if let Some(known) = shared.welcomes.0.get(&key) {
        return Ok(known);
    }
    let startup = Arc::new(startup);
    let parameters = ask(shared, identity, pool, &startup, home).await?;
    let welcome = Welcome { parameters, startup, _identity: Arc::clone(identity) };
    shared.welcomes.0.insert(key, welcome.clone());
    Ok(welcome)
}

async fn ask(
    shared: &Arc<Shared>,
    identity: &Arc<Identity>,
    pool: PoolId,
    startup: &Arc<Settings>,
    home: Home,
) -> Result<Arc<[u8]>, Reply> {
    let pool = shared.pool(pool);
    let refused = |refusal| reply::refused(&pool.name, &refusal);
    let wants = Wants { identity, last: None, settings: startup.hash(), home };
    let member = pool.choose().unwrap_or(&pool.members[0]);
    let mut lease = member.lease(&wants).await.map_err(refused)?;
    if let Some(sql) = lease.applied.change_to(startup) {
        let answer = tokio::time::timeout(ASK_TIMEOUT, lease.ask(&sql))
            .await
            .map_err(|_| reply::no_answer())?
            .map_err(|error| reply::broken(&error, None))?;
        if let Some(error) = answer.error {
            // The lease ends here, and the backend with it.
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
