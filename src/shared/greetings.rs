//! What new sessions are told of their parameters, as it is remembered: once for each identity and set of startup settings.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    backend::{Identity, Settings},
    route::PoolId,
    sql::Reading,
};

/// Sets of parameters that are remembered.
const REMEMBERED: usize = 1_000;

/// ParameterStatus messages by identity and startup settings.
pub struct Greetings {
    pub(crate) known: quick_cache::sync::Cache<Key, Greeting>,
    /// Counts changes of what connections begin with: what was asked before one is not used after it.
    pub(crate) generation: AtomicU64,
}

/// Everything that a new session starts with.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    /// ParameterStatus messages.
    pub(crate) parameters: Arc<[u8]>,
    /// How the server reads texts with these settings.
    pub(crate) reading: Reading,
    /// Held, so that its address belongs to nobody else as long as this is remembered.
    pub(crate) _identity: Arc<Identity>,
    /// The startup settings: sessions with equal ones share them.
    pub(crate) startup: Arc<Settings>,
}

/// The generation, the identity's address, the pool that was asked, and the startup settings.
pub(crate) type Key = (u64, usize, PoolId, Vec<(String, Vec<u8>)>);

impl std::fmt::Debug for Greetings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Greetings").field(&self.known.len()).finish()
    }
}

impl Default for Greetings {
    fn default() -> Self {
        Self { known: quick_cache::sync::Cache::new(REMEMBERED), generation: AtomicU64::new(0) }
    }
}

impl Greetings {
    /// Connections begin with other settings from now on.
    pub(crate) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.known.clear();
    }
}
