//! Getting a backend: admission, waiting, and a check of those that have been idle for long.

use std::sync::Arc;

use super::{
    Ended, Session,
    reply::{self, Reply},
};
use crate::{
    pool::{Checkout, Lease, Refusal, ServerPool, Wants},
    route::PoolId,
};

impl Session {
    /// Takes a lease from the pool, or says why there is none.
    pub(crate) async fn checkout(&mut self, pool: PoolId) -> Result<Result<(), Reply>, Ended> {
        let shared = Arc::clone(&self.shared);
        let mut target = pool;
        loop {
            let Some(member) = shared.pool(target).choose() else {
                target = shared.routes.primary;
                continue;
            };
            match self.lease_from(member, target).await? {
                Ok(lease) => {
                    self.hold(lease, target);
                    return Ok(Ok(()));
                }
                // A replica that cannot be reached is no reason to fail a read.
                Err(Refusal::Unreachable(_))
                    if Some(target) == shared.routes.replicas && target != shared.routes.primary =>
                {
                    target = shared.routes.primary;
                }
                Err(refusal) => return Ok(Err(reply::refused(&shared.pool(target).name, &refusal))),
            }
        }
    }

    async fn lease_from(
        &mut self,
        member: &Arc<ServerPool>,
        pool: PoolId,
    ) -> Result<Result<Lease, Refusal>, Ended> {
        loop {
            let last = self.last.filter(|(of, _)| *of == pool).map(|(_, backend)| backend);
            let wants =
                Wants { identity: &self.identity, last, settings: self.settings.hash(), home: self.home };
            match member.checkout(&wants) {
                Checkout::Lease(lease) => return Ok(Ok(lease)),
                Checkout::Wait(waiting) => return self.wait(waiting).await,
                Checkout::Refused(refusal) => return Ok(Err(refusal)),
                Checkout::Stale(mut lease) => {
                    if Box::pin(lease.check()).await {
                        return Ok(Ok(lease));
                    }
                    // It is closed with its lease, and the next one is tried.
                }
            }
        }
    }

    fn hold(&mut self, lease: Lease, pool: PoolId) {
        self.key.holds(&lease.cancel);
        self.last = Some((pool, lease.id));
        self.lease_pool = pool;
        self.lease = Some(lease);
    }
}
