//! Clients and server connections side by side: who holds which.

use std::{collections::HashMap, sync::Arc};

use super::{
    Snapshot,
    cancels::{Activity, Seen},
};
use crate::{pool::OpenBackend, route::PoolId};

/// All connections at one moment, as far as lists that are read one after the other give it.
#[derive(Debug)]
pub struct Connections {
    /// Every client.
    pub clients: Vec<Seen>,
    /// Every backend, with the pool that it is of.
    pub backends: Vec<(PoolId, OpenBackend)>,
    /// The positions of backends, by the address of their targets.
    by_target: HashMap<usize, usize>,
}

impl Connections {
    /// Looks at all that there are now.
    pub fn of(snapshot: &Snapshot) -> Self {
        let clients = snapshot.cancels.seen();
        let mut backends = Vec::new();
        for (at, pool) in snapshot.pools.iter().enumerate() {
            let open = pool.members.iter().flat_map(|member| member.backends());
            backends.extend(open.map(|backend| (PoolId(at as u8), backend)));
        }
        let address = |backend: &OpenBackend| Arc::as_ptr(&backend.target) as usize;
        let by_target =
            backends.iter().enumerate().map(|(at, (_, backend))| (address(backend), at)).collect();
        Self { clients, backends, by_target }
    }

    /// The backend that a client holds, by its position.
    pub fn held_by(&self, client: &Seen) -> Option<usize> {
        let Activity::Holds(target) = &client.activity else { return None };
        self.by_target.get(&(Arc::as_ptr(target) as usize)).copied()
    }

    /// The clients that hold backends, by the positions of these.
    pub fn holders(&self) -> HashMap<usize, &Seen> {
        self.clients.iter().filter_map(|client| Some((self.held_by(client)?, client))).collect()
    }
}
