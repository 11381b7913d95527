//! A read that has failed for reasons of its server's own, and of which no byte has reached the client, is run once more,
//! on another connection, of the primary. Nothing else is: what may have had an effect, may have it twice.
//!
//! The request's bytes are kept from when they are sent to when the first byte of an answer goes to the client; only of
//! what is proven to read, is in no transaction, and leaves nothing; and only as long as there is room for them
//! (`limits.request_buffer_total`): beyond it the request cannot be run once more. A connection that ends without a word is
//! a reason as well. The statement itself may have brought its server down, which is not to be told from any other end: so
//! nothing is run a third time.

use std::sync::atomic::Ordering;

use super::{
    Session, UnderWay,
    held::Held,
    kept::Kept,
    request::{Request, first_request},
};
use crate::{
    backend::{Broken, protocol::Transient},
    route::Demand,
    sql::Effects,
    wire::read::ErrorFields,
};

/// Effects that only say more of the statement, and leave nothing.
const HARMLESS: Effects = Effects::APP_OBJECTS.with(Effects::BIND_DECIDES);

impl Held<'_> {
    /// Whether the request, which is to be sent, may be run once more.
    /// Of one that is sent in parts it is the rest; what was sent of it before is kept already.
    pub(super) fn may_repeat(&self, request: Request, demand: &Demand) -> bool {
        let effects = demand.verdict.effects.without(HARMLESS);
        let is_whole = request.streaming == 0 && request.end.is_complete();
        self.under_way.only_reads
            && !self.under_way.is_repeated
            && is_whole
            && effects == Effects::NONE
            && !self.leased.is_pinned()
            && !self.leased.is_kept
            && !self.under_way.was_in_transaction
            && !self.own.asks_for_pool()
            && (!self.is_amid_pipeline() || self.has_told_nothing())
    }

    /// Whether the request under way, of which only a part was sent, may still be run once more.
    fn has_told_nothing(&self) -> bool {
        self.under_way.sent.is_some() && self.leased.protocol.has_told_nothing()
    }
}

impl UnderWay {
    /// Keeps what was just sent, behind what was sent of the same request before. `goes_on` if there was anything.
    pub(super) fn keep_sent(&mut self, mut bytes: Vec<u8>, goes_on: bool) {
        let sent = &mut self.sent;
        *sent = match sent.take().filter(|_| goes_on) {
            Some(mut sent) => {
                sent.append(&mut bytes);
                Some(sent)
            }
            None => Some(bytes),
        };
    }

    /// The request is not run once more.
    pub(super) fn forget_sent(&mut self, kept: &mut Kept) {
        self.sent = None;
        kept.forget_sent();
    }
}

impl Session {
    /// Whether the request under way may still be run once more: nothing of an answer was told.
    pub(super) fn has_told_nothing(&self) -> bool {
        self.under_way.sent.is_some()
            && self.hold.backend().is_some_and(|leased| leased.protocol.has_told_nothing())
    }

    /// The request under way begins anew, if it can.
    pub(super) fn repeat(&mut self, reason: Transient) -> bool {
        let Some(sent) = self.under_way.sent.take() else { return false };
        self.own.set_stepping(false);
        self.client.inbox.replace(0, &sent);
        self.client.kept.take_back_sent();
        self.under_way.is_repeated = true;
        if reason == Transient::ReadOnly {
            self.remember_refused();
        }
        self.view.snapshot.metrics.repeats.0[reason as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(reason = reason.label(), "a read is run once more");
        true
    }
}

impl Session {
    /// A replica has refused to run the request, which begins anew: its texts go to the primary from now on.
    fn remember_refused(&mut self) {
        let limit = self.view.snapshot.limits.request_buffer;
        let Ok(Some(request)) = first_request(&self.client.inbox, limit) else { return };
        let catalog = self.view.catalog.load();
        for text in self.judge().texts(request) {
            self.view.snapshot.classifier.refused(&catalog, text);
        }
    }
}

/// Why a connection has ended that has done nothing to deserve it.
pub(super) fn reason_of_end(broken: &Broken, said: Option<&ErrorFields>) -> Option<Transient> {
    match said {
        Some(fields) => Transient::of(fields.code.as_bytes()),
        None if matches!(broken, Broken::Protocol { .. }) => None,
        None => Some(Transient::Lost),
    }
}
