//! Whether jobs that a session adds on the primary come to the job database: where jobs are relayed, and once it is known.

use super::{Session, Stop, reply};
use crate::{pool::Refusal, route::Demand, wire::TxStatus};

impl Session {
    /// Whether jobs that the session adds on the primary are relayed: those of the database of the servers' URLs are.
    pub(super) fn relays(&self) -> bool {
        let snapshot = &self.view.snapshot;
        snapshot.routes.jobs_elsewhere
            && snapshot.takes_jobs()
            && self.who.identity.database == snapshot.identities.url_database
    }

    /// Whether a request is to wait until it is known whether jobs can be added on the primary: it adds some beside what the
    /// application does, and the relay has just been started.
    pub(super) fn awaits_outbox(&self, demand: &Demand) -> bool {
        let is_beside = || demand.mixed || self.hold.has_backend() || self.status() != TxStatus::Idle;
        let is_unknown = || self.view.snapshot.outbox.as_ref().is_some_and(|outbox| !outbox.is_known());
        demand.adds_jobs() && is_unknown() && is_beside()
    }

    /// Waits until that is known, for as long as for a connection of the primary's pool.
    pub(super) async fn wait_for_outbox(&mut self) -> Result<(), Stop> {
        let snapshot = std::sync::Arc::clone(&self.view.snapshot);
        let Some(outbox) = &snapshot.outbox else { return Ok(()) };
        let primary = snapshot.pool(snapshot.routes.primary);
        let limit = primary.members.first().map(|member| member.limits().wait_timeout).unwrap_or_default();
        match self.wait(std::pin::pin!(tokio::time::timeout(limit, outbox.known()))).await? {
            Some(_) => Ok(()),
            None => Err(reply::refused(&primary.name, &Refusal::Cancelled).into()),
        }
    }
}
