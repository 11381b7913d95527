//! A migration that is one text, `BEGIN; ..; COMMIT`, and defines job objects on both servers: its statements are run one by
//! one, as if they had come so. As a whole it would be committed on the job database, and its locks let go there, before the
//! primary had begun: another starter of the library would go on with what is not there yet.
//!
//! The client is told of the text what it is told on a server: each statement's answer, and that it may go on when the last one
//! is done or one has failed. What stands behind one that has failed is dropped.

use super::{
    Ended, Session,
    request::{End, Request, first_request},
    transaction::LocalTransaction,
};
use crate::{
    route::Demand,
    sql::{Class, Control, Effects, statement_ranges},
    wire::{TxStatus, message},
};

/// Effects of texts that stay whole: what completes them is said behind them.
const WHOLE: Effects = Effects::RESETS.with(Effects::DISCARDS).with(Effects::DISCARDS_SEQUENCES);

/// The statements of a text that is run in parts, at the start of the inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    /// Statements behind the one that is, or is to be, under way.
    pub(super) behind: u32,
    /// The first one was taken up.
    begun: bool,
}

impl Parts {
    /// Whether what is under way is not the last part of its text: the client is not told that it may go on.
    pub(super) const fn go_on(self) -> bool {
        self.behind > 0
    }
}

impl Session {
    /// The demand of a request that may be a part: all that stands in such a text belongs to the job database, as the text
    /// does, also the lock that keeps others out.
    pub(super) fn as_part(&self, mut demand: Demand) -> Demand {
        if self.under_way.parts.begun && demand.verdict.control == Control::None {
            demand.verdict.class = Class::Job;
        }
        demand
    }

    /// Puts the statements of such a text into the inbox in its place, and says whether it has.
    pub(super) fn takes_apart(&mut self, request: Request, demand: &Demand) -> Result<bool, Ended> {
        let verdict = &demand.verdict;
        if verdict.control != Control::Other
            || request.end != End::Query
            || request.streaming > 0
            || verdict.hint.is_some()
            || verdict.effects.has(WHOLE)
            || !matches!(self.hold.transaction, LocalTransaction::No)
            || self.status() != TxStatus::Idle
            || self.hold.is_amid_pipeline()
            || !self.defines(demand)
        {
            return Ok(false);
        }
        let text = self.judge().query_text(request)?;
        let ranges = statement_ranges(text);
        let (classifier, catalog) = (&self.view.snapshot.classifier, self.view.catalog.load());
        let last = ranges.len().saturating_sub(1);
        let fits = |(at, range): (usize, &std::ops::Range<usize>)| match classifier
            .classify(&catalog, &text[range.clone()])
            .control
        {
            Control::Begin { .. } => at == 0,
            Control::Commit => at == last,
            Control::None | Control::Prologue => at > 0 && at < last,
            Control::Rollback | Control::Other => false,
        };
        let Some(behind) = u32::try_from(last).ok().filter(|last| *last > 0) else { return Ok(false) };
        if !ranges.iter().enumerate().all(fits) {
            return Ok(false);
        }
        let mut queries = Vec::with_capacity(request.len + 6 * ranges.len());
        for range in ranges {
            message::query(&mut queries, &text[range]);
        }
        let (before, limit) = (self.client.inbox.len(), self.view.snapshot.limits.request_buffer_total);
        if !self.client.kept.grow_to(before - request.len + queries.len(), limit) {
            return Err(Ended::NoRoom(limit));
        }
        self.client.inbox.replace(request.len, &queries);
        self.under_way.parts = Parts { behind, begun: false };
        Ok(true)
    }

    /// Goes on with the next part of the text under way, if there is any: or drops what is left of it, if one has failed.
    pub(super) fn go_on_with_parts(&mut self) -> Result<(), Ended> {
        let parts = &mut self.under_way.parts;
        if !parts.go_on() {
            *parts = Parts::default();
            return Ok(());
        }
        if !std::mem::replace(&mut parts.begun, true) {
            return Ok(());
        }
        let status = self.status();
        if status == TxStatus::Open {
            self.under_way.parts.behind -= 1;
            return Ok(());
        }
        for _ in 0..std::mem::take(&mut self.under_way.parts).behind {
            let Some(request) = first_request(&self.client.inbox, usize::MAX)? else { break };
            self.client.take_request(request.len);
        }
        if let LocalTransaction::Lost(reply) = &self.hold.transaction {
            // Between two parts, of which nothing was told.
            reply.error(&mut self.client.outbox);
            self.hold.transaction.told(false);
        }
        message::ready(&mut self.client.outbox, status);
        self.flush_now()
    }
}
