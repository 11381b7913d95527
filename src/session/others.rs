//! What other sessions have prepared on a connection, and `pg_prepared_statements` would show: their texts are nobody
//! else's. A text that is proven does not read it (`pg_prepared_statement` is among the risky functions). Before any other
//! runs, all statements are let go of, unless they are the session's own. So are they before the session gives names of
//! its own to statements by SQL, as these could not be told from the others later.
//!
//! Mostly that is done when the connection is handed over, without a round trip of its own. What comes here is rare: a
//! text that is not proven, after one that is, in one transaction or on a connection that is kept.

use super::{
    Session, Stop,
    held::Held,
    reply,
    request::{End, Request},
    transaction::LocalTransaction,
};
use crate::{
    backend::{Broken, Prepared},
    route::Demand,
    sql::{Class, Effects},
    wire::TxStatus,
};

/// Effects of texts that name statements by SQL.
const NAMES: Effects = Effects::PREPARES.with(Effects::NAMES_STATEMENT);

impl Session {
    /// Whether a request may see which statements there are, or others that follow before its Sync may, of which nothing
    /// can be asked before them.
    pub(super) fn may_see_statements(request: Request, demand: &Demand) -> bool {
        let goes_on = request.end == End::Open && !request.only_prepares();
        goes_on || demand.verdict.effects.has(NAMES.with(Effects::UNPROVEN))
    }

    /// Lets go of what others have prepared on the backend that is held.
    pub(super) async fn hide_others(&mut self) -> Result<(), Stop> {
        let mut held = self.held();
        let in_transaction = held.leased.protocol.status() != TxStatus::Idle;
        let Err(broken) = held.let_go_of_others().await else { return Ok(()) };
        // Nothing of the request was sent.
        let reply =
            if in_transaction { reply::transaction_lost(&broken, None) } else { reply::not_sent(&broken) };
        self.end_lease(broken)?;
        if in_transaction {
            self.hold.transaction = LocalTransaction::Failed;
        }
        Err(reply.into())
    }
}

impl Held<'_> {
    /// Whether the request may see what others have prepared on the backend that is held, and they can be let go of.
    pub(super) fn shows_others(&self, request: Request, demand: &Demand) -> bool {
        if self.leased.prepared != Prepared::Others {
            return false;
        }
        // SET and the like see nothing, and a question would take a snapshot before they can say what is in it.
        let sees_nothing = request.end != End::Open
            && demand.verdict.class == Class::Neutral
            && !demand.verdict.effects.has(NAMES);
        Session::may_see_statements(request, demand)
            && !sees_nothing
            && self.status() != TxStatus::Failed
            && !self.is_amid_pipeline()
            && self.leased.protocol.status() != TxStatus::Failed
    }

    async fn let_go_of_others(&mut self) -> Result<(), Broken> {
        let Self { client, leased, .. } = self;
        match leased.ask_unhindered("DEALLOCATE ALL").await {
            Ok(answer) if answer.error.is_none() => {
                leased.statements.clear();
                leased.prepared = Prepared::Own;
                client.outbox.extend_from_slice(&answer.for_client);
                Ok(())
            }
            Ok(_) => Err(leased.given_up("it does not let go of other sessions' statements")),
            Err(broken) => Err(broken),
        }
    }
}
