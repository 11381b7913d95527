//! Counting what a request has come to: for metrics, for the statistics of statements, and for the log of slow ones and of
//! sessions that end.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::{
    Ended, Session,
    held::Held,
    hold::{Hold, Leased},
    kinds::LEAVES_STATE,
    request::Request,
    tally::Totals,
};
use crate::{
    backend::probe::PinReason,
    clock::{self, Moment},
    route::{Demand, PoolId},
    shared::{counters::Requests, queries::By},
    sql::{Class, Reason, TextId, Verdict},
    wire::TxStatus,
};

/// Bytes of a request's values that the log of slow statements shows.
const VALUES_BYTES: usize = 1024;

impl Session {
    /// The session begins: its work is noted if its end is to be logged.
    pub(super) fn note_begin(&mut self) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.under_way.tally().totals = Some(Box::new(Totals {
                began: clock::last_tick(),
                requests: 0,
                errors: 0,
                received_bytes: 0,
                sent_bytes: 0,
                waited: Duration::ZERO,
                pools: 0,
            }));
        }
    }

    /// A request has come.
    pub(crate) fn note_arrival(&mut self) {
        let tally = self.under_way.tally();
        if !tally.has_begun {
            tally.began = Some(clock::last_tick());
        }
    }

    /// Counts bytes that the client has sent.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.view.snapshot.metrics.traffic.count_received(bytes);
        if let Some(totals) = self.under_way.tally.as_mut().and_then(|tally| tally.totals.as_mut()) {
            totals.received_bytes += bytes as u64;
        }
    }

    /// Counts bytes that the client was sent.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.view.snapshot.metrics.traffic.count_sent(bytes);
        if let Some(totals) = self.under_way.tally.as_mut().and_then(|tally| tally.totals.as_mut()) {
            totals.sent_bytes += bytes as u64;
        }
    }

    /// The counters of the pool that has just served the request.
    fn requests(&self) -> Option<&Requests> {
        self.own.last.map(|(pool, ..)| &*self.view.snapshot.requests[usize::from(pool.0)])
    }
}

impl Held<'_> {
    /// The counters of the pool that serves the request.
    fn requests(&self) -> &Requests {
        &self.view.snapshot.requests[usize::from(self.leased.pool.0)]
    }

    /// Counts a request for the metrics, and notes where it begins.
    pub(super) fn count(&mut self, request: Request, demand: &Demand) {
        if demand.statements > 0 && !self.under_way.tally().has_begun {
            self.requests().count(demand.verdict.class, demand.verdict.reason);
        }
        let was_pinned = self.leased.is_pinned();
        let is_part = self.leased.usage.transaction.is_some();
        let goes_on = if demand.statements == 0 { self.leased.usage.last } else { None };
        let shows_values = self.view.snapshot.slow.logs_values() && shows_values(demand.verdict.reason);
        let values = shows_values.then(|| self.values(request));
        let tally = self.under_way.tally();
        (tally.was_pinned, tally.is_part, tally.goes_on) = (was_pinned, is_part, goes_on);
        tally.prepares = request.is_extended() && !request.about.portals;
        if values.is_some() {
            tally.values = values;
        }
    }

    /// Counts a transaction, if one begins on the backend that the session has kept.
    fn count_again(&mut self) {
        if !self.leased.goes_on() {
            self.leased.usage.transaction = None;
            self.requests().count_again();
        }
    }

    /// Counts a request that runs on the backend that its session holds.
    pub(super) fn stays(&mut self, demand: &Demand) {
        self.count_again();
        self.count_held_read(demand);
    }

    /// The literals and values of a request, as far as there is room for them.
    fn values(&self, request: Request) -> Box<str> {
        let mut values = String::new();
        let judge = self.judge();
        if !request.is_extended() {
            let text = judge.query_text(request).unwrap_or_default();
            values.push_str(&String::from_utf8_lossy(&text[..text.len().min(VALUES_BYTES)]));
        }
        judge.for_each_bound_value(request, |value| {
            if values.len() < VALUES_BYTES {
                let value = String::from_utf8_lossy(&value[..value.len().min(VALUES_BYTES - values.len())]);
                let comma = if values.is_empty() { "" } else { ", " };
                let _ = write!(values, "{comma}{value:?}");
            }
        });
        values.into()
    }
}

impl Leased {
    /// Whether what was sent to it last is part of a transaction, or a pipeline, that goes on.
    fn goes_on(&self) -> bool {
        self.protocol.status() != TxStatus::Idle || self.protocol.is_open()
    }

    /// Notes that a request that it has run is part of a transaction that goes on, if it does: whether it does. The first of
    /// them gives its class, unless that was neutral.
    fn note_part(&mut self, start: Moment, class: Class) -> bool {
        if !self.goes_on() {
            return false;
        }
        let (_, of_first) = self.usage.transaction.get_or_insert((start, class));
        if *of_first == Class::Neutral {
            *of_first = class;
        }
        true
    }
}

