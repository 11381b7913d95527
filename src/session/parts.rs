//! A migration that is one text, `BEGIN; ..; COMMIT`, and defines job objects on both servers: its statements are run one by
//! one, as if they had come so. As a whole it would be committed on the job database, and its locks let go there, before the
//! primary had begun: another starter of the library would go on with what is not there yet.
//!
//! The client is told of the text what it is told on a server: each statement's answer, and that it may go on when the last one
//! is done or one has failed. What stands behind one that has failed is dropped.
//!
//! A text of several statements without BEGIN is one transaction, too, of which its client knows nothing. It is opened on both
//! servers then, and ended behind the last statement, or the one that has failed, before the client is told that it may go on.

use super::{
    Ended, Session,
    held::Held,
    reply::{self, Reply},
    request::{End, Request, first_request},
    transaction::LocalTransaction,
};
use crate::{
    backend::query::Answer,
    route::Demand,
    sql::{Class, Control, Effects, statement_ranges},
    wire::{TxStatus, message},
};

/// Effects of texts that stay whole: what completes them is said behind them.
/// And one with COPY, whose data come behind the text.
const WHOLE: Effects =
    Effects::RESETS.with(Effects::DISCARDS).with(Effects::DISCARDS_SEQUENCES).with(Effects::COPY_IN);

/// The statements of a text that is run in parts, at the start of the inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    /// Statements behind the one that is, or is to be, under way.
    pub(super) behind: u32,
    /// The first one was taken up.
    begun: bool,
    /// The client has not begun the transaction: it is ended behind the last one, which counts as one behind that.
    implicit: bool,
}

impl Parts {
    /// Whether what is under way is not the last part of its text: the client is not told that it may go on.
    pub(super) const fn go_on(self) -> bool {
        self.behind > 0
    }
}

impl Session {
    /// Notes of a part that it belongs to the job database, as all that stands in such a text does, also the lock that keeps
    /// others out.
    pub(super) fn note_part(&self, demand: &mut Demand) {
        if self.under_way.parts.begun && demand.verdict.control == Control::None {
            demand.verdict.class = Class::Job;
        }
    }

    /// Puts the statements of such a text into the inbox in its place, and says whether it has.
    pub(super) fn takes_apart(&mut self, request: Request, demand: &Demand) -> Result<bool, Ended> {
        let verdict = &demand.verdict;
        let implicit = verdict.control == Control::None;
        if !(implicit || verdict.control == Control::Other)
            || request.end != End::Query
            || request.streaming > 0
            || verdict.hint.is_some()
            || verdict.effects.has(WHOLE)
            || !matches!(self.hold.transaction, LocalTransaction::No)
            || self.status() != TxStatus::Idle
            || self.hold.is_amid_pipeline()
            // Of a session that keeps its backend, and of settings, the second server is told with the whole text.
            || (implicit && (self.hold.has_backend() || verdict.effects.has(Effects::SETS)))
            || !self.defines(demand)
        {
            return Ok(false);
        }
        let text = self.judge().query_text(request)?;
        let ranges = statement_ranges(text);
        let (classifier, catalog) = (&self.view.snapshot.classifier, self.view.catalog.load());
        let last = ranges.len().saturating_sub(1);
        let fits = |(at, range): (usize, &std::ops::Range<usize>)| {
            let part = classifier.classify(&catalog, &text[range.clone()]);
            match part.control {
                Control::Begin { .. } => at == 0 && !implicit,
                Control::Commit => at == last,
                // What names no job object is said to both with the whole text only.
                Control::None if implicit => part.class == Class::Job,
                Control::None | Control::Prologue => !implicit && at > 0 && at < last,
                Control::Rollback | Control::Other => false,
            }
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
        self.under_way.parts = Parts { behind: behind + u32::from(implicit), begun: false, implicit };
        if implicit {
            self.hold.transaction = LocalTransaction::begin(b"BEGIN", false);
        }
        Ok(true)
    }

    /// Whether a text is run in parts that is not at its end.
    pub(super) fn has_parts(&mut self) -> bool {
        let parts = &mut self.under_way.parts;
        if !parts.go_on() {
            *parts = Parts::default();
        }
        parts.go_on()
    }

    /// Goes on with the next part of such a text: or drops what is left of it, if one has failed.
    pub(super) async fn go_on_with_parts(&mut self) -> Result<(), Ended> {
        if !std::mem::replace(&mut self.under_way.parts.begun, true) {
            return Ok(());
        }
        let status = self.status();
        let parts = &mut self.under_way.parts;
        let implicit = parts.implicit;
        if status == TxStatus::Open && !(implicit && parts.behind == 1) {
            parts.behind -= 1;
            return Ok(());
        }
        for _ in u32::from(implicit)..std::mem::take(parts).behind {
            let Some(request) = first_request(&self.client.inbox, usize::MAX)? else { break };
            self.client.take_request(request.len);
        }
        if let LocalTransaction::Lost(reply) = &self.hold.transaction {
            // Between two parts, of which nothing was told.
            reply.error(&mut self.client.outbox);
            self.hold.transaction.told(false);
        }
        if implicit {
            Box::pin(self.end_implicit(status)).await?;
        }
        let status = if implicit { self.status() } else { status };
        message::ready(&mut self.client.outbox, status);
        self.flush_now()
    }

    /// Ends a transaction of parts that the client has not begun: commits it on the job database, and then on the primary, unless a
    /// part has failed.
    async fn end_implicit(&mut self, status: TxStatus) -> Result<(), Ended> {
        self.hold.transaction = LocalTransaction::No;
        let refused = if status == TxStatus::Open { self.commit_implicit().await? } else { None };
        if let Some(reply) = refused {
            reply.error(&mut self.client.outbox);
        }
        self.roll_back_both().await?;
        self.settle_across().await
    }

    /// Commits it on both, and returns the error that the client is to be told, if there is any.
    async fn commit_implicit(&mut self) -> Result<Option<Reply>, Ended> {
        let Some(Held { client, leased, .. }) = self.held_if_any() else { return Ok(None) };
        // Others are kept out until the primary has committed, too.
        if let Err(reply) = leased.keep_locks().await {
            return Ok(Some(reply));
        }
        match leased.commit().await {
            Ok(Answer { error: Some(fields), .. }) if leased.protocol.quiescent().is_some() => {
                return Ok(Some(Reply::from_server(&fields)));
            }
            // The server has ended the connection: it may have done so behind the COMMIT.
            Ok(Answer { error: Some(_), .. }) => {
                let broken = leased.given_up("it has not said what became of a COMMIT");
                let reply = reply::commit_unknown(&broken, None);
                self.end_lease(broken)?;
                return Ok(Some(reply));
            }
            Ok(answer) => client.outbox.extend_from_slice(&answer.notices),
            Err(broken) => {
                let reply = reply::commit_unknown(&broken, None);
                self.end_lease(broken)?;
                return Ok(Some(reply));
            }
        }
        let is_done = !self.hold.is_both() || self.end_other("COMMIT").await?;
        Ok((!is_done).then(reply::definitions_only_there))
    }
}
