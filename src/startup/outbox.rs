//! The outbox that a configuration asks for.

use std::sync::Arc;

use crate::{
    config::{self, Config},
    outbox::{Outbox, Settings},
    shared::Snapshot,
    sql::Rules,
};

/// The outbox: the same as before, if there was one.
pub(super) fn outbox(config: &Config, before: Option<&Snapshot>) -> Option<Arc<Outbox>> {
    let known = || before.and_then(|before| before.outbox.clone());
    config.jobs.outbox.enabled.then(|| known().unwrap_or_default())
}

/// How jobs are moved, if there is an outbox.
pub(super) fn relay_settings(config: &Config, rules: &Rules) -> Option<Settings> {
    let config::Outbox { enabled, batch, poll, keep } = config.jobs.outbox;
    enabled.then(|| Settings { outgoing: rules.outgoing().to_vec(), batch, poll, keep })
}

/// Connections that a server has beside those of its pools: the health check's, and the relay's at both of its servers.
pub fn own_connections(config: &Config, server: usize) -> usize {
    let of_pool = |name: &str| {
        let pool = config.pools.iter().find(|pool| pool.name == name);
        pool.and_then(|pool| pool.servers.first()) == Some(&server)
    };
    let relays = config.jobs.outbox.enabled && (of_pool(config::PRIMARY) || of_pool("jobs"));
    1 + usize::from(relays)
}
