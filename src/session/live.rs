//! How a session goes over to a new snapshot: between two requests, when it holds no backend and is in no transaction.

use super::{Session, transaction::LocalTransaction};
use crate::route::PoolId;

impl Session {
    /// Whether a pool that the session uses has been taken out of the configuration.
    pub(crate) fn outlives_pool(&self, pool: PoolId) -> bool {
        self.view.live.lacks_pool(&self.view.snapshot, &self.view.snapshot.pool(pool).name)
    }

    /// Goes over to the snapshot in force, if there is a new one and nothing ties the session to the old one.
    pub(crate) fn take_up_snapshot(&mut self) {
        if self.view.live.is_current(&self.view.snapshot)
            || self.hold.has_backend()
            || !matches!(self.hold.transaction, LocalTransaction::No)
        {
            return;
        }
        self.go_over();
    }

    /// Goes over to the snapshot in force, where a pool of the old one has been moved to. `None` if it is not there.
    pub(crate) fn follow(&mut self, pool: PoolId) -> Option<PoolId> {
        // What is held already is of the old snapshot's pools, and its transaction goes on there.
        if self.view.live.is_current(&self.view.snapshot) || self.hold.is_both() {
            return None;
        }
        let name = self.view.snapshot.pool(pool).name.clone();
        self.go_over();
        self.view.snapshot.pool_named(&name)
    }

    fn go_over(&mut self) {
        let new = self.view.live.load();
        let bound = self.who.bound.map(|pool| new.pool_named(&self.view.snapshot.pool(pool).name));
        if bound == Some(None) {
            // The pool that it is bound to is gone: its client is told with the next statement, or it comes back.
            return;
        }
        self.who.bound = bound.flatten();
        // Replicas are known by their positions.
        self.leave_replica();
        let old = std::mem::replace(&mut self.view.snapshot, new);
        let snapshot = &self.view.snapshot;
        // Positions of pools mean something else now.
        self.own.last = self.own.last.and_then(|(pool, backend, uses)| {
            let name = &old.pool(pool).name;
            let at = snapshot.pools.iter().position(|pool| pool.name == *name)?;
            Some((PoolId(at as u8), backend, uses))
        });
        let rules = snapshot.classifier.rules();
        self.under_way.fresh = 0;
        self.own.asked = self.own.settings.get("bulkhead.route").and_then(|route| rules.hint(route));
        self.who.is_worker =
            snapshot.is_worker(&self.who.identity.user, self.who.startup.get("application_name"));
    }
}