impl Session {
    /// Notes how long a request took, and what has come of it; and its transaction, if that has ended with it, unless that was
    /// noted when the backend was given back.
    pub(crate) fn took(&mut self, demand: &Demand) {
        let tally = self.under_way.tally();
        if tally.has_begun && !tally.failed {
            return;
        }
        let start = self.under_way.tally().arrival();
        let class = demand.verdict.class;
        let goes_on = self.held_if_any().is_some_and(|held| held.leased.note_part(start, class));
        let is_part = goes_on || self.under_way.tally().is_part;
        self.note_took(demand, start, is_part);
        if !goes_on && let Some(Held { leased, view, .. }) = self.held_if_any() {
            leased.note_transaction(&view.snapshot);
        }
    }

    #[inline]
    fn note_took(&mut self, demand: &Demand, start: Moment, is_part: bool) {
        let pool = self.own.last.map(|(pool, ..)| pool);
        if demand.statements == 0 {
            if let Some(verdict) = self.under_way.tally().goes_on() {
                self.note_ran((&verdict, true), pool, clock::since(start));
            } else {
                self.under_way.tally().end(pool);
            }
            return;
        }
        let (class, took) = (demand.verdict.class, clock::since(start));
        if let Some(requests) = self.requests() {
            if is_part { requests.note_part(class, took) } else { requests.note_whole(class, took) }
        }
        // What is run once more is noted then.
        if !self.under_way.is_repeated {
            self.note_ran((&demand.verdict, false), pool, took);
        }
    }

    /// Notes that a request was refused.
    pub(crate) fn took_in_vain(&mut self, demand: &Demand) {
        let tally = self.under_way.tally();
        let took = clock::since(tally.arrival());
        tally.failed = true;
        let pool = tally.pool.or(self.own.last.map(|(pool, ..)| pool));
        if demand.statements > 0 {
            self.note_ran((&demand.verdict, false), pool, took);
        } else {
            self.under_way.tally().end(pool);
        }
    }

    /// Notes what has come of a request, or of one that fetches more of another one's rows.
    fn note_ran(&mut self, (verdict, goes_on): (&Verdict, bool), pool: Option<PoolId>, took: Duration) {
        let Self { who, view, own, hold: Hold { leased, .. }, under_way, .. } = self;
        let tally = under_way.tally();
        let snapshot = &view.snapshot;
        let (queries, slow) = (&snapshot.queries, &snapshot.slow);
        if let Some(pool) = pool
            && let Some(named) = snapshot.pools.get(usize::from(pool.0))
        {
            let by = By { identity: &who.identity, pool, pool_name: &named.name };
            if !tally.prepares || tally.failed {
                let ran = tally.ran(took, goes_on);
                queries.record(verdict, by, &ran);
                if slow.wants(took) {
                    let name = own.settings.get("application_name").unwrap_or_default();
                    let text = || queries.text(verdict).unwrap_or_else(|| Arc::from("(not known)"));
                    slow.note((verdict, by, &ran), name, tally.values.as_deref(), text);
                }
            }
            if let Some(leased) = leased.as_ref().filter(|_| !tally.was_pinned)
                && let Some(reason) = leased.new_pin()
            {
                queries.pinned(leased.culprit(verdict), verdict, by, reason);
            }
        }
        if let Some(leased) = leased {
            if verdict.effects.has(LEAVES_STATE) {
                leased.usage.suspect = verdict.text;
            }
            leased.usage.last = Some((verdict.text, verdict.class, verdict.reason));
        }
        tally.end(pool);
    }

    /// Tells the log of the session's end, with its work.
    pub(super) fn log_work(&self, ended: &Ended) {
        let (user, database) = (&self.who.identity.user, &self.who.identity.database);
        let Some(totals) = self.under_way.tally.as_ref().and_then(|tally| tally.totals.as_ref()) else {
            tracing::debug!(user, database, %ended, "a session ended");
            return;
        };
        let pools = self.view.snapshot.pools.iter().enumerate();
        let served = pools.filter(|(at, _)| totals.pools & (1 << (at % 64)) != 0);
        let pools: Vec<&str> = served.map(|(_, pool)| pool.name.as_str()).collect();
        tracing::debug!(
            user,
            database,
            peer = self.client.socket.peer(),
            lasted_ms = totals.began.elapsed().as_millis() as u64,
            requests = totals.requests,
            errors = totals.errors,
            received_bytes = totals.received_bytes,
            sent_bytes = totals.sent_bytes,
            waited_ms = totals.waited.as_millis() as u64,
            pools = pools.join(","),
            %ended,
            "a session ended"
        );
    }
}

/// Whether the values of a statement may be logged, if that is asked for: not those of one that may set a password, or of which
/// it is not known what it does.
const fn shows_values(reason: Reason) -> bool {
    use Reason::{NoObject, OldStrings, TooLong, Unparsed, Utility};
    !matches!(reason, NoObject | OldStrings | TooLong | Unparsed | Utility)
}

impl Leased {
    /// Why it is kept beyond its transaction, if a statement is to blame.
    fn new_pin(&self) -> Option<PinReason> {
        self.pin.as_ref().map(|pin| pin.reason).filter(|reason| *reason != PinReason::SessionMode)
    }

    /// The text by which the session has become pinned behind a request.
    fn culprit(&self, verdict: &Verdict) -> TextId {
        let is_innocent = !verdict.effects.has(LEAVES_STATE) && self.usage.suspect != TextId::NONE;
        if is_innocent { self.usage.suspect } else { verdict.text }
    }
}
