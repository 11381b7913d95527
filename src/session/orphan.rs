//! What a client that leaves has sent whole runs to its end, as on a server, which does not look for its client either as
//! long as it works. A client that has only closed its sending side gets its answers.
//!
//! Bounded by `limits.orphan_timeout`, from when the client was seen to leave: then what still runs is cancelled, and what
//! did not begin does not. At once that happens only where nothing is lost by it: the client is gone for good (it has
//! said goodbye and closed, or its connection has failed), and everything under way is proven to read only.
//!
//! What was not sent whole is never run, and a transaction whose COMMIT was not sent is rolled back with its backend.

use std::{future::poll_fn, io};

use super::{
    Ended, Session,
    client::Presence,
    relay::Until,
    request::{End, first_request},
};
use crate::{
    route::Demand,
    sql::{Class, Effects, Reason},
};

impl Session {
    /// A request is looked at: whether nothing of it, nor of what runs already, can have an effect.
    pub(super) fn note_only_reads(&mut self, demand: &Demand) {
        let verdict = &demand.verdict;
        let reads = verdict.class == Class::Read
            && verdict.reason == Reason::ReadOnly
            && !verdict.effects.has(Effects::UNPROVEN);
        self.under_way.only_reads = reads && (self.under_way.only_reads || !self.hold.is_amid_pipeline());
    }

    /// The client has closed its sending side.
    pub(super) fn client_has_closed(&mut self) {
        // Here => Closed
        if self.client.presence.is_here() {
            self.client.leaves(Presence::Closed, self.view.snapshot.limits.orphan_timeout);
        }
    }

    /// The client's connection has failed. An error if there is no reason to go on without it.
    pub(super) fn lose_client(&mut self, error: io::Error) -> Result<(), Ended> {
        // Here, Closed => Gone
        self.client.leaves(Presence::Gone, self.view.snapshot.limits.orphan_timeout);
        self.client.outbox = Vec::new();
        if self.is_unattended() { Err(Ended::ClientIo(error)) } else { Ok(()) }
    }

    /// Whether nobody is there for what is under way, and it can have no effect.
    pub(super) fn is_unattended(&self) -> bool {
        let is_idle = self.hold.backend().is_none_or(|leased| leased.protocol.is_answered());
        (is_idle || self.under_way.only_reads) && self.has_left(0)
    }

    /// The same of the request at the start of the inbox, which waits for a backend.
    pub(super) fn may_leave_queue(&self) -> bool {
        if self.client.presence.is_here() {
            return false;
        }
        let first = first_request(&self.client.inbox, self.view.snapshot.limits.request_buffer);
        // What is not whole will never be run.
        let Ok(Some(request)) = first else { return true };
        request.streaming > 0 || (self.under_way.only_reads && self.has_left(request.len))
    }

    /// Whether the client is gone for good, and has sent no request from this byte of the inbox on.
    fn has_left(&self, from: usize) -> bool {
        let rest = self.client.inbox.get(from..).unwrap_or_default();
        let says_goodbye = rest.first() == Some(&b'X');
        match self.client.presence {
            Presence::Here => false,
            Presence::Closed => says_goodbye,
            Presence::Gone => says_goodbye || !self.has_request(rest),
        }
    }

    fn has_request(&self, bytes: &[u8]) -> bool {
        let first = first_request(bytes, self.view.snapshot.limits.request_buffer);
        matches!(first, Ok(Some(request)) if request.streaming == 0 && request.end != End::Terminate)
    }

    /// Whether what is under way, or comes next, can be done without another byte of the client.
    pub(super) fn goes_on_alone(&self) -> bool {
        let waits_for_client = self.hold.backend().is_some_and(|leased| {
            leased.protocol.copying_in() || (leased.protocol.is_open() && !leased.protocol.awaits_replies())
        });
        self.client.streaming == 0 && !waits_for_client
    }

    /// [`Session::relay`] for a client that has left.
    pub(super) async fn relay_alone(&mut self) -> Result<(), Ended> {
        let left = self.client.time_left();
        tokio::select! {
            biased;
            // Cancel safe: what was moved is in the session.
            moved = poll_fn(|cx| self.poll_move(cx, Until::AnsweredAlone)) => moved.map(|_| ()),
            () = tokio::time::sleep(left) => Err(self.orphaned()),
        }
    }

    /// A client that has left is served as long as it has sent whole requests; then it is over, when it has its answers.
    pub(super) async fn farewell(&mut self) -> Result<(), Ended> {
        if self.has_request(&self.client.inbox) {
            return if self.client.time_left().is_zero() { Err(self.orphaned()) } else { Ok(()) };
        }
        let left = self.client.time_left();
        // One that does not take its answers cannot be told so.
        let _ = tokio::time::timeout(left, poll_fn(|cx| self.poll_flush(cx))).await;
        Err(Ended::ByClient)
    }

    fn orphaned(&self) -> Ended {
        let limit = self.view.snapshot.limits.orphan_timeout;
        tracing::info!(
            user = self.who.identity.user,
            database = self.who.identity.database,
            ?limit,
            "a statement is cancelled: its client left before it ended"
        );
        Ended::Orphaned(limit)
    }
}
