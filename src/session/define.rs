//! Definitions of job objects, which are made on the job database and on the primary (`jobs.ddl`): the second one is got
//! ready before anything is sent, and is told what has succeeded on the first one. In a transaction both commit, the job
//! database first: should the primary fail then, what it lacks is what the migration that is run again makes.

use super::{
    Session, Stop, held::Held, hold::Across, reply, request::Request, transaction::LocalTransaction,
};
use crate::{
    route::Demand,
    sql::{Control, Effects},
    wire::TxStatus,
};

impl Session {
    /// Whether a request defines job objects on both servers.
    pub(super) fn defines_on_both(&self, demand: &Demand) -> bool {
        self.view.snapshot.routes.defines_on_both(demand) && self.who.bound.is_none()
    }

    /// Gets a backend of the primary ready for what is defined on the job database's, which is held.
    pub(super) async fn prepare_definition(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
    ) -> Result<(), Stop> {
        let Some(sql) = self.judge().executed_sql(request)? else {
            tracing::warn!(
                "job objects are defined on the job database only: the statement is one of several, or has binary values"
            );
            return Ok(());
        };
        if self.status() == TxStatus::Failed || self.hold.is_amid_pipeline() {
            return Ok(());
        }
        if !self.hold.is_both() {
            let opening = match &self.hold.transaction {
                LocalTransaction::Deferred(deferred) => deferred.texts.clone(),
                _ => self.hold.across.as_ref().map(|across| across.opening().to_vec()).unwrap_or_default(),
            };
            if opening.is_empty() && self.status() != TxStatus::Idle {
                return Err(self.torn(request, demand).into());
            }
            let transaction = std::mem::take(&mut self.hold.transaction);
            let primary = self.view.snapshot.routes.primary;
            let mut second = self.second(request, demand, judged_at, primary).await;
            if second.is_ok() {
                for text in &opening {
                    if let Err(stop) = self.say(&String::from_utf8_lossy(text)).await {
                        second = Err(stop);
                        break;
                    }
                }
                if let Some(Held { leased, .. }) = self.held_if_any() {
                    leased.left.effects |= demand.verdict.effects.with(Effects::DDL);
                }
                self.change_places();
            }
            self.hold.transaction = transaction;
            second?;
        }
        let across = self.hold.across.get_or_insert_with(|| Across::default().into());
        (across.echo, across.defines) = (Some(sql.into_bytes().into()), true);
        if self.status() == TxStatus::Idle {
            // It is done when it is done on both.
            self.held().leased.protocol.hold_ready();
        }
        Ok(())
    }

    /// Commits what was defined on the job database, if the transaction's own COMMIT goes to the primary.
    pub(super) async fn commit_definitions(&mut self, control: Control) -> Result<(), Stop> {
        let defines = self.hold.across.as_ref().is_some_and(|across| across.defines);
        let snapshot = &self.view.snapshot;
        let is_on_primary = self.hold.backend().is_some_and(|leased| {
            snapshot.routes.jobs.is_some_and(|jobs| !snapshot.same_server(leased.pool, jobs))
        });
        let commits = control == Control::Commit && self.status() == TxStatus::Open;
        if !defines || !is_on_primary || !commits || self.end_other("COMMIT").await? {
            return Ok(());
        }
        Err(reply::definitions_not_committed().into())
    }
}
