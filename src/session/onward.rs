//! A READ ONLY transaction that is on a replica, and comes to a statement that no replica can run, or that would tie its
//! session there: it goes on on the primary.
//!
//! In READ COMMITTED each statement sees what was committed when it began, and the primary has all that the replica has, so
//! that a transaction which has only read looks the same from there, but for the time of its beginning (`now()`). What would
//! be lost on the way, a snapshot, a cursor, savepoints, local settings, keeps it on the replica: what would tie the session
//! there is refused then, and the server itself says of the rest that it cannot run it.

use super::{
    Session, Stop,
    held::Held,
    reply,
    request::Request,
    transaction::{Deferred, LocalTransaction},
};
use crate::{
    backend::query::ASK_TIMEOUT,
    route::{Demand, PoolId, Target, misplaced_on_replica},
    sql::Effects,
    wire::TxStatus,
};

/// Whether each statement has a snapshot of its own, and no cursor is open. Portals that a client has named are cursors here.
const MAY_LEAVE: &str = "SELECT pg_catalog.current_setting('transaction_isolation'::pg_catalog.text) \
    OPERATOR(pg_catalog.=) 'read committed'::pg_catalog.text AND NOT EXISTS (SELECT FROM pg_catalog.pg_cursors)";

/// The transaction, as it goes on. Its mode is said whether BEGIN has said it or a default.
const GOES_ON: &[u8] = b"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY";

/// Effects that leave nothing, not even in the transaction.
const LEAVES_NOTHING: Effects = Effects::APP_OBJECTS.with(Effects::BIND_DECIDES);

impl Session {
    /// Goes where the backend is not that the session holds, or says why there is no such place.
    pub(super) async fn go_elsewhere(
        &mut self,
        target: Target,
        request: Request,
        demand: &Demand,
        judged_at: u64,
    ) -> Result<(), Stop> {
        match target {
            Target::Across(pool) => self.go_across(request, demand, judged_at, pool).await,
            Target::Onward(pool) => self.go_onward(request, demand, judged_at, pool).await,
            Target::Nowhere(why) => Err(self.misplaced(why, request, demand).into()),
            // These are no other places: the session goes there by itself.
            Target::Held | Target::Pool(_) => Ok(()),
        }
    }

    /// Goes on on a backend of this pool with the transaction, for a request that the replica cannot run, or that prepares
    /// such a statement; or stays, or says why it cannot.
    pub(super) async fn go_onward(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<(), Stop> {
        let is_skipping = self.hold.backend().is_some_and(|leased| leased.protocol.is_skipping());
        let is_moot = is_skipping || self.status() == TxStatus::Failed;
        if is_moot || !self.leaves_replica().await? {
            self.held().stays(demand);
            let why = misplaced_on_replica(demand.verdict.effects).filter(|_| !is_moot && request.runs());
            return why.map_or(Ok(()), |why| Err(self.misplaced(why, request, demand).into()));
        }
        let texts = vec![GOES_ON.into()];
        self.hold.transaction = LocalTransaction::Deferred(Deferred { texts, fits_standby: false }.into());
        self.checkout(request, demand, judged_at, pool).await
    }

    /// Ends the transaction on the replica and gives the backend back. False if that cannot be done; then nothing has changed.
    async fn leaves_replica(&mut self) -> Result<bool, Stop> {
        let Held { leased, .. } = self.held();
        let may_leave = !leased.protocol.is_open()
            && leased.protocol.status() == TxStatus::Open
            && leased.left.effects.without(LEAVES_NOTHING) == Effects::NONE
            && !leased.is_pinned();
        if !may_leave {
            return Ok(false);
        }
        let answer = self.say(MAY_LEAVE).await?;
        if answer.rows.first().and_then(|row| row.first()) != Some(&Some("t".to_owned())) {
            return Ok(false);
        }
        self.end_beside(ASK_TIMEOUT, "ROLLBACK").await?;
        if self.hold.has_backend() {
            self.hold.transaction = LocalTransaction::Failed;
            return Err(reply::state_on_replica().into());
        }
        Ok(true)
    }
}
