//! Getting a backend: admission, waiting, and a check of those that have been idle for long.

use std::sync::Arc;

use super::{Session, Stop, reply, request::Request};
use crate::{
    pool::{Checkout, ConnectFailure, Lease, Pool, Refusal, Wants},
    route::{Demand, PoolId},
};

impl Session {
    /// Takes a lease from the pool for a request, or says why there is none.
    pub(crate) async fn checkout(
        &mut self,
        request: Request,
        demand: &Demand,
        pool: PoolId,
    ) -> Result<(), Stop> {
        if self.bound.is_some() && self.outlives_pool(pool) {
            return Err(reply::pool_is_gone(&self.shared.pool(pool).name).into());
        }
        // The channels of a LISTEN are waited for while no backend is held.
        if Self::listens_in(demand) {
            Box::pin(self.subscribe(request, pool)).await?;
        }
        let at_once = self.shared.pool(pool).choose().map(|member| member.checkout(&self.wants(pool)));
        if let Some(Checkout::Lease(lease)) = at_once {
            self.hold(lease, pool);
            return Ok(());
        }
        Box::pin(self.checkout_slowly(pool, at_once)).await
    }

    /// What may take time: waiting, checking a backend, going on to the primary.
    async fn checkout_slowly(&mut self, pool: PoolId, mut first: Option<Checkout>) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let mut target = pool;
        let lease = loop {
            let choose = || shared.pool(target).choose().map(|member| member.checkout(&self.wants(target)));
            let refusal = match first.take().or_else(choose) {
                Some(Checkout::Lease(lease)) => break lease,
                Some(Checkout::Stale(mut lease)) => {
                    if lease.check().await {
                        break lease;
                    }
                    // It is closed with its lease, and the next one is tried.
                    continue;
                }
                Some(Checkout::Wait(waiting)) => match self.wait(waiting).await? {
                    Ok(lease) => break lease,
                    Err(refusal) => Some(refusal),
                },
                Some(Checkout::Refused(refusal)) => Some(refusal),
                // None of the pool's servers can be reached.
                None if self.bound.is_some() => Some(unreachable(shared.pool(target))),
                None => None,
            };
            if let Some(refusal) = refusal {
                // A replica that cannot be reached is no reason to fail a read.
                let is_replica = Some(target) == shared.routes.replicas && target != shared.routes.primary;
                let may_go_on = is_replica && self.bound.is_none();
                if !(may_go_on && matches!(refusal, Refusal::Unreachable(_))) {
                    return Err(reply::refused(&shared.pool(target).name, &refusal).into());
                }
            }
            target = shared.routes.primary;
        };
        self.hold(lease, target);
        Ok(())
    }

    fn wants(&self, pool: PoolId) -> Wants<'_> {
        let last = self.last.filter(|(of, ..)| *of == pool).map(|(_, backend, _)| backend);
        Wants { identity: &self.identity, last, settings: self.settings.hash(), home: self.home }
    }

    fn hold(&mut self, mut lease: Lease, pool: PoolId) {
        self.key.holds(&lease.cancel);
        lease.protocol.watch_commands(false);
        // It stays new until something has been sent to it.
        self.is_new_backend |= self.last != Some((pool, lease.id, lease.uses));
        lease.uses = lease.uses.wrapping_add(1);
        self.last = Some((pool, lease.id, lease.uses));
        self.lease_pool = pool;
        self.is_kept = self.keeps(pool);
        self.lease = Some(lease);
        if let Some(statements) = &mut self.statements {
            // They were another backend's.
            statements.aliases.clear();
            statements.has_sql_names = false;
        }
        self.begin_listening_lease();
    }
}

/// The refusal of a pool of which no server can be reached.
fn unreachable(pool: &Pool) -> Refusal {
    let failure =
        ConnectFailure::unreachable(&pool.members[0].server_name, "the last attempt failed".to_owned());
    Refusal::Unreachable(Arc::new(failure))
}
