//! Requests that are judged once more: right behind a definition nothing is known of the catalog, and what calls a function
//! counts as a write. A transaction that uses both servers would be refused for that, which a moment later is not.

use super::{Ended, Session, held::Held, request::Request};
use crate::{
    route::{Demand, Target},
    sql::{Class, Effects, Reason},
    wire::TxStatus,
};

impl Session {
    /// Whether a request in a transaction is judged by a catalog of which nothing is known, and that decides whether it, or what
    /// follows it, can be run: it asks by name for a job object, which may then be a read, or would be refused where both servers are
    /// used.
    #[inline]
    pub(super) fn awaits_catalog(&self, request: Request, demand: &Demand) -> bool {
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
    pub(super) async fn judge_anew(&mut self, request: Request) -> Result<Demand, Ended> {
        let catalog = self.view.catalog.clone();
        // A cancel ends the wait, and not the statement, which has not begun.
        self.wait(std::pin::pin!(catalog.known())).await?;
        if let Some(Held { who, leased, .. }) = self.held_if_any() {
            who.key.holds(&leased.cancel);
        }
        Ok(self.as_part(self.judge().classify(request).await?))
    }
}
