//! Requests that are judged once more: right behind a definition nothing is known of the catalog, and what calls a function
//! counts as a write. A transaction that uses both servers would be refused for that, which a moment later is not.

use super::{Session, Stop, reply, request::Request};
use crate::{
    pool::Refusal,
    route::{Demand, Target},
    sql::{Class, Effects, Reason},
    wire::TxStatus,
};

impl Session {
    /// Whether what a request needs to be known is not known yet, and may be in a moment.
    #[inline]
    pub(super) fn waits_to_know(&self, request: Request, demand: &Demand) -> bool {
        self.awaits_catalog(request, demand) || self.awaits_outbox(demand)
    }

    /// Waits until it is known, for a bounded time, and gives the demand as it is seen then.
    pub(super) async fn wait_to_know(
        &mut self,
        request: Request,
        mut demand: Demand,
    ) -> Result<Demand, Stop> {
        if self.awaits_catalog(request, &demand) {
            demand = self.judge_anew(request).await?;
        }
        if self.awaits_outbox(&demand) {
            self.wait_for_outbox().await?;
        }
        Ok(demand)
    }

    /// Whether a request in a transaction is judged by a catalog of which nothing is known, and that decides whether it, or what
    /// follows it, can be run: it asks by name for a job object, which may then be a read, or would be refused where both servers are
    /// used.
    #[inline]
    fn awaits_catalog(&self, request: Request, demand: &Demand) -> bool {
        let verdict = &demand.verdict;
        verdict.effects.has(Effects::UNSURE)
            && self.view.snapshot.routes.jobs_elsewhere
            && self.is_judged_blindly(request, demand)
    }

    fn is_judged_blindly(&self, request: Request, demand: &Demand) -> bool {
        let verdict = &demand.verdict;
        let is_open = self.status() == TxStatus::Open && !self.hold.is_amid_pipeline();
        let asks =
            || verdict.class == Class::Job && matches!(verdict.reason, Reason::JobLiteral | Reason::JobValue);
        is_open && self.view.catalog.load().is_empty() && (asks() || self.would_be_torn(request, demand))
    }

    /// Whether a request would be refused since the other server has written.
    fn would_be_torn(&self, request: Request, demand: &Demand) -> bool {
        match self.target(request, demand) {
            Target::Across(pool) => !self.may_write_there(demand, self.is_at(pool)),
            _ => false,
        }
    }

    /// Waits until the catalog has been read again, or for a while, and judges the request by that.
    async fn judge_anew(&mut self, request: Request) -> Result<Demand, Stop> {
        let catalog = self.view.catalog.clone();
        let waited = self.wait(std::pin::pin!(catalog.known())).await?;
        // The statement has not begun: cancelled, it is refused, and its transaction has failed.
        if waited.is_none() {
            let snapshot = &self.view.snapshot;
            let primary = &snapshot.pool(snapshot.routes.primary).name;
            return Err(reply::refused(primary, &Refusal::Cancelled).into());
        }
        let mut demand = self.judge().classify(request).await?;
        self.note_part(&mut demand);
        Ok(demand)
    }
}
