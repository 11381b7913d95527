//! The end of a backend's connection while a session holds it: what becomes of the transaction, and what the client is
//! told. Nothing is told as done that the server has not said to be done.
//!
//! A client that waits for an answer gets the error in its place. One that does not is told with its next request, whatever
//! that is: an error that nobody expects is taken for a notice, and a COMMIT that answers without one, for done. If the
//! client can no longer be told between two messages, has state on the backend, or is in the middle of a pipeline of which
//! it has all answers (there drivers lose count of an error that belongs to no message), its session ends as it would with
//! the server's connection.

use super::{
    Ended, Session,
    held::Held,
    hold::Leased,
    repeat, reply,
    transaction::{Ending, LocalTransaction},
};
use crate::{
    backend::Broken,
    sql::Effects,
    wire::{TxStatus, message, read::ErrorFields},
};

/// SQLSTATE `idle_in_transaction_session_timeout`.
const IDLE_IN_TRANSACTION: &str = "25P03";

/// SQLSTATE `protocol_violation`.
const PROTOCOL_VIOLATION: &str = "08P01";

/// The thing that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// Nothing: it has been answered.
    Nothing,
    /// Nothing, between a Flush and its Sync.
    NothingYet,
    /// The end of a request of which it has been told an error: it may go on behind its Sync.
    Sync,
    /// The answer to something.
    Answer,
}

impl Held<'_> {
    fn awaits(&self) -> Awaits {
        match &self.leased.protocol {
            protocol if protocol.is_skipping() => Awaits::Sync,
            protocol if protocol.awaits_client() => Awaits::NothingYet,
            protocol if self.under_way.restores() || protocol.owes_client() => Awaits::Answer,
            _ => Awaits::Nothing,
        }
    }
}

impl Session {
    /// The backend is gone.
    pub(super) fn on_broken(&mut self, broken: Broken) -> Result<(), Ended> {
        let mut held = self.held();
        let awaits = held.awaits();
        held.leased.protocol.give_up();
        let transient = held.on_news();
        if let Some(reason) = transient {
            self.repeat(reason);
        }
        let ends = self.hold.is_pinned() || self.client.streaming > 0 || awaits == Awaits::NothingYet;
        // The error answers the request.
        self.under_way.take_restore();
        let Some(mut leased) = self.part() else { return Ok(()) };
        let said = leased.protocol.take_error();
        if leased.left.effects.has(Effects::SETS) {
            self.own.note_told(leased.protocol.parameters());
        }
        if leased.protocol.is_amid_message() {
            return Err(Ended::Amid(broken.into()));
        }
        match said {
            Some(fields) if ends || ends_client(&fields) => return Err(Ended::ByServer(Box::new(fields))),
            None if ends => return Err(Ended::Backend(broken.into())),
            _ => {}
        }
        if self.under_way.is_repeated {
            // After an error of the server's own, which the client was not told: the request begins anew already.
            return Ok(());
        }
        // What is being cancelled is not to begin anew.
        if leased.protocol.has_told_nothing()
            && !leased.cancel.was_hit()
            && let Some(reason) = repeat::reason_of_end(&broken, said.as_ref())
            && self.repeat(reason)
        {
            return Ok(());
        }
        if leased.protocol.take_held_ready() {
            message::ready(&mut self.client.outbox, TxStatus::Idle);
        }
        self.tell_loss(awaits, &leased, &broken, said.as_ref());
        Ok(())
    }

    /// Tells the client, or notes what it is to be told.
    fn tell_loss(&mut self, awaits: Awaits, leased: &Leased, broken: &Broken, said: Option<&ErrorFields>) {
        let had_begun = leased.protocol.status() != TxStatus::Idle;
        let is_explicit = had_begun || (awaits != Awaits::Nothing && self.under_way.was_in_transaction);
        match awaits {
            Awaits::Nothing if !is_explicit => {}
            Awaits::Sync => {
                self.client.skipping = true;
                self.hold.transaction =
                    if is_explicit { LocalTransaction::Failed } else { LocalTransaction::No };
            }
            Awaits::Nothing | Awaits::NothingYet => {
                self.hold.transaction = LocalTransaction::Lost(reply::transaction_lost(broken, said));
            }
            Awaits::Answer => {
                let reply = match (said, self.under_way.ending) {
                    (Some(fields), _) if leased.protocol.is_answering_ours() => {
                        reply::settings_failed(fields)
                    }
                    (_, Ending::Commit) if is_explicit => reply::commit_unknown(broken, said),
                    _ if is_explicit => reply::transaction_lost(broken, said),
                    _ => reply::broken(broken, said),
                };
                // What has ended the transaction, or was to, has done so in any case.
                let is_failed = is_explicit && self.under_way.ending == Ending::No;
                self.hold.transaction =
                    if is_failed { LocalTransaction::Failed } else { LocalTransaction::No };
                self.client.skipping = leased.protocol.lacks_sync();
                self.under_way.tally().failed = true;
                reply.error(&mut self.client.outbox);
                if !self.client.skipping && !self.under_way.parts.go_on() {
                    message::ready(&mut self.client.outbox, self.hold.transaction.status());
                }
            }
        }
    }
}

/// Whether the server has ended the connection by what it said of the client, and not for reasons of its own: one that
/// has asked for the end, or broken the protocol, is not to find out with its next statement.
fn ends_client(fields: &ErrorFields) -> bool {
    matches!(fields.code.as_str(), IDLE_IN_TRANSACTION | PROTOCOL_VIOLATION)
}
